// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

// Framer splits lines into what a logger has put around a message, and the message. It keeps a buffer; not safe for concurrent use.
// The zero value is ready.
//
// The frame is time, level, process, thread, host and the name of the logger in the formats of the usual loggers; an object of JSON; or
// logfmt. It depends on the line alone, not on lines before it.
type Framer struct {
	plain   []byte    // the line without terminal sequences
	decoded [2][]byte // messages without escapes: one per nesting of JSON
}

// framerKeep is the size up to which a buffer is kept for the next line.
const framerKeep = 64 << 10

// Frame returns the message of a line and its level. The message aliases line or the Framer's buffer until the next call.
//
// Terminal colours are no part of either. A message is empty only if the line is blank: of a line that is all frame the last part or all is
// kept, as is an object without a field for a message. A record of several lines may be given; its frame is looked for in the first.
func (f *Framer) Frame(line []byte) (message []byte, level Level) {
	if cap(f.plain) > framerKeep || cap(f.decoded[0]) > framerKeep {
		*f = Framer{}
	}
	if bytes.IndexByte(line, ansiEscape) >= 0 {
		f.plain = appendPlain(f.plain[:0], line)
		line = f.plain
	}
	return f.frame(line, 0)
}

// frame is Frame without terminal sequences. Nested counts the objects around the text.
func (f *Framer) frame(line []byte, nested int) ([]byte, Level) {
	line = trimFrame(line)
	if len(line) == 0 {
		return line, LevelUnknown
	}
	if jsonBegins(line) {
		return f.frameJSON(line, nested)
	}
	h := headerScan{b: line}
	_, class := h.word(0)
	if class&frameEquals == 0 || !logfmtBegins(line) {
		h.run()
	}
	p := h.p
	for p < len(line) && line[p] <= ' ' {
		p++
	}
	if p == len(line) {
		return line, h.level
	}
	message, level := line[p:], LevelUnknown
	_, class = h.word(p)
	switch {
	case p > 0 && jsonBegins(message):
		message, level = f.frameJSON(message, nested)
	case class&frameEquals != 0 && logfmtBegins(message):
		message, level = f.frameLogfmt(message, p > 0, nested)
	}
	if level == LevelUnknown {
		level = h.level
	}
	if level == LevelUnknown {
		level = levelOfText(message)
	}
	return message, level
}

// trimFrame removes white space and NUL bytes (left by a file that was truncated under its writer) around a line.
func trimFrame(b []byte) []byte {
	for len(b) > 0 {
		if b[0] <= ' ' {
			b = b[1:]
		} else if b[0] == 0xef && len(b) >= 3 && b[1] == 0xbb && b[2] == 0xbf { // byte order mark
			b = b[3:]
		} else {
			break
		}
	}
	for len(b) > 0 && b[len(b)-1] <= ' ' {
		b = b[:len(b)-1]
	}
	return b
}
