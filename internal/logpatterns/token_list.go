// SPDX-License-Identifier: Apache-2.0

package logpatterns

func (z *tokenizer) isEqual(a, b *token) bool {
	return a.kind == b.kind && a.sign == b.sign && a.hash == b.hash
}

// collapse makes one of groups of tokens that are repeated, such as the elements of a list.
func (z *tokenizer) collapse() {
	holes := 0
	for i := range z.n {
		if z.all[i].kind == tokenHole {
			holes++
		}
	}
	if holes < 2 {
		return
	}
	for p := 1; p <= maxRepeat; p++ {
		for i := 0; i+2*p <= z.n; {
			if !z.isRepeated(i, p) {
				i++
				continue
			}
			copy(z.all[i+p:], z.all[i+2*p:z.n])
			z.n -= p
		}
	}
}

// isRepeated tells whether the p tokens at i are there twice, and have a hole.
func (z *tokenizer) isRepeated(i, p int) bool {
	hole := false
	for j := i; j < i+p; j++ {
		a, b := &z.all[j], &z.all[j+p]
		if !z.isEqual(a, b) {
			return false
		}
		hole = hole || a.kind == tokenHole
		if a.kind == tokenSign && (a.sign == '"' || a.sign == '\'' || a.sign == '(' || a.sign == ')') {
			return false
		}
	}
	return hole
}

// joinLists makes one word of words between commas.
func (z *tokenizer) joinLists() {
	n := 0
	for i := 0; i < z.n; i++ {
		j := i
		for z.isListed(j) {
			j += 2
		}
		if j == i+2 && (n == 0 || z.all[n-1].kind != tokenSign) { // words of a sentence
			j = i
		}
		if j > i && j+1 < z.n && z.all[j+1].kind == tokenSign && (z.all[j+1].sign == ':' || z.all[j+1].sign == '=' || z.all[j+1].sign == '(') {
			j -= 2
		}
		z.all[n] = z.all[i]
		if j > i {
			z.all[n] = z.list(i, j)
		}
		n++
		i = j
	}
	z.n = n
}

// isListed tells whether the token at i and the one behind the next are words with a comma in between.
func (z *tokenizer) isListed(i int) bool {
	return i+2 < z.n && z.all[i].kind == tokenWord && z.all[i+1].kind == tokenSign && z.all[i+1].sign == ',' && z.all[i+2].kind == tokenWord
}

func (z *tokenizer) list(i, j int) token {
	w := z.all[i]
	from := len(z.made)
	for k := i; k <= j; k += 2 {
		if k > i {
			z.made = append(z.made, ", "...)
		}
		z.made = append(z.made, z.textOf(&z.all[k])...)
	}
	if len(z.made)-from > maxQuoted {
		return token{kind: tokenHole, space: w.space}
	}
	text := z.made[from:]
	w.made, w.known, w.from, w.to = true, 0, int32(from), int32(len(z.made)) //nolint:gosec // lines are shorter
	w.hash = hashBytes(text)
	w.id = z.words.find(w.hash, text)
	return w
}
