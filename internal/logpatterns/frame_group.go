// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

// group takes the [group] at p if it is an anchor or, behind a time, a process or client.
func (h *headerScan) group(p int) bool {
	b := h.b
	end := headerGroupEnd(b, p)
	if end == 0 {
		return false
	}
	from, to := p+1, end-1
	for from < to && blankByte(b[from]) {
		from++
	}
	for to > from && blankByte(b[to-1]) {
		to--
	}
	if from == to {
		return false
	}
	inner := b[from:to]
	if level, _ := levelOfWord(inner); level != LevelUnknown {
		h.takeLevel(level, end)
		h.plainName, h.bracketed = h.iso, true
		return true
	}
	if end, ok := h.timeGroup(p); ok {
		h.p = end
		return true
	}
	if h.times == 0 {
		n := lettersEnd(inner, 0) // env_logger: [INFO  crate::module] text
		if level, common := levelOfWord(inner[:n]); common && n < len(inner) && inner[n] == ' ' && headerIsLogger(trimFrame(inner[n:])) {
			h.takeLevel(level, end)
			h.done = true
			return true
		}
		return h.glogGroup(inner, end)
	}
	if level := levelOfParts(inner); level != LevelUnknown {
		h.takeLevel(level, end)
		h.bracketed = true
		return true
	}
	if n := digitsAt(inner, 0, len(inner)); n == len(inner) || startsWith(inner, "pid ") || startsWith(inner, "client ") || startsWith(inner, "T") && digitsAt(inner, 1, 9) == len(inner)-1 {
		h.p = end
		return true
	}
	return false
}

// takeLevel notes a written level that ends at end.
func (h *headerScan) takeLevel(level Level, end int) {
	h.level, h.levelled, h.p = level, true, end
}

// timeGroup takes a bracket with a time and perhaps more: [13:04:05 INF], [2026-11-21 13:04:05,123: INFO/Main], [   12.345678],
// [I 261121 13:04:05 web:123], and returns its end.
func (h *headerScan) timeGroup(p int) (int, bool) {
	b := h.b
	end := headerGroupEnd(b, p)
	if end == 0 {
		return 0, false
	}
	i := blanksEnd(b, p+1)
	letter := LevelUnknown
	if i+2 < end && b[i+1] == ' ' {
		if letter = levelOfLetter(b[i]); letter != LevelUnknown {
			i += 2
		}
	}
	stop := timeEnd(b, i)
	if stop == 0 || stop >= end {
		if letter == LevelUnknown && timeIsUptime(b[i:end-1]) {
			h.times++
			return end, true
		}
		return 0, false
	}
	h.sawTime(i, stop)
	h.syslog = false
	if letter != LevelUnknown {
		h.level, h.levelled = letter, true
		return end, true
	}
	if !h.levelled {
		h.levelIn(b[stop : end-1])
	}
	return end, true
}

// levelIn looks for a level behind the time in a bracket.
func (h *headerScan) levelIn(b []byte) {
	for range 3 {
		for len(b) > 0 && (blankByte(b[0]) || b[0] == ':' || b[0] == ',') {
			b = b[1:]
		}
		n := lettersEnd(b, 0)
		if level, _ := levelOfWord(b[:n]); level != LevelUnknown {
			h.level, h.levelled = level, true
			return
		}
		b = b[headerWordEnd(b, 0):]
	}
}

// timeIsUptime knows "12.345678" and "0.012s" of the kernel and the JVM.
func timeIsUptime(b []byte) bool {
	n := digitsAt(b, 0, 12)
	if n == 0 || n >= len(b) || b[n] != '.' {
		return false
	}
	m := digitsAt(b, n+1, 9)
	rest := b[n+1+m:]
	return m >= 3 && (len(rest) == 0 || string(rest) == "s")
}

// glogGroup takes Chromium's [123:456:1121/130405.123456:ERROR:file.cc(12)].
func (h *headerScan) glogGroup(inner []byte, end int) bool {
	i := bytes.IndexByte(inner, '/')
	if i < 4 || digitsAt(inner, i-4, 5) != 4 || digitsAt(inner, i+1, 7) != 6 {
		return false
	}
	if level := levelOfParts(inner); level != LevelUnknown {
		h.times++
		h.takeLevel(level, end)
		h.done = true
		return true
	}
	return false
}

// levelOfParts returns the level that is a part of a group: core:error, thread/INFO, space#info, INFO/Main.
func levelOfParts(b []byte) Level {
	for from := 0; from < len(b); {
		n := bytes.IndexAny(b[from:], ":/#")
		part := b[from:]
		if n >= 0 {
			part = part[:n]
		}
		if level, _ := levelOfWord(part); level != LevelUnknown && len(part) < len(b) {
			return level
		}
		from += len(part) + 1
	}
	return LevelUnknown
}

// angle takes <Information>, <info>, and <0.123.0> of Erlang behind other parts.
func (h *headerScan) angle(p int) bool {
	n := bytes.IndexByte(h.b[p:min(len(h.b), p+40)], '>')
	if n < 2 {
		return false
	}
	inner := h.b[p+1 : p+n]
	if level, _ := levelOfWord(inner); level != LevelUnknown {
		h.takeLevel(level, p+n+1)
		h.sureName = true
		return true
	}
	if h.p > 0 && digitByte(inner[0]) {
		for _, c := range inner {
			if !digitByte(c) && c != '.' {
				return false
			}
		}
		h.p = p + n + 1
		if h.p < len(h.b) && h.b[h.p] == '@' { // ejabberd: <0.1.0>@module:function:12
			h.p = headerWordEnd(h.b, h.p)
		}
		return true
	}
	return false
}
