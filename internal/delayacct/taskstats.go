// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// struct taskstats, include/uapi/linux/taskstats.h. It has grown with almost every change, so that a kernel sends as
// much of it as it knows: each field is read only where the record is long enough. (The struct of mdlayher/taskstats has
// one fixed size that it lays over the bytes whatever their length.)
const (
	offVersion    = 0   // u16
	offStatus     = 4   // u32
	offFlags      = 8   // u8
	offCPU        = 16  // u64 count, u64 delay; so are the other delays
	offBlockIO    = 32  //
	offSwapIn     = 48  //
	offComm       = 80  // char[32], of which a task uses 16
	offUID        = 120 // u32
	offPID        = 128 // u32
	offPPID       = 132 // u32
	offBegin      = 136 // u32 s
	offElapsed    = 144 // u64 us, as the next two
	offUser       = 152 //
	offSystem     = 160 //
	offReclaim    = 312 // version 8
	offThrashing  = 328 // version 9, Linux 4.20
	offBegin64    = 344 // version 10, Linux 5.5: u64 s
	offCompact    = 352 // version 11, Linux 5.17
	offTGID       = 368 // version 12, Linux 5.19: u32
	offWPCopy     = 400 // version 13, Linux 6.0
	offIRQ        = 416 // version 14, Linux 6.4
	commLen       = 16
	leastTaskSize = offSystem + 8
)

// Version 15 (Linux 6.14 and 6.15) put a greatest and a least delay behind each delay, in the middle of the struct; version
// 16 moved them to the end and all else back. Fields of version 15 are later by this for each delay before them.
const (
	versionWithGaps = 15
	gap             = 16
)

var (
	errShort     = errors.New("too short")
	errMalformed = errors.New("malformed")
)

// record is one struct taskstats as received.
type record struct {
	b       []byte
	version uint16
	counted bool // accounting is on, or the kernel has no switch for it
}

// decode fills all of s but what the attributes around the record say.
func (r record) decode(s *Stats) error {
	if len(r.b) < leastTaskSize+r.shift(3) {
		return fmt.Errorf("taskstats of %d bytes: %w", len(r.b), errShort)
	}
	s.Flags = Flags(r.b[offFlags])
	basic := r.b[r.shift(3):]
	copy(s.comm[:], basic[offComm:])
	s.UID = u32(basic[offUID:])
	s.PID = u32(basic[offPID:])
	s.PPID = u32(basic[offPPID:])
	s.Elapsed = micros(basic[offElapsed:])
	s.User = micros(basic[offUser:])
	s.System = micros(basic[offSystem:])

	s.Begin = time.Time{}
	if sec, ok := r.u64(offBegin64 + r.shift(5)); ok && sec != 0 && sec <= math.MaxInt64 {
		s.Begin = time.Unix(int64(sec), 0)
	} else if sec := u32(basic[offBegin:]); sec != 0 {
		s.Begin = time.Unix(int64(sec), 0)
	}
	s.TGID = 0
	if off := offTGID + r.shift(6); len(r.b) >= off+4 {
		s.TGID = u32(r.b[off:])
	}

	// Whatever task there is has got a CPU at least once: where that is not counted, nothing is. A count of the others says
	// that they were counted, even if accounting has been switched off since.
	d := &s.Delays
	d.CPU = r.delay(offCPU, 0, false)
	counted := r.counted && d.CPU.OK
	d.BlockIO = r.delay(offBlockIO, 1, counted)
	d.SwapIn = r.delay(offSwapIn, 2, counted)
	d.Reclaim = r.delay(offReclaim, 3, counted)
	d.Thrashing = r.delay(offThrashing, 4, counted)
	d.Compact = r.delay(offCompact, 5, counted)
	d.WPCopy = r.delay(offWPCopy, 6, counted)
	d.IRQ = r.delay(offIRQ, 7, counted)
	return nil
}

// shift is by how much a field is later than its offset says, with so many delays before it.
func (r record) shift(delaysBefore int) int {
	if r.version == versionWithGaps {
		return gap * delaysBefore
	}
	return 0
}

func (r record) delay(off, delaysBefore int, counted bool) Delay {
	off += r.shift(delaysBefore)
	count, _ := r.u64(off)
	ns, ok := r.u64(off + 8)
	if !ok || ns > math.MaxInt64 || count == 0 && !counted {
		return Delay{}
	}
	return Delay{Time: time.Duration(ns), OK: true}
}

func (r record) u64(off int) (uint64, bool) {
	if len(r.b) < off+8 {
		return 0, false
	}
	return binary.NativeEndian.Uint64(r.b[off:]), true
}

func u32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

// micros reads a time in microseconds; one of more than 292 years becomes that.
func micros(b []byte) time.Duration {
	us := binary.NativeEndian.Uint64(b)
	if us > math.MaxInt64/uint64(time.Microsecond) {
		return math.MaxInt64
	}
	return time.Duration(us) * time.Microsecond
}
