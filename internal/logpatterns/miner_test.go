// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func seeded(seed uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // must be repeatable
}

func randomWord(r *rand.Rand) string {
	b := make([]byte, 4+r.IntN(8))
	for i := range b {
		b[i] = 'a' + byte(r.IntN(26))
	}
	return string(b)
}

func randomWords(r *rand.Rand, n int) string {
	words := make([]string, n)
	for i := range words {
		words[i] = randomWord(r)
	}
	return strings.Join(words, " ")
}

// sums are what Counts says in all, and by level.
func sums(m *Miner) (all uint64, byLevel [NumLevels]uint64) {
	for _, c := range m.Counts() {
		all += c.Messages
		byLevel[c.Level] += c.Messages
	}
	return all, byLevel
}

// countsOf are the counts of all levels by template, "" for the overflow.
func countsOf(m *Miner) map[string]uint64 {
	counts := map[string]uint64{}
	for _, c := range m.Counts() {
		counts[c.Pattern.Template()] += c.Messages
	}
	return counts
}

// learned is a miner that has seen some lines and learned from them.
func learned(lines []string) *Miner {
	m := New(Options{})
	for _, l := range lines {
		m.Add([]byte(l), LevelInfo)
	}
	m.Learn()
	return m
}

// checkCounts makes sure that a miner keeps to its options, and that all lines were counted.
func checkCounts(t *testing.T, m *Miner, want [NumLevels]uint64) {
	t.Helper()
	if _, got := sums(m); got != want {
		t.Errorf("counted %v lines by level, want %v", got, want)
	}
	patterns, byLevel := map[*pattern]bool{}, [NumLevels]int{}
	for _, c := range m.Counts() {
		if !c.Pattern.IsOverflow() {
			patterns[c.Pattern.p] = true
			byLevel[c.Level]++
		}
	}
	if len(patterns) > m.opts.MaxPatterns {
		t.Errorf("%d patterns, limit %d", len(patterns), m.opts.MaxPatterns)
	}
	for level, n := range byLevel {
		if n > m.opts.MaxPatternsPerLevel {
			t.Errorf("%d patterns of level %v, limit %d", n, Level(level), m.opts.MaxPatternsPerLevel) //nolint:gosec // few
		}
		if n != m.byLevel[level] {
			t.Errorf("%d patterns of level %v, taken for %d", n, Level(level), m.byLevel[level]) //nolint:gosec // few
		}
	}
	if len(m.rows) > m.opts.MaxSkeletons {
		t.Errorf("%d skeletons, limit %d", len(m.rows), m.opts.MaxSkeletons)
	}
}

// checkLimits is checkCounts, and makes sure that no two patterns have one identity.
func checkLimits(t *testing.T, m *Miner, want [NumLevels]uint64) {
	t.Helper()
	checkCounts(t, m, want)
	ids, twice := map[string]*pattern{}, map[string]bool{}
	for _, c := range m.Counts() {
		if p := ids[c.Pattern.ID()]; p != nil && p != c.Pattern.p {
			twice[c.Pattern.Template()] = true
		}
		ids[c.Pattern.ID()] = c.Pattern.p
	}
	for template := range twice {
		t.Errorf("%d of %d patterns have others of the same identity, such as %q", len(twice), len(m.patterns), template)
		break
	}
}

// storms make lines of which few or none are alike.
var storms = map[string]func(r *rand.Rand) string{
	"new words":      func(r *rand.Rand) string { return randomWords(r, 5+r.IntN(8)) },
	"one shape":      func(r *rand.Rand) string { return "lookup of " + randomWord(r) + " gave " + randomWord(r) + " twice" },
	"few words":      func(r *rand.Rand) string { return strings.Join(pick(r, "red green blue cyan", 4+r.IntN(3)), " ") },
	"known patterns": func(r *rand.Rand) string { return fmt.Sprintf("cache %s holds %d rows", randomWord(r), r.IntN(1000)) },
	"values of keys": func(r *rand.Rand) string {
		return fmt.Sprintf("%s=%s size=%d", randomWord(r), randomWord(r), r.IntN(10))
	},
	"errors": func(r *rand.Rand) string {
		return "job " + randomWord(r) + " stopped: " + randomWords(r, 1+r.IntN(6))
	},
	"signs": func(r *rand.Rand) string {
		return strings.Join(pick(r, `a ( ) [ ] " ' = : , . 1 / { } b`, 3+r.IntN(9)), "")
	},
}

