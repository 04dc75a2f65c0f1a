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

// walk brings the tree up to date with what exists. It takes the place of events that were lost or cannot be had.
func (inv *Inventory) walk(ctx context.Context) error {
	inv.mu.Lock()
	began := inv.seq
	inv.mu.Unlock()

	var found []cgroups.Dir
	if err := inv.fs.Walk(ctx, func(d cgroups.Dir) { found = append(found, d) }); err != nil {
		return err
	}

	inv.mu.Lock()
	defer inv.mu.Unlock()
	now := inv.now()
	exists := make(map[cgroups.ID]bool, len(found))
	for _, d := range found {
		exists[d.ID] = true
		if d.Path == "/" {
			inv.eventPathsOK[d.ID.Hierarchy] = d.ID.Inode == rootInode
		}
		inv.addDir(d, now)
	}
	for id, d := range inv.dirs {
		// What was added while we walked may have been made behind us.
		if d.seq <= began && d.deadAt.IsZero() && !exists[id] {
			inv.removeDir(id, now)
		}
	}
	return nil
}

// addDir takes in a directory. mu is held.
func (inv *Inventory) addDir(found cgroups.Dir, now time.Time) {
	if _, ok := inv.dirs[found.ID]; ok {
		return
	}
	inv.seq++
	d := &dir{seq: inv.seq}
	inv.dirs[found.ID] = d
	ref := cgroups.ParsePath(found.Path)
	if ref.Kind == cgroups.None {
		return
	}
	name := ref.Name()
	if !inv.wanted(name, ref) {
		return
	}
	d.top = ref.Path == found.Path
	d.life = inv.lifeOf(name, ref, d, found.ID.Hierarchy, now)
}

// lifeOf finds the life that a directory belongs to, or begins one. mu is held.
func (inv *Inventory) lifeOf(name string, ref cgroups.Ref, d *dir, h cgroups.Hierarchy, now time.Time) *life {
	c := inv.containers[name]
	if c == nil {
		c = &container{name: name, ref: ref, start: now}
		inv.containers[name] = c
		inv.beginLife(c, now)
	}
	l := c.current
	switch {
	case !d.top:
		return l
	case l.top[h] != nil:
		// Its directory in this hierarchy was removed, or replaced unseen.
		c.ref = ref
		l = inv.beginLife(c, now)
	}
	l.top[h] = d
	c.goneAt = time.Time{}
	return l
}

// beginLife makes the totals so far the past of a new life. mu is held.
func (inv *Inventory) beginLife(c *container, now time.Time) *life {
	if old := c.current; old != nil {
		last := old.lastStats()
		addPast(&last, &c.past)
		c.past = last
		old.close()
	}
	c.current = &life{container: c, born: now, young: inv.watching, cgroup: inv.fs.Cgroup(c.ref.Path)}
	return c.current
}

// removeDir marks a directory as gone; janitor drops it when its edges have been taken in. mu is held.
func (inv *Inventory) removeDir(id cgroups.ID, now time.Time) {
	d := inv.dirs[id]
	if d == nil || !d.deadAt.IsZero() {
		return
	}
	inv.seq++
	d.deadAt = now
	if d.life == nil || !d.top || !d.life.over() {
		return
	}
	if c := d.life.container; c.current == d.life {
		c.goneAt = now
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
		if d := inv.dirs[id]; d != nil && d.life != nil && d.top && d.deadAt.IsZero() {
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

func (inv *Inventory) askForWalk() {
	select {
	case inv.rewalk <- struct{}{}:
	default:
	}
}
