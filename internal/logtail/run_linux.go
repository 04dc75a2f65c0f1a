// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"container/list"
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	chunk         = 256 << 10
	chunksPerPoll = 16       // of one file, then others have their turn
	forgetLimit   = 64 << 20 // bytes that Forget reads of a source
	all           = 1 << 62  // bytes of a file
	idleAfter     = 50       // polls without news
	idleEvery     = 5
	maxBackoff    = 6 // doublings of Poll after failures
	// stirredFor is how long the directory is watched of a path at which there is nothing.
	stirredFor = time.Minute
)

// run is what only Run's goroutine uses.
type run struct {
	*Follower
	lane  *lane
	ctx   context.Context
	give  func(key string, lines []Line)
	buf   []byte
	probe [maxHead]byte
	split *splitter
	open  list.List // *openFile, the one that was read last first
	work  []*source
}

type openFile struct {
	s *source
	f *file
}

// change changes what others see.
func (r *run) change(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

func (r *run) stopped() bool { return r.ctx.Err() != nil }

func (r *run) count(do func(*Stats)) { r.change(func() { do(&r.stats) }) }

func (r *run) opened(s *source, f *file, fd int) {
	f.fd, f.read, f.grew = fd, false, time.Now()
	f.open = r.open.PushFront(&openFile{s, f})
	r.change(func() {
		r.held[f.id.inode()] = s
		r.stats.OpenFiles++
	})
}

func (r *run) close(f *file) {
	if f.fd < 0 {
		return
	}
	unix.Close(f.fd)
	f.fd = -1
	r.open.Remove(f.open)
	r.count(func(t *Stats) { t.OpenFiles-- })
}

// limit closes the files that were idle longest. Those at their path are found again, unless they were deleted.
func (r *run) limit() {
	for r.open.Len() > 1 && r.openFiles() > r.options.MaxOpen && !r.stopped() {
		last := r.open.Back().Value.(*openFile)
		if info, err := statAt(last.f.fd, "", 0); last.f == last.s.cur && (err != nil || info.links > 0) {
			r.close(last.f)
		} else {
			r.finish(last.s, last.f, all)
		}
	}
}

// openFiles is how many files are open in all lanes.
func (r *run) openFiles() (n int) {
	r.change(func() { n = int(r.stats.OpenFiles) }) //nolint:gosec // bounded by the limit of descriptors
	return n
}

func newRun(ctx context.Context, w *Follower, l *lane, give func(key string, lines []Line)) *run {
	size := max(chunk, 2*maxRecord(DockerJSON, w.options.MaxLine)) + maxTail
	r := &run{Follower: w, lane: l, ctx: ctx, give: give, buf: make([]byte, size), split: newSplitter(w.options.MaxLine, size)}
	r.open.Init()
	return r
}

func (r *run) closeAll() {
	for e := r.open.Front(); e != nil; e = r.open.Front() {
		r.close(e.Value.(*openFile).f)
	}
}

func (r *run) loop() {
	defer r.closeAll()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.lane.wake:
		case <-timer.C:
		}
		if !r.round() {
			timer.Reset(r.options.Poll)
		} else {
			timer.Reset(0)
		}
	}
}

// round looks at each source that is due, and says whether there is more to read at once.
func (r *run) round() (more bool) {
	now := time.Now()
	r.work = r.work[:0]
	r.change(func() {
		for _, s := range r.sources {
			if s.lane == r.lane && (s.leaving || !now.Before(s.due)) {
				s.place = place{s.Root, s.Path}
				r.work = append(r.work, s)
			}
		}
	})
	for _, s := range r.work {
		if r.stopped() {
			return false
		}
		var leaving bool
		r.change(func() { leaving = s.leaving })
		if leaving {
			r.leave(s)
			continue
		}
		again, news := r.poll(s)
		more = more || again
		wait := r.options.Poll
		switch {
		case again:
			wait = 0
		case s.fails > 0:
			wait <<= min(s.fails, maxBackoff)
		case news:
			s.idle = 0
		default:
			if s.idle++; s.idle > idleAfter {
				wait *= idleEvery
			}
		}
		// Half a tick early, or the timer's jitter would make it two ticks.
		s.due = time.Now().Add(wait - min(wait, r.options.Poll/2))
		r.limit()
	}
	return more
}

