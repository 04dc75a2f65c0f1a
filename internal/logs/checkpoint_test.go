// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logtail"
)

const often = 10 * time.Millisecond

// kill ends l; what is left of it is what the store has now.
func kill(t *testing.T, l *Logs, store *memory) *memory {
	t.Helper()
	left := store.copyOf()
	closeLogs(t, l)
	return left
}

// saved waits for a checkpoint that has all that is counted by now.
func saved(t *testing.T, l *Logs) {
	t.Helper()
	n := l.Stats().Checkpoints
	until(t, "a checkpoint", func() bool { return l.Stats().Checkpoints >= n+2 })
}

// A process that is killed before its first checkpoint has given messages too.
func TestAProcessThatIsKilledEarlyIsSeen(t *testing.T) {
	store := &memory{}
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "one")
	begin := func(every time.Duration) *Logs {
		l := open(t, Options{Store: store, CheckpointEvery: every})
		l.Owner(t.Context(), "a").Follow(plain(path))
		until(t, "all lines", func() bool { return l.Owner(t.Context(), "a").Counts() != nil && l.Stats().Files.Sources == 1 })
		return l
	}
	l := begin(time.Hour)
	until(t, "the line", func() bool { return messages(l.Owner(t.Context(), "a")) == 1 })
	if !l.SavedAt().IsZero() {
		t.Error("the first process has a checkpoint")
	}
	store = kill(t, l, store)
	l = begin(time.Hour)
	until(t, "the line", func() bool { return messages(l.Owner(t.Context(), "a")) == 1 })
	if n := l.Stats().UncleanStarts; n != 1 || l.SavedAt().IsZero() {
		t.Errorf("%d unclean starts, want 1; saved at %v", n, l.SavedAt())
	}
	closeLogs(t, l)
	l = begin(time.Hour)
	if n := l.Stats().UncleanStarts; n != 1 {
		t.Errorf("%d unclean starts after a clean one, want 1", n)
	}
	store = kill(t, l, store)
	l = begin(time.Hour)
	if n := l.Stats().UncleanStarts; n != 2 {
		t.Errorf("%d unclean starts, want 2", n)
	}
	closeLogs(t, l)
}

func TestAStoreThatComesBack(t *testing.T) {
	store := &memory{}
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, Options{Store: store, CheckpointEvery: often})
	o := l.Owner(t.Context(), "a")
	appendTo(t, path, "INFO one", "INFO two")
	o.Follow(plain(path))
	until(t, "two messages", func() bool { return messages(o) == 2 })
	saved(t, l)
	store.fail(true)
	appendTo(t, path, "INFO three")
	b := l.Owner(t.Context(), "b")
	b.Close()
	until(t, "a failure", func() bool { return messages(o) == 3 && l.Stats().CheckpointErrors > 1 })
	store.fail(false)
	saved(t, l)
	store = kill(t, l, store)
	l = open(t, Options{Store: store})
	defer closeLogs(t, l)
	o = l.Owner(t.Context(), "a")
	o.Follow(plain(path))
	if n := messages(o); n != 3 {
		t.Errorf("%d messages are saved, want 3", n)
	}
}

// What one process saves that another cannot read must not stop that, nor have it count what was counted.
func TestACheckpointThatCannotBeRead(t *testing.T) {
	for _, tt := range []struct {
		name     string
		key      string
		change   func(b []byte) []byte
		messages uint64 // that are known at once
	}{
		{"places of a newer version", placesKey, newer, 3},
		{"places that are damaged", placesKey, half, 3},
		{"counts of a newer version", ownerPrefix + "a", newer, 0},
		{"counts that are damaged", ownerPrefix + "a", half, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := &memory{}
			path := filepath.Join(t.TempDir(), "log")
			appendTo(t, path, "INFO one", "INFO two", "INFO three")
			l := open(t, Options{Store: store})
			o := l.Owner(t.Context(), "a")
			o.Follow(plain(path))
			until(t, "three messages", func() bool { return messages(o) == 3 })
			closeLogs(t, l)
			store.values[tt.key] = tt.change(store.values[tt.key])
			l = open(t, Options{Store: store, CheckpointEvery: often})
			o = l.Owner(t.Context(), "a")
			o.Follow(Source{Name: path, Path: path, Start: logtail.End()})
			if n := messages(o); n != tt.messages {
				t.Errorf("%d messages, want %d", n, tt.messages)
			}
			until(t, "the file is found", func() bool { return l.Stats().Files.OpenFiles == 1 })
			appendTo(t, path, "INFO four")
			until(t, "the next message", func() bool { return messages(o) == tt.messages+1 })
			closeLogs(t, l)
			l = open(t, Options{Store: store})
			defer closeLogs(t, l)
			if n := messages(l.Owner(t.Context(), "a")); n != tt.messages+1 {
				t.Errorf("%d messages after another start, want %d", n, tt.messages+1)
			}
		})
	}
}

