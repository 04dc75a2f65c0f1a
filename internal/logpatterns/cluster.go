// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"cmp"
	"math"
	"slices"
)

// row is a skeleton that was seen: a line without what is variable by its shape.
type row struct {
	codes []code
	hash  uint64
	p     *pattern // nil while there was no room for one
	group *group
}

// group is all rows that have words or holes, and signs, at the same places. Their shape is the same.
type group struct {
	shape uint64
	slots []uint16 // the places of words and holes
	rows  []*row
}

// node is rows that are taken for lines of one pattern.
type node struct {
	codes []code
	rows  []*row
	dead  bool
}

// The weights by which it is judged whether the words at one place are values. They were found by search on the
// package's own corpus; see docs/decisions/010.
const (
	weightKnown    = 3.0  // times the part that are values elsewhere
	weightTogether = 2.0  // all are, at one place
	weightEvent    = 3.0  // times the part that are events
	weightOdd      = 0.44 // times the part that are not plain words
	weightFirst    = 0.7  // of the first word of a line
	weightContext  = 0.53 // behind a word or sign that values follow
	weightQuoted   = 1.0  // in quotes
	weightQuoted2  = 2.59 // in quotes, two of them
	weightBools    = 3.0  // true and false
	weightMasked   = 3.0  // one of them is a hole

	// fewConstants is the least part of words that must stay.
	fewConstants = 0.39
)

// byDistinct is what the number of different words says.
func byDistinct(n int) float64 {
	switch {
	case n <= 2:
		return -3.46
	case n == 3:
		return -0.04
	case n == 4:
		return 0.3
	case n == 5:
		return 1.72
	case n < 8:
		return 2
	case n < 16:
		return 3.5
	}
	return 5
}

// column is the words at one place of some rows.
type column struct {
	at      int
	values  []uint32 // different ones, sorted; 0 for a hole
	counts  []int
	score   float64 // above 0 when they are values
	entropy float64
	gain    float64
}

// maxClustered is how many rows of a shape are compared. They are those with the least hashes, whatever order they came in.
const maxClustered = 384

// maxColumns is the number of words up to which rows are split by any of them.
const maxColumns = 32

// clusterer has what a clustering needs for its duration.
type clusterer struct {
	words *words
	ids   []uint32
	pairs []uint64
}

// cluster partitions the rows of a group.
func (k *clusterer) cluster(g *group) []*node {
	var nodes []*node
	if rows := g.rows[:min(len(g.rows), maxClustered)]; len(g.slots) <= maxColumns {
		nodes = k.split(nil, rows, g.slots)
	} else {
		for i := range rows {
			nodes = append(nodes, newNode(rows[i:i+1:i+1], g.slots))
		}
	}
	nodes = k.join(nodes, g.slots)
	for i := maxClustered; i < len(g.rows); i++ {
		nodes = append(nodes, newNode(g.rows[i:i+1], g.slots))
	}
	return nodes
}

func newNode(rows []*row, slots []uint16) *node {
	n := &node{rows: rows, codes: slices.Clone(rows[0].codes)}
	for _, r := range rows[1:] {
		for _, at := range slots {
			if n.codes[at].noSpace() != r.codes[at].noSpace() {
				n.codes[at] = n.codes[at].space() | codeHole
			}
		}
	}
	return n
}

// value is what stands at a place of a row, 0 for a hole.
func (r *row) value(at int) uint32 {
	if c := r.codes[at]; c.isWord() {
		return c.word()
	}
	return 0
}

// fill makes the column at a place of some rows.
func (k *clusterer) fill(c *column, rows []*row, at int) {
	k.ids = k.ids[:0]
	for _, r := range rows {
		k.ids = append(k.ids, r.value(at))
	}
	slices.Sort(k.ids)
	c.at, c.values, c.counts = at, c.values[:0], c.counts[:0]
	for i, id := range k.ids {
		if i > 0 && id == k.ids[i-1] {
			c.counts[len(c.counts)-1]++
			continue
		}
		c.values, c.counts = append(c.values, id), append(c.counts, 1)
	}
}

