// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"fmt"
	"slices"
)

// Options bound what a Miner keeps. Zero fields have the values of DefaultOptions.
type Options struct {
	// MaxPatterns is how many patterns there may be, MaxPatternsPerLevel how many of them have lines of one level. Lines
	// of others are counted by level alone.
	MaxPatterns, MaxPatternsPerLevel int
	// MaxSkeletons is how many different lines are kept to learn from, without what is variable by its shape.
	MaxSkeletons int
}

// DefaultOptions are those for the log of one container. With them a Miner takes less than 1 MiB.
var DefaultOptions = Options{MaxPatterns: 512, MaxPatternsPerLevel: 256, MaxSkeletons: 1536}

// Miner finds the patterns of the lines of one stream. It is not safe for concurrent use.
type Miner struct {
	opts      Options
	tokenizer tokenizer
	words     words
	clusterer clusterer

	cache  cache
	rows   map[uint64]*row // by hash
	groups map[uint64]*group
	index  index
	single [singles]uint64 // hashes of lines for which there was no room when they were seen first
	clock  []*row          // in the order in which they may have to go
	hand   int
	codes  int // of all rows
	next   int // of the patterns that is looked at to have its place

	patterns []*pattern // none of which is part of another
	byID     map[uint64]*pattern
	literal  map[uint64]*pattern // by the hash of their first row
	byLevel  [NumLevels]int
	overflow [NumLevels]uint64

	newRows  int // since the last time that it learned
	newLines int // that the cache did not know, likewise
	inVain   int // times that it has learned next to nothing, one after the other
	scratch  []code
}

// maxText is how much of a message is looked at.
const maxText = 8 << 10

// singles is how many lines that were seen once are remembered by their hash when there is no room for more.
const singles = 1024

// pattern is lines that differ in values only.
type pattern struct {
	parent *pattern // that it is part of by now, or nil
	codes  []code
	counts [NumLevels]uint64
	rows   int // of them kept
	id     uint64
	hash   uint64 // of its first row

	learned bool // has holes that its rows do not have
	dead    bool // had to go for another one
}

// root is the pattern that p is part of.
func (p *pattern) root() *pattern {
	for p.parent != nil {
		if p.parent.parent != nil {
			p.parent = p.parent.parent
		}
		p = p.parent
	}
	return p
}

func (p *pattern) lines() (n uint64) {
	for _, c := range p.counts {
		n += c
	}
	return n
}

// New makes a Miner that knows nothing yet.
func New(opts Options) *Miner {
	if opts.MaxPatterns <= 0 {
		opts.MaxPatterns = DefaultOptions.MaxPatterns
	}
	if opts.MaxPatternsPerLevel <= 0 {
		opts.MaxPatternsPerLevel = DefaultOptions.MaxPatternsPerLevel
	}
	if opts.MaxSkeletons <= 0 {
		opts.MaxSkeletons = DefaultOptions.MaxSkeletons
	}
	opts.MaxSkeletons = max(opts.MaxSkeletons, 2*opts.MaxPatterns) // each pattern without a hole has its own
	m := &Miner{opts: opts, rows: map[uint64]*row{}, groups: map[uint64]*group{}, byID: map[uint64]*pattern{}, literal: map[uint64]*pattern{}}
	m.tokenizer.words = &m.words
	m.clusterer.words = &m.words
	m.cache.limit = max(64, min(1<<16, 1<<(bitLen(opts.MaxSkeletons)+1)))
	return m
}

func bitLen(n int) (b int) {
	for ; n > 0; n >>= 1 {
		b++
	}
	return b
}

// Pattern is what a line was found to be. Its identity and template are those of now: what is seen later may make it part of
// a more general one, or nothing if it had to go for another one.
type Pattern struct {
	m        *Miner
	p        *pattern
	template string // of a line that the miner does not have
}

// IsOverflow tells that there was no room for the pattern: the line was counted by its level alone.
func (p Pattern) IsOverflow() bool { return p.p.live() == nil && p.template == "" }

