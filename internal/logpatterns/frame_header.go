// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

const (
	headerParts = 10  // most anchors (times, levels, tags) in one header
	headerReach = 160 // how far behind an anchor the next is looked for
	headerGroup = 256 // longest [group]
)

// headerScan finds the header of a line of text.
//
// It goes from anchor to anchor: a time, a level, a syslog tag. What stands between two anchors (process, thread, host, logger) is header
// if it has the form of such a thing. Behind the last anchor only what its format marks as a name is.
type headerScan struct {
	b     []byte
	p     int // all before it is header
	level Level

	times     int
	levelled  bool // the level was written, not inferred
	syslog    bool // the last time was one as BSD syslog writes it
	tagged    bool // a syslog tag was seen
	comma     bool // the last time has a comma before its fraction, as Python and Java write it
	iso       bool // the last time has a T between date and clock
	plainName bool // the format often has a name behind the level, even if that is a word like others
	sureName  bool // the format always has
	bracketed bool // the level stands in brackets
	groups    int  // how many [groups] stood behind the level
	done      bool // no more header

	wordFrom, wordTo int // see word
	wordClass        uint8
}

func (h *headerScan) run() {
	if _, class := h.word(0); class&frameDigit != 0 {
		if class == frameDigit && h.columns() {
			return
		}
		h.compose()
	} else if class&^frameOther == frameLower {
		h.dmesg()
	}
	for range headerParts {
		if h.done {
			return
		}
		p := h.separatorsEnd(h.p)
		if p >= len(h.b) || h.b[p] == '{' && jsonBegins(h.b[p:]) {
			break
		}
		if _, class := h.word(p); class&frameEquals != 0 && h.p > 0 && logfmtBegins(h.b[p:]) && !h.gap(p) {
			break
		}
		if h.levelled {
			h.tail()
			return
		}
		if !h.part(p) {
			break
		}
	}
	if !h.done {
		h.p = h.separatorsEnd(h.p)
	}
}

// part takes the anchor at p.
func (h *headerScan) part(p int) bool {
	if h.own(p) || h.program(p) {
		return true
	}
	switch c := h.b[p]; {
	case digitByte(c):
		return h.time(p) || h.tag(p) || h.gap(p) || h.lead(p) || h.zabbix(p)
	case upperByte(c):
		return h.time(p) || h.levelAt(p) || h.tag(p) || h.named(p) || h.gap(p) || h.lead(p)
	case c == '[':
		return h.group(p) || h.gap(p) || h.lead(p)
	case c == '<':
		return h.angle(p) || h.gap(p)
	case c == '(':
		return h.xorg(p) || h.gap(p) || h.lead(p)
	case letterByte(c):
		return h.levelAt(p) || h.tag(p) || h.named(p) || h.gap(p) || h.lead(p)
	}
	return h.tag(p) || h.named(p) || h.gap(p) || h.lead(p)
}

// time takes a point in time at p, and the mark of the stream that container runtimes write behind it.
func (h *headerScan) time(p int) bool {
	if h.times >= 4 {
		return false
	}
	end := timeEnd(h.b, p)
	if end == 0 {
		return false
	}
	h.sawTime(p, end)
	h.p = end
	if end+1 < len(h.b) && h.b[end+1] == 's' && (startsWith(h.b[end:], " stdout ") || startsWith(h.b[end:], " stderr ")) {
		h.p += len(" stdout ")
		if startsWith(h.b[h.p:], "F ") || startsWith(h.b[h.p:], "P ") {
			h.p += 2
		}
		h.times = 0
	}
	return true
}

func (h *headerScan) sawTime(p, end int) {
	h.times++
	h.syslog = upperByte(h.b[p]) && end-p <= len("Nov 21 2026 13:04:05.123456")
	h.comma = end-p > 4 && h.b[end-4] == ','
	h.iso = end-p > 11 && h.b[p+10] == 'T'
	h.tagged = false
}

// tag takes "host prog[pid]: " behind a time.
func (h *headerScan) tag(p int) bool {
	if h.times == 0 && !h.syslog || h.tagged {
		return false
	}
	b := h.b
	for n := range 3 {
		end, class := h.word(p)
		if end == p || end-p > 80 || n == 0 && !h.syslog && class&frameUpper != 0 && b[end-1] != ':' {
			return false
		}
		word := b[p:end]
		if word[len(word)-1] == ':' && end < len(b) && h.isTag(word[:len(word)-1], n) {
			h.p, h.tagged, h.syslog = end, true, false
			return true
		}
		if n == 1 && string(word) != "--" || word[len(word)-1] == ':' {
			return false
		}
		p = blanksEnd(b, end)
	}
	return false
}

