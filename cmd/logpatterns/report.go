// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"slices"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
)

// levelCounts are messages by level.
type levelCounts [logpatterns.NumLevels]uint64

func (c *levelCounts) sum() (n uint64) {
	for _, v := range c {
		n += v
	}
	return n
}

// MarshalJSON gives the levels that there are by their names.
func (c levelCounts) MarshalJSON() ([]byte, error) {
	names := map[string]uint64{}
	for level, n := range c {
		if n > 0 {
			names[logpatterns.Level(level).String()] = n //nolint:gosec // few
		}
	}
	return json.Marshal(names)
}

// report is what was found, as JSON has it. Messages are those that are counted: of the level that was asked for, and with a state also
// those of the runs before. Lines are those of this run; a message has one or more.
type report struct {
	Lines        uint64      `json:"lines"`
	BlankLines   uint64      `json:"blank_lines"`
	CutLines     uint64      `json:"cut_lines"` // longer than maxLine
	Interrupted  bool        `json:"interrupted"`
	Messages     uint64      `json:"messages"`
	Levels       levelCounts `json:"levels"`
	Overflow     levelCounts `json:"overflow"` // messages without a pattern
	PatternCount int         `json:"pattern_count"`
	Patterns     []found     `json:"patterns"` // the most frequent first

	minLevel logpatterns.Level
	ofRun    uint64 // messages of this run, of any level
}

// found is one pattern.
type found struct {
	ID        string      `json:"id"`
	Template  string      `json:"template"`
	Messages  uint64      `json:"messages"`
	Levels    levelCounts `json:"levels"`
	FirstLine uint64      `json:"first_line,omitempty"` // none in this run: it is from the state
}

func newReport(t *tally, minLevel logpatterns.Level, interrupted bool) report {
	r := report{
		Lines: t.lines, BlankLines: t.blank, CutLines: t.cut, Interrupted: interrupted,
		Patterns: []found{}, minLevel: minLevel, ofRun: t.messages,
	}
	places := map[string]int{} // two patterns may have one template
	first := t.firsts.byID()
	for _, c := range t.miner.Counts() {
		if c.Level < minLevel {
			continue
		}
		r.Messages += c.Messages
		r.Levels[c.Level] += c.Messages
		if c.Pattern.IsOverflow() {
			r.Overflow[c.Level] += c.Messages
			continue
		}
		id := c.Pattern.ID()
		at, have := places[id]
		if !have {
			at = len(r.Patterns)
			places[id] = at
			r.Patterns = append(r.Patterns, found{ID: id, Template: c.Pattern.Template(), FirstLine: first[id]})
		}
		p := &r.Patterns[at]
		p.Messages += c.Messages
		p.Levels[c.Level] += c.Messages
	}
	slices.SortFunc(r.Patterns, func(a, b found) int {
		return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(a.Template, b.Template), cmp.Compare(a.ID, b.ID))
	})
	r.PatternCount = len(r.Patterns)
	return r
}

// topOf returns the first patterns, all for 0, and how many messages the others have.
func (r *report) topOf(top int) (shown []found, left uint64) {
	if top == 0 || top > len(r.Patterns) {
		top = len(r.Patterns)
	}
	for i := range r.Patterns[top:] {
		left += r.Patterns[top+i].Messages
	}
	return r.Patterns[:top], left
}

func printJSON(out *bufio.Writer, r report, top int) error {
	r.Patterns, _ = r.topOf(top)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false) // templates have <*>
	enc.SetIndent("", "  ")
	return asOutput(enc.Encode(r))
}
