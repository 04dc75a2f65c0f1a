// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"sync"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// Options of a Directory.
type Options struct {
	Root string // where the host's root file system is seen; sockets are looked for below it
	// Sockets are asked instead of the usual ones of a family of Families, in this order; with none given for a family that
	// is in the map, the family is not asked.
	Sockets map[string][]string
	// Answer is called once for each Ask, when a runtime has told of the container or when it is clear that none can now
	// (err is not nil): after that once more whenever there is news, such as a runtime that came late, or a new name. It is
	// called from one goroutine at a time, may take locks, may call Ask and Forget, and must not wait for Close.
	Answer func(ref cgroups.Ref, info Info, err error)
	Logger *zap.Logger
}

// ErrNobodyKnows reports that no runtime that can be reached knows a container.
var ErrNobodyKnows = errors.New("no runtime knows the container")

// Directory knows what the runtimes of this host tell of its containers. Runtimes are looked for all the time, but none
// is connected to before there is a container that it may know: some are started by that.
//
// A container that was found is not asked for again, except where its runtime says that it was renamed, or may have
// missed to say so. One that was not found is asked for again after 50 ms, 200 ms, 1 s, 5 s, 30 s and then each minute,
// since its cgroup may be there before its runtime knows it, and at once when a runtime comes up.
type Directory struct {
	options  Options
	families []family
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	wake     chan struct{} // for run: something is in fresh or first in retries
	tell     chan struct{} // for deliver: something is in news

	// mu guards what is below, and all questions and sources. It is never held while somebody is asked or told.
	mu        sync.Mutex
	closed    bool
	questions map[cgroups.Ref]*question
	fresh     []*question // asked, but not yet looked at by run
	news      []*question // to be told, oldest first
	retries   retryHeap
	sources   []*source // one for each socket that may be there, fixed
}

// Open begins to look for runtimes. The Directory must be closed.
func Open(options Options) *Directory { return open(options, families()) }

func open(options Options, families []family) *Directory {
	if options.Logger == nil {
		options.Logger = zap.NewNop()
	}
	d := &Directory{
		options:   options,
		families:  families,
		wake:      make(chan struct{}, 1),
		tell:      make(chan struct{}, 1),
		questions: map[cgroups.Ref]*question{},
	}
	for _, f := range families {
		sockets, given := options.Sockets[f.name]
		if !given {
			sockets = f.sockets
		}
		for _, path := range sockets {
			d.sources = append(d.sources, newSource(f, path))
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	d.wg.Add(2)
	go d.run(ctx)
	go d.deliver(ctx)
	return d
}

// Ask begins to ask for a container; Answer will be called, for the first time within about 2.5 s. To ask for the same
// ref again before Forget does nothing. It does not block.
func (d *Directory) Ask(ref cgroups.Ref) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.questions[ref] != nil {
		return
	}
	q := &question{ref: ref}
	d.questions[ref] = q
	d.fresh = append(d.fresh, q)
	nudge(d.wake)
}

// Forget ends the questions about a container. A call of Answer for it that has begun may still be under way when Forget
// returns; no other follows, and it ends before the first one of a later Ask. It does not block.
func (d *Directory) Forget(ref cgroups.Ref) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if q := d.questions[ref]; q != nil {
		q.gone = true
		delete(d.questions, ref)
	}
}

// Close ends all questions and lets go of the runtimes. When it returns, Answer is not under way and will not be called.
// The caller must not hold a lock that Answer takes.
func (d *Directory) Close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.wg.Wait()
}

// RuntimeStatus is what has become of a socket.
type RuntimeStatus struct {
	Runtime   string // one of Families
	Socket    string // as the host names it
	Connected bool   // one that no container has needed yet is not
	Err       error  // why it cannot be asked, nil where Connected or never needed
	Answers   uint64 // containers asked for that it knew or did not know
	Errors    uint64 // calls that failed: connecting, asking for a container, following its events
}

// Status returns the sockets that are there or were.
func (d *Directory) Status() []RuntimeStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []RuntimeStatus
	for _, s := range d.sources {
		if s.seen {
			all = append(all, RuntimeStatus{
				Runtime: s.family.name, Socket: s.path, Connected: s.state == up, Err: s.err,
				Answers: s.answers, Errors: s.errors,
			})
		}
	}
	return all
}

// nudge wakes who waits for c, now or when it next does.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
