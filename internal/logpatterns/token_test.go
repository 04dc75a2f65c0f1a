// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// skeleton is a message as the tokenizer leaves it to a miner that knows nothing.
func skeleton(text string) string {
	m := New(Options{})
	return string(m.words.render(nil, m.codesOf(nil, m.tokenizer.tokenize([]byte(text)), true)))
}

func TestSkeletonNumbers(t *testing.T) {
	checkSkeletons(t, [][2]string{
		{"merged 42 segments", "merged <*> segments"},
		{"moved by -7 places", "moved by <*> places"},
		{"moved by +12 places", "moved by <*> places"},
		{"ratio 3.25 reached", "ratio <*> reached"},
		{"1,234,567 rows copied", "<*> rows copied"},
		{"1e-9 is below the threshold", "<*> is below the threshold"},
		{"disk is 99.5% used", "disk is <*> used"},
		{"try 3/5", "try <*>"},
		{"try #3 of 5", "try <*> of <*>"},
		{"step (2) is over", "step (<*>) is over"},
		{"worker-3 is up", "<*> is up"},
		{"disk sda1 is gone", "disk <*> is gone"},
		{"line 5.", "line <*>."},
		{"line 5, column 7", "line <*>, column <*>"},
		{"wrote 1.15 KB", "wrote <*>"},
		{"segment (1.15 KB) flushed", "segment (<*>) flushed"},
		{"read at 10 MiB/s", "read at <*>"},
		{"took 200ms", "took <*>"},
		{"took 200 ms to answer", "took <*> to answer"},
		{"waited 1h2m3.5s before giving up", "waited <*> before giving up"},
		{"5 seconds left", "<*> left"},
		{"took 12 µs", "took <*>"},
		{"fault at 0xdeadbeef", "fault at <*>"},
		{"commit 9f86d081884c7d65 is not there", "commit <*> is not there"},
		{"id 123e4567-e89b-12d3-a456-426614174000 expired", "id <*> expired"},
		{"id {123e4567-e89b-12d3-a456-426614174000} expired", "id {<*>} expired"},
		{"seen on Mon Jan 5 2026 by the clock", "seen on <*> by the clock"},
		{"seen on 2026-01-05T10:11:12.345Z by the clock", "seen on <*> by the clock"},
		{"seen on 2026-01-05 10:11:12,345 +0100 by the clock", "seen on <*> by the clock"},
		{"seen on 05/Jan/2026:10:11:12 +0000 by the clock", "seen on <*> by the clock"},
		{"range 5-10 is free", "range <*> is free"},
		{"range 5..10 is free", "range <*>..<*> is free"},
		{"version v1.2.3-rc.1 is out", "version <*> is out"},
	})
}

func TestSkeletonAddresses(t *testing.T) {
	checkSkeletons(t, [][2]string{
		{"peer 10.0.0.7 is slow", "peer <*> is slow"},
		{"peer 10.0.0.7:5432 is slow", "peer <*> is slow"},
		{"peer fe80::1ff:fe23:4567:890a is slow", "peer <*> is slow"},
		{"peer 2001:db8::abcd is slow", "peer <*> is slow"},
		{"peer fe80::1%eth0 is slow", "peer <*> is slow"},
		{"peer ::1 is slow", "peer <*> is slow"},
		{"peer ::ffff:10.0.0.1 is slow", "peer <*> is slow"},
		{"peer [::1]:8080 is slow", "peer [<*>]:<*> is slow"},
		{"network 10.0.0.0/8 is full", "network <*> is full"},
		{"station 00:1a:2b:3c:4d:5e left", "station <*> left"},
		{"station aa:bb:cc:dd:ee:ff left", "station <*> left"},
		{"station de:ad:be:ef:00:01 left", "station <*> left"},
		{"dial localhost:8080", "dial <*>"},
		{"dial cache-main:6379", "dial <*>"},
		{"dial db.example.com:5432", "dial <*>"},
		{"dial db.example.com", "dial <*>"},
		{"no file /var/log/syslog here", "no file <*> here"},
		{"no file /tmp here", "no file <*> here"},
		{"no file ./run/app/pid here", "no file <*> here"},
		{"no file ../etc/passwd here", "no file ..<*> here"},
		{`no file C:\Users\bob\notes.txt here`, "no file C:<*> here"},
		{"no file ~/.ssh/config here", "no file <*> here"},
		{"route /users/:id/posts is not known", "route <*> is not known"},
		{"root is / now", "root is / now"},
		{"ask http://example.com/a?b=c#d again", "ask <*> again"},
		{"ask http://example.com/a, then stop", "ask <*> then stop"},
		{`ask "https://bob:word@example.com/a" again`, `ask "<*>" again`},
		{"mail to jane.doe@example.com is queued", "mail to <*> is queued"},
		{"mail to <jane@example.com> is queued", "mail to <<*>> is queued"},
		{"GET /index.html gave 200", "<*> gave <*>"},
		{"DELETE /items/7 HTTP/1.1 gave 404", "<*> gave <*>"},
		{"GET the lock", "GET the lock"},
		{"GET http://example.com/ gave 200", "<*> gave <*>"},
	})
}

