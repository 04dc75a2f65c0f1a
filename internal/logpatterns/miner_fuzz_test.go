// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// FuzzAdd takes the lines of a text as messages.
func FuzzAdd(f *testing.F) {
	for seed := range uint64(4) {
		var text []byte
		for _, l := range mixture(60+seed, 60) {
			text = append(append(text, l...), '\n')
		}
		f.Add(text)
	}
	for _, l := range goldenMessages {
		f.Add([]byte(l))
	}
	for _, unit := range hostileLines {
		f.Add(bytes.Repeat([]byte(unit), 200))
	}
	for _, attack := range attacks {
		r := seeded(71)
		var text []byte
		for range 40 {
			text = append(append(text, attack.line(r)...), '\n')
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, opts := range []Options{{}, {MaxPatterns: 6, MaxPatternsPerLevel: 4, MaxSkeletons: 12}} {
			m, twin := New(opts), New(opts)
			var want [NumLevels]uint64
			for i, line := range bytes.Split(text, []byte("\n")) {
				level := Level(i % int(NumLevels)) //nolint:gosec // few
				before := bytes.Clone(line)
				p, q := m.AddFrom(uint8(i%5), line, level), twin.AddFrom(uint8(i%5), line, level) //nolint:gosec // few
				want[level]++
				if !bytes.Equal(line, before) {
					t.Fatalf("%q was changed to %q", before, line)
				}
				if p.ID() != q.ID() || p.Template() != q.Template() {
					t.Fatalf("%q is of %q and of %q", line, p.Template(), q.Template())
				}
				if again := m.Find(line); !p.IsOverflow() && again.ID() != p.ID() {
					t.Fatalf("%q is of %q when added, of %q when looked for", line, p.Template(), again.Template())
				}
				for _, text := range []string{p.Template(), m.Redact(line)} {
					if len(text) > min(maxTemplate, 3*len(line)+3*maxTokens*2) || !utf8.ValidString(text) {
						t.Fatalf("%q has a template of %d bytes: %q", line, len(text), text)
					}
				}
			}
			m.Learn()
			twin.Learn()
			if diff := cmp.Diff(knownOf(m), knownOf(twin)); diff != "" {
				t.Fatal(diff)
			}
			checkCounts(t, m, want)
		}
	})
}

// FuzzQuickHash makes sure that lines that quickHash takes for one are one to the tokenizer.
func FuzzQuickHash(f *testing.F) {
	for _, l := range mixture(80, 100) {
		f.Add([]byte(l), uint64(1))
	}
	for _, l := range goldenMessages {
		f.Add([]byte(l), uint64(2))
	}
	for _, kind := range secretKinds {
		r := seeded(83)
		for _, form := range kind.forms[:4] {
			f.Add([]byte(form+" "+kind.value(r)), uint64(3))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		r := seeded(seed)
		for range 8 {
			other := changeWords(r, text)
			if quickHash(text) != quickHash(other) {
				continue
			}
			if a, b := skeleton(string(text)), skeleton(string(other)); a != b {
				t.Fatalf("%q is %q, %q is %q: one quick hash", text, a, other, b)
			}
		}
	})
}

