// SPDX-License-Identifier: Apache-2.0

package logpatterns

// levelCase is how a word of a level is written.
type levelCase uint8

const (
	levelOther levelCase = iota
	levelUpper
	levelLower
	levelTitle
)

func levelCaseOf(word []byte) levelCase {
	upper := 0
	for _, c := range word {
		if upperByte(c) {
			upper++
		}
	}
	switch {
	case upper == len(word):
		return levelUpper
	case upper == 0:
		return levelLower
	case upper == 1 && upperByte(word[0]):
		return levelTitle
	}
	return levelOther
}

// levelAt takes a word at p that is a level here: by what is before it (a time or a tag, or the beginning of the line) and behind it.
func (h *headerScan) levelAt(p int) bool {
	b := h.b
	q := lettersEnd(b, p)
	word := b[p:q]
	if len(word) <= 3 && h.levelShort(p, q) {
		return true
	}
	level, common := levelOfWord(word)
	if level == LevelUnknown {
		return false
	}
	style := levelCaseOf(word)
	if style == levelOther {
		return false
	}
	if style == levelUpper && q < len(b) && digitByte(b[q]) { // DEBUG1 of PostgreSQL
		q++
	}
	if q >= len(b) {
		if p == 0 || style == levelUpper {
			h.level, h.levelled = level, true
		}
		return false
	}
	switch next := b[q]; {
	case next == ':':
		return h.levelColon(p, q, level, common, style)
	case blankByte(next):
		if !h.levelBare(p, q, level, common, style) {
			return false
		}
	case next == '[':
		end := headerGroupEnd(b, q)
		if style != levelUpper || end == 0 {
			return false
		}
		for end > 0 && end < len(b) && b[end] == '[' {
			q = end
			end = headerGroupEnd(b, q)
		}
		q = max(q, end)
	case next == '|':
		if style != levelUpper && h.times == 0 {
			return false
		}
	case next == ',' || next == ';':
		if style != levelUpper || h.times == 0 {
			return false
		}
	case next == '\n' || next == '\r':
		if style != levelUpper {
			return false
		}
	default:
		return false
	}
	h.takeLevel(level, q)
	return true
}

// levelColon decides about a word with a colon at q. At the beginning of a line "error: " and "Warning: " are also how people write: then
// the level counts and the text stays whole.
func (h *headerScan) levelColon(p, q int, level Level, common bool, style levelCase) bool {
	b := h.b
	spaced := q+1 >= len(b) || b[q+1] <= ' '
	headed := h.times > 0 || h.p > 0
	switch {
	case style == levelUpper && (common || headed || level == LevelCritical || string(b[p:q]) != "NOTE"):
		if !spaced { // Python: INFO:name:text
			end := headerIdentEnd(b, q+1)
			if end == q+1 || end >= len(b) || b[end] != ':' {
				if headed || b[q+1] == ':' {
					return false
				}
				end = q
			}
			h.takeLevel(level, end+1)
			h.done = true
			return true
		}
	case !spaced:
		return false
	case headed && (common || style == levelTitle || level != LevelInfo):
	case style == levelLower && (level <= LevelInfo || string(b[p:q]) != "error" && string(b[p:q]) != "warning" && string(b[p:q]) != "fatal" &&
		string(b[p:q]) != "failure" && string(b[p:q]) != "critical" && string(b[p:q]) != "panic" && string(b[p:q]) != "alert"):
		switch string(b[p:q]) {
		case "note", "log", "system", "success", "default", "config", "fine":
			return false
		}
	case common:
		h.level, h.levelled, h.done = level, true, true
		return true
	default:
		return false
	}
	h.takeLevel(level, q+1)
	return true
}

