// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

// logfmtKeyMax bounds how far a key is looked for.
const logfmtKeyMax = 40

// logfmtBegins says whether b begins with key=.
func logfmtBegins(b []byte) bool {
	n := logfmtKeyLen(b, 0)
	return n > 0 && b[n] == '='
}

// logfmtKeyLen returns the length of the key at b[i], which has a = behind it; 0 if there is none.
func logfmtKeyLen(b []byte, i int) int {
	if i >= len(b) || !letterByte(b[i]) && b[i] != '_' && b[i] != '@' {
		return 0
	}
	for j := i + 1; j < len(b) && j-i < logfmtKeyMax; j++ {
		switch c := b[j]; {
		case alnumByte(c) || c == '_' || c == '-' || c == '.' || c == '@' || c == '/':
		case c == '=':
			return j - i
		default:
			return 0
		}
	}
	return 0
}

// logfmtScan goes once through a line of key=value pairs.
type logfmtScan struct {
	message, level []byte
	escaped, sure  bool // the message has escapes; there is a key that only loggers write
	pairs, words   int  // words are what is not key=value
	first          jsonKey
}

// frameLogfmt returns the message and the level of b if it is logfmt: all key=value, among them a message, and a level or a time if
// there was no header before. Otherwise all of b is the message, but what it says of its level counts.
func (f *Framer) frameLogfmt(b []byte, headed bool, nested int) ([]byte, Level) {
	var s logfmtScan
	s.run(b)
	level := levelOfField(s.level)
	if s.words > 0 || s.pairs < 2 {
		if s.first != jsonLevel {
			return b, LevelUnknown
		}
		if rest := trimFrame(b[logfmtValueEnd(b, bytes.IndexByte(b, '=')+1):]); level != LevelUnknown && len(rest) > 0 {
			return rest, level // level=info, then text
		}
		return b, level
	}
	if s.message == nil || !headed && !s.sure && level == LevelUnknown {
		return b, level
	}
	message := s.message
	if s.escaped {
		message = f.unescape(message, nested)
	}
	if message = trimFrame(message); len(message) == 0 {
		return b, level
	}
	return message, level
}

func (s *logfmtScan) run(b []byte) {
	inMessage := false // the value of msg has no quotes and the words behind it are its own
	var messageAt int
	for i := 0; i < len(b); {
		if b[i] <= ' ' || b[i] == ',' {
			i++
			continue
		}
		n := logfmtKeyLen(b, i)
		if n == 0 {
			end := logfmtValueEnd(b, i)
			if inMessage {
				s.message = b[messageAt:end]
			} else if s.words++; s.words > 4 {
				return
			}
			i = end
			continue
		}
		s.pairs++
		key := b[i : i+n]
		i += n + 1
		end := logfmtValueEnd(b, i)
		inMessage = s.pair(key, b[i:end])
		messageAt, i = i, end
	}
}

// pair takes a key and its value and says whether it is a message that may go on.
func (s *logfmtScan) pair(name, value []byte) bool {
	key, rank := jsonKeyOf(name)
	if s.pairs == 1 {
		s.first = key
	}
	quoted := len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"'
	if quoted {
		value = value[1 : len(value)-1]
	}
	switch {
	case key == jsonMessage && rank <= 3:
		if s.message != nil || len(value) == 0 {
			return false
		}
		s.message = value
		s.escaped = quoted && bytes.IndexByte(value, '\\') >= 0
		return !quoted
	case key == jsonLevel || key == jsonStatus && s.level == nil:
		s.level = value
		s.sure = s.sure || key == jsonLevel
	case len(name) == 2 && string(name) == "at" && s.pairs == 1: // Heroku
		s.level, s.first = value, jsonLevel
	case !s.sure:
		switch string(name) {
		case "ts", "t", "time", "timestamp", "@timestamp", "caller", "logger", "component", "source", "datetime":
			s.sure = true
		}
	}
	return false
}

// logfmtValueEnd returns the end of the value at b[i]: a quoted string, or all up to a blank.
func logfmtValueEnd(b []byte, i int) int {
	if i < len(b) && b[i] == '"' {
		for j := i + 1; j < len(b); j++ {
			switch b[j] {
			case '\\':
				j++
			case '"':
				return j + 1
			}
		}
		return len(b)
	}
	for i < len(b) && b[i] > ' ' {
		i++
	}
	return i
}