func TestSkeletonValues(t *testing.T) {
	checkSkeletons(t, [][2]string{
		{"user=alice size=big", "user=<*> size=<*>"},
		{"user=alice action=login", "user=<*> action=login"},
		{`note="two words" n=3`, `note="two words" n=<*>`},
		{`note="has 2 words" n=3`, `note="<*>" n=<*>`},
		{"tags=[a, b, c] n=3", "tags=<*> n=<*>"},
		{"opts={a=b, c=d} n=3", "opts=<*> n=<*>"},
		{"point=(x, y) n=3", "point=<*> n=<*>"},
		{"open=(never closed n=3", "open=<*> closed n=<*>"},
		{"a == b", "a == b"},
		{"a = b", "a = b"},
		{"count: 5; rest: 7", "count: <*>; rest: <*>"},
		{"I can't go on", "I can't go on"},
		{"it's what it's", "it's what it's"},
		{"the users' files aren't there", "the users' files aren't there"},
		{"no such key 'a b' in map", "no such key 'a b' in map"},
		{"no such key 'a 7' in map", "no such key '<*>' in map"},
		{`no such key "a b" in map`, `no such key "a b" in map`},
		{`a quote " that stays open`, `a quote " that stays open`},
		{`said "it's \"odd\"" twice`, `said "<*>" twice`},
		{`answer {"code":5,"text":"no"}`, "answer {<*>}"},
		{`answer {"code":5,"deep":{"list":[1,2]}} came`, "answer {<*>} came"},
		{"ports [80, 443, 8080] are open", "ports [<*>] are open"},
		{"ports 80, 443, 8080 are open", "ports <*> are open"},
		{"[main] is ready", "[main] is ready"},
		{"[main thread] is ready", "[main thread] is ready"},
		{"[worker-3] is ready", "[<*>] is ready"},
		{"[31m is not a colour here", "[<*> is not a colour here"},
		{"ran SELECT id FROM users WHERE name = 'bob' in 5 ms", "ran <*>"},
		{"INSERT INTO t VALUES (1, 'x')", "<*>"},
		{"SELECTED the leader", "SELECTED the leader"},
		{"a, b, c are missing", "a, b, c are missing"},
		{"a=1 a=2 a=3 a=4", "a=<*>"},
		{"node 5 up, node 6 up, node 7 up", "node <*> up, node <*> up"},
		{"password=correcthorse given", "password=<*> given"},
		{"password: correcthorse given", "password: <*> given"},
		{"Authorization: Bearer abcdefgh", "Authorization: Bearer <*>"},
		{"sent bearer abcdefgh on", "sent bearer <*> on"},
		{"key dGhpcyBpcyBhIHNlY3JldAQ is bad", "key <*> is bad"},
		{"key " + strings.Repeat("k", maxWord) + " is bad", "key " + strings.Repeat("k", maxWord) + " is bad"},
		{"key " + strings.Repeat("k", maxWord+1) + " is bad", "key <*> is bad"},
		{"key '" + strings.Repeat("k ", maxQuoted/2+1) + "' is bad", "key '<*>' is bad"},
	})
}