// poll reads what is new. more says that there is more to read, news that there was anything.
func (r *run) poll(s *source) (more, news bool) {
	fails := s.fails
	defer func() {
		if s.fails == fails {
			s.fails, s.logged = 0, ""
		}
	}()
	if slices.ContainsFunc(s.files, func(f *file) bool { return f.fd < 0 && f != s.cur }) {
		r.findRotated(s)
	}
	at := time.Now()
	info, err := s.place.stat()
	if err == nil && (s.cur == nil || !s.cur.id.same(info.id)) {
		if err = r.arrive(s); err == nil {
			info, news = s.cur.seen, true
		}
	}
	here := err == nil && s.cur != nil
	defer func() {
		if here {
			r.change(func() { s.seenAt = at.UnixNano() })
		}
	}()
	if err != nil && !isGone(err) && !errors.Is(err, errHeld) {
		r.failed(s, err)
	}
	if isGone(err) && !s.started && s.Start.since == 0 && s.place.hasRoot() {
		s.Start = BeginningSince(at) // whatever comes is new
	}
	if !isGone(err) {
		s.goneAt = time.Time{}
	} else if r.mayHaveMissed(s, at) {
		r.lookBehind(s)
	}
	s.here = here
	defer r.tellGone(s)
	for _, f := range slices.Clone(s.files) {
		known := (*fileInfo)(nil)
		if f == s.cur && here && !news {
			known = &info
		}
		again, grew, err := r.readFile(s, f, known, at)
		if err != nil {
			r.failed(s, err)
			if f != s.cur && time.Since(f.grew) >= r.options.Silence {
				r.abandon(s, f)
			}
			continue
		}
		news = news || grew
		if again || r.stopped() {
			return true, true // what is older is given first
		}
		r.endQuiet(s, f, here)
	}
	for len(s.files) > maxRotated+1 && !r.stopped() {
		r.finish(s, s.files[0], all)
	}
	return false, news || len(s.files) > 1
}

// mayHaveMissed tells of a path at which there is nothing whether files may have been there since the last look that are renamed by
// now: what was there in that look, or one that came and went since, which changes the directory. That is asked for a minute, and some
// nine times at most, as the directory may be large: who rotates a log makes another one, and then all are found that came and went.
func (r *run) mayHaveMissed(s *source, at time.Time) bool {
	if s.goneAt.IsZero() {
		s.goneAt, s.stirAt = at, at
	}
	missed := s.here
	r.change(func() {
		missed = missed || s.leaving || s.told
		s.told = false
	})
	if gone := at.Sub(s.goneAt); gone < stirredFor && !at.Before(s.stirAt) {
		modified := s.place.dirModified()
		if modified != s.stirred || at.UnixNano()-modified < tick {
			missed, s.stirAt = true, at.Add(gone)
		}
		s.stirred = modified
	}
	return missed && s.started
}

// tellGone tells of a source that nobody seems to need any more.
func (r *run) tellGone(s *source) {
	if s.goneAt.IsZero() || time.Since(s.goneAt) < r.options.GoneAfter || r.options.Gone == nil ||
		slices.ContainsFunc(s.files, func(f *file) bool { return f.fd >= 0 }) {
		return
	}
	s.goneAt = time.Now()
	var key string
	r.change(func() { key = s.Key })
	r.options.Gone(key)
}

// lookBehind is called when there is nothing at the path any more. What was there last may not have been seen.
func (r *run) lookBehind(s *source) {
	found := r.lookAround(s, s.cur, fileID{})
	r.change(func() {
		r.changes++
		s.files = append(s.files, found...)
	})
}

