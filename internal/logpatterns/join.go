// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

const (
	// joinLines and joinBytes bound a message; what is more begins another one.
	joinLines = 1024
	joinBytes = 256 << 10
)

// Joiner puts the lines of a stream together that are one message: stack traces and the like, with what was logged before
// them. It keeps the message that may go on; not safe for concurrent use. The zero value is ready.
//
// A line goes on with the message before it if it is indented, or is one of those that traces of Java, Python, Go, Node.js,
// .NET, Ruby, Rust or PHP have in them. One with a time or level of its own never does.
type Joiner struct {
	framer  Framer
	text    []byte // the message so far
	given   []byte // that was returned last
	size    int    // of it, without blank lines at its end
	head    []byte // of it, where that is no part of it
	lines   int
	trace   trace
	any     bool // there is a message, perhaps of an empty line
	several bool // the one that was returned last had more than one line
}

// trace is what kind of text the message has come to, by which the next line is judged.
type trace uint8

const (
	traceNone    trace = iota
	tracePython        // within the frames
	tracePythonX       // the exception was told; another may follow
	traceGo            // goroutines
	traceNode          // the source is shown, the error follows
	traceNodeX         // the error was told
	traceRust          // the message follows
	traceRustX         // it was told
	traceFrames        // indented frames, with causes between them
)

// Add takes in a line without its line feed. When that begins a message it returns the one before, valid until the next call.
func (j *Joiner) Add(line []byte) (message []byte, ok bool) {
	if j.any && j.lines < joinLines && len(j.text)+len(line) < joinBytes {
		if next, goes := j.goesOn(line); goes {
			j.trace = next
			j.text = append(append(j.text, '\n'), line...)
			j.lines++
			return nil, false
		}
	}
	message, ok = j.Flush()
	j.text = append(j.text, line...)
	j.lines, j.any = 1, true
	j.trace = begins(line)
	return message, ok
}

// Flush returns the message that Add has kept, when nothing has come for a while. It is valid until the next call.
func (j *Joiner) Flush() (message []byte, ok bool) {
	if !j.any {
		return nil, false
	}
	if cap(j.given) > framerKeep {
		j.given = nil
	}
	j.given, j.text = j.text, j.given[:0]
	j.any, j.several, j.lines, j.trace = false, j.lines > 1, 0, traceNone
	message = j.given
	for len(message) > 0 && (message[len(message)-1] == '\n' || message[len(message)-1] == '\r') {
		message = message[:len(message)-1] // blank lines at the end
	}
	j.size = len(message)
	return message, true
}

// Pending returns the lines that are kept, as they came, with line feeds between them: added again to a new Joiner they bring
// it to the same state. It is nil when nothing is kept, and valid until the next call of Add or Flush.
func (j *Joiner) Pending() []byte {
	switch {
	case !j.any:
		return nil
	case len(j.text) == 0: // an empty line
		return []byte{}
	}
	return j.text
}

// begins tells what kind of trace a first line, or one without a place in a trace so far, leads to.
func begins(line []byte) trace {
	switch {
	case has(line, "panic: "), has(line, "fatal error: "), has(line, "goroutine "), has(line, "unexpected fault address"), has(line, "SIGQUIT: quit"):
		return traceGo
	case bytes.HasSuffix(bytes.TrimRight(line, "\r"), []byte(pythonHeading)):
		return tracePython
	case has(line, "thread '") && bytes.Contains(line, []byte(" panicked at ")):
		return traceRust
	case isNodePlace(line):
		return traceNode
	}
	return traceNone
}

func has(line []byte, prefix string) bool {
	return len(line) >= len(prefix) && string(line[:len(prefix)]) == prefix
}

