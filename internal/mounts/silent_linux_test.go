// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 10 s")
		}
	}
}

func TestFileSystemsThatDoNotAnswer(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("needs FUSE, for a file system that does not answer: %v", err)
	}
	device := loopDevice(t, 32)
	run(t, "mkfs.ext4", "-q", device)
	c := newContainer(t)
	r := openReader(t, Options{})
	c.mount(device, c.path("data"), "ext4", 0, "")
	c.write(c.path("data/file"))
	const silent = maxCalls + 4
	want := []string{c.path("data")}
	for i := range silent {
		target := c.path(fmt.Sprintf("silent%02d", i))
		c.do(command{Do: "mkdir", Target: target})
		// The name makes it a volume: nothing on it can be opened.
		source := fmt.Sprintf("far:/pvc-00000000-0000-0000-0000-%012d", i)
		if err := c.try(command{Do: "fuse", Source: source, Target: target}); err != nil {
			t.Skipf("needs FUSE: %v", err)
		}
		want = append(want, target)
	}
	begin := time.Now()
	mounts := lookAt(t, r, c, nil)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("look took %v", took)
	}
	wantPoints(t, mounts, want...)

	for round := range 3 {
		if round == 1 { // all of them are known to hang by then
			eventually(t, func() bool { return r.Stats().Stuck == maxCalls })
		}
		begin := time.Now()
		got, err := r.Sizes(t.Context(), []SizeRequest{{PIDs: c.pids, Mounts: mounts[1:]}, {PIDs: c.pids, Mounts: mounts[:1]}})
		took := time.Since(begin)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("round %d: %v, %+v", round, took, r.Stats())
		if !got[1][0].Known {
			t.Errorf("round %d: the disk is not known", round)
		}
		for i, u := range got[0] {
			if u.Known {
				t.Errorf("round %d: silent %d is known", round, i)
			}
		}
		if took > time.Second || round > 0 && took > hungAfter/2 {
			t.Errorf("round %d took %v", round, took)
		}
		if s := r.Stats(); s.Stuck > maxCalls || s.SlowSizes != uint64(silent*(round+1)) {
			t.Errorf("round %d: %+v", round, s)
		}
	}
	begin = time.Now()
	wantSizes(t, r, c, mounts[:1])
	if took := time.Since(begin); took > hungAfter/2 {
		t.Errorf("the disk alone took %v", took)
	}

	// What hangs returns when the file system is given up.
	for i := range silent {
		c.do(command{Do: "close", Target: c.path(fmt.Sprintf("silent%02d", i))})
	}
	eventually(t, func() bool { return r.Stats().Stuck == 0 })
	for i := range silent {
		c.do(command{Do: "unmount", Target: c.path(fmt.Sprintf("silent%02d", i)), Flags: unix.MNT_DETACH})
	}
	wantPoints(t, lookAt(t, r, c, mounts), c.path("data"))
}