// judge tells how much speaks for the words of a column to be values: above 0 they are.
func (k *clusterer) judge(c *column, codes []code, first bool) float64 {
	n := len(c.values)
	score := byDistinct(n)
	known, event, odd, bools, with := 0, 0, 0, 0, ^uint64(0)
	for _, id := range c.values {
		if id == 0 {
			score += weightMasked
			known++
			continue
		}
		w := &k.words.list[id-1]
		if w.flags&isStop != 0 && n < 6 {
			return -100
		}
		if w.holes > 0 {
			known++
		}
		with &= w.with
		if w.flags&isEvent != 0 || first && isEventName(k.words.text(id)) {
			event++
		}
		if w.flags&isOdd != 0 {
			odd++
		}
		if w.flags&isBool != 0 {
			bools++
		}
	}
	part := 1 / float64(n)
	score += weightKnown*float64(known)*part - weightEvent*float64(event)*part + weightOdd*float64(odd)*part
	if with != 0 {
		score += weightTogether
	}
	if n == 2 && bools == 2 {
		score += weightBools
	}
	if first {
		score -= weightFirst
	}
	if c.at == 0 {
		return score
	}
	before := codes[c.at-1]
	if before.isSignOf("\"'`") {
		score += weightQuoted
		if n < 3 {
			score += weightQuoted2 - weightQuoted
		}
	}
	if !first && (k.words.flags(before)&isContext != 0 || before.isSignOf("=:([{\"'`")) {
		score += weightContext
	}
	return score
}

func entropyOf(counts []int, n int) (h float64) {
	for _, c := range counts {
		p := float64(c) / float64(n)
		h -= p * math.Log(p)
	}
	return h
}

// jointEntropy is that of the words at two places.
func (k *clusterer) jointEntropy(rows []*row, a, b int) (h float64) {
	k.pairs = k.pairs[:0]
	for _, r := range rows {
		k.pairs = append(k.pairs, uint64(r.value(a))<<32|uint64(r.value(b)))
	}
	slices.Sort(k.pairs)
	run := 0
	for i := range k.pairs {
		if run++; i+1 == len(k.pairs) || k.pairs[i+1] != k.pairs[i] {
			p := float64(run) / float64(len(rows))
			h -= p * math.Log(p)
			run = 0
		}
	}
	return h
}

// split divides rows until those of each part differ in values only.
func (k *clusterer) split(to []*node, rows []*row, slots []uint16) []*node {
	if len(rows) == 1 {
		return append(to, newNode(rows, slots))
	}
	var columns []*column
	constants := 0
	for i, at := range slots {
		c := &column{}
		k.fill(c, rows, int(at))
		if len(c.values) == 1 {
			if c.values[0] != 0 {
				constants++
			}
			continue
		}
		c.score = k.judge(c, rows[0].codes, i == 0)
		c.entropy = entropyOf(c.counts, len(rows))
		columns = append(columns, c)
	}
	if len(columns) == 0 {
		return append(to, newNode(rows, slots))
	}
	if constants == 0 && !slices.ContainsFunc(columns, func(c *column) bool { return len(c.values) < len(rows) }) {
		for i := range rows { // nothing in common
			to = append(to, newNode(rows[i:i+1:i+1], slots))
		}
		return to
	}
	enough := float64(constants) >= max(1, fewConstants*float64(len(slots)))
	by := k.choose(columns, rows, enough)
	if by == nil {
		return append(to, newNode(rows, slots))
	}
	parts := slices.Clone(rows)
	slices.SortStableFunc(parts, func(a, b *row) int { return cmp.Compare(a.value(by.at), b.value(by.at)) })
	from := 0
	for i := 1; i <= len(parts); i++ {
		if i == len(parts) || parts[i].value(by.at) != parts[from].value(by.at) {
			to = k.split(to, parts[from:i:i], slots)
			from = i
		}
	}
	return to
}

