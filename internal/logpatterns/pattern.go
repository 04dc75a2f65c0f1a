// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// pattern is lines that differ in values only.
type pattern struct {
	parent *pattern // that it is part of by now, or nil
	codes  []code
	counts counts
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

func (p *pattern) lines() uint64 { return p.counts.sum() }

// Pattern is what a line was found to be. Its identity and template are those of now: what is seen later may make it part of
// a more general one, or nothing if it had to go for another one. Two of one pattern need not be equal: compare their ID.
type Pattern struct {
	m        *Miner
	p        *pattern
	template string // of a line that the miner does not have
	isNew    bool
}

// IsNew tells of what Add and AddFrom return whether the message has begun the pattern: no message was counted in it before, from any
// source, of any level. One that had to go for another one may begin again.
func (p Pattern) IsNew() bool { return p.isNew }

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

// Key is the number that ID writes out, 0 for the overflow.
func (p Pattern) Key() uint64 {
	switch live := p.p.live(); {
	case live != nil:
		return p.m.identity(live)
	case p.template != "":
		return identityOf([]byte(p.template))
	}
	return 0
}

// Template has the words of the pattern, and <*> for what is variable. It is valid UTF-8 of at most 1,024 bytes: bytes that are
// no text are U+FFFD, and what is longer ends with an ellipsis. The identity is that of the whole, as the logger wrote it.
func (p Pattern) Template() string {
	if live := p.p.live(); live != nil {
		return shown(p.m.words.render(nil, live.codes))
	}
	return shown([]byte(p.template))
}

const (
	// maxTemplate is how many bytes of a template are shown.
	maxTemplate = 1024
	ellipsis    = "…"
)

// shown is a template as it leaves the package.
func shown(template []byte) string {
	s := strings.ToValidUTF8(string(template), string(utf8.RuneError))
	if len(s) <= maxTemplate {
		return s
	}
	end := maxTemplate - len(ellipsis)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
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
