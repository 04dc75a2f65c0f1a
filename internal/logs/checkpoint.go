// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
)

const (
	placesKey     = "logs/places"
	ownerPrefix   = "logs/owner/"
	placesVersion = 1
	// ownersKept is how long the counts are kept of an owner that nobody asks for.
	ownersKept = 24 * time.Hour
	// saveWithin is how long a Store has for one checkpoint.
	saveWithin = 10 * time.Second
)

// savedPlaces is up to where all logs were read.
type savedPlaces struct {
	Version       int               `json:"version"`
	At            time.Time         `json:"at"`
	Clean         bool              `json:"clean"` // nothing was read after it was saved
	UncleanStarts uint64            `json:"unclean_starts,omitempty"`
	Files         []byte            `json:"files,omitempty"` // of logtail
	Journal       string            `json:"journal,omitempty"`
	Waiting       []entry           `json:"waiting,omitempty"`  // entries of the journal that nobody had asked for
	Partials      map[string][]byte `json:"partials,omitempty"` // beginnings of messages in the journal
	Owners        map[string]int64  `json:"owners,omitempty"`   // of whom something is saved, and when they were last here, s since 1970
}

// savedState tells whether a checkpoint has anything that the one before has not.
type savedState struct {
	at      time.Time
	files   uint64
	journal string
}

// idleFor is how old a checkpoint may become while nothing happens: the age of what is in it counts.
const idleFor = time.Hour

func (s savedState) same(now savedState) bool {
	return !s.at.IsZero() && now.at.Sub(s.at) < idleFor && s.files == now.files && s.journal == now.journal
}

type savedOwner struct {
	Version int           `json:"version"`
	Start   time.Time     `json:"start"`
	Sources []savedSource `json:"sources,omitempty"`
	Miner   []byte        `json:"miner,omitempty"`
	Lines   []savedLines  `json:"lines,omitempty"`  // of messages that may go on
	Series  []savedSeries `json:"series,omitempty"` // that have been idle
}

type savedSeries struct {
	Source  uint8             `json:"source"`
	Level   logpatterns.Level `json:"level"`
	Pattern uint64            `json:"pattern,omitempty"`
	N       uint64            `json:"n"`
	Before  uint64            `json:"before,omitempty"`
	Start   time.Time         `json:"start"`
	Changed time.Time         `json:"changed"`
	Ended   time.Time         `json:"ended"`
}

type savedSource struct {
	Name    string    `json:"name"`
	Start   time.Time `json:"start"`
	Bytes   uint64    `json:"bytes"`
	Dropped []uint64  `json:"dropped,omitempty"`
	Plain   []uint64  `json:"plain,omitempty"`
}

type savedLines struct {
	Source  uint8             `json:"source"`
	At      time.Time         `json:"at"`
	Text    []byte            `json:"text"`
	Level   logpatterns.Level `json:"level,omitempty"`
	Certain bool              `json:"certain,omitempty"`
}

// restore takes in where an earlier process was, and says in the Store that another one goes on from there.
func (l *Logs) restore(ctx context.Context) error {
	if l.opts.Store == nil {
		return nil
	}
	p, err := l.restorePlaces(ctx)
	if err != nil {
		return err
	}
	p.Clean, p.UncleanStarts = false, l.counters.uncleanStarts.Load()
	b, err := json.Marshal(p)
	if err == nil {
		err = l.opts.Store.Write(ctx, map[string][]byte{placesKey: b})
	}
	if err != nil {
		return fmt.Errorf("save the places in log files: %w", err)
	}
	return nil
}

