// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logtail"
)

func open(t *testing.T, opts Options) *Logs {
	t.Helper()
	l, err := Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLogs(t *testing.T, l *Logs) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func appendTo(t *testing.T, path string, lines ...string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, line := range lines {
		if _, err := f.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// messages sums up what has not ended.
func messages(o *Owner) (n uint64) {
	for _, p := range o.Counts().Patterns {
		if !p.Ended {
			n += p.Messages
		}
	}
	return n
}

// seriesOf lists what has not ended, by what tells it apart.
func seriesOf(o *Owner) map[string]uint64 {
	all := map[string]uint64{}
	for _, p := range o.Counts().Patterns {
		if !p.Ended {
			all[fmt.Sprintf("%s %v %s", p.Source, p.Level, p.Template)] = p.Messages
		}
	}
	return all
}

func plain(path string) Source {
	return Source{Name: path, Path: path, Start: logtail.Beginning()}
}

func TestMessagesAreCountedByPattern(t *testing.T) {
	l := open(t, Options{})
	defer closeLogs(t, l)
	dir := t.TempDir()
	app, docker := filepath.Join(dir, "app.log"), filepath.Join(dir, "docker.log")
	o := l.Owner(t.Context(), "/docker/one")
	for i := range 50 {
		appendTo(t, app, fmt.Sprintf("2026-01-02T03:04:05Z INFO request %d done in %d ms", i, 2*i))
	}
	appendTo(t, app, "2026-01-02T03:04:05Z ERROR it broke", "java.lang.IllegalStateException: oh", "\tat a.B.c(B.java:1)", "\tat a.B.d(B.java:2)")
	appendTo(t, docker, `{"log":"WARN disk 7 is full\n","stream":"stdout","time":"2026-01-02T03:04:05.6Z"}`,
		`{"log":"WARN disk 9 is full\n","stream":"stderr","time":"2026-01-02T03:04:05.7Z"}`)
	o.Follow(plain(app))
	o.Follow(Source{Name: "stdout/stderr", Path: docker, Format: logtail.DockerJSON, Start: logtail.Beginning()})
	until(t, "all messages", func() bool { return messages(o) == 53 })
	want := map[string]uint64{
		app + " info request <*> done in <*>":    50,
		app + " error it broke":                  1,
		"stdout/stderr warning disk <*> is full": 2,
	}
	if diff := cmp.Diff(want, seriesOf(o)); diff != "" {
		t.Error(diff)
	}
	for _, s := range o.Counts().Sources {
		if s.Bytes == 0 {
			t.Errorf("%s: no bytes", s.Source)
		}
	}
	if s := l.Stats(); s.Messages != 53 || s.Owners != 1 || s.Files.Sources != 2 {
		t.Errorf("stats: %+v", s)
	}
}

// TestARestartGoesOn stops and kills the process while lines are written: in the end each is counted once.
func TestARestartGoesOn(t *testing.T) {
	const files, lines = 4, 3000
	dir := t.TempDir()
	store := &memory{}
	var writers sync.WaitGroup
	for i := range files {
		path := filepath.Join(dir, fmt.Sprintf("app%d.log", i))
		appendTo(t, path)
		writers.Go(func() {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for n := range lines {
				fmt.Fprintf(f, "INFO file %d has line %d of the writer\n", i, n)
				if n%10 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	begin := func() (*Logs, *Owner) {
		l := open(t, Options{Store: store, CheckpointEvery: 20 * time.Millisecond})
		o := l.Owner(t.Context(), "/docker/one")
		for i := range files {
			o.Follow(plain(filepath.Join(dir, fmt.Sprintf("app%d.log", i))))
		}
		return l, o
	}
	l, o := begin()
	for round := range 6 {
		time.Sleep(60 * time.Millisecond)
		before := messages(o)
		if round%2 == 0 {
			closeLogs(t, l)
		} else { // killed: what it does from now on is not in the store
			left := store.copyOf()
			closeLogs(t, l)
			store = left
		}
		l, o = begin()
		if after := messages(o); round%2 == 0 && after < before {
			t.Errorf("%d messages after the restart, %d before", after, before)
		}
	}
	writers.Wait()
	until(t, "all lines", func() bool { return messages(o) >= files*lines })
	time.Sleep(100 * time.Millisecond)
	if n := messages(o); n != files*lines {
		t.Errorf("%d messages, want %d", n, files*lines)
	}
	if s := l.Stats(); s.UncleanStarts != 3 {
		t.Errorf("%d unclean starts, want 3", s.UncleanStarts)
	}
	closeLogs(t, l)
}

func TestAnotherOwnerIsAbsorbed(t *testing.T) {
	l := open(t, Options{})
	defer closeLogs(t, l)
	dir := t.TempDir()
	a, b := l.Owner(t.Context(), "a"), l.Owner(t.Context(), "b")
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	appendTo(t, first, "started 1", "started 2", "last")
	appendTo(t, second, "started 3", "last")
	a.Follow(Source{Name: "stdout/stderr", Path: first, Start: logtail.Beginning()})
	b.Follow(plain(second))
	until(t, "both", func() bool { return messages(a) == 3 && messages(b) == 2 })
	a.Absorb(b)
	appendTo(t, second, "started 4", "last")
	until(t, "what comes later", func() bool { return messages(a) == 7 })
	if n := messages(b); n != 7 {
		t.Errorf("the absorbed owner has %d messages, want those of the other", n)
	}
	a.Rename(t.Context(), "b")
	if got := l.Owner(t.Context(), "b"); got != a {
		t.Error("it is not found under its new key")
	}
	b.Forget()
	until(t, "nothing is followed", func() bool { return l.Stats().Files.Sources == 0 })
	a.Close()
	if s := l.Stats(); s.Owners != 0 || len(l.streams) != 0 {
		t.Errorf("left over: %+v, %d streams", s, len(l.streams))
	}
}

// clock is a time that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestIdleSeriesEndAndBeginAnew(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	l := open(t, Options{Now: c.time, Keep: time.Minute})
	defer closeLogs(t, l)
	o := l.Owner(t.Context(), "a")
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "INFO one", "INFO one", "INFO other")
	o.Follow(plain(path))
	until(t, "the first", func() bool { c.add(100 * time.Millisecond); return messages(o) == 3 })
	c.add(25 * time.Hour)
	for _, p := range o.Counts().Patterns {
		if !p.Ended {
			t.Errorf("%s has not ended", p.Template)
		}
	}
	c.add(2 * time.Minute)
	if n := len(o.Counts().Patterns); n != 0 {
		t.Errorf("%d series are given after their end was told", n)
	}
	appendTo(t, path, "INFO one")
	until(t, "one begins anew", func() bool { c.add(100 * time.Millisecond); return messages(o) == 1 })
	p := o.Counts().Patterns[0]
	if p.Template != "one" || !p.Start.After(time.Unix(1e9, 0).Add(24*time.Hour)) {
		t.Errorf("%+v", p)
	}
}

func TestWhatIsToldOfMessages(t *testing.T) {
	var mu sync.Mutex
	var got []Message
	l := open(t, Options{NewPatterns: true, Forward: ForwardErrors, Tell: func(_ context.Context, _ *Owner, what []Message) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, what...)
	}})
	defer closeLogs(t, l)
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "INFO login of joe@example.com from 192.0.2.7", "INFO login of ann@example.com from 192.0.2.8",
		"ERROR token Zm9vYmFyYmF6cXV4Zm9vYmFy0123456789 is bad")
	l.Owner(t.Context(), "a").Follow(plain(path))
	until(t, "three messages", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 3 })
	type short struct {
		Level    logpatterns.Level
		Text     string
		Template string
		New      bool
	}
	var have []short
	for _, m := range got {
		have = append(have, short{m.Level, m.Text, m.Template, m.New})
	}
	want := []short{
		{logpatterns.LevelInfo, "login of <*> from <*>", "login of <*> from <*>", true},
		{logpatterns.LevelError, "token <*> is bad", "token <*> is bad", true},
		{logpatterns.LevelError, "ERROR token Zm9vYmFyYmF6cXV4Zm9vYmFy0123456789 is bad", "token <*> is bad", false},
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
}

func TestLimits(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	l := open(t, Options{Now: c.time, MaxMessagesPerSecond: 10, CountOnly: [logpatterns.NumLevels]bool{logpatterns.LevelDebug: true}})
	defer closeLogs(t, l)
	o := l.Owner(t.Context(), "a")
	dir := t.TempDir()
	one := filepath.Join(dir, "one")
	for range 25 {
		appendTo(t, one, "DEBUG this and that", "INFO this and that", "trailing")
	}
	o.Follow(plain(one))
	until(t, "all bytes", func() bool { return l.Stats().Files.Lines == 75 })
	o.flush(time.Time{})
	var dropped uint64
	for _, s := range o.Counts().Sources {
		dropped += s.Dropped[DropRateLimit]
	}
	if n := messages(o); n != 20 || n+dropped != 75 {
		t.Errorf("%d messages, %d lines dropped", n, dropped)
	}
	for _, p := range o.Counts().Patterns {
		if (p.Level == logpatterns.LevelDebug) != (p.Hash == "") {
			t.Errorf("%v: hash %q", p.Level, p.Hash)
		}
	}
	for i := range 40 { // more sources than are told apart
		path := filepath.Join(dir, fmt.Sprintf("file%02d", i))
		appendTo(t, path, "hello")
		o.Follow(plain(path))
	}
	c.add(time.Hour)
	until(t, "all files", func() bool { return l.Stats().Files.Lines == 115 })
	c.add(time.Hour)
	o.flush(time.Time{})
	if n := len(o.Counts().Sources); n != logpatterns.MaxSources {
		t.Errorf("%d sources, want %d", n, logpatterns.MaxSources)
	}
}

func TestABrokenStoreIsCounted(t *testing.T) {
	store := &memory{}
	l := open(t, Options{Store: store, CheckpointEvery: 5 * time.Millisecond})
	until(t, "a checkpoint", func() bool { return l.Stats().Checkpoints > 0 })
	store.fail(true)
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "something to save")
	l.Owner(t.Context(), "a").Follow(plain(path))
	until(t, "a failure", func() bool { return l.Stats().CheckpointErrors > 0 })
	if err := l.Close(); err == nil {
		t.Error("Close says nothing of places that were not saved")
	}
	if _, err := Open(t.Context(), Options{Store: store}); err == nil {
		t.Error("Open says nothing of a store that cannot be read")
	}
}

// A file may be asked for again when its last line has been read, and that has not been told yet.
func TestFollowAgainWhatIsJustForgotten(t *testing.T) {
	l := open(t, Options{})
	defer closeLogs(t, l)
	path := filepath.Join(t.TempDir(), "docker.log")
	line := func(second int) string {
		return fmt.Sprintf(`{"log":"INFO in second %d\n","stream":"stdout","time":"2026-01-02T03:04:%02dZ"}`, second, second)
	}
	src := Source{Name: "stdout/stderr", Path: path, Format: logtail.DockerJSON, Start: logtail.Beginning()}
	o := l.Owner(t.Context(), "/docker/one")
	appendTo(t, path, line(1), line(2), line(3))
	o.Follow(src)
	until(t, "all messages", func() bool { return messages(o) == 3 })
	l.mu.Lock()
	o.streams[keyOf(o.key, path)].leaving = true
	l.tail.Forget(keyOf(o.key, path))
	until(t, "the file is left", func() bool { return l.tail.Stats().Sources == 0 })
	src.Since = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o.follow(src)
	l.mu.Unlock()
	appendTo(t, path, line(6))
	until(t, "the next message", func() bool { return messages(o) >= 4 })
	if n := messages(o); n != 4 {
		t.Errorf("%d messages", n)
	}
}

// wrote has a message read n times.
func (o *Owner) wrote(n int, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	src := o.sourceOf("a")
	for range n {
		j := &join{}
		o.line(j, src, []byte(text), told{}, time.Time{}, o.logs.now())
		o.end(j, src)
	}
}

// Where there is no room for more patterns, one that makes room comes back with as many messages as it had.
func TestPatternThatComesBack(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	l := open(t, Options{Now: c.time, MaxPatterns: 8, MaxPatternsPerLevel: 8, Keep: time.Minute})
	defer closeLogs(t, l)
	o := l.Owner(t.Context(), "a")
	shapes := []string{
		"starting up", "cache warmed, all good", "peer (remote) joined!", "config = loaded", "queue/empty again?",
		"leader: elected by vote", "lease [renewed]", "disk; full; soon; help", "user 'bob' came", "snapshot {done} ok then",
		"gc & compaction ran through", "idle", "a b c d e f g", "socket #closed# early on", "retry later; maybe (or not) ok",
	}
	for n := range uint64(300) {
		o.wrote(1, shapes[(n*7+n/15)%uint64(len(shapes))])
		if got := messages(o); got != n+1 {
			t.Fatalf("%d of %d messages in series", got, n+1)
		}
	}
}

func TestLessThanAMessageInASecond(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	l := open(t, Options{Now: c.time, MaxMessagesPerSecond: 0.4})
	defer closeLogs(t, l)
	o := l.Owner(t.Context(), "a")
	for range 12 {
		c.add(time.Second)
		o.wrote(3, "INFO this and that")
	}
	if n := messages(o); n < 4 || n > 6 {
		t.Errorf("%d messages in 12 s, want 0.4 a second", n)
	}
}
