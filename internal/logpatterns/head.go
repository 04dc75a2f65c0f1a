// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

// pythonHeading is the first line of a trace of Python, or the end of it.
const pythonHeading = "Traceback (most recent call last):"

// Head returns what tells of the message that was returned last what it is, for the Framer and the Miner: its first line. Where that
// is only the heading of a trace, the line that names the error follows behind a blank: "Traceback (most recent call last):
// ValueError: no such user". Of a trace of Node.js, which begins with a place in the source, it is that line alone. It is valid until
// the next call of Add or Flush, nil before the first message.
//
// What was logged with a trace is told by its first line alone: so it is one pattern, whatever error there was, and the same
// whether the logger was asked for a trace or not. An object of JSON over several lines is all of the message.
func (j *Joiner) Head() []byte {
	message := j.given[:j.size]
	if !j.several {
		return message
	}
	for len(message) > 0 && (message[0] == '\n' || message[0] == '\r') {
		message = message[1:]
	}
	first, rest := cutLine(message)
	var more []byte
	switch {
	case bytes.HasSuffix(first, []byte(pythonHeading)):
		more = pythonError(rest, true)
	case isThreadOfPython(first) && has(rest, pythonHeading):
		more = pythonError(rest, false)
	case begins(first) == traceRust && first[len(first)-1] == ':':
		more, _ = cutLine(rest)
	case isNodePlace(first):
		if name := nodeError(rest); name != nil {
			return name
		}
	case isCategory(first):
		more = categoryText(rest)
	case bytes.HasSuffix(first, []byte("{")) && jsonBegins(message[len(first)-1:]):
		if text, _ := j.framer.Frame(first); len(text) == 1 {
			return message
		}
	}
	if len(more) == 0 {
		return first
	}
	if cap(j.head) > framerKeep {
		j.head = nil
	}
	j.head = append(append(append(j.head[:0], first...), ' '), more...)
	return j.head
}

// cutLine returns the first line of b without its end, and what is behind it.
func cutLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, []byte("\n"))
	return bytes.TrimRight(line, "\r"), rest
}

func isIndented(line []byte) bool { return len(line) > 0 && (line[0] == ' ' || line[0] == '\t') }

// isThreadOfPython knows "Exception in thread Thread-1 (run):" and "Exception ignored in: f", of which the trace follows.
func isThreadOfPython(line []byte) bool {
	return has(line, "Exception in thread ") || has(line, "Exception ignored in")
}

// pythonError finds the last error in the lines of a trace: those before it are its causes. Frames tells whether b begins within the
// frames. Nil is for one that was broken off.
func pythonError(b []byte, frames bool) (found []byte) {
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		switch {
		case has(line, pythonHeading):
			frames = true
		case frames && len(line) > 0 && !isIndented(line):
			found, frames = line, false
		}
	}
	return found
}

// nodeError finds the error behind the source and the carets below it, nil for none. An error that is no object stands in brackets.
func nodeError(b []byte) []byte {
	_, b = cutLine(b)
	for len(b) > 0 {
		var line []byte
		if line, b = cutLine(b); len(line) == 0 || isIndented(line) || isCarets(line) {
			continue
		}
		line = bytes.TrimSuffix(line, []byte(" {"))
		if has(line, "[") && line[len(line)-1] == ']' {
			line = line[1 : len(line)-1]
		}
		return line
	}
	return nil
}

// isCarets knows the line of ^ with which Node.js shows where in the source something is.
func isCarets(line []byte) bool {
	return len(bytes.TrimRight(line, "^\r")) == 0
}

// isCategory knows "info: Microsoft.Hosting.Lifetime[14]", which .NET writes on a line of its own.
func isCategory(line []byte) bool {
	n := len(line) - 1
	if n < 0 || line[n] != ']' {
		return false
	}
	i := n
	for i > 0 && digitByte(line[i-1]) {
		i--
	}
	return i < n && i > 0 && line[i-1] == '[' && bytes.Contains(line, []byte(": "))
}

// categoryText finds the message below a category: the first line but for those of scopes.
func categoryText(b []byte) []byte {
	for has(b, "      ") {
		var line []byte
		line, b = cutLine(b)
		if line = bytes.TrimLeft(line, " "); !has(line, "=> ") {
			return line
		}
	}
	return nil
}
