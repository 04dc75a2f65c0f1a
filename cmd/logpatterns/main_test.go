// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
)

// asProgram in the environment makes the test binary be the program, for tests with signals.
const asProgram = "LOGPATTERNS_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// shop is a log of two patterns, one of them of two levels.
const shop = `2026-01-01T12:00:00Z INFO connected to 10.0.0.1:5432 in 12 ms
2026-01-01T12:00:01Z INFO connected to 10.0.0.2:5432 in 7 ms

2026-01-01T12:00:02Z ERROR cannot reach 10.0.0.3:5432: no route
2026-01-01T12:00:03Z INFO connected to 10.0.0.1:5432 in 1 ms
2026-01-01T12:00:04Z WARN connected to 10.0.0.1:5432 in 9000 ms
`

type result struct {
	Code     int
	Out, Err string
}

func runWith(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// write puts a file into a fresh directory.
func write(t *testing.T, name, content string) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func packed(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const shopTable = `6 lines (1 blank), 2 patterns
COUNT  SHARE  LEVEL         PATTERN
    4  80.0%  warning,info  connected to <*> in <*>
    1  20.0%  error         cannot reach <*>: no route
`

func TestTable(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		args     []string
		want     string
	}{
		{name: "all", in: shop, want: shopTable},
		{name: "gzip on the standard input", in: packed(t, shop[:100]) + packed(t, shop[100:]), args: []string{"-"}, want: shopTable},
		{name: "windows", in: strings.ReplaceAll(shop, "\n", "\r\n"), want: shopTable},
		{name: "no end of the last line", in: strings.TrimSuffix(shop, "\n"), want: shopTable},
		{name: "nothing", in: "", want: "0 lines, 0 patterns\n"},
		{name: "top", in: shop, args: []string{"-n", "1"}, want: `6 lines (1 blank), 2 patterns
COUNT  SHARE  LEVEL         PATTERN
    4  80.0%  warning,info  connected to <*> in <*>
and 1 more with 1 messages
`},
		{name: "level", in: shop, args: []string{"-min-level", "warn"}, want: `6 lines (1 blank), 2 messages of level warning and above, 2 patterns
COUNT  SHARE  LEVEL    PATTERN
    1  50.0%  error    cannot reach <*>: no route
    1  50.0%  warning  connected to <*> in <*>
`},
		{name: "content", in: "INFO: user 17 left\nINFO: user 18 left\n", args: []string{"-content"}, want: `2 lines, 1 pattern
COUNT   SHARE  LEVEL  PATTERN
    2  100.0%  -      INFO: user <*> left
`},
		{name: "color", in: shop, args: []string{"-color", "always"}, want: "6 lines (1 blank), 2 patterns\nCOUNT  SHARE  LEVEL         PATTERN\n" +
			"    4  80.0%  \x1b[33mwarning,info\x1b[0m  connected to \x1b[2m<*>\x1b[0m in \x1b[2m<*>\x1b[0m\n" +
			"    1  20.0%  \x1b[31merror\x1b[0m         cannot reach \x1b[2m<*>\x1b[0m: no route\n"},
		{name: "bytes that are no text", in: "left \xff\xfe right\nzero \x00 bell \a\n", args: []string{"-content"}, want: `2 lines, 2 patterns
COUNT  SHARE  LEVEL  PATTERN
    1  50.0%  -      left \ufffd right
    1  50.0%  -      zero \x00 bell \a
`},
		{name: "traces", in: traces, want: `20 lines (1 blank), 6 messages, 4 patterns
COUNT  SHARE  LEVEL    PATTERN
    3  50.0%  error    order <*> not stored
    1  16.7%  info     Now listening on: <*>
    1  16.7%  error    Traceback (most recent call last): OSError: disk is gone
    1  16.7%  warning  stock is low
`},
		{name: "lines of traces as messages", in: "boom\n\tat a.b.C(C.java:12)\n", args: []string{"-content"}, want: `2 lines, 2 patterns
COUNT  SHARE  LEVEL  PATTERN
    1  50.0%  -      at <*>
    1  50.0%  -      boom
`},
		{name: "no room", in: "one was here\ntwo were, there\n", args: []string{"-content", "-max-patterns", "1"}, want: `2 lines, 1 pattern
COUNT  SHARE  LEVEL  PATTERN
    1  50.0%  -      one was here
    1  50.0%  -      (no room for their patterns: see -max-patterns)
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(result{Out: tt.want}, runWith(t, tt.in, tt.args...)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// traces are six messages.
const traces = `2026-01-01 12:00:00 ERROR order 17 not stored
a.b.StoreException: no room
	at a.b.C(C.java:12)
Caused by: a.b.DiskException: full
	at a.b.D(D.java:7)
2026-01-01 12:00:01 ERROR order 18 not stored

info: Microsoft.Hosting.Lifetime[14]
      Now listening on: http://10.0.0.1:80
Traceback (most recent call last):
  File "a.py", line 7, in f
    g()
OSError: disk is gone
{
  "level": "warn",
  "msg": "stock is low"
}
2026-01-01 12:00:02 ERROR order 19 not stored
Traceback (most recent call last):
OSError: disk is gone
`

func TestLinesOfATraceHaveThePatternOfTheirMessage(t *testing.T) {
	const want = "1 A|2 A|3 A|4 A|5 A|6 A|7 -|8 B|9 B|10 C|11 C|12 C|13 C|14 D|15 D|16 D|17 D|18 A|19 A|20 A|"
	m := logpatterns.New(logpatterns.Options{})
	id := func(text string) string { return m.Find([]byte(text)).ID() }
	names := strings.NewReplacer("\t", " ", "\n", "|", id("order 17 not stored"), "A", id("Now listening on: http://a/"), "B",
		id("Traceback (most recent call last): OSError: disk is gone"), "C", id("stock is low"), "D")
	for _, args := range [][]string{{"-format", "tsv"}, {"-format", "tsv", "-online"}} {
		got := runWith(t, traces, args...)
		if out := names.Replace(got.Out); got.Code != exitOK || out != want {
			t.Errorf("%v: got %q (%+v), want %q", args, out, got, want)
		}
	}
	var have struct {
		Patterns []struct {
			ID        string
			FirstLine uint64 `json:"first_line"`
		}
	}
	if err := json.Unmarshal([]byte(runWith(t, traces, "-format", "json").Out), &have); err != nil {
		t.Fatal(err)
	}
	first := map[string]uint64{}
	for _, p := range have.Patterns {
		first[names.Replace(p.ID)] = p.FirstLine
	}
	if diff := cmp.Diff(map[string]uint64{"A": 1, "B": 8, "C": 10, "D": 14}, first); diff != "" {
		t.Errorf("first lines, -want +got:\n%s", diff)
	}
}

func TestMessagesEndWithTheirFile(t *testing.T) {
	got := runWith(t, "", write(t, "a.log", "ERROR order 7 not stored"), write(t, "b.log", "\tat a.b.C(C.java:12)\n"))
	want := result{Out: `2 lines, 2 patterns
COUNT  SHARE  LEVEL  PATTERN
    1  50.0%  -      at <*>
    1  50.0%  error  order <*> not stored
`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMessagesEndWithASilence(t *testing.T) {
	r, w := io.Pipe()
	out := &signalWriter{seen: make(chan struct{}, 1)}
	done := make(chan int, 1)
	var stderr bytes.Buffer
	go func() { done <- run(t.Context(), []string{"-format", "tsv", "-online"}, r, out, &stderr) }()
	if _, err := io.WriteString(w, "ERROR order 7 not stored\n\tat a.b.C(C.java:12)\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-out.seen:
	case <-time.After(time.Minute):
		t.Error("nothing was written")
	}
	w.Close()
	if code := <-done; code != exitOK || stderr.String() != "" || strings.Count(out.b.String(), "\n") != 2 {
		t.Errorf("got %d, %q, %q", code, out.b.String(), stderr.String())
	}
}

func TestFiles(t *testing.T) {
	plain, gz := write(t, "shop.log", shop), write(t, "shop.log.1.gz", packed(t, shop))
	want := result{Out: `18 lines (3 blank), 2 patterns
COUNT  SHARE  LEVEL         PATTERN
   12  80.0%  warning,info  connected to <*> in <*>
    3  20.0%  error         cannot reach <*>: no route
`}
	if diff := cmp.Diff(want, runWith(t, shop, plain, gz, "-")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestInputsThatCannotBeReadAreNamedAndTheOthersPrinted(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.log")
	dir := t.TempDir()
	bad := write(t, "bad.gz", packed(t, shop)[:60])
	none := write(t, "none.gz", "\x1f\x8bthis is not gzip")
	got := runWith(t, "", missing, dir, write(t, "shop.log", shop), bad, none)
	want := result{exitTrouble, shopTable, fmt.Sprintf(`logpatterns: open %s: no such file or directory
logpatterns: read %s: is a directory
logpatterns: %s: unexpected EOF
logpatterns: %s: gzip: invalid header
`, missing, dir, bad, none)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestJSON(t *testing.T) {
	got := runWith(t, shop, "-format", "json", "-n", "1")
	if got.Code != exitOK || got.Err != "" || !strings.Contains(got.Out, `"connected to <*> in <*>"`) {
		t.Errorf("got %+v", got)
	}
	var have map[string]any
	if err := json.Unmarshal([]byte(got.Out), &have); err != nil {
		t.Fatal(err)
	}
	id := have["patterns"].([]any)[0].(map[string]any)["id"].(string)
	want := map[string]any{
		"lines": 6.0, "blank_lines": 1.0, "cut_lines": 0.0, "interrupted": false, "messages": 5.0, "pattern_count": 2.0,
		"levels": map[string]any{"error": 1.0, "info": 3.0, "warning": 1.0}, "overflow": map[string]any{},
		"patterns": []any{map[string]any{
			"id": id, "template": "connected to <*> in <*>", "messages": 4.0, "first_line": 1.0,
			"levels": map[string]any{"info": 3.0, "warning": 1.0},
		}},
	}
	if diff := cmp.Diff(want, have); diff != "" || len(id) != 16 {
		t.Errorf("id %q, -want +got:\n%s", id, diff)
	}
}

// names is a log with a variable that does not show by its shape: what it is has to be learned.
func names() string {
	var b strings.Builder
	for _, name := range strings.Fields("anna bert carla dora emil fritz gustav hans ida jona karl lena") {
		fmt.Fprintf(&b, "user %s has logged in from the web\n", name)
	}
	return b.String()
}

func TestTSVGivesTheIdentityOfTheEnd(t *testing.T) {
	m := logpatterns.New(logpatterns.Options{})
	var online, final strings.Builder
	lines := strings.Split(strings.TrimSpace(names()), "\n")
	for i, line := range lines {
		fmt.Fprintf(&online, "%d\t%s\n", i+1, m.Add([]byte(line), 0).ID())
	}
	m.Learn()
	for i, line := range lines {
		fmt.Fprintf(&final, "%d\t%s\n", i+1, m.Find([]byte(line)).ID())
	}
	if online.String() == final.String() {
		t.Error("nothing was learned: the test tells nothing")
	}
	if diff := cmp.Diff(result{Out: final.String()}, runWith(t, names(), "-content", "-format", "tsv")); diff != "" {
		t.Errorf("at the end, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(result{Out: online.String()}, runWith(t, names(), "-content", "-format", "tsv", "-online")); diff != "" {
		t.Errorf("online, -want +got:\n%s", diff)
	}
}

func TestTSVHasALineForEachLine(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string // A and B for the patterns
	}{
		{"final", nil, "1 A|2 A|3 -|4 B|5 A|6 A|"},
		{"online", []string{"-online"}, "1 A|2 A|3 -|4 B|5 A|6 A|"},
		{"level", []string{"-min-level", "warning"}, "4 B|6 A|"},
		{"level online", []string{"-online", "-min-level", "warning"}, "4 B|6 A|"},
		{"no room", []string{"-max-patterns", "1"}, "1 A|2 A|3 -|4 B|5 A|6 A|"}, // the identity that it would have
		{"no room online", []string{"-online", "-max-patterns", "1"}, "1 A|2 A|3 -|4 -|5 A|6 A|"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := runWith(t, shop, append([]string{"-format", "tsv"}, tt.args...)...)
			m := logpatterns.New(logpatterns.Options{})
			out := strings.NewReplacer("\t", " ", "\n", "|",
				m.Find([]byte("connected to 10.0.0.1:5432 in 12 ms")).ID(), "A",
				m.Find([]byte("cannot reach 10.0.0.3:5432: no route")).ID(), "B").Replace(got.Out)
			if got.Code != exitOK || out != tt.want {
				t.Errorf("got %q (%+v), want %q", out, got, tt.want)
			}
		})
	}
}

func TestStateGoesOn(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.json")
	if diff := cmp.Diff(result{Out: shopTable}, runWith(t, shop, "-state", state)); diff != "" {
		t.Errorf("first, -want +got:\n%s", diff)
	}
	want := result{Out: `1 line, 6 messages with those of the state, 2 patterns
COUNT  SHARE  LEVEL         PATTERN
    5  83.3%  warning,info  connected to <*> in <*>
    1  16.7%  error         cannot reach <*>: no route
`}
	if diff := cmp.Diff(want, runWith(t, "INFO connected to 10.0.0.9:5432 in 3 ms\n", "-state", state)); diff != "" {
		t.Errorf("then, -want +got:\n%s", diff)
	}
	got := runWith(t, "INFO connected to 10.0.0.9:5432 in 3 ms\n", "-state", state, "-format", "json")
	if n := strings.Count(got.Out, `"first_line"`); n != 1 {
		t.Errorf("%d patterns of this run, want 1:\n%s", n, got.Out)
	}
	if left, err := os.ReadDir(filepath.Dir(state)); err != nil || len(left) != 1 {
		t.Errorf("beside the state there is %v (%v)", left, err)
	}
}

func TestBadStateStopsItAndStays(t *testing.T) {
	state := write(t, "state.json", "{}")
	got := runWith(t, shop, "-state", state)
	if got.Code != exitTrouble || got.Out != "" || !strings.HasPrefix(got.Err, "logpatterns: "+state+": not a state of patterns") {
		t.Errorf("got %+v", got)
	}
	if b, err := os.ReadFile(state); err != nil || string(b) != "{}" {
		t.Errorf("the file has %q (%v)", b, err)
	}
}

func TestStateThatCannotBeSavedIsTrouble(t *testing.T) {
	got := runWith(t, shop, "-state", filepath.Join(t.TempDir(), "missing", "state.json"))
	if got.Code != exitTrouble || got.Out != shopTable || !strings.Contains(got.Err, "no such file") {
		t.Errorf("got %+v", got)
	}
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"-h", exitOK, "usage: logpatterns"},
		{"-no-such-flag", exitUsage, "not defined"},
		{"-format xml", exitUsage, `-format "xml"`},
		{"-color blue", exitUsage, `-color "blue"`},
		{"-min-level loud", exitUsage, "no such level"},
		{"-online", exitUsage, "needs -format tsv"},
		{"-n -1", exitUsage, "-n must"},
		{"-max-patterns 0", exitUsage, "-max-patterns must"},
	} {
		got := runWith(t, "", strings.Fields(tt.args)...)
		if got.Code != tt.code || got.Out != "" || !strings.Contains(got.Err, tt.says) {
			t.Errorf("%s: got %+v, want code %d and %q", tt.args, got, tt.code, tt.says)
		}
	}
}

func TestOutputThatNobodyReadsEndsItQuietly(t *testing.T) {
	for _, args := range [][]string{nil, {"-format", "json"}, {"-format", "tsv"}, {"-format", "tsv", "-online"}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		var stderr bytes.Buffer
		code := run(t.Context(), args, strings.NewReader(strings.Repeat(shop, 2000)), w, &stderr)
		w.Close()
		if code != exitOK || stderr.String() != "" {
			t.Errorf("%v: got %d, %q", args, code, stderr.String())
		}
	}
}

// fullDisk is a writer for which there is no room.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestOutputThatCannotBeWrittenIsTroubleOnce(t *testing.T) {
	for _, format := range []string{"table", "json", "tsv"} {
		var stderr bytes.Buffer
		code := run(t.Context(), []string{"-format", format}, strings.NewReader(shop), fullDisk{}, &stderr)
		if want := "logpatterns: output: no space left on device\n"; code != exitTrouble || stderr.String() != want {
			t.Errorf("%s: got %d, %q, want %q", format, code, stderr.String(), want)
		}
	}
}

func TestEndOfContextEndsAReadThatBlocks(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close() // ends the goroutine that reads
	ctx, cancel := context.WithCancel(t.Context())
	out := &signalWriter{seen: make(chan struct{}, 1)}
	done := make(chan int, 1)
	var stderr bytes.Buffer
	go func() { done <- run(ctx, []string{"-format", "tsv", "-online"}, r, out, &stderr) }()
	if _, err := io.WriteString(w, shop+"half a line"); err != nil {
		t.Fatal(err)
	}
	<-out.seen // before it waits, what is there is written
	cancel()
	if code := <-done; code != exitInterrupted || stderr.String() != "" || strings.Count(out.b.String(), "\n") != 6 {
		t.Errorf("got %d, %q, %q", code, out.b.String(), stderr.String())
	}
}

// signalWriter tells of the first write.
type signalWriter struct {
	b    bytes.Buffer
	seen chan struct{}
}

func (w *signalWriter) Write(p []byte) (int, error) {
	defer func() {
		select {
		case w.seen <- struct{}{}:
		default:
		}
	}()
	return w.b.Write(p)
}
