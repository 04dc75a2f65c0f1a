// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// benchLines are messages of 72 bytes in the mean, of 40 patterns.
func benchLines(n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // must be repeatable
	verbs := strings.Fields("accepted rejected closed opened stored removed flushed queued")
	things := strings.Fields("connection request snapshot message session")
	lines := make([][]byte, n)
	for i := range lines {
		k := r.IntN(len(verbs) * len(things))
		lines[i] = fmt.Appendf(nil, "%s %s %x of worker-%d in %d ms, %d bytes left", things[k%len(things)],
			verbs[k/len(things)], r.Uint64(), r.IntN(100), r.IntN(5000), r.IntN(1e9))
	}
	return lines
}

// BenchmarkKnownLine adds lines of known patterns, each with other numbers.
func BenchmarkKnownLine(b *testing.B) {
	lines := benchLines(4096)
	m := New(Options{})
	for _, l := range lines {
		m.Add(l, LevelInfo)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(bytes.Join(lines, nil)) / len(lines)))
	i := 0
	for b.Loop() {
		m.Add(lines[i&4095], LevelInfo)
		i++
	}
}

// BenchmarkKnownLineOfSources is BenchmarkKnownLine with each pattern from four sources.
func BenchmarkKnownLineOfSources(b *testing.B) {
	lines := benchLines(4096)
	m := New(Options{})
	for source := range uint8(4) {
		for _, l := range lines {
			m.AddFrom(source, l, LevelInfo)
		}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		m.AddFrom(uint8(i&3), lines[i&4095], LevelInfo) //nolint:gosec // few
		i++
	}
}

// BenchmarkKnownLineBaseline is what no miner can do without: one pass over the tokens of the same lines, and a look-up.
func BenchmarkKnownLineBaseline(b *testing.B) {
	lines := benchLines(4096)
	counts := map[uint64]*int{}
	b.SetBytes(int64(len(bytes.Join(lines, nil)) / len(lines)))
	i := 0
	for b.Loop() {
		h := plainHash(lines[i&4095])
		if n := counts[h]; n != nil {
			*n++
		} else {
			counts[h] = new(int)
		}
		i++
	}
}

// plainHash is FNV-1a over the words without a digit.
func plainHash(t []byte) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(t); {
		if t[i] == ' ' {
			i++
			continue
		}
		w, digit := uint64(14695981039346656037), false
		for ; i < len(t) && t[i] != ' '; i++ {
			w = (w ^ uint64(t[i])) * 1099511628211
			digit = digit || t[i] >= '0' && t[i] <= '9'
		}
		if digit {
			w = 1
		}
		h = (h ^ w) * 1099511628211
	}
	return h
}

// newLines are of words that no other line has.
func newLines(n int) [][]byte {
	r := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // must be repeatable
	word := func() string {
		b := make([]byte, 4+r.IntN(8))
		for i := range b {
			b[i] = 'a' + byte(r.IntN(26))
		}
		return string(b)
	}
	lines := make([][]byte, n)
	for i := range lines {
		var words []string
		for range 5 + r.IntN(8) {
			words = append(words, word())
		}
		lines[i] = []byte(strings.Join(words, " "))
	}
	return lines
}

// BenchmarkNewLine adds lines of which no two have a word in common, to a miner that is full.
func BenchmarkNewLine(b *testing.B) {
	lines := newLines(1 << 16)
	m := New(Options{})
	for _, l := range lines[:1<<15] {
		m.Add(l, LevelInfo)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(bytes.Join(lines, nil)) / len(lines)))
	i := 1 << 15
	for b.Loop() {
		m.Add(lines[i&(1<<16-1)], LevelInfo)
		i++
	}
}

// BenchmarkNewLineBaseline looks the same lines up by a plain hash, in vain.
func BenchmarkNewLineBaseline(b *testing.B) {
	lines := newLines(1 << 16)
	counts := map[uint64]*int{}
	for i := range uint64(512) {
		counts[i*mixA] = new(int)
	}
	i, found := 0, 0
	for b.Loop() {
		if counts[plainHash(lines[i&(1<<16-1)])] != nil {
			found++
		}
		i++
	}
	runtime.KeepAlive(found)
}

func longLines() [][]byte {
	var lines [][]byte
	for _, l := range benchLines(512) {
		long := bytes.Repeat(append(l, ' '), 1+1000/len(l))
		lines = append(lines, long[:1000])
	}
	return lines
}

// BenchmarkLongLine adds known lines of 1,000 bytes.
func BenchmarkLongLine(b *testing.B) {
	lines := longLines()
	m := New(Options{})
	for _, l := range lines {
		m.Add(l, LevelInfo)
	}
	b.SetBytes(1000)
	i := 0
	for b.Loop() {
		m.Add(lines[i&511], LevelInfo)
		i++
	}
}

// BenchmarkLongLineBaseline looks at each byte of the same lines once.
func BenchmarkLongLineBaseline(b *testing.B) {
	lines := longLines()
	b.SetBytes(1000)
	i, n := 0, 0
	for b.Loop() {
		for _, c := range lines[i&511] {
			n += int(c)
		}
		i++
	}
	runtime.KeepAlive(n)
}
