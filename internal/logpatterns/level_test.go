// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"testing"
)

// labelledLine is a line of testdata/levels.tsv.
type labelledLine struct {
	number               int
	level, message, line string
}

func labelledLines(tb testing.TB) []labelledLine {
	tb.Helper()
	file, err := os.Open("testdata/levels.tsv")
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	unescape := strings.NewReplacer(`\\`, `\`, `\t`, "\t", `\n`, "\n", `\x1b`, "\x1b", `\"`, `"`)
	var lines []labelledLine
	scanner := bufio.NewScanner(file)
	for number := 1; scanner.Scan(); number++ {
		if strings.HasPrefix(scanner.Text(), "#") {
			continue
		}
		fields := strings.Split(scanner.Text(), "\t")
		if len(fields) != 3 {
			tb.Fatalf("testdata/levels.tsv:%d: %d fields, want 3", number, len(fields))
		}
		l := labelledLine{number: number, level: fields[0], message: unescape.Replace(fields[1]), line: unescape.Replace(fields[2])}
		if l.message == "=" {
			l.message = l.line
		}
		lines = append(lines, l)
	}
	if err := scanner.Err(); err != nil {
		tb.Fatal(err)
	}
	return lines
}

func TestFrameLabelledLines(t *testing.T) {
	lines := labelledLines(t)
	if len(lines) < 200 {
		t.Errorf("%d labelled lines, want 200 or more", len(lines))
	}
	var f Framer
	for _, l := range lines {
		message, level := f.Frame([]byte(l.line))
		if level.String() != l.level || string(message) != l.message {
			t.Errorf("testdata/levels.tsv:%d\n line %s\n got  %v %q\n want %v %q", l.number, l.line, level, message, l.level, l.message)
		}
	}
}

func TestFrameColoursNeverMatter(t *testing.T) {
	var plain, coloured Framer
	for _, l := range labelledLines(t) {
		if strings.Contains(l.line, "\x1b") {
			continue
		}
		var line bytes.Buffer
		for i, word := range strings.SplitAfter(l.line, " ") {
			line.WriteString([]string{"\x1b[1;3" + string(rune('0'+i%8)) + "m", "\x1b[0m", "\x1b[K", "\x1b]0;title\x07"}[i%4] + word)
		}
		message, level := coloured.Frame(line.Bytes())
		wantMessage, wantLevel := plain.Frame([]byte(l.line))
		if level != wantLevel || !bytes.Equal(message, wantMessage) {
			t.Errorf("line %q\n got  %v %q\n want %v %q", line.Bytes(), level, message, wantLevel, wantMessage)
		}
	}
}

func TestLevelString(t *testing.T) {
	want := []string{"unknown", "debug", "info", "warning", "error", "critical"}
	if len(want) != int(NumLevels) {
		t.Fatalf("%d levels, want %d", NumLevels, len(want))
	}
	for level, text := range want {
		if got := Level(level).String(); got != text {
			t.Errorf("level %d is %q, want %q", level, got, text)
		}
	}
}

func TestLevelOfNumber(t *testing.T) {
	for _, tt := range []struct {
		numbers []int
		want    Level
	}{
		{[]int{0, 1, 2, 60, 500, 550, 600, 50000}, LevelCritical},
		{[]int{3, 50, 400, 40000}, LevelError},
		{[]int{4, 40, 300, 30000}, LevelWarning},
		{[]int{5, 6, 30, 200, 250, 20000}, LevelInfo},
		{[]int{7, 10, 20, 100, 5000, 10000}, LevelDebug},
		{[]int{-1, 8, 9, 70, 99, 700, 60000}, LevelUnknown},
	} {
		for _, n := range tt.numbers {
			if got := levelOfNumber(n); got != tt.want {
				t.Errorf("%d is %v, want %v", n, got, tt.want)
			}
		}
	}
}