// levelBare decides about a word with a blank at q.
func (h *headerScan) levelBare(p, q int, level Level, common bool, style levelCase) bool {
	b := h.b
	next := blanksEnd(b, q)
	if next >= len(b) {
		return style == levelUpper
	}
	apart := b[q] == '\t' || next-q > 1 || b[next] == '|' || b[next] == '[' || (b[next] == '-' || b[next] == ':' || b[next] == '>') && next+1 < len(b) && b[next+1] <= ' '
	headed := h.times > 0
	if style == levelUpper {
		return common || apart || headed && level == LevelCritical
	}
	if !headed {
		return false
	}
	if apart {
		return common || style == levelLower && level != LevelInfo
	}
	if !common {
		return false
	}
	switch string(b[p+1 : q]) {
	case "nfo", "ebug", "arn", "nf", "bg", "rn", "rr", "rit", "race":
		return true
	}
	return style == levelLower && !(b[next] >= 'a' && b[next] <= 'z' || digitByte(b[next])) // "error opening file" is a sentence
}

// levelShort takes what is marked by one letter or a program's own way.
func (h *headerScan) levelShort(p, q int) bool {
	b := h.b
	if q-p == 3 {
		switch string(b[p:q]) {
		case "PHP":
			return h.levelOfPHP(q)
		case "npm":
			return h.levelOfNPM(p, q)
		}
		return false
	}
	if q-p != 1 || q+2 >= len(b) {
		return false
	}
	level := levelOfLetter(b[p])
	if level == LevelUnknown || h.times == 0 {
		return false
	}
	switch {
	case b[q] == '!' && b[q+1] == ' ': // Telegraf
		h.takeLevel(level, q+1)
		return true
	case b[q] != ' ':
		return false
	case b[q+1] == '|': // etcd: I | etcdserver: text
		h.takeLevel(level, q+2)
		h.sureName = true
		return true
	case p >= 2 && b[p-2] == ':': // TensorFlow: 13:04:05.123: I tensorflow/core/a.cc:12] text
		end := headerWordEnd(b, q+1)
		if b[end-1] != ']' {
			return false
		}
		h.takeLevel(level, end)
		h.done = true
		return true
	}
	q = blanksEnd(b, q)
	end := lettersEnd(b, q) // MongoDB: I NETWORK  [conn1] text
	if end-q < 2 || levelCaseOf(b[q:end]) != levelUpper || end >= len(b) || b[end] != ' ' {
		return false
	}
	if end = blanksEnd(b, end); end >= len(b) || b[end] != '[' {
		return false
	}
	h.takeLevel(level, end)
	return true
}

// levelOfPHP takes "PHP Warning:  text" and "PHP Fatal error:  text".
func (h *headerScan) levelOfPHP(q int) bool {
	rest := h.b[q:]
	for _, kind := range [...]struct {
		text  string
		level Level
	}{
		{" Warning: ", LevelWarning}, {" Notice: ", LevelInfo}, {" Deprecated: ", LevelInfo}, {" Fatal error: ", LevelCritical},
		{" Parse error: ", LevelCritical}, {" Recoverable fatal error: ", LevelError}, {" Strict Standards: ", LevelInfo},
	} {
		if startsWith(rest, kind.text) {
			h.takeLevel(kind.level, q+len(kind.text))
			h.done = true
			return true
		}
	}
	return false
}

// levelOfNPM takes "npm ERR! text", "npm error text", "npm WARN text".
func (h *headerScan) levelOfNPM(p, q int) bool {
	if p > 0 && h.times == 0 || q+1 >= len(h.b) || h.b[q] != ' ' {
		return false
	}
	end := lettersEnd(h.b, q+1)
	level, common := levelOfWord(h.b[q+1 : end])
	if !common {
		return false
	}
	if end < len(h.b) && h.b[end] == '!' {
		end++
	}
	if end >= len(h.b) || h.b[end] != ' ' {
		return false
	}
	h.takeLevel(level, end)
	h.done = true
	return true
}

// lettersEnd returns the end of the letters at b[i].
func lettersEnd(b []byte, i int) int {
	for i < len(b) && letterByte(b[i]) {
		i++
	}
	return i
}

// headerIdentEnd returns the end of a dotted name at b[i].
func headerIdentEnd(b []byte, i int) int {
	for i < len(b) && (alnumByte(b[i]) || b[i] == '_' || b[i] == '.' || b[i] == '-') {
		i++
	}
	return i
}