func newer(b []byte) []byte {
	return []byte(strings.Replace(string(b), `"version":1`, `"version":2`, 1))
}

func half(b []byte) []byte { return b[:len(b)/2] }

// A container may get its name late, and two turn out to be one. A later process knows it by the last name from the beginning.
func TestNamesThatChangeOverARestart(t *testing.T) {
	store := &memory{}
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	l := open(t, Options{Store: store, CheckpointEvery: often})
	a, b := l.Owner(t.Context(), "a"), l.Owner(t.Context(), "b")
	appendTo(t, first, "INFO 1 of the first", "INFO 2 of the first")
	appendTo(t, second, "INFO 1 of the second")
	a.Follow(plain(first))
	b.Follow(plain(second))
	until(t, "three messages", func() bool { return messages(a)+messages(b) == 3 })
	saved(t, l)
	a.Absorb(b)
	a.Rename(t.Context(), "c")
	a.Follow(plain(first)) // again, as who has found out tells it
	a.Follow(plain(second))
	appendTo(t, first, "INFO 3 of the first")
	until(t, "four messages", func() bool { return messages(a) == 4 })
	saved(t, l)
	store = kill(t, l, store)
	appendTo(t, first, "INFO 4 of the first")
	appendTo(t, second, "INFO 2 of the second")
	for key := range store.values {
		if strings.HasPrefix(key, ownerPrefix) && key != ownerPrefix+"c" {
			t.Errorf("%s is left in the store", key)
		}
	}
	l = open(t, Options{Store: store})
	defer closeLogs(t, l)
	for _, key := range []string{"a", "b"} {
		if n := messages(l.Owner(t.Context(), key)); n != 0 {
			t.Errorf("%s has %d messages that are another's", key, n)
		}
	}
	c := l.Owner(t.Context(), "c")
	c.Follow(Source{Name: first, Path: first, Start: logtail.End()})
	c.Follow(plain(second))
	until(t, "what came meanwhile", func() bool { return messages(c) == 6 })
	time.Sleep(300 * time.Millisecond)
	if n := messages(c); n != 6 {
		t.Errorf("%d messages, want 6", n)
	}
}

// A container may be known by its name again only after it has logged: counts go on all the same.
func TestNameOfAnEarlierProcess(t *testing.T) {
	store := &memory{}
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	l := open(t, Options{Store: store, CheckpointEvery: often})
	appendTo(t, second, "INFO 1 of the second")
	appendTo(t, first, "INFO 1 of the first", "ERROR it broke")
	o := l.Owner(t.Context(), "web")
	o.Follow(plain(second))
	until(t, "the first message", func() bool { return messages(o) == 1 })
	o.Follow(plain(first))
	until(t, "three messages", func() bool { return messages(o) == 3 })
	start := o.Counts().Patterns[0].Start
	closeLogs(t, l)

	l = open(t, Options{Store: store, CheckpointEvery: often})
	appendTo(t, first, "INFO 2 of the first", "ERROR it broke")
	third := filepath.Join(dir, "third")
	appendTo(t, third, "INFO 1 of the third")
	o = l.Owner(t.Context(), "id")
	o.Follow(plain(third))
	until(t, "the next message", func() bool { return messages(o) == 1 })
	o.Rename(t.Context(), "web")
	o.Follow(plain(first))
	appendTo(t, third, "INFO 2 of the third")
	want := map[string]uint64{
		first + " info <*> of the first": 2, first + " error it broke": 2, second + " info <*> of the second": 1, third + " info <*> of the third": 2,
	}
	until(t, "seven messages", func() bool { return messages(o) == 7 })
	if diff := cmp.Diff(want, seriesOf(o)); diff != "" {
		t.Error(diff)
	}
	if got := o.Counts().Patterns[0].Start; !got.Equal(start) {
		t.Errorf("begins at %v, want %v", got, start)
	}
	closeLogs(t, l)
	l = open(t, Options{Store: store})
	defer closeLogs(t, l)
	if n := messages(l.Owner(t.Context(), "web")); n != 7 {
		t.Errorf("%d messages, want 7", n)
	}
	if n := messages(l.Owner(t.Context(), "id")); n != 0 {
		t.Errorf("%d messages under the former key", n)
	}
}

