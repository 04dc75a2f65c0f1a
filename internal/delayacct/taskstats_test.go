// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// taskstats makes a record of a version in which all that it has is told, each field with a value of its own.
func taskstats(version uint16) []byte {
	size := map[uint16]int{8: 328, 9: 344, 10: 352, 11: 368, 12: 400, 13: 416, 14: 432, 15: 560, 16: 560, 17: 688}[version]
	var b []byte
	ne := binary.NativeEndian
	u16 := func(v uint16) { b = ne.AppendUint16(b, v) }
	u32 := func(v uint32) { b = ne.AppendUint32(b, v) }
	u64 := func(v ...uint64) {
		for _, v := range v {
			b = ne.AppendUint64(b, v)
		}
	}
	delay := func(total uint64) {
		u64(1, total)
		if version == 15 {
			u64(901, 902)
		}
	}
	u16(version)
	u16(0)
	u32(3 << 8)
	b = append(b, byte(Killed|LastOne), 0, 0, 0, 0, 0, 0, 0)
	delay(100)
	delay(101)
	delay(102)
	u64(903, 904)
	b = append(b, "a comm of 15 by"...)
	b = append(b, make([]byte, 32-15)...)
	u64(0)                                   // ac_sched, ac_pad
	u32(1000)                                // ac_uid
	u32(1001)                                // ac_gid
	u32(42)                                  // ac_pid
	u32(1)                                   // ac_ppid
	u32(1_700_000_000)                       // ac_btime
	u32(0)                                   //
	u64(5_000_000, 6, 7)                     // ac_etime, ac_utime, ac_stime
	u64(slices.Repeat([]uint64{905}, 18)...) // ac_minflt to cpu_scaled_run_real_total
	delay(103)
	delay(104)
	u64(1_700_000_001)
	delay(105)
	u32(41)
	u32(0)
	u64(906, 907, 908)
	delay(106)
	delay(107)
	u64(slices.Repeat([]uint64{909}, 32)...)
	return b[:size]
}

func told(n time.Duration) Delay { return Delay{Time: n, OK: true} }

func allTold() Delays {
	return Delays{
		CPU: told(100), BlockIO: told(101), SwapIn: told(102), Reclaim: told(103),
		Thrashing: told(104), Compact: told(105), WPCopy: told(106), IRQ: told(107),
	}
}

func TestDecodeVersions(t *testing.T) {
	full := Stats{
		PID: 42, TGID: 41, PPID: 1, UID: 1000, Flags: Killed | LastOne, Begin: time.Unix(1_700_000_001, 0),
		Elapsed: 5 * time.Second, User: 6 * time.Microsecond, System: 7 * time.Microsecond, Delays: allTold(),
	}
	lacks := func(change func(*Stats)) Stats {
		s := full
		change(&s)
		return s
	}
	v13 := func(s *Stats) { s.Delays.IRQ = Delay{} }
	v12 := func(s *Stats) { v13(s); s.Delays.WPCopy = Delay{} }
	v11 := func(s *Stats) { v12(s); s.TGID = 0 }
	v10 := func(s *Stats) { v11(s); s.Delays.Compact = Delay{} }
	v9 := func(s *Stats) { v10(s); s.Begin = time.Unix(1_700_000_000, 0) }
	v8 := func(s *Stats) { v9(s); s.Delays.Thrashing = Delay{} }
	for version, want := range map[uint16]Stats{
		8: lacks(v8), 9: lacks(v9), 10: lacks(v10), 11: lacks(v11), 12: lacks(v12), 13: lacks(v13),
		14: full, 15: full, 16: full, 17: full,
	} {
		var got Stats
		got.Delays.IRQ = told(1) // of the record before
		if err := (record{taskstats(version), version, true}).decode(&got); err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Stats{})); diff != "" {
			t.Errorf("version %d (-want +got):\n%s", version, diff)
		}
		if got.Comm() != "a comm of 15 by" {
			t.Errorf("version %d: comm %q", version, got.Comm())
		}
	}
}

func TestDecodeCutShort(t *testing.T) {
	whole := taskstats(16)
	for n := range whole {
		var got Stats
		err := (record{whole[:n], 16, true}).decode(&got)
		if short := n < leastTaskSize; errors.Is(err, errShort) != short {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func TestWhatIsNotCountedIsNotTold(t *testing.T) {
	set := func(off int, v uint64) func([]byte) {
		return func(b []byte) { binary.NativeEndian.PutUint64(b[off:], v) }
	}
	for _, tt := range []struct {
		name    string
		counted bool
		change  func([]byte)
		want    func(*Delays)
	}{
		{"never waited", true, set(offBlockIO, 0), func(*Delays) {}},
		{"accounting is off", false, set(offBlockIO, 0), func(d *Delays) { d.BlockIO = Delay{} }},
		{"accounting was on", false, func([]byte) {}, func(*Delays) {}},
		{"built without", true, func(b []byte) {
			clear(b[offCPU : offSwapIn+16])
			clear(b[offReclaim:])
		}, func(d *Delays) { *d = Delays{} }},
		{"negative", true, set(offCPU+8, math.MaxUint64), func(d *Delays) { d.CPU = Delay{} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := taskstats(16)
			tt.change(b)
			want := allTold()
			tt.want(&want)
			var got Stats
			if err := (record{b, 16, tt.counted}).decode(&got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got.Delays); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAdd(t *testing.T) {
	sum := Delays{CPU: told(1), BlockIO: told(2), IRQ: told(math.MaxInt64 - 1)}
	sum.Add(&Delays{CPU: told(10), SwapIn: told(20), IRQ: told(2), Reclaim: Delay{Time: 99}})
	want := Delays{CPU: told(11), BlockIO: told(2), SwapIn: told(20), IRQ: told(math.MaxInt64)}
	if diff := cmp.Diff(want, sum); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestClamp(t *testing.T) {
	d := Delays{
		CPU:     told(time.Second),
		BlockIO: told(2 * time.Hour),
		SwapIn:  told(time.Second + time.Millisecond), // clocks differ
		Reclaim: told(-1),
		IRQ:     Delay{Time: time.Hour},
	}
	if n := d.Clamp(time.Second); n != 2 {
		t.Errorf("%d left out, want 2", n)
	}
	want := Delays{CPU: told(time.Second), SwapIn: told(time.Second + time.Millisecond), IRQ: Delay{Time: time.Hour}}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	d = Delays{CPU: told(math.MaxInt64)}
	if n := d.Clamp(math.MaxInt64); n != 0 {
		t.Error("left out what is not longer than the limit")
	}
}
