// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

const (
	lookEvery = time.Second // for sockets
	// tellWithin is when Answer is called if runtimes that hang one after the other have not failed by then.
	tellWithin = 2400 * time.Millisecond
	// quickTries is how often a container that is not known is asked for before that is told.
	quickTries = 3
)

// retryAfter is how long a container that is not known waits after each try, the last one for good.
var retryAfter = [...]time.Duration{
	50 * time.Millisecond, 200 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second, time.Minute,
}

// question is about one container, from Ask to Forget. Directory.mu guards it.
//
// It goes in rounds from source to source until one knows the container. A container that is known is asked for at the
// source that knows it only.
type question struct {
	ref   cgroups.Ref
	gone  bool // forgotten
	begun bool // run has seen it

	// The round that it is in, or that was last.
	at       *source   // who has it now, nil between rounds
	left     []*source // to be asked after that
	notFound bool      // somebody has said so
	failed   bool      // somebody has failed when asked for it
	missed   bool      // somebody could not be asked
	why      error     // the last one of these

	tries   int       // rounds that found nothing since the last new socket
	retryAt time.Time // zero where it does not wait for that

	from  *source // who knows the container, nil while nobody does
	info  Info
	stale bool // from has not answered since there was reason to ask it again
	err   error
	told  bool // Answer was called, or is about to be
	queue bool // is in news
}

// run looks at what was asked, at sockets and at the clock.
func (d *Directory) run(ctx context.Context) {
	defer d.wg.Done()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	d.look(ctx)
	for {
		timer.Reset(d.advance(ctx))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			d.look(ctx)
		case <-timer.C:
		case <-d.wake:
		}
	}
}

// advance begins what is due and returns for how long nothing else will be.
func (d *Directory) advance(ctx context.Context) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for _, q := range d.fresh {
		q.begun = true
		heap.Push(&d.retries, retry{at: now.Add(tellWithin), q: q, tell: true})
		d.begin(ctx, q)
	}
	d.fresh = nil
	for len(d.retries) > 0 {
		next := d.retries[0]
		if wait := next.at.Sub(now); wait > 0 {
			return wait
		}
		heap.Pop(&d.retries)
		switch {
		case next.tell:
			d.giveUp(next.q, errSlow)
		case next.q.retryAt.Equal(next.at):
			d.begin(ctx, next.q)
		}
	}
	return time.Hour
}

var errSlow = errors.New("no answer yet")

// begin asks the source that knows the container, or begins a round.
func (d *Directory) begin(ctx context.Context, q *question) {
	if q.gone || q.at != nil || !q.begun {
		return
	}
	q.retryAt = time.Time{}
	if q.from != nil {
		q.stale = true
		d.accept(ctx, q.from.same(), q) // which is not stale when it is asked
		return
	}
	q.left = d.candidates(q.ref.Kind)
	q.notFound, q.failed, q.missed, q.why = false, false, false, nil
	d.step(ctx, q)
}

// candidates returns the sources to ask, in order.
func (d *Directory) candidates(kind cgroups.Kind) []*source {
	var found []*source
	for _, name := range familiesOf(kind) {
		for _, s := range d.sources {
			if s.family.name == name && s.file != nil && !slices.Contains(found, s.same()) {
				found = append(found, s.same())
			}
		}
	}
	return found
}

// wants tells whether s is among the candidates of a question, but for duplicates.
func (q *question) wants(s *source) bool {
	for _, name := range familiesOf(q.ref.Kind) {
		if slices.Contains(s.serves, name) {
			return true
		}
	}
	return false
}

// step gives q to the next source that can be asked, or ends the round.
func (d *Directory) step(ctx context.Context, q *question) {
	q.at = nil
	for len(q.left) > 0 {
		s := q.left[0]
		q.left = q.left[1:]
		if d.accept(ctx, s, q) {
			return
		}
		q.missed = true
		q.why = s.err
	}
	if q.notFound || q.failed {
		d.later(q)
	}
	if !q.notFound || q.tries >= quickTries {
		d.giveUp(q, q.why)
	}
}

