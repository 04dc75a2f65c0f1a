// SPDX-License-Identifier: Apache-2.0

package logpatterns

// Classes of bytes, as bits: the sum over a word tells what it cannot be.
const (
	frameDigit  uint8 = 1 << iota
	frameUpper        // A to Z
	frameLower        // a to z
	frameHost         // - . _ |
	frameEquals       // =
	frameQuote        // " and '
	frameOther        // other signs, bytes of non-ASCII text
	frameSpace        // blanks and control characters
)

var frameClass = frameClasses()

func frameClasses() (table [256]uint8) {
	for i := range table {
		switch c := byte(i); {
		case c <= ' ':
			table[i] = frameSpace
		case digitByte(c):
			table[i] = frameDigit
		case upperByte(c):
			table[i] = frameUpper
		case letterByte(c):
			table[i] = frameLower
		case c == '-' || c == '.' || c == '_' || c == '|':
			table[i] = frameHost
		case c == '=':
			table[i] = frameEquals
		case c == '"' || c == '\'':
			table[i] = frameQuote
		default:
			table[i] = frameOther
		}
	}
	return table
}

func digitByte(c byte) bool  { return c-'0' < 10 }
func upperByte(c byte) bool  { return c-'A' < 26 }
func letterByte(c byte) bool { return (c|0x20)-'a' < 26 }
func alnumByte(c byte) bool  { return digitByte(c) || letterByte(c) }
func blankByte(c byte) bool  { return c == ' ' || c == '\t' }

// word returns the end of the word at p and the classes of its bytes. It remembers the last answer.
func (h *headerScan) word(p int) (end int, class uint8) {
	if h.wordTo > 0 && h.wordFrom == p {
		return h.wordTo, h.wordClass
	}
	end = p
	for end < len(h.b) {
		c := frameClass[h.b[end]]
		if c == frameSpace {
			break
		}
		class |= c
		end++
	}
	h.wordFrom, h.wordTo, h.wordClass = p, end, class
	return end, class
}
