// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

// jsonDepth is how many objects deep fields are looked for.
const jsonDepth = 3

// jsonKey is what a field can mean.
type jsonKey uint8

const (
	jsonOther    jsonKey = iota
	jsonLevel            // a level by name or number
	jsonLevelSub         // name of the level, if inside an object that is one
	jsonPyLevel          // levelno of Python's logging
	jsonOTLevel          // severity number of OpenTelemetry
	jsonShort            // "s" of MongoDB
	jsonStatus           // status of an HTTP response, or a level by name
	jsonRequest          // says that the object is about a request
	jsonMessage          // the message, or an object that has it
	jsonLog              // the message, an object that has it, or a whole line (Docker)
	jsonHolder           // an object whose fields count as well
	jsonStream           // "stream" of Docker
	jsonCompact          // "@t" of Serilog, which leaves out the level info
)

// jsonScan goes through an object once. It survives any input: what is broken or cut off ends the scan, what was seen until then counts.
type jsonScan struct {
	b []byte
	i int

	message []byte // raw
	escaped bool
	rank    uint8 // of message; 0 is none, less is better

	level, status            Level
	levelRank                uint8
	fromLog                  bool // message is the field log
	stream, request, compact bool
}

// jsonBegins says whether b, which is not blank at its start, could be an object.
func jsonBegins(b []byte) bool {
	if len(b) < 2 || b[0] != '{' {
		return false
	}
	for _, c := range b[1:] {
		if c > ' ' {
			return c == '"'
		}
	}
	return false
}

// unescape returns a message without JSON's escapes and the terminal's.
func (f *Framer) unescape(message []byte, nested int) []byte {
	f.decoded[nested] = jsonUnescape(f.decoded[nested][:0], message)
	message = f.decoded[nested]
	if bytes.IndexByte(message, ansiEscape) >= 0 {
		message = appendPlain(message[:0], message)
	}
	return message
}

// frameJSON returns the message and the level of an object at the start of b.
func (f *Framer) frameJSON(b []byte, nested int) ([]byte, Level) {
	s := jsonScan{b: b}
	s.object(1, jsonHolder, 0)
	level := s.level
	switch {
	case level != LevelUnknown:
	case s.status != LevelUnknown && s.request:
		level = s.status
	case s.compact:
		level = LevelInfo
	}
	if s.rank == 0 {
		return b, level
	}
	message := s.message
	if s.escaped {
		message = f.unescape(message, nested)
	}
	message = trimFrame(message)
	if len(message) == 0 {
		return b, level
	}
	if nested == 0 && s.fromLog && s.stream {
		inner, innerLevel := f.frame(message, 1)
		if innerLevel == LevelUnknown {
			innerLevel = level
		}
		return inner, innerLevel
	}
	if level == LevelUnknown {
		h := headerScan{b: message}
		h.run()
		if level = h.level; level == LevelUnknown {
			level = levelOfText(message[h.p:])
		}
	}
	return message, level
}

// object reads the object at s.i and says whether to go on behind it.
func (s *jsonScan) object(depth int, of jsonKey, rank uint8) bool {
	s.i++
	for {
		s.blanks()
		if s.i >= len(s.b) {
			return false
		}
		switch s.b[s.i] {
		case '}':
			s.i++
			return true
		case ',':
			s.i++
			continue
		case '"':
		default:
			return false
		}
		name, _, ok := s.text()
		s.blanks()
		if !ok || s.i >= len(s.b) || s.b[s.i] != ':' {
			return false
		}
		s.i++
		s.blanks()
		if s.i >= len(s.b) || !s.value(depth, of, rank, name) {
			return false
		}
	}
}

// value reads the value of a field.
func (s *jsonScan) value(depth int, of jsonKey, outer uint8, name []byte) bool {
	key, rank := jsonKeyOf(name)
	if depth > 1 {
		key, rank = jsonInside(of, outer, key, rank, name)
	}
	switch s.b[s.i] {
	case '"':
		text, escaped, ok := s.text()
		s.field(key, rank, text, escaped)
		return ok
	case '{':
		if depth < jsonDepth && (key == jsonLevel || key == jsonMessage || key == jsonLog || key == jsonHolder) {
			return s.object(depth+1, key, rank+10)
		}
		if key == jsonRequest {
			s.request = true
		}
		return s.skip()
	case '[':
		return s.skip()
	}
	start := s.i
	for s.i < len(s.b) && s.b[s.i] > ' ' && s.b[s.i] != ',' && s.b[s.i] != '}' && s.b[s.i] != ']' {
		s.i++
	}
	s.number(key, rank, s.b[start:s.i])
	return s.i > start
}

