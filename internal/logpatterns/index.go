// SPDX-License-Identifier: Apache-2.0

package logpatterns

// cache has the patterns of lines by their quick hashes. What was put last stays.
type cache struct {
	entries []cacheEntry // in pairs
	used    int
	limit   int
}

type cacheEntry struct {
	quick uint64
	p     *pattern
}

func (c *cache) get(quick uint64) *pattern {
	if len(c.entries) == 0 {
		return nil
	}
	i := quick & uint64(len(c.entries)-2)
	if e := &c.entries[i]; e.quick == quick {
		return e.p
	}
	if e := &c.entries[i+1]; e.quick == quick {
		return e.p
	}
	return nil
}

func (c *cache) put(quick uint64, p *pattern) {
	if c.used >= len(c.entries)/3 && len(c.entries) < c.limit {
		old := c.entries
		c.entries, c.used = make([]cacheEntry, max(64, 2*len(old))), 0
		for _, e := range old {
			if e.p != nil {
				c.set(e.quick, e.p)
			}
		}
	}
	c.set(quick, p)
}

func (c *cache) set(quick uint64, p *pattern) {
	i := quick & uint64(len(c.entries)-2)
	if c.entries[i].p != nil {
		if c.entries[i+1].p != nil {
			c.used-- // it goes
		}
		c.entries[i+1] = c.entries[i]
	}
	c.used++
	c.entries[i] = cacheEntry{quick, p}
}

// index finds the patterns that a line may fit: those with holes by their shape and first word, those with gaps by a word.
type index struct {
	byShape map[uint64][]uint16 // places of first words of patterns of a shape
	byWord  map[uint64][]*pattern
	gaps    map[uint32][]*pattern // by first word
}

const (
	// maxTries is how many patterns a line is compared with at most, maxGapTries how many with gaps.
	maxTries, maxGapTries = 16, 32
)

func (m *Miner) reindex() {
	x := &m.index
	x.byShape, x.byWord, x.gaps = map[uint64][]uint16{}, map[uint64][]*pattern{}, map[uint32][]*pattern{}
	for _, p := range m.patterns {
		first, gap, hole := -1, false, false
		shape, _ := m.words.hashesOf(p.codes)
		for i, c := range p.codes {
			gap = gap || c.kind() == codeGap
			hole = hole || c.kind() == codeHole
			if first < 0 && c.isWord() {
				first = i
			}
		}
		switch {
		case first < 0 || !gap && !hole:
		case gap:
			id := p.codes[first].word()
			x.gaps[id] = append(x.gaps[id], p)
		default:
			key := mix(shape, uint64(first)<<32|uint64(p.codes[first].word())) //nolint:gosec // small
			if x.byWord[key] == nil {
				x.addPlace(shape, uint16(first)) //nolint:gosec // small
			}
			x.byWord[key] = append(x.byWord[key], p)
		}
	}
}

func (x *index) addPlace(shape uint64, at uint16) {
	for _, have := range x.byShape[shape] {
		if have == at {
			return
		}
	}
	x.byShape[shape] = append(x.byShape[shape], at)
}

// match finds a pattern that a line fits: the one with the most lines.
func (m *Miner) match(tokens []token, shape uint64) (best *pattern) {
	places := m.index.byShape[shape]
	if len(places) == 0 && len(m.index.gaps) == 0 {
		return nil
	}
	m.scratch = m.codesOf(m.scratch[:0], tokens, false)
	tries := 0
	for _, at := range places {
		id := tokens[at].id
		if tokens[at].kind != tokenWord || id == 0 {
			continue
		}
		for _, p := range m.index.byWord[mix(shape, uint64(at)<<32|uint64(id))] {
			if tries++; tries > maxTries {
				break
			}
			if !p.dead && m.words.fits(p.codes, m.scratch) && (best == nil || p.lines() > best.lines()) {
				best = p
			}
		}
	}
	if best != nil || len(m.index.gaps) == 0 {
		return best
	}
	tries = 0
	for i := range tokens {
		if tokens[i].kind != tokenWord || tokens[i].id == 0 {
			continue
		}
		for _, p := range m.index.gaps[tokens[i].id] {
			if tries++; tries > maxGapTries {
				return best
			}
			if !p.dead && m.words.fits(p.codes, m.scratch) && (best == nil || p.lines() > best.lines()) {
				best = p
			}
		}
	}
	return best
}
