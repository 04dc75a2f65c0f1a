// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
)

func TestLongLinesAreCutAndTheNextIsWhole(t *testing.T) {
	type got struct {
		Size int
		Cut  bool
	}
	var in strings.Builder
	want := []got{{maxLine - 1, false}, {maxLine, false}, {maxLine, true}, {maxLine, true}, {5, false}, {70000, false}}
	for _, size := range []int{maxLine - 1, maxLine, maxLine + 1, 3*maxLine + 17, 5} {
		in.WriteString(strings.Repeat("x", size) + "\n")
	}
	in.WriteString(strings.Repeat("y", 70000))
	lines := lineReader{in: bufio.NewReaderSize(strings.NewReader(in.String()), 64<<10)}
	var have []got
	for {
		line, cut, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		have = append(have, got{len(line), cut})
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSpoolGivesBackWhatItTookFromMemoryAndFile(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var s spool
	defer s.close()
	long := strings.Repeat("z", maxLine)
	sizes := []int{0, 1, 127, 128, maxLine}
	const rounds = 40 // more than spoolMemory
	for i := range rounds * len(sizes) {
		m := message{text: []byte(long[:sizes[i%len(sizes)]]), level: logpatterns.Level(i % 6), lines: uint64(i % 3)} //nolint:gosec // small
		if err := s.add(m); err != nil {
			t.Fatal(err)
		}
	}
	if s.file == nil {
		t.Error("no file: the test tells nothing")
	}
	for range 2 {
		i, line := 0, uint64(1)
		err := s.all(func(m message) error {
			if int(m.level) != i%6 || len(m.text) != sizes[i%len(sizes)] || m.line != line || m.lines != uint64(i%3) { //nolint:gosec // small
				return fmt.Errorf("message %d: level %d, %d bytes, %d lines from %d", i, m.level, len(m.text), m.lines, m.line)
			}
			line += m.lines
			i++
			return nil
		})
		if err != nil || i != rounds*len(sizes) {
			t.Errorf("%d messages: %v", i, err)
		}
	}
}

func TestFirstLinesAreThoseOfTheWholePattern(t *testing.T) {
	m := logpatterns.New(logpatterns.Options{})
	f := newFirsts(4)
	for i, line := range strings.Split(strings.TrimSpace("other things went on\n"+names()), "\n") {
		f.note(m.Add([]byte(line), 0), uint64(i+1))
	}
	m.Learn()
	got := map[string]uint64{}
	for _, c := range m.Counts() {
		got[c.Pattern.Template()] = f.byID()[c.Pattern.ID()]
	}
	want := map[string]uint64{"other things went on": 1, "user <*> has logged in from the web": 2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(f.lines) != 2 {
		t.Errorf("%d values are kept, want 2", len(f.lines))
	}
}

func TestLevelsOfARow(t *testing.T) {
	for _, tt := range []struct {
		counts levelCounts
		want   row
	}{
		{levelCounts{3}, row{count: "3", share: "3.0%", level: "-"}},
		{levelCounts{0, 0, 1}, row{count: "1", share: "1.0%", level: "info", worst: logpatterns.LevelInfo}},
		{levelCounts{1, 0, 0, 0, 1}, row{count: "2", share: "2.0%", level: "error,unknown", worst: logpatterns.LevelError}},
		{levelCounts{0, 0, 1, 1, 1}, row{count: "3", share: "3.0%", level: "error,warning,info", worst: logpatterns.LevelError}},
		{levelCounts{1, 1, 1, 1, 1, 1}, row{count: "6", share: "6.0%", level: "critical,error,+4", worst: logpatterns.LevelCritical}},
	} {
		if diff := cmp.Diff(tt.want, rowOf(&tt.counts, 100, ""), cmp.AllowUnexported(row{})); diff != "" {
			t.Errorf("%v, -want +got:\n%s", tt.counts, diff)
		}
	}
	if got := rowOf(&levelCounts{1}, 1e6, "").share; got != "<0.1%" {
		t.Errorf("got %q", got)
	}
}

func TestCutTo(t *testing.T) {
	for _, tt := range []struct {
		in    string
		width int
		want  string
	}{
		{"abcdef", 0, "abcdef"},
		{"abcdef", 6, "abcdef"},
		{"abcdef", 5, "abcd…"},
		{"äöüßéè", 6, "äöüßéè"},
		{"äöüßéè", 5, "äöüß…"},
		{"日本語日本語", 12, "日本語日本語"},
		{"日本語日本語", 11, "日本語日本…"},
		{"日本語日本語", 6, "日本…"},
		{"e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"},
	} {
		if got := cutTo(tt.in, tt.width); got != tt.want {
			t.Errorf("%q to %d: got %q, want %q", tt.in, tt.width, got, tt.want)
		}
	}
}

func TestTerminalsObeyNoTemplate(t *testing.T) {
	for in, want := range map[string]string{
		"plain <*> text, ünïcödé, 日本": "plain <*> text, ünïcödé, 日本",
		"a\x1b[2Jb\tc\x00d":           `a\x1b[2Jb\tc\x00d`,
		"\xc3(\ufffd":                 `\xc3(\ufffd`,
		"right\u202eleft":             `right\u202eleft`,
	} {
		if got := visible(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
