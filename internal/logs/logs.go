// SPDX-License-Identifier: Apache-2.0

// Package logs counts what is written to logs, by pattern.
//
// It follows files and the journal, puts the lines of a message together, and has the patterns found that the messages of
// one owner have. Whose a log is, and where it is, it is told: an Owner is a container or a service to others, and no more
// than a name here.
//
// With a Store it goes on after a restart where it was: places in the logs and counts are saved together, so that each
// message is in the counts once, even when the process was killed.
package logs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logtail"
)

// Options of Logs. Zero fields have usable values.
type Options struct {
	Root        string   // where the host's root file system is seen; "" means /
	Journal     bool     // read the journal of systemd
	JournalDirs []string // on the host; none means where systemd has them

	MaxPatterns, MaxPatternsPerLevel int                                                 // of an owner, see logpatterns.Options
	CountOnly                        [logpatterns.NumLevels]bool                         // levels that are counted without looking for patterns
	MaxMessagesPerSecond             float64                                             // of an owner, more are dropped and counted; 0 means no limit
	Idle                             time.Duration                                       // a series that has not changed for so long ends; 0 is a day
	Keep                             time.Duration                                       // how long the end of a series is told
	Tell                             func(ctx context.Context, o *Owner, what []Message) // gets what Forward and NewPatterns ask for; may wait, then more are dropped and counted
	NewPatterns                      bool                                                // tell the first message of each pattern
	Forward                          Forward

	// Gone, if not nil, is called when there has been no file for GoneAfter, 0 is an hour, at a path that o follows. Leave lets go
	// of it.
	Gone      func(o *Owner, path string)
	GoneAfter time.Duration

	Store           Store         // nil keeps nothing
	CheckpointEvery time.Duration // 0 is 5 s
	Now             func() time.Time
	Logger          *zap.Logger
}

// Forward is which messages are told, beside the first ones of patterns.
type Forward uint8

// The kinds of Forward.
const (
	ForwardNone   Forward = iota
	ForwardErrors         // those of level error and critical
	ForwardAll
)

// Store keeps what a later process goes on with.
type Store interface {
	// Get returns nil for a key that is not there.
	Get(ctx context.Context, key string) ([]byte, error)
	// Write takes in all values, or none. One that is nil is deleted.
	Write(ctx context.Context, values map[string][]byte) error
}

const (
	defaultIdle       = 24 * time.Hour
	defaultCheckpoint = 5 * time.Second
	// silence is how long nothing has come when a message is taken to be at its end.
	silence = time.Second
	// flushEvery is how often that is looked at.
	flushEvery = 250 * time.Millisecond
	// closeWithin is how long Close waits for disks that do not answer.
	closeWithin = 3 * time.Second
)

// Logs follows the logs of all owners. Its methods are safe for concurrent use.
type Logs struct {
	opts   Options
	log    *zap.Logger
	now    func() time.Time
	tail   *logtail.Follower
	cancel context.CancelFunc
	tails  sync.WaitGroup // the goroutine in tail.Run
	others sync.WaitGroup

	tellers sync.WaitGroup // the goroutine in tellAll
	giveUp  context.CancelFunc

	journal     journalReader
	readJournal sync.Once

	mu      sync.RWMutex // guards what follows; taken before the mu of an Owner
	owners  map[string]*Owner
	streams map[string]*stream // by key of logtail
	stale   map[string]bool    // keys of owners that are no more, of whom the Store may have something
	over    bool               // nothing more is followed

	savedAt time.Time // does not change

	tells    chan telling
	stalled  atomic.Bool   // nobody takes from it
	told     chan struct{} // closed when nothing comes any more that is to be told
	closed   sync.Once     // guards closeErr
	closeErr error

	saving   sync.Mutex // one checkpoint at a time; guards what follows
	known    map[string]int64
	saveFail string
	saved    savedState

	counters counters
}

type counters struct {
	messages, bytes, rateLimited, suppressed, untold atomic.Uint64
	checkpoints, checkpointErrors, uncleanStarts     atomic.Uint64
	journalUnknown                                   atomic.Uint64
}