// isTag says whether the n-th word behind a time is a tag: prog[123], or any name where the time is syslog's.
func (h *headerScan) isTag(word []byte, n int) bool {
	if len(word) == 0 {
		return false
	}
	if level, _ := levelOfWord(word); level != LevelUnknown {
		return false
	}
	if i := bytes.IndexByte(word, '['); i > 0 && i+2 < len(word) && word[len(word)-1] == ']' && digitByte(word[i+1]) && digitByte(word[len(word)-2]) {
		return true
	}
	if !h.syslog {
		return n == 1 && string(word) == "kernel"
	}
	if n == 0 && upperByte(word[0]) { // without a host it might be a sentence
		return false
	}
	for _, c := range word {
		if c <= ' ' || c == '"' || c == '=' || c == ',' {
			return false
		}
	}
	return true
}

// lead takes what a line can have before its first time: a host, a process, a mark in brackets.
func (h *headerScan) lead(p int) bool {
	if h.times > 0 || h.levelled || h.p > 0 && !h.tagged {
		return false
	}
	b := h.b
	for n := range 3 {
		end := h.leadEnd(p)
		if end == 0 || end >= len(b) || !blankByte(b[end]) {
			return false
		}
		if p = blanksEnd(b, end); p >= len(b) {
			return false
		}
		if h.time(p) {
			return true
		}
		if b[p] == '[' && n == 0 {
			if end, ok := h.timeGroup(p); ok {
				h.p = end
				return true
			}
		}
		if upperByte(b[p]) && (b[end-1] == ']' || b[end-1] == ')') && h.levelAt(p) { // [main] INFO text
			return true
		}
	}
	return false
}

// leadEnd returns the end of a word that is none of a sentence: it has brackets, digits or signs.
func (h *headerScan) leadEnd(p int) int {
	b := h.b
	if b[p] == '[' || b[p] == '(' {
		return headerGroupEnd(b, p)
	}
	end, class := h.word(p)
	if end-p > 64 || class&(frameDigit|frameHost) == 0 && class != frameUpper || class&(frameEquals|frameQuote) != 0 || b[end-1] == ':' || b[end-1] == ',' {
		return 0
	}
	if digitByte(b[p]) {
		if class != frameDigit && (bytes.IndexByte(b[p:end], '.') >= 0 || bytes.IndexByte(b[p:end], ':') >= 0) {
			return 0 // an address, as access logs begin with
		}
		return end
	}
	if class == frameUpper { // a label before UNIX time
		if next := blanksEnd(b, end); next >= len(b) || !digitByte(b[next]) {
			return 0
		}
	}
	return end
}

// separatorsEnd skips blanks, and between parts of a header also signs that stand alone.
func (h *headerScan) separatorsEnd(p int) int {
	b := h.b
	p = blanksEnd(b, p)
	if h.p == 0 {
		return p
	}
	for p < len(b) {
		q := p
		switch b[p] {
		case '|', ':', ',', ';':
			q++
		case '-':
			for q < len(b) && b[q] == '-' {
				q++
			}
			if q < len(b) && b[q] == '>' {
				q++
			}
		case '>':
			q++
		default:
			return p
		}
		if q >= len(b) {
			return p
		}
		if !blankByte(b[q]) && b[p] != '|' && (b[p] == '-' || b[p] == '>' || b[q] != '[') {
			return p
		}
		p = blanksEnd(b, q)
	}
	return p
}

// headerWordEnd returns the end of the word at b[i]: the next byte of white space.
func headerWordEnd(b []byte, i int) int {
	for i < len(b) && b[i] > ' ' {
		i++
	}
	return i
}

// headerGroupEnd returns the end of the group that begins with the bracket at b[i], 0 if it is none of a header: too long, quoted, not closed
// on this line.
func headerGroupEnd(b []byte, i int) int {
	open, end := b[i], byte(']')
	switch open {
	case '(':
		end = ')'
	case '{':
		end = '}'
	}
	if i+1 < len(b) && (b[i+1] == '"' || b[i+1] == '\'' || b[i+1] == '{') {
		return 0
	}
	depth := 0
	for j := i; j < len(b) && j-i < headerGroup && b[j] != '\n'; j++ {
		switch b[j] {
		case open:
			depth++
		case end:
			if depth--; depth == 0 {
				return j + 1
			}
		}
	}
	return 0
}