func (l *Logs) restorePlaces(ctx context.Context) (savedPlaces, error) {
	none := savedPlaces{Version: placesVersion, At: l.now()}
	b, err := l.opts.Store.Get(ctx, placesKey)
	if err != nil {
		return none, fmt.Errorf("read the places in log files: %w", err)
	}
	if b == nil {
		return none, nil
	}
	var p savedPlaces
	if err := json.Unmarshal(b, &p); err != nil || p.Version != placesVersion {
		l.log.Warn("saved places in log files cannot be read, logs are read from their ends",
			zap.Int("version", p.Version), zap.Error(err))
		return none, nil
	}
	l.counters.uncleanStarts.Store(p.UncleanStarts)
	if !p.Clean {
		l.counters.uncleanStarts.Add(1)
		l.log.Warn("the collector was killed: logs are read again from the last checkpoint, counts go on from there",
			zap.Duration("checkpoint_interval", l.opts.CheckpointEvery))
	}
	if err := l.tail.Restore(p.Files); err != nil && len(p.Files) > 0 {
		l.log.Warn("saved places in log files cannot be read, files are read from their ends", zap.Error(err))
	}
	l.journal.place, l.savedAt = p.Journal, p.At
	now := l.now()
	for i := range p.Waiting {
		p.Waiting[i].came = now
		l.wait(&p.Waiting[i])
	}
	for key, text := range p.Partials {
		l.journal.addPartial(key, text)
	}
	if p.Owners != nil {
		l.known = p.Owners
	}
	return p, nil
}

// load takes in what is saved of an owner.
func (l *Logs) load(ctx context.Context, o *Owner) error {
	if l.opts.Store == nil {
		return nil
	}
	b, err := l.opts.Store.Get(ctx, ownerPrefix+o.key)
	if err != nil || b == nil {
		return err
	}
	var s savedOwner
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s.Version != placesVersion {
		return fmt.Errorf("counts of version %d", s.Version)
	}
	m, err := o.minerOf(&s)
	if err != nil {
		return err
	}
	o.miner = m
	if !s.Start.IsZero() {
		o.start = s.Start
	}
	for _, from := range s.Sources {
		to := &source{name: from.Name, start: from.Start, bytes: from.Bytes}
		copy(to.dropped[:], from.Dropped)
		copy(to.plain[:], from.Plain)
		o.sources = append(o.sources, to)
	}
	o.changed = true
	o.counted.restore(s.Series, len(o.sources))
	for _, lines := range s.Lines {
		if int(lines.Source) < len(o.sources) {
			o.resume(&lines)
		}
	}
	return nil
}

// minerOf makes the miner of what is saved, nil if there was none, if all that is saved fits together.
func (o *Owner) minerOf(s *savedOwner) (*logpatterns.Miner, error) {
	names := map[string]bool{}
	for _, src := range s.Sources {
		names[src.Name] = true
	}
	if len(names) != len(s.Sources) || len(names) > logpatterns.MaxSources {
		return nil, fmt.Errorf("%d sources, %d of them different", len(s.Sources), len(names))
	}
	if s.Miner == nil {
		return nil, nil
	}
	m := o.newMiner()
	if err := m.Restore(s.Miner); err != nil {
		return nil, err
	}
	for _, n := range m.Counts() {
		if int(n.Source) >= len(s.Sources) {
			return nil, fmt.Errorf("messages of source %d of %d", n.Source, len(s.Sources))
		}
	}
	return m, nil
}

// resume takes in a message that had not ended. Its stream is not known yet, so it ends now.
func (o *Owner) resume(lines *savedLines) {
	j := &join{at: lines.At, level: told{min(lines.Level, logpatterns.NumLevels-1), lines.Certain}}
	for _, line := range splitLines(lines.Text) {
		if message, ok := j.joiner.Add(line); ok {
			o.message(j, lines.Source, message)
		}
	}
	o.end(j, lines.Source)
}

// saveAlways saves until ctx ends.
func (l *Logs) saveAlways(ctx context.Context) {
	t := time.NewTicker(l.opts.CheckpointEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		within, cancel := context.WithTimeout(ctx, saveWithin)
		err := l.save(within, false)
		cancel()
		if err == nil || ctx.Err() != nil {
			continue
		}
		l.counters.checkpointErrors.Add(1)
		if text := err.Error(); text != l.saveFail {
			l.saveFail = text
			l.log.Error("places in log files are not saved: what is read from now on will be read again", zap.Error(err))
		}
	}
}