// Open begins to follow what owners ask for. It fails only when the Store does.
func Open(ctx context.Context, opts Options) (*Logs, error) {
	if opts.Idle <= 0 {
		opts.Idle = defaultIdle
	}
	if opts.CheckpointEvery <= 0 {
		opts.CheckpointEvery = defaultCheckpoint
	}
	if opts.Logger == nil {
		opts.Logger = zap.NewNop()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	l := &Logs{
		opts:    opts,
		log:     opts.Logger,
		now:     opts.Now,
		owners:  map[string]*Owner{},
		streams: map[string]*stream{},
		known:   map[string]int64{},
		stale:   map[string]bool{},
		tells:   make(chan telling, maxTells),
		told:    make(chan struct{}),
	}
	l.tail = logtail.New(logtail.Options{Logger: opts.Logger, Forgotten: l.forgotten, Gone: l.gone, GoneAfter: opts.GoneAfter, Pace: l.pace})
	l.journal.init()
	if err := l.restore(ctx); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.tails.Go(func() { l.tail.Run(run, l.take) })
	l.others.Go(func() { l.flushSilent(run) })
	if opts.Tell != nil {
		tell, giveUp := context.WithCancel(context.Background())
		l.giveUp = giveUp
		l.tellers.Go(func() { l.tellAll(tell) })
	}
	if opts.Store != nil {
		l.others.Go(func() { l.saveAlways(run) })
	}
	if opts.Journal {
		l.others.Go(func() { l.runJournal(run) })
	}
	return l, nil
}

// ReadJournal begins with the journal, when the owners that are there have said which of its entries are theirs.
func (l *Logs) ReadJournal() { l.readJournal.Do(func() { close(l.journal.ready) }) }

// Close ends all reading, has told what is to be told, and saves what there is. A disk that does not answer is not waited for.
// Owners may still be asked for their Counts. A second call does nothing.
func (l *Logs) Close() error {
	l.closed.Do(func() { l.closeErr = l.close() })
	return l.closeErr
}

func (l *Logs) close() error {
	l.cancel()
	var late error
	if !waitFor(&l.tails) {
		late = errors.New("a disk with log files does not answer")
	}
	if !waitFor(&l.others) {
		late = errors.Join(late, errors.New("the journal's disk or the storage does not answer"))
	}
	l.mu.Lock()
	l.over = true
	all := l.all()
	l.mu.Unlock()
	for _, o := range all {
		o.flush(time.Time{})
	}
	l.endTelling()
	if l.opts.Store == nil {
		return late
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	if err := l.save(ctx, true); err != nil {
		return errors.Join(late, fmt.Errorf("save the places in log files: %w", err))
	}
	return late
}

// waitFor waits for what ends within closeWithin, and tells whether it has.
func waitFor(all *sync.WaitGroup) bool {
	ended := make(chan struct{})
	go func() {
		all.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return true
	case <-time.After(closeWithin):
		return false
	}
}

// endTelling waits for who is told, for a while.
func (l *Logs) endTelling() {
	if l.opts.Tell == nil {
		return
	}
	close(l.told)
	waitFor(&l.tellers)
	l.giveUp()
	l.tellers.Wait()
}

// telling is what is to be told of an owner.
type telling struct {
	owner *Owner
	what  []Message
}

const (
	// maxTells wait to be told; each has what was read at once.
	maxTells = 64
	// paceWithin is how long reading waits for those who are told, paceEvery how often it looks.
	paceWithin = 2 * time.Second
	paceEvery  = 5 * time.Millisecond
)

// pace waits while those who are told have a lot before them, so that a burst is not lost to them. If they have taken nothing for
// paceWithin it does not wait for them until they have again: logs are counted whatever becomes of their messages.
func (l *Logs) pace(ctx context.Context) {
	if l.opts.Forward == ForwardNone || len(l.tells) < maxTells/2 || l.stalled.Load() {
		return
	}
	t := time.NewTicker(paceEvery)
	defer t.Stop()
	last, since := len(l.tells), time.Now()
	for len(l.tells) >= maxTells/2 {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if n := len(l.tells); n < last {
			last, since = n, time.Now()
		}
		if time.Since(since) > paceWithin {
			l.stalled.Store(true)
			return
		}
	}
}

// tellAll runs until told is closed and nothing waits, or ctx ends.
func (l *Logs) tellAll(ctx context.Context) {
	for {
		select {
		case t := <-l.tells:
			l.tell(ctx, t)
			continue
		case <-l.told:
		}
		for {
			select {
			case t := <-l.tells:
				l.tell(ctx, t)
			default:
				return
			}
		}
	}
}

func (l *Logs) tell(ctx context.Context, t telling) {
	if ctx.Err() != nil {
		l.counters.untold.Add(uint64(len(t.what)))
		return
	}
	l.opts.Tell(ctx, t.owner.root(), t.what)
	l.stalled.Store(false)
}

// SavedAt is when an earlier process has saved its places, zero if there is none.
func (l *Logs) SavedAt() time.Time { return l.savedAt }

// all lists the owners. mu is held.
func (l *Logs) all() []*Owner {
	list := make([]*Owner, 0, len(l.owners))
	for _, o := range l.owners {
		list = append(list, o)
	}
	return list
}

// take is given the lines of a file. It is called by several goroutines.
func (l *Logs) take(key string, lines []logtail.Line) {
	l.mu.RLock()
	s := l.streams[key]
	l.mu.RUnlock()
	if s == nil {
		return // its owner was closed
	}
	o := s.owner.lock()
	defer o.unlock()
	if !s.named { // not before: there are only so many, and some files are another's
		s.source, s.named = o.sourceOf(s.name), true
	}
	now := l.now()
	for i := range lines {
		line := &lines[i]
		j := &s.joins[line.Stream%streams]
		if !s.since.IsZero() {
			if !line.Time.IsZero() && line.Time.Before(s.since) {
				continue
			}
			s.since = time.Time{}
		}
		j.stream = line.Stream
		o.line(j, s.source, line.Text, told{}, line.Time, now)
	}
}

// forgotten is called after the last line of a file that nobody wants any more.
func (l *Logs) forgotten(key string) {
	l.mu.Lock()
	s := l.streams[key]
	if s == nil || !s.leaving {
		l.mu.Unlock()
		return
	}
	delete(l.streams, key)
	o := s.owner.lock()
	l.mu.Unlock()
	defer o.unlock()
	s.end(o)
	if o.streams[key] == s {
		delete(o.streams, key)
	}
}

// gone is called when there is nothing more to be read of a file.
func (l *Logs) gone(key string) {
	if l.opts.Gone == nil {
		return
	}
	l.mu.Lock()
	s := l.streams[key]
	if s != nil {
		s.gone = true
	}
	l.mu.Unlock()
	if s != nil {
		l.opts.Gone(s.owner.root(), s.path)
	}
}

// flushSilent ends the messages to which nothing was added for a while.
func (l *Logs) flushSilent(ctx context.Context) {
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		l.mu.RLock()
		all := l.all()
		l.mu.RUnlock()
		before := l.now().Add(-silence)
		for _, o := range all {
			o.flush(before)
		}
	}
}
