// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "slices"

// admit tells whether a pattern may have lines of a level from one more source. One that is seen again may have the place of
// another that was not.
func (m *Miner) admit(p *pattern, level Level, first bool) bool {
	if m.byLevel[level] >= m.opts.MaxPatternsPerLevel && (first || !m.reclaim(p, level)) {
		return false
	}
	m.byLevel[level]++
	return true
}

// maxWords is how many different words there may be.
func (m *Miner) maxWords() int { return 4 * m.opts.MaxSkeletons }

// meanWord is how long the words may be in the mean.
const meanWord = 20

// wordsUsed is the part of the room for words that is in use.
func (m *Miner) wordsUsed() float64 {
	limit := float64(m.maxWords())
	return max(float64(len(m.words.list))/limit, float64(len(m.words.texts))/(limit*meanWord))
}

// isFull tells that a row has to go for another one. Then those of lines that are seen for the second time are taken in, and
// of others a part, so that also patterns with values that are always new are found.
func (m *Miner) isFull() bool {
	return len(m.rows) >= m.opts.MaxSkeletons || m.wordsUsed() >= 0.75 || m.codes >= m.opts.MaxSkeletons*meanCodes
}

// meanCodes is how many tokens a skeleton may have in the mean.
const meanCodes = 20

// makeRoom makes room for words: that of those that are not in use any more, and if that is not much of others as well.
func (m *Miner) makeRoom() {
	m.compact()
	for n := len(m.rows); m.wordsUsed() > 0.75 && n > 0; {
		n -= n/4 + 1
		for len(m.rows) > n {
			m.evict()
		}
		m.compact()
	}
}

func (m *Miner) addRow(tokens []token, shape, hash uint64) *row {
	if m.wordsUsed() > 1 {
		m.makeRoom()
		for i := range tokens {
			tokens[i].id = 0
		}
	}
	r := &row{hash: hash}
	r.codes = m.codesOf(make([]code, 0, len(tokens)), tokens, true)
	m.keep(r, shape)
	return r
}

// keep puts a row where it is found.
func (m *Miner) keep(r *row, shape uint64) {
	g := m.groups[shape]
	if g == nil {
		g = &group{shape: shape}
		for i, c := range r.codes {
			if c.isSlot() {
				g.slots = append(g.slots, uint16(i)) //nolint:gosec // few
			}
		}
		m.groups[shape] = g
	}
	m.codes += len(r.codes)
	g.rows = append(g.rows, r)
	r.group = g
	m.rows[r.hash] = r
	m.clock = append(m.clock, r)
}

// evict makes room for a row: one that was seen once goes, or one of many of a pattern.
func (m *Miner) evict() {
	for tries := 0; len(m.clock) > 0; tries++ {
		if m.hand++; m.hand >= len(m.clock) {
			m.hand = 0
		}
		r := m.clock[m.hand]
		if p := r.p.live(); tries < maxEvict && p != nil && p.rows <= 1 && !p.learned {
			continue
		}
		last := len(m.clock) - 1
		m.clock[m.hand] = m.clock[last]
		m.clock = m.clock[:last]
		m.drop(r)
		return
	}
}

// maxEvict is how many rows are looked at for one that is not the only one of its pattern.
const maxEvict = 16

func (m *Miner) drop(r *row) {
	delete(m.rows, r.hash)
	m.codes -= len(r.codes)
	if p := r.p.live(); p != nil {
		p.rows--
	}
	g := r.group
	if i := slices.Index(g.rows, r); i >= 0 {
		g.rows = slices.Delete(g.rows, i, i+1)
	}
	if len(g.rows) == 0 {
		delete(m.groups, g.shape)
	}
}

// newPattern makes a pattern of a row, nil if there is no room. While there is much room it does so for a row that was seen once;
// one that was seen again may have the place of another that was not.
func (m *Miner) newPattern(r *row, again bool) *pattern {
	switch n := len(m.patterns); {
	case n < max(1, m.opts.MaxPatterns/2):
	case !again, n >= m.opts.MaxPatterns && !m.reclaim(nil, NumLevels):
		return nil
	}
	p := &pattern{codes: r.codes, rows: 1}
	if same := m.byID[m.identity(p)]; same != nil { // other tokens, but the same template
		same.rows++
		return same
	}
	p.hash = r.hash
	m.byID[p.id], m.literal[p.hash] = p, p
	m.patterns = append(m.patterns, p)
	return p
}

// reclaim takes the place of a pattern of one line, of the given level or, for NumLevels, of any, which is counted by its source
// and level alone then. It is to be for another pattern, and never takes that.
func (m *Miner) reclaim(another *pattern, level Level) bool {
	for range min(len(m.patterns), maxReclaim) {
		if m.next++; m.next >= len(m.patterns) {
			m.next = 0
		}
		p := m.patterns[m.next]
		if p == another || p.lines() > 1 || p.learned || level < NumLevels && p.counts.levels[level] == 0 {
			continue
		}
		for _, c := range p.counts.appendTo(nil, Pattern{}) {
			m.overflow.add(c.Source, c.Level, c.Messages)
			m.byLevel[c.Level]--
		}
		delete(m.byID, m.identity(p))
		delete(m.literal, p.hash)
		p.dead, p.counts = true, counts{}
		last := len(m.patterns) - 1
		m.patterns[m.next] = m.patterns[last]
		m.patterns = m.patterns[:last]
		return true
	}
	return false
}

// maxReclaim is how many patterns are looked at for one that may go.
const maxReclaim = 16
