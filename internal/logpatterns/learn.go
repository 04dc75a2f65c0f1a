// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"cmp"
	"slices"
)

// Learn looks anew at which words are variable, and unites the patterns that turn out to be one. Add does so whenever a good
// part of the skeletons is new.
func (m *Miner) Learn() {
	news, had := m.newRows, len(m.patterns)
	m.newRows, m.newLines = 0, 0
	groups := make([]*group, 0, len(m.groups))
	for _, g := range m.groups {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *group) int { return cmp.Compare(a.shape, b.shape) })
	for _, g := range groups {
		slices.SortFunc(g.rows, func(a, b *row) int { return cmp.Compare(a.hash, b.hash) })
	}
	var nodes []*node
	for range learnRounds {
		nodes = nodes[:0]
		for _, g := range groups {
			nodes = append(nodes, m.clusterer.cluster(g)...)
		}
		m.learnValues(nodes)
	}
	nodes = m.clusterer.joinGaps(nodes)
	nodes = m.clusterer.absorb(nodes)
	for _, n := range nodes {
		m.take(n)
	}
	m.patterns = slices.DeleteFunc(m.patterns, func(p *pattern) bool { return p.parent != nil })
	m.countRows()
	m.reindex()
	if united := had - len(m.patterns); united*16 >= news {
		m.inVain = 0
	} else if m.inVain < maxInVain {
		m.inVain++
	}
}

// maxInVain bounds how seldom it is tried: each 2^maxInVain * MaxSkeletons/8 lines.
const maxInVain = 10

// learnRounds is how often the values found are used to find more.
const learnRounds = 2

// learnValues counts for each word the holes of which it is one of three values or more.
func (m *Miner) learnValues(nodes []*node) {
	for i := range m.words.list {
		m.words.list[i].holes = 0
	}
	c := &column{}
	for _, n := range nodes {
		if len(n.rows) < 2 {
			continue
		}
		for at, code := range n.codes {
			if code.kind() != codeHole {
				continue
			}
			m.clusterer.fill(c, n.rows, at)
			if len(c.values) < 3 {
				continue
			}
			for _, id := range c.values {
				if id != 0 {
					m.words.list[id-1].holes = min(m.words.list[id-1].holes+1, 1000)
				}
			}
		}
	}
}

// take makes one pattern of the rows of a node.
func (m *Miner) take(n *node) {
	var to *pattern
	for _, r := range n.rows {
		if r.p == nil {
			continue
		}
		if p := r.p.root(); to == nil || p != to && (p.lines() > to.lines() || p.lines() == to.lines() && slices.Compare(p.codes, to.codes) < 0) {
			to = p
		}
	}
	if to == nil {
		if len(n.rows) == 1 {
			return // it waits for room
		}
		if to = m.newPattern(n.rows[0]); to == nil {
			return
		}
	}
	codes := to.codes
	for _, r := range n.rows {
		if r.p != nil {
			if p := r.p.root(); p != to {
				codes = generalize(codes, p.codes, &m.words)
				m.unite(to, p)
			}
		}
		r.p = to
	}
	codes = generalize(codes, n.codes, &m.words)
	if !slices.Equal(codes, to.codes) {
		to.codes, to.id = codes, 0
	}
}

// generalize returns codes that both fit. b is the newer.
func generalize(a, b []code, ws *words) []code {
	hasGap := func(codes []code) bool {
		return slices.ContainsFunc(codes, func(c code) bool { return c.kind() == codeGap })
	}
	switch {
	case ws.fits(a, b):
		return a
	case hasGap(b) || ws.fits(b, a):
		return b
	case hasGap(a) || len(a) != len(b):
		return a
	}
	g := slices.Clone(a)
	for i := range g {
		if g[i].noSpace() != b[i].noSpace() {
			if !g[i].isSlot() || !b[i].isSlot() {
				return a
			}
			g[i] = g[i].space() | codeHole
		}
	}
	return g
}

// unite makes p a part of to.
func (m *Miner) unite(to, p *pattern) {
	p.parent = to
	for level, n := range p.counts {
		if n > 0 && to.counts[level] > 0 {
			m.byLevel[level]--
		}
		to.counts[level] += n
	}
	p.codes = nil
}

func (m *Miner) countRows() {
	for _, p := range m.patterns {
		p.rows = 0
	}
	for _, r := range m.rows {
		if r.p != nil {
			r.p = r.p.root()
			r.p.rows++
		}
	}
}

// compact forgets the words that no row and no pattern has.
func (m *Miner) compact() {
	old := m.words
	m.words = words{}
	ids := make([]uint32, len(old.list)+1)
	renew := func(codes []code) {
		for i, c := range codes {
			if !c.isWord() {
				continue
			}
			id := ids[c.word()]
			if id == 0 {
				w := &old.list[c.word()-1]
				id = m.words.add(w.hash, old.text(c.word()), w.flags)
				m.words.list[id-1].holes = w.holes
				ids[c.word()] = id
			}
			codes[i] = c.space() | code(id)
		}
	}
	for _, p := range m.patterns {
		p.codes = slices.Clone(p.codes) // it may share them with a row
		renew(p.codes)
	}
	for _, r := range m.rows {
		renew(r.codes)
	}
	m.reindex()
}
