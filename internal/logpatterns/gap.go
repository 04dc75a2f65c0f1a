// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"cmp"
	"slices"
)

// maxGap is the number of tokens that a gap may stand for, maxShortGap that of one at the start of a line or behind a hole.
const (
	maxGap      = 12
	maxShortGap = 3
)

// The weights by which it is judged whether texts of several words are values.
const (
	gapShared = 3.66  // times the part that stand elsewhere too
	gapEvent  = 0.98  // times the part that are events
	gapMixed  = 0.4   // times the part with holes in them: more likely another message
	gapBase   = -1.0  // against all
	gapWords  = -2.0  // single words: judge has the say
	gapFew    = -2.0  // with one constant word around it
	gapSome   = -0.5  // with two
	gapLong   = -0.05 // times the words of the mean text past the first
)

// gapByDistinct is what the number of different texts says.
func gapByDistinct(n int) float64 {
	switch {
	case n == 2:
		return -2.35
	case n == 3:
		return 0.09
	case n == 4:
		return -0.65
	case n < 8:
		return 1
	}
	return 1.42
}

// gap is a part of a node, [from, to), that may be a value of any length.
type gap struct {
	node     *node
	from, to int
	text     uint64
	words    int
	event    bool
	mixed    bool // has words and holes
}

func (g *gap) code(at int) code { return g.node.codes[at].noSpace() }

// gaps is those with equal surroundings.
type gaps struct {
	key    uint64
	opener float64
	loose  bool // it ends before any word
	list   []gap
	score  float64
}

// phrases tells of each text whether it stands in several surroundings.
type phrases map[uint64]phrase

type phrase struct {
	before  uint64
	several bool
}

// joinGaps unites nodes that differ in a text of varying length, such as that of an error.
func (k *clusterer) joinGaps(nodes []*node) []*node {
	seen := phrases{}
	for round := range 8 {
		f := gapFinder{clusterer: k, found: map[uint64]*gaps{}, seen: seen, learn: round == 0}
		for _, n := range nodes {
			f.find(n)
		}
		var good []*gaps
		for _, g := range f.found {
			if len(g.list) > 1 && k.scoreGaps(g, seen) {
				good = append(good, g)
			}
		}
		if len(good) == 0 {
			break
		}
		slices.SortFunc(good, func(a, b *gaps) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.key, b.key)) })
		for _, g := range good {
			if !slices.ContainsFunc(g.list, func(p gap) bool { return p.node.dead }) {
				nodes = append(nodes, k.fillGap(g))
			}
		}
		nodes = slices.DeleteFunc(nodes, func(n *node) bool { return n.dead })
	}
	return nodes
}

// fillGap makes one node of those of g.
func (k *clusterer) fillGap(g *gaps) *node {
	p := g.list[0]
	n := &node{}
	add := func(c code) {
		if k.words.isValue(c) {
			c = c.space() | codeHole
		}
		n.codes = append(n.codes, c)
	}
	for _, c := range p.node.codes[:p.from] {
		add(c)
	}
	n.codes = append(n.codes, p.node.codes[p.from].space()|codeGap)
	for _, c := range p.node.codes[p.to:] {
		add(c)
	}
	for _, p := range g.list {
		if !p.node.dead {
			p.node.dead = true
			n.rows = append(n.rows, p.node.rows...)
		}
	}
	return n
}

// opener tells how much speaks for a value of several words to begin at a place, less than 0 for never.
func (k *clusterer) opener(codes []code, at int) float64 {
	if at == 0 {
		return 0
	}
	c := codes[at-1]
	switch {
	case c.isSignOf(":="):
		return 0.5
	case c.isSignOf("([{\"'`") && codes[at].space() == 0:
		return 0.5
	case c.isSignOf(",-;"), !c.isWord() && c.isSlot():
		return 0
	case k.words.flags(c)&isCause != 0:
		return 1
	case k.words.flags(c)&isContext != 0:
		return 0
	}
	return -1
}

// closes tells whether a value may end before a place.
func (k *clusterer) closes(codes []code, at int) bool {
	if at == len(codes) {
		return true
	}
	return codes[at].isSignOf(",);]}\"'`-.:") || k.words.flags(codes[at])&(isStop|isEvent) != 0
}