// jsonInside tells what a field of an inner object means.
func jsonInside(of jsonKey, outer uint8, key jsonKey, rank uint8, name []byte) (jsonKey, uint8) {
	switch of {
	case jsonLevel:
		if key == jsonLevel || key == jsonLevelSub || string(name) == "text" {
			return jsonLevel, outer
		}
		return jsonOther, 0
	case jsonMessage:
		if key == jsonMessage || string(name) == "stringValue" {
			return jsonMessage, outer
		}
		return jsonOther, 0
	}
	switch key {
	case jsonLevel, jsonMessage:
		return key, outer + rank
	}
	return jsonOther, 0
}

// field takes the value of a field that is a string.
func (s *jsonScan) field(key jsonKey, rank uint8, text []byte, escaped bool) {
	switch key {
	case jsonMessage, jsonLog:
		if len(text) > 0 && (s.rank == 0 || rank < s.rank) {
			s.message, s.escaped, s.rank, s.fromLog = text, escaped, rank, key == jsonLog
		}
	case jsonLevel, jsonOTLevel:
		s.setLevel(levelOfField(text), rank)
	case jsonShort:
		if len(text) == 1 || len(text) == 2 && text[0] == 'D' {
			s.setLevel(levelOfLetter(text[0]), rank)
		}
	case jsonStatus:
		if len(text) == 3 && digitsAt(text, 0, 3) == 3 {
			s.status = levelOfStatus(numAt(text, 0, 3))
		} else {
			level, _ := levelOfWord(text)
			s.setLevel(level, rank)
		}
	case jsonRequest:
		s.request = true
	case jsonStream:
		s.stream = true
	case jsonCompact:
		s.compact = true
	}
}

// number takes the value of a field that is a number.
func (s *jsonScan) number(key jsonKey, rank uint8, text []byte) {
	n := digitsAt(text, 0, 6)
	if n == 0 || n > 5 {
		return
	}
	v := numAt(text, 0, n)
	switch key {
	case jsonLevel:
		s.setLevel(levelOfNumber(v), rank)
	case jsonPyLevel:
		s.setLevel(levelOfStep(v/10, 2), rank)
	case jsonOTLevel:
		if v >= 1 && v <= 24 {
			s.setLevel(max(LevelDebug, Level((v-1)/4)), rank)
		}
	case jsonStatus:
		s.status = levelOfStatus(v)
	}
}

func (s *jsonScan) setLevel(level Level, rank uint8) {
	if level != LevelUnknown && (s.levelRank == 0 || rank < s.levelRank) {
		s.level, s.levelRank = level, rank
	}
}

// levelOfField returns the level that the value of a field called level or so means.
func levelOfField(text []byte) Level {
	text = trimFrame(text)
	switch n := digitsAt(text, 0, 6); {
	case n > 0 && n == len(text) && n < 6:
		return levelOfNumber(numAt(text, 0, n))
	case len(text) == 1:
		return levelOfLetter(text[0] &^ 0x20)
	}
	if i := bytes.LastIndexByte(text, '.'); i >= 0 { // LogLevel.Error
		text = text[i+1:]
	} else if startsWith(text, "LOG_") || startsWith(text, "log_") {
		text = text[4:]
	}
	for len(text) > 4 && digitByte(text[len(text)-1]) { // DEBUG2
		text = text[:len(text)-1]
	}
	level, _ := levelOfWord(text)
	return level
}

// text reads the string at s.i and returns what is between its quotes. ok is false if it does not end.
func (s *jsonScan) text() (raw []byte, escaped, ok bool) {
	s.i++
	start := s.i
	for {
		n := bytes.IndexByte(s.b[s.i:], '"')
		if n < 0 {
			raw = s.b[start:]
			s.i = len(s.b)
			return raw, escaped || bytes.IndexByte(raw, '\\') >= 0, false
		}
		end := s.i + n
		m := bytes.IndexByte(s.b[s.i:end], '\\')
		if m < 0 {
			s.i = end + 1
			return s.b[start:end], escaped, true
		}
		escaped = true
		for s.i += m; s.i < end; s.i++ {
			if s.b[s.i] == '\\' {
				s.i++
			}
		}
		if s.i == end {
			s.i++
			return s.b[start:end], true, true
		}
	}
}

// skip passes over the object or array at s.i.
func (s *jsonScan) skip() bool {
	depth := 0
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '"':
			if _, _, ok := s.text(); !ok {
				return false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				s.i++
				return true
			}
		}
		s.i++
	}
	return false
}

func (s *jsonScan) blanks() {
	for s.i < len(s.b) && s.b[s.i] <= ' ' {
		s.i++
	}
}
