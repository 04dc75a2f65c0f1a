// SPDX-License-Identifier: Apache-2.0

// Package corpus makes log lines of known origin: which template and which level each line has is known,
// because the line was made from it.
//
// A system (postgres, kafka, ...) is a text file of templates, weights and vocabularies. The lines are of our own
// making, after the way such software logs. The package is imported by tests alone.
//
// A file has one directive a line; # begins a comment line:
//
//	frame text|json|logfmt
//	header TEXT                 text frame: stands before the content; its trailing blank counts
//	fields TEXT                 json and logfmt frame: the whole line, with {msg} where the quoted content stands
//	vocab NAME = A, B c, D      values of {NAME}, the first the most frequent; goes before a kind of the same name
//	t WEIGHT LEVEL[=WRITTEN] CONTENT
//
// The kinds of variables are in kinds.go.
package corpus

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"time"
)

// A System is one program with all that it can log.
type System struct {
	Name      string     // file name without .txt
	Frame     string     // text, json or logfmt
	Templates []Template // in the order of the file

	frame []part
}

// A Template is one log statement of a program.
type Template struct {
	Text   string // as in the file, variables in braces
	Weight int    // relative frequency, at least 1
	Level  string // DEBUG, INFO, WARNING, ERROR, CRITICAL or UNKNOWN

	written string // how a raw line spells the level; "" means as {level} says
	parts   []part
}

// A Line is a generated line and the truth about it.
type Line struct {
	Raw      string // the whole line, without a newline
	Content  string // the message in it
	Template int    // index in System.Templates
	Level    string // as in Template
}

// minRare is how often the rarest template occurs in an output that is long enough.
const minRare = 2

// Load reads all *.txt files at the top of fsys, in the order of their names.
//
// Errors name file and line; all of them are given, joined. Beside the error stand the systems whose files are right.
func Load(fsys fs.FS) ([]System, error) {
	names, err := fs.Glob(fsys, "*.txt")
	if err != nil {
		return nil, fmt.Errorf("listing the corpus: %w", err)
	}
	var systems []System
	var errs []error
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("reading the corpus: %w", err))
			continue
		}
		s, err := parseSystem(strings.TrimSuffix(name, ".txt"), string(text))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		systems = append(systems, s)
	}
	return systems, errors.Join(errs...)
}

// Generate makes n lines, the same for the same seed.
//
// Templates are drawn by weight, but each occurs at least twice, unless n is less than four times their number.
func (s *System) Generate(seed uint64, n int) []Line {
	h := fnv.New64a()
	h.Write([]byte(s.Name))
	st := &state{
		r:   rand.New(rand.NewPCG(seed, h.Sum64())), //nolint:gosec // not for secrets: must be repeatable
		now: time.Date(2026, 3, 2, 6, 0, 0, 0, time.UTC).Add(time.Duration(seed%100_000) * 777 * time.Second),
	}
	for range 6 {
		st.pids = append(st.pids, 300+st.r.IntN(64_000))
	}
	lines := make([]Line, 0, n)
	for _, at := range s.order(st.r, n) {
		t := &s.Templates[at]
		st.now = st.now.Add(time.Duration(st.r.ExpFloat64() * float64(400*time.Millisecond)))
		st.level, st.written = t.Level, t.written
		content := render(t.parts, st)
		st.content = content
		raw := render(s.frame, st)
		if s.Frame == frameText {
			raw += content
		}
		lines = append(lines, Line{Raw: raw, Content: content, Template: at, Level: t.Level})
	}
	return lines
}

// order gives the template of each of n lines.
func (s *System) order(r *rand.Rand, n int) []int {
	total := 0
	upTo := make([]int, len(s.Templates))
	for i, t := range s.Templates {
		total += t.Weight
		upTo[i] = total
	}
	order, count := make([]int, n), make([]int, len(s.Templates))
	for i := range order {
		x := r.IntN(total)
		at := sort.Search(len(upTo), func(t int) bool { return upTo[t] > x })
		order[i] = at
		count[at]++
	}
	if 2*minRare*len(s.Templates) > n {
		return order
	}
	// What came too seldom takes places of what came most often.
	i := 0
	for at := range count {
		for count[at] < minRare {
			if most := slices.Max(count); count[order[i]] > most/2 && count[order[i]] > minRare {
				count[order[i]]--
				count[at]++
				order[i] = at
			}
			i = (i + 1) % n
		}
	}
	return order
}
