// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const testPoll = 5 * time.Millisecond

// following is a Follower that runs, and what it gave.
type following struct {
	t *testing.T
	*Follower
	stop func()
	step func() // looks, if it does not run by itself

	mu        sync.Mutex
	got       map[string][]string
	lines     map[string][]Line
	forgotten map[string]bool
}

func testOptions() Options {
	return Options{Poll: testPoll, Silence: 60 * time.Millisecond}
}

// follow runs a Follower over the sources, from a checkpoint if there is one, until the test ends or stop is called.
func follow(t *testing.T, o Options, checkpoint []byte, sources ...Source) *following {
	t.Helper()
	f := &following{t: t, got: map[string][]string{}, lines: map[string][]Line{}, forgotten: map[string]bool{}}
	o.Forgotten = func(key string) { f.locked(func() { f.forgotten[key] = true }) }
	f.Follower = New(o)
	if checkpoint != nil {
		if err := f.Restore(checkpoint); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range sources {
		f.Follow(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx, f.take)
	}()
	f.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(f.stop)
	return f
}

func (f *following) locked(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *following) take(key string, lines []Line) {
	f.locked(func() {
		for _, l := range lines {
			f.got[key] = append(f.got[key], string(l.Text))
			l.Text = []byte(string(l.Text))
			f.lines[key] = append(f.lines[key], l)
		}
	})
}

func (f *following) taken(key string) (got []string) {
	f.locked(func() { got = append(got, f.got[key]...) })
	return got
}

// want waits until the lines of the source "a" are these, and a little more for those that should not come.
func (f *following) want(want ...string) {
	f.t.Helper()
	f.wantOf("a", want...)
}

func (f *following) wantOf(key string, want ...string) {
	f.t.Helper()
	f.until(func() bool { return len(f.taken(key)) >= len(want) }, func() string { return cmp.Diff(want, f.taken(key)) })
	if diff := cmp.Diff(want, f.taken(key)); diff != "" {
		f.t.Fatalf("lines (-want +got):\n%s", diff)
	}
}

func (f *following) until(ok func() bool, say func() string) {
	f.t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(testPoll / 2) {
		if time.Now().After(end) {
			f.t.Fatalf("not so after 10 s: %s\n%+v", say(), f.Stats())
		}
		if f.step != nil {
			f.step()
		}
	}
}

func (f *following) untilStats(what string, ok func(Stats) bool) {
	f.t.Helper()
	f.until(func() bool { return ok(f.Stats()) }, func() string { return what })
}

// found waits until the source "a" has been looked at once.
func (f *following) found() {
	f.t.Helper()
	f.until(func() bool {
		f.Follower.mu.Lock()
		defer f.Follower.mu.Unlock()
		return f.sources["a"].seenAt > 0
	}, func() string { return "found" })
}

// logFile is a path and who writes to it.
type logFile struct {
	t    *testing.T
	path string
	f    *os.File
}

func newLog(t *testing.T, name, text string) *logFile {
	t.Helper()
	l := &logFile{t: t, path: filepath.Join(t.TempDir(), name)}
	l.create()
	l.write(text)
	return l
}

func (l *logFile) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *logFile) create() {
	l.t.Helper()
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	l.must(err)
	l.f = f
	l.t.Cleanup(func() { f.Close() })
}

func (l *logFile) write(text string) {
	l.t.Helper()
	_, err := l.f.WriteString(text)
	l.must(err)
}

func (l *logFile) source(format Format, start Start) Source {
	return Source{Key: "a", Path: l.path, Format: format, Start: start}
}

// nextTick waits until files get another time than before.
func nextTick(t *testing.T) {
	t.Helper()
	now := func() (ts unix.Timespec) {
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
			t.Fatal(err)
		}
		return ts
	}
	for before := now(); now() == before; {
		time.Sleep(time.Millisecond)
	}
}

// wait lets a few looks pass.
func wait(looks int) { time.Sleep(time.Duration(looks) * testPoll) }

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx, cancel
}

// needsBirth skips where the file system does not tell when a file was made.
func needsBirth(t *testing.T) {
	t.Helper()
	l := newLog(t, "born", "")
	info, err := place{path: l.path}.stat()
	l.must(err)
	if info.id.Born == 0 {
		t.Skip("the file system does not tell when a file was made")
	}
}
