// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

// colonsEnd finds the end of a MAC or IPv6 address, 0 for none. What has digits is taken for a part of one whatever else it has.
func colonsEnd(t []byte, i int) int {
	if i > 0 && classes[t[i-1]]&classWord != 0 {
		return 0
	}
	groups, colons, double := 0, 0, false
	for j := i; colons < 8; {
		end, digit := runEnd(t, j)
		if end > j {
			if !digit {
				if end = hexEnd(t, j, end, j == i); end == 0 {
					return 0
				}
			}
			groups++
			j = end
		}
		if j < len(t) && t[j] == ':' && (j+1 < len(t) && (t[j+1] == ':' || classes[t[j+1]]&classAlnum != 0) || j > i && t[j-1] == ':') {
			double = double || j > i && t[j-1] == ':'
			colons++
			j++
			continue
		}
		if groups == 6 && colons == 5 && !double || groups == 8 && colons == 7 || double && groups > 0 {
			return j
		}
		return 0
	}
	return 0
}

// hexEnd finds the end of a group of letters that are hexadecimal, 0 for none. Signs may stand before the first group and behind
// the last.
func hexEnd(t []byte, from, end int, first bool) int {
	if first {
		for i := end - 1; i > from; i-- {
			if classes[t[i-1]]&classJoin != 0 {
				from = i
				break
			}
		}
	}
	j := from
	for j < end && classes[t[j]]&classJoin == 0 {
		j++
	}
	if j == from || j-from > 4 || !isHex(t[from:j]) {
		return 0
	}
	return j
}

// isHost tells whether a word before a port is the name of a host.
func isHost(w []byte, letters int) bool {
	return letters > 2 && bytes.IndexByte(w, '-') >= 0 || string(w) == "localhost"
}

func hasAlnum(b []byte) bool {
	for _, c := range b {
		if classes[c]&classAlnum != 0 {
			return true
		}
	}
	return false
}

// closing finds the end of the quotation that begins at i, -1 for none. An apostrophe within a word ends none. It does not look
// again when it has looked at all of the text in vain.
func (z *tokenizer) closing(t []byte, i int, quote byte) int {
	bit := byte(1)
	switch quote {
	case '\'':
		bit = 2
	case '`':
		bit = 4
	}
	if z.open&bit != 0 {
		return -1
	}
	for j := i + 1; j < len(t); j++ {
		switch {
		case t[j] == '\\':
			j++
		case t[j] == quote && (j+1 == len(t) || classes[t[j+1]]&classAlnum == 0):
			return j
		}
	}
	z.open |= bit
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

// isPhrase tells whether there are two words or more, and nothing else.
func isPhrase(b []byte) bool {
	from, words := 0, 0
	for i := 0; i <= len(b); i++ {
		switch {
		case i == len(b) || b[i] == ' ':
			if i == from || isLettersOfKey(b[from:i]) {
				return false
			}
			from = i + 1
			words++
		case classes[b[i]] != classLetter && b[i] != '-':
			return false
		}
	}
	return words > 1
}
