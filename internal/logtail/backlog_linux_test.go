// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// looking is a Follower that looks when it is told to, and while something is waited for: what is done between two looks is.
type looking struct {
	*following
	r      *run
	cancel func()            // as if Run were told to return
	before func(line string) // is called with each line before it is taken, if there is such a function
}

func newLooking(t *testing.T, o Options, checkpoint []byte, src Source) *looking {
	t.Helper()
	f := &following{t: t, got: map[string][]string{}, lines: map[string][]Line{}}
	f.Follower = New(o)
	if checkpoint != nil {
		if err := f.Restore(checkpoint); err != nil {
			t.Fatal(err)
		}
	}
	f.Follow(src)
	ctx, cancel := contextOf(t)
	l := &looking{following: f, cancel: cancel}
	l.r = newRun(ctx, f.Follower, f.laneOf(0), func(key string, lines []Line) {
		for _, line := range lines {
			if l.before != nil {
				l.before(string(line.Text))
			}
		}
		f.take(key, lines)
	})
	f.step = l.lookAll
	f.stop = func() { cancel(); l.r.closeAll() }
	t.Cleanup(f.stop)
	return l
}

// look looks once, and tells whether there is more to read at once.
func (l *looking) look() (more bool) {
	for _, s := range l.sources {
		s.due = time.Time{}
	}
	return l.r.round()
}

func (l *looking) lookAll() {
	for l.look() {
	}
}

// whenGiven does something once, before the line is taken.
func (l *looking) whenGiven(line string, do func()) {
	l.before = func(text string) {
		if text == line {
			l.before = nil
			do()
		}
	}
}

// rotate renames the file at the path and makes another one there.
func (l *logFile) rotate(to string) {
	l.t.Helper()
	l.rename(to)
	l.create()
}

func (l *logFile) rename(to string) {
	l.t.Helper()
	l.must(l.f.Close())
	l.must(os.Rename(l.path, to))
}

// numbered makes lines of one file, and adds them to all.
func numbered(all *[]string, file string, lines int) string {
	var b strings.Builder
	for i := range lines {
		line := fmt.Sprintf("line %d of %s", i, file)
		*all = append(*all, line)
		b.WriteString(line + "\n")
	}
	return b.String()
}

// A file may have to be closed for want of descriptors before anything of it was read, as others before it are long.
func TestClosedBeforeItWasRead(t *testing.T) {
	needsBirth(t)
	l := newLog(t, "app.log", "first\n")
	o := testOptions()
	o.MaxOpen = 2
	f := newLooking(t, o, nil, l.source(Plain, Beginning()))
	f.lookAll()
	want := []string{"first"}
	l.write(numbered(&want, "the long one", 300_000))
	for i := range 4 {
		l.rotate(fmt.Sprint(l.path, ".", i+1))
		l.write(numbered(&want, fmt.Sprint("short one ", i), 3))
	}
	f.lookAll()
	wantOnce(t, want, f.taken("a"))
}

// wantOnce wants all lines, in any order.
func wantOnce(t *testing.T, want, got []string) {
	t.Helper()
	times := map[string]int{}
	for _, line := range got {
		times[line]++
	}
	wrong := 0
	for _, line := range want {
		if n := times[line]; n != 1 {
			if wrong++; wrong < 5 {
				t.Errorf("given %d times: %q", n, line)
			}
		}
		delete(times, line)
	}
	for line := range times {
		if wrong++; wrong < 5 {
			t.Errorf("given, and never written: %.200q", line)
		}
	}
	if wrong > 0 {
		t.Errorf("%d lines are wrong", wrong)
	}
}

// A file may come and be renamed between two looks that both find nothing at the path.
func TestCameAndWentBetweenTwoLooks(t *testing.T) {
	needsBirth(t)
	l := newLog(t, "app.log", "first\n")
	f := newLooking(t, testOptions(), nil, l.source(Plain, Beginning()))
	f.lookAll()
	l.rename(l.path + ".1")
	f.lookAll()
	want := []string{"first"}
	for i := range 3 {
		l.create()
		l.write(numbered(&want, fmt.Sprint("one that was quick ", i), 3))
		l.rename(fmt.Sprint(l.path, ".", i+2))
		for end := time.Now().Add(10 * time.Second); len(f.taken("a")) < len(want) && time.Now().Before(end); {
			f.lookAll()
		}
		wantOnce(t, want, f.taken("a"))
	}
	l.create()
	l.write(numbered(&want, "the last one", 3))
	l.rename(l.path + ".9")
	f.Forget("a")
	f.lookAll()
	wantOnce(t, want, f.taken("a"))
}

// What was read long ago is not new because there is a file that has been empty for longer.
func TestRotatedBesideAnEmptyFile(t *testing.T) {
	needsBirth(t)
	l := newLog(t, "app.log", "")
	o := testOptions()
	o.MaxOpen, o.Silence = 3, time.Hour
	f := newLooking(t, o, nil, l.source(Plain, Beginning()))
	f.lookAll()
	empty := l.path + ".0"
	l.rotate(empty)
	var want []string
	for i := range maxDone + 100 {
		l.write(numbered(&want, fmt.Sprint("file ", i), 1))
		now := time.Now()
		l.must(os.Chtimes(empty, now, now)) // others are closed first
		f.lookAll()
		if i == 50 { // a restart
			f = newLooking(t, o, f.Checkpoint(), l.source(Plain, End()))
			f.lookAll()
			wantOnce(t, nil, f.taken("a"))
			want = nil
		}
		l.rotate(fmt.Sprint(l.path, ".", i+1))
	}
	f.lookAll()
	wantOnce(t, want, f.taken("a"))
}
