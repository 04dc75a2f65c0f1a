// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

// gapKind is what a word between a time and a level can be.
type gapKind uint8

const (
	gapNone   gapKind = iota
	gapNumber         // a process or a thread
	gapGroup          // [thread], {file:12}, (thread)
	gapName           // a name with signs that sentences do not have
	gapPair           // pid=1
	gapUpper          // a word in capitals
	gapWord           // any other word
)

// gap looks behind a time for a level that other parts of the header precede.
func (h *headerScan) gap(p int) bool {
	if h.times == 0 || h.levelled {
		return false
	}
	limit := min(len(h.b), p+headerReach)
	numbers, before := 0, gapNone
	for range 8 {
		end, kind := h.gapWord(p)
		if kind == gapNone {
			return false
		}
		if kind == gapNumber {
			numbers++
		}
		marked := end < len(h.b) && h.b[end] == '\t'
		q := h.gapSeparators(end)
		if q >= limit {
			return false
		}
		marked = marked || q > end && !blankByte(h.b[q-2]) && !blankByte(h.b[q-1]) || q-end >= 3 && h.b[q-1] == ' ' && h.b[q-2] != ' '
		if h.gapLevel(q, kind, before, numbers, marked) {
			return true
		}
		if kind == gapWord && !marked {
			return false
		}
		if kind == gapUpper && h.times < 2 && !marked {
			return false
		}
		if t := timeEnd(h.b, q); t > 0 && h.times < 4 && kind >= gapName { // a host, then the time once more
			h.sawTime(q, t)
			h.p = t
			return true
		}
		p, before = q, kind
	}
	return false
}

// named takes what some formats have for a level behind a time: Monolog's "channel.LEVEL: ", ":host:user@db:[12]:LEVEL: ", and the place in the source that Go's log
// package writes, which is the end of its header.
func (h *headerScan) named(p int) bool {
	if h.times == 0 {
		return false
	}
	b := h.b
	end, _ := h.word(p)
	word := b[p:end]
	if end == len(b) || len(word) == 0 || word[len(word)-1] != ':' {
		return false
	}
	if headerIsCaller(word) {
		h.p, h.done = end, true
		return true
	}
	dot := bytes.LastIndexAny(word[:len(word)-1], ".:")
	if dot < 1 {
		return false
	}
	level, _ := levelOfWord(word[dot+1 : len(word)-1])
	if level == LevelUnknown || levelCaseOf(word[dot+1:len(word)-1]) != levelUpper {
		return false
	}
	h.takeLevel(level, end)
	h.done = true
	return true
}

// gapSeparators is separatorsEnd for what is not known to be header yet.
func (h *headerScan) gapSeparators(p int) int {
	at := h.p
	h.p = max(1, at)
	q := h.separatorsEnd(p)
	h.p = at
	return q
}

// gapWord returns the end of the word at p and what it can be.
func (h *headerScan) gapWord(p int) (int, gapKind) {
	b := h.b
	switch b[p] {
	case '[', '(', '{':
		end := headerGroupEnd(b, p)
		if end == 0 {
			return 0, gapNone
		}
		if end < len(b) && b[end] == ':' {
			end++
		}
		return end, gapGroup
	case '"', '\'', '<':
		return 0, gapNone
	}
	end, class := h.word(p)
	if i := bytes.IndexByte(b[p:end], '|'); i > 0 {
		end = p + i
	}
	word := b[p:end]
	if len(word) == 0 || len(word) > 100 {
		return 0, gapNone
	}
	if class == frameUpper|frameLower && !headerIsCamel(word) || class == frameLower {
		return end, gapWord
	}
	if digitsAt(word, 0, len(word)) == len(word) {
		return end, gapNumber
	}
	last := word[len(word)-1]
	if last == ',' || last == '.' || last == ';' || last == '"' {
		return 0, gapNone
	}
	signs, upper := false, true
	for i, c := range word {
		switch {
		case c == '=':
			if key, _ := jsonKeyOf(word[:i]); i == 0 || key == jsonLevel || key == jsonMessage {
				return 0, gapNone
			}
			return end, gapPair
		case c == '"' || c == '\'':
			return 0, gapNone
		case upperByte(c):
		case letterByte(c):
			upper = false
		case c == ':' && i == len(word)-1:
			if level, _ := levelOfWord(word[:i]); level != LevelUnknown {
				return 0, gapNone
			}
			return end, gapName
		case c != ',':
			signs = true
		}
	}
	switch {
	case signs || headerIsCamel(word):
		return end, gapName
	case upper:
		return end, gapUpper
	}
	return end, gapWord
}

