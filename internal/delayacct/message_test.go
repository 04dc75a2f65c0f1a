// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func attr(typ uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(nlaHeaderLen+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, align4(len(b))-len(b))...)
}

func id(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func aggr(typ, idType uint16, n uint32, stats []byte) []byte {
	return attr(typ|0x8000, append(attr(idType, id(n)), attr(typeStats, stats)...)) // NLA_F_NESTED, which 6.x sets
}

func body(attrs ...[]byte) []byte {
	b := []byte{cmdNew, familyVersion, 0, 0}
	for _, a := range attrs {
		b = append(b, a...)
	}
	return b
}

// groupEnd is the message for the last task of a thread group: the group's record has no version.
func groupEnd(version uint16) []byte {
	group := taskstats(version)
	clear(group[:2])
	return body(
		attr(6, nil), // TASKSTATS_TYPE_NULL, for alignment
		aggr(typeAggrPID, typePID, 42, taskstats(version)),
		aggr(typeAggrTGID, typeTGID, 41, group),
	)
}

func TestEachRecord(t *testing.T) {
	type seen struct {
		PID, TGID uint32
		Group     bool
		Status    uint32
		Delays    Delays
	}
	for _, version := range []uint16{14, 15, 16, 17} {
		var got []seen
		var e Exit
		err := eachRecord(groupEnd(version), true, &e, func(e *Exit) {
			got = append(got, seen{e.PID, e.TGID, e.Group, e.Status, e.Delays})
		})
		if err != nil {
			t.Fatal(err)
		}
		want := []seen{{42, 41, false, 3 << 8, allTold()}, {41, 41, true, 3 << 8, allTold()}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("version %d (-want +got):\n%s", version, diff)
		}
	}
}

func TestEachRecordRefuses(t *testing.T) {
	nested := aggr(typeAggrPID, typePID, 42, taskstats(16))
	for _, tt := range []struct {
		name string
		body []byte
		err  error
	}{
		{"empty", nil, errMalformed},
		{"other command", []byte{cmdGet, 1, 0, 0, 1}, nil},
		{"no attributes", body(), nil},
		{"half an attribute", body([]byte{1, 2}), errMalformed},
		{"attribute longer than the message", body(nested[:len(nested)-4]), errMalformed},
		{"attribute shorter than its header", body([]byte{3, 0, 4, 0}), errMalformed},
		{"record without id", body(attr(typeAggrPID, attr(typeStats, taskstats(16)))), nil},
		{"id without record", body(attr(typeAggrPID, attr(typePID, id(1)))), nil},
		{"short id", body(attr(typeAggrPID, attr(typePID, []byte{1}))), errMalformed},
		{"short record", body(aggr(typeAggrPID, typePID, 1, taskstats(16)[:80])), errShort},
		{"short record of version 15", body(aggr(typeAggrPID, typePID, 1, taskstats(15)[:200])), errShort},
		{"nested nonsense", body(attr(typeAggrPID, []byte{1, 2, 3, 4, 5})), errMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var e Exit
			err := eachRecord(tt.body, true, &e, func(*Exit) { t.Error("gives a record") })
			if !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
		})
	}
}

func datagram(typ uint16, bodies ...[]byte) []byte {
	var b []byte
	for i, body := range bodies {
		b = binary.NativeEndian.AppendUint32(b, uint32(nlHeaderLen+len(body)))
		b = binary.NativeEndian.AppendUint16(b, typ)
		b = binary.NativeEndian.AppendUint16(b, 0)
		b = binary.NativeEndian.AppendUint32(b, uint32(i))
		b = binary.NativeEndian.AppendUint32(b, 0)
		b = append(b, body...)
		b = append(b, make([]byte, align4(len(b))-len(b))...)
	}
	return b
}

func TestNextMessage(t *testing.T) {
	b := datagram(7, []byte("abc"), []byte("defgh"))
	var got []string
	for len(b) > 0 {
		m, rest, err := nextMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		if m.typ != 7 || m.seq != uint32(len(got)) {
			t.Errorf("message %+v", m)
		}
		got = append(got, string(m.body))
		b = rest
	}
	if diff := cmp.Diff([]string{"abc", "defgh"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, size := range []uint32{0, 15, 21, 1 << 31} {
		bad := datagram(7, []byte("abcd"))
		binary.NativeEndian.PutUint32(bad, size)
		if _, _, err := nextMessage(bad); !errors.Is(err, errMalformed) {
			t.Errorf("message that says it has %d bytes: %v", size, err)
		}
	}
}

func FuzzEachRecord(f *testing.F) {
	for _, version := range []uint16{8, 12, 14, 15, 16, 17} {
		f.Add(groupEnd(version), true)
		f.Add(groupEnd(version)[:300], false)
	}
	f.Fuzz(func(t *testing.T, b []byte, counted bool) {
		var e Exit
		_ = eachRecord(b, counted, &e, func(e *Exit) {
			if e.PID == 0 || e.Group && e.TGID != e.PID {
				t.Errorf("record of nobody: %+v", e)
			}
			if e.Elapsed < 0 || e.User < 0 || e.System < 0 {
				t.Errorf("negative time: %+v", e)
			}
			for _, d := range e.Delays.each() {
				if d.Time < 0 || !d.OK && d.Time != 0 {
					t.Errorf("delay %+v", d)
				}
			}
			e.Delays.Clamp(e.Elapsed)
			_ = e.Comm()
		})
	})
}

func FuzzNextMessage(f *testing.F) {
	f.Add(datagram(7, []byte("abc"), []byte("defgh")))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			m, rest, err := nextMessage(b)
			if err != nil {
				return
			}
			if len(rest) >= len(b) || len(m.body) > len(b) {
				t.Fatalf("no progress: %d bytes left of %d", len(rest), len(b))
			}
			b = rest
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	msg := datagram(7, body(aggr(typeAggrPID, typePID, 42, taskstats(16))))
	var sum Delays
	var e Exit
	var elapsed time.Duration
	add := func(e *Exit) {
		elapsed += e.Elapsed
		sum.Add(&e.Delays)
	}
	b.ReportAllocs()
	for b.Loop() {
		m, _, err := nextMessage(msg)
		if err != nil {
			b.Fatal(err)
		}
		if err := eachRecord(m.body, true, &e, add); err != nil {
			b.Fatal(err)
		}
	}
}
