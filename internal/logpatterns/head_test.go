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

// told is what the head of a message says.
type told struct {
	Head, Level, Template string
}

// headsOf are those of the messages of some lines.
func headsOf(lines []string) (heads []told) {
	var j Joiner
	var f Framer
	m := New(Options{})
	tell := func(_ []byte, ok bool) {
		if ok {
			head := string(j.Head())
			message, level := f.Frame([]byte(head))
			heads = append(heads, told{head, level.String(), m.Redact(message)})
		}
	}
	for _, l := range lines {
		tell(j.Add([]byte(l)))
	}
	tell(j.Flush())
	return heads
}

func TestHeadsOfTraces(t *testing.T) {
	want := map[string]told{
		"below-python-cause": {
			"Traceback (most recent call last): app.db.DatabaseError: down", "error",
			"Traceback (most recent call last): <*>: down",
		},
		"dotnet-inner": {
			"Unhandled exception. System.InvalidOperationException: The catalog is closed", "error",
			"Unhandled exception. System.InvalidOperationException: The catalog is closed",
		},
		"dotnet-logged": {"fail: Catalog.Worker[0] Refresh failed", "error", "Refresh failed"},
		"go-fatal": {
			"fatal error: all goroutines are asleep - deadlock!", "critical", "fatal error: all goroutines are asleep - deadlock!",
		},
		"go-panic": {
			"panic: runtime error: invalid memory address or nil pointer dereference", "critical",
			"panic: runtime error: invalid memory address or nil pointer dereference",
		},
		"go-served": {
			"2026/11/21 13:04:05 http: panic serving 127.0.0.1:51544: boom", "unknown", "http: panic serving <*>: boom",
		},
		"java-caused-by": {
			`Exception in thread "main" java.lang.IllegalStateException: cannot start the shop`, "error",
			`Exception in thread "main" <*>: cannot start the shop`,
		},
		"java-logged": {
			"2026-11-21 13:04:05,678 ERROR [pool-2-thread-7] c.e.s.Orders - order 17 not stored", "error", "order <*> not stored",
		},
		"node-logged":   {"Error: connect ECONNREFUSED 127.0.0.1:6379", "error", "Error: connect ECONNREFUSED <*>"},
		"node-rejected": {"UnhandledPromiseRejection: This error came from an async function. Reason: no price", "error", "UnhandledPromiseRejection: This error came from an async function. Reason: no price"},
		"node-thrown":   {"TypeError [ERR_PRICE]: no price", "error", "TypeError [ERR_PRICE]: no price"},
		"node-uncaught": {"TypeError: no price", "error", "TypeError: no price"},
		"php-next": {
			"[21-Nov-2026 13:04:05 UTC] PHP Fatal error:  Uncaught PDOException: gone away in /var/www/db.php:8", "critical",
			"Uncaught PDOException: gone away in <*>",
		},
		"php": {
			"PHP Fatal error:  Uncaught RuntimeException: no stock in /var/www/cart.php:31", "critical",
			"Uncaught RuntimeException: no stock in <*>",
		},
		"python-logged": {"2026-11-21 13:04:05,678 - app.jobs - ERROR - job 9 failed", "error", "job <*> failed"},
		"python-thread": {
			"Exception in thread Thread-1 (run): ValueError: no such user", "error", "Exception in thread <*> (run): ValueError: no such user",
		},
		"ruby": {
			"/app/shop.rb:12:in `charge': card refused (Shop::CardError)", "unknown", "<*>:in `charge': card refused (Shop::CardError)",
		},
		"rust-id": {
			"thread 'main' (4711) panicked at src/main.rs:7:42: no stock", "critical", "thread 'main' (<*>) panicked at <*>: no stock",
		},
		"rust-panic": {
			"thread 'main' panicked at src/main.rs:7:42: called `Result::unwrap()` on an `Err` value: Os { code: 2, kind: NotFound }", "critical",
			"thread 'main' panicked at <*>: called `Result::unwrap()` on an `Err` value: Os {<*>}",
		},
		"rust-short": {
			"thread 'worker-3' panicked at src/pool.rs:19:9: index out of bounds: the len is 3 but the index is 7", "critical",
			"thread '<*>' panicked at <*>: index out of bounds: the len is <*> but the index is <*>",
		},
	}
	files, err := filepath.Glob("testdata/traces/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, eol := range []string{"", "\r"} {
		got := map[string]told{}
		for _, file := range files {
			b, err := os.ReadFile(file) //nolint:gosec // ours
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
			for i := range lines {
				lines[i] += eol
			}
			heads := headsOf(lines)
			if len(heads) != 1 {
				t.Errorf("%s: %d messages", file, len(heads))
			}
			got[strings.TrimSuffix(filepath.Base(file), ".txt")] = heads[0]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("line end %q (-want +got)\n%s", eol, diff)
		}
	}
}

