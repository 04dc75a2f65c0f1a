// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"fmt"
	"testing"
)

// countsByID sums up what a miner has, by what does not depend on it.
func countsByID(m *Miner) map[string]uint64 {
	all := map[string]uint64{}
	for _, c := range m.Counts() {
		all[fmt.Sprint(c.Source, c.Level, c.Pattern.ID())] += c.Messages
	}
	return all
}

func TestAbsorbIsAsIfOneHadSeenAll(t *testing.T) {
	both, a, b := New(Options{}), New(Options{}), New(Options{})
	for i := range 400 {
		for _, text := range []string{
			fmt.Sprintf("request %d took %d ms", i, i*3), fmt.Sprintf("user %s logged in", []string{"ann", "bob", "eve", "kim"}[i%4]), "ready",
		} {
			both.AddFrom(0, []byte(text), LevelInfo)
			a.AddFrom(0, []byte(text), LevelInfo)
			both.AddFrom(3, []byte(text), LevelError)
			b.AddFrom(1, []byte(text), LevelError)
		}
		only := []byte("seen by the second alone")
		both.AddFrom(3, only, LevelDebug)
		b.AddFrom(1, only, LevelDebug)
	}
	a.Absorb(b, []uint8{9, 3})
	got, want := countsByID(a), countsByID(both)
	for key, n := range want {
		if got[key] != n {
			t.Errorf("%s: %d messages, want %d", key, got[key], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d series, want %d", len(got), len(want))
	}
	if p := a.AddFrom(0, []byte("request 7 took 9 ms"), LevelInfo); p.IsNew() || p.IsOverflow() {
		t.Error("a known line is not known after Absorb")
	}
}

func TestAbsorbKeepsTheSumPastTheLimits(t *testing.T) {
	a, b := New(Options{MaxPatterns: 8, MaxPatternsPerLevel: 4}), New(Options{})
	for i := range 40 {
		word := string(rune('a'+i%26)) + string(rune('a'+i/26)) + "xq"
		b.Add([]byte("what "+word+word+" is"), LevelInfo)
		b.Add([]byte(word+" "+word+" and more of "+word), LevelWarning)
		a.Add([]byte("mine "+word), LevelInfo)
	}
	a.Absorb(b, []uint8{0})
	var sum uint64
	for _, c := range a.Counts() {
		sum += c.Messages
	}
	if sum != 120 {
		t.Errorf("%d messages, want 120", sum)
	}
	if len(a.patterns) > 8 {
		t.Errorf("%d patterns", len(a.patterns))
	}
}
