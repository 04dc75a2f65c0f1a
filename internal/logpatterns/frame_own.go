// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

// own takes headers that have a form of their own, at the beginning of the text: behind nothing, a time, or a tag.
func (h *headerScan) own(p int) bool {
	b := h.b[p:]
	if len(b) < 6 {
		return false
	}
	switch c := b[0]; {
	case c == '<':
		return h.priority(p)
	case digitByte(c):
		return h.redis(p)
	case c == '=':
		return h.erlang(p)
	case !upperByte(c) || letterByte(b[1]):
		return false
	}
	level := levelOfLetter(b[0])
	switch {
	case level == LevelUnknown:
	case digitByte(b[1]):
		return h.glog(p, level)
	case b[1] == ',' && b[2] == ' ' && b[3] == '[': // Ruby: I, [2026-11-21T13:04:05.123456 #123]  INFO -- prog: text
		if end, ok := h.timeGroup(p + 3); ok {
			h.p, h.level, h.plainName = end, level, true
			return true
		}
	case b[1] == '/': // Android: I/Tag( 123): text
		if i := bytes.Index(b[:min(len(b), 64)], []byte("): ")); i > 0 && bytes.IndexByte(b[:i], '(') > 0 {
			h.p, h.level, h.done = p+i+3, level, true
			return true
		}
	case b[1] == ':' && b[2] == ' ' && (b[0] == 'E' || b[0] == 'W') && h.p == 0: // apt; the text stays whole
		h.level, h.done = level, true
		return true
	}
	return false
}

// priority takes <PRI> of syslog and what RFC 5424 has behind it.
func (h *headerScan) priority(p int) bool {
	b := h.b
	n := digitsAt(b, p+1, 4)
	if n == 0 || n > 3 || p+1+n >= len(b) || b[p+1+n] != '>' || numAt(b, p+1, n) > 191 {
		return false
	}
	h.level = levelOfSyslog(numAt(b, p+1, n) & 7)
	h.p = p + n + 2
	if h.p+1 >= len(b) || b[h.p] != '1' || b[h.p+1] != ' ' {
		return true
	}
	p = h.p + 2
	for range 5 { // time, host, program, process, message id
		n := bytes.IndexByte(b[p:], ' ')
		if n < 0 {
			return true
		}
		p += n + 1
	}
	if p < len(b) && b[p] == '-' {
		p++
	} else {
		for p < len(b) && b[p] == '[' {
			quoted := false
			for p++; p < len(b) && (quoted || b[p] != ']'); p++ {
				switch b[p] {
				case '"':
					quoted = !quoted
				case '\\':
					p++
				}
			}
			p++
		}
	}
	if p = min(p, len(b)); p < len(b) {
		h.p, h.times, h.tagged = p, 1, true
	}
	return true
}

// glog takes I1121 13:04:05.123456   12 file.go:12] and CockroachDB's form of it.
func (h *headerScan) glog(p int, level Level) bool {
	b := h.b
	n := digitsAt(b, p+1, 9)
	p += 1 + n
	if n != 4 && n != 6 && n != 8 || p >= len(b) || b[p] != ' ' {
		return false
	}
	p = clockEnd(b, blanksEnd(b, p), true)
	if p == 0 || p >= len(b) || b[p] != ' ' {
		return false
	}
	h.takeLevel(level, p)
	h.times++
	for range 3 { // process, file:line]
		p = blanksEnd(b, p)
		end := headerWordEnd(b, p)
		if end > p && b[end-1] == ']' {
			h.p, h.done = end, true
			return true
		}
		if word := b[p:end]; end < len(b) && (digitsAt(word, 0, 20) == len(word) || headerIsCaller(word)) {
			h.p, p = end, end
			continue
		}
		if end > p && b[p] >= 0x80 { // CockroachDB's mark before what is not redacted
			h.p = end
		}
		break
	}
	return true
}

// redis takes 1:M 21 Nov 2026 13:04:05.123 * text.
func (h *headerScan) redis(p int) bool {
	b := h.b
	p += digitsAt(b, p, 8)
	if p+3 >= len(b) || b[p] != ':' || !upperByte(b[p+1]) || b[p+2] != ' ' {
		return false
	}
	p = timeEnd(b, p+3)
	if p == 0 || p+2 >= len(b) || b[p] != ' ' || b[p+2] != ' ' {
		return false
	}
	if level := levelOfRedis(b[p+1]); level != LevelUnknown {
		h.p, h.level, h.done = p+3, level, true
		return true
	}
	return false
}