// Two owners may have one file; the one that is absorbed was first.
func TestAFileOfBothOverARestart(t *testing.T) {
	store := &memory{}
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, Options{Store: store, CheckpointEvery: often})
	a, b := l.Owner(t.Context(), "a"), l.Owner(t.Context(), "b")
	appendTo(t, path, "INFO 1", "INFO 2")
	b.Follow(plain(path))
	until(t, "two messages", func() bool { return messages(b) == 2 })
	a.Follow(plain(path))
	until(t, "it is found to be shared", func() bool { return l.Stats().Files.Shared == 1 })
	a.Absorb(b)
	appendTo(t, path, "INFO 3")
	until(t, "three messages", func() bool { return messages(a) == 3 })
	until(t, "one is followed", func() bool { return l.Stats().Files.Sources == 1 })
	closeLogs(t, l)
	appendTo(t, path, "INFO 4")
	l = open(t, Options{Store: store})
	defer closeLogs(t, l)
	a = l.Owner(t.Context(), "a")
	a.Follow(Source{Name: path, Path: path, Start: logtail.End()})
	until(t, "the fourth", func() bool { return messages(a) == 4 })
}

// An owner that was closed is not to be found again with less than it has had.
func TestAClosedOwnerIsForgotten(t *testing.T) {
	store := &memory{}
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "INFO 1", "INFO 2")
	l := open(t, Options{Store: store, CheckpointEvery: often})
	defer closeLogs(t, l)
	o := l.Owner(t.Context(), "a")
	o.Follow(plain(path))
	until(t, "two messages", func() bool { return messages(o) == 2 })
	saved(t, l)
	o.Close()
	if n := messages(l.Owner(t.Context(), "a")); n != 0 {
		t.Errorf("%d messages at once, want 0", n)
	}
	l.Owner(t.Context(), "a").Close()
	saved(t, l)
	if n := messages(l.Owner(t.Context(), "a")); n != 0 {
		t.Errorf("%d messages after a checkpoint, want 0", n)
	}
}

func TestASeriesThatWasIdleOverARestart(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	store := &memory{}
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "INFO one", "INFO one", "INFO other")
	options := Options{Now: c.time, Keep: time.Minute, Store: store, CheckpointEvery: often}
	l := open(t, options)
	o := l.Owner(t.Context(), "a")
	o.Follow(plain(path))
	more := func(n uint64) {
		t.Helper()
		until(t, "messages", func() bool { c.add(100 * time.Millisecond); return messages(o) == n })
	}
	more(3)
	c.add(25 * time.Hour)
	o.Counts()
	c.add(2 * time.Minute)
	appendTo(t, path, "INFO one")
	more(1)
	want := o.Counts().Patterns
	saved(t, l)
	options.Store = kill(t, l, store)
	l = open(t, options)
	defer closeLogs(t, l)
	o = l.Owner(t.Context(), "a")
	o.Follow(plain(path))
	if diff := cmp.Diff(want, o.Counts().Patterns); diff != "" {
		t.Errorf("-before +after the restart:\n%s", diff)
	}
	appendTo(t, path, "INFO other")
	more(2)
}

