// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logtail"
)

// tortureTime is how long the torture lasts; EBPFCONTAINER_LOGS=60s makes it longer.
func tortureTime(t *testing.T) time.Duration {
	text := os.Getenv("EBPFCONTAINER_LOGS")
	if text == "" {
		return 4 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("EBPFCONTAINER_LOGS: %v", err)
	}
	return d
}

// tortured is a log whose writer numbers its lines. A line is never in two files: who rotates waits for its end.
type tortured struct {
	source Source
	number int

	mu      sync.Mutex
	f       *os.File
	written int
	bytes   uint64 // as SourceCount has them
	moved   int    // rotations
}

func (l *tortured) open() error {
	f, err := os.OpenFile(l.source.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		l.f = f
	}
	return err
}

func (l *tortured) write(lines int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for range lines {
		text := fmt.Sprintf("INFO line %d of writer %d", l.written, l.number)
		switch l.source.Format {
		case logtail.DockerJSON:
			fmt.Fprintf(&b, `{"log":"%s\n","stream":"stdout","time":"2026-01-02T03:04:05.6Z"}`+"\n", text)
		case logtail.CRI:
			half := len(text) / 2
			fmt.Fprintf(&b, "2026-01-02T03:04:05.6Z stdout P %s\n2026-01-02T03:04:05.6Z stdout F %s\n", text[:half], text[half:])
		default:
			b.WriteString(text + "\n")
		}
		l.written++
		l.bytes += uint64(len(text)) + 1
	}
	_, err := l.f.WriteString(b.String())
	return err
}

// anew has the writer go on in a new file at its path.
func (l *tortured) anew(move func(from, to string) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moved++
	if err := move(l.source.Path, fmt.Sprintf("%s.%d", l.source.Path, l.moved)); err != nil {
		return err
	}
	l.f.Close()
	return l.open()
}

func copyTruncate(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(to, b, 0o600), os.Truncate(from, 0))
}

// torture is a process that is ended and begun while logs are written and rotated.
type torture struct {
	t     *testing.T
	all   []*tortured
	store *memory

	mu   sync.RWMutex // held for writing while the process is down
	logs *Logs
	of   [2]*Owner

	toldMu sync.Mutex
	told   map[string]int // by text
}

func (x *torture) begin() {
	x.logs = open(x.t, Options{
		Store: x.store, CheckpointEvery: 20 * time.Millisecond, Forward: ForwardAll,
		Tell: func(_ context.Context, _ *Owner, what []Message) {
			x.toldMu.Lock()
			defer x.toldMu.Unlock()
			for _, m := range what {
				x.told[m.Text]++
			}
		},
	})
	for i := range x.of {
		x.of[i] = x.logs.Owner(x.t.Context(), "/docker/"+strconv.Itoa(i))
	}
	for _, l := range x.all {
		x.owner(l).Follow(l.source)
	}
}

func (x *torture) owner(l *tortured) *Owner { return x.of[l.number%len(x.of)] }

// counted is how many bytes of l are in the counts.
func (x *torture) counted(l *tortured) uint64 {
	for _, s := range x.owner(l).Counts().Sources {
		if s.Source == l.source.Name {
			return s.Bytes
		}
	}
	return 0
}

// remove deletes a file. What of it is not in a checkpoint would be lost with the process, so that is waited for.
func (x *torture) remove(l *tortured) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return l.anew(func(path, _ string) error {
		until(x.t, "the file is read", func() bool { return x.counted(l) == l.bytes })
		n := x.logs.Stats().Checkpoints
		until(x.t, "a checkpoint that was begun after that", func() bool { return x.logs.Stats().Checkpoints >= n+2 })
		return os.Remove(path)
	})
}

// end stops the process, or kills it: what it does from then on is not in the store.
func (x *torture) end(kill bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	left := x.store
	if kill {
		left = x.store.copyOf()
	}
	closeLogs(x.t, x.logs)
	x.store = left
	time.Sleep(250 * time.Millisecond) // others are rotated meanwhile
	x.begin()
}

func TestEachMessageIsCountedOnceWhileFilesAreRotated(t *testing.T) {
	x := &torture{t: t, store: &memory{}, told: map[string]int{}}
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var background sync.WaitGroup
	end := sync.OnceFunc(func() { cancel(); background.Wait() })
	defer end()
	for i := range 8 {
		path := filepath.Join(dir, fmt.Sprintf("app%d.log", i))
		l := &tortured{number: i, source: Source{
			Name: path, Path: path, Start: logtail.Beginning(),
			Format: []logtail.Format{logtail.Plain, logtail.DockerJSON, logtail.Plain, logtail.CRI}[i%4],
		}}
		if err := l.open(); err != nil {
			t.Fatal(err)
		}
		x.all = append(x.all, l)
		background.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := l.write(1 + n%60); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	x.begin()
	for _, l := range x.all {
		until(t, "the first file is found", func() bool { return x.counted(l) > 0 })
	}
	for _, l := range x.all {
		background.Go(func() {
			for round := l.number; ctx.Err() == nil; round++ {
				var err error
				switch round % 3 {
				case 0:
					err = l.anew(os.Rename)
				case 1:
					err = l.anew(copyTruncate)
				default:
					err = x.remove(l)
				}
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	const restarts = 6
	for round := range restarts {
		time.Sleep(tortureTime(t) / (restarts + 1))
		x.end(round%2 == 1)
	}
	time.Sleep(tortureTime(t) / (restarts + 1))
	end()
	x.check(restarts / 2)
	closeLogs(t, x.logs)
}

func (x *torture) check(kills uint64) {
	written, moved := 0, 0
	for _, l := range x.all {
		l.f.Close()
		written += l.written
		moved += l.moved
	}
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		if messages(x.of[0])+messages(x.of[1]) >= uint64(written) { //nolint:gosec // not negative
			break
		}
	}
	time.Sleep(500 * time.Millisecond) // for what should not come
	x.toldMu.Lock()
	defer x.toldMu.Unlock()
	if n := messages(x.of[0]) + messages(x.of[1]); n != uint64(written) { //nolint:gosec // not negative
		x.t.Errorf("%d messages are counted, %d were written", n, written)
	}
	twice := 0
	for _, l := range x.all {
		if n := x.counted(l); n != l.bytes {
			x.t.Errorf("writer %d: %d bytes are counted, %d were written", l.number, n, l.bytes)
		}
		lost := 0
		for n := range l.written {
			switch k := x.told[fmt.Sprintf("INFO line %d of writer %d", n, l.number)]; {
			case k == 0:
				lost++
			case k > 1:
				twice++
			}
		}
		if lost > 0 {
			x.t.Errorf("writer %d: %d of %d lines were not told", l.number, lost, l.written)
		}
	}
	s := x.logs.Stats()
	if s.UncleanStarts != kills {
		x.t.Errorf("%d unclean starts, want %d", s.UncleanStarts, kills)
	}
	x.t.Logf("%d lines, %d rotations, %d lines told twice after the process was killed; %+v", written, moved, twice, s)
}