// ID is the identity of the pattern, 16 hex digits: the same for the same template anywhere. It is "" for the overflow.
func (p Pattern) ID() string {
	switch live := p.p.live(); {
	case live != nil:
		return fmt.Sprintf("%016x", p.m.identity(live))
	case p.template != "":
		return fmt.Sprintf("%016x", identityOf([]byte(p.template)))
	}
	return ""
}

// Template has the words of the pattern, and <*> for what is variable.
func (p Pattern) Template() string {
	if live := p.p.live(); live != nil {
		return string(p.m.words.render(nil, live.codes))
	}
	return p.template
}

// live is the pattern that p is part of, nil for none.
func (p *pattern) live() *pattern {
	if p == nil {
		return nil
	}
	if p = p.root(); p.dead {
		return nil
	}
	return p
}

// Version of identities. It changes when the same line may get another template.
const Version = 1

// identity is the version and 56 bits of the hash of the template.
func (m *Miner) identity(p *pattern) uint64 {
	if p.id == 0 {
		p.id = identityOf(m.words.render(nil, p.codes))
	}
	return p.id
}

func identityOf(template []byte) uint64 { return Version<<56 | hashBytes(template)>>8 }

// Add counts a message of the given level. A line like one that was seen before allocates nothing.
func (m *Miner) Add(text []byte, level Level) Pattern {
	if level >= NumLevels {
		level = LevelUnknown
	}
	text = text[:min(len(text), maxText)]
	quick := quickHash(text)
	p, first := m.cache.get(quick).live(), false
	if p == nil {
		if p, first = m.add(text); p != nil {
			m.cache.put(quick, p)
		}
	}
	if p == nil || p.counts[level] == 0 && !m.admit(level, first) {
		m.overflow[level]++
		return Pattern{}
	}
	p.counts[level]++
	return Pattern{m: m, p: p}
}

// admit tells whether one more pattern may have lines of a level. One that is seen again may have the place of another that was
// not.
func (m *Miner) admit(level Level, first bool) bool {
	if m.byLevel[level] >= m.opts.MaxPatternsPerLevel && (first || !m.reclaim(level)) {
		return false
	}
	m.byLevel[level]++
	return true
}

// add finds the pattern of a line that the cache does not have, nil for none, and tells whether it has not seen the line before.
func (m *Miner) add(text []byte) (p *pattern, first bool) {
	m.newLines++
	tokens := m.tokenizer.tokenize(text)
	shape, hash := hashTokens(tokens)
	if r := m.rows[hash]; r != nil { // the cache had no room for it, or it is seen for the second time
		if r.p = r.p.live(); r.p == nil {
			r.p = m.newPattern(r, true)
		}
		return r.p, false
	}
	if p = m.literal[hash].live(); p != nil { // its row had to go
		return p, false
	}
	p = m.match(tokens, shape)
	if p != nil && (p.rows >= manyRows || p.rows >= someRows && len(m.rows) > m.opts.MaxSkeletons/2) {
		return p, false
	}
	if m.isFull() {
		if p != nil {
			return p, false
		}
		if slot := &m.single[hash%singles]; *slot != hash && hash>>32&(1<<(4+m.inVain/2)-1) != 0 {
			*slot = hash
			return nil, true
		}
		m.evict()
		for m.codes >= m.opts.MaxSkeletons*meanCodes {
			m.evict()
		}
	}
	r := m.addRow(tokens, shape, hash)
	if r.p = p; p == nil {
		r.p = m.newPattern(r, false)
	} else {
		p.rows++
		return p, false
	}
	if m.newRows++; m.isDue() {
		m.Learn()
	}
	return r.p.live(), true
}

const (
	// manyRows of a pattern are kept while there is room, someRows later.
	manyRows, someRows = 48, 12
)

