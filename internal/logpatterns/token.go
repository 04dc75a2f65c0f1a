// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

const (
	// maxTokens of a message are told apart; what follows is one hole.
	maxTokens = 120
	// maxWord is the length of the longest word that is kept; a longer one is a hole.
	maxWord = 40
	// maxQuoted is that of a text in quotes.
	maxQuoted = 120
	// maxRepeat is the length of the longest group of tokens of which repetitions are found.
	maxRepeat = 6
)

type tokenKind uint8

const (
	tokenWord tokenKind = iota
	tokenHole           // variable
	tokenSign           // punctuation
)

// token is a part of a message.
type token struct {
	hash     uint64    // of a word
	from, to int32     // of a word or a sign, in the text
	id       uint32    // of a word in the words of the miner, 0 for none
	known    wordFlags // see flags
	sign     uint16    // the byte, and signTwice
	kind     tokenKind
	space    bool // stands behind blanks
	made     bool // the text is in tokenizer.made
}

// signTwice is for a sign that is there two times or more.
const signTwice = 1 << 8

// tokenizer takes messages apart. It keeps nothing between messages.
type tokenizer struct {
	words  *words
	text   []byte
	made   []byte // texts of lists, with one blank behind each comma
	all    [maxTokens + 8]token
	n      int
	after  byte // what stands behind the word that is taken in, 0 for nothing
	open   byte // kinds of quotations that are not closed
	colons bool // there are two at least
}

// textOf a word.
func (z *tokenizer) textOf(t *token) []byte {
	if t.made {
		return z.made[t.from:t.to]
	}
	return z.text[t.from:t.to]
}

// tokenize makes tokens of text. They are valid until the next call.
func (z *tokenizer) tokenize(text []byte) []token {
	z.text, z.made, z.n, z.open = text, z.made[:0], 0, 0
	first := bytes.IndexByte(text, ':')
	z.colons = first >= 0 && bytes.IndexByte(text[first+1:], ':') >= 0
	z.part(0, len(text))
	z.all[0].space = false
	z.collapse()
	z.joinLists()
	return z.all[:z.n]
}

// part takes in the text in [i, end).
func (z *tokenizer) part(i, end int) {
	t := z.text[:end]
	space := false
	for i < end {
		if z.n >= maxTokens {
			z.addHole(space)
			return
		}
		c := t[i]
		switch classes[c] {
		case classBlank:
			space = true
			i++
			continue
		case classSign:
			if c == '<' && i+2 < len(t) && t[i+1] == '*' && t[i+2] == '>' { // of a template
				z.addHole(space)
				i, space = i+3, false
				continue
			}
			if c == ':' && i+1 < len(t) && t[i+1] == ':' {
				if j := colonsEnd(t, i); j > 0 {
					z.addHole(space)
					i, space = j, false
					continue
				}
			}
			i = z.signs(t, i, space)
			space = false
			continue
		}
		if c == '\'' && (i == 0 || classes[t[i-1]]&classAlnum == 0) {
			if j := z.closing(t, i, c); j > 0 {
				z.addQuoted(i+1, j, c, space)
				i, space = j+1, false
				continue
			}
		}
		if upperByte(c) && (i == 0 || classes[t[i-1]]&classWord == 0) && beginsSQL(t[i:]) {
			z.addHole(space)
			return
		}
		j := 0
		if z.colons {
			j = colonsEnd(t, i)
		}
		if j == 0 && z.n > 0 && z.namesSecret(space) {
			j = secretEnd(t, i)
		}
		if j > 0 {
			z.after = 0
			z.addHole(space)
			i, space = j, false
			continue
		}
		i = z.word(t, i, space)
		space = false
	}
}

// signs takes in a sign, and what it encloses or brings with it. It returns where to go on.
func (z *tokenizer) signs(t []byte, i int, space bool) int {
	c := t[i]
	switch c {
	case '"', '`':
		j := z.closing(t, i, c)
		if j < 0 {
			break
		}
		if i == 0 && j+1 < len(t) && bytes.IndexByte(t[:j], ' ') > 0 { // the message itself is quoted, values follow
			z.addSign('"', false)
			z.part(1, j)
			z.addSign('"', false)
			return j + 1
		}
		z.addQuoted(i+1, j, c, space)
		return j + 1
	case '{', '[':
		if j := balanced(t, i); j > i+1 && isValue(t[i+1:j], c) {
			z.addSign(uint16(c), space)
			z.push(token{kind: tokenHole})
			z.push(token{kind: tokenSign, sign: uint16(t[j])})
			return j + 1
		} else if c == '[' && j > i+1 && j-i < maxWord && isPhrase(t[i+1:j]) {
			z.addSign('[', space)
			z.pushText(i+1, j)
			z.addSign(']', false)
			return j + 1
		}
	case '=':
		if z.isHole(1) && !space && (i+1 == len(t) || t[i+1] == '=' || classes[t[i+1]] == classBlank) { // of base64
			return i + 1
		}
		if i+1 < len(t) && i > 0 && classes[t[i-1]]&classAlnum != 0 && t[i+1] != '=' && t[i+1] != '"' && classes[t[i+1]] != classBlank {
			if j := valueEnd(t, i+1); j > i+1 && !z.isKindKey() {
				z.addSign('=', space)
				z.push(token{kind: tokenHole})
				return j
			}
		}
	}
	z.addSign(uint16(c), space)
	return i + 1
}

