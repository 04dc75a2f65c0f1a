// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// fakeRuntime is a daemon with containers that the test makes. The clock is that of a synctest bubble.
type fakeRuntime struct {
	mu       sync.Mutex
	began    time.Time
	names    map[string]string // by id
	slow     time.Duration     // each answer takes this
	hangs    map[string]bool   // these ids are never answered, "" for all
	refuses  error             // to connect
	fails    error             // to inspect
	noEvents error             // to follow
	calls    []string          // id and time of each Inspect
	connects int
	asking   int // Inspects under way
	most     int
	streams  map[chan string]bool
	stop     chan struct{} // closed when it is stopped
}

func newFakeRuntime(names ...string) *fakeRuntime {
	f := &fakeRuntime{
		began: time.Now(), names: map[string]string{}, hangs: map[string]bool{}, streams: map[chan string]bool{},
		stop: make(chan struct{}),
	}
	for _, name := range names {
		f.names["id-"+name] = name
	}
	return f
}

func (f *fakeRuntime) connect(ctx context.Context, _ string) (Runtime, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.connects++
	if f.hangs[""] {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return nil, ctx.Err()
	}
	if f.refuses != nil {
		return nil, f.refuses
	}
	return f, nil
}

func (f *fakeRuntime) Inspect(ctx context.Context, ref cgroups.Ref) (Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf("%s %v", ref.ID, time.Since(f.began).Round(time.Millisecond)))
	f.asking++
	f.most = max(f.most, f.asking)
	defer func() { f.asking-- }()
	wait := f.slow
	if f.hangs[""] || f.hangs[ref.ID] {
		wait = time.Hour
	}
	if wait > 0 {
		f.mu.Unlock()
		waited := sleep(ctx, wait)
		f.mu.Lock()
		if !waited {
			return Info{}, ctx.Err()
		}
	}
	name, ok := f.names[ref.ID]
	switch {
	case f.fails != nil:
		return Info{}, f.fails
	case !ok:
		return Info{}, ErrNotFound
	}
	return Info{ID: ref.ID, Name: name, Labels: map[string]string{"a": "b"}}, nil
}

func (f *fakeRuntime) Follow(ctx context.Context, changed func(string)) error {
	f.mu.Lock()
	if f.noEvents != nil {
		defer f.mu.Unlock()
		return f.noEvents
	}
	events, stop := make(chan string, 100), f.stop
	f.streams[events] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.streams, events)
	}()
	for {
		select {
		case id := <-events:
			changed(id)
		case <-stop:
			return io.ErrUnexpectedEOF
		case <-ctx.Done():
			return nil
		}
	}
}

func (f *fakeRuntime) Close() error { return nil }

// set changes the daemon.
func (f *fakeRuntime) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeRuntime) rename(id, name string, tell bool) {
	f.set(func() {
		f.names[id] = name
		for events := range f.streams {
			if tell {
				events <- id
			}
		}
	})
}

// end stops the daemon; what follows its events notices.
func (f *fakeRuntime) end() {
	f.set(func() {
		f.refuses, f.fails = syscall.ECONNREFUSED, syscall.ECONNREFUSED
		close(f.stop)
		f.stop = make(chan struct{})
	})
}

func (f *fakeRuntime) taken() (calls []string) {
	f.set(func() { calls, f.calls = f.calls, nil })
	return calls
}

func (f *fakeRuntime) connected() (times int) {
	f.set(func() { times = f.connects })
	return times
}

// fakeHost has daemons and what a Directory tells of them.
type fakeHost struct {
	t       *testing.T
	root    string
	began   time.Time
	daemons map[string]*fakeRuntime
	logs    *observer.ObservedLogs
	*Directory

	mu   sync.Mutex
	said []string // each call of Answer: time, id, name or error
}

// newFakeHost opens a Directory. Daemons are named by their family; those whose socket is there are in up.
func newFakeHost(t *testing.T, daemons map[string]*fakeRuntime, up ...string) *fakeHost {
	h := &fakeHost{t: t, root: t.TempDir(), began: time.Now(), daemons: daemons}
	var families []family
	for _, name := range Families {
		if f := daemons[name]; f != nil {
			families = append(families, family{name, name, []string{"/" + name}, f.connect})
		}
	}
	for _, name := range up {
		h.socket(name)
	}
	core, logs := observer.New(zap.DebugLevel)
	h.logs = logs
	h.Directory = open(Options{Root: h.root, Answer: h.answer, Logger: zap.New(core)}, families)
	t.Cleanup(h.Close)
	return h
}

// socket makes a socket that nobody listens on: fakes are connected to without.
func (h *fakeHost) socket(name string) {
	if err := syscall.Mknod(filepath.Join(h.root, name), syscall.S_IFSOCK|0o600, 0); err != nil {
		h.t.Fatal(err)
	}
}

func (h *fakeHost) remove(name string) {
	if err := os.Remove(filepath.Join(h.root, name)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *fakeHost) answer(ref cgroups.Ref, info Info, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	what := info.Name
	if err != nil {
		what = "error"
		if errors.Is(err, ErrNobodyKnows) {
			what = "nobody knows"
		}
	}
	h.said = append(h.said, fmt.Sprintf("%v %s %s", time.Since(h.began).Round(time.Millisecond), ref.ID, what))
}

func (h *fakeHost) ask(kind cgroups.Kind, names ...string) {
	for _, name := range names {
		h.Ask(cgroups.Ref{Kind: kind, ID: "id-" + name})
	}
}

// heard returns what was told since it was called before, when nothing else happens at this time.
func (h *fakeHost) heard() (said []string) {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	said, h.said = h.said, nil
	return said
}

func (h *fakeHost) expect(want ...string) {
	h.t.Helper()
	if diff := cmp.Diff(want, h.heard()); diff != "" {
		h.t.Errorf("told (-want +got):\n%s", diff)
	}
}

func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}