// goesOn tells whether a line goes on with the message, and what kind of trace that is then.
func (j *Joiner) goesOn(line []byte) (trace, bool) {
	switch {
	case len(line) == 0 || line[0] == '\r':
		return j.trace, j.trace != traceNone // some have blank lines in them
	case line[0] == ' ' || line[0] == '\t':
		if j.trace == traceNone {
			return traceFrames, true
		}
		return j.trace, true
	case has(line, pythonHeading):
		return tracePython, j.trace == tracePythonX || j.trace == traceNone && (j.isLogged() || isThreadOfPython(j.text))
	case has(line, "goroutine ") && bytes.Contains(line, []byte(" [")):
		return traceGo, true
	case j.trace == traceNone && !goesOnFrames(line):
		return traceNone, false
	case j.isMarked(line):
		return traceNone, false
	}
	switch j.trace {
	case tracePython:
		return tracePythonX, true // Error: text, or what it has more lines of
	case tracePythonX:
		return tracePythonX, has(line, "During handling of the above exception") || has(line, "The above exception was the direct cause")
	case traceGo:
		return traceGo, true
	case traceNode:
		return j.nodeGoesOn(line)
	case traceNodeX:
		return traceNodeX, has(line, "Node.js v") || line[0] == '}'
	case traceRust:
		return traceRustX, true
	case traceRustX:
		return traceRustX, has(line, "note: ") || has(line, "stack backtrace:")
	}
	closes := j.trace == traceFrames && (line[0] == '}' || line[0] == ']') && len(bytes.TrimRight(line, "\r")) == 1
	return traceFrames, closes || goesOnFrames(line)
}

// nodeGoesOn tells of a line below the place that Node.js has shown what goesOn does. There is the source, which may not be
// indented, with carets below it; and then the error.
func (j *Joiner) nodeGoesOn(line []byte) (trace, bool) {
	switch {
	case j.lines == 1, isCarets(line):
		return traceNode, true
	case j.lines == 2:
		return traceNode, false
	}
	return traceNodeX, true
}

// goesOnFrames tells whether a line that is not indented stands between or before the frames of a trace.
func goesOnFrames(line []byte) bool {
	switch line[0] {
	case 'C':
		if has(line, "Caused by: ") || has(line, "Caused by ") {
			return true
		}
	case 'S':
		if has(line, "Suppressed: ") || has(line, "Stack trace:") {
			return true
		}
	case '.':
		return has(line, "... ") && bytes.HasSuffix(bytes.TrimRight(line, "\r"), []byte(" more"))
	case '#':
		return len(line) > 2 && line[1] >= '0' && line[1] <= '9' && bytes.IndexByte(line[:min(len(line), 6)], ' ') > 1
	case '-':
		return has(line, "--- End of ")
	case 's':
		return has(line, "stack backtrace:")
	case 'n':
		return has(line, "note: ")
	}
	return isException(line)
}

// isException knows the qualified name of a class that ends in Exception or Error, as Java and .NET write it below a message.
func isException(line []byte) bool {
	end, dots := 0, 0
	for ; end < len(line) && (classes[line[end]]&classAlnum != 0 || line[end] == '.' || line[end] == '$'); end++ {
		if line[end] == '.' {
			dots++
		}
	}
	name := line[:end]
	if dots == 0 || end < len(line) && line[end] != ':' && line[end] != '\r' {
		return false
	}
	return bytes.HasSuffix(name, []byte("Exception")) || bytes.HasSuffix(name, []byte("Error")) || bytes.HasSuffix(name, []byte("Throwable"))
}

// isNodePlace knows /path/file.js:12 alone on a line, with which Node.js shows where an error was thrown.
func isNodePlace(line []byte) bool {
	line = bytes.TrimRight(line, "\r")
	if !has(line, "/") && !has(line, "file:///") && !has(line, "node:") {
		return false
	}
	i := bytes.LastIndexByte(line, ':')
	if i < 4 || i+1 == len(line) || bytes.IndexByte(line, ' ') >= 0 {
		return false
	}
	for _, c := range line[i+1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	name := line[:i]
	return has(line, "node:") || bytes.HasSuffix(name, []byte("js")) || bytes.HasSuffix(name, []byte(".ts"))
}

// isMarked tells whether a line has a time or level of its own, as the first line of a message has.
func (j *Joiner) isMarked(line []byte) bool {
	text, _ := j.framer.Frame(line)
	return len(text) < len(bytes.TrimSpace(line))
}

// isLogged tells whether the first line of the message has a time or level.
func (j *Joiner) isLogged() bool {
	first, _, _ := bytes.Cut(j.text, []byte("\n"))
	return j.isMarked(first)
}
