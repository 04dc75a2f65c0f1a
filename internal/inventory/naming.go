// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/runtimes"
)

// directory asks the runtimes of the host; tests have another.
type directory interface {
	Ask(cgroups.Ref) // does not wait
	Forget(cgroups.Ref)
	Status() []runtimes.RuntimeStatus
	Close()
}

// namesWithin is how long a container is not given because the runtimes have not answered yet: its series would begin
// under one name and go on under another. An answer, whatever it is, takes no longer than that.
const namesWithin = runtimes.Deadline + time.Second

// awaitNamesFor is how long the start waits for names.
const awaitNamesFor = 500 * time.Millisecond

// naming is how far it is known what a container is called. Guarded by Inventory.mu.
type naming struct {
	key     string        // in Inventory.containers
	refs    []cgroups.Ref // that the directory was asked for
	pending bool          // no answer yet
	askedAt time.Time
	hidden  bool   // it is not known whether it is wanted: a runtime may yet tell a name that is
	wish    string // a name that another container has, which lives

	info  *Info // nil until a runtime has told; not to be changed
	given bool  // in a snapshot, under the present name

	former []formerName
	labels []endedLabels
}

// formerName is under what a container was given a short while ago.
type formerName struct {
	name string
	info *Info
	at   time.Time
}

// endedLabels are those of container.info that a container had a short while ago under the same name.
type endedLabels struct {
	labels InfoLabels
	at     time.Time
}

// isShown tells whether a container is given at now. mu is held.
func (c *container) isShown(now time.Time) bool {
	return !c.hidden && (!c.pending || now.Sub(c.askedAt) > namesWithin)
}

// isRead tells whether the files of a container are worth reading: those of one that nobody may ever want would take up time
// and descriptors. mu is held.
func (c *container) isRead() bool { return !c.dropped && (!c.hidden || c.pending) }

// ask has the runtimes asked for the names of c, where any may know it. mu is held.
func (inv *Inventory) ask(c *container, now time.Time) {
	if inv.directory == nil {
		return
	}
	if slices.Contains(c.refs, c.ref) { // it may have got another name since
		inv.directory.Forget(c.ref)
	} else {
		c.refs = append(c.refs, c.ref)
		inv.asked[c.ref] = c
	}
	if c.info == nil {
		c.pending, c.askedAt = true, now
	}
	inv.directory.Ask(c.ref)
}

// forget ends what ask has begun. mu is held.
func (inv *Inventory) forget(c *container) {
	for _, ref := range c.refs {
		delete(inv.asked, ref)
		inv.directory.Forget(ref)
	}
	c.refs = nil
}

// lockAll takes all locks, in their order, and returns what gives them back.
func (inv *Inventory) lockAll() (unlock func()) {
	inv.edgesMu.Lock()
	inv.tasksMu.Lock()
	inv.mu.Lock()
	return func() {
		inv.mu.Unlock()
		inv.tasksMu.Unlock()
		inv.edgesMu.Unlock()
	}
}

// onAnswer takes in what the runtimes have told of a container, or that they cannot.
func (inv *Inventory) onAnswer(ref cgroups.Ref, told runtimes.Info, err error) {
	defer inv.lockAll()()
	c := inv.asked[ref]
	if c == nil {
		return
	}
	c.pending = false
	wake(inv.logNews)
	if err != nil {
		return // as its cgroup says, until there is more
	}
	now := inv.now()
	if isIgnored(ref, &told) {
		inv.disown(c)
		return
	}
	name := pathForm(ref, &told, now)
	if inv.isExcluded(name, ref, told.Unit) || !inv.isIncluded(name) && !inv.isIncluded(ref.Name()) {
		inv.disown(c)
		return
	}
	if c.dropped {
		inv.adoptAgain(c)
		return
	}
	c.hidden = false
	inv.rename(c, name, newInfo(ref, &told, now), now)
}

// disown makes c nobody's: it is a pod's sandbox, or called such that it is not wanted. The runtimes go on to be asked, as
// its name may change. mu is held.
func (inv *Inventory) disown(c *container) {
	if c.dropped {
		return
	}
	c.dropped = true
	if inv.containers[c.key] == c {
		delete(inv.containers, c.key)
	}
	inv.over = append(inv.over, c.current)
	inv.endLogs(c)
}

// adoptAgain has the walk find anew a container that is wanted now. mu is held.
func (inv *Inventory) adoptAgain(c *container) {
	inv.forget(c)
	for id, d := range inv.dirs {
		if d.life != nil && d.life.container == c {
			delete(inv.dirs, id)
		}
	}
	for p, other := range inv.places {
		if other == c {
			delete(inv.places, p)
		}
	}
	inv.askForWalk()
}