func pick(r *rand.Rand, from string, n int) []string {
	list := strings.Fields(from)
	words := make([]string, n)
	for i := range words {
		words[i] = list[r.IntN(len(list))]
	}
	return words
}

func TestMinerCountsEachLine(t *testing.T) {
	for _, opts := range []Options{
		{},
		{MaxPatterns: 4},
		{MaxPatternsPerLevel: 2},
		{MaxSkeletons: 8},
		{MaxPatterns: 4, MaxPatternsPerLevel: 2, MaxSkeletons: 8},
		{MaxPatterns: 1, MaxPatternsPerLevel: 1, MaxSkeletons: 1},
		{MaxPatterns: 100, MaxPatternsPerLevel: 60, MaxSkeletons: 40},
	} {
		for name, storm := range storms {
			t.Run(fmt.Sprintf("%s %d %d %d", name, opts.MaxPatterns, opts.MaxPatternsPerLevel, opts.MaxSkeletons), func(t *testing.T) {
				r := seeded(7)
				m := New(opts)
				var want [NumLevels]uint64
				for i := 0; i < 4000 && !t.Failed(); i++ {
					level := Level(r.IntN(int(NumLevels) + 1)) //nolint:gosec // few
					m.Add([]byte(storm(r)), level)
					want[level%NumLevels]++ // one that is not known counts as LevelUnknown
					if i%1000 == 999 {
						checkLimits(t, m, want)
					}
				}
				m.Learn()
				checkLimits(t, m, want)
			})
		}
	}
}