// save writes a checkpoint. clean says that nothing is read after it.
func (l *Logs) save(ctx context.Context, clean bool) error {
	l.saving.Lock()
	defer l.saving.Unlock()
	values := map[string][]byte{}
	var saved []*Owner
	var dropped []string
	var err error
	p := savedPlaces{Version: placesVersion, At: l.now(), Clean: clean, UncleanStarts: l.counters.uncleanStarts.Load(), Owners: l.known}
	state, idle := savedState{at: p.At}, false
	l.tail.Hold(func() {
		l.journal.mu.Lock()
		defer l.journal.mu.Unlock()
		saved, dropped, err = l.saveOwners(values)
		state.files, state.journal = l.tail.Changes(), l.journal.place
		if idle = !clean && err == nil && len(values) == 0 && l.journal.count == 0 && l.saved.same(state); idle {
			return
		}
		p.Files, p.Journal = l.tail.Checkpoint(), l.journal.place
		for _, list := range l.journal.waiting {
			p.Waiting = append(p.Waiting, list...)
		}
		p.Partials = maps.Clone(l.journal.partials)
	})
	if idle {
		l.counters.checkpoints.Add(1)
		return nil
	}
	if err == nil {
		values[placesKey], err = json.Marshal(p)
	}
	if err == nil {
		err = l.opts.Store.Write(ctx, values)
	}
	if err != nil {
		for _, o := range saved {
			o = o.lock()
			o.dirty = true
			o.unlock()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, key := range dropped {
			l.stale[key] = true
		}
		return err
	}
	l.saveFail, l.saved = "", state
	l.counters.checkpoints.Add(1)
	return nil
}

// saveOwners adds those that have changed to values, and lets go of what nobody asks for. saving is held.
func (l *Logs) saveOwners(values map[string][]byte) (saved []*Owner, dropped []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for key, o := range l.owners {
		l.known[key] = now.Unix()
		b, err := o.save()
		if err != nil {
			return saved, nil, err
		}
		if b != nil {
			values[ownerPrefix+key] = b
			saved = append(saved, o)
		}
	}
	for key, at := range l.known {
		if l.owners[key] == nil && now.Sub(time.Unix(at, 0)) > ownersKept {
			l.stale[key] = true
		}
	}
	for key := range l.stale {
		dropped = append(dropped, key)
		if l.owners[key] == nil {
			delete(l.known, key)
		}
		if name := ownerPrefix + key; values[name] == nil {
			values[name] = nil
		}
	}
	clear(l.stale)
	return saved, dropped, nil
}

// save returns what is to be saved of o, nil if that has been.
func (o *Owner) save() ([]byte, error) {
	o = o.lock()
	defer o.unlock()
	if !o.dirty {
		return nil, nil
	}
	s := savedOwner{Version: placesVersion, Start: o.start, Series: o.counted.save()}
	for _, src := range o.sources {
		s.Sources = append(s.Sources, savedSource{src.name, src.start, src.bytes, src.dropped[:], src.plain[:]})
	}
	for _, stream := range o.streams {
		for i := range stream.joins {
			s.add(&stream.joins[i], stream.source)
		}
	}
	for _, j := range o.journal {
		s.add(j, o.unit)
	}
	if o.miner != nil {
		var err error
		if s.Miner, err = o.miner.Save(); err != nil {
			return nil, err
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("counts of a log: %w", err)
	}
	o.dirty = false
	return b, nil
}

func (s *savedOwner) add(j *join, source uint8) {
	if j.open {
		s.Lines = append(s.Lines, savedLines{source, j.at, j.joiner.Pending(), j.level.level, j.level.certain})
	}
}