// gapFinder collects the gaps that nodes may have, by their surroundings.
type gapFinder struct {
	*clusterer
	found map[uint64]*gaps
	seen  phrases
	learn bool // seen is to be filled

	node     *node
	suffixes []uint64 // hashes of what is behind each place
}

// find adds those of a node.
func (f *gapFinder) find(n *node) {
	f.node = n
	f.suffixes = append(f.suffixes[:0], make([]uint64, len(n.codes)+1)...)
	for i := len(n.codes) - 1; i >= 0; i-- {
		f.suffixes[i] = mix(f.suffixes[i+1], f.masked(n.codes[i]))
	}
	prefix, constants := uint64(mixA), 0
	for from, c := range n.codes {
		opener := f.opener(n.codes, from)
		behindHole := from > 0 && !n.codes[from-1].isWord() && n.codes[from-1].isSlot()
		if opener >= 0 && (c.isSlot() || c.isSignOf("([{\"'`")) && (!behindHole || constants > 0) {
			f.findAt(from, from == 0 || behindHole, opener, prefix)
		}
		prefix = mix(prefix, f.masked(c))
		if c.isWord() {
			constants++
		}
	}
}

// findAt adds the gaps that begin at a place, behind what has the hash prefix. Short ones are of a few plain words.
func (f *gapFinder) findAt(from int, short bool, opener float64, prefix uint64) {
	codes := f.node.codes
	t := gapText{hash: mixA}
	for end := from + 1; end <= len(codes) && end <= from+maxGap; end++ {
		c := codes[end-1]
		t.add(c, f.words.flags(c))
		if t.over || short && (end-from > maxShortGap || t.signs || t.holes > 0 && end > from+1) {
			return
		}
		masked := t.holes == 1 && end == from+1
		value := t.words == 0 && t.holes > 0 && !masked // such as {<*>}
		loose := !f.closes(codes, end)
		if t.open() || t.words+t.holes == 0 || loose && (value || t.signs || t.holes > 0 && !masked) {
			continue
		}
		p := gap{node: f.node, from: from, to: end, text: t.hash, words: t.words, mixed: t.words > 0 && t.holes > 0}
		if masked {
			p.text = 0
		}
		p.event = t.events && (short || end == from+1)
		f.add(mix(prefix, f.suffixes[end]), p, opener, loose)
		if f.learn {
			f.seen.add(t.hash, prefix)
		}
	}
}

func (f *gapFinder) add(key uint64, p gap, opener float64, loose bool) {
	g := f.found[key]
	if g == nil {
		g = &gaps{key: key, opener: opener, loose: loose}
		f.found[key] = g
	}
	g.list = append(g.list, p)
}

// add notes that a text stands behind what has the hash before.
func (s phrases) add(text, before uint64) {
	if old, ok := s[text]; !ok {
		s[text] = phrase{before: before}
	} else if old.before != before {
		s[text] = phrase{several: true}
	}
}

// gapText is the text of a gap as it grows.
type gapText struct {
	hash          uint64
	words, holes  int
	depth, quotes int
	signs, events bool
	over          bool // it cannot go on
}

func (t *gapText) add(c code, flags wordFlags) {
	t.hash = mix(t.hash, uint64(c.noSpace()))
	switch {
	case c.isWord():
		t.words++
		t.events = t.events || flags&isEvent != 0
		return
	case c.isSlot():
		t.holes++
		return
	case c.isSignOf("="):
		t.over = true
	case c.isSignOf("([{"):
		t.depth++
	case c.isSignOf(")]}"):
		t.depth--
		t.over = t.depth < 0
	case c.isSignOf("\"'`"):
		t.quotes++
	}
	t.signs = true
}

// open tells whether a bracket or quotation is not closed.
func (t *gapText) open() bool { return t.depth != 0 || t.quotes%2 != 0 }

// masked is a code of the surroundings of a gap: values are all the same there.
func (k *clusterer) masked(c code) uint64 {
	if k.words.isValue(c) || c.kind() == codeGap {
		c = c.space() | codeHole
	}
	return uint64(c)
}

