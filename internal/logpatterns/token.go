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
}

// signTwice is for a sign that is there two times or more.
const signTwice = 1 << 8

// tokenizer takes messages apart. It keeps nothing between messages.
type tokenizer struct {
	words *words
	text  []byte
	all   [maxTokens + 8]token
	n     int
}

// tokenize makes tokens of text. They are valid until the next call.
func (z *tokenizer) tokenize(text []byte) []token {
	z.text, z.n = text, 0
	z.part(0, len(text))
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
			i = z.signs(t, i, space)
			space = false
			continue
		}
		if c == '\'' && (i == 0 || classes[t[i-1]]&classAlnum == 0) {
			if j := closing(t, i, c); j > 0 {
				z.addQuoted(i+1, j, c, space)
				i, space = j+1, false
				continue
			}
		}
		if isUpper(c) && (i == 0 || classes[t[i-1]]&classWord == 0) && beginsSQL(t[i:]) {
			z.addHole(space)
			return
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
		j := closing(t, i, c)
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
		}
	case '=':
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
	digitFollows := j+1 < len(t) && t[j] == ':' && classes[t[j+1]] == classDigit
	switch {
	case letters == 0 && seen&classDigit == 0:
		if len(w) == 1 && w[0] == '/' && (j == len(t) || classes[t[j]] != classBlank) {
			z.addHole(space)
			break
		}
		sign := uint16(w[0])
		if len(w) > 1 {
			sign |= signTwice
		}
		z.addSign(sign, space)
	case seen&classDigit != 0, slashes > 1, slashes == 1 && w[0] == '/', at && letters > 1, dots > 1,
		digitFollows && (dots > 0 || isHost(w, letters)), len(w) > maxWord, isMixed(w, seen):
		z.addHole(space)
	default:
		z.addWord(t, i, i+len(w), j, space)
	}
	if len(tail) > 0 {
		sign := uint16(tail[0])
		if len(tail) > 1 {
			sign |= signTwice
		}
		z.addSign(sign, false)
	}
	return j
}

// isHost tells whether a word before a port is the name of a host.
func isHost(w []byte, letters int) bool {
	return letters > 2 && bytes.IndexByte(w, '-') >= 0 || string(w) == "localhost"
}

// isMixed tells whether a long word changes between small and capital letters as base64 does.
func isMixed(w []byte, seen byte) bool {
	if len(w) < 20 || seen&classJoin != 0 {
		return false
	}
	ups, changes := 0, 0
	for i := 1; i < len(w); i++ {
		if isUpper(w[i]) {
			ups++
			if !isUpper(w[i-1]) {
				changes++
			}
		}
	}
	return changes*4 > len(w) || ups > len(w)/3 && changes > 3
}

func hasAlnum(b []byte) bool {
	for _, c := range b {
		if classes[c]&classAlnum != 0 {
			return true
		}
	}
	return false
}

// closing finds the end of the quotation that begins at i. An apostrophe within a word ends none.
func closing(t []byte, i int, quote byte) int {
	for j := i + 1; j < len(t); j++ {
		switch {
		case t[j] == '\\':
			j++
		case t[j] == quote && (j+1 == len(t) || classes[t[j+1]]&classAlnum == 0):
			return j
		}
	}
	return -1
}

// balanced finds the bracket that closes the one at i.
func balanced(t []byte, i int) int {
	depth := 0
	for j := i; j < len(t); j++ {
		switch t[j] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return j
			}
		}
	}
	return -1
}

// isValue tells whether what stands in brackets is a value or a list of such, and no words of the message.
func isValue(in []byte, bracket byte) bool {
	if bracket == '{' {
		return bytes.ContainsAny(in, ":=,\"")
	}
	if bytes.ContainsAny(in, ",\"'=:") {
		return true
	}
	words, long, odd := 0, 0, false
	for i := 0; i <= len(in); i++ {
		switch {
		case i < len(in) && classes[in[i]] == classLetter && in[i] != '_':
			long++
		case i < len(in) && classes[in[i]] != classBlank:
			odd = true
		default:
			if long > 2 && !odd {
				words++
			}
			long, odd = 0, false
		}
	}
	return words < 2 && bytes.ContainsAny(in, " 0123456789/")
}

