// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	frameText   = "text"
	frameJSON   = "json"
	frameLogfmt = "logfmt"
)

// levels are those that a template may have.
var levels = []string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "UNKNOWN"}

// part is a piece of a template: constant text, or a variable when draw is set.
type part struct {
	text string
	kind string
	draw func(*state) string
}

// source is a file while it is read.
type source struct {
	system    System
	vocabs    map[string][]string
	templates []int // line numbers of system.Templates
	frame     string
	frameLine int
}

func parseSystem(name, text string) (System, error) {
	src := source{
		system: System{Name: name, Frame: frameText},
		vocabs: map[string][]string{},
	}
	var errs []error
	wrong := func(line int, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.txt:%d: %w", name, line, err))
		}
	}
	for i, line := range strings.Split(text, "\n") {
		wrong(i+1, src.directive(i+1, line))
	}
	// Vocabularies may stand below the templates that use them.
	seen := map[string]int{}
	for i := range src.system.Templates {
		t, line := &src.system.Templates[i], src.templates[i]
		if first, ok := seen[t.Text]; ok {
			wrong(line, fmt.Errorf("same content as line %d", first))
		}
		seen[t.Text] = line
		var err error
		t.parts, err = src.compile(t.Text, true)
		wrong(line, err)
	}
	wrong(src.frameLine, src.compileFrame())
	if len(src.system.Templates) == 0 {
		wrong(1, errors.New("no templates"))
	}
	return src.system, errors.Join(errs...)
}

func (src *source) directive(number int, line string) error {
	if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "frame":
		src.system.Frame = strings.TrimSpace(rest)
		if !slices.Contains([]string{frameText, frameJSON, frameLogfmt}, src.system.Frame) {
			return fmt.Errorf("frame %q: want text, json or logfmt", src.system.Frame)
		}
	case "header", "fields":
		src.frame, src.frameLine = rest, number
	case "vocab", "logger", "thread", "host":
		if word != "vocab" {
			rest = word + " " + strings.TrimPrefix(rest, "main ")
		}
		return src.vocab(rest)
	case "t":
		src.templates = append(src.templates, number)
		src.system.Templates = append(src.system.Templates, Template{})
		return src.system.Templates[len(src.templates)-1].parse(rest)
	default:
		return fmt.Errorf("unknown directive %q", word)
	}
	return nil
}

func (src *source) vocab(s string) error {
	name, list, ok := strings.Cut(s, "=")
	name = strings.TrimSpace(name)
	if !ok || !isName(name) {
		return fmt.Errorf("vocabulary %q: want NAME = VALUE, VALUE", s)
	}
	if _, ok := src.vocabs[name]; ok {
		return fmt.Errorf("vocabulary %s is there twice", name)
	}
	for v := range strings.SplitSeq(list, ", ") {
		v = strings.TrimSpace(v)
		if v == "" {
			return fmt.Errorf("vocabulary %s has an empty value", name)
		}
		if strings.Contains(v, "{{") { // as in a template; JSON has }} alone as well
			v = strings.NewReplacer("{{", "{", "}}", "}").Replace(v)
		}
		src.vocabs[name] = append(src.vocabs[name], v)
	}
	return nil
}

// parse reads "WEIGHT LEVEL[=WRITTEN] CONTENT".
func (t *Template) parse(s string) error {
	f := strings.SplitN(s, " ", 3)
	if len(f) != 3 || strings.TrimSpace(f[2]) == "" {
		return fmt.Errorf("template %q: want WEIGHT LEVEL CONTENT", s)
	}
	var err error
	t.Weight, err = strconv.Atoi(f[0])
	if err != nil || t.Weight < 1 {
		return fmt.Errorf("weight %q: want a whole number above 0", f[0])
	}
	t.Level, t.written, _ = strings.Cut(f[1], "=")
	if !slices.Contains(levels, t.Level) {
		return fmt.Errorf("level %q: want one of %s", t.Level, strings.Join(levels, " "))
	}
	t.Text = f[2]
	return nil
}

// compileFrame makes the parts of header or fields.
//
// In JSON }} may be the end of two objects or a literal brace; the reading that makes valid JSON is taken.
func (src *source) compileFrame() error {
	var err error
	s := &src.system
	if s.Frame == frameText {
		s.frame, err = src.compile(src.frame, true)
		return err
	}
	if s.frame, err = src.compile(src.frame, false); err != nil {
		return err
	}
	if !slices.ContainsFunc(s.frame, func(p part) bool { return p.kind == "msg" }) {
		return fmt.Errorf("%s frame without fields that have {msg}", s.Frame)
	}
	if s.Frame == frameLogfmt || src.validJSON() {
		return nil
	}
	if s.frame, err = src.compile(src.frame, true); err != nil || !src.validJSON() {
		return errors.New("fields do not make valid JSON")
	}
	return nil
}

func (src *source) validJSON() bool {
	sample := render(src.system.frame, &state{r: rand.New(rand.NewPCG(1, 1)), now: time.Unix(1, 0), pids: []int{1}, level: "INFO"})
	return json.Valid([]byte(sample))
}

// compile cuts text at its variables. When doubled is set, {{ and }} are literal braces and a single one
// is an error; when not, a brace that begins no variable stands for itself.
func (src *source) compile(text string, doubled bool) ([]part, error) {
	var parts []part
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			parts = append(parts, part{text: lit.String()})
			lit.Reset()
		}
	}
	h := fnv.New64a()
	h.Write([]byte(text))
	for i := 0; i < len(text); {
		c := text[i]
		if c != '{' && c != '}' {
			lit.WriteByte(c)
			i++
			continue
		}
		if doubled && i+1 < len(text) && text[i+1] == c {
			lit.WriteByte(c)
			i += 2
			continue
		}
		end := strings.IndexByte(text[i:], '}')
		if c == '{' && end > 1 {
			kind, arg, hasArg := strings.Cut(text[i+1:i+end], ":")
			if isName(kind) {
				// Each place has a number of its own, which makes it favour other values than the next place.
				draw, err := src.drawer(kind, arg, hasArg, h.Sum64()+uint64(len(parts)))
				if err != nil {
					return nil, err
				}
				flush()
				parts = append(parts, part{kind: kind, draw: draw})
				i += end + 1
				continue
			}
		}
		if doubled {
			return nil, fmt.Errorf("lone brace at column %d of the content", i+1)
		}
		lit.WriteByte(c)
		i++
	}
	flush()
	return parts, nil
}

func render(parts []part, st *state) string {
	var b strings.Builder
	for _, p := range parts {
		if p.draw != nil {
			b.WriteString(p.draw(st))
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

// isName tells whether s can be the name of a kind or vocabulary.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}
