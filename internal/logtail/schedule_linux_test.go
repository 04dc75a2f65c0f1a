// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// schedule is a log that is written, rotated, looked at and left in an order made by chance: each line must come once.
type schedule struct {
	*testing.T
	rng   *rand.Rand
	o     Options
	l     *logFile
	f     *looking
	steps []string

	there   bool           // there is a file at the path
	rotated int            // files
	given   map[string]int // lines, by what came before the last restart
	written int
	unread  bool // a file was deleted that may not be read yet

	saved        []byte // the last checkpoint
	savedGiven   map[string]int
	deletedSince bool // since that
}

func (s *schedule) note(format string, args ...any) {
	s.steps = append(s.steps, fmt.Sprintf(format, args...))
}

func (s *schedule) write() {
	if !s.there {
		s.l.create()
		s.there = true
	}
	n := 1 + s.rng.IntN(5)
	if s.rng.IntN(10) == 0 {
		n = 0
	}
	s.note("write %d..%d", s.written, s.written+n-1)
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "line %09d of a writer, which has more to say than its number alone, end\n", s.written)
		s.written++
	}
	s.l.write(b.String())
}

// isOpen says whether the file at the path may be deleted without loss.
func (s *schedule) isOpen() bool {
	info, err := place{path: s.l.path}.stat()
	return err == nil && s.f.sources["a"].cur != nil && s.f.sources["a"].cur.id.same(info.id) && s.f.sources["a"].cur.fd >= 0
}

func (s *schedule) rotate() {
	if !s.there {
		return
	}
	kind := s.rng.IntN(3)
	if kind == 2 && !s.isOpen() {
		kind = 0
	}
	s.rotated++
	to := fmt.Sprintf("%s.%d", s.l.path, s.rotated)
	switch kind {
	case 0:
		s.note("rename to .%d", s.rotated)
		s.l.must(s.l.f.Close())
		s.l.must(os.Rename(s.l.path, to))
		s.there = false
	case 1:
		s.note("copy to .%d", s.rotated)
		s.l.copyTruncate(to)
	default:
		s.note("delete")
		s.l.must(s.l.f.Close())
		s.l.must(os.Remove(s.l.path))
		s.there, s.unread, s.deletedSince = false, true, true
	}
}

func (s *schedule) start(checkpoint []byte) {
	s.f = newLooking(s.T, s.o, checkpoint, s.l.source(Plain, Beginning()))
	s.f.before = func(string) {
		if s.rng.IntN(20) == 0 {
			s.note("  meanwhile:")
			s.change()
		}
	}
}

func (s *schedule) change() {
	if s.rng.IntN(3) == 0 {
		s.rotate()
	} else {
		s.write()
	}
}

// stop adds what was given to that of before.
func (s *schedule) stop() {
	s.f.stop()
	for _, line := range s.f.taken("a") {
		s.given[line]++
	}
}

func (s *schedule) save() {
	s.saved, s.savedGiven, s.deletedSince = s.f.Checkpoint(), maps.Clone(s.given), s.unread
	for _, line := range s.f.taken("a") {
		s.savedGiven[line]++
	}
}

// lookAll looks until all is read that was there when it began.
func (s *schedule) lookAll() {
	for again := true; again; again = s.unread {
		s.unread = false
		s.f.lookAll() // while which a file may be deleted
	}
}

func (s *schedule) step() {
	switch n := s.rng.IntN(24); {
	case n < 10:
		s.change()
	case n < 15:
		s.note("look")
		s.f.look()
	case n < 18:
		s.note("look at all")
		s.lookAll()
	case n < 21:
		wait := time.Duration(s.rng.IntN(9)) * time.Millisecond
		s.note("wait %v", wait)
		time.Sleep(wait)
	case n < 22:
		if s.unread {
			s.lookAll()
		}
		s.note("restart")
		s.stop()
		s.start(s.f.Checkpoint())
		s.saved = nil
	case n < 23:
		s.note("save")
		s.save()
	case s.saved != nil && !s.deletedSince:
		s.note("kill")
		s.f.stop()
		s.given = maps.Clone(s.savedGiven)
		s.start(s.saved)
	}
}

func runSchedule(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	s := &schedule{T: t, rng: rng, o: testOptions(), given: map[string]int{}}
	s.o.MaxOpen = []int{1, 2, 4, 1000}[rng.IntN(4)]
	s.o.Silence = []time.Duration{time.Millisecond, 20 * time.Millisecond, time.Hour}[rng.IntN(3)]
	s.l = newLog(t, "app.log", "")
	s.there = true
	s.start(nil)
	s.f.lookAll()
	for range 10 + rng.IntN(60) {
		s.step()
	}
	s.f.before = nil
	for range 30 {
		s.lookAll()
		time.Sleep(2 * time.Millisecond)
		if len(s.f.taken("a"))+len(s.given) >= s.written {
			break
		}
	}
	s.lookAll()
	lost := s.f.Stats().Lost
	s.stop()
	wrong := ""
	for n := range s.written {
		line := fmt.Sprintf("line %09d of a writer, which has more to say than its number alone, end", n)
		if s.given[line] != 1 {
			wrong += fmt.Sprintf("line %d came %d times\n", n, s.given[line])
		}
		delete(s.given, line)
	}
	for line := range s.given {
		wrong += fmt.Sprintf("%q was not written\n", line)
	}
	if lost != (Lost{}) {
		wrong += fmt.Sprintf("%+v\n", lost)
	}
	if wrong != "" {
		t.Errorf("seed %d, MaxOpen %d, Silence %v:\n%s%s", seed, s.o.MaxOpen, s.o.Silence, wrong, strings.Join(s.steps, "\n"))
	}
}

func TestSchedulesByChance(t *testing.T) {
	needsBirth(t)
	seeds := uint64(400) // EBPFCONTAINER_SCHEDULES=40000 runs more
	if n, err := strconv.ParseUint(os.Getenv("EBPFCONTAINER_SCHEDULES"), 10, 64); err == nil {
		seeds = n
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { t.Parallel(); runSchedule(t, seed) })
	}
}
