// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	workers = 4 // questions that one runtime is asked at a time
	// badInARow is how many questions fail one after the other before a runtime is left alone, because it may also be
	// that a runtime has trouble with one container.
	badInARow  = 3
	minBackoff = 100 * time.Millisecond
	maxBackoff = 30 * time.Second
	// settled is when a Follow that has not failed is believed to tell all names from then on.
	settled = time.Second
	// askAnewEvery spreads out the questions after that.
	askAnewEvery = 10 * time.Millisecond
)

type state uint8

const (
	idle       state = iota // nobody has needed it yet, or nobody does any more
	connecting              // questions wait for it
	up
	resting // cannot be asked: questions pass it by until it is up again
)

// source is a socket where a runtime may listen. Directory.mu guards it, unless a field says otherwise.
//
// While it is needed one goroutine, serve, connects to it, waits for its end and connects again.
type source struct {
	family family
	path   string        // on the host
	kick   chan struct{} // for serve: the socket is another one

	where  string      // path as seen here
	file   fs.FileInfo // the socket, nil where there is none
	dup    *source     // has the same socket
	serves []string    // names of its families: more than one where others are its duplicates
	seen   bool        // has been there

	state  state
	rt     Runtime       // while up
	broken chan struct{} // to serve: not up any more
	queue  []*question
	busy   int            // workers
	works  sync.WaitGroup // them

	lastAnswer time.Time
	inARow     int // failures since
	backoff    pause
	err        error // why it is resting
	answers    uint64
	errors     uint64
	logged     map[string]bool // errors told in the log, by kind; up

	// Of serve alone.
	followed      bool // a Follow has been tried
	followBackoff pause
}

func newSource(f family, path string) *source {
	return &source{family: f, path: path, kick: make(chan struct{}, 1), logged: map[string]bool{}, serves: []string{f.name}}
}

// same returns the source to ask instead of s, mostly s.
func (s *source) same() *source {
	if s.dup != nil {
		return s.dup
	}
	return s
}

// pause is the last wait of some that grow; 0 is none yet.
type pause time.Duration

func (p *pause) next() time.Duration {
	*p = min(max(2**p, pause(minBackoff)), pause(maxBackoff))
	return time.Duration(*p)
}

// look finds out which sockets are there.
func (d *Directory) look(ctx context.Context) {
	type found struct {
		where string
		file  fs.FileInfo
	}
	now := make([]found, len(d.sources))
	for i, s := range d.sources {
		now[i].where, now[i].file = findSocket(d.options.Root, s.path)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var appeared []*source
	for i, s := range d.sources {
		was, wasDup := s.file, s.dup != nil
		s.where, s.file, s.dup = now[i].where, now[i].file, nil
		s.serves = []string{s.family.name}
		for _, first := range d.sources[:i] {
			if s.file != nil && first.dup == nil && s.sharesSocket(first) {
				s.dup = first
				first.serves = append(first.serves, s.family.name)
			}
		}
		switch {
		case s.file == nil || s.dup != nil:
			if s.state == up {
				d.complain(s, "looking for its socket", errGone)
				d.fail(ctx, s, errGone)
			}
		case was == nil || wasDup || !os.SameFile(was, s.file) || !was.ModTime().Equal(s.file.ModTime()):
			appeared = append(appeared, s)
		}
	}
	for _, s := range appeared {
		s.seen = true
		s.backoff = 0
		switch {
		case s.state == resting:
			s.state = connecting
			nudge(s.kick)
		case s.state == idle && d.knows(s): // for new names
			d.startServing(ctx, s)
		}
		d.offer(ctx, s, true)
	}
}

var errGone = fmt.Errorf("the socket is gone: %w", fs.ErrNotExist)

func (s *source) sharesSocket(other *source) bool {
	return other.file != nil && other.family.api == s.family.api && os.SameFile(other.file, s.file)
}

// accept puts a question into the queue of s and tells true, unless s cannot be asked now.
func (d *Directory) accept(ctx context.Context, s *source, q *question) bool {
	if s.file == nil || s.state == resting {
		return false
	}
	q.at = s
	s.queue = append(s.queue, q)
	switch s.state {
	case idle:
		d.startServing(ctx, s)
	case up:
		d.startWorker(ctx, s)
	}
	return true
}

func (d *Directory) startServing(ctx context.Context, s *source) {
	s.state = connecting
	d.wg.Add(1)
	go d.serve(ctx, s)
}

func (d *Directory) startWorker(ctx context.Context, s *source) {
	if s.busy < workers {
		s.busy++
		s.works.Add(1)
		go d.work(ctx, s, s.rt)
	}
}

// work asks the questions in the queue until it is empty.
func (d *Directory) work(ctx context.Context, s *source, rt Runtime) {
	defer s.works.Done()
	for {
		q := d.nextQuestion(s)
		if q == nil {
			return
		}
		began := time.Now()
		asking, cancel := context.WithTimeout(ctx, Deadline)
		info, err := rt.Inspect(asking, q.ref)
		cancel()
		if ctx.Err() != nil {
			return
		}
		d.mu.Lock()
		if err == nil || errors.Is(err, ErrNotFound) {
			s.answers++
			s.inARow, s.lastAnswer = 0, time.Now()
		} else {
			d.failed(ctx, s, began, err)
		}
		d.settle(ctx, s, q, info, err)
		d.mu.Unlock()
	}
}

// nextQuestion takes the first question that is still open, nil where the worker shall end.
func (d *Directory) nextQuestion(s *source) *question {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s.state == up && len(s.queue) > 0 {
		q := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		if !q.gone {
			q.stale = false
			return q
		}
	}
	s.busy--
	return nil
}

// failed counts a question that began at the time given and failed. When it was for want of time, and nothing else has
// been answered since, then the runtime hangs.
func (d *Directory) failed(ctx context.Context, s *source, began time.Time, err error) {
	s.errors++
	s.inARow++
	d.complain(s, "asking for a container", err)
	hangs := time.Since(began) >= Deadline/2 && !s.lastAnswer.After(began)
	if s.state == up && (hangs || s.inARow >= badInARow) {
		d.fail(ctx, s, err)
	}
}

// fail makes an end of asking s, for now.
func (d *Directory) fail(ctx context.Context, s *source, err error) {
	if s.state == up {
		s.broken <- struct{}{}
	}
	s.state, s.err = resting, err
	queue := s.queue
	s.queue = nil
	for _, q := range queue {
		d.skip(ctx, s, q)
	}
}

// serve connects to s for as long as anybody needs it.
func (d *Directory) serve(ctx context.Context, s *source) {
	defer d.wg.Done()
	for ctx.Err() == nil {
		began := time.Now()
		rt, err := d.connect(ctx, s)
		if err == nil {
			lost := d.attend(ctx, s, rt)
			if time.Since(began) > maxBackoff {
				d.mu.Lock()
				s.backoff = 0
				d.mu.Unlock()
			}
			if lost {
				continue
			}
		}
		if !d.rest(ctx, s) {
			return
		}
	}
}

// connect makes s up or resting.
func (d *Directory) connect(ctx context.Context, s *source) (Runtime, error) {
	d.mu.Lock()
	where := s.where
	d.mu.Unlock()
	ctxConnect, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	rt, err := s.family.connect(ctxConnect, where)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			s.errors++
			d.complain(s, "connecting", err)
		}
		if errors.Is(err, errors.ErrUnsupported) {
			s.backoff = pause(maxBackoff)
		}
		d.fail(ctx, s, err)
		return nil, err
	}
	if !s.logged[""] {
		s.logged[""] = true
		d.options.Logger.Info("container runtime answers", zap.String("runtime", s.family.name), zap.String("socket", s.path))
	}
	s.state, s.rt, s.err, s.inARow, s.broken = up, rt, nil, 0, make(chan struct{}, 1)
	for _, q := range d.questions {
		if q.from == s && q.stale {
			d.begin(ctx, q)
		}
	}
	d.offer(ctx, s, false)
	for range min(workers, len(s.queue)) {
		d.startWorker(ctx, s)
	}
	return rt, nil
}