func TestSkeletonOtherTexts(t *testing.T) {
	checkSkeletons(t, [][2]string{
		{"", ""},
		{" \t\n ", ""},
		{"---", "--"},
		{"...", ".."},
		{"ready...", "ready.."},
		{"ready.", "ready."},
		{"!?", "!?"},
		{"()", "()"},
		{"  ready   now  ", "ready now"},
		{"ready\tnow", "ready now"},
		{"接続が閉じられました", "接続が閉じられました"},
		{"ユーザー 42 が接続しました", "ユーザー <*> が接続しました"},
		{"Соединение 17 закрыто", "Соединение <*> закрыто"},
		{"Übertragung läuft für 5 Geräte", "Übertragung läuft für <*> Geräte"},
		{"🚀 ready on 8080 🎉", "🚀 ready on <*> 🎉"},
		{"bad \xff\xfe bytes 7", "bad \xff\xfe bytes <*>"},
		{"nul \x00 here", "nul \x00 here"},
		{"a -> b", "a -> b"},
		{"a => b", "a => b"},
		{"(a) <b> {c}", "(a) <b> {c}"},
		{"a|b", "a|b"},
		{"don't say 'no' twice", "don't say 'no' twice"},
		{"x::y::z missing", "x::y::z missing"},
		{"com.acme.shop.Cart is empty", "<*> is empty"},
	})
}

func checkSkeletons(t *testing.T, table [][2]string) {
	t.Helper()
	for _, tt := range table {
		if got := skeleton(tt[0]); got != tt[1] {
			t.Errorf("skeleton of %q:\n got %q\nwant %q", tt[0], got, tt[1])
		}
	}
}

// TestSkeletonOfManyTokens makes sure that what is past the limit is one hole, and that nothing is written past the array.
func TestSkeletonOfManyTokens(t *testing.T) {
	var words []string
	for i := range 2 * maxTokens {
		words = append(words, string([]byte{'a' + byte(i%26), 'a' + byte(i/26)}))
	}
	for n := maxTokens - 10; n < 2*maxTokens; n++ {
		for _, sep := range []string{" ", " [x=1] ", " (a) ", ` "q" `, " 'q' ", " 1:"} {
			got := skeleton(strings.Join(words[:n], sep))
			if n > maxTokens+8 && !strings.HasSuffix(got, "<*>") {
				t.Errorf("%d words between %q: %q has no hole at the end", n, sep, got)
			}
		}
	}
}

// hostileLines are kinds of lines of any length that may take long.
var hostileLines = map[string]string{
	"blanks":             " ",
	"letters":            "a",
	"digits":             "1",
	"words":              "word ",
	"numbers":            "1 ",
	"quotes":             `"`,
	"quotes and words":   `"a `,
	"apostrophes":        "'",
	"apostrophes, words": "'a ",
	"apostrophes, digit": "'1 ",
	"apostrophes, lists": "1,'",
	"brackets":           "[",
	"brackets, digits":   "[1 ",
	"closed brackets":    "[1]",
	"parentheses":        "1(",
	"number, number":     "1 (1) ",
	"braces":             "{a:",
	"equals":             "a=",
	"equals, numbers":    "1=(",
	"colons":             ":",
	"IPv6":               "a:",
	"numbers, colons":    "1:a:",
	"dots":               ".",
	"dots, digits":       "1..",
	"slashes":            "/",
	"URLs":               "a://",
	"backslashes":        `\`,
	"quoted backslashes": `"\`,
	"commas":             "a,",
	"dates":              "UTC 1 ",
	"units":              "1 s ",
	"SQL":                "UPDATE ",
	"WITH":               "WITH 1 ",
	"signs":              "-1-",
	"secrets":            "password:1 ",
	"methods":            "GET ",
	"NUL":                "\x00",
	"not UTF-8":          "\xff\xc3 ",
	"mixed case":         "aB",
}

func TestFlagsOfWords(t *testing.T) {
	got := map[string]wordFlags{}
	want := map[string]wordFlags{
		"":                  0,
		"the":               isStop,
		"The":               isStop,
		"Closed":            isEvent,
		"Foo":               0,
		"fooBar":            isOdd,
		"foo_bar":           isOdd,
		"GET":               isMethod | isEvent | isOdd,
		"get":               isEvent,
		"MiB":               isUnit | isOdd,
		"Password":          0,
		"Running":           isEvent,
		"red":               0,
		"true":              isBool | isEvent,
		"informationalists": 0,
	}
	for w := range want {
		got[w] = flagsOf([]byte(w))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
