// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"cmp"
	"slices"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
)

// Counts is what the logs of an owner have come to. It is shared and not to be changed.
type Counts struct {
	Patterns []PatternCount // sorted by Source, Level and Hash, no triple twice
	Sources  []SourceCount  // sorted by Source, none twice
}

// PatternCount is the messages of one pattern. The sum of all that have not ended is the number of messages that were read,
// less those of series that ended before because they were idle.
type PatternCount struct {
	Source         string
	Level          logpatterns.Level
	Hash, Template string // "" for messages that were counted by their level alone
	Start          time.Time
	Ended          bool // given for the last times: idle, or part of another pattern by now
	Messages       uint64
}

// SourceCount is what was read of a source.
type SourceCount struct {
	Source  string
	Start   time.Time
	Bytes   uint64 // of the text of lines, and one for the end of each
	Dropped [numDrops]uint64
}

// Drops lists the reasons of SourceCount.Dropped.
func Drops() []Drop { return []Drop{DropRateLimit} }

// counted is what is known of an owner's series.
type counted struct {
	last   *Counts
	series map[seriesKey]*series
	again  time.Time // when last is to be made anew even if nothing has changed
	round  uint64
}

type seriesKey struct {
	source  uint8
	level   logpatterns.Level
	pattern uint64 // 0 for none
}

type series struct {
	hash, template string
	n              uint64 // messages
	before         uint64 // those of the time before it began anew
	start          time.Time
	changed        time.Time
	ended          time.Time // zero while it goes on
	round          uint64
}

// Counts returns what was counted so far.
func (o *Owner) Counts() *Counts {
	o = o.lock()
	defer o.unlock()
	now := o.logs.now()
	c := &o.counted
	if c.last != nil && !o.changed && (c.again.IsZero() || now.Before(c.again)) {
		return c.last
	}
	o.changed = false
	o.count(now)
	return c.last
}

// count makes counted.last. mu is held.
func (o *Owner) count(now time.Time) {
	c := &o.counted
	if c.series == nil {
		c.series = map[seriesKey]*series{}
	}
	c.round++
	var plain [logpatterns.MaxSources][logpatterns.NumLevels]uint64
	for i, src := range o.sources {
		plain[i] = src.plain
	}
	if o.miner != nil {
		for _, n := range o.miner.Counts() {
			if n.Pattern.IsOverflow() {
				plain[n.Source][n.Level] += n.Messages
				continue
			}
			o.see(seriesKey{n.Source, n.Level, n.Pattern.Key()}, n.Pattern, n.Messages, now)
		}
	}
	for i := range o.sources {
		for level, n := range plain[i] {
			if n > 0 {
				o.see(seriesKey{uint8(i), logpatterns.Level(level), 0}, logpatterns.Pattern{}, n, now) //nolint:gosec // few
			}
		}
	}
	last := &Counts{}
	keep, idle := o.logs.opts.Keep, o.logs.opts.Idle
	c.again = now.Add(idle)
	for key, s := range c.series {
		gone := s.round != c.round
		if s.round == 0 { // an earlier process knew it
			delete(c.series, key)
			continue
		}
		if s.ended.IsZero() && (gone || now.Sub(s.changed) >= idle) {
			s.ended = now
			o.dirty = true
		}
		if !s.ended.IsZero() {
			if now.Sub(s.ended) > keep {
				if gone {
					delete(c.series, key)
				}
				continue
			}
			c.again = earlier(c.again, s.ended.Add(keep+1))
		} else {
			c.again = earlier(c.again, s.changed.Add(idle))
		}
		last.Patterns = append(last.Patterns, PatternCount{
			Source: o.sources[key.source].name, Level: key.level, Hash: s.hash, Template: s.template,
			Start: s.start, Ended: !s.ended.IsZero(), Messages: s.n - s.before,
		})
	}
	slices.SortFunc(last.Patterns, func(a, b PatternCount) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Level, b.Level), cmp.Compare(a.Hash, b.Hash))
	})
	for _, src := range o.sources {
		last.Sources = append(last.Sources, SourceCount{Source: src.name, Start: src.start, Bytes: src.bytes, Dropped: src.dropped})
	}
	slices.SortFunc(last.Sources, func(a, b SourceCount) int { return cmp.Compare(a.Source, b.Source) })
	c.last = last
}

// save lists the series that are not just what was counted since the owner began. mu of the owner is held.
func (c *counted) save() (list []savedSeries) {
	for key, s := range c.series {
		if s.before > 0 || !s.ended.IsZero() {
			list = append(list, savedSeries{key.source, key.level, key.pattern, s.n, s.before, s.start, s.changed, s.ended})
		}
	}
	return list
}

// restore takes in what save has listed, as far as it can be true.
func (c *counted) restore(list []savedSeries, sources int) {
	c.series = map[seriesKey]*series{}
	for _, s := range list {
		if int(s.Source) < sources && s.Level < logpatterns.NumLevels && s.Before <= s.N {
			c.series[seriesKey{s.Source, s.Level, s.Pattern}] = &series{n: s.N, before: s.Before, start: s.Start, changed: s.Changed, ended: s.Ended}
		}
	}
}

// see takes in how many messages a series has. mu is held.
func (o *Owner) see(key seriesKey, p logpatterns.Pattern, n uint64, now time.Time) {
	c := &o.counted
	s := c.series[key]
	switch {
	case s == nil:
		s = &series{start: o.start, changed: now}
		c.series[key] = s
	case !s.ended.IsZero() && s.round != c.round-1: // it was given as part of another pattern, or not at all
		s.before, s.start, s.ended = 0, o.start, time.Time{}
		s.changed, o.dirty = now, true
	case s.n == n:
	case !s.ended.IsZero(): // idle until now
		s.before, s.start, s.ended = s.n, s.ended, time.Time{}
		s.changed, o.dirty = now, true
	default:
		s.changed = now
	}
	if s.hash == "" {
		s.hash, s.template = p.ID(), p.Template()
	}
	s.n, s.round = n, c.round
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