// attend returns when s is not up any more. It tells true where only its events were lost, which may mean that the runtime
// has restarted: questions wait then until that is clear.
func (d *Directory) attend(ctx context.Context, s *source, rt Runtime) (lost bool) {
	followCtx, cancel := context.WithCancel(ctx)
	var followErr error
	following := make(chan struct{}) // closed when followErr is set
	go func() {
		defer close(following)
		followErr = d.follow(followCtx, s, rt)
	}()
	select {
	case <-ctx.Done():
		d.mu.Lock()
		s.state = resting // no more workers
		d.mu.Unlock()
	case <-s.broken: //nolint:errcheck // who has put it there has said it
	case <-following:
		d.mu.Lock()
		if lost = s.state == up && ctx.Err() == nil; lost {
			s.state = connecting
			s.errors++
			d.complain(s, "following events", followErr)
		}
		d.mu.Unlock()
	}
	cancel()
	s.works.Wait()
	<-following //nolint:errcheck // said above, or it is our doing
	if err := rt.Close(); err != nil {
		d.options.Logger.Debug("closing a container runtime", zap.String("socket", s.path), zap.Error(err))
	}
	return lost
}

// rest waits until it is time to connect again. It tells false where nobody needs s.
func (d *Directory) rest(ctx context.Context, s *source) bool {
	d.mu.Lock()
	wait := s.backoff.next()
	d.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-s.kick:
	case <-timer.C:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.file == nil || s.dup != nil || !d.needs(s) {
		s.state = idle
		return false
	}
	return true
}

// needs tells whether a container is known to s, or may be.
func (d *Directory) needs(s *source) bool {
	for _, q := range d.questions {
		if q.from == nil && q.wants(s) {
			return true
		}
	}
	return d.knows(s)
}

// knows tells whether there is a container whose names are from s.
func (d *Directory) knows(s *source) bool {
	for _, q := range d.questions {
		if q.from == s {
			return true
		}
	}
	return false
}

// complain logs an error, each kind of error of each thing done once.
func (d *Directory) complain(s *source, doing string, err error) {
	kind, level := "other", zap.WarnLevel
	switch {
	case errors.Is(err, errors.ErrUnsupported): // containerd has no CRI where Docker brought it
		kind, level = "unsupported", zap.DebugLevel
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		kind = "timeout"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		kind, level = "nobody listens", zap.InfoLevel
	case errors.Is(err, io.EOF): // its end
		kind, level = "end", zap.InfoLevel
	case errors.Is(err, fs.ErrPermission):
		kind = "permission"
	}
	if key := doing + ": " + kind; !s.logged[key] {
		s.logged[key] = true
		d.options.Logger.Log(level, "container runtime does not answer; containers keep the names that they have, and it is asked again",
			zap.String("runtime", s.family.name), zap.String("socket", s.path), zap.String("doing", doing), zap.Error(err))
	}
}
