// SPDX-License-Identifier: Apache-2.0

package apptype

import (
	"bufio"
	_ "embed" // types.txt
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

//go:embed types.txt
var typesTXT string

// maxLine bounds the memory that a line of a table costs.
const maxLine = 64 << 10

var (
	typeName   = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*$`)
	conditions = []string{"first", "if", "unless", "takes", "runs", "stop"}
)

// Default returns the table that is compiled in. It parses it each time.
func Default() (*Table, error) {
	return Parse(strings.NewReader(typesTXT))
}

// Parse reads a table in the format that the top of types.txt describes. Errors name the line; those of r are wrapped.
func Parse(r io.Reader) (*Table, error) {
	t := &Table{
		byExe:   map[string][]*rule{},
		byName:  map[string][]*rule{},
		byStem:  map[string][]*rule{},
		mainsOf: map[string]*mains{},
	}
	runtimes := map[string]bool{}
	used := map[string]int{} // runtime, line of its first use
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	n := 0
	for lines.Scan() {
		n++
		words, err := split(lines.Text())
		if err == nil && len(words) > 0 {
			err = t.add(words, n, runtimes, used)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n+1, err)
	}
	for kind, line := range used {
		if !runtimes[kind] {
			return nil, fmt.Errorf("line %d: no runtime has the type %q", line, kind)
		}
	}
	return t, nil
}

// split cuts a line into words. Quotes keep a space in a word; # begins a comment where a word could begin.
func split(line string) ([]string, error) {
	var words []string
	for {
		line = strings.TrimLeft(line, " \t\r")
		if line == "" || line[0] == '#' {
			return words, nil
		}
		if line[0] == '"' {
			word, rest, ok := strings.Cut(line[1:], `"`)
			if !ok || word == "" {
				return nil, errors.New("a quote without an end, or nothing in it")
			}
			words, line = append(words, `"`+word), rest
			continue
		}
		end := strings.IndexAny(line, " \t\r\"")
		if end < 0 {
			end = len(line)
		}
		words, line = append(words, line[:end]), line[end:]
	}
}

// add takes one line: types, kind, names, conditions.
func (t *Table) add(words []string, line int, runtimes map[string]bool, used map[string]int) error {
	if len(words) < 3 {
		return errors.New("a rule has at least a type, a kind and a name")
	}
	base, kind := rule{}, words[1]
	if words[0] != "-" {
		base.types = strings.Split(words[0], ",")
		for _, name := range base.types {
			if !typeName.MatchString(name) {
				return fmt.Errorf("type %q: small letters, digits, dots and dashes only", name)
			}
		}
	}
	names, err := base.conditions(words[2:], kind)
	if err != nil {
		return err
	}
	target, isMain := strings.CutPrefix(kind, "main:")
	switch {
	case isMain:
		if used[target] == 0 {
			used[target] = line
		}
	case kind == "runtime":
		if len(base.types) != 1 {
			return errors.New("a runtime has one type")
		}
		base.runtime.kind = base.types[0]
		runtimes[base.runtime.kind] = true
	case kind != "program" && kind != "exe":
		return fmt.Errorf("unknown kind %q", kind)
	}
	for _, name := range names {
		r := base
		if err := t.addName(&r, name, kind); err != nil {
			return err
		}
	}
	return nil
}

// addName files a rule under one of its names.
func (t *Table) addName(r *rule, name, kind string) error {
	stem, versioned := strings.CutSuffix(name, "#")
	target, isMain := strings.CutPrefix(kind, "main:")
	wild := strings.Contains(stem, "*")
	switch {
	case wild && (!isMain || versioned):
		return fmt.Errorf("name %q: a wildcard only stands in the name of what a runtime runs, without #", name)
	case versioned && (isMain || kind == "exe"):
		return fmt.Errorf("name %q: a version is only understood for programs and runtimes", name)
	case strings.Contains(strings.Trim(stem, "*"), "*"):
		return fmt.Errorf("name %q: a wildcard inside", name)
	}
	if strings.Contains(stem, "/") && !wild {
		r.path = stem
	}
	r.name = stem
	if !wild {
		r.name = programOf(stem).name
	}
	if r.name == "" || strings.Trim(r.name, "*") == "" {
		return fmt.Errorf("name %q: nothing to find", name)
	}
	if isMain {
		m := t.mainsOf[target]
		if m == nil {
			m = &mains{byName: map[string][]*rule{}}
			t.mainsOf[target] = m
		}
		if wild {
			m.globs = append(m.globs, r)
		} else {
			m.byName[r.name] = append(m.byName[r.name], r)
		}
		return nil
	}
	if kind == "exe" {
		t.byExe[r.name] = append(t.byExe[r.name], r)
		return nil
	}
	t.byName[r.name] = append(t.byName[r.name], r)
	if versioned {
		t.byStem[r.name] = append(t.byStem[r.name], r)
	}
	return nil
}

// conditions takes what follows the kind: names, and after each keyword the words of that condition. It returns the names.
func (r *rule) conditions(words []string, kind string) ([]string, error) {
	var names []string
	rt := &runtime{}
	lists := map[string]*[]string{
		"": &names, "first": &r.first, "if": &r.any, "unless": &r.unless,
		"takes": &rt.takes, "runs": &rt.runs, "stop": &rt.stop,
	}
	keyword := ""
	for i, word := range words {
		if slices.Contains(conditions, word) {
			if i > 0 && len(*lists[keyword]) == 0 {
				return nil, fmt.Errorf("nothing after %q", keyword)
			}
			keyword = word
			if len(*lists[keyword]) > 0 {
				return nil, fmt.Errorf("%q twice", keyword)
			}
			continue
		}
		text, quoted := strings.CutPrefix(word, `"`)
		if quoted && keyword != "if" && keyword != "unless" && strings.Contains(text, " ") {
			return nil, fmt.Errorf("%q: two arguments only stand after if and unless", text)
		}
		for part := range strings.SplitSeq(text, " ") {
			if (keyword == "if" || keyword == "unless") && strings.Contains(strings.Trim(part, "*"), "*") {
				return nil, fmt.Errorf("%q: a wildcard inside", part)
			}
		}
		*lists[keyword] = append(*lists[keyword], text)
	}
	if len(names) == 0 {
		return nil, errors.New("no name")
	}
	if len(*lists[keyword]) == 0 {
		return nil, fmt.Errorf("nothing after %q", keyword)
	}
	if kind == "runtime" {
		r.runtime = rt
	} else if rt.takes != nil || rt.runs != nil || rt.stop != nil {
		return nil, errors.New("takes, runs and stop are for runtimes")
	}
	return names, nil
}
