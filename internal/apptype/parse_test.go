// SPDX-License-Identifier: Apache-2.0

package apptype

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	const java = "java runtime java# takes -cp runs -jar -m stop -x\n"
	for _, tt := range []struct {
		name, table string
		in          string // as a shell would split it
		want        []string
	}{
		{name: "empty table", in: "a"},
		{name: "comments", table: "# a program a\n \n\ta program b # and c\n", in: "c"},
		{name: "a name", table: "a program b", in: "b", want: []string{"a"}},
		{name: "windows line ends", table: "a program b\r\n", in: "b", want: []string{"a"}},
		{name: "several types", table: "b,a program x", in: "x", want: []string{"a", "b"}},
		{name: "no version unless said", table: "a program b", in: "b2"},
		{name: "version", table: "a program b#", in: "/usr/bin/b-2.10.1", want: []string{"a"}},
		{name: "tails", table: "a program b", in: "./b-linux-amd64-prod", want: []string{"a"}},
		{name: "the first rule that holds", table: "a program x if -a\nb program x unless -b\nc program x", in: "x -b", want: []string{"c"}},
		{name: "first operand", table: "a program x first go", in: "x -v go", want: []string{"a"}},
		{name: "not the first operand", table: "a program x first go", in: "x -v get go"},
		{name: "an argument", table: "a program x if go", in: "x get go", want: []string{"a"}},
		{name: "wildcards", table: "a program x if \"-D* *.war\"", in: "x -Dy a.war", want: []string{"a"}},
		{name: "neighbours", table: `a program x if "-s rabbit"`, in: "x -s rabbit", want: []string{"a"}},
		{name: "apart", table: `a program x if "-s rabbit"`, in: "x -s y rabbit"},
		{name: "all conditions", table: "a program x first go if -y unless -z", in: "x go -y -z"},
		{name: "path", table: "a program sbin/x", in: "/usr/sbin/x", want: []string{"a"}},
		{name: "another path", table: "a program sbin/x", in: "/usr/notsbin/x"},
		{name: "none", table: "- program x\na program x", in: "x"},
		{name: "class", table: java + "a main:java x.Y", in: "java -cp z -Dq x.Y w", want: []string{"a", "java"}},
		{name: "archive", table: java + "a main:java y.jar", in: "java21 -jar /x/y.jar", want: []string{"a", "java"}},
		{name: "an option's value", table: java + "a main:java x.Y", in: "java -cp x.Y z.Z", want: []string{"java"}},
		{name: "glob", table: java + "a main:java */x/app-*", in: "java -jar /x/app-1.jar", want: []string{"a", "java"}},
		{name: "joined with =", table: java + "a main:java x.Y", in: "java -m=mod/x.Y", want: []string{"a", "java"}},
		{name: "stopped", table: java + "a main:java x.Y", in: "java -x x.Y", want: []string{"java"}},
		{name: "runtime after its use", table: "a main:java x.Y\n" + java, in: "java x.Y", want: []string{"a", "java"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, err := Parse(strings.NewReader(tt.table))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, table.Find(Process{Args: strings.Fields(tt.in + " --")})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"a program", "line 1: a rule has at least a type, a kind and a name"},
		{"\n\na b c", `line 3: unknown kind "b"`},
		{"A program x", `line 1: type "A": small letters, digits, dots and dashes only`},
		{"a,,b program x", `line 1: type "": small letters, digits, dots and dashes only`},
		{"a program if x", "line 1: no name"},
		{"a program x if", `line 1: nothing after "if"`},
		{"a program x if unless y", `line 1: nothing after "if"`},
		{"a program x if y if z", `line 1: "if" twice`},
		{"a program x takes y", "line 1: takes, runs and stop are for runtimes"},
		{"a,b runtime x", "line 1: a runtime has one type"},
		{"- runtime x", "line 1: a runtime has one type"},
		{"a main:perl x\nb main:perl y", `line 1: no runtime has the type "perl"`},
		{"a program x*", `line 1: name "x*": a wildcard only stands in the name of what a runtime runs, without #`},
		{"a exe x#", `line 1: name "x#": a version is only understood for programs and runtimes`},
		{"a program #", "line 1: a rule has at least a type, a kind and a name"},
		{"a program x/", `line 1: name "x/": nothing to find`},
		{"a main:b x*y", `line 1: name "x*y": a wildcard inside`},
		{"a program x if y*z", `line 1: "y*z": a wildcard inside`},
		{`a program "x`, "line 1: a quote without an end, or nothing in it"},
		{`a program "x y"`, `line 1: "x y": two arguments only stand after if and unless`},
	} {
		_, err := Parse(strings.NewReader(tt.in))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%q: got %v, want %s", tt.in, err, tt.want)
		}
	}
}

func TestParseWrapsTheErrorsOfItsReader(t *testing.T) {
	_, err := Parse(io.MultiReader(strings.NewReader("a program b\n"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if _, err = Parse(strings.NewReader(strings.Repeat("a ", maxLine))); !errors.Is(err, bufio.ErrTooLong) {
		t.Errorf("got %v", err)
	}
}

// TestTableHasNoRuleTwice finds rules that can never be reached: a name again after a rule for it without conditions.
func TestTableHasNoRuleTwice(t *testing.T) {
	table := defaultTable(t)
	check := func(rules map[string][]*rule) {
		for name, of := range rules {
			for _, r := range of[:len(of)-1] {
				if r.path == "" && r.first == nil && r.any == nil && r.unless == nil {
					t.Errorf("%s: a rule after one without conditions, %v", name, r.types)
				}
			}
		}
	}
	check(table.byExe)
	check(table.byName)
	for _, m := range table.mainsOf {
		check(m.byName)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(typesTXT[len(typesTXT)/2:][:500])
	f.Add("a,b runtime x# takes -a runs -b stop -c\n- exe y\nc main:a *z* if \"a b*\"\n")
	f.Fuzz(func(_ *testing.T, s string) {
		table, err := Parse(strings.NewReader(s))
		if err == nil {
			table.Find(Process{Args: []string{"java", "x"}, Exe: "/usr/bin/x"})
		}
	})
}
