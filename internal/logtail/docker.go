// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds what is skipped in a record besides its text: labels are a flat object.
const maxDepth = 16

// parseDocker reads a record of the json-file driver: one object with log, stream, time and maybe attrs. A message of more
// than 16 KiB is in several, of which only the last one's text ends with a newline.
//
// The text is a part of b, or was appended to scratch when it has escapes; decoded text is never longer than it was in b.
func parseDocker(b, scratch []byte) (record, []byte, bool) {
	r := record{}
	b = bytes.TrimSpace(b)
	if len(b) < 2 || b[0] != '{' {
		return r, scratch, false
	}
	b = b[1:]
	hasText := false
	for {
		var key []byte
		var ok bool
		if key, _, b, ok = cutString(b); !ok {
			return r, scratch, false
		}
		if b = trimSpace(b); len(b) == 0 || b[0] != ':' {
			return r, scratch, false
		}
		b = trimSpace(b[1:])
		switch string(key) {
		case "log":
			var raw []byte
			var escaped int
			if raw, escaped, b, ok = cutString(b); !ok || hasText {
				return r, scratch, false
			}
			hasText = true
			r.text, r.partial, scratch = decodeText(raw, escaped, scratch)
		case "stream", "time":
			var value []byte
			if value, _, b, ok = cutString(b); !ok {
				return r, scratch, false
			}
			if key[0] == 's' {
				r.stream = parseStream(value)
			} else if r.at, ok = parseTime(value); !ok {
				return r, scratch, false
			}
		default:
			if b, ok = skipValue(b); !ok {
				return r, scratch, false
			}
		}
		b = trimSpace(b)
		if len(b) == 1 && b[0] == '}' {
			return r, scratch, hasText
		}
		if len(b) == 0 || b[0] != ',' {
			return r, scratch, false
		}
		b = trimSpace(b[1:])
	}
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

// cutString cuts a JSON string off. escaped is where its first backslash is, or its length.
func cutString(b []byte) (raw []byte, escaped int, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, 0, b, false
	}
	b = b[1:]
	for end, first := 0, -1; ; {
		quote := bytes.IndexByte(b[end:], '"')
		if quote < 0 {
			return nil, 0, b, false
		}
		slash := bytes.IndexByte(b[end:end+quote], '\\')
		if slash < 0 {
			end += quote
			if first < 0 {
				first = end
			}
			return b[:end], first, b[end+1:], true
		}
		if first < 0 {
			first = end + slash
		}
		if end += slash + 2; end > len(b) {
			return nil, 0, b, false
		}
	}
}

// decodeText decodes the text of a record and says whether it is only a part of a message.
func decodeText(raw []byte, escaped int, scratch []byte) (text []byte, partial bool, _ []byte) {
	if escaped == len(raw) {
		return raw, true, scratch
	}
	if escaped == len(raw)-2 && raw[escaped+1] == 'n' {
		return raw[:escaped], false, scratch // most lines
	}
	from := len(scratch)
	scratch = unescape(scratch, raw, escaped)
	text = scratch[from:]
	if n := len(text); n > 0 && text[n-1] == '\n' {
		return text[: n-1 : n-1], false, scratch
	}
	return text, true, scratch
}

// unescape appends raw to dst. An escape that JSON does not know is kept as it is, and half a surrogate pair becomes U+FFFD.
func unescape(dst, raw []byte, escaped int) []byte {
	for {
		dst = append(dst, raw[:escaped]...)
		raw = raw[escaped:]
		if len(raw) < 2 {
			return append(dst, raw...)
		}
		n := 2
		switch raw[1] {
		case 'n':
			dst = append(dst, '\n')
		case 't':
			dst = append(dst, '\t')
		case 'r':
			dst = append(dst, '\r')
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case '"', '\\', '/':
			dst = append(dst, raw[1])
		case 'u':
			var r rune
			r, n = decodeRune(raw)
			if n == 2 {
				dst = append(dst, raw[:2]...)
			} else {
				dst = utf8.AppendRune(dst, r)
			}
		default:
			dst = append(dst, raw[:2]...)
		}
		raw = raw[n:]
		if escaped = bytes.IndexByte(raw, '\\'); escaped < 0 {
			return append(dst, raw...)
		}
	}
}

// decodeRune reads \uXXXX, or two of them that are a pair, and returns the bytes these take; 2 if it is not one.
func decodeRune(b []byte) (rune, int) {
	r, ok := parseHex(b)
	if !ok {
		return 0, 2
	}
	if utf16.IsSurrogate(r) {
		if low, ok := parseHex(b[6:]); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, 12
			}
		}
		return utf8.RuneError, 6
	}
	return r, 6
}

func parseHex(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// skipValue skips a value of any type. It checks only what is needed to find its end.
func skipValue(b []byte) ([]byte, bool) {
	depth := 0
	for len(b) > 0 {
		switch b[0] {
		case '"':
			_, _, rest, ok := cutString(b)
			if !ok {
				return b, false
			}
			if b = rest; depth == 0 {
				return b, true
			}
		case '{', '[':
			if depth++; depth > maxDepth {
				return b, false
			}
			b = b[1:]
		case '}', ']':
			if depth == 0 {
				return b, true // of the object that the value is in
			}
			b = b[1:]
			if depth--; depth == 0 {
				return b, true
			}
		case ',':
			if depth == 0 {
				return b, true
			}
			b = b[1:]
		default:
			b = b[1:]
		}
	}
	return b, false
}