// TestQuickHashTellsSkeletonsApart looks at all short texts of signs and letters that the tokenizer treats in a special way.
func TestQuickHashTellsSkeletonsApart(t *testing.T) {
	const alphabet = "a1 -./:'\"=[](,<"
	seen := map[uint64]string{}
	m := New(Options{})
	render := func(text string) string {
		return string(m.words.render(nil, m.codesOf(nil, m.tokenizer.tokenize([]byte(text)), true)))
	}
	faults := 0
	check := func(text string) {
		quick := quickHash([]byte(text))
		other, ok := seen[quick]
		if !ok {
			seen[quick] = text
			return
		}
		if a, b := render(text), render(other); a != b && faults < 30 {
			faults++
			t.Errorf("%q is %q, %q is %q: one quick hash", text, a, other, b)
		}
	}
	var all func(text []byte, n int)
	all = func(text []byte, n int) {
		check(string(text))
		for i := 0; i < len(alphabet) && n > 0; i++ {
			all(append(text, alphabet[i]), n-1)
		}
	}
	all(make([]byte, 0, 8), 5)
	pieces := []string{
		" ", "  ", "\t", "a", "1", "b7", "can't", "GET", "SELECT", "INSERT INTO", "UPDATE", "SET", "password", "bearer", "ms", "KB", "Jan", "UTC",
		"type", "=", ":", "://", "/", "-", "..", ".", ",", "'", `"`, "`", "(", ")", "[", "]", "{", "}", "ff", `\`, "@", "#", "<", ">", "\x00", "é", "_", "+", "|", "?", "!",
		strings.Repeat("k", maxWord), strings.Repeat("q ", maxQuoted/2),
	}
	r := seeded(23)
	for range 300_000 {
		var text []byte
		for range 1 + r.IntN(7) {
			text = append(text, pieces[r.IntN(len(pieces))]...)
		}
		check(string(text))
	}
}

// changeDigits returns text with other digits.
func changeDigits(r *rand.Rand, text []byte) []byte {
	changed := bytes.Clone(text)
	for i, c := range changed {
		if classes[c] == classDigit && r.IntN(2) == 0 {
			changed[i] = '0' + byte(r.IntN(10))
		}
	}
	return changed
}

func TestQuickHashIsThatOfOtherNumbers(t *testing.T) {
	r := seeded(29)
	for _, l := range mixture(4, 2000) {
		other := changeDigits(r, []byte(l))
		if quickHash([]byte(l)) != quickHash(other) {
			t.Errorf("%q and %q have two quick hashes", l, other)
		}
		if a, b := skeleton(l), skeleton(string(other)); a != b {
			t.Errorf("%q is %q, but %q is %q", l, a, other, b)
		}
	}
}

// changeWords returns text with other bytes in some of its words with a digit.
func changeWords(r *rand.Rand, text []byte) []byte {
	const bytesOfWords = "0123456789abzAZ_$.-/@#%+~*'\\\xc3\xa9"
	var changed []byte
	for i := 0; i < len(text); {
		from, digit := i, false
		for ; i < len(text) && classes[text[i]]&classWord != 0; i++ {
			digit = digit || classes[text[i]] == classDigit
		}
		if i == from {
			changed = append(changed, text[i])
			i++
			continue
		}
		word := bytes.Clone(text[from:i])
		if digit && r.IntN(2) == 0 {
			for range 1 + r.IntN(3) {
				at := r.IntN(len(word))
				switch c := bytesOfWords[r.IntN(len(bytesOfWords))]; r.IntN(3) {
				case 0:
					word[at] = c
				case 1:
					word = slices.Insert(word, at, c)
				case 2:
					if len(word) > 1 {
						word = slices.Delete(word, at, at+1)
					}
				}
			}
		}
		changed = append(changed, word...)
	}
	return changed
}

// TestQuickHashOfOtherWords changes words with a digit, of which quickHash looks at little.
func TestQuickHashOfOtherWords(t *testing.T) {
	r := seeded(31)
	lines := mixture(10, 200)
	for _, kind := range secretKinds {
		for _, form := range kind.forms {
			lines = append(lines, fmt.Sprintf(form, kind.value(r)))
		}
	}
	equal := 0
	for _, l := range append(lines, goldenMessages...) {
		for range 60 {
			other := string(changeWords(r, []byte(l)))
			if quickHash([]byte(l)) != quickHash([]byte(other)) {
				continue
			}
			equal++
			if a, b := skeleton(l), skeleton(other); a != b {
				t.Errorf("%q is %q, %q is %q: one quick hash", l, a, other, b)
				break
			}
		}
	}
	if equal < 1000 {
		t.Errorf("only %d lines were compared", equal)
	}
}
