// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tortureTime is how long the torture lasts; EBPFCONTAINER_LOGS=60s makes it longer.
func tortureTime(t *testing.T) time.Duration {
	text := os.Getenv("EBPFCONTAINER_LOGS")
	if text == "" {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("EBPFCONTAINER_LOGS: %v", err)
	}
	return d
}

// tortured is a log whose writer numbers its lines and writes them in pieces.
type tortured struct {
	path   string
	format Format
	rng    *rand.Rand

	mu      sync.Mutex // the writer holds it from the beginning of a line to the end of one
	written int
	reopen  time.Time // when the writer is to open the path again
	f       *os.File
}

func (l *tortured) line(n int) string {
	text := fmt.Sprintf("line %09d of a writer, which has more to say than its number alone, end", n)
	switch l.format {
	case DockerJSON:
		return dockerLine(text+"\n", "stdout")
	case CRI:
		half := 10 + l.rng.IntN(40)
		const stamp = "2026-11-21T01:33:43.204430901Z stdout "
		return stamp + "P " + text[:half] + "\n" + stamp + "F " + text[half:] + "\n"
	}
	return text + "\n"
}

// write writes a block of lines in pieces that end anywhere.
func (l *tortured) write() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.reopen.IsZero() && time.Now().After(l.reopen) {
		if err := l.openPath(); err != nil {
			return err
		}
	}
	var block []byte
	for range 1 + l.rng.IntN(80) {
		block = append(block, l.line(l.written)...)
		l.written++
	}
	for len(block) > 0 {
		n := min(len(block), 1+l.rng.IntN(4000))
		if _, err := l.f.Write(block[:n]); err != nil {
			return err
		}
		block = block[n:]
	}
	return nil
}

func (l *tortured) openPath() error {
	if l.f != nil {
		l.f.Close()
	}
	l.reopen = time.Time{}
	var err error
	l.f, err = os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return err
}

// rotate moves the file away and lets its writer go on in it for a while.
func (l *tortured) rotate(to string) error {
	var err error
	if to == "" {
		err = os.Remove(l.path)
	} else {
		err = os.Rename(l.path, to)
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reopen = time.Now().Add(time.Duration(l.rng.IntN(20)) * time.Millisecond)
	return nil
}

// tally counts the lines that came.
type tally struct {
	written, taken atomic.Int64

	mu    sync.Mutex
	seen  map[string][]uint8
	other map[string][]string
}

func newTally() *tally { return &tally{seen: map[string][]uint8{}, other: map[string][]string{}} }

// mostBehind is how many lines writers may be ahead before they wait: on a busy machine they would fill the disk.
const mostBehind = 20_000

func (c *tally) isBehind() bool { return c.written.Load()-c.taken.Load() > mostBehind }

func (c *tally) take(key string, lines []Line) {
	c.taken.Add(int64(len(lines)))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range lines {
		var n int
		if _, err := fmt.Sscanf(string(l.Text[:min(14, len(l.Text))]), "line %09d", &n); err != nil || !bytes.HasSuffix(l.Text, []byte("alone, end")) || len(l.Text) != 76 {
			c.other[key] = append(c.other[key], string(l.Text))
			continue
		}
		for len(c.seen[key]) <= n {
			c.seen[key] = append(c.seen[key], make([]uint8, 10_000)...)
		}
		c.seen[key][n]++
	}
}

func (c *tally) times(key string, n int) uint8 {
	if n < len(c.seen[key]) {
		return c.seen[key][n]
	}
	return 0
}

func (c *tally) count() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, seen := range c.seen {
		for _, k := range seen {
			n += int(k)
		}
	}
	return n
}

// torment runs writers until the test says stop.
func torment(t *testing.T, c *tally, n int, formats []Format) (logs []*tortured, sources []Source, stop func()) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for i := range n {
		l := &tortured{path: filepath.Join(dir, fmt.Sprintf("app%d.log", i)), format: formats[i%len(formats)], rng: rand.New(rand.NewPCG(1, uint64(i)))}
		if err := l.openPath(); err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
		sources = append(sources, Source{Key: l.path, Path: l.path, Format: l.format, Start: Beginning()})
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { l.f.Close() }()
			for ctx.Err() == nil {
				time.Sleep(2 * time.Millisecond)
				if c.isBehind() {
					continue
				}
				before := l.written
				if err := l.write(); err != nil {
					t.Error(err)
					return
				}
				c.written.Add(int64(l.written - before))
			}
		}()
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return logs, sources, stop
}

// writerPause is how long a writer may not get a processor while it writes to a file that was rotated.
const writerPause = time.Second

// tail runs a Follower; the function it returns ends it and returns its checkpoint.
func tail(t *testing.T, saved []byte, sources []Source, give func(string, []Line)) (*Follower, func() []byte) {
	w := New(Options{Poll: testPoll, Silence: writerPause})
	if saved != nil {
		if err := w.Restore(saved); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range sources {
		w.Follow(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx, give) }()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return w, func() []byte { stop(); return w.Checkpoint() }
}

// hasOpen says whether the file at the path is open: only then may it be deleted without loss.
func hasOpen(w *Follower, key string, since time.Time) bool {
	info, err := place{path: key}.stat()
	if err != nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sources[key]
	return s.cur != nil && s.cur.id.same(info.id) && s.seenAt > since.UnixNano() && w.held[info.id.inode()] == s
}

// filesOf is how many files of a source are not read to their end, with the one at the path.
func filesOf(w *Follower, key string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.sources[key].files)
}

// tortureWait is how long those who read may be behind those who write, on a busy machine.
const tortureWait = time.Minute

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(tortureWait); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so after %v: %s", tortureWait, what)
		}
	}
}

