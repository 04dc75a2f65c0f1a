// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

// levelOfText returns the level of a message that no logger has given one: access logs by the status of the response, and what run times
// write when a program fails. Words in the text say nothing.
func levelOfText(b []byte) Level {
	if len(b) == 0 {
		return LevelUnknown
	}
	if level := levelOfCrash(b); level != LevelUnknown {
		return level
	}
	return levelOfAccess(b)
}

// levelOfCrash knows the first lines of stack traces and panics.
func levelOfCrash(b []byte) Level {
	switch b[0] {
	case 'T':
		if startsWith(b, "Traceback (most recent call last)") {
			return LevelError
		}
	case 'E':
		if startsWith(b, "Exception in thread ") {
			return LevelError
		}
	case 'C':
		if startsWith(b, "Caused by: ") {
			return LevelError
		}
	case 'U', 'u':
		if startsWith(b[1:], "nhandled exception") || startsWith(b[1:], "nhandled Exception") || startsWith(b[1:], "ncaught ") ||
			startsWith(b[1:], "nhandledPromiseRejection") {
			return LevelError
		}
	case 'S':
		if startsWith(b, "Segmentation fault") {
			return LevelCritical
		}
	case 'p':
		if startsWith(b, "panic: ") {
			return LevelCritical
		}
	case '(', '*':
		return levelOfGLib(b)
	case 'n':
		if startsWith(b, "nginx: [") {
			if i := bytes.IndexByte(b[:min(len(b), 20)], ']'); i > 0 {
				level, _ := levelOfWord(b[len("nginx: ["):i])
				return level
			}
		}
	case 'f':
		if startsWith(b, "fatal error: ") {
			return LevelCritical
		}
	case 't':
		if startsWith(b, "thread '") && bytes.Contains(b[:min(len(b), 160)], []byte(" panicked at ")) {
			return LevelCritical
		}
	}
	return levelOfThrown(b)
}

// levelOfGLib knows "(prog:12): Gtk-WARNING **: text" and "** (prog:12): WARNING **: text".
func levelOfGLib(b []byte) Level {
	i := bytes.Index(b[:min(len(b), 160)], []byte(" **: "))
	if i < 0 {
		return LevelUnknown
	}
	from := i
	for from > 0 && upperByte(b[from-1]) {
		from--
	}
	level, _ := levelOfWord(b[from:i])
	return level
}

// levelOfThrown knows "package.SomeException: text", "TypeError: text" and "TypeError [CODE]: text", as they stand at the top of a
// trace.
func levelOfThrown(b []byte) Level {
	i := 0
	for i < len(b) && i < 120 && (frameClass[b[i]]&(frameDigit|frameUpper|frameLower) != 0 || b[i] == '.' || b[i] == '_' || b[i] == '$') {
		i++
	}
	if i < 6 || !levelIsThrown(b[:i]) {
		return LevelUnknown
	}
	b = b[i:]
	if startsWith(b, " [") { // of Node.js
		b = b[bytes.IndexByte(b, ']')+1:]
	}
	if len(b) > 0 && b[0] != ':' || len(b) > 1 && b[1] != ' ' {
		return LevelUnknown
	}
	return LevelError
}

// levelIsThrown says whether a name is that of an exception.
func levelIsThrown(name []byte) bool {
	return bytes.HasSuffix(name, []byte("Exception")) || bytes.HasSuffix(name, []byte("Error"))
}

// levelOfAccess finds the status of the response in the line of an access log: common and combined format with anything before it,
// HAProxy, Squid, gin.
func levelOfAccess(b []byte) Level {
	if len(b) == 0 {
		return LevelUnknown
	}
	if digitByte(b[0]) && len(b) > 4 && b[3] == ' ' && b[4] == '|' { // gin, behind the time
		return levelOfStatusAt(b, 0)
	} else if b[0] == 'C' && startsWith(b, "Completed ") { // Rails
		return levelOfStatusAt(b, len("Completed "))
	}
	if bytes.IndexByte(b, '"') < 0 {
		if digitByte(b[0]) {
			return levelOfSquid(b)
		}
		return levelOfRequest(b)
	}
	return levelOfLogged(b)
}

// levelOfLogged finds the status behind the request in quotes.
func levelOfLogged(b []byte) Level {
	if i := bytes.Index(b, []byte(" HTTP/")); i > 0 {
		j := i + len(" HTTP/")
		for j < len(b) && (digitByte(b[j]) || b[j] == '.') {
			j++
		}
		if j >= len(b) || b[j] != '"' {
			return LevelUnknown
		}
		if level := levelOfStatusAt(b, blanksEnd(b, j+1)); level != LevelUnknown {
			return level
		}
		return levelOfProxy(b[:i])
	}
	return LevelUnknown
}

// levelOfRequest finds the status in "GET /path 500 12 ms".
func levelOfRequest(b []byte) Level {
	n := 0
	for n < len(b) && upperByte(b[n]) {
		n++
	}
	switch string(b[:n]) {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		if startsWith(b[n:], " /") {
			if n = headerWordEnd(b, n+1); n < len(b) {
				return levelOfStatusAt(b, n+1)
			}
		}
	}
	return LevelUnknown
}

// levelOfSquid finds the status in TCP_MISS/200.
func levelOfSquid(b []byte) Level {
	if i := bytes.Index(b, []byte(" TCP_")); i > 0 {
		if j := bytes.IndexByte(b[i+1:], '/'); j > 0 && bytes.IndexByte(b[i+1:i+1+j], ' ') < 0 {
			return levelOfStatusAt(b, i+j+2)
		}
	}
	return LevelUnknown
}

// levelOfProxy finds the status behind the five timers of HAProxy: " 0/0/0/1/1 200 ".
func levelOfProxy(b []byte) Level {
	slashes, digits := 0, 0
	for i, c := range b {
		switch {
		case c == '/' && digits > 0:
			slashes, digits = slashes+1, 0
		case digitByte(c) || (c == '-' || c == '+') && digits == 0:
			digits++
		case c == ' ' && slashes == 4 && digits > 0:
			return levelOfStatusAt(b, i+1)
		default:
			slashes, digits = 0, 0
			if c != ' ' {
				slashes = -len(b) // not in this word
			}
		}
	}
	return LevelUnknown
}

func levelOfStatusAt(b []byte, i int) Level {
	if digitsAt(b, i, 4) != 3 || i+3 < len(b) && !blankByte(b[i+3]) {
		return LevelUnknown
	}
	return levelOfStatus(numAt(b, i, 3))
}

func startsWith(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}