// gapLevel takes the level at p, which must be clearer than one right behind a time.
func (h *headerScan) gapLevel(p int, kind, before gapKind, numbers int, marked bool) bool {
	b := h.b
	switch c := b[p]; {
	case c == '[':
		end := headerGroupEnd(b, p)
		if end < p+5 {
			return false
		}
		inner := trimFrame(b[p+1 : end-1])
		level, _ := levelOfWord(inner)
		if level == LevelUnknown {
			if level = levelOfParts(inner); kind != gapGroup {
				return false
			}
		}
		if level == LevelUnknown {
			return false
		}
		h.takeLevel(level, end)
		h.bracketed = true
		return true
	case c == '<':
		return h.angle(p)
	case !letterByte(c):
		return false
	}
	q := lettersEnd(b, p)
	if q-p == 1 {
		return kind == gapNumber && numbers >= 2 && h.androidLevel(p)
	}
	if kind == gapName && before == gapNone && !marked && b[p] >= 'a' { // BIND: general: info: text
		level, _ := levelOfWord(b[p:q])
		if level == LevelUnknown || !startsWith(b[q:], ": ") {
			return false
		}
		h.takeLevel(level, q+1)
		h.done = true
		return true
	}
	if i := q; i < len(b) && b[i] == '.' && kind != gapWord { // Monolog behind more
		return false
	}
	style := levelCaseOf(b[p:q])
	if style == levelUpper && kind < gapWord && h.postgres(p, q) {
		return true
	}
	if style != levelUpper && !marked && (kind != gapGroup || !startsWith(b[q:], ": ")) {
		return false
	}
	if kind == gapWord && !marked {
		// Python's "time name LEVEL text": a sentence may have such a word too, but not followed by a capital.
		if !h.comma || b[p-1] != ' ' {
			return false
		}
		if next := blanksEnd(b, q); next < len(b) && b[next] >= 'a' && b[next] <= 'z' && b[p] != 'I' && b[p] != 'D' && b[p] != 'W' {
			return false
		}
	}
	if kind == gapUpper && h.times < 2 && !marked {
		return false
	}
	return h.levelAt(p) && h.p > p
}

// postgres takes what PostgreSQL writes for a level in lines that go with another. The word stays: it tells what the text is.
func (h *headerScan) postgres(p, q int) bool {
	if !startsWith(h.b[q:], ":  ") {
		return false
	}
	switch string(h.b[p:q]) {
	case "DETAIL", "HINT", "CONTEXT", "STATEMENT", "QUERY", "LOCATION":
		h.p, h.done = p, true
		return true
	}
	return false
}

// androidLevel takes "D Tag: text".
func (h *headerScan) androidLevel(p int) bool {
	b := h.b
	level := levelOfLetter(b[p])
	if level == LevelUnknown || p+2 >= len(b) || b[p+1] != ' ' {
		return false
	}
	h.takeLevel(level, p+1)
	if end := headerWordEnd(b, p+2); end < len(b) { // the tag may be padded, or have blanks in it
		if b[end-1] == ':' {
			h.p, h.done = end, true
			return true
		}
		line := b[p+2 : min(len(b), p+2+60)]
		if i := bytes.Index(line, []byte(": ")); i > 0 {
			h.p, h.done = p+2+i+1, true
		}
	}
	return true
}

// headerIsCamel says whether a word has a capital behind a small letter, as names of classes have.
func headerIsCamel(word []byte) bool {
	for i := 1; i < len(word); i++ {
		if upperByte(word[i]) && word[i-1] >= 'a' && word[i-1] <= 'z' {
			return true
		}
	}
	return false
}
