// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// rootInode is the inode number of the root of each cgroup hierarchy. A mount that shows another directory as its root
// shows a part of the tree.
const rootInode = 1

// walk brings the tree up to date with what exists. It takes the place of events that were lost or cannot be had. After an
// error what was found is taken in, but nothing is taken out.
func (inv *Inventory) walk(ctx context.Context) error {
	inv.mu.Lock()
	began := inv.seq
	inv.mu.Unlock()

	var found []cgroups.Dir
	err := inv.fs.Walk(ctx, func(d cgroups.Dir) { found = append(found, d) })

	inv.mu.Lock()
	defer inv.mu.Unlock()
	now := inv.now()
	if err == nil {
		exists := make(map[cgroups.ID]bool, len(found))
		for _, d := range found {
			exists[d.ID] = true
		}
		for id, d := range inv.dirs {
			// What was added while we walked may have been made behind us.
			if d.seq <= began && d.deadAt.IsZero() && !exists[id] {
				inv.removeDir(id, now)
			}
		}
	}
	for _, d := range found {
		if d.Path == "/" {
			inv.eventPathsOK[d.ID.Hierarchy] = d.ID.Inode == rootInode
		}
		inv.addDir(d, now)
	}
	if err != nil && ctx.Err() == nil {
		inv.status.WalkErrors++
	}
	return err
}

// addDir takes in a directory. mu is held.
func (inv *Inventory) addDir(found cgroups.Dir, now time.Time) {
	if _, ok := inv.dirs[found.ID]; ok {
		return
	}
	inv.seq++
	d := &dir{seq: inv.seq}
	ref := cgroups.ParsePath(found.Path)
	if ref.Kind != cgroups.None && inv.mayBeWanted(ref) {
		d.place = place{found.ID.Hierarchy, ref.Path}
		if d.top = ref.Path == found.Path; d.top {
			d.life = inv.lifeAt(d, ref, found.ID, now)
		} else if c := inv.places[d.place]; c != nil {
			d.life = c.current
		} else {
			inv.askForWalk() // the event of the container's own directory was lost
			return
		}
	}
	inv.dirs[found.ID] = d
}

// lifeAt finds the life of which d is the container's own directory, or begins one. mu is held.
func (inv *Inventory) lifeAt(d *dir, ref cgroups.Ref, id cgroups.ID, now time.Time) *life {
	name := ref.Name()
	c := inv.containers[name]
	if c != nil && c.ref.Path != ref.Path && c.current.at(id.Hierarchy) {
		// Two at a time whose paths give one name, such as nested LXC containers: the later goes by its path.
		name = ref.Path
		c = inv.containers[name]
	}
	if known := inv.asked[ref]; known != nil {
		if known.dropped {
			inv.forget(known)
		} else if c == nil {
			c = known // it goes by another name now
		}
	}
	switch {
	case c == nil:
		c = &container{name: name, ref: ref, start: now, naming: naming{key: name, hidden: !inv.wanted(ref.Name(), ref)}}
		inv.containers[name] = c
		inv.beginLife(c, id, now)
		inv.ask(c, now)
	case !c.goneAt.IsZero(), c.current.top[id.Hierarchy] != nil:
		// Its directory in this hierarchy was removed, or replaced unseen.
		c.ref = ref
		inv.beginLife(c, id, now)
		inv.ask(c, now)
	}
	c.current.top[id.Hierarchy] = d
	c.goneAt = time.Time{}
	inv.places[d.place] = c
	return c.current
}

// beginLife makes the totals so far the past of a new life. mu is held.
func (inv *Inventory) beginLife(c *container, id cgroups.ID, now time.Time) {
	if old := c.current; old != nil {
		last := old.lastStats()
		addPast(&last, &c.past)
		c.past = last
		inv.over = append(inv.over, old)
	}
	c.current = &life{container: c, born: now, young: inv.watching, cgroup: inv.fs.CgroupOf(id, c.ref.Path)}
	c.current.stats.Store(&cgroups.Stats{})
	wake(inv.born)
}

// removeDir marks a directory as gone; clean drops it when its edges have been taken in. mu is held.
func (inv *Inventory) removeDir(id cgroups.ID, now time.Time) {
	d := inv.dirs[id]
	if d == nil || !d.deadAt.IsZero() {
		return
	}
	inv.seq++
	d.deadAt = now
	if d.life == nil || !d.top {
		return
	}
	c := d.life.container
	if c.current != d.life {
		return
	}
	if d.life.top[id.Hierarchy] == d {
		delete(inv.places, d.place)
	}
	if d.life.over() {
		if c.dropped { // disowned
			inv.forget(c)
		}
		c.goneAt = now
		inv.over = append(inv.over, d.life) // nothing can be read of it any more
	}
}

// followEvents runs until the kernel is closed.
func (inv *Inventory) followEvents() {
	if err := inv.kernel.CgroupEvents(inv.onEvent); err != nil {
		inv.log.Error("no more cgroup events, walking the tree instead", zap.Error(err))
		inv.mu.Lock()
		inv.hasEvents = false
		inv.mu.Unlock()
	}
}

func (inv *Inventory) onEvent(e bpf.CgroupEvent) {
	id := cgroups.ID{Hierarchy: cgroups.Unified, Inode: e.ID}
	if e.Legacy {
		id.Hierarchy = cgroups.Legacy
	}
	inv.mu.Lock()
	defer inv.mu.Unlock()
	switch e.Kind {
	case bpf.CgroupMade:
		if e.Cut || !inv.eventPathsOK[id.Hierarchy] {
			inv.askForWalk()
			return
		}
		inv.addDir(cgroups.Dir{ID: id, Path: e.Path}, inv.now())
	case bpf.CgroupEmptied:
		// The last chance to read the totals: the runtime is about to remove it.
		if d := inv.dirs[id]; d != nil && d.life != nil && d.top && d.deadAt.IsZero() && d.life.container.isRead() {
			l := d.life
			inv.mu.Unlock()
			err := l.read(inv.now())
			inv.mu.Lock()
			inv.countRead(err)
		}
	case bpf.CgroupRemoved:
		inv.removeDir(id, inv.now())
	}
}

func (inv *Inventory) countRead(err error) {
	if err != nil {
		inv.status.ReadErrors++
	}
}

func (inv *Inventory) askForWalk() { wake(inv.rewalk) }

func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
