// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"context"
	"maps"
)

// dropKey forgets under which key an owner was. mu is held.
func (l *Logs) dropKey(key string) {
	delete(l.owners, key)
	if l.opts.Store != nil {
		l.stale[key] = true
	}
}

// Rename changes the key of o, if no other has that. It goes on with what a Store has of the key.
func (o *Owner) Rename(ctx context.Context, key string) {
	l := o.logs
	l.mu.RLock()
	other, stale := l.owners[key], l.stale[key]
	l.mu.RUnlock()
	if other != nil {
		return
	}
	before := l.newOwner(key)
	if !stale {
		l.loadOrSay(ctx, before)
	}
	l.tail.Hold(func() { o.rename(before) })
}

func (o *Owner) rename(before *Owner) {
	l := o.logs
	l.mu.Lock()
	defer l.mu.Unlock()
	o = o.lock()
	defer o.unlock()
	if o.key == before.key || l.owners[before.key] != nil || l.owners[o.key] != o {
		return
	}
	l.dropKey(o.key)
	o.key, o.dirty = before.key, true
	l.owners[o.key] = o
	if len(before.sources) > 0 {
		o.goOnFrom(before)
	}
	o.renameStreams()
}

// goOnFrom puts the counts of an earlier process before those of o. Logs.mu and mu are held.
func (o *Owner) goOnFrom(before *Owner) {
	o.renumber(before.addCounts(o))
	o.sources, o.miner, o.counted, o.start = before.sources, before.miner, before.counted, before.start
	o.told = append(o.told, before.told...)
	o.changed = true
}

// renumber has the sources of o's streams numbered anew. Logs.mu and mu are held.
func (o *Owner) renumber(numbers []uint8) {
	for _, s := range o.streams {
		if s.named {
			s.source = numbers[s.source]
		}
	}
	if len(o.journal) > 0 {
		o.unit = numbers[o.unit]
	}
}

// addCounts adds what was counted of other, and returns what number each source of it has here. mu of both is held, of those that
// others know.
func (o *Owner) addCounts(other *Owner) (numbers []uint8) {
	numbers = make([]uint8, len(other.sources))
	for i, from := range other.sources {
		numbers[i] = o.sourceOf(from.name)
		to := o.sources[numbers[i]]
		to.bytes += from.bytes
		for k, n := range from.dropped {
			to.dropped[k] += n
		}
		for k, n := range from.plain {
			to.plain[k] += n
		}
	}
	if other.miner != nil {
		if o.miner == nil {
			o.miner = o.newMiner()
		}
		o.miner.Absorb(other.miner, numbers)
	}
	return numbers
}

// renameStreams has the files of o called in checkpoints as a later process will call them. It is called in Hold, Logs.mu and mu
// are held.
func (o *Owner) renameStreams() {
	l := o.logs
	for from, s := range maps.Clone(o.streams) {
		to := keyOf(o.key, s.path)
		if from == to || s.leaving || !l.tail.Rename(from, to) {
			continue
		}
		delete(o.streams, from)
		delete(l.streams, from)
		if other := o.streams[to]; other != nil { // there is the same file behind it
			other.key, other.leaving = from, true
			o.streams[from], l.streams[from] = other, other
			l.tail.Forget(from)
		}
		s.key = to
		o.streams[to], l.streams[to] = s, s
	}
}

// Absorb makes the logs of other those of o, as if they had been so from the beginning: one container under two names.
func (o *Owner) Absorb(other *Owner) {
	if o == other {
		return
	}
	o.logs.tail.Hold(func() { o.takeOver(other) })
	o.logs.journal.absorb(o, other)
}

func (o *Owner) takeOver(other *Owner) {
	l := o.logs
	l.mu.Lock()
	defer l.mu.Unlock()
	o = o.lock()
	defer o.unlock()
	other.mu.Lock() // the order of the two does not matter: all who take both hold Logs.mu
	defer other.mu.Unlock()
	if other.into != nil {
		return
	}
	other.renumber(o.addCounts(other))
	maps.Copy(o.streams, other.streams)
	if len(other.journal) > 0 {
		o.unit = other.unit
	}
	for process, j := range other.journal {
		if mine := o.journal[process]; mine != nil {
			o.end(mine, o.unit)
		}
		o.journal[process] = j
	}
	o.told = append(o.told, other.told...)
	o.open += other.open
	if l.owners[other.key] == other {
		l.dropKey(other.key)
	}
	o.renameStreams()
	o.dirty, o.changed = true, true
	other.into, other.miner, other.streams, other.journal, other.open, other.told = o, nil, nil, nil, 0, nil
}
