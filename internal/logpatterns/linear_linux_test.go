// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTokenizerIsLinear compares the time of lines of 16 KiB with that of 128 KiB, and that with 1 MiB.
func TestTokenizerIsLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for name, unit := range hostileLines {
		for size := 1 << 17; size <= 1<<20; size <<= 3 {
			short, long := bytes.Repeat([]byte(unit), size/8/len(unit)), bytes.Repeat([]byte(unit), size/len(unit))
			if few, many := timesOf(short, long); many > 30*few {
				t.Errorf("%s: a line of %d bytes takes %v, one of %d %v", name, len(short), few, len(long), many)
				break
			}
		}
	}
}

// timesOf returns how much CPU time a short line and one eight times as long take.
func timesOf(short, long []byte) (shortTime, longTime time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m := New(Options{})
	best := func(text []byte, budget time.Duration) time.Duration {
		least := time.Duration(1<<63 - 1)
		for begin := time.Now(); time.Since(begin) < budget; {
			at := threadTime()
			m.tokenizer.tokenize(text)
			quickHash(text)
			least = min(least, threadTime()-at)
		}
		return max(least, 10*time.Microsecond)
	}
	for range 3 { // others may use the caches
		shortTime, longTime = best(short, 2*time.Millisecond), best(long, 10*time.Millisecond)
		if longTime <= 12*shortTime {
			break
		}
	}
	return shortTime, longTime
}

// threadTime is the CPU time of the thread.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}
