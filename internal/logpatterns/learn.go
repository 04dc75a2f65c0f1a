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
	switch united := had - len(m.patterns); {
	case united*4 >= news:
		m.inVain = 0
	case united*16 < news && m.inVain < maxInVain:
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
		m.words.list[i].holes, m.words.list[i].with = 0, 0
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
			bit := uint64(1) << (hashCodes(n.codes, at) >> 58)
			for _, id := range c.values {
				if id != 0 {
					w := &m.words.list[id-1]
					w.holes = min(w.holes+1, 1000)
					w.with |= bit
				}
			}
		}
	}
}

// take makes one pattern of the rows of a node, but for those of patterns that no template would fit together with it.
func (m *Miner) take(n *node) {
	var had []*pattern
	for _, r := range n.rows {
		if p := r.p.live(); p != nil && !slices.Contains(had, p) {
			had = append(had, p)
		}
	}
	slices.SortFunc(had, func(a, b *pattern) int {
		if a.isBefore(b) {
			return -1
		}
		return 1
	})
	var to *pattern
	codes := n.codes
	for _, p := range had {
		more, ok := m.words.generalize(codes, p.codes)
		switch {
		case !ok:
		case to == nil:
			to, codes = p, more
		default:
			codes = more
			m.unite(to, p)
		}
	}
	if to == nil {
		if len(had) > 0 || len(n.rows) == 1 {
			return // the patterns stay as they are, or the row waits for room
		}
		if to = m.newPattern(n.rows[0], true); to == nil {
			return
		}
	}
	for _, r := range n.rows {
		if r.p = r.p.live(); r.p == nil {
			r.p = to
		}
	}
	if slices.Equal(codes, to.codes) {
		return
	}
	delete(m.byID, m.identity(to))
	to.codes, to.id, to.learned = codes, 0, true
	if same := m.byID[m.identity(to)]; same != nil {
		m.unite(to, same)
	}
	m.byID[to.id] = to
}

// isBefore tells which of two patterns the other one becomes part of.
func (p *pattern) isBefore(o *pattern) bool {
	return cmp.Or(cmp.Compare(o.lines(), p.lines()), slices.Compare(p.codes, o.codes)) < 0
}

// generalize returns codes that both a and b fit, if it finds some.
func (ws *words) generalize(a, b []code) (g []code, ok bool) {
	switch {
	case ws.fits(a, b):
		return a, true
	case ws.fits(b, a):
		return b, true
	case len(a) == len(b):
		g = slices.Clone(a)
		for i := range g {
			if g[i].noSpace() == b[i].noSpace() {
				continue
			}
			if !g[i].isSlot() || !b[i].isSlot() {
				g = nil
				break
			}
			if g[i] = g[i].space() | codeHole; a[i].kind() == codeGap || b[i].kind() == codeGap {
				g[i] |= codeGap
			}
		}
		if g != nil {
			return g, true
		}
	}
	return ws.bridge(a, b)
}

// bridge makes one gap of the part in which a and b, of which one has a gap already, differ.
func (ws *words) bridge(a, b []code) (g []code, ok bool) {
	isGap := func(c code) bool { return c.kind() == codeGap }
	if !slices.ContainsFunc(a, isGap) && !slices.ContainsFunc(b, isGap) {
		return nil, false
	}
	like := func(x, y code) bool {
		return x.noSpace() == y.noSpace() || x.isSlot() && y.isSlot() && !x.isWord() || x.isSlot() && y.isSlot() && !y.isWord()
	}
	begin, end := 0, 0
	for begin < len(a) && begin < len(b) && like(a[begin], b[begin]) && !isGap(a[begin]) && !isGap(b[begin]) {
		begin++
	}
	for end < len(a)-begin && end < len(b)-begin && like(a[len(a)-1-end], b[len(b)-1-end]) && !isGap(a[len(a)-1-end]) && !isGap(b[len(b)-1-end]) {
		end++
	}
	wide := max(len(a), len(b)) - begin - end
	if wide < 1 || wide > maxGap || len(a)-begin-end < 1 || len(b)-begin-end < 1 {
		return nil, false
	}
	words := 0
	add := func(x, y code) {
		if x.noSpace() != y.noSpace() {
			x = x.space() | codeHole
		}
		if x.isWord() {
			words++
		}
		g = append(g, x)
	}
	for i := range begin {
		add(a[i], b[i])
	}
	g = append(g, a[begin].space()|codeGap)
	for i := range end {
		add(a[len(a)-end+i], b[len(b)-end+i])
	}
	return g, words > 0
}

// unite makes p a part of to.
func (m *Miner) unite(to, p *pattern) {
	if id := m.identity(p); m.byID[id] == p {
		delete(m.byID, id)
	}
	delete(m.literal, p.hash)
	p.parent = to
	for _, c := range p.counts.appendTo(nil, Pattern{}) {
		if to.counts.has(c.Source, c.Level) {
			m.byLevel[c.Level]--
		}
		to.counts.add(c.Source, c.Level, c.Messages)
	}
	p.codes, p.counts = nil, counts{}
}

func (m *Miner) countRows() {
	for _, p := range m.patterns {
		p.rows = 0
	}
	for _, r := range m.rows {
		if r.p = r.p.live(); r.p != nil {
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
				m.words.list[id-1].holes, m.words.list[id-1].with = w.holes, w.with
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