// scoreGaps judges whether the texts in g are values.
func (k *clusterer) scoreGaps(g *gaps, seen phrases) bool {
	slices.SortStableFunc(g.list, func(a, b gap) int {
		return cmp.Or(cmp.Compare(a.text, b.text), cmp.Compare(hashCodes(a.node.codes, -1), hashCodes(b.node.codes, -1)))
	})
	distinct, shared, events, mixed, words, single, masked, nodes := 0, 0, 0, 0, 0, true, false, 0
	begin, end := false, false // not all begin, or end, with the same token
	for i, p := range g.list {
		if i == 0 || p.node != g.list[i-1].node {
			nodes++
		}
		if i > 0 && p.text == g.list[i-1].text {
			continue
		}
		distinct++
		begin = begin || p.code(p.from) != g.list[0].code(g.list[0].from)
		end = end || p.code(p.to-1) != g.list[0].code(g.list[0].to-1)
		if p.text == 0 {
			masked = true
			shared++
			continue
		}
		if first := p.code(p.from); seen[p.text].several && !(p.mixed && (first.isSignOf("\"'`") || first.kind() == codeHole)) {
			shared++
		}
		if p.event {
			events++
		}
		if p.mixed {
			mixed++
		}
		words += p.words
		single = single && p.to-p.from == 1
	}
	if distinct < 2 || nodes < 2 {
		return false
	}
	if p := g.list[0]; !begin && k.opener(p.node.codes, p.from+1) >= 0 || !end && k.closes(p.node.codes, p.to-1) {
		return false // a shorter one does as well
	}
	if g.loose && !masked {
		return false
	}
	part := 1 / float64(distinct)
	if masked && mixed < distinct-1 { // else it may be a value with words before it
		distinct += 3
		g.score = 1
	}
	g.score += g.opener + gapBase + gapByDistinct(distinct) + gapShared*float64(shared)*part - gapEvent*float64(events)*part +
		gapLong*max(0, float64(words)*part-1)
	if single {
		g.score += gapWords
	}
	g.score -= gapMixed * float64(mixed) * part
	constants := 0
	p := g.list[0]
	for i, c := range p.node.codes {
		if c.isWord() && !k.words.isValue(c) && (i < p.from || i >= p.to) {
			constants++
		}
	}
	switch constants {
	case 0:
		return false
	case 1:
		g.score += gapFew
	case 2:
		g.score += gapSome
	}
	return g.score > 0
}

// fits tells whether codes are a line of a pattern.
func (ws *words) fits(pattern, codes []code) bool {
	i := 0
	for at, p := range pattern {
		switch {
		case p.kind() == codeGap:
			rest := pattern[at+1:]
			for end := i + 1; end <= len(codes) && end <= i+maxGap; end++ {
				if ws.fits(rest, codes[end:]) {
					return true
				}
			}
			return false
		case i >= len(codes):
			return false
		case p.kind() == codeHole:
			c := codes[i]
			if !c.isSlot() || c.isWord() && c.word() != 0 && ws.flags(c)&isStop != 0 {
				return false
			}
		case p.noSpace() != codes[i].noSpace():
			return false
		}
		i++
	}
	return i == len(codes)
}

// absorb gives to the nodes with many rows those that fit them.
func (k *clusterer) absorb(nodes []*node) []*node {
	slices.SortFunc(nodes, func(a, b *node) int {
		return cmp.Or(cmp.Compare(len(b.rows), len(a.rows)), cmp.Compare(hashCodes(a.codes, -1), hashCodes(b.codes, -1)))
	})
	for i, to := range nodes {
		if to.dead || len(to.rows) < 3 {
			continue
		}
		constants, holes := 0, 0
		for _, c := range to.codes {
			if c.isWord() {
				constants++
			} else if c.isSlot() {
				holes++
			}
		}
		if constants < 2 || holes == 0 {
			continue
		}
		for _, n := range nodes[i+1:] {
			if !n.dead && k.words.fits(to.codes, n.codes) {
				n.dead = true
				to.rows = append(slices.Clip(to.rows), n.rows...)
			}
		}
	}
	return slices.DeleteFunc(nodes, func(n *node) bool { return n.dead })
}