// choose returns the column by which rows are of different patterns, nil for none.
func (k *clusterer) choose(columns []*column, rows []*row, enough bool) *column {
	worst := columns[0]
	for _, c := range columns {
		if c.score < worst.score {
			worst = c
		}
	}
	if worst.score < -50 {
		return worst
	}
	if enough && worst.score >= 0 {
		return nil
	}
	var best *column
	for _, c := range columns {
		if enough && c.score >= 0 {
			continue
		}
		for _, o := range columns {
			if o == c {
				continue
			}
			// How much this word tells of the others: those of a pattern come together.
			mutual := c.entropy + o.entropy - k.jointEntropy(rows, c.at, o.at)
			bias := float64((len(c.values)-1)*(len(o.values)-1)) / float64(2*len(rows))
			c.gain += max(0, mutual-bias)
		}
		c.gain = c.gain/c.entropy - 0.2*c.score
		if best == nil || c.gain > best.gain || c.gain == best.gain && len(c.values) < len(best.values) {
			best = c
		}
	}
	return best
}

// bucket is nodes that are equal but for one place.
type bucket struct {
	key   uint64
	at    int
	nodes []*node
	score float64
}

func hashCodes(codes []code, except int) uint64 {
	h := uint64(mixA)
	for i, c := range codes {
		if i == except {
			c = codeKind
		}
		h = mix(h, uint64(c))
	}
	return h
}

// join unites nodes that differ in values at one place only, until there are none. It is what makes up for a split by values.
func (k *clusterer) join(nodes []*node, slots []uint16) []*node {
	for len(nodes) > 1 {
		nodes = k.unite(nodes, slots)
		buckets := map[uint64]*bucket{}
		for _, n := range nodes {
			for _, at := range slots {
				key := hashCodes(n.codes, int(at))
				b := buckets[key]
				if b == nil {
					b = &bucket{key: key, at: int(at)}
					buckets[key] = b
				}
				b.nodes = append(b.nodes, n)
			}
		}
		var good []*bucket
		for _, b := range buckets {
			if len(b.nodes) > 1 && k.score(b, slots) {
				good = append(good, b)
			}
		}
		if len(good) == 0 {
			break
		}
		slices.SortFunc(good, func(a, b *bucket) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.key, b.key)) })
		for _, b := range good {
			if slices.ContainsFunc(b.nodes, func(n *node) bool { return n.dead }) {
				continue
			}
			var rows []*row
			for _, n := range b.nodes {
				n.dead = true
				rows = append(rows, n.rows...)
			}
			nodes = append(nodes, newNode(rows, slots))
		}
		nodes = slices.DeleteFunc(nodes, func(n *node) bool { return n.dead })
	}
	return nodes
}

// unite makes one of nodes that have come to the same.
func (k *clusterer) unite(nodes []*node, slots []uint16) []*node {
	seen := make(map[uint64]*node, len(nodes))
	return slices.DeleteFunc(nodes, func(n *node) bool {
		key := hashCodes(n.codes, -1)
		if o := seen[key]; o != nil {
			o.rows = append(slices.Clip(o.rows), n.rows...)
			return true
		}
		seen[key] = n
		return false
	})
}

// score judges the place at which the nodes of b differ.
func (k *clusterer) score(b *bucket, slots []uint16) bool {
	var rows []*row
	for _, n := range b.nodes {
		rows = append(rows, n.rows...)
	}
	c := &column{}
	k.fill(c, rows, b.at)
	if len(c.values) < 2 {
		return false
	}
	codes := b.nodes[0].codes
	constants, signs := 0, 0
	for i, code := range codes {
		switch {
		case code.isWord() && i != b.at:
			constants++
		case code.kind() == codeSign:
			signs++
		}
	}
	if constants < 1 && signs < 4 {
		return false
	}
	b.score = k.judge(c, codes, int(slots[0]) == b.at)
	switch {
	case constants < 2:
		b.score -= 2.37
	case constants < 3:
		b.score += 0.56
	}
	return b.score > 0
}
