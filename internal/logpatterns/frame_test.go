// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFrameTimes(t *testing.T) {
	var f Framer
	for _, stamp := range []string{
		"2026-11-21T13:04:05Z", "2026-11-21T13:04:05.123456789Z", "2026-11-21T13:04:05,123+01:00", "2026-11-21T13:04:05.123+0100",
		"2026-11-21 13:04:05", "2026-11-21 13:04:05,123", "2026-11-21 13:04:05.123 UTC", "2026-11-21 13:04:05 +0000 UTC",
		"2026-11-21 13:04:05.123+00", "2026/11/21 13:04:05", "2026.11.21 13:04:05.123456", "2026-11-21-13.04.05.123456", "2026-11-21_13:04:05",
		"2026-Nov-21 13:04:05", "20261121T130405Z", "20261121 13:04:05", "20261121-13:04:05:606", "20261121130405", "2026-11-21",
		"Nov 21 13:04:05", "Nov  1 13:04:05.123", "Nov 21 2026 13:04:05", "Nov 21, 2026 1:04:05 PM", "NOV 21 13:04:05",
		"Sat Nov 21 13:04:05 2026", "Sat Nov 21 13:04:05.123456 2026", "Sat Nov 21 13:04:05 UTC 2026", "Sat, 21 Nov 2026 13:04:05 GMT",
		"21 Nov 2026 13:04:05.123", "21 Nov 13:04:05", "21-Nov-2026 13:04:05.123", "21/Nov/2026:13:04:05 +0000", "21-Nov-2026::13:04:05",
		"26/11/21 13:04:05", "11/21/2026 1:04:05 PM", "11/21/2026, 1:04:05 PM", "21.11.2026 13:04:05", "21-11-2026 13:04:05",
		"11-21 13:04:05.123", "11.21 13:04:05", "11/21 13:04:05", "261121 13:04:05", "261121 130405", "13:04:05", "13:04:05.123", "1:04PM", "1:04:05 pm",
		"1763730245", "1763730245.123456", "1763730245123", "1763730245123456789",
	} {
		for _, form := range []string{"%s text", "[%s] text", "%s: text", "%s - text", "%s INFO text", "[%s] [INFO] text", "INFO %s text", "%s | INFO | text"} {
			line := strings.Replace(form, "%s", stamp, 1)
			wantLevel := LevelUnknown
			if strings.Contains(form, "INFO") {
				wantLevel = LevelInfo
			}
			if message, level := f.Frame([]byte(line)); string(message) != "text" || level != wantLevel {
				t.Errorf("line %q: got %v %q, want %v %q", line, level, message, wantLevel, "text")
			}
		}
	}
}

func TestFrameKeepsWhatIsNoTime(t *testing.T) {
	var f Framer
	for _, line := range []string{
		"12:30 meeting moved", "2024-2025 season", "10.30 is late", "03-17 was a day", "May 5 apples fell", "Sun is shining", "Mar 17 was sunny",
		"10.0.0.1 connected", "25:61:00 is no time", "2026-13-40 is no date", "1234567 rows", "99999999999 bytes", "1.5 13", "2026", "21 Nov",
		"13:04:05abc starts", "+5 more",
	} {
		if message, level := f.Frame([]byte(line)); string(message) != line || level != LevelUnknown {
			t.Errorf("line %q: got %v %q", line, level, message)
		}
	}
}

