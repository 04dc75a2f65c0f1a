// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "fmt"

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