func TestNamesThatAreNotUTF8(t *testing.T) {
	dir := t.TempDir()
	store := &memory{}
	follow := func() (*Logs, *Owner) {
		l := open(t, Options{Store: store})
		o := l.Owner(t.Context(), "a")
		for _, name := range []string{"log\xff", "log\xfe"} {
			o.Follow(plain(filepath.Join(dir, name)))
		}
		return l, o
	}
	appendTo(t, filepath.Join(dir, "log\xff"), "INFO one")
	appendTo(t, filepath.Join(dir, "log\xfe"), "INFO one")
	l, o := follow()
	until(t, "two messages", func() bool { return messages(o) == 2 })
	closeLogs(t, l)
	l, o = follow()
	defer closeLogs(t, l)
	want := []SourceCount{{Source: filepath.Join(dir, "log\uFFFD"), Start: o.Counts().Sources[0].Start, Bytes: 18}}
	if diff := cmp.Diff(want, o.Counts().Sources); diff != "" {
		t.Error(diff)
	}
}

func TestAllIsToldBeforeTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var b strings.Builder
	const lines = 100_000
	for n := range lines {
		fmt.Fprintf(&b, "INFO line %d\n", n)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	told := 0
	l := open(t, Options{Forward: ForwardAll, Tell: func(_ context.Context, _ *Owner, what []Message) { told += len(what) }})
	l.Owner(t.Context(), "a").Follow(plain(path))
	until(t, "all lines", func() bool { return l.Stats().Files.Lines == lines })
	closeLogs(t, l)
	closeLogs(t, l) // does nothing
	if s := l.Stats(); told != lines || s.Untold != 0 {
		t.Errorf("%d messages are told, want %d; %+v", told, lines, s)
	}
}

// Who does not take what it is told holds up the end for a while, and what it has not taken is counted.
func TestWhoIsToldHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "INFO one", "INFO two", "INFO three")
	hangs := make(chan struct{})
	l := open(t, Options{Forward: ForwardAll, Tell: func(ctx context.Context, _ *Owner, _ []Message) {
		close(hangs)
		<-ctx.Done()
	}})
	l.Owner(t.Context(), "a").Follow(plain(path))
	<-hangs
	closeLogs(t, l)
	if s := l.Stats(); s.Messages != 3 || s.Untold != 1 {
		t.Errorf("%d messages, %d of them untold, want 3 and 1", s.Messages, s.Untold)
	}
}

// FuzzStore has a process begin with what may be in a store.
func FuzzStore(f *testing.F) {
	store := &memory{}
	path := filepath.Join(f.TempDir(), "log")
	if err := os.WriteFile(path, []byte("INFO one\nERROR two\n\tat three\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	l, err := Open(f.Context(), Options{Store: store, CheckpointEvery: often})
	if err != nil {
		f.Fatal(err)
	}
	o := l.Owner(f.Context(), "a")
	o.Follow(plain(path))
	for messages(o) < 2 {
		time.Sleep(time.Millisecond)
	}
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	owner := store.values[ownerPrefix+"a"]
	f.Add(store.values[placesKey], owner)
	f.Add([]byte(`{"version":1,"waiting":[{"match":"/a","level":200}],"partials":{"x":"eA=="},"journal":"{}","owners":{"a":1}}`),
		[]byte(`{"version":1,"sources":[{"name":"x","plain":[1,2,3,4,5,6,7,8],"dropped":[1,2]}],"lines":[{"text":"eAp5","level":9}],`+
			`"series":[{"source":3,"level":9,"n":1,"before":2}]}`))
	var s savedOwner
	if err := json.Unmarshal(owner, &s); err != nil {
		f.Fatal(err)
	}
	s.Sources = nil // the miner has some
	b, err := json.Marshal(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"version":1}`), b)
	f.Fuzz(func(t *testing.T, places, owner []byte) {
		l := open(t, Options{Store: &memory{values: map[string][]byte{placesKey: places, ownerPrefix + "a": owner}}})
		o := l.Owner(t.Context(), "a")
		o.FollowJournal("/a", "")
		counts := o.Counts()
		for i := range counts.Sources {
			if i > 0 && counts.Sources[i].Source == counts.Sources[i-1].Source {
				t.Errorf("source %q twice", counts.Sources[i].Source)
			}
		}
		if n := len(counts.Sources); n > logpatterns.MaxSources {
			t.Errorf("%d sources", n)
		}
		n := messages(o)
		closeLogs(t, l)
		again := open(t, Options{Store: l.opts.Store})
		defer closeLogs(t, again)
		if got := messages(again.Owner(t.Context(), "a")); got < n {
			t.Errorf("%d messages after a restart, %d before", got, n)
		}
	})
}