func TestFrameOfNothingAndOfNothingElse(t *testing.T) {
	for _, tt := range []struct {
		name, line, message string
		level               Level
	}{
		{name: "empty"},
		{name: "blanks", line: " \t\r\n"},
		{name: "NUL bytes of a truncated file", line: "\x00\x00\x00"},
		{name: "NUL bytes, then text", line: "\x00\x00INFO text", message: "text", level: LevelInfo},
		{name: "colours only", line: "\x1b[0m\x1b[K"},
		{name: "escape alone", line: "\x1b"},
		{name: "byte order mark", line: "\ufeffINFO text\r\n", message: "text", level: LevelInfo},
		{name: "time alone", line: "2026-11-21 13:04:05", message: "2026-11-21 13:04:05"},
		{name: "level alone", line: "ERROR", message: "ERROR", level: LevelError},
		{name: "bracketed level alone", line: "[error]", message: "[error]", level: LevelError},
		{name: "time and level", line: "[2026-11-21 13:04:05] [INFO] ", message: "[2026-11-21 13:04:05] [INFO]", level: LevelInfo},
		{name: "name behind a level", line: "INFO com.example.Main", message: "com.example.Main", level: LevelInfo},
		{name: "record of two lines", line: "2026-11-21 13:04:05 ERROR boom\n  at x", message: "boom\n  at x", level: LevelError},
		{name: "header on its own line", line: "2026-11-21 13:04:05 ERROR\nboom", message: "boom", level: LevelError},
		{name: "two blanks before a hyphen", line: "13:04:05 main  - started", message: "main  - started"},
		{name: "not UTF-8", line: "INFO \xff\xfe text", message: "\xff\xfe text", level: LevelInfo},
		{name: "object without fields", line: "{}", message: "{}"},
		{name: "object without a message", line: `{"level":"warn","msg":""}`, message: `{"level":"warn","msg":""}`, level: LevelWarning},
		{name: "logfmt without a message", line: `level=warn ts=1 msg=""`, message: `level=warn ts=1 msg=""`, level: LevelWarning},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f Framer
			message, level := f.Frame([]byte(tt.line))
			if string(message) != tt.message || level != tt.level {
				t.Errorf("got %v %q, want %v %q", level, message, tt.level, tt.message)
			}
		})
	}
}

func TestFrameDoesNotRememberLines(t *testing.T) {
	var reused Framer
	for _, l := range labelledLines(t) {
		var fresh Framer
		message, level := reused.Frame([]byte(l.line))
		wantMessage, wantLevel := fresh.Frame([]byte(l.line))
		if diff := cmp.Diff(string(wantMessage), string(message)); diff != "" || level != wantLevel {
			t.Errorf("line %q: level %v, want %v; message (-fresh +reused):\n%s", l.line, level, wantLevel, diff)
		}
	}
}

func TestFrameDropsLargeBuffers(t *testing.T) {
	var f Framer
	f.Frame([]byte("\x1b[0m" + strings.Repeat("x", framerKeep+1)))
	f.Frame([]byte(`{"msg":"` + strings.Repeat(`\n`, framerKeep+1) + `x"}`))
	f.Frame([]byte("x"))
	if cap(f.plain) > framerKeep || cap(f.decoded[0]) > framerKeep {
		t.Errorf("buffers of %d and %d bytes are kept, want at most %d", cap(f.plain), cap(f.decoded[0]), framerKeep)
	}
}

// What grows with the square of the length takes minutes here.
func TestFrameIsLinear(t *testing.T) {
	const size = 1 << 20
	var f Framer
	start := time.Now()
	for _, part := range []string{
		"\x1b", "\x1b[", "\x1b]", "\x1b]0;x", "[", "(", "[[INFO", "{", `{"a":`, `{"a":"\`, `[{"a":`, "\\", "\"", `{"log":"`, "a=", "a=\"", "level=", "\ufeff", " ", "\x00", "-", "- ", ": ", "|",
		"<1>", "13:04:05 ", "2026-11-21 ", "INFO ", "I ", "a.b ", "A", "A:", "1", "1 ", "/", " HTTP/", " TCP_", " TCP_/", "0/0/0/0/0 ", "\n",
	} {
		for _, prefix := range []string{"", "2026-11-21 13:04:05 ", "INFO ", "Nov 21 13:04:05 ", `{"msg":"`, "level=info msg=", "<34>1 ", "\x1b"} {
			f.Frame([]byte(prefix + strings.Repeat(part, size/len(part))))
		}
	}
	if took := time.Since(start); took > 60*time.Second {
		t.Errorf("lines of 1 MiB took %v", took)
	}
}