// rename gives c a name and what belongs to it. Where names are all that tells containers apart, one that is gone and had
// the name goes on in c, and so does c in a later one that has it. edgesMu, tasksMu and mu are held.
func (inv *Inventory) rename(c *container, name string, info *Info, now time.Time) {
	if inv.opts.NameIsIdentity && name != c.key {
		other := inv.containers[name]
		switch {
		case other == nil:
		case !c.goneAt.IsZero() && (other.goneAt.IsZero() || c.goneAt.Before(other.goneAt)):
			inv.absorbGone(other, c, now)
			return
		case other.goneAt.IsZero(): // c must wait
			c.wish = name
			inv.takeInfo(c, c.name, info, now)
			return
		default:
			inv.absorb(other, c, now)
			c = other
		}
		if inv.containers[c.key] == c {
			delete(inv.containers, c.key)
		}
		c.key = name
		inv.containers[name] = c
	}
	c.wish = ""
	inv.takeInfo(c, name, info, now)
}

// takeInfo notes what series of c must end. mu is held.
func (inv *Inventory) takeInfo(c *container, name string, info *Info, now time.Time) {
	same := c.name == name
	if !inv.opts.NameIsIdentity && c.ref.Kind != cgroups.Systemd {
		same = same && sameResource(c.info, info)
	}
	switch {
	case !c.given:
	case !same:
		c.addFormer(formerName{c.name, c.info, now})
		c.given = false
	case c.info.labels() != info.labels():
		c.labels = append(c.labels, endedLabels{c.info.labels(), now})
	}
	c.name, c.info = name, info
}

// addFormer remembers each identity once.
func (c *container) addFormer(f formerName) {
	c.former = slices.DeleteFunc(c.former, func(o formerName) bool { return o.name == f.name && sameResource(o.info, f.info) })
	c.former = append(c.former, f)
}

// formerSince gives those that c was given as since then and is no more. mu is held.
func (c *container) formerSince(since time.Time) []formerName {
	c.former = slices.DeleteFunc(c.former, func(f formerName) bool {
		return f.at.Before(since) || f.name == c.name && sameResource(f.info, c.info)
	})
	return c.former
}

// labelsEndedSince likewise.
func (c *container) labelsEndedSince(since time.Time) []InfoLabels {
	c.labels = slices.DeleteFunc(c.labels, func(e endedLabels) bool {
		return e.at.Before(since) || e.labels == c.info.labels()
	})
	var list []InfoLabels
	for _, e := range c.labels {
		if !slices.Contains(list, e.labels) {
			list = append(list, e.labels)
		}
	}
	return list
}

// grantWishes names the containers whose names have become free. It must not be called with a lock held.
func (inv *Inventory) grantWishes() {
	inv.mu.Lock()
	var any bool
	for _, c := range inv.containers {
		any = any || c.wish != ""
	}
	inv.mu.Unlock()
	if !any {
		return
	}
	defer inv.lockAll()()
	var wishes []*container
	for _, c := range inv.containers {
		if c.wish != "" {
			wishes = append(wishes, c)
		}
	}
	slices.SortFunc(wishes, func(a, b *container) int { return strings.Compare(a.key, b.key) })
	for _, c := range wishes {
		inv.rename(c, c.wish, c.info, inv.now())
	}
}

// awaitNames gives runtimes that are well the time to answer before the first snapshot.
func (inv *Inventory) awaitNames(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, awaitNamesFor)
	defer cancel()
	t := time.NewTicker(awaitNamesFor / 50)
	defer t.Stop()
	for inv.isAnyPending() {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (inv *Inventory) isAnyPending() bool {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for _, c := range inv.containers {
		if c.pending {
			return true
		}
	}
	return false
}

// runtimeStatus sums up the sockets of each kind.
func (inv *Inventory) runtimeStatus() []RuntimeStatus {
	if inv.directory == nil {
		return nil
	}
	var list []RuntimeStatus
	for _, s := range inv.directory.Status() {
		i := slices.IndexFunc(list, func(r RuntimeStatus) bool { return r.Name == s.Runtime })
		if i < 0 {
			i = len(list)
			list = append(list, RuntimeStatus{Name: s.Runtime})
		}
		list[i].Connected = list[i].Connected || s.Connected
		list[i].Errors += s.Errors
	}
	slices.SortFunc(list, func(a, b RuntimeStatus) int { return strings.Compare(a.Name, b.Name) })
	return list
}
