// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// joined are the messages of a text.
func joined(lines []string) (messages []string) {
	var j Joiner
	for _, line := range lines {
		if m, ok := j.Add([]byte(line)); ok {
			messages = append(messages, string(m))
		}
	}
	if m, ok := j.Flush(); ok {
		messages = append(messages, string(m))
	}
	return messages
}

// Each file in testdata/traces is one message, with lines before and behind it that are not.
func TestTracesAreOneMessage(t *testing.T) {
	files, err := filepath.Glob("testdata/traces/*.txt")
	if err != nil || len(files) < 15 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file) //nolint:gosec // ours
		if err != nil {
			t.Fatal(err)
		}
		trace := strings.TrimRight(string(b), "\n")
		for name, around := range map[string][2]string{
			"times":  {"2026-11-21 13:04:05.123 INFO starting", "2026-11-21 13:04:06.124 INFO done"},
			"levels": {"INFO: starting", "WARN: next"},
			"JSON":   {`{"level":"info","msg":"starting"}`, `{"level":"info","msg":"done"}`},
			"klog":   {"I1121 13:04:05.123456       1 main.go:12] starting", "E1121 13:04:05.123456       1 main.go:14] done"},
		} {
			for _, eol := range []string{"", "\r"} {
				var lines []string
				for _, l := range strings.Split(around[0]+"\n"+trace+"\n"+around[1], "\n") {
					lines = append(lines, l+eol)
				}
				want := []string{around[0], strings.ReplaceAll(trace, "\n", eol+"\n"), around[1]}
				if strings.HasPrefix(filepath.Base(file), "below-") { // of what was logged before it
					want = []string{strings.ReplaceAll(around[0]+"\n"+trace, "\n", eol+"\n"), around[1]}
				}
				if diff := cmp.Diff(want, joined(lines)); diff != "" {
					t.Errorf("%s, %s, %q: (-want +got)\n%s", file, name, eol, diff)
				}
			}
		}
	}
}

func TestLinesThatAreMessages(t *testing.T) {
	for _, lines := range [][]string{
		{"one", "two", "three"},
		{"ready", "", "steady"},
		{"Created the table", "Connection closed", "Task done: 3", "processed 4", "finished", "got 5", "#channel joined", "note taken", "stack is full"},
		{"2026-11-21 13:04:05 ERROR first", "java.lang went away", "com.example.Main started"},
		{"} else", ") done"},
		{"panic: first", "2026/11/21 13:04:05 second"},
		{"Traceback of a parcel: lost", "File not found"},
	} {
		var want []string
		for _, l := range lines {
			if l != "" {
				want = append(want, l)
			}
		}
		var got []string
		for _, m := range joined(lines) {
			if m != "" {
				got = append(got, m)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

// Two processes write to one file: lines of the other one are messages of their own, and lose nothing.
func TestJoinerWithTwoWriters(t *testing.T) {
	lines := []string{
		"2026-11-21 13:04:05 ERROR [a] failed",
		"java.io.IOException: closed",
		"\tat com.example.A.read(A.java:12)",
		"2026-11-21 13:04:05 INFO [b] ready",
		"2026-11-21 13:04:06 INFO [b] served",
	}
	want := []string{strings.Join(lines[:3], "\n"), lines[3], lines[4]}
	if diff := cmp.Diff(want, joined(lines)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestJoinerIsBounded(t *testing.T) {
	var j Joiner
	lines, most := 0, 0
	take := func(m []byte, ok bool) {
		if ok {
			lines += strings.Count(string(m), "\n") + 1
			most = max(most, len(m))
		}
	}
	const n = 20000
	for i := range n {
		take(j.Add(fmt.Appendf(nil, "\tat frame %d %s", i, strings.Repeat("x", i%300))))
	}
	take(j.Flush())
	if lines != n || most > joinBytes {
		t.Errorf("%d lines of %d, the longest message has %d bytes", lines, n, most)
	}
}

func TestJoinerAllocatesNothing(t *testing.T) {
	var j Joiner
	lines := [][]byte{[]byte("2026-11-21 13:04:05 ERROR failed"), []byte("java.io.IOException: closed"), []byte("\tat com.example.A.read(A.java:12)"), []byte("ready")}
	add := func() {
		for _, l := range lines {
			j.Add(l)
		}
	}
	add()
	add()
	if n := testing.AllocsPerRun(100, add); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkJoiner(b *testing.B) {
	lines := benchLines(1024)
	var j Joiner
	i := 0
	for b.Loop() {
		j.Add(lines[i&1023])
		i++
	}
}

func FuzzJoiner(f *testing.F) {
	f.Add("a\n\tb\nCaused by: c\nTraceback (most recent call last):\n x\nE: f")
	f.Add("/a.js:1\nthrow x\n^\n\n[E: x] {\n c: 1\n}\n{\n \"msg\": 1\n}\ninfo: A[1]\n      => s\n      b\nthread 'x' panicked at a.rs:1:1:\nx\n")
	f.Add("panic: x\n\ngoroutine 1 [running]:\nmain.main()\n2026-11-21 13:04:05 x")
	f.Fuzz(func(t *testing.T, text string) {
		// No line is lost, and none is doubled.
		got := strings.Join(joined(strings.Split(text, "\n")), "\n")
		strip := func(s string) string { return strings.NewReplacer("\n", "", "\r", "").Replace(s) }
		if strip(got) != strip(text) {
			t.Errorf("got %q of %q", got, text)
		}
		for _, h := range headsOf(strings.Split(text, "\n")) {
			if len(h.Head) > len(text) {
				t.Errorf("a head of %d bytes, of %d", len(h.Head), len(text))
			}
		}
		checkPending(t, strings.Split(text, "\n"))
	})
}