// later has q asked again when it is time.
func (d *Directory) later(q *question) {
	q.retryAt = time.Now().Add(retryAfter[min(q.tries, len(retryAfter)-1)])
	q.tries++
	heap.Push(&d.retries, retry{at: q.retryAt, q: q})
	nudge(d.wake)
}

// giveUp tells that nobody knows, unless something has been told.
func (d *Directory) giveUp(q *question, why error) {
	if q.gone || q.told {
		return
	}
	q.err = ErrNobodyKnows
	if why != nil {
		q.err = fmt.Errorf("%w: %w", ErrNobodyKnows, why)
	}
	d.say(q)
}

// say puts q into the news.
func (d *Directory) say(q *question) {
	q.told = true
	if !q.queue {
		q.queue = true
		d.news = append(d.news, q)
		nudge(d.tell)
	}
}

// settle takes what s has said of q.
func (d *Directory) settle(ctx context.Context, s *source, q *question, info Info, err error) {
	q.at = nil
	switch {
	case q.gone:
	case err == nil:
		changed := q.from == nil || !reflect.DeepEqual(q.info, info)
		q.from, q.info, q.err, q.left, q.tries = s, info, nil, nil, 0
		if changed {
			d.say(q)
		}
		if q.stale { // since it was asked
			d.begin(ctx, q)
		}
	case q.from != nil: // what it said before stands, also when it removes the container
		if !errors.Is(err, ErrNotFound) {
			d.later(q)
		}
	default:
		if errors.Is(err, ErrNotFound) {
			q.notFound = true
		} else {
			q.failed = true
		}
		q.why = fmt.Errorf("%s: %w", s.family.name, err)
		d.step(ctx, q)
	}
}

// skip takes q back from a source that cannot be asked any more.
func (d *Directory) skip(ctx context.Context, s *source, q *question) {
	if q.from != nil {
		q.at, q.stale = nil, true
		return
	}
	q.missed, q.why = true, s.err
	d.step(ctx, q)
}

// offer has the questions that no one has an answer to asked at s, which can be asked now: all of them if its socket is
// new, else those that could not be asked there before.
func (d *Directory) offer(ctx context.Context, s *source, isNew bool) {
	for _, q := range d.questions {
		if q.from != nil || !q.wants(s) || !isNew && !q.missed {
			continue
		}
		if isNew {
			q.tries = 0
		}
		if q.at == nil {
			d.begin(ctx, q)
		} else if q.at != s && !slices.Contains(q.left, s) {
			q.left = append(q.left, s)
		}
	}
}

// deliver calls Answer.
func (d *Directory) deliver(ctx context.Context) {
	defer d.wg.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.tell:
		}
		for {
			ref, info, err, ok := d.nextNews()
			if !ok || ctx.Err() != nil {
				break
			}
			d.options.Answer(ref, info, err)
		}
	}
}

func (d *Directory) nextNews() (ref cgroups.Ref, info Info, err error, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.news) > 0 {
		q := d.news[0]
		d.news[0] = nil
		d.news = d.news[1:]
		q.queue = false
		if !q.gone {
			return q.ref, q.info, q.err, true
		}
	}
	d.news = nil
	return ref, info, nil, false
}

// retry is something to do with a question later.
type retry struct {
	at   time.Time
	q    *question
	tell bool // that nobody knows; else ask, if retryAt is still the same
}

// retryHeap has the earliest first; see container/heap. What became void is left in until its time comes: since waits
// grow with the age of a question, that is never long after its end.
type retryHeap []retry

func (h retryHeap) Len() int           { return len(h) }
func (h retryHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h retryHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is for container/heap.
func (h *retryHeap) Push(x any) { *h = append(*h, x.(retry)) }

// Pop is for container/heap.
func (h *retryHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = retry{}
	*h = old[:len(old)-1]
	return last
}
