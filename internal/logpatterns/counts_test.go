// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// fromWhere is a source and a level.
type fromWhere struct {
	Source uint8
	Level  Level
}

// sumsFrom are what Counts says by source and level.
func sumsFrom(m *Miner) map[fromWhere]uint64 {
	sums := map[fromWhere]uint64{}
	for _, c := range m.Counts() {
		sums[fromWhere{c.Source, c.Level}] += c.Messages
	}
	return sums
}

// counted is a Count with the template of its pattern.
type counted struct {
	Template string
	Source   uint8
	Level    Level
	Messages uint64
}

func countedBy(m *Miner) (list []counted) {
	for _, c := range m.Counts() {
		list = append(list, counted{c.Pattern.Template(), c.Source, c.Level, c.Messages})
	}
	return list
}

func TestCountsAreBySource(t *testing.T) {
	m := New(Options{})
	for _, source := range []uint8{3, 0, 3, 15, 200, 1} { // what is above counts as the last
		m.AddFrom(source, []byte("volume 7 is full"), LevelError)
	}
	m.AddFrom(3, []byte("volume 8 is full"), LevelInfo)
	m.AddFrom(3, []byte("volume 8 is full"), NumLevels)
	m.Add([]byte("ready"), LevelInfo)
	want := []counted{
		{"volume <*> is full", 0, LevelError, 1},
		{"volume <*> is full", 1, LevelError, 1},
		{"volume <*> is full", 3, LevelUnknown, 1},
		{"volume <*> is full", 3, LevelInfo, 1},
		{"volume <*> is full", 3, LevelError, 2},
		{"volume <*> is full", 15, LevelError, 2},
		{"ready", 0, LevelInfo, 1},
	}
	if diff := cmp.Diff(want, countedBy(m)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestCountsInAnyOrderOfSources adds to counts what another way of counting has.
func TestCountsInAnyOrderOfSources(t *testing.T) {
	r := seeded(91)
	for range 200 {
		var c counts
		want := map[fromWhere]uint64{}
		for range r.IntN(40) {
			at, n := fromWhere{uint8(r.IntN(MaxSources)), Level(r.IntN(int(NumLevels)))}, uint64(1+r.IntN(3)) //nolint:gosec // few
			if have := c.has(at.Source, at.Level); have != (want[at] > 0) {
				t.Fatalf("%v: %v", at, have)
			}
			c.add(at.Source, at.Level, n)
			want[at] += n
		}
		got, sum := map[fromWhere]uint64{}, uint64(0)
		last := -1
		for _, n := range c.appendTo(nil, Pattern{}) {
			at := fromWhere{n.Source, n.Level}
			if place := int(at.Source)*int(NumLevels) + int(at.Level); place <= last {
				t.Fatalf("%v is out of order", at)
			} else {
				last = place
			}
			got[at] = n.Messages
			sum += n.Messages
		}
		var again counts
		eachFlat(c.flat(), again.add)
		if diff := cmp.Diff(want, got); diff != "" || sum != c.sum() {
			t.Fatalf("sum %d, want %d (-want +got)\n%s", c.sum(), sum, diff)
		}
		if diff := cmp.Diff(c.appendTo(nil, Pattern{}), again.appendTo(nil, Pattern{}), cmp.AllowUnexported(Pattern{})); diff != "" {
			t.Fatalf("saved (-want +got)\n%s", diff)
		}
	}
}

// TestMinerCountsEachSource has storms from all sources, with room for few patterns.
func TestMinerCountsEachSource(t *testing.T) {
	for _, opts := range []Options{{}, {MaxPatternsPerLevel: 8}, {MaxPatterns: 4, MaxPatternsPerLevel: 3, MaxSkeletons: 8}, {MaxPatterns: 1, MaxPatternsPerLevel: 1}} {
		for name, storm := range storms {
			r := seeded(93)
			m := New(opts)
			want, levels := map[fromWhere]uint64{}, [NumLevels]uint64{}
			for i := range 6000 {
				at := fromWhere{uint8(r.IntN(MaxSources)), Level(r.IntN(int(NumLevels)))} //nolint:gosec // few
				text := storm(r)
				if i%3 == 0 {
					text = fmt.Sprintf("listener %d of %d is ready", r.IntN(9), i)
				}
				m.AddFrom(at.Source, []byte(text), at.Level)
				want[at]++
				levels[at.Level]++
				if i == 3000 {
					m = restored(t, m, opts)
				}
			}
			m.Learn()
			checkLimits(t, m, levels)
			if diff := cmp.Diff(want, sumsFrom(m)); diff != "" {
				t.Errorf("%+v, %s (-want +got)\n%s", opts, name, diff)
			}
		}
	}
}

// TestMinerUnitesSources has a value of which no one source has seen enough.
func TestMinerUnitesSources(t *testing.T) {
	r := seeded(95)
	m := New(Options{})
	for i := range 32 {
		m.AddFrom(uint8(i%4), []byte("session opened for user "+randomWord(r)), Level(i%2)) //nolint:gosec // few
	}
	m.Learn()
	want := []counted{
		{"session opened for user <*>", 0, 0, 8}, {"session opened for user <*>", 1, 1, 8},
		{"session opened for user <*>", 2, 0, 8}, {"session opened for user <*>", 3, 1, 8},
	}
	if diff := cmp.Diff(want, countedBy(m)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	checkLimits(t, m, [NumLevels]uint64{16, 16})
}

func TestOverflowKnowsItsSource(t *testing.T) {
	m := New(Options{MaxPatterns: 1})
	m.AddFrom(2, []byte("volume is full"), LevelInfo)
	m.AddFrom(5, []byte("replica is late"), LevelError)
	m.AddFrom(5, []byte("replica is late"), LevelError) // has the place of the other one now
	want := []counted{{"replica is late", 5, LevelError, 1}, {"", 2, LevelInfo, 1}, {"", 5, LevelError, 1}}
	if diff := cmp.Diff(want, countedBy(m)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestNewSourceNeverTakesItsOwnPattern has a known line from another source, with no room for a pair more.
func TestNewSourceNeverTakesItsOwnPattern(t *testing.T) {
	m := New(Options{MaxPatternsPerLevel: 1})
	m.AddFrom(0, []byte("volume is full"), LevelInfo)
	if p := m.AddFrom(1, []byte("volume is full"), LevelInfo); !p.IsOverflow() {
		t.Errorf("it is of %q", p.Template())
	}
	want := []counted{{"volume is full", 0, LevelInfo, 1}, {"", 1, LevelInfo, 1}}
	if diff := cmp.Diff(want, countedBy(m)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRestoreOfAStateWithoutSources(t *testing.T) {
	m := New(Options{})
	err := m.Restore([]byte(`{"version":1,"patterns":[{"tokens":["d3JlYWR5"],"counts":[0,0,5,0,0,1]}],"overflow":[1,0,0,0,2,0]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []counted{{"ready", 0, LevelInfo, 5}, {"ready", 0, LevelCritical, 1}, {"", 0, LevelUnknown, 1}, {"", 0, LevelError, 2}}
	if diff := cmp.Diff(want, countedBy(m)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRestoreKeepsSources(t *testing.T) {
	m := New(Options{MaxPatterns: 12})
	r := seeded(97)
	for i, l := range mixture(11, 1500) {
		m.AddFrom(uint8(r.IntN(MaxSources)), []byte(l), Level(i%int(NumLevels))) //nolint:gosec // few
	}
	n := restored(t, m, m.opts)
	if diff := cmp.Diff(countedBy(m), countedBy(n)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	m = restored(t, n, Options{MaxPatterns: 4, MaxPatternsPerLevel: 5}) // the rest is overflow of its source and level
	if diff := cmp.Diff(sumsFrom(n), sumsFrom(m)); diff != "" {
		t.Errorf("fewer (-want +got)\n%s", diff)
	}
}

func TestKnownLinesOfSourcesAllocateNothing(t *testing.T) {
	m := New(Options{})
	text := []byte("call to service ledger took 12 ms")
	add := func() {
		for source := range uint8(MaxSources) {
			m.AddFrom(source, text, LevelInfo)
		}
	}
	add()
	if n := testing.AllocsPerRun(100, add); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestMinerMemoryOfSources has each pattern from as many sources as there is room for.
func TestMinerMemoryOfSources(t *testing.T) {
	before := heapOf()
	m := New(Options{})
	r, all := seeded(99), uint64(0)
	for range 400 {
		n := attacks[r.IntN(len(attacks))]
		text := []byte(n.line(r))
		for source := MaxSources; source > 0; source-- {
			for level := range NumLevels {
				m.AddFrom(uint8(source-1), text, level) //nolint:gosec // few
				all++
			}
		}
	}
	most := growth(before)
	if sum, _ := sums(m); sum != all {
		t.Errorf("%d messages were counted of %d", sum, all)
	}
	if t.Logf("%d KiB, %d counts", most>>10, len(m.Counts())); most > maxHeap {
		t.Errorf("the miner takes %d KiB", most>>10)
	}
	runtime.KeepAlive(m)
}

// TestEachPatternIsNewOnce tells of all patterns that there are in the end, in any order of what Learn unites and Add makes.
func TestEachPatternIsNewOnce(t *testing.T) {
	for seed := range uint64(4) {
		m := New(Options{})
		told := map[*pattern]int{}
		r := seeded(101 + seed)
		for i, l := range mixture(103+seed, 4000) {
			p := m.AddFrom(uint8(r.IntN(3)), []byte(l), Level(i%int(NumLevels))) //nolint:gosec // few
			if p.IsNew() {
				if told[p.p]++; p.IsOverflow() || p.p.lines() != 1 {
					t.Fatalf("%q is new with %d lines", l, p.p.lines())
				}
			}
		}
		for _, p := range m.patterns {
			if told[p] != 1 {
				t.Errorf("%q was new %d times", m.words.render(nil, p.codes), told[p])
			}
		}
	}
}

func TestIsNew(t *testing.T) {
	m := New(Options{MaxPatterns: 2})
	for i, step := range []struct {
		source uint8
		text   string
		level  Level
		want   bool
	}{
		{0, "volume 7 is full", LevelInfo, true},
		{0, "volume 7 is full", LevelInfo, false},
		{0, "volume 8 is full", LevelInfo, false},
		{0, "volume 8 is full", LevelError, false}, // another level
		{1, "volume 8 is full", LevelInfo, false},  // another source
		{0, "replica is late", LevelInfo, false},   // no room at its first sighting
		{1, "replica is late", LevelInfo, true},
	} {
		if got := m.AddFrom(step.source, []byte(step.text), step.level).IsNew(); got != step.want {
			t.Errorf("step %d, %q: %v", i, step.text, got)
		}
	}
	m = restored(t, m, Options{})
	for _, text := range []string{"volume 9 is full", "replica is late"} {
		if m.AddFrom(3, []byte(text), LevelDebug).IsNew() {
			t.Errorf("%q is new after a restart", text)
		}
	}
	if m.Find([]byte("nothing like that")).IsNew() {
		t.Error("what was only looked for is new")
	}
}

func TestUnitedPatternsAreNotNew(t *testing.T) {
	r := seeded(107)
	m := New(Options{})
	first, news := "session opened for user "+randomWord(r), 0
	for i := range 60 {
		text := first
		if i > 0 {
			text = "session opened for user " + randomWord(r)
		}
		before := len(m.patterns)
		p := m.Add([]byte(text), LevelInfo)
		if p.IsNew() {
			news++
		}
		if p.IsNew() && len(m.patterns) <= before {
			t.Errorf("line %d is new, but %d patterns have become %d", i, before, len(m.patterns))
		}
	}
	if news == 0 || news > 12 {
		t.Errorf("%d patterns were new", news)
	}
}

// longTexts have templates that are longer than what is shown.
func longTexts(r *rand.Rand) []string {
	return []string{
		wordsOf(r, lowerLetters, 119, 20),
		strings.Repeat("接続が閉じられました ", 60),
		"x" + strings.Repeat("🚀🚀🚀🚀🚀 x ", 100),
		strings.Repeat("x\xffx\xe6\x8ex\xffx\xff x ", 100),
		strings.Repeat(`"`+strings.Repeat("k ", 50)+`" `, 40),
	}
}

func TestTemplatesAreShort(t *testing.T) {
	for i, text := range longTexts(seeded(109)) {
		m := New(Options{})
		p := m.Add([]byte(text), LevelInfo)
		whole := m.words.render(nil, p.p.codes)
		for _, got := range []string{p.Template(), m.Redact([]byte(text)), New(Options{}).Find([]byte(text)).Template()} {
			if len(got) > maxTemplate || len(got) < maxTemplate-utf8.UTFMax || !strings.HasSuffix(got, ellipsis) {
				t.Errorf("text %d: %d bytes of %d: %q", i, len(got), len(whole), got)
			}
			if !utf8.ValidString(got) || got != p.Template() {
				t.Errorf("text %d: %q", i, got)
			}
		}
		if want := fmt.Sprintf("%016x", identityOf(whole)); p.ID() != want || New(Options{}).Find([]byte(text)).ID() != want {
			t.Errorf("text %d: identity %s, want that of the whole, %s", i, p.ID(), want)
		}
	}
}

func TestRedact(t *testing.T) {
	m := learned([]string{"session opened for user ann", "session opened for user ben", "session opened for user cem", "session opened for user dan", "session opened for user eve"})
	for text, want := range map[string]string{
		"":                                    "",
		"ready":                               "ready",
		"session opened for user fay":         "session opened for user fay", // not by its shape
		"mail to jane.doe@example.com failed": "mail to <*> failed",
		"paid 17.50 EUR by card 4111 1111 1111 1111": "paid <*> EUR by card <*>",
		"login with password=correcthorse":           "login with password=<*>",
		"GET https://bob:hunter@example.com/a?t=b":   "<*>",
		"boom\n\tat a.b.C(C.java:12)\n":              "boom at <*>",
		"bad \xff byte":                              "bad \ufffd byte",
	} {
		if got := m.Redact([]byte(text)); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	if got, _ := sums(m); got != 5 {
		t.Errorf("%d messages were counted", got)
	}
}
