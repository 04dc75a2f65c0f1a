// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

const ansiEscape = 0x1b

// appendPlain appends b without terminal control sequences (ECMA-48: CSI, OSC and the other escapes) to dst. No escape byte is left, so
// that doing it again changes nothing. The text of a string sequence (OSC, DCS, ...) that does not end is kept.
func appendPlain(dst, b []byte) []byte {
	for {
		i := bytes.IndexByte(b, ansiEscape)
		if i < 0 {
			return append(dst, b...)
		}
		dst = append(dst, b[:i]...)
		b = b[i+ansiLen(b[i:]):]
	}
}

// ansiLen returns the length of the sequence at b[0], an escape byte.
func ansiLen(b []byte) int {
	if len(b) == 1 {
		return 1
	}
	i := 1
	switch c := b[1]; {
	case c == '[':
		for i = 2; i < len(b) && b[i] >= 0x20 && b[i] <= 0x3f; i++ {
		}
		if i < len(b) && b[i] >= 0x40 && b[i] <= 0x7e {
			i++
		}
		return i
	case c == ']' || c == 'P' || c == 'X' || c == '^' || c == '_':
		for i = 2; i < len(b) && b[i] >= 0x20; i++ {
		}
		switch {
		case i < len(b) && b[i] == 0x07:
			return i + 1
		case i+1 < len(b) && b[i] == ansiEscape && b[i+1] == '\\':
			return i + 2
		}
		return 2
	}
	for i < len(b) && b[i] >= 0x20 && b[i] <= 0x2f {
		i++
	}
	if i < len(b) && b[i] >= 0x30 && b[i] <= 0x7e {
		return i + 1
	}
	return i
}
