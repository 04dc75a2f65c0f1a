// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"context"
	"sync"
	"time"
)

// Follower follows files. Its methods may be called at any time and from any goroutine, also from the functions that it calls.
type Follower struct {
	options Options

	// gate is held for reading from when lines are given until their place is noted. It is taken before mu.
	gate sync.RWMutex

	mu       sync.Mutex // guards what follows, and what is marked so in source and file
	sources  map[string]*source
	saved    map[string]savedSource // of a checkpoint, until somebody follows them
	known    map[inode]leftFile     // the files of those
	restored time.Time              // when there were some
	held     map[inode]*source      // who reads a file
	left     map[inode]leftFile     // that others wanted
	lanes    map[uint64]*lane       // by Source.Disk, or by a part of it
	running  *running               // nil outside of Run
	stats    Stats
	changes  uint64 // of what a Checkpoint has
}

// inode tells files apart that there are at one time.
type inode struct{ dev, ino uint64 }

// lane is the files that one goroutine reads.
type lane struct {
	wake    chan struct{} // has one element when there is news
	started bool          // in this Run; under mu
}

// running is what Run was called with.
type running struct {
	ctx  context.Context
	give func(key string, lines []Line)
	all  sync.WaitGroup
}

// maxLanes bounds the goroutines, and with that memory.
const maxLanes = 16

// New returns a Follower of nothing. It holds nothing that must be closed: files are open only in Run.
func New(o Options) *Follower {
	o.setDefaults()
	return &Follower{
		options: o,
		sources: map[string]*source{},
		saved:   map[string]savedSource{},
		known:   map[inode]leftFile{},
		held:    map[inode]*source{},
		left:    map[inode]leftFile{},
		lanes:   map[uint64]*lane{},
	}
}

// laneOf finds the lane of a disk, or begins one. mu is held.
func (w *Follower) laneOf(disk uint64) *lane {
	if w.lanes[disk] == nil && disk != 0 && len(w.lanes) >= maxLanes-1 {
		disk = 1 // of all that there was no room for
	}
	l := w.lanes[disk]
	if l == nil {
		l = &lane{wake: make(chan struct{}, 1)}
		w.lanes[disk] = l
	}
	if r := w.running; r != nil && !l.started {
		l.started = true
		r.all.Go(newRun(r.ctx, w, l, r.give).loop)
	}
	return l
}

// Follow begins to follow a source, from where the checkpoint says if that knows its key. If the key is followed already, it returns
// false, and Path and Root are changed and nothing else: the same file may have to be reached by another way.
func (w *Follower) Follow(src Source) (isNew bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sources[src.Key]
	isNew = s == nil
	if !isNew {
		s.Path, s.Root, s.leaving, s.told = src.Path, src.Root, false, true
	} else {
		s = &source{Source: src, lane: w.laneOf(src.Disk)}
		if saved, ok := w.saved[src.Key]; ok {
			s.restore(saved)
			delete(w.saved, src.Key)
		}
		w.sources[src.Key] = s
	}
	s.lane.rouse()
	return isNew
}

// Forget reads a source to its end, gives a last line that has none, and follows it no more. Of a source that has more than
// 64 MiB to read, the rest is left. The checkpoint forgets it too.
func (w *Follower) Forget(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.sources[key]; s != nil {
		s.leaving = true
		s.lane.rouse()
	}
	delete(w.saved, key)
}

// Changes tells whether a Checkpoint would have anything new that matters: the number differs from that of before.
func (w *Follower) Changes() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changes
}

// Rename changes the key of a source. If the other key is followed too, which no file was found for, the two change keys. It
// returns false where it does nothing. It must be called in Hold.
func (w *Follower) Rename(from, to string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, other := w.sources[from], w.sources[to]
	if s == nil || other != nil && other.started {
		return false
	}
	delete(w.sources, from)
	if other != nil {
		other.Key = from
		w.sources[from] = other
	}
	s.Key = to
	w.sources[to] = s
	w.changes++
	delete(w.saved, to)
	return true
}

// Hold calls do while no lines are on their way: a Checkpoint that is made in it is of the lines that were given, and no
// others. Reading goes on after it. do must not wait for lines.
func (w *Follower) Hold(do func()) {
	w.gate.Lock()
	defer w.gate.Unlock()
	do()
}

func (l *lane) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Stats returns what was counted so far.
func (w *Follower) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.stats
	t.Sources = uint64(len(w.sources))
	return t
}

// Run reads until ctx ends, and calls give with lines of one source, in the order of the file; with those of sources of
// different disks at the same time. When give has returned the lines count as delivered and the next Checkpoint is behind
// them. Run returns when all disks have answered. It may be called again after that, but not twice at a time.
func (w *Follower) Run(ctx context.Context, give func(key string, lines []Line)) {
	r := &running{ctx: ctx, give: give}
	w.mu.Lock()
	w.running = r
	for disk, l := range w.lanes {
		l.started = false
		w.laneOf(disk)
	}
	w.mu.Unlock()
	<-ctx.Done()
	w.mu.Lock()
	w.running = nil
	w.mu.Unlock()
	r.all.Wait()
}
