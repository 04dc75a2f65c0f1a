// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"encoding/binary"
	"math/bits"
)

// The classes of bytes. Words are made of all but blanks and signs.
const (
	classSign   = 0
	classBlank  = 1
	classLetter = 2
	classDigit  = 4
	classJoin   = 8 // in words as well as between them

	classCut = 16 // of which some end a word
	classAt  = 32 // of a mail address, or behind a password

	classAlnum = classLetter | classDigit
	classWord  = classLetter | classDigit | classJoin
)

var classes = makeClasses()

func makeClasses() (c [256]byte) {
	for i := range c {
		switch b := byte(i); {
		case b == ' ', b >= '\t' && b <= '\r':
			c[i] = classBlank
		case b >= '0' && b <= '9':
			c[i] = classDigit
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= 0x80, b == '_', b == '$':
			c[i] = classLetter
		}
	}
	for _, b := range []byte(".-/@#%+~*'\\") {
		c[b] = classJoin
	}
	for _, b := range []byte(".\\'") {
		c[b] |= classCut
	}
	c['@'] |= classAt
	return c
}

const (
	mixA = 0x9e3779b97f4a7c15
	mixB = 0xd6e8feb86659fd93
	mixC = 0xa0761d6478bd642f
)

// mix adds v to the hash h.
func mix(h, v uint64) uint64 {
	hi, lo := bits.Mul64(h^mixC, v^mixB)
	return hi ^ lo + h
}

// hashBytes is the same on all machines.
func hashBytes(b []byte) uint64 {
	h := uint64(len(b)) * mixA
	for len(b) > 8 {
		h = mix(h, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	return mix(h, load(b))
}

// load reads at most 8 bytes.
func load(b []byte) (v uint64) {
	switch n := len(b); {
	case n == 8:
		return binary.LittleEndian.Uint64(b)
	case n >= 4:
		return uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[n-4:]))<<32
	case n > 0:
		return uint64(b[0]) | uint64(b[n>>1])<<8 | uint64(b[n-1])<<16
	}
	return 0
}

// quickHash is the same for texts that differ only in words with digits, and for no others that tokenize takes apart
// differently: a word with a digit is a hole whatever else it has in it, but for signs at its ends.
func quickHash(t []byte) uint64 {
	h, between := uint64(mixA), uint64(0)
	for i := 0; i < len(t); {
		c := classes[t[i]]
		if c&classWord == 0 || c&classCut != 0 && isCut(t, i) {
			between = (between + uint64(t[i]) + 1) * mixA
			i++
			continue
		}
		from, seen := i, c
		for i++; i < len(t); i++ {
			c = classes[t[i]]
			if c&classWord == 0 || c&classCut != 0 && isCut(t, i) {
				break
			}
			seen |= c
		}
		v := between
		between = 0
		switch w := t[from:i]; {
		case seen&classDigit != 0:
			v += edges(w) + uint64(seen&classAt)*mixB
		case len(w) <= 8:
			v += load(w) ^ uint64(len(w))*mixA
		default:
			v += hashBytes(w)
		}
		h = mix(h, v)
	}
	return mix(h, between)
}

// isCut tells whether a word may end before a byte of classCut.
func isCut(t []byte, i int) bool { return t[i] != '.' || i+1 < len(t) && t[i+1] == '.' }

// runEnd finds the end of what quickHash takes for one word, and whether it has a digit.
func runEnd(t []byte, i int) (end int, digit bool) {
	for ; i < len(t); i++ {
		c := classes[t[i]]
		if c&classWord == 0 || c&classCut != 0 && isCut(t, i) {
			break
		}
		digit = digit || c == classDigit
	}
	return i, digit
}

// edges is what counts of a word with a digit: signs at its beginning and end.
func edges(w []byte) uint64 {
	v := uint64(classes[w[0]] & classAlnum)
	if v == 0 {
		v = uint64(w[0]) << 8
		if len(w) > 1 && w[1] == w[0] {
			v <<= 1
		}
	}
	end := len(w)
	for end > 1 && classes[w[end-1]]&classJoin != 0 {
		end--
	}
	if end < len(w) {
		v ^= hashBytes(w[end:])
	}
	return v*mixB + 0xff
}
