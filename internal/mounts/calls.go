// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"context"
	"sync"
	"time"
)

const (
	// maxCalls is how many calls may wait for file systems that others answer for, and as many for the rest.
	maxCalls = 16
	// hungAfter is when a call that is under way is no longer waited for.
	hungAfter = 200 * time.Millisecond
)

// calls runs what may hang in the kernel. A call that hangs keeps one of a few goroutines until it returns, and nobody else
// makes the same call before that.
type calls struct {
	now func() time.Time

	mu     sync.Mutex // guards what follows
	open   map[string]*call
	lanes  [2]lane // those that need nobody's answer, and those that may hang
	closed bool
}

// lane keeps what may hang away from what does not.
type lane struct {
	queue   []*call
	running int
}

// call is one question to the kernel. Its answer belongs to whoever has seen done closed.
type call struct {
	key     string
	mayHang bool
	run     func() answer

	began  time.Time // guarded by calls.mu, as the next; zero while it is in the queue
	asked  int       // who waits for it in the queue
	done   chan struct{}
	answer answer
}

// answer is what a call found out.
type answer struct {
	usage    Usage
	isDir    bool
	id       int // of the mount of an upper directory, 0 if the kernel does not tell
	number   DeviceNumber
	sameSize bool // an overlay is as large as what it is on
	refused  bool // it could not be asked
}

func newCalls(now func() time.Time) *calls { return &calls{now: now, open: map[string]*call{}} }

// start begins calls, or joins those that are under way. It returns nil in the place of each that is known to hang, or that
// has to wait for those that are.
// All must be given to finish.
func (c *calls) start(all []*call) ([]*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	now := c.now()
	started := make([]*call, len(all))
	for i, one := range all {
		if same := c.open[one.key]; same != nil {
			if same.began.IsZero() || now.Sub(same.began) < hungAfter {
				same.asked++
				started[i] = same
			}
			continue
		}
		lane := c.laneOf(one)
		if lane.running == maxCalls && c.hung(lane, now) == maxCalls {
			continue // there is nobody to make it
		}
		one.asked, one.done = 1, make(chan struct{})
		started[i] = one
		c.open[one.key] = one
		lane.queue = append(lane.queue, one)
	}
	for i := range c.lanes {
		lane := &c.lanes[i]
		for range min(maxCalls-lane.running, len(lane.queue)) {
			lane.running++
			go c.work(lane)
		}
	}
	return started, nil
}

func (c *calls) laneOf(one *call) *lane {
	if one.mayHang {
		return &c.lanes[1]
	}
	return &c.lanes[0]
}

// work makes the calls of a queue. It ends when that is empty, or when the last call returns that hangs.
func (c *calls) work(l *lane) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(l.queue) > 0 {
		one := l.queue[0]
		l.queue = l.queue[1:]
		one.began = c.now()
		c.mu.Unlock()
		one.answer = one.run()
		c.mu.Lock()
		delete(c.open, one.key)
		close(one.done)
	}
	l.queue = nil
	l.running--
}

// finish waits for calls until ctx ends, and tells of each whether there is an answer. What was not yet begun then is not
// begun.
func (c *calls) finish(ctx context.Context, all []*call) []bool {
	answered := make([]bool, len(all))
	late := false
	for i, one := range all {
		if one == nil {
			continue
		}
		if !late {
			select {
			case <-one.done:
				answered[i] = true
				continue
			case <-ctx.Done():
				late = true
			}
		}
		answered[i] = c.leave(one)
	}
	return answered
}

// leave waits no longer for a call.
func (c *calls) leave(one *call) (answered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-one.done:
		return true
	default:
	}
	if one.asked--; one.asked > 0 || !one.began.IsZero() {
		return false
	}
	lane := c.laneOf(one)
	for i, queued := range lane.queue {
		if queued == one {
			lane.queue = append(lane.queue[:i:i], lane.queue[i+1:]...)
			break
		}
	}
	delete(c.open, one.key)
	return false
}

// stuck returns how many calls are no longer waited for and have not returned.
func (c *calls) stuck() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for i := range c.lanes {
		n += c.hung(&c.lanes[i], now)
	}
	return n
}

// hung counts those of a lane. mu is held.
func (c *calls) hung(l *lane, now time.Time) (n int) {
	for _, one := range c.open {
		if c.laneOf(one) == l && !one.began.IsZero() && now.Sub(one.began) >= hungAfter {
			n++
		}
	}
	return n
}

// close ends what can be ended: it waits a moment for the calls under way. Those that hang end when the kernel returns.
func (c *calls) close() {
	c.mu.Lock()
	c.closed = true
	var all []*call
	for _, one := range c.open {
		all = append(all, one)
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), hungAfter)
	defer cancel()
	for _, one := range all {
		select {
		case <-one.done:
		case <-ctx.Done():
			return
		}
	}
}
