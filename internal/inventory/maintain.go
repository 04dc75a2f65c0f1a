// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
)

const (
	// It is looked what is due at least this often, and at most as often as a newborn container asks for.
	lookEvery, lookAtMostEvery = 500 * time.Millisecond, 100 * time.Millisecond
	// A container is read when the last reading is older than this part of its age, in case the read at its end comes too
	// late: then no more than that part is missing. It makes ten readings in its first second, three in each later time
	// in which its age doubles.
	readDue = 4
	// lookForLossEvery is how soon lost events are made up for.
	lookForLossEvery = time.Second
	// walkEvery is the safety net under the events, walkWithoutEvents takes their place.
	walkEvery         = time.Minute
	walkWithoutEvents = 500 * time.Millisecond
	// walkAtMostEvery bounds how often walks are done that were asked for.
	walkAtMostEvery = 300 * time.Millisecond
	// cleanEvery is how often what is over is cleared away.
	cleanEvery = 5 * time.Second
	// restWhenFull is how long idle edges stay in the kernel's table when more than half of it is in use.
	// An edge was last touched in the pass before or since, so that it has rested for one cleanEvery at least.
	restWhenFull = 2 * cleanEvery
	// strangeFor is how long a cgroup that is not in the tree is not looked for again.
	strangeFor = 5 * time.Minute
)

// maintain runs until ctx ends.
func (inv *Inventory) maintain(ctx context.Context) {
	t := time.NewTimer(lookEvery)
	defer t.Stop()
	lastWalk, lastClean, lastLook, lastLearn := inv.now(), inv.now(), inv.now(), inv.now()
	asked, born := false, false
	var lost uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-inv.rewalk:
			asked = true
		case <-inv.born:
			born = true
		case <-t.C:
		}
		now := inv.now()
		if now.Sub(lastLook) >= lookForLossEvery {
			lastLook = now
			if l := inv.kernel.Stats().EventsLost; l != lost {
				lost, asked = l, true
			}
		}
		if since := now.Sub(lastWalk); since >= inv.walkInterval() || asked && since >= walkAtMostEvery {
			_ = inv.walk(ctx) // counted there
			lastWalk, asked = now, false
			inv.kernel.RetryNAT()
		}
		if since := now.Sub(lastLearn); since >= lookEvery || born && since >= lookAtMostEvery {
			inv.learnProcesses()
			lastLearn, born = now, false
		}
		inv.grantWishes()
		next := inv.readDueOnes(now)
		if asked {
			next = min(next, walkAtMostEvery)
		}
		inv.closeOver()
		inv.retryStrangeExits(now)
		inv.retryStrangeWrites(now)
		inv.lookAtPrograms(now)
		if now.Sub(lastClean) >= cleanEvery {
			lastClean = now
			inv.checkDelayAccounting()
			inv.zones.refresh(now)
			inv.cleanTasks(now)
			if err := inv.clean(ctx, now); err != nil && ctx.Err() == nil {
				inv.log.Warn("kernel's edges not cleared", zap.Error(err))
			}
		}
		t.Reset(next)
	}
}

// closeOver lets go of the files of lives that are over.
func (inv *Inventory) closeOver() {
	inv.mu.Lock()
	over := inv.over
	inv.over = nil
	inv.mu.Unlock()
	for _, l := range over {
		l.close()
	}
}

func (inv *Inventory) walkInterval() time.Duration {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if inv.hasEvents {
		return walkEvery
	}
	return walkWithoutEvents
}

// readDueOnes reads the containers of which a large part of their life is not known. It returns when the next is due.
func (inv *Inventory) readDueOnes(now time.Time) (next time.Duration) {
	next = lookEvery
	var due []*life
	inv.mu.Lock()
	for _, c := range inv.containers {
		l := c.current
		if !l.young || !c.goneAt.IsZero() || !c.isRead() {
			continue
		}
		every := max(now.Sub(l.born)/readDue, lookAtMostEvery)
		left := every - now.Sub(l.lastRead())
		if left <= 0 {
			due = append(due, l)
			left = every
		}
		next = min(next, max(left, lookAtMostEvery))
	}
	inv.mu.Unlock()
	for _, l := range due {
		if err := l.read(now); err != nil {
			inv.mu.Lock()
			inv.countRead(err)
			inv.mu.Unlock()
		}
	}
	return next
}

