// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files of testdata")

// goldenMessages are each alone in a miner that knows nothing.
var goldenMessages = []string{
	"",
	"ready",
	"ready.",
	"Ready",
	"the cache was flushed",
	"took 42 ms",
	"took 1h2m3.5s",
	"wrote 1.15 KB to segment-00042",
	"worker-3 is up",
	"disk sda1 is gone",
	"fault at 0xdeadbeef",
	"commit 9f86d081884c7d65 is not there",
	"id 123e4567-e89b-12d3-a456-426614174000 expired",
	"peer 10.0.0.7:5432 is slow",
	"peer fe80::1ff:fe23:4567:890a is slow",
	"station 00:1a:2b:3c:4d:5e left",
	"dial db.example.com:5432",
	"no file /var/log/syslog here",
	"ask http://example.com/a?b=c#d again",
	"mail to jane.doe@example.com is queued",
	"GET /index.html gave 200",
	"user=alice action=login",
	`note="two words" n=3`,
	"tags=[a, b, c] n=3",
	"I can't go on",
	"no such key 'a b' in map",
	`no such key "a 7" in map`,
	`answer {"code":5,"text":"no"}`,
	"ports [80, 443, 8080] are open",
	"[main] is ready",
	"ran SELECT id FROM users WHERE name = 'bob' in 5 ms",
	"a=1 a=2 a=3 a=4",
	"Authorization: Bearer abcdefgh",
	"password: correcthorse given",
	"接続が閉じられました",
	"ユーザー 42 が接続しました",
	"Соединение 17 закрыто",
	"🚀 ready on 8080",
	"bad \xff\xfe bytes",
	"nul \x00 here",
	"tab\there",
	"---",
	"is it <*> or not",
	strings.Repeat("so long a line ", 40),
}

// goldenGroups are seen together. Each %s is a word of its own.
var goldenGroups = []string{
	"session opened for user %s",
	"session closed for user %s",
	"cannot reach host %s: connection refused",
	"stage '%s' is over after 5 s",
	"tenant %s has used up all of its quota",
}

// TestIdentities holds identities fast: a change of one needs another Version.
func TestIdentities(t *testing.T) {
	const file = "testdata/identities.tsv"
	var b strings.Builder
	line := func(p Pattern, message string) {
		fmt.Fprintf(&b, "%s\t%q\t%q\n", p.ID(), p.Template(), message)
	}
	for _, message := range goldenMessages {
		line(New(Options{}).Add([]byte(message), LevelInfo), message)
	}
	for _, format := range goldenGroups {
		r := seeded(31)
		var lines []string
		for range 20 {
			lines = append(lines, fmt.Sprintf(format, randomWord(r)))
		}
		line(learned(lines).Find([]byte(lines[0])), lines[0])
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("identities have changed (-update writes them, Version has to change too):\n%s", diff)
	}
}

func TestIdentityBeginsWithTheVersion(t *testing.T) {
	valid := regexp.MustCompile(`^[0-9a-f]{16}$`)
	seen := map[string]string{}
	for _, l := range append(mixture(5, 500), goldenMessages...) {
		p := New(Options{}).Add([]byte(l), LevelInfo)
		id, template := p.ID(), p.Template()
		if !valid.MatchString(id) {
			t.Errorf("the identity of %q is %q", l, id)
		}
		if version, _ := strconv.ParseUint(id[:2], 16, 8); version != Version {
			t.Errorf("the identity of %q is of version %d", l, version)
		}
		if other, ok := seen[id]; ok && other != template {
			t.Errorf("%q and %q have the identity %s", other, template, id)
		}
		seen[id] = template
	}
}

func TestIdentityKnowsNoLevel(t *testing.T) {
	m := New(Options{})
	first := m.Add([]byte("volume 7 is full"), LevelUnknown).ID()
	for level := range NumLevels {
		if got := m.Add([]byte("volume 8 is full"), level).ID(); got != first {
			t.Errorf("level %v: identity %s, want %s", level, got, first)
		}
	}
}

func TestOverflowHasNoIdentity(t *testing.T) {
	m := New(Options{MaxPatterns: 1})
	m.Add([]byte("volume is full"), LevelInfo)
	p := m.Add([]byte("replica is late"), LevelInfo)
	if !p.IsOverflow() || p.ID() != "" || p.Template() != "" {
		t.Errorf("overflow %v, identity %q, template %q", p.IsOverflow(), p.ID(), p.Template())
	}
}