// findRotated looks for files of a checkpoint that were renamed already when it was made.
func (r *run) findRotated(s *source) {
	var current fileID
	if s.cur != nil {
		current = s.cur.id
	}
	found := slices.DeleteFunc(r.lookAround(s, nil, current), func(f *file) bool {
		if !f.goesOn { // it is looked for again once the path has changed
			r.close(f)
		}
		return !f.goesOn
	})
	r.change(func() { s.files = append(found, s.files...) })
	for _, f := range slices.Clone(s.files) {
		if f.fd < 0 && f != s.cur {
			r.drop(s, f)
		}
	}
}

// endQuiet closes a file that is not at the path any more and was not written to for long enough.
func (r *run) endQuiet(s *source, f *file, here bool) {
	if f.fd < 0 || !f.read {
		return
	}
	quiet, least := time.Since(f.grew), r.options.Silence
	if f == s.cur {
		if f.seen.links > 0 || s.goneAt.IsZero() {
			return
		}
		quiet, least = min(quiet, time.Since(s.goneAt)), min(deletedFor, r.options.GoneAfter)
	} else if !here {
		return
	}
	if quiet >= least {
		r.finish(s, f, all)
	}
}

// abandon gives up a rotated file that cannot be read.
func (r *run) abandon(s *source, f *file) {
	if f.seen.size > f.Offset {
		r.count(func(t *Stats) { t.Lost.Abandoned += f.seen.size - f.Offset })
	}
	r.drop(s, f)
	r.change(func() { s.remember(f.id) })
}

// isGone says that there is nothing at the path, which is no failure.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ESRCH)
}

func (r *run) failed(s *source, err error) {
	s.fails++
	r.count(func(t *Stats) { t.Errors++ })
	if text := err.Error(); text != s.logged {
		s.logged = text
		r.options.Logger.Warn("log file cannot be read; trying again", zap.String("path", s.place.path), zap.String("root", s.place.root), zap.Error(err))
	}
}

// leave reads a source that was forgotten to its end.
func (r *run) leave(s *source) {
	var before uint64
	r.change(func() { before = r.stats.Bytes })
	for {
		more, _ := r.poll(s)
		if !more || r.stopped() {
			break
		}
		var now uint64
		r.change(func() { now = r.stats.Bytes })
		if now-before > forgetLimit {
			break
		}
	}
	if r.stopped() {
		return
	}
	if s.cur != nil && s.cur.fd < 0 { // it may have a line without an end
		if ok, err := r.openAgain(s, s.cur); !ok && err == nil {
			r.findRotated(s)
		}
	}
	var left uint64
	for given := map[*file]bool{}; ; { // there may come copies
		i := slices.IndexFunc(s.files, func(f *file) bool { return f.fd >= 0 && !given[f] })
		if i < 0 {
			break
		}
		f := s.files[i]
		given[f] = true
		left += r.giveRest(s, f, chunk*chunksPerPoll)
	}
	if r.stopped() {
		return
	}
	r.flush(s)
	r.letGo(s, left)
}

// letGo forgets a source, of which as many bytes are left unread, unless it was followed again meanwhile: then it goes on.
func (r *run) letGo(s *source, left uint64) {
	var gone bool
	var key string
	r.change(func() {
		if gone, key = s.leaving, s.Key; !gone {
			return
		}
		r.changes++
		delete(r.sources, key)
		r.stats.Lost.Abandoned += left
		for _, f := range s.files {
			if r.held[f.id.inode()] == s {
				delete(r.held, f.id.inode())
			}
			r.leftAt(f)
		}
	})
	if !gone {
		return
	}
	for _, f := range s.files {
		r.close(f)
	}
	if r.options.Forgotten != nil {
		r.options.Forgotten(key)
	}
}
