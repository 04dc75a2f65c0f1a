// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// ErrState is the error of a state that a Miner cannot take in.
var ErrState = errors.New("not a state of patterns")

// state is what a Miner knows, as it is saved.
type state struct {
	Version  int            `json:"version"`
	Patterns []patternState `json:"patterns"`
	Values   [][]byte       `json:"values,omitempty"` // words that are values
	Overflow []uint64       `json:"overflow"`         // as the counts of a pattern
}

// patternState is a pattern. Each token has a letter before its text: w for a word, s for a sign, h for a hole, g for a gap;
// capital letters stand for those behind a blank.
type patternState struct {
	Tokens  [][]byte `json:"tokens"` // not always valid UTF-8
	Counts  []uint64 `json:"counts"` // by Level, those of one source behind the other
	Learned bool     `json:"learned,omitempty"`
}

// Save returns what the miner knows: patterns and counts, for Restore in another process.
func (m *Miner) Save() ([]byte, error) {
	s := state{Version: Version, Overflow: m.overflow.flat()}
	for _, p := range m.patterns {
		s.Patterns = append(s.Patterns, patternState{m.tokensOf(p.codes), p.counts.flat(), p.learned})
	}
	for id := range m.words.list {
		if m.words.list[id].holes > 0 {
			s.Values = append(s.Values, m.words.text(uint32(id+1))) //nolint:gosec // bounded
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("patterns: %w", err)
	}
	return b, nil
}

func (m *Miner) tokensOf(codes []code) [][]byte {
	list := make([][]byte, len(codes))
	for i, c := range codes {
		letter, text := byte('w'), []byte(nil)
		switch c.kind() {
		case codeHole:
			letter = 'h'
		case codeGap:
			letter = 'g'
		case codeSign:
			letter, text = 's', m.words.render(nil, []code{c.noSpace()})
		default:
			text = m.words.text(c.word())
		}
		if c.space() != 0 {
			letter -= 'a' - 'A'
		}
		list[i] = append([]byte{letter}, text...)
	}
	return list
}

// Restore takes in what Save has returned, in place of all that the miner knew. Patterns past the limits are counted as
// overflow. After an error, which is ErrState, the miner knows nothing.
func (m *Miner) Restore(saved []byte) error {
	*m = *New(m.opts)
	m.tokenizer.words, m.clusterer.words = &m.words, &m.words
	var s state
	if err := json.Unmarshal(saved, &s); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	if s.Version != Version {
		return fmt.Errorf("%w: version %d", ErrState, s.Version)
	}
	eachFlat(s.Overflow, m.overflow.add)
	for _, p := range s.Patterns {
		codes, err := m.codesFrom(p.Tokens)
		if err != nil {
			*m = *New(m.opts)
			m.tokenizer.words, m.clusterer.words = &m.words, &m.words
			return err
		}
		m.restore(codes, p.Counts, p.Learned)
	}
	for _, v := range s.Values {
		if id := m.words.find(hashBytes(v), v); id != 0 {
			m.words.list[id-1].holes = 1
		}
	}
	m.reindex()
	return nil
}

func (m *Miner) codesFrom(tokens [][]byte) ([]code, error) {
	if len(tokens) > maxTokens+8 {
		return nil, fmt.Errorf("%w: pattern of %d tokens", ErrState, len(tokens))
	}
	codes := make([]code, 0, len(tokens))
	for _, t := range tokens {
		if len(t) == 0 || len(t) > maxQuoted+1 {
			return nil, fmt.Errorf("%w: token %q", ErrState, t)
		}
		var c code
		text := t[1:]
		switch t[0] | 0x20 {
		case 'h':
			c = codeHole
		case 'g':
			c = codeGap
		case 's':
			if len(text) < 1 || len(text) > 2 || text[0] != text[len(text)-1] {
				return nil, fmt.Errorf("%w: sign %q", ErrState, t)
			}
			if c = codeSign | code(text[0]); len(text) == 2 {
				c |= signTwice
			}
		case 'w':
			hash := hashBytes(text)
			id := m.words.find(hash, text)
			if id == 0 {
				id = m.words.add(hash, text, flagsOf(text))
			}
			c = code(id)
		default:
			return nil, fmt.Errorf("%w: token %q", ErrState, t)
		}
		if upperByte(t[0]) {
			c |= codeSpace
		}
		codes = append(codes, c)
	}
	return codes, nil
}

// restore makes a pattern of codes, and a row of them by which it takes part in what is learned. There is no such row of one
// that was learned: it would stand for only one of many.
func (m *Miner) restore(codes []code, flat []uint64, learned bool) {
	if len(m.patterns) >= m.opts.MaxPatterns || m.wordsUsed() > 1 {
		eachFlat(flat, m.overflow.add)
		return
	}
	p := &pattern{codes: codes, learned: learned}
	m.byID[m.identity(p)] = p
	m.patterns = append(m.patterns, p)
	m.addCounts(p, flat)
	shape, hash := m.words.hashesOf(codes)
	if learned || m.rows[hash] != nil {
		return
	}
	p.rows, p.hash = 1, hash
	m.literal[hash] = p
	m.keep(&row{codes: slices.Clone(codes), hash: hash, p: p}, shape)
}

// addCounts adds to those of a pattern what there is room for, and the rest to the overflow.
func (m *Miner) addCounts(p *pattern, flat []uint64) {
	eachFlat(flat, func(source uint8, level Level, n uint64) {
		switch {
		case p.counts.has(source, level):
			p.counts.add(source, level, n)
		case m.byLevel[level] >= m.opts.MaxPatternsPerLevel:
			m.overflow.add(source, level, n)
		default:
			m.byLevel[level]++
			p.counts.add(source, level, n)
		}
	})
}

// hashesOf is hashTokens of codes.
func (ws *words) hashesOf(codes []code) (shape, hash uint64) {
	h := newHashes()
	for _, c := range codes {
		var word uint64
		if c.isWord() {
			word = ws.list[c.word()-1].hash
		}
		h.add(c.isWord(), c.isSlot(), c.sign(), c.space() != 0, word)
	}
	return h.shape, h.skeleton
}