// isKindKey tells whether the last token is the key of a value that says what the line is.
func (z *tokenizer) isKindKey() bool {
	return z.n > 0 && z.flags(z.last(1))&isKind != 0
}

// word takes in a word, or what looks like one, and returns where to go on.
func (z *tokenizer) word(t []byte, i int, space bool) int {
	j := i
	for j < len(t) && classes[t[j]] == classLetter {
		j++
	}
	if j == len(t) || classes[t[j]] == classBlank { // as most are
		if w := t[i:j]; j > i && len(w) <= maxWord && !isLettersOfKey(w) {
			z.after = 0
			if j < len(t) {
				z.after = t[j]
			}
			z.addWord(t, i, j, j, space)
			return j
		}
	}
	j = i
	var seen byte
	letters, slashes, dots, at := 0, 0, 0, false
scan:
	for j < len(t) {
		c := t[j]
		class := classes[c]
		switch {
		case class == classLetter:
			letters++
		case class == classDigit:
		case class&classJoin != 0:
			switch c {
			case '.':
				if j+1 < len(t) && t[j+1] == '.' {
					break scan
				}
				if j > i && classes[t[j-1]]&classAlnum != 0 && j+1 < len(t) && classes[t[j+1]]&classAlnum != 0 {
					dots++
				}
			case '/', '\\':
				slashes++
			case '@':
				at = true
			}
		case c == ':' && j > i && t[j-1] == '/' && slashes > 0: // a part of a path: /users/:id
			class = 0
		case c == ':' && j+2 < len(t) && t[j+1] == '/' && t[j+2] == '/': // a URL
			for j < len(t) && classes[t[j]] != classBlank && !bytes.ContainsRune([]byte("\")]>"), rune(t[j])) {
				j++
			}
			z.addHole(space)
			return j
		default:
			break scan
		}
		seen |= class
		j++
	}
	if j == i { // dots
		for j < len(t) && t[j] == '.' {
			j++
		}
		z.addSign('.'|signTwice, space)
		return j
	}
	w := t[i:j]
	end := len(w)
	for end > 1 && (w[end-1] == '.' || w[end-1] == '\'' || w[end-1] == '-') {
		end--
	}
	if end < len(w) && hasAlnum(w[:end]) {
		w = w[:end]
	}
	tail := t[i+len(w) : j]
	z.after = 0
	if j < len(t) {
		z.after = t[j]
	}
	if at && (letters > 1 || seen&classDigit != 0) && !space {
		z.dropPassword()
	}
	digitFollows := j+1 < len(t) && t[j] == ':' && classes[t[j+1]] == classDigit
	switch {
	case letters == 0 && seen&classDigit == 0:
		if len(w) == 1 && w[0] == '/' && (j == len(t) || classes[t[j]] != classBlank) {
			z.addHole(space)
			break
		}
		z.addSigns(w, space)
	case seen&classDigit != 0, slashes > 1, slashes == 1 && w[0] == '/', at && letters > 1, dots > 1,
		digitFollows && (dots > 0 || isHost(w, letters)), len(w) > maxWord, isLettersOfKey(w):
		z.addHole(space)
	default:
		z.addWord(t, i, i+len(w), j, space)
	}
	z.addSigns(tail, false)
	return j
}

// addSigns takes in signs; several that are the same are one.
func (z *tokenizer) addSigns(b []byte, space bool) {
	for i := 0; i < len(b); space = false {
		sign, j := uint16(b[i]), i+1
		for ; j < len(b) && b[j] == b[i]; j++ {
			sign |= signTwice
		}
		z.addSign(sign, space)
		i = j
	}
}

// flagged is in what is known of a word once it was looked up.
const flagged wordFlags = 1 << 15

// flags tells what is known of a word.
func (z *tokenizer) flags(t *token) wordFlags {
	switch {
	case t.kind != tokenWord:
		return 0
	case t.id != 0:
		return z.words.list[t.id-1].flags
	case t.known&flagged == 0:
		t.known = flagsOf(z.textOf(t)) | flagged
	}
	return t.known &^ flagged
}

