// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "math/bits"

// Options bound what a Miner keeps. Zero fields have the values for the log of one container, with which it takes less than
// 1 MiB.
type Options struct {
	// MaxPatterns is how many patterns there may be (0 is 512). Lines of others are counted by source and level alone.
	MaxPatterns int
	// MaxPatternsPerLevel is how many of them may have lines of one level (0 is 256). A pattern counts once for each source that
	// it has such lines of, since each is a time series of its own.
	MaxPatternsPerLevel int
	// MaxSkeletons is how many different lines are kept to learn from, without what is variable by its shape (0 is 1536). There
	// are two for each pattern at least.
	MaxSkeletons int
}

const (
	defaultPatterns         = 512
	defaultPatternsPerLevel = 256
	defaultSkeletons        = 1536
)

// Miner finds the patterns of the lines of one container, which may come from several sources. It is not safe for concurrent use.
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
	byLevel  [NumLevels]int      // pairs of a pattern and a source
	overflow counts

	newRows  int // since the last time that it learned
	newLines int // that the cache did not know, likewise
	inVain   int // times that it has learned next to nothing, one after the other
	scratch  []code
}

// maxText is how much of a message is looked at.
const maxText = 8 << 10

// singles is how many lines that were seen once are remembered by their hash when there is no room for more.
const singles = 1024

// New makes a Miner that knows nothing yet.
func New(opts Options) *Miner {
	if opts.MaxPatterns <= 0 {
		opts.MaxPatterns = defaultPatterns
	}
	if opts.MaxPatternsPerLevel <= 0 {
		opts.MaxPatternsPerLevel = defaultPatternsPerLevel
	}
	if opts.MaxSkeletons <= 0 {
		opts.MaxSkeletons = defaultSkeletons
	}
	opts.MaxSkeletons = max(opts.MaxSkeletons, 2*opts.MaxPatterns) // each pattern without a hole has its own
	m := &Miner{opts: opts, rows: map[uint64]*row{}, groups: map[uint64]*group{}, byID: map[uint64]*pattern{}, literal: map[uint64]*pattern{}}
	m.tokenizer.words = &m.words
	m.clusterer.words = &m.words
	m.cache.limit = max(64, min(1<<16, 2<<bits.Len(uint(opts.MaxSkeletons))))
	return m
}

// Add is AddFrom for messages of one source, with the number 0.
func (m *Miner) Add(text []byte, level Level) Pattern { return m.AddFrom(0, text, level) }

// AddFrom counts a message of the given level, from one of several sources that the caller numbers below MaxSources; what is
// above counts as the last. A line like one that was seen before allocates nothing.
func (m *Miner) AddFrom(source uint8, text []byte, level Level) Pattern {
	if level >= NumLevels {
		level = LevelUnknown
	}
	source = min(source, MaxSources-1)
	text = text[:min(len(text), maxText)]
	quick := quickHash(text)
	p, first := m.cache.get(quick).live(), false
	if p == nil {
		if p, first = m.add(text); p != nil {
			m.cache.put(quick, p)
		}
	}
	if p != nil {
		if levels := p.counts.of(source); levels != nil && levels[level] > 0 {
			levels[level]++
			return Pattern{m: m, p: p}
		}
	}
	return m.addFirst(p, source, level, first)
}

// addFirst counts the first message of a source and level that a pattern has, or one of no pattern.
func (m *Miner) addFirst(p *pattern, source uint8, level Level, first bool) Pattern {
	if p == nil || !m.admit(p, level, first) {
		m.overflow.add(source, level, 1)
		return Pattern{}
	}
	isNew := p.lines() == 0
	p.counts.add(source, level, 1)
	return Pattern{m: m, p: p, isNew: isNew}
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
	h := newHashes()
	for i := range tokens {
		t := &tokens[i]
		h.add(t.kind == tokenWord, t.kind != tokenSign, t.sign, t.space, t.hash)
	}
	return h.shape, h.skeleton
}

// hashes of a skeleton as it grows.
type hashes struct{ shape, skeleton uint64 }

func newHashes() hashes { return hashes{shape: mixB, skeleton: mixA} }

// add takes in a token: a word with a hash, another slot, or a sign.
func (h *hashes) add(isWord, isSlot bool, sign uint16, space bool, word uint64) {
	v := uint64(sign)
	if isSlot {
		v = 1 << 16
	}
	if space {
		v |= 1 << 17
	}
	h.shape = mix(h.shape, v)
	if isWord {
		v = word
		if space {
			v += mixA
		}
	}
	h.skeleton = mix(h.skeleton, v)
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

// Count is how many lines of a source and level a pattern has.
type Count struct {
	Pattern  Pattern // the overflow for lines of no pattern
	Source   uint8
	Level    Level
	Messages uint64
}

// Counts lists the patterns by source and level. The sum of them all is the number of messages that were added.
func (m *Miner) Counts() []Count {
	var list []Count
	for _, p := range m.patterns {
		list = p.counts.appendTo(list, Pattern{m: m, p: p})
	}
	return m.overflow.appendTo(list, Pattern{})
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

// Redact returns a message with <*> for all that is variable by its shape, such as numbers, addresses and secrets: what its
// template would be if it were the only message. It is bounded and valid as templates are.
func (m *Miner) Redact(text []byte) string {
	return shown(m.tokenizer.render(m.tokenizer.tokenize(text[:min(len(text), maxText)])))
}
