// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const delayAccountingName = "/proc/sys/kernel/task_delayacct"

// accountDelays switches delay accounting on for the time of the test.
func accountDelays(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(delayAccountingName, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no switch for delay accounting: older than Linux 5.14, or without it")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil { // tests of other packages switch it as well
		t.Fatal(err)
	}
	was := make([]byte, 1)
	if _, err := f.ReadAt(was, 0); err != nil {
		t.Fatal(err)
	}
	set := func(s string) {
		if _, err := f.WriteAt([]byte(s+"\n"), 0); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { set(string(was)) })
	set("1")
}

// TestBlockIODelay: processes that wait for the disk, against field 42 of their /proc/self/stat.
func TestBlockIODelay(t *testing.T) {
	h := findHost(t)
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("direct I/O: ", err)
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		t.Fatal(err)
	}
	accountDelays(t)
	tr := openTracer(t, Options{LegacyController: h.controller()})
	for _, lanes := range []int{1, 4} {
		c := h.makeCgroup(t, fmt.Sprint("blkio", lanes))
		const processes, life = 5, 200 * time.Millisecond
		before := tr.Stats().DelayAnomalies
		var all []*program
		for range lanes {
			all = append(all, runTasks(t, c, "read", fmt.Sprint(processes), fmt.Sprint(life.Milliseconds()), name))
		}
		var slept, waited time.Duration
		var absurd int
		for _, p := range all {
			var one [3]int
			if _, err := fmt.Sscan(p.line(), &one[0], &one[1], &one[2]); err != nil {
				t.Fatal(err)
			}
			p.wait()
			slept += time.Duration(one[0]) * time.Microsecond
			waited += time.Duration(one[1]) * time.Microsecond
			absurd += one[2]
		}
		got, anomalies := usageOf(t, tr, c).Delays[DelayBlockIO], tr.Stats().DelayAnomalies-before
		t.Logf("%d lanes: waited %v; slept %v; %d processes told %v, %d what cannot be; %d anomalies", lanes, got, slept,
			lanes*processes-absurd, waited, absurd, anomalies)
		if now, err := os.ReadFile(delayAccountingName); err != nil || string(now) != "1\n" {
			t.Skipf("delay accounting was switched off meanwhile: %q, %v", now, err)
		}
		if slept < time.Duration(lanes)*processes*life/4 {
			t.Skip("the disk is too fast, or not one")
		}
		limit := 1.05
		if anomalies > 0 { // what takes the place of a time that cannot be is no more than a bound
			limit = 1.3
		}
		if float64(got) > limit*float64(slept) {
			t.Errorf("waited %v, but slept %v", got, slept)
		}
		if absurd == 0 && !isNear(got, waited, 0.1, 0) {
			t.Errorf("waited %v, told %v", got, waited)
		}
		if anomalies < uint64(absurd) {
			t.Errorf("%d anomalies, want %d", anomalies, absurd)
		}
	}
}