func (z *tokenizer) push(t token) {
	if z.n < len(z.all) {
		z.all[z.n] = t
		z.n++
	}
}

// last is the nth token from the end, counted from 1.
func (z *tokenizer) last(n int) *token { return &z.all[z.n-n] }

// isSign tells whether the nth token from the end is one of some signs.
func (z *tokenizer) isSign(n int, signs string) bool {
	return z.n >= n && z.last(n).kind == tokenSign && z.last(n).sign < signTwice && bytes.IndexByte([]byte(signs), byte(z.last(n).sign)) >= 0
}

func (z *tokenizer) isHole(n int) bool { return z.n >= n && z.last(n).kind == tokenHole }

// addHole takes in something variable. Holes beside each other are one.
func (z *tokenizer) addHole(space bool) {
	for z.n > 0 && z.flags(z.last(1))&isDate != 0 {
		space = z.last(1).space
		z.n--
	}
	if z.isHole(1) {
		return
	}
	if z.isSign(1, ":") && z.isSign(2, ":") && z.isHole(3) { // IPv6
		z.n -= 2
		return
	}
	if z.isSign(1, ",:.-/") && z.isHole(2) {
		z.n--
		return
	}
	if !space && z.isSign(1, "-+#<>~") && (z.after != '>' || !z.isSign(1, "<")) {
		space = z.last(1).space
		z.n--
	}
	z.push(token{kind: tokenHole, space: space})
}

// addWord takes in the word in [from, to); what is behind it begins at next.
func (z *tokenizer) addWord(t []byte, from, to, next int, space bool) {
	w := token{kind: tokenWord, from: int32(from), to: int32(to), space: space} //nolint:gosec // lines are shorter
	text := t[from:to]
	w.hash = hashBytes(text)
	w.id = z.words.find(w.hash, text)
	switch {
	case z.isHole(1) && isUnitWord(text, z.flags(&w)) && (next >= len(t) || t[next] != '='):
		return
	case !space && len(text) <= 4 && z.isSign(1, ":") && isHex(text) && (z.isHole(2) || z.isSign(2, ":") && z.isHole(3)):
		z.addHole(false) // of an IPv6 or MAC address
		return
	case upperByte(text[0]) && next < len(t) && t[next] == ' ' && z.flags(&w)&isMethod != 0:
		e := next
		for e < len(t) && t[e] == ' ' {
			e++
		}
		if e < len(t) && (t[e] == '/' || bytes.HasPrefix(t[e:], []byte("http"))) {
			z.addHole(space)
			return
		}
	}
	z.push(w)
}

// addSign takes in a sign. Empty brackets behind a hole, and a number in brackets behind another, are part of that.
func (z *tokenizer) addSign(sign uint16, space bool) {
	if sign == ')' {
		if z.isSign(1, "(") && z.isHole(2) {
			z.n--
			return
		}
		if z.isHole(1) && z.isSign(2, "(") && z.isHole(3) {
			z.n -= 2
			return
		}
	}
	z.push(token{kind: tokenSign, sign: sign, space: space})
}

// addQuoted takes in what stands in quotes. It is one word, however many there are, unless it is a hole.
func (z *tokenizer) addQuoted(from, to int, quote byte, space bool) {
	z.push(token{kind: tokenSign, sign: uint16(quote), space: space})
	in := z.text[from:to]
	if len(in) > maxQuoted || bytes.ContainsAny(in, "0123456789/\\@=") || z.n > 1 && z.namesSecret(false) || isLettersOfKey(in) || hasSecret(in) {
		z.push(token{kind: tokenHole})
	} else {
		z.pushText(from, to)
	}
	z.push(token{kind: tokenSign, sign: uint16(quote)})
}

// pushText takes in what stands in [from, to) as one word.
func (z *tokenizer) pushText(from, to int) {
	w := token{kind: tokenWord, from: int32(from), to: int32(to), hash: hashBytes(z.text[from:to])} //nolint:gosec // lines are shorter
	w.id = z.words.find(w.hash, z.text[from:to])
	z.push(w)
}

// render writes tokens as words.render writes codes.
func (z *tokenizer) render(tokens []token) (b []byte) {
	for i := range tokens {
		t := &tokens[i]
		if t.space && i > 0 {
			b = append(b, ' ')
		}
		switch t.kind {
		case tokenWord:
			b = append(b, z.textOf(t)...)
		case tokenHole:
			b = append(b, "<*>"...)
		default:
			b = appendSign(b, t.sign)
		}
	}
	return b
}

func appendSign(b []byte, sign uint16) []byte {
	b = append(b, byte(sign))
	if sign&signTwice != 0 {
		b = append(b, byte(sign))
	}
	return b
}