func TestEachLineOnceWhileFilesAreRotated(t *testing.T) {
	needsBirth(t)
	const restarts = 5
	c := newTally()
	logs, sources, stopWriters := torment(t, c, 8, []Format{Plain, DockerJSON, Plain, CRI})
	w, stop := tail(t, nil, sources, c.take)
	number, began := 0, time.Now()
	for _, l := range logs {
		until(t, "the first file was seen", func() bool { return hasOpen(w, l.path, began.Add(-time.Minute)) })
	}
	rotate := func(l *tortured, remove bool) {
		number++
		to := fmt.Sprintf("%s.%d", l.path, number)
		if remove {
			to = ""
		}
		if err := l.rotate(to); err != nil {
			t.Fatal(err)
		}
	}
	var total Stats
	for round := range restarts + 1 {
		for end := time.Now().Add(tortureTime(t) / (restarts + 1)); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			round++
			for i, l := range logs {
				remove := (round+i)%2 == 0
				if remove {
					until(t, "the file was seen", func() bool { return hasOpen(w, l.path, began) })
				}
				rotate(l, remove)
			}
		}
		// What is deleted and not read is lost with a restart, so all such files are read first.
		rotated := time.Now()
		for _, l := range logs {
			until(t, "deleted files are read", func() bool { return hasOpen(w, l.path, rotated) && filesOf(w, l.path) == 1 })
		}
		saved := stop()
		s := w.Stats()
		total.Lines, total.Rotations = total.Lines+s.Lines, total.Rotations+s.Rotations
		// A file that changes while it is looked at for the first time may be counted as truncated, with bytes that were not lost:
		// each line is looked for below.
		if s.Lost.Deleted+s.Lost.Abandoned+s.Invalid+s.Errors+s.Cut != 0 {
			t.Errorf("%+v", s)
		}
		for i, l := range logs {
			for range i % 3 {
				rotate(l, false)
				time.Sleep(10 * time.Millisecond)
			}
		}
		began = time.Now()
		w, stop = tail(t, saved, sources, c.take)
	}
	stopWriters()
	written := 0
	for _, l := range logs {
		written += l.written
	}
	for end := time.Now().Add(tortureWait); c.count() < written && time.Now().Before(end); {
		time.Sleep(testPoll)
	}
	stop()
	for _, l := range logs {
		wrong := 0
		for n := range l.written {
			if k := c.times(l.path, n); k != 1 {
				if wrong++; wrong == 1 {
					t.Errorf("%s: line %d of %d came %d times", filepath.Base(l.path), n, l.written, k)
				}
			}
		}
		if wrong > 1 {
			t.Errorf("%s: so did %d others", filepath.Base(l.path), wrong-1)
		}
		if other := c.other[l.path]; other != nil {
			t.Errorf("%s: %q", filepath.Base(l.path), other)
		}
	}
	t.Logf("%d lines, %d rotations", written, total.Rotations)
}

// What a copytruncate destroys is what was written after the copy was made: no other line is lost, and none comes twice.
func TestCopyTruncateLosesOnlyWhatItDestroys(t *testing.T) {
	needsBirth(t)
	c := newTally()
	logs, sources, stopWriters := torment(t, c, 4, []Format{Plain})
	w, stop := tail(t, nil, sources, c.take)
	destroyed := map[string]map[int]bool{}
	torn := 0
	for _, l := range logs {
		destroyed[l.path] = map[int]bool{}
		until(t, "the first line was read", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.times(l.path, 0) > 0
		})
	}
	for number, end := 0, time.Now().Add(tortureTime(t)); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		until(t, "copies were read that are to be removed", func() bool { return !c.isBehind() })
		number++
		for i, l := range logs {
			careful := (number+i)%2 == 0
			if careful {
				l.mu.Lock()
			}
			b, err := os.ReadFile(l.path)
			if err == nil {
				err = os.WriteFile(fmt.Sprintf("%s.%d", l.path, number), b, 0o600)
			}
			if !careful {
				l.mu.Lock()
			}
			whole, err2 := os.ReadFile(l.path)
			if err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			from := bytes.LastIndexByte(b, '\n') + 1
			if from != len(b) {
				torn++
			}
			for line := range bytes.Lines(whole[from:]) {
				var n int
				if _, err := fmt.Sscanf(string(line), "line %09d", &n); err != nil {
					t.Fatal(err)
				}
				destroyed[l.path][n] = true
				c.written.Add(-1)
			}
			if err := os.Truncate(l.path, 0); err != nil {
				t.Fatal(err)
			}
			l.mu.Unlock()
			os.Remove(fmt.Sprintf("%s.%d", l.path, number-20))
		}
	}
	stopWriters()
	until(t, "all that is there came", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, l := range logs {
			if c.times(l.path, l.written-1) == 0 && !destroyed[l.path][l.written-1] {
				return false
			}
		}
		return true
	})
	until(t, "copies are closed", func() bool { return w.Stats().OpenFiles == uint64(len(logs)) })
	stop()
	lost, written, others := 0, 0, 0
	for _, l := range logs {
		written += l.written
		others += len(c.other[l.path])
		for n := range l.written {
			switch k := c.times(l.path, n); {
			case k > 1:
				t.Fatalf("%s: line %d came %d times", filepath.Base(l.path), n, k)
			case k == 0 && !destroyed[l.path][n]:
				t.Fatalf("%s: line %d of %d did not come", filepath.Base(l.path), n, l.written)
			case k == 0:
				lost++
			}
		}
	}
	if others > torn {
		t.Errorf("%d lines in halves, but only %d copies end in one: %q", others, torn, c.other)
	}
	t.Logf("%d lines, %d truncations seen, %d lines destroyed unread, %d halves", written, w.Stats().Truncations, lost, others)
}
