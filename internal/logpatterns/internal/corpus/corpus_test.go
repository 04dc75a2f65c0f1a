// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const corpusDir = "../../testdata/corpus"

// dumpDir is for work on the miner: go test -run TestDump -dump DIR.
var dumpDir = flag.String("dump", "", "write the lines of each system below this directory")

func load(t *testing.T) []System {
	t.Helper()
	systems, err := Load(os.DirFS(corpusDir))
	if err != nil {
		t.Fatal(err)
	}
	if len(systems) == 0 {
		t.Fatal("no systems")
	}
	return systems
}

func TestCorpusIsHardAndHonest(t *testing.T) {
	// alphabetic are the built-in kinds whose values have letters in them and could be taken for constant words.
	alphabetic := []string{"word", "user", "host", "ident", "error", "sql", "path", "file", "bool", "opt", "thread", "logger", "json", "url", "email"}
	for _, s := range load(t) {
		t.Run(s.Name, func(t *testing.T) {
			if n := len(s.Templates); n < 25 || n > 120 {
				t.Errorf("%d templates, want 25 to 120", n)
			}
			var weights []int
			withWords := 0
			for _, tpl := range s.Templates {
				weights = append(weights, tpl.Weight)
				if slices.ContainsFunc(tpl.parts, func(p part) bool {
					// A vocabulary of the file, or a kind with letters.
					return p.draw != nil && (slices.Contains(alphabetic, p.kind) || p.kind == "list" || !isBuiltIn(p.kind))
				}) {
					withWords++
				}
			}
			slices.Sort(weights)
			if top, median := weights[len(weights)-1], weights[len(weights)/2]; top < 20*median {
				t.Errorf("weights: the top %d is less than 20 times the median %d", top, median)
			}
			if 3*withWords < len(s.Templates) {
				t.Errorf("%d of %d templates have an alphabetic variable, want a third", withWords, len(s.Templates))
			}
			checkLines(t, &s, s.Generate(1, 2000))
		})
	}
}

func checkLines(t *testing.T, s *System, lines []Line) {
	t.Helper()
	seen := map[string]int{}
	count := make([]int, len(s.Templates))
	for _, l := range lines {
		count[l.Template]++
		if strings.TrimSpace(l.Content) == "" || strings.ContainsAny(l.Raw, "\n\r") {
			t.Errorf("template %q made the line %q", s.Templates[l.Template].Text, l.Raw)
		}
		if !slices.Contains(levels, l.Level) {
			t.Errorf("level %q", l.Level)
		}
		if other, ok := seen[l.Content]; ok && other != l.Template {
			t.Errorf("%q is of two templates: %q and %q", l.Content, s.Templates[other].Text, s.Templates[l.Template].Text)
		}
		seen[l.Content] = l.Template
		switch {
		case s.Frame == frameJSON && !json.Valid([]byte(l.Raw)):
			t.Errorf("not JSON: %s", l.Raw)
		case s.Frame == frameText && !strings.HasSuffix(l.Raw, l.Content):
			t.Errorf("%q does not end in its content", l.Raw)
		}
	}
	for i, n := range count {
		if n < minRare {
			t.Errorf("%d lines of %q", n, s.Templates[i].Text)
		}
	}
}

func isBuiltIn(kind string) bool {
	_, err := (&source{}).drawer(kind, "", false, 0)
	return err == nil || kind == "level"
}

func TestGenerateIsRepeatable(t *testing.T) {
	fsys := fstest.MapFS{"a.txt": {Data: []byte("header {time:15:04:05} {level:upper} \nt 9 INFO {user} did {sql}\nt 1 ERROR {error} at {list:int:1-9:1-3:/}\n")}}
	systems, err := Load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	one, two, other := systems[0].Generate(7, 50), systems[0].Generate(7, 50), systems[0].Generate(8, 50)
	if diff := cmp.Diff(one, two); diff != "" {
		t.Errorf("same seed, other lines: %s", diff)
	}
	if cmp.Equal(one, other) {
		t.Error("other seed, same lines")
	}
}