func TestMinerCountsKnownPatternsDuringAStorm(t *testing.T) {
	known := []string{
		"listener on port %d is ready", "peer 10.0.0.%d sent no answer", "rotated %d segments of the journal",
		"login of user-%d granted", "login of user-%d revoked", "queue has %d entries left",
	}
	for name, storm := range storms {
		t.Run(name, func(t *testing.T) {
			r := seeded(3)
			m := New(Options{})
			ids := make([]string, len(known))
			for range 20 {
				for i, format := range known {
					ids[i] = m.Add(fmt.Appendf(nil, format, r.IntN(250)), LevelInfo).ID()
				}
			}
			const lines = 30_000
			for i := range lines {
				m.Add([]byte(storm(r)), LevelError)
				k := i % len(known)
				if got := m.Add(fmt.Appendf(nil, known[k], r.IntN(250)), LevelInfo).ID(); got != ids[k] {
					t.Fatalf("line %d of %q is of %q, was of %q", i, known[k], got, ids[k])
				}
			}
			got := map[string]uint64{}
			for _, c := range m.Counts() {
				if c.Level == LevelInfo {
					got[c.Pattern.ID()] = c.Messages
				}
			}
			want := map[string]uint64{}
			for _, id := range ids {
				want[id] = 20 + lines/uint64(len(known))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestMinerFindsPatternsAfterAStorm makes sure that lines that are seen once do not keep the room for ever.
func TestMinerFindsPatternsAfterAStorm(t *testing.T) {
	r := seeded(5)
	m := New(Options{})
	for range 5000 {
		m.Add([]byte(storms["new words"](r)), LevelInfo)
	}
	for i := range 100 {
		if p := m.Add(fmt.Appendf(nil, "listener on port %d is ready", i), LevelInfo); p.IsOverflow() && i > 2 {
			t.Fatalf("sighting %d of a pattern is overflow", i+1)
		}
	}
}

// TestMinerKeepsOppositeEventsApart has many users, and few events that are opposites.
func TestMinerKeepsOppositeEventsApart(t *testing.T) {
	for _, pair := range [][2]string{
		{"access granted to %s", "access revoked to %s"},
		{"session opened for user %s", "session closed for user %s"},
		{"cache hit for key %s", "cache miss for key %s"},
		{"user %s logged in", "user %s logged out"},
		{"%s is up", "%s is down"},
		{"node %s joined the cluster", "node %s left the cluster"},
		{"request of %s accepted", "request of %s rejected"},
		{"lock %s acquired", "lock %s released"},
		{"service %s started", "service %s stopped"},
		{"payment for %s succeeded", "payment for %s failed"},
		{"user %s, granted", "user %s, revoked"},
		{"granted, user %s", "revoked, user %s"},
		{"status=granted user %s", "status=revoked user %s"},
		{"feature %s was turned on by the operator", "feature %s was turned off by the operator"},
		{"rule %s: allow", "rule %s: deny"},
		{"attached volume %s to the host", "detached volume %s from the host"},
	} {
		for _, users := range []string{"words", "numbers"} {
			t.Run(pair[0]+" "+users, func(t *testing.T) {
				r := seeded(11)
				var lines []string
				for i := range 400 {
					user := randomWord(r)
					if users == "numbers" {
						user = fmt.Sprintf("u%d", i)
					}
					lines = append(lines, fmt.Sprintf(pair[i&1], user))
				}
				m := learned(lines)
				want := map[string]uint64{
					strings.ReplaceAll(pair[0], "%s", "<*>"): 200, strings.ReplaceAll(pair[1], "%s", "<*>"): 200,
				}
				if strings.HasPrefix(pair[0], "status=") { // what follows a key is a value by its shape
					want = map[string]uint64{"status=<*> user <*>": 400}
				}
				if diff := cmp.Diff(want, countsOf(m)); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestMinerFindsValuesAmongWords(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"session opened for user %s", "session opened for user <*>"},
		{"cannot reach host %s right now", "cannot reach host <*> right now"},
		{"tenant %s has used up all of its quota", "tenant <*> has used up all of its quota"},
		{"stage '%s' is over", "stage '<*>' is over"},
		{"queue %s is drained by worker-7", "queue <*> is drained by <*>"},
	} {
		var lines []string
		r := seeded(13)
		for range 12 {
			lines = append(lines, fmt.Sprintf(tt.line, randomWord(r)))
		}
		if diff := cmp.Diff(map[string]uint64{tt.want: 12}, countsOf(learned(lines))); diff != "" {
			t.Errorf("%s: %s", tt.line, diff)
		}
	}
}

func TestMinerFindsTextsOfAnyLength(t *testing.T) {
	causes := []string{
		"connection refused", "no route to host", "timeout", "name not known", "broken pipe", "the certificate has expired",
		"permission denied", "unexpected end of file", "network is unreachable", "handshake did not complete in time",
	}
	var lines []string
	for i := range 60 {
		lines = append(lines, fmt.Sprintf("upload of part %d stopped with error: %s", i, causes[i%len(causes)]))
	}
	if diff := cmp.Diff(map[string]uint64{"upload of part <*> stopped with error: <*>": 60}, countsOf(learned(lines))); diff != "" {
		t.Error(diff)
	}
}

// TestMinerNeedsMoreThanOneSighting has lines that differ in one word, each seen so often that it is no chance.
func TestMinerNeedsMoreThanOneSighting(t *testing.T) {
	for _, pair := range [][2]string{
		{"replica is primary now", "replica is standby now"},
		{"user alice has no rights", "user bob has no rights"},
		{"reading block from disk", "reading block from cache"},
		{"channel for orders is slow", "channel for payments is slow"},
		{"mode: fast", "mode: safe"},
		{"red", "green"},
		{"started web", "started database"},
		{"cannot open the file", "cannot close the file"},
		{"state=warm, phase one", "state=warm, phase two"},
	} {
		for _, times := range []int{1, 2, 50} {
			var lines []string
			for range times {
				lines = append(lines, pair[0], pair[1])
			}
			m := learned(lines)
			if a, b := m.Find([]byte(pair[0])), m.Find([]byte(pair[1])); a.ID() == b.ID() {
				t.Errorf("%q and %q, %d times each, are both %q", pair[0], pair[1], times, a.Template())
			}
		}
	}
}

// mixture has lines of many patterns, of which some have words that are values.
func mixture(seed uint64, n int) []string {
	r := seeded(seed)
	users := make([]string, 30)
	for i := range users {
		users[i] = randomWord(r)
	}
	services := strings.Fields("billing search mailer gateway catalog ledger")
	causes := []string{"connection refused", "no route to host", "timeout", "broken pipe", "permission denied", "too many open files"}
	lines := make([]string, n)
	for i := range lines {
		user, service, cause := users[r.IntN(len(users))], services[r.IntN(len(services))], causes[r.IntN(len(causes))]
		lines[i] = []string{
			fmt.Sprintf("session of user %s opened from 10.0.0.%d", user, r.IntN(250)),
			fmt.Sprintf("session of user %s closed after %d s", user, r.IntN(250)),
			fmt.Sprintf("call to service %s took %d ms", service, r.IntN(5000)),
			fmt.Sprintf("cannot reach service %s: %s", service, cause),
			fmt.Sprintf("job %s done in %dms", user, r.IntN(9000)),
			fmt.Sprintf("GET /users/%s gave %d", user, 200+r.IntN(4)*100),
			fmt.Sprintf("wrote %d bytes to /var/lib/%s/data", r.IntN(1e6), service),
			"checkpoint complete", "checkpoint starting", "compaction of level " + []string{"one", "two"}[r.IntN(2)] + " begins",
			fmt.Sprintf("user=%s service=%s cause=%q", user, service, cause),
			fmt.Sprintf("leader is now %s of %s", user, service),
		}[r.IntN(12)]
	}
	return lines
}

func TestMinerIsTheSameInAnyOrder(t *testing.T) {
	lines := mixture(1, 3000)
	want := templates(learned(lines), lines)
	for seed := range uint64(12) {
		shuffled := slices.Clone(lines)
		seeded(seed+20).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		got := templates(learned(shuffled), lines)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("order %d: %s", seed, diff)
		}
	}
}

// templates are those that lines have, each with its identity.
func templates(m *Miner, lines []string) map[string]string {
	found := map[string]string{}
	for _, l := range lines {
		p := m.Find([]byte(l))
		found[p.Template()] = p.ID()
	}
	return found
}

func TestMinerTellsOfPatternsThatBecameOne(t *testing.T) {
	m := New(Options{})
	first := m.Add([]byte("session opened for user alice"), LevelInfo)
	before := first.ID()
	r := seeded(17)
	for range 50 {
		m.Add([]byte("session opened for user "+randomWord(r)), LevelInfo)
	}
	last := m.Add([]byte("session opened for user bob"), LevelInfo)
	if first.ID() == before || first.ID() != last.ID() || first.Template() != "session opened for user <*>" {
		t.Errorf("the first line is of %q %s (was %s), the last of %q %s", first.Template(), first.ID(), before, last.Template(), last.ID())
	}
}

// TestMinerHasOnePatternOfAnIdentity has lines that the tokenizer takes apart differently, but of which the templates are equal.
func TestMinerHasOnePatternOfAnIdentity(t *testing.T) {
	for _, pair := range [][2]string{
		{"ready now", "  ready now"},
		{"ready now", "ready now\r\n"},
		{"is it <*> or not", "is it 5 or not"},
		{`a ""1`, `a ""/`},
	} {
		m := New(Options{})
		for range 3 {
			for _, l := range pair {
				m.Add([]byte(l), LevelInfo)
			}
		}
		var want [NumLevels]uint64
		want[LevelInfo] = 6
		checkLimits(t, m, want)
		if n := len(m.Counts()); n != 1 && m.Find([]byte(pair[0])).ID() == m.Find([]byte(pair[1])).ID() {
			t.Errorf("%q: %d patterns", pair, n)
		}
	}
}

func TestFindDoesNotCount(t *testing.T) {
	lines := mixture(2, 500)
	m := learned(lines[:300])
	before := countsOf(m)
	words := len(m.words.list)
	for range 3 {
		for _, l := range lines {
			if a, b := m.Find([]byte(l)), m.Find([]byte(l)); a.ID() != b.ID() || a.IsOverflow() {
				t.Fatalf("%q is of %q and of %q", l, a.Template(), b.Template())
			}
		}
	}
	r := seeded(19)
	for range 20_000 {
		m.Find([]byte(randomWords(r, 8)))
	}
	if diff := cmp.Diff(before, countsOf(m)); diff != "" {
		t.Error(diff)
	}
	if len(m.words.list) > words+m.maxWords() {
		t.Errorf("%d words after lines that were only looked for, %d before", len(m.words.list), words)
	}
}

func TestMinerAllocatesNothingForKnownLines(t *testing.T) {
	lines := mixture(3, 2000)
	m := learned(lines)
	for _, l := range lines {
		m.Add([]byte(l), LevelInfo)
	}
	text := make([]byte, 0, 256)
	for _, l := range lines[:100] {
		if n := testing.AllocsPerRun(10, func() {
			text = append(text[:0], l...)
			m.Add(text, LevelInfo)
		}); n != 0 {
			t.Errorf("%q: %v allocations", l, n)
		}
	}
	for i := range 100 { // other numbers than were seen
		text = fmt.Appendf(text[:0], "call to service ledger took %d ms", 6000+i)
		if n := testing.AllocsPerRun(10, func() { m.Add(text, LevelInfo) }); n != 0 {
			t.Errorf("%q: %v allocations", text, n)
		}
	}
}

func TestMinerKeepsNoPartOfALine(t *testing.T) {
	m := New(Options{})
	text := []byte("replica of shard seven is late")
	p := m.Add(text, LevelInfo)
	for i := range text {
		text[i] = 'x'
	}
	if got := p.Template(); got != "replica of shard seven is late" {
		t.Errorf("the template is %q", got)
	}
}