// clean clears away what is over: containers whose end has been told, what was idle for too long, and in the kernel's
// tables what is idle, of cgroups that are gone, or of no container. What those of a container counted goes over to it.
func (inv *Inventory) clean(ctx context.Context, now time.Time) error {
	inv.edgesMu.Lock()
	defer inv.edgesMu.Unlock()
	inv.dropContainers(now)
	type leaving struct {
		from bpf.Edge
		to   *edge // nil for nobody's
	}
	var over []leaving
	var strange []bpf.Edge
	restUntil := bpf.Now() - inv.restInKernel()
	err := inv.pass(ctx, false, func(ke *bpf.Edge, d *dir, e *edge) {
		idle := ke.Active <= 0 && ke.Touched <= restUntil
		switch c := d.container(); {
		case d == nil:
			strange = append(strange, *ke)
		case c == nil, e == nil && ke.Active <= 0: // nobody's, or such that nobody is to see
			over = append(over, leaving{from: *ke})
		case d.deadAt.IsZero():
			if idle {
				over = append(over, leaving{from: *ke, to: e})
			}
		case now.Sub(d.deadAt) > inv.opts.Keep && ke.Active <= 0:
			over = append(over, leaving{from: *ke, to: e})
		default: // connections still open will be closed on this entry
			d.inUse = true
		}
	})
	if err != nil {
		return err
	}
	if len(strange) > 0 {
		strange, err = inv.stillStrange(ctx, strange)
		for _, ke := range strange {
			over = append(over, leaving{from: ke})
		}
	}
	for i := range over {
		l := &over[i]
		if e := inv.kernel.Take(&l.from); e != nil {
			err = errors.Join(err, e)
		} else if l.to != nil {
			l.to.past.add(&l.from)
		}
	}
	err = errors.Join(err, inv.cleanListeners(restUntil))
	inv.expire(now)
	inv.dropDirs(now)
	return err
}

// restInKernel is how long what is idle stays in the kernel's table of edges: less when it fills up.
func (inv *Inventory) restInKernel() time.Duration {
	if k := inv.kernel.Stats(); k.EdgesMax > 0 && k.Edges > k.EdgesMax/2 {
		return restWhenFull
	}
	return inv.opts.Keep
}

// cleanListeners takes out of the kernel's table the listeners that were closed. edgesMu is held.
func (inv *Inventory) cleanListeners(restUntil time.Duration) error {
	var errs []error
	for i := range inv.heard {
		l := &inv.heard[i]
		if l.Open > 0 || l.Touched > restUntil {
			continue
		}
		before := l.Drops
		if err := inv.kernel.TakeListener(l.Listener); err != nil {
			errs = append(errs, err)
			continue
		}
		if l.queue != nil {
			l.queue.drops -= before
			l.queue.past += l.Drops
		}
	}
	return errors.Join(errs...)
}

// expire ends what was idle for too long. edgesMu is held.
func (inv *Inventory) expire(now time.Time) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for _, c := range inv.containers {
		c.network.expire(now, inv.opts.Network.IdleTimeout, inv.opts.Keep)
	}
}

// stillStrange looks at the tree again: what it then does not know was made by a cgroup outside of it, or one that is long
// gone.
func (inv *Inventory) stillStrange(ctx context.Context, edges []bpf.Edge) ([]bpf.Edge, error) {
	now := inv.now()
	for id, at := range inv.strange {
		if now.Sub(at) > strangeFor {
			delete(inv.strange, id)
		}
	}
	isNew := func(e bpf.Edge) bool { return inv.strange[[2]uint64{e.CgroupV2, e.CgroupV1}].IsZero() }
	if slices.ContainsFunc(edges, isNew) {
		if err := inv.walk(ctx); err != nil {
			return nil, err
		}
	}
	inv.mu.Lock()
	defer inv.mu.Unlock()
	var still []bpf.Edge
	for i := range edges {
		id := [2]uint64{edges[i].CgroupV2, edges[i].CgroupV1}
		if inv.resolve(id[0], id[1]) != nil {
			continue
		}
		still = append(still, edges[i])
		if isNew(edges[i]) {
			inv.status.CgroupsUnresolved++
			inv.strange[id] = now
		}
	}
	return still, nil
}

// dropContainers forgets the containers whose end has been told; their directories go with dropDirs.
func (inv *Inventory) dropContainers(now time.Time) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for name, c := range inv.containers {
		if _, dropped := c.phase(now, inv.opts.Keep); dropped {
			c.dropped = true
			delete(inv.containers, name)
			inv.forget(c)
			inv.endLogs(c)
		}
	}
}

// dropDirs forgets dead directories that have no edges left in the kernel's table.
func (inv *Inventory) dropDirs(now time.Time) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for id, d := range inv.dirs {
		if d.deadAt.IsZero() {
			continue
		}
		if d.container() == nil || !d.inUse && now.Sub(d.deadAt) > inv.opts.Keep {
			delete(inv.dirs, id)
		}
		d.inUse = false
	}
}
