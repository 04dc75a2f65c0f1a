// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

// words are the texts that rows and patterns are made of, each once. Their ids begin with 1.
type words struct {
	index []uint32 // by hash, open addressing; 0 for none
	list  []word
	texts []byte
}

type word struct {
	hash  uint64
	from  uint32
	size  uint16
	flags wordFlags
	holes uint16 // in how many places it is known to be a value
	with  uint64 // a bit for each of these places, by its hash: who has a bit in common may be values of one
}

// find returns the id of a word, 0 for none.
func (ws *words) find(hash uint64, text []byte) uint32 {
	if index := ws.index; len(index) > 0 {
		for i := hash; ; i++ {
			id := index[i&uint64(len(index)-1)]
			if id == 0 {
				break
			}
			if w := &ws.list[id-1]; w.hash == hash && bytes.Equal(ws.text(id), text) {
				return id
			}
		}
	}
	return 0
}

// add takes in a word that find does not know.
func (ws *words) add(hash uint64, text []byte, flags wordFlags) uint32 {
	if 2*(len(ws.list)+1) > len(ws.index) {
		ws.grow()
	}
	ws.list = append(ws.list, word{hash: hash, from: uint32(len(ws.texts)), size: uint16(len(text)), flags: flags}) //nolint:gosec // bounded
	ws.texts = append(ws.texts, text...)
	id := uint32(len(ws.list)) //nolint:gosec // bounded
	ws.put(hash, id)
	return id
}

func (ws *words) put(hash uint64, id uint32) {
	mask := uint64(len(ws.index) - 1)
	for ; ws.index[hash&mask] != 0; hash++ {
	}
	ws.index[hash&mask] = id
}

func (ws *words) grow() {
	ws.index = make([]uint32, max(64, 2*len(ws.index)))
	for i := range ws.list {
		ws.put(ws.list[i].hash, uint32(i+1)) //nolint:gosec // bounded
	}
}

func (ws *words) text(id uint32) []byte {
	w := &ws.list[id-1]
	return ws.texts[w.from : w.from+uint32(w.size)]
}

// code is a token as rows and patterns keep it.
type code uint32

const (
	codeSpace code = 1 << 31
	codeSign  code = 1 << 29
	codeHole  code = 2 << 29
	codeGap   code = 3 << 29 // a hole of one to maxGap tokens
	codeKind  code = 3 << 29
)

func (c code) kind() code    { return c & codeKind }
func (c code) isWord() bool  { return c&codeKind == 0 }
func (c code) isSlot() bool  { return c&codeKind != codeSign }
func (c code) word() uint32  { return uint32(c &^ (codeSpace | codeKind)) }
func (c code) sign() uint16  { return uint16(c) } //nolint:gosec // 9 bits
func (c code) space() code   { return c & codeSpace }
func (c code) noSpace() code { return c &^ codeSpace }

// isSignOf tells whether c is one of some signs.
func (c code) isSignOf(signs string) bool {
	return c.kind() == codeSign && c.sign() < signTwice && bytes.IndexByte([]byte(signs), byte(c.sign())) >= 0
}

// flags of a word, none of anything else.
func (ws *words) flags(c code) wordFlags {
	if !c.isWord() || c.word() == 0 {
		return 0
	}
	return ws.list[c.word()-1].flags
}

// isValue tells whether c is a word that is a value wherever it stands.
func (ws *words) isValue(c code) bool {
	if !c.isWord() || c.word() == 0 {
		return false
	}
	w := &ws.list[c.word()-1]
	return (w.holes > 1 || w.holes > 0 && w.flags&isOdd != 0) && w.flags&(isEvent|isStop) == 0
}

// render writes codes as a template.
func (ws *words) render(b []byte, codes []code) []byte {
	for i, c := range codes {
		if c.space() != 0 && i > 0 {
			b = append(b, ' ')
		}
		switch c.kind() {
		case codeHole, codeGap:
			b = append(b, "<*>"...)
		case codeSign:
			b = appendSign(b, c.sign())
		default:
			b = append(b, ws.text(c.word())...)
		}
	}
	return b
}
