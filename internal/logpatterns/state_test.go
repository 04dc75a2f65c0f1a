// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// known is all that Counts tells.
type known struct {
	ID, Template string
	Level        Level
}

func knownOf(m *Miner) map[known]uint64 {
	all := map[known]uint64{}
	for _, c := range m.Counts() {
		all[known{c.Pattern.ID(), c.Pattern.Template(), c.Level}] += c.Messages
	}
	return all
}

// restored is a miner with the state of another.
func restored(t *testing.T, m *Miner, opts Options) *Miner {
	t.Helper()
	saved, err := m.Save()
	if err != nil {
		t.Fatal(err)
	}
	n := New(opts)
	if err := n.Restore(saved); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRestoreKeepsPatterns(t *testing.T) {
	odd := []string{
		"", "   ", "bad \xff\xfe bytes", "nul \x00 here", "cut \xe6\x8e rune", "tab\there", "接続が閉じられました", "🚀 ready", "a <b> & c",
		"is it <*> or not", "w", "---", "no such key 'a b' in map", "a, b, c", strings.Repeat("so long a line ", 40), "\u2028 line", "½ done", `back\slash`,
	}
	m := New(Options{MaxPatterns: 40})
	r := seeded(37)
	for i, l := range append(mixture(6, 2000), odd...) {
		m.Add([]byte(l), Level(i%int(NumLevels))) //nolint:gosec // few
	}
	for range 100 {
		m.Add([]byte(randomWords(r, 9)), LevelError)
	}
	m.Learn()
	n := restored(t, m, m.opts)
	if diff := cmp.Diff(knownOf(m), knownOf(n)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(knownOf(n), knownOf(restored(t, n, m.opts))); diff != "" {
		t.Errorf("the second time: %s", diff)
	}
}

func TestRestoredMinerKnowsLines(t *testing.T) {
	odd := []string{"bad \xff\xfe bytes", "nul \x00 here", "接続が閉じられました", "a <b> & c", "is it <*> or not", "no such key 'a b' in map", "42", "(42)"}
	for seed := range uint64(5) {
		lines := append(mixture(40+seed, 3000), odd...)
		m := learned(lines)
		n := restored(t, m, Options{})
		before := knownOf(n)
		for _, l := range lines {
			want, got := m.Find([]byte(l)), n.Add([]byte(l), LevelInfo)
			if got.ID() != want.ID() {
				t.Fatalf("%q is of %q, was of %q", l, got.Template(), want.Template())
			}
		}
		for k, count := range before {
			if got := knownOf(n)[k]; got != 2*count {
				t.Errorf("%v has %d lines, want %d", k, got, 2*count)
			}
		}
	}
}

// TestRestoredMinerLearns has values of which no one restored miner has seen enough.
func TestRestoredMinerLearns(t *testing.T) {
	r := seeded(41)
	m := New(Options{})
	for range 10 {
		for range 2 {
			m.Add([]byte("session opened for user "+randomWord(r)), LevelInfo)
		}
		m.Learn()
		m = restored(t, m, Options{})
	}
	if diff := cmp.Diff(map[string]uint64{"session opened for user <*>": 20}, countsOf(m)); diff != "" {
		t.Error(diff)
	}
}

func TestRestoredMinerTakesNewValuesOfHoles(t *testing.T) {
	causes := []string{"connection refused", "no route to host", "timeout", "broken pipe", "permission denied", "too many open files"}
	r := seeded(43)
	var lines []string
	for i := range 120 {
		lines = append(lines, "session opened for user "+randomWord(r), fmt.Sprintf("upload of part %d stopped with error: %s", i, causes[i%len(causes)]))
	}
	n := restored(t, learned(lines), Options{})
	for i := range 30 {
		n.Add([]byte("session opened for user "+randomWord(r)), LevelInfo)
		n.Add(fmt.Appendf(nil, "upload of part %d stopped with error: %s", i, randomWords(r, 1+i%3)), LevelInfo)
	}
	want := map[string]uint64{"session opened for user <*>": 150, "upload of part <*> stopped with error: <*>": 150}
	if diff := cmp.Diff(want, countsOf(n)); diff != "" {
		t.Error(diff)
	}
}

func TestRestoreKeepsLimits(t *testing.T) {
	m := New(Options{})
	var want [NumLevels]uint64
	for i := range 3000 {
		level := Level(i % int(NumLevels)) //nolint:gosec // few
		m.Add([]byte(storms["new words"](seeded(uint64(i%400)))), level)
		want[level]++
	}
	for _, opts := range []Options{{}, {MaxPatterns: 20}, {MaxPatternsPerLevel: 10}, {MaxSkeletons: 16}, {MaxPatterns: 4, MaxPatternsPerLevel: 2, MaxSkeletons: 8}} {
		checkLimits(t, restored(t, m, opts), want)
	}
}

func TestRestoreReplacesAll(t *testing.T) {
	m := learned([]string{"volume is full"})
	n := learned([]string{"replica is late", "replica is early"})
	saved, err := m.Save()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Restore(saved); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(knownOf(m), knownOf(n)); diff != "" {
		t.Error(diff)
	}
}

func TestRestoreOfNoState(t *testing.T) {
	saved, err := learned(mixture(7, 100)).Save()
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]string{
		"nothing":       "",
		"no JSON":       "state",
		"null":          "null",
		"a list":        "[]",
		"other version": strings.Replace(string(saved), fmt.Sprintf(`"version":%d`, Version), fmt.Sprintf(`"version":%d`, Version+1), 1),
		"no version":    strings.Replace(string(saved), fmt.Sprintf(`"version":%d`, Version), `"version":null`, 1),
		"more after it": string(saved) + "x",
		"empty token":   `{"version":1,"patterns":[{"tokens":[""],"counts":[1]}]}`,
		"odd token":     `{"version":1,"patterns":[{"tokens":["x1"],"counts":[1]}]}`,
		"long sign":     `{"version":1,"patterns":[{"tokens":["s..."],"counts":[1]}]}`,
		"no sign":       `{"version":1,"patterns":[{"tokens":["s"],"counts":[1]}]}`,
		"two signs":     `{"version":1,"patterns":[{"tokens":["s:;"],"counts":[1]}]}`,
		"empty word":    `{"version":1,"patterns":[{"tokens":["w"],"counts":[1]}]}`,
		"long word":     `{"version":1,"patterns":[{"tokens":["w` + strings.Repeat("k", 1000) + `"],"counts":[1]}]}`,
		"many tokens":   `{"version":1,"patterns":[{"tokens":["h"` + strings.Repeat(`,"h"`, 1000) + `],"counts":[1]}]}`,
		"second is bad": `{"version":1,"patterns":[{"tokens":["wgood"],"counts":[1]},{"tokens":["x"],"counts":[1]}],"overflow":[5]}`,
		"counts below":  `{"version":1,"patterns":[{"tokens":["wgood"],"counts":[-1]}]}`,
	}
	for _, n := range []int{1, len(saved) / 2, len(saved) - 1} {
		table[fmt.Sprintf("cut at %d", n)] = string(saved[:n])
	}
	for name, text := range table {
		m := learned([]string{"volume is full"})
		if err := m.Restore([]byte(text)); !errors.Is(err, ErrState) {
			t.Errorf("%s: error %v", name, err)
		}
		if got := m.Counts(); len(got) > 0 {
			t.Errorf("%s: %d counts", name, len(got))
		}
		if p := m.Add([]byte("replica is late"), LevelInfo); p.Template() != "replica is late" || len(m.Counts()) != 1 {
			t.Errorf("%s: the miner is of no use: %q", name, p.Template())
		}
	}
}

// FuzzRestore makes sure that a miner works after any state, or is empty.
func FuzzRestore(f *testing.F) {
	for _, lines := range [][]string{nil, {"volume is full"}, mixture(8, 400), goldenMessages} {
		saved, err := learned(lines).Save()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(saved)
	}
	f.Add([]byte(`{"version":1,"patterns":[{"tokens":["wa","H","G","s:","S=="],"counts":[1,2,3]},{"tokens":[],"counts":[9]}],"values":["a"],"overflow":[1,2]}`))
	f.Add([]byte(`{"version":1,"patterns":[{"tokens":["d2E="],"counts":[1,0,0,0,0,0,0,2` + strings.Repeat(",1", 100) + `]}],"overflow":[1` + strings.Repeat(",1", 100) + `]}`))
	f.Fuzz(func(t *testing.T, saved []byte) {
		m := New(Options{MaxPatterns: 20, MaxPatternsPerLevel: 10, MaxSkeletons: 50})
		m.Add([]byte("volume is full"), LevelInfo)
		if err := m.Restore(saved); err != nil {
			if !errors.Is(err, ErrState) || len(m.Counts()) > 0 {
				t.Fatalf("error %v, %d counts", err, len(m.Counts()))
			}
		}
		_, want := sums(m)
		if diff := cmp.Diff(knownOf(m), knownOf(restored(t, m, m.opts))); diff != "" {
			t.Error(diff)
		}
		for _, l := range mixture(9, 60) {
			m.Add([]byte(l), LevelInfo)
			want[LevelInfo]++
		}
		m.Learn()
		checkCounts(t, m, want)
	})
}
