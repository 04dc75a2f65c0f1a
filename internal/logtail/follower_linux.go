// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"context"
	"sync"
)

// Follower follows files. Its methods may be called at any time and from any goroutine, also from the functions that it calls.
type Follower struct {
	options Options
	wake    chan struct{} // has one element when there is news for Run

	mu      sync.Mutex // guards what follows, and what is marked so in source and file
	sources map[string]*source
	saved   map[string]savedSource // of a checkpoint, until somebody follows them
	stats   Stats
}

// New returns a Follower of nothing. It holds nothing that must be closed: files are open only in Run.
func New(o Options) *Follower {
	o.setDefaults()
	return &Follower{
		options: o,
		wake:    make(chan struct{}, 1),
		sources: map[string]*source{},
		saved:   map[string]savedSource{},
	}
}

// Follow begins to follow a source, from where the checkpoint says if that knows its key. If the key is followed already,
// Path and Root are changed and nothing else: the same file may have to be reached by another way.
func (w *Follower) Follow(src Source) {
	w.mu.Lock()
	if s := w.sources[src.Key]; s != nil {
		s.Path, s.Root, s.leaving = src.Path, src.Root, false
	} else {
		s = &source{Source: src}
		if saved, ok := w.saved[src.Key]; ok {
			s.restore(saved)
			delete(w.saved, src.Key)
		}
		w.sources[src.Key] = s
	}
	w.mu.Unlock()
	w.rouse()
}

// Forget reads a source to its end, gives a last line that has none, and follows it no more. Of a source that has more than
// 64 MiB to read, the rest is left. The checkpoint forgets it too.
func (w *Follower) Forget(key string) {
	w.mu.Lock()
	if s := w.sources[key]; s != nil {
		s.leaving = true
	}
	delete(w.saved, key)
	w.mu.Unlock()
	w.rouse()
}

func (w *Follower) rouse() {
	select {
	case w.wake <- struct{}{}:
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

// Run reads until ctx ends, and calls give with lines of one source, in the order of the file. While give has not returned
// nothing is read; when it has, the lines count as delivered and the next Checkpoint is behind them. Run may be called again
// after it has returned, but not twice at a time.
func (w *Follower) Run(ctx context.Context, give func(key string, lines []Line)) {
	newRun(ctx, w, give).loop()
}
