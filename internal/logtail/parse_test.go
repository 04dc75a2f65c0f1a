// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseDocker(t *testing.T) {
	const end = `,"stream":"stdout","time":"2026-11-21T01:33:43.204430901Z"}`
	for _, tt := range []struct {
		name, in, want   string
		partial, invalid bool
	}{
		{name: "line", in: `{"log":"a line\n"` + end, want: "a line"},
		{name: "part", in: `{"log":"a part"` + end, want: "a part", partial: true},
		{name: "empty", in: `{"log":"\n"` + end},
		{name: "escapes", in: `{"log":"\"q\" \\ \/ \t\r\b\f \u003c\u00e9\u20ac \ud83d\ude00\n"` + end, want: "\"q\" \\ / \t\r\b\f <é€ 😀"},
		{name: "escaped part", in: `{"log":"\\n"` + end, want: `\n`, partial: true},
		{name: "half a pair", in: `{"log":"\ud83dx\n"` + end, want: "\uFFFDx"},
		{name: "unknown escapes", in: `{"log":"\x \u12\n"` + end, want: `\x \u12`},
		{name: "bytes that are not UTF-8", in: "{\"log\":\"\xff\x00\\n\"" + end, want: "\xff\x00"},
		{name: "labels", in: `{"log":"x\n","stream":"stdout","attrs":{"a":"b}","c":["d",{"e":1}]},"n":12,"time":"2026-11-21T01:33:43.204430901Z"}`, want: "x"},
		{name: "spaces", in: ` { "log" : "x\n" , "stream" : "stdout" , "time" : "2026-11-21T01:33:43.204430901Z" } `, invalid: true},
		{name: "no text", in: `{"stream":"stdout"}`, invalid: true},
		{name: "two texts", in: `{"log":"a\n","log":"b\n"}`, invalid: true},
		{name: "torn", in: `{"log":"a li`, invalid: true},
		{name: "torn escape", in: `{"log":"a\`, invalid: true},
		{name: "bad time", in: `{"log":"a\n","time":"x"}`, invalid: true},
		{name: "deep", in: `{"a":` + strings.Repeat("[", 1000) + `,"log":"a\n"}`, invalid: true},
		{name: "not an object", in: `[]`, invalid: true},
		{name: "nothing", in: "", invalid: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _, ok := parseDocker([]byte(tt.in), nil)
			if ok == tt.invalid {
				t.Fatalf("valid: got %v", ok)
			}
			if ok && (string(r.text) != tt.want || r.partial != tt.partial || r.stream != Stdout || r.at.UnixNano() != 1795224823204430901) {
				t.Errorf("got %q %v %v %v", r.text, r.partial, r.stream, r.at)
			}
		})
	}
}

func TestParseTimeAgreesWithTime(t *testing.T) {
	for _, in := range []string{
		"2026-11-21T01:33:43.204430901Z", "2024-02-29T23:59:59+00:00", "2024-02-29T23:59:59.5-03:30", "1970-01-01T00:00:00Z",
		"1969-12-31T23:59:59.999999999Z", "2000-03-01T00:00:00Z", "2100-02-28T12:00:00+14:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
	} {
		want, err := time.Parse(time.RFC3339Nano, in)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := parseTime([]byte(in)); !ok || !got.Equal(want) {
			t.Errorf("%s: got %v, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "2026-11-21", "2026-11-21T01:33:43", "2026-13-21T01:33:43Z", "2026-11-21T01:33:43.5", "2026-11-21 01:33:43Z", "2026-11-21T01:33:43+0100"} {
		if got, ok := parseTime([]byte(in)); ok {
			t.Errorf("%q: got %v, want none", in, got)
		}
	}
}

func TestIsRotated(t *testing.T) {
	for name, want := range map[string]bool{
		"app.log.1": true, "app.log.12": true, "app.log-20261121": true, "app.log.2026-11-21T01:00:00Z": true, "app.1.log": true,
		"app-20261121.log": true, "app.log.old": true,
		"app.log": false, "app.log.1.gz": false, "app.log.debug": false, "app2.log": false, "apple.log": false, "app.log.": false,
		"app-error.log": false, "other.log.1": false, "app.log.T": false,
	} {
		if got := isRotated("app.log", name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func FuzzParseDocker(f *testing.F) {
	f.Add([]byte(`{"log":"a \"line\" \u003c\ud83d\ude00\n","stream":"stdout","attrs":{"a":[1,"]"]},"time":"2026-11-21T01:33:43.204430901Z"}`))
	f.Add([]byte(`{"log":"part","stream":"stderr","time":"2026-11-21T01:33:43+00:00"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, scratch, ok := parseDocker(b, nil)
		if len(scratch) > len(b) || len(r.text) > len(b) {
			t.Fatalf("decoded %d bytes of %d", len(r.text), len(b))
		}
		// What encoding/json makes of a string must come back.
		in, err := json.Marshal(map[string]string{"log": strings.ToValidUTF8(string(b), "?") + "\n"})
		if err != nil {
			t.Fatal(err)
		}
		got, _, valid := parseDocker(in, nil)
		if diff := cmp.Diff(strings.ToValidUTF8(string(b), "?"), string(got.text)); !valid || got.partial || diff != "" {
			t.Fatalf("%q: %v %s", in, valid, diff)
		}
		_ = ok
	})
}

func FuzzParseCRI(f *testing.F) {
	f.Add([]byte("2026-11-21T01:33:43.204430901Z stdout F text"))
	f.Add([]byte("2026-11-21T01:33:43.204430901+00:00 stderr P:x text"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := parseCRI(b)
		if !ok {
			return
		}
		if !strings.HasSuffix(string(b), string(r.text)) || r.stream == StreamUnknown {
			t.Fatalf("%q: %q %v", b, r.text, r.stream)
		}
		if text, _, found := strings.Cut(string(b), " "); found {
			if want, err := time.Parse(time.RFC3339Nano, text); err == nil && !want.Equal(r.at) && len(text) <= len("2026-11-21T01:33:43.204430901+00:00") {
				t.Fatalf("%s: got %v", text, r.at)
			}
		}
	})
}