// valueEnd finds the end of the value of a key.
func valueEnd(t []byte, i int) int {
	depth := 0
	for j := i; j < len(t); j++ {
		switch c := t[j]; c {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth == 0 {
				return j
			}
			depth--
		case ',', ';', '&', '"', ' ', '\t', '\n', '\r', '\v', '\f':
			if depth == 0 {
				return j
			}
		}
	}
	if depth == 0 {
		return len(t)
	}
	for j := i; j < len(t); j++ { // a bracket is not closed
		if classes[t[j]] == classBlank || t[j] == ',' {
			return j
		}
	}
	return len(t)
}

// beginsSQL tells whether a statement begins. It goes on to the end of the message.
func beginsSQL(t []byte) bool {
	has := func(prefix, inside string) bool {
		return len(t) > len(prefix) && string(t[:len(prefix)]) == prefix && (inside == "" || bytes.Contains(t, []byte(inside)))
	}
	switch t[0] {
	case 'S':
		return has("SELECT ", "")
	case 'I':
		return has("INSERT INTO ", "")
	case 'D':
		return has("DELETE FROM ", "") || has("DROP TABLE ", "") || has("DROP INDEX ", "")
	case 'U':
		return has("UPDATE ", " SET ")
	case 'W':
		return has("WITH ", " AS (")
	case 'C':
		return has("CREATE TABLE ", "") || has("CREATE INDEX ", "") || has("CREATE UNIQUE INDEX ", "")
	case 'A':
		return has("ALTER TABLE ", "")
	case 'T':
		return has("TRUNCATE TABLE ", "")
	case 'R':
		return has("REPLACE INTO ", "")
	case 'M':
		return has("MERGE INTO ", "")
	}
	return false
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
		t.known = flagsOf(z.text[t.from:t.to]) | flagged
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
	if !space && z.isSign(1, "-+#<>~") {
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
	case z.namesSecret():
		z.addHole(space)
		return
	case isUpper(text[0]) && next < len(t) && t[next] == ' ' && z.flags(&w)&isMethod != 0:
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

// namesSecret tells whether the last tokens are the name of a secret, of which the value follows.
func (z *tokenizer) namesSecret() bool {
	n := 1
	if z.isSign(1, "\"'`") {
		n = 2
	}
	if z.isSign(n, ":=") && z.n > n {
		return z.flags(z.last(n+1))&isSecret != 0
	}
	if z.n >= n && z.last(n).kind == tokenWord && z.last(n).to-z.last(n).from == 6 {
		return bytes.EqualFold(z.text[z.last(n).from:z.last(n).to], []byte("bearer"))
	}
	return false
}

func isHex(w []byte) bool {
	for _, c := range w {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return true
}

// isUnitWord takes MiB/s as well as MiB.
func isUnitWord(w []byte, flags wordFlags) bool {
	i := bytes.IndexByte(w, '/')
	if i < 0 {
		return flags&isUnit != 0
	}
	return isLexical(w[:i], isUnit) && isLexical(w[i+1:], isUnit)
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
	if len(in) > maxQuoted || bytes.ContainsAny(in, "0123456789/\\@=") || z.namesSecret() {
		z.push(token{kind: tokenHole})
	} else {
		w := token{kind: tokenWord, from: int32(from), to: int32(to), hash: hashBytes(in)} //nolint:gosec // lines are shorter
		w.id = z.words.find(w.hash, in)
		z.push(w)
	}
	z.push(token{kind: tokenSign, sign: uint16(quote)})
}

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

// joinLists makes one word of words between commas, and a hole if one of them is.
func (z *tokenizer) joinLists() {
	n := 0
	for i := 0; i < z.n; i++ {
		j := i
		if z.all[i].kind != tokenSign {
			for j+2 < z.n && z.all[j+1].kind == tokenSign && z.all[j+1].sign == ',' && z.all[j+2].kind != tokenSign {
				j += 2
			}
			if j > i && j+1 < z.n && z.all[j+1].kind == tokenSign && (z.all[j+1].sign == ':' || z.all[j+1].sign == '=' || z.all[j+1].sign == '(') {
				j -= 2
			}
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

func (z *tokenizer) list(i, j int) token {
	hole := token{kind: tokenHole, space: z.all[i].space}
	for k := i; k <= j; k += 2 {
		if z.all[k].kind == tokenHole {
			return hole
		}
	}
	w := z.all[i]
	w.to, w.known = z.all[j].to, 0
	text := z.text[w.from:w.to]
	if len(text) > maxQuoted {
		return hole
	}
	w.hash = hashBytes(text)
	w.id = z.words.find(w.hash, text)
	return w
}
