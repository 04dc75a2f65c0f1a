// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"
)

// checkFrame checks what holds for any line and returns the message.
func checkFrame(t *testing.T, line []byte) ([]byte, Level) {
	t.Helper()
	before := bytes.Clone(line)
	var f Framer
	message, level := f.Frame(line)
	message = bytes.Clone(message)
	if !bytes.Equal(line, before) {
		t.Fatalf("the line was changed: %q, was %q", line, before)
	}
	if len(message) > len(line) {
		t.Errorf("line %q of %d bytes has a message of %d: %q", line, len(line), len(message), message)
	}
	if level >= NumLevels {
		t.Errorf("line %q has level %d", line, level)
	}
	plain := appendPlain(nil, line)
	if len(message) == 0 && len(trimFrame(plain)) > 0 {
		t.Errorf("line %q has no message", line)
	}
	if bytes.IndexByte(message, ansiEscape) >= 0 && !bytes.ContainsAny(line, `\`) {
		t.Errorf("line %q has an escape in its message %q", line, message)
	}
	if again, againLevel := f.Frame(plain); !bytes.Equal(again, message) || againLevel != level {
		t.Errorf("line %q: %v %q, but %v %q without terminal sequences", line, level, message, againLevel, again)
	}
	return message, level
}

func FuzzFrame(f *testing.F) {
	for _, l := range labelledLines(f) {
		f.Add([]byte(l.line))
	}
	for _, kind := range frameKinds {
		f.Add([]byte(kind.line))
	}
	f.Fuzz(func(t *testing.T, line []byte) { checkFrame(t, line) })
}

func FuzzFrameJSON(f *testing.F) {
	for _, l := range labelledLines(f) {
		f.Add([]byte(l.line), l.message, "request done")
	}
	f.Add([]byte(`{"a":{"b":{"c":{"msg":"no"}}},"msg":"\ud83d\ude00 \ud83d x \u0041"}`), "\x00\x1f\"\\/\u2028", "é")
	f.Fuzz(func(t *testing.T, raw []byte, text, other string) {
		checkFrame(t, append([]byte(`{"`), raw...))
		checkFrame(t, append([]byte(`{"level":"info","msg":"`), raw...))

		// What encoding/json wrote is read as encoding/json reads it, wherever it stands, also behind a time.
		object, err := json.Marshal(map[string]any{
			"zone": other, "another": map[string]any{"message": other, "list": []string{other, text}}, "msg": text, "level": "error", "n": 1.5e3,
		})
		if err != nil {
			t.Fatal(err)
		}
		var back struct {
			Msg string `json:"msg"`
		}
		if err := json.Unmarshal(object, &back); err != nil {
			t.Fatal(err)
		}
		want := trimFrame(appendPlain(nil, []byte(back.Msg)))
		if len(want) == 0 {
			want = object
		}
		for _, prefix := range []string{"", "2026-11-21T13:04:05Z ", "Nov 21 13:04:05 host app[1]: "} {
			message, level := checkFrame(t, append([]byte(prefix), object...))
			if !bytes.Equal(message, want) || level != LevelError {
				t.Errorf("object %s behind %q: got %v %q, want error %q", object, prefix, level, message, want)
			}
		}
		checkValidJSON(t, raw)
	})
}

// checkValidJSON compares what is read from any valid object that has a msg and no other field for it, with encoding/json.
func checkValidJSON(t *testing.T, raw []byte) {
	t.Helper()
	raw = trimFrame(raw)
	var fields map[string]json.RawMessage
	if bytes.IndexByte(raw, ansiEscape) >= 0 || !utf8.Valid(raw) || !jsonBegins(raw) || json.Unmarshal(raw, &fields) != nil || bytes.Count(raw, []byte(`"msg"`)) != 1 {
		return
	}
	for name := range fields {
		if key, _ := jsonKeyOf([]byte(name)); name != "msg" && (key == jsonMessage || key == jsonLog || key == jsonHolder) {
			return
		}
	}
	var want string
	if fields["msg"] == nil || json.Unmarshal(fields["msg"], &want) != nil {
		return
	}
	text := trimFrame(appendPlain(nil, []byte(want)))
	if len(text) == 0 {
		text = raw
	}
	if got, _ := new(Framer).Frame(raw); !bytes.Equal(got, text) {
		t.Errorf("object %s: got %q, want %q", raw, got, text)
	}
}

func FuzzFrameLogfmt(f *testing.F) {
	f.Add([]byte(`level=info msg="a \"b\" c" x=1`), "plain", "v")
	f.Add([]byte(`msg=a b c=d level=warn`), "with \"quotes\" and \\", "v w")
	f.Add([]byte(`ts=1 msg="not closed \`), "", "")
	f.Fuzz(func(t *testing.T, raw []byte, text, value string) {
		checkFrame(t, raw)
		checkFrame(t, append([]byte("level=info msg="), raw...))

		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		quotedValue, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal(quoted, &back); err != nil {
			t.Fatal(err)
		}
		line := bytes.Join([][]byte{[]byte("ts=1763730245 level=warn msg="), quoted, []byte(" other="), quotedValue}, nil)
		want := trimFrame(appendPlain(nil, []byte(back)))
		if len(want) == 0 {
			want = line
		}
		message, level := checkFrame(t, line)
		if !bytes.Equal(message, want) || level != LevelWarning {
			t.Errorf("line %s: got %v %q, want warning %q", line, level, message, want)
		}
	})
}