func TestFrames(t *testing.T) {
	for _, tt := range []struct {
		name, file, want string
	}{
		{
			name: "text",
			file: "header {level:name5} [{thread}] - \nthread = main\nt 1 WARNING a {{b}}\n",
			want: "WARN  [main] - a {b}",
		},
		{
			name: "json with objects that end together",
			file: "frame json\nfields {\"a\":{\"level\":{level:num10},\"msg\":{msg}}}\nt 1 ERROR say \"x\" & <y>\n",
			want: `{"a":{"level":50,"msg":"say \"x\" & <y>"}}`,
		},
		{
			name: "json with doubled braces",
			file: "frame json\nfields {{\"msg\":{msg},\"level\":\"{level:lower}\"}}\nt 1 INFO a\n",
			want: `{"msg":"a","level":"info"}`,
		},
		{
			name: "logfmt",
			file: "frame logfmt\nfields level={level:full} msg={msg}\nt 1 CRITICAL=crit a=\"b\"\n",
			want: `level=crit msg="a=\"b\""`,
		},
		{
			name: "logfmt of one word",
			file: "frame logfmt\nfields level={level:full} msg={msg}\nt 1 DEBUG ready\n",
			want: `level=DEBUG msg=ready`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			systems, err := Load(fstest.MapFS{"a.txt": {Data: []byte(tt.file)}})
			if err != nil {
				t.Fatal(err)
			}
			if got := systems[0].Generate(1, 1)[0].Raw; got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestLoadNamesFileAndLine(t *testing.T) {
	for _, tt := range []struct {
		name, file, want string
	}{
		{"directive", "t 1 INFO a\nx y\n", `a.txt:2: unknown directive "x"`},
		{"variable", "t 1 INFO {nothing}\n", `a.txt:1: unknown variable {nothing}`},
		{"argument", "t 1 INFO {int:9-1}\n", `a.txt:1: range "9-1": want LO-HI`},
		{"brace", "t 1 INFO a } b\n", `a.txt:1: lone brace at column 3 of the content`},
		{"weight", "t 0 INFO a\n", `a.txt:1: weight "0": want a whole number above 0`},
		{"level", "t 1 WARN a\n", `a.txt:1: level "WARN": want one of DEBUG INFO WARNING ERROR CRITICAL UNKNOWN`},
		{"twice", "t 1 INFO a\nt 2 INFO a\n", `a.txt:2: same content as line 1`},
		{"empty", "", `a.txt:1: no templates`},
		{"bad JSON", "frame json\nfields {\"a\":{msg}\nt 1 INFO a\n", `a.txt:2: fields do not make valid JSON`},
		{"no message", "frame logfmt\nfields a=1\nt 1 INFO a\n", `a.txt:2: logfmt frame without fields that have {msg}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(fstest.MapFS{"a.txt": {Data: []byte(tt.file)}})
			if got := fmt.Sprint(err); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestDump writes NAME.log, NAME.content and NAME.truth.tsv (line, template, level) of each system that can be read.
func TestDump(t *testing.T) {
	if *dumpDir == "" {
		t.Skip("no -dump")
	}
	systems, err := Load(os.DirFS(corpusDir))
	if err != nil {
		t.Log(err)
	}
	for _, s := range systems {
		var raw, content, truth strings.Builder
		for i, l := range s.Generate(1, 2000) {
			fmt.Fprintln(&raw, l.Raw)
			fmt.Fprintln(&content, l.Content)
			fmt.Fprintf(&truth, "%d\t%d\t%s\n", i+1, l.Template, l.Level)
		}
		for suffix, b := range map[string]*strings.Builder{".log": &raw, ".content": &content, ".truth.tsv": &truth} {
			if err := os.WriteFile(filepath.Join(*dumpDir, s.Name+suffix), []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
