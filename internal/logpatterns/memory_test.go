// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// maxHeap of a miner with the default Options.
	maxHeap = 1 << 20
	// hostileCount is how many lines TestMinerMemory adds, unless EBPFCONTAINER_HOSTILE says another number.
	hostileCount = 300_000
)

// attacks make lines that are to take much memory or time.
var attacks = []struct {
	name string
	line func(r *rand.Rand) string
}{
	{"new words", func(r *rand.Rand) string { return randomWords(r, 5+r.IntN(8)) }},
	{"words of 40 bytes", func(r *rand.Rand) string { return wordsOf(r, lowerLetters, 8, maxWord) }},
	{"words of 41 bytes", func(r *rand.Rand) string { return "x " + wordsOf(r, lowerLetters, 8, maxWord+1) }},
	{"words of two letters", func(r *rand.Rand) string { return wordsOf(r, lowerLetters, 100, 2) }},
	{"long quotations", func(r *rand.Rand) string {
		return "x '" + wordsOf(r, lowerLetters, 10, 10) + "' y '" + wordsOf(r, lowerLetters, 10, 10) + "'"
	}},
	{"long lists", func(r *rand.Rand) string { return strings.ReplaceAll(wordsOf(r, lowerLetters, 10, 8), " ", ", ") }},
	{"many signs", func(r *rand.Rand) string { return randomOf(r, `()[]{}<>"'=:;,.!?|&-/\a `, 150) }},
	{"deep brackets", func(r *rand.Rand) string {
		n := r.IntN(100)
		return strings.Repeat("(", n) + randomWord(r) + strings.Repeat(")", n)
	}},
	{"bytes", func(r *rand.Rand) string {
		b := make([]byte, 100)
		for i := range b {
			b[i] = byte(r.IntN(256))
		}
		return string(b)
	}},
	{"runes", func(r *rand.Rand) string {
		b := make([]rune, 60)
		for i := range b {
			b[i] = rune(0x20 + r.IntN(0x1f000))
		}
		return string(b)
	}},
	{"one shape", func(r *rand.Rand) string { return "lookup of " + randomWord(r) + " gave " + randomWord(r) + " twice" }},
	{"one shape of many words", func(r *rand.Rand) string { return strings.Join(pick(r, "red green blue", 100), " ") }},
	{"shapes of few words", func(r *rand.Rand) string {
		return strings.Join(pick(r, "red green blue : , ( ) error from 1 1", 20+r.IntN(20)), " ")
	}},
	{"errors", func(r *rand.Rand) string {
		return "job " + randomWord(r) + " stopped: " + strings.Join(pick(r, "red green blue cyan", 1+r.IntN(9)), " ")
	}},
	{"words seen twice", func(r *rand.Rand) string { return randomWords(seeded(r.Uint64()%4000), 12) }},
}

func wordsOf(r *rand.Rand, alphabet string, n, size int) string {
	words := make([]string, n)
	for i := range words {
		words[i] = randomOf(r, alphabet, size)
	}
	return strings.Join(words, " ")
}

// heapOf returns what the heap has in use.
func heapOf() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// growth is by how much the heap is larger than before.
func growth(before uint64) uint64 {
	if now := heapOf(); now > before {
		return now - before
	}
	return 0
}

func hostileLinesWanted(t *testing.T) int {
	t.Helper()
	text := os.Getenv("EBPFCONTAINER_HOSTILE")
	if text == "" {
		if testing.Short() {
			return hostileCount / 10
		}
		return hostileCount
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestMinerMemory adds lines of one kind, and then of all.
func TestMinerMemory(t *testing.T) {
	n := hostileLinesWanted(t)
	for _, attack := range attacks {
		t.Run(attack.name, func(t *testing.T) { checkMemory(t, n/len(attacks), attack.line) })
	}
	t.Run("all", func(t *testing.T) {
		checkMemory(t, n, func(r *rand.Rand) string { return attacks[r.IntN(len(attacks))].line(r) })
	})
	t.Run("one after the other", func(t *testing.T) {
		i := 0
		checkMemory(t, n, func(r *rand.Rand) string {
			i++
			return attacks[(i-1)*len(attacks)/n%len(attacks)].line(r)
		})
	})
}

func checkMemory(t *testing.T, n int, line func(r *rand.Rand) string) {
	t.Helper()
	before := heapOf()
	m := New(Options{})
	r := seeded(53)
	var most uint64
	var took, longest time.Duration
	for i := range n {
		text := []byte(line(r))
		at := time.Now()
		m.Add(text, LevelInfo)
		d := time.Since(at)
		took, longest = took+d, max(longest, d)
		if i%(n/8+1) == n/8 || i == n-1 {
			most = max(most, growth(before))
		}
	}
	if got, _ := sums(m); got != uint64(n) {
		t.Errorf("%d lines were counted of %d", got, n)
	}
	t.Logf("%d lines: %d KiB, %v a line, the longest %v, %d patterns", n, most>>10, took/time.Duration(n), longest, len(m.patterns))
	if most > maxHeap {
		t.Errorf("the miner takes %d KiB", most>>10)
	}
	runtime.KeepAlive(m)
}

// TestMinerMemoryWhenRead has what is asked of a miner beside Add.
func TestMinerMemoryWhenRead(t *testing.T) {
	before := heapOf()
	m := New(Options{})
	r := seeded(59)
	for i := range 50_000 {
		m.Find([]byte(attacks[r.IntN(len(attacks))].line(r)))
		if i%1000 == 0 {
			m.Learn()
		}
	}
	if most := growth(before); most > maxHeap {
		t.Errorf("the miner takes %d KiB", most>>10)
	}
	runtime.KeepAlive(m)
}

// TestRestoredMinerMemory takes in a state of which nothing is true.
func TestRestoredMinerMemory(t *testing.T) {
	r := seeded(61)
	var b strings.Builder
	b.WriteString(`{"version":1,"patterns":[`)
	for i := range 2000 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"tokens":["wx"`)
		for range maxTokens {
			fmt.Fprintf(&b, `,"W%s"`, randomOf(r, lowerLetters, maxQuoted))
		}
		b.WriteString(`],"counts":[1]}`)
	}
	b.WriteString(`],"overflow":[]}`)
	saved := []byte(b.String())
	before := heapOf()
	m := New(Options{})
	if err := m.Restore(saved); err != nil {
		t.Log(err)
	}
	for range 2000 {
		m.Add([]byte(attacks[0].line(r)), LevelInfo)
	}
	m.Learn()
	if most := growth(before); most > maxHeap {
		t.Errorf("the miner takes %d KiB", most>>10)
	}
	runtime.KeepAlive(m)
	runtime.KeepAlive(saved)
}

// TestMinerTakesNoTime makes sure that no kind of line makes a miner slow: not in the mean, nor so that it stops for long.
func TestMinerTakesNoTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, attack := range attacks {
		m := New(Options{})
		r := seeded(67)
		const n = 6000
		times := make([]time.Duration, n)
		var all time.Duration
		for i := range n {
			text := []byte(attack.line(r))
			at := time.Now()
			m.Add(text, LevelInfo)
			times[i] = time.Since(at)
			all += times[i]
		}
		slices.Sort(times)
		t.Logf("%s: %v a line, the longest %v, that before %v", attack.name, all/n, times[n-1], times[n-2])
		if all/n > time.Millisecond {
			t.Errorf("%s: %v a line", attack.name, all/n)
		}
		if times[n-1] > 10*time.Second {
			t.Errorf("%s: a line took %v", attack.name, times[n-1])
		}
	}
}