func levelOfRedis(c byte) Level {
	switch c {
	case '.', '-': // debug, verbose
		return LevelDebug
	case '*':
		return LevelInfo
	case '#':
		return LevelWarning
	}
	return LevelUnknown
}

// erlang takes =ERROR REPORT==== 21-Nov-2026::13:04:05 ===.
func (h *headerScan) erlang(p int) bool {
	b := h.b
	end := lettersEnd(b, p+1)
	level, _ := levelOfWord(b[p+1 : end])
	if level == LevelUnknown || !startsWith(b[end:], " REPORT==== ") {
		return false
	}
	h.level, h.done = level, true
	if end = timeEnd(b, end+len(" REPORT==== ")); end > 0 && startsWith(b[end:], " ===") {
		h.p = end + 4
	}
	return true
}

// dmesg takes "kern  :warn  : " of dmesg -x.
func (h *headerScan) dmesg() {
	b := h.b
	p := blanksEnd(b, lettersEnd(b, 0))
	if p < 3 || p > 10 || p >= len(b) || b[p] != ':' {
		return
	}
	end := lettersEnd(b, p+1)
	level, _ := levelOfWord(b[p+1 : end])
	if end = blanksEnd(b, end); level == LevelUnknown || !startsWith(b[end:], ": [") {
		return
	}
	h.p, h.level = end+2, level
}

// compose takes "web-1  | " of docker compose.
func (h *headerScan) compose() {
	b := h.b
	end, _ := h.word(0)
	if end < 3 || end > 60 || !digitByte(b[end-1]) {
		return
	}
	i := end - 1
	for i > 0 && digitByte(b[i]) {
		i--
	}
	if i == 0 || b[i] != '-' && b[i] != '_' {
		return
	}
	if p := blanksEnd(b, end); p > end && p+1 < len(b) && b[p] == '|' && b[p+1] == ' ' {
		h.p = p + 2
	}
}

// xorg takes (EE), (WW) and the others.
func (h *headerScan) xorg(p int) bool {
	if len(h.b) < p+5 || h.b[p+1] != h.b[p+2] || h.b[p+3] != ')' {
		return false
	}
	level := LevelInfo
	switch h.b[p+1] {
	case 'E':
		level = LevelError
	case 'W':
		level = LevelWarning
	case 'I', '*', '=', '-', '+':
	default:
		return false
	}
	h.p, h.level, h.levelled = p+4, level, true
	h.done = true
	return true
}

// zabbix takes 1234:20261121:130405.123, process, date and time.
func (h *headerScan) zabbix(p int) bool {
	b := h.b
	n := digitsAt(b, p, 9)
	if h.p > 0 || n == 0 || p+n >= len(b) || b[p+n] != ':' || digitsAt(b, p+n+1, 9) != 8 {
		return false
	}
	end := timeEnd(b, p+n+1)
	if end == 0 {
		return false
	}
	h.sawTime(p, end)
	h.p = end
	return true
}

// columns takes the columns of an event log that has its time in the middle: number, host, source, state, seconds since 1970, flag.
// All before the time must look like such things, and not like words of a text.
func (h *headerScan) columns() bool {
	b := h.b
	if digitsAt(b, 0, 12) == 0 {
		return false
	}
	p, plain := 0, 0
	for column := range 6 {
		end, class := p, uint8(0)
		for end < len(b) && frameClass[b[end]] != frameSpace {
			class |= frameClass[b[end]]
			end++
		}
		if class&(frameDigit|frameHost) == 0 {
			plain++
		}
		if end == p || end == len(b) || class&^(frameDigit|frameLower|frameUpper|frameHost) != 0 || plain > 1 {
			return false
		}
		if column > 1 && class == frameDigit && end-p == 10 && b[p] == '1' {
			h.times, h.p = 1, end
			if n := digitsAt(b, blanksEnd(b, end), 2); n == 1 {
				h.p = blanksEnd(b, end) + n
			}
			h.done = true
			return true
		}
		p = blanksEnd(b, end)
	}
	return false
}

// program takes "name.exe - " or "name.exe *32 - " behind a time in brackets.
func (h *headerScan) program(p int) bool {
	b := h.b
	if h.times == 0 || h.levelled {
		return false
	}
	i := bytes.Index(b[p:min(len(b), p+64)], []byte(" - "))
	if i < 4 {
		return false
	}
	name := b[p : p+i]
	if j := bytes.IndexByte(name, ' '); j > 0 && startsWith(name[j:], " *") {
		name = name[:j]
	}
	if len(name) < 5 || !bytes.EqualFold(name[len(name)-4:], []byte(".exe")) || bytes.IndexByte(name, ' ') >= 0 {
		return false
	}
	h.p, h.done = p+i+3, true
	return true
}