func TestHeads(t *testing.T) {
	const info = "info: Microsoft.Hosting.Lifetime[14]"
	for _, tt := range []struct {
		name  string
		lines []string
		want  []told
	}{
		{"a line", []string{"ready"}, []told{{"ready", "unknown", "ready"}}},
		{"an empty line", []string{"", "ready"}, []told{{"", "unknown", ""}, {"ready", "unknown", "ready"}}},
		{"blank lines before it", []string{"", "\tat a.B.c(B.java:1)"}, []told{{"\tat a.B.c(B.java:1)", "unknown", "at <*>"}}},
		{"lines of others behind it", []string{
			"Traceback (most recent call last):", ` File "a.py", line 1, in f`, "ValueError: 7", "ready",
		}, []told{
			{"Traceback (most recent call last): ValueError: 7", "error", "Traceback (most recent call last): ValueError: <*>"},
			{"ready", "unknown", "ready"},
		}},
		{"a trace that is broken off", []string{"Traceback (most recent call last):", ` File "a.py", line 1, in f`}, []told{
			{"Traceback (most recent call last):", "error", "Traceback (most recent call last):"},
		}},
		{"a trace in a logged line", []string{
			"ERROR:root:Traceback (most recent call last):", ` File "a.py", line 1, in f`, "ValueError: 7",
		}, []told{
			{"ERROR:root:Traceback (most recent call last): ValueError: 7", "error", "Traceback (most recent call last): ValueError: <*>"},
		}},
		{"an ignored exception", []string{
			"Exception ignored in: <function f at 0x7f>", "Traceback (most recent call last):", ` File "a.py", line 1, in f`, "OSError: gone",
		}, []told{
			{"Exception ignored in: <function f at 0x7f> OSError: gone", "unknown", "Exception ignored in: <function f at <*>> OSError: gone"},
		}},
		{"an old panic of Rust", []string{
			"thread 'main' panicked at 'no stock', src/main.rs:7:42", "note: run with `RUST_BACKTRACE=1`",
		}, []told{
			{"thread 'main' panicked at 'no stock', src/main.rs:7:42", "critical", "thread 'main' panicked at 'no stock', <*>"},
		}},
		{"a category of .NET", []string{info, "      Now listening on: http://10.0.0.1:80"}, []told{
			{info + " Now listening on: http://10.0.0.1:80", "info", "Now listening on: <*>"},
		}},
		{"scopes of .NET", []string{info, "      => SpanId:7f => Shop", "      Order 7 stored", "      twice"}, []told{
			{info + " Order 7 stored", "info", "Order <*> stored"},
		}},
		{"an object", []string{"{", `  "level": "error",`, `  "msg": "no stock"`, "}", "ready"}, []told{
			{"{\n  \"level\": \"error\",\n  \"msg\": \"no stock\"\n}", "error", "no stock"},
			{"ready", "unknown", "ready"},
		}},
		{"a logged object", []string{"2026-11-21 13:04:05 INFO {", `  "msg": "no stock"`, "}"}, []told{
			{"2026-11-21 13:04:05 INFO {\n  \"msg\": \"no stock\"\n}", "info", "no stock"},
		}},
		{"an object behind a message", []string{"2026-11-21 13:04:05 INFO config is {", `  "msg": "no stock"`, "}"}, []told{
			{"2026-11-21 13:04:05 INFO config is {", "info", "config is {"},
		}},
		{"no object", []string{"{", "  int x = 7;", "}"}, []told{{"{", "unknown", "{"}}},
		{"a place of Node.js alone", []string{"/srv/a.js:12", "2026-11-21 13:04:05 INFO ready"}, []told{
			{"/srv/a.js:12", "unknown", "<*>"}, {"2026-11-21 13:04:05 INFO ready", "info", "ready"},
		}},
		{"an error of Node.js that is broken off", []string{"/srv/a.js:12", "    throw new Error('x')", "    ^"}, []told{
			{"/srv/a.js:12", "unknown", "<*>"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, headsOf(tt.lines)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// A message that was logged is one pattern, with whatever errors and without.
func TestHeadOfALoggedMessageIsThatOfTheMessage(t *testing.T) {
	logged := "2026-11-21 13:04:05 ERROR order 17 not stored"
	for _, trace := range []string{
		"", "Traceback (most recent call last):\n  File \"a.py\", line 1\nOSError: gone", "a.b.StoreException: no room\n\tat a.b.C(C.java:1)", "    at x (/srv/a.js:1:1)",
	} {
		want := []told{{logged, "error", "order <*> not stored"}}
		if diff := cmp.Diff(want, headsOf(strings.Split(strings.TrimSpace(logged+"\n"+trace), "\n"))); diff != "" {
			t.Errorf("%q (-want +got)\n%s", trace, diff)
		}
	}
}

func TestHeadBeforeTheFirstMessage(t *testing.T) {
	var j Joiner
	if j.Add([]byte("ready")); j.Head() != nil {
		t.Errorf("the head is %q", j.Head())
	}
}

func TestHeadAllocatesNothing(t *testing.T) {
	var j Joiner
	b, err := os.ReadFile("testdata/traces/below-python-cause.txt")
	if err != nil {
		t.Fatal(err)
	}
	var lines [][]byte
	for _, l := range strings.Split(string(b), "\n") {
		lines = append(lines, []byte(l))
	}
	add := func() {
		for _, l := range lines {
			if _, ok := j.Add(l); ok {
				j.Head()
			}
		}
		j.Flush()
		j.Head()
	}
	add()
	add()
	if n := testing.AllocsPerRun(100, add); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// again is a Joiner to which what another has kept was added.
func again(t *testing.T, j *Joiner) *Joiner {
	t.Helper()
	var n Joiner
	kept := j.Pending()
	if kept == nil {
		return &n
	}
	for _, l := range strings.Split(string(kept), "\n") {
		if m, ok := n.Add([]byte(l)); ok {
			t.Fatalf("%q is two messages, the first is %q", kept, m)
		}
	}
	return &n
}

// checkPending adds lines to a Joiner and, from each place on, to another that goes on with what it has kept.
func checkPending(t *testing.T, lines []string) {
	t.Helper()
	var j Joiner
	for _, l := range lines {
		n := again(t, &j)
		type step struct{ Message, Head, Kept string }
		both := [2]step{}
		for i, k := range []*Joiner{&j, n} {
			if m, ok := k.Add([]byte(l)); ok {
				both[i] = step{Message: fmt.Sprintf("%q", m), Head: string(k.Head())}
			}
			both[i].Kept = string(k.Pending())
		}
		if diff := cmp.Diff(both[0], both[1]); diff != "" {
			t.Fatalf("at %q (-without a stop +with one)\n%s", l, diff)
		}
		if j.trace != n.trace || j.lines != n.lines || j.any != n.any {
			t.Fatalf("at %q: %v of %d lines, with a stop before it %v of %d", l, j.trace, j.lines, n.trace, n.lines)
		}
	}
}

func TestPendingGoesOn(t *testing.T) {
	files, err := filepath.Glob("testdata/traces/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{"", "", "ready", ""}
	for _, file := range files {
		b, err := os.ReadFile(file) //nolint:gosec // ours
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(string(b), "\n")...)
		lines = append(lines, "INFO ready")
	}
	for range joinLines + 10 {
		lines = append(lines, "\tat a.B.c(B.java:1)")
	}
	checkPending(t, lines)
}

func TestPendingOfNothing(t *testing.T) {
	var j Joiner
	if got := j.Pending(); got != nil {
		t.Errorf("%q", got)
	}
	if j.Add(nil); j.Pending() == nil {
		t.Error("an empty line is nothing")
	}
	if j.Flush(); j.Pending() != nil {
		t.Errorf("%q", j.Pending())
	}
}

func BenchmarkJoinerWithHead(b *testing.B) {
	lines := benchLines(1024)
	var j Joiner
	i, n := 0, 0
	for b.Loop() {
		j.Add(lines[i&1023])
		n += len(j.Head())
		i++
	}
	_ = n
}