// isDue tells whether there is enough that is new to learn from it. What brings nothing is done less and less often.
func (m *Miner) isDue() bool {
	return m.newRows >= max(4, len(m.rows)/8) && m.newLines >= len(m.rows)/8<<m.inVain
}

// hashTokens tells the shape of a skeleton, and the skeleton, by hashes.
func hashTokens(tokens []token) (shape, hash uint64) {
	shape, hash = mixB, mixA
	for i := range tokens {
		t := &tokens[i]
		v := uint64(t.sign)
		if t.kind != tokenSign {
			v = 1 << 16
		}
		if t.space {
			v |= 1 << 17
		}
		shape = mix(shape, v)
		if t.kind == tokenWord {
			v = t.hash
			if t.space {
				v += mixA
			}
		}
		hash = mix(hash, v)
	}
	return shape, hash
}

// codesOf makes codes of tokens; words that are not known have no id.
func (m *Miner) codesOf(to []code, tokens []token, learn bool) []code {
	for i := range tokens {
		t := &tokens[i]
		var c code
		switch t.kind {
		case tokenHole:
			c = codeHole
		case tokenSign:
			c = codeSign | code(t.sign)
		case tokenWord:
			id := t.id
			if id == 0 && learn {
				text := m.tokenizer.textOf(t)
				if id = m.words.find(t.hash, text); id == 0 {
					id = m.words.add(t.hash, text, m.tokenizer.flags(t))
				}
			}
			c = code(id)
		}
		if t.space {
			c |= codeSpace
		}
		to = append(to, c)
	}
	return to
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
	case !again, n >= m.opts.MaxPatterns && !m.reclaim(NumLevels):
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

// reclaim takes the place of a pattern of one line, of the given level or, for NumLevels, of any, which is counted by its level
// alone then.
func (m *Miner) reclaim(level Level) bool {
	for range min(len(m.patterns), maxReclaim) {
		if m.next++; m.next >= len(m.patterns) {
			m.next = 0
		}
		p := m.patterns[m.next]
		if p.lines() > 1 || p.learned || level < NumLevels && p.counts[level] == 0 {
			continue
		}
		for level, n := range p.counts {
			if n > 0 {
				m.overflow[level] += n
				m.byLevel[level]--
			}
		}
		delete(m.byID, m.identity(p))
		delete(m.literal, p.hash)
		p.dead, p.counts = true, [NumLevels]uint64{}
		last := len(m.patterns) - 1
		m.patterns[m.next] = m.patterns[last]
		m.patterns = m.patterns[:last]
		return true
	}
	return false
}

// maxReclaim is how many patterns are looked at for one that may go.
const maxReclaim = 16

// Count is how many lines of a level a pattern has.
type Count struct {
	Pattern  Pattern // the overflow for lines of no pattern
	Level    Level
	Messages uint64
}

// Counts lists the patterns by level. The sum of them all is the number of messages that were added.
func (m *Miner) Counts() []Count {
	var list []Count
	for _, p := range m.patterns {
		for level, n := range p.counts {
			if n > 0 {
				list = append(list, Count{Pattern{m: m, p: p}, Level(level), n}) //nolint:gosec // few
			}
		}
	}
	for level, n := range m.overflow {
		if n > 0 {
			list = append(list, Count{Pattern{}, Level(level), n}) //nolint:gosec // few
		}
	}
	return list
}

// Find tells what a message would be, without counting it.
func (m *Miner) Find(text []byte) Pattern {
	tokens := m.tokenizer.tokenize(text[:min(len(text), maxText)])
	shape, hash := hashTokens(tokens)
	if r := m.rows[hash]; r != nil && r.p.live() != nil {
		return Pattern{m: m, p: r.p.live()}
	}
	if p := m.literal[hash].live(); p != nil {
		return Pattern{m: m, p: p}
	}
	if p := m.match(tokens, shape); p != nil {
		return Pattern{m: m, p: p}
	}
	return Pattern{m: m, template: string(m.tokenizer.render(tokens))}
}
