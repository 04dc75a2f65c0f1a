// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

// localPart says of which part of a message a record is.
type localPart uint8

const (
	localWhole localPart = iota
	localMore
	localLast
)

// localMessage is what the driver writes, which leaves out what is zero.
func localMessage(text, stream string, part localPart) []byte {
	var b []byte
	b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), stream)
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), 1795224823204430901)
	if text != "" {
		b = protowire.AppendString(protowire.AppendTag(b, 3, protowire.BytesType), text)
	}
	if part == localWhole {
		return b
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, 4, protowire.VarintType), 1)
	var of []byte
	if part == localLast {
		of = protowire.AppendVarint(protowire.AppendTag(of, 1, protowire.VarintType), 1)
	}
	of = protowire.AppendString(protowire.AppendTag(of, 2, protowire.BytesType), strings.Repeat("ab", 32))
	of = protowire.AppendVarint(protowire.AppendTag(of, 3, protowire.VarintType), 2)
	return protowire.AppendBytes(protowire.AppendTag(b, 5, protowire.BytesType), of)
}

func localRecord(text, stream string, part localPart) string {
	m := localMessage(text, stream, part)
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(m))), m...) //nolint:gosec // small
	return string(binary.BigEndian.AppendUint32(b, uint32(len(m))))       //nolint:gosec // small
}

func TestParseDockerLocal(t *testing.T) {
	at := time.Unix(0, 1795224823204430901).UTC()
	for _, tt := range []struct {
		name    string
		in      []byte
		want    record
		invalid bool
	}{
		{name: "line", in: localMessage("a line", "stdout", localWhole), want: record{text: []byte("a line"), stream: Stdout}},
		{name: "empty", in: localMessage("", "stderr", localWhole), want: record{stream: Stderr}},
		{name: "part", in: localMessage("a part", "stdout", localMore), want: record{text: []byte("a part"), stream: Stdout, partial: true}},
		{name: "last part", in: localMessage("a part", "stdout", localLast), want: record{text: []byte("a part"), stream: Stdout}},
		{
			name: "field of a later version", want: record{text: []byte("a line"), stream: Stdout},
			in: protowire.AppendVarint(protowire.AppendTag(localMessage("a line", "stdout", localWhole), 6, protowire.VarintType), 1),
		},
		{name: "another stream", in: localMessage("a line", "stdlog", localWhole), invalid: true},
		{name: "torn", in: localMessage("a line", "stdout", localWhole)[:20], invalid: true},
		{name: "nothing", invalid: true},
		{name: "text", in: []byte("a line"), invalid: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, ok := parseDockerLocal(tt.in)
			if ok == tt.invalid {
				t.Fatalf("valid: got %v", ok)
			}
			tt.want.at = at
			if diff := cmp.Diff(tt.want, r, cmp.AllowUnexported(record{})); ok && diff != "" {
				t.Error(diff)
			}
		})
	}
}

// splitAll has a splitter take data as it would come from a file, and returns the lines.
func splitAll(data []byte, chunk int) (lines []string, invalid uint64) {
	s := newSplitter(1<<16, 1<<18)
	var j joins
	skip, from := false, 0
	for to := 0; to < len(data); {
		to = min(len(data), to+chunk)
		for {
			s.reset()
			n, skipping := s.split(data[from:to], DockerLocal, &j, skip)
			from, skip = from+n, skipping
			invalid += s.invalid
			for _, l := range s.lines {
				lines = append(lines, string(l.Text))
			}
			if n == 0 || from == to {
				break
			}
		}
	}
	return lines, invalid
}

// What is damaged is left out, and what comes after it is found, however it comes.
func TestDamagedFrames(t *testing.T) {
	var whole []byte
	var want []string
	for i := range 50 {
		text := fmt.Sprintf("line %d %s", i, strings.Repeat("x", i*7))
		want = append(want, text)
		whole = append(whole, localRecord(text, "stdout", localWhole)...)
	}
	for _, chunk := range []int{1, 3, 64, 1 << 20} {
		got, invalid := splitAll(whole, chunk)
		if diff := cmp.Diff(want, got); diff != "" || invalid != 0 {
			t.Fatalf("chunks of %d: %d invalid\n%s", chunk, invalid, diff)
		}
		first := []byte(localRecord(want[0], "stdout", localWhole))
		for name, damage := range map[string][]byte{
			"text": []byte("this is no record, whatever it may be"), "zeros": make([]byte, 5000), "end of one": whole[len(whole)-100:],
			"begin of one": whole[len(whole)-200 : len(whole)-100], "too long": {0xff, 0xff, 0xff, 0xff, 1, 2},
		} {
			data := bytes.Join([][]byte{first, damage, whole[len(first):]}, nil)
			got, invalid := splitAll(data, chunk)
			if diff := cmp.Diff(want, got); diff != "" || invalid != 1 {
				t.Errorf("%s, chunks of %d: %d invalid\n%s", name, chunk, invalid, diff)
			}
		}
	}
}

func FuzzSplitFrames(f *testing.F) {
	f.Add([]byte(localRecord("a line", "stdout", localWhole)+localRecord("a part", "stderr", localMore)+localRecord(" of it", "stderr", localLast)), uint16(5))
	f.Add([]byte("\x00\x00\x00\x04abcd\x00\x00\x00\x04"), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, chunk uint16) {
		lines, _ := splitAll(b, int(chunk)+1)
		n := 0
		for _, l := range lines {
			n += len(l)
		}
		if n > len(b) {
			t.Fatalf("%d bytes of text in %d", n, len(b))
		}
		// What comes after it is found, but for what its end may be the begin of.
		after := localRecord("the first one", "stdout", localWhole) + localRecord("the last one", "stdout", localWhole)
		lines, _ = splitAll(append(bytes.Clone(b), bytes.Repeat([]byte(after), 3000)...), 1<<16)
		if len(lines) == 0 || lines[len(lines)-1] != "the last one" {
			t.Fatalf("%d lines, not the last one", len(lines))
		}
	})
}

func BenchmarkSplitFrames(b *testing.B) {
	var data []byte
	for i := range 1000 {
		data = append(data, localRecord(fmt.Sprintf("INFO request %d of user %d took %d ms, and all went well", i, rand.N(1000), rand.N(100)), "stdout", localWhole)...)
	}
	s := newSplitter(1<<16, 1<<18)
	var j joins
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		s.reset()
		if n, _ := s.split(data, DockerLocal, &j, false); n != len(data) {
			b.Fatal(n)
		}
	}
}
