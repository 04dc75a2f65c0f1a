// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
)

// toldExit is an exit and what is closed when it has been told.
type toldExit struct {
	bpf.ProcessExit
	told chan struct{}
}

func (k *fakeKernel) exitRecords() chan toldExit {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.exits == nil {
		k.exits = make(chan toldExit)
	}
	return k.exits
}

func (k *fakeKernel) ProcessExits(fn func(bpf.ProcessExit)) error {
	for records := k.exitRecords(); ; {
		select {
		case <-k.done:
			return nil
		case e := <-records:
			fn(e.ProcessExit)
			close(e.told)
		}
	}
}

// exit tells of exits, and returns when that is done.
func (k *fakeKernel) exit(all ...bpf.ProcessExit) {
	for _, e := range all {
		told := make(chan struct{})
		k.exitRecords() <- toldExit{e, told}
		<-told
	}
}

func (k *fakeKernel) DelaysTold() (told [bpf.NumDelays]bool) {
	for i := range told {
		told[i] = true
	}
	return told
}

func (k *fakeKernel) ReadUsages(fn func(*bpf.Usage)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range k.usages {
		fn(&u)
	}
	return k.usagesErr
}

func (k *fakeKernel) TakeUsage(u *bpf.Usage) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.takeErr != nil {
		return k.takeErr
	}
	k.taken = append(k.taken, *u)
	i := k.usageOf(u)
	if i < 0 {
		return nil
	}
	if k.onUsage != nil {
		k.onUsage(&k.usages[i])
	}
	*u = k.usages[i]
	k.usages = slices.Delete(k.usages, i, i+1)
	return nil
}

func (k *fakeKernel) usageOf(u *bpf.Usage) int {
	return slices.IndexFunc(k.usages, func(e bpf.Usage) bool { return e.CgroupV2 == u.CgroupV2 && e.CgroupV1 == u.CgroupV1 })
}

// use adds to the usages what tasks have come to.
func (k *fakeKernel) use(all ...bpf.Usage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range all {
		u := &all[i]
		at := k.usageOf(u)
		if at < 0 {
			at = len(k.usages)
			k.usages = append(k.usages, bpf.Usage{CgroupV2: u.CgroupV2, CgroupV1: u.CgroupV1})
		}
		addUsageTo(&k.usages[at], u)
	}
}

func addUsageTo(to, u *bpf.Usage) {
	to.CPU += u.CPU
	to.OOMKills += u.OOMKills
	to.Inits += u.Inits
	to.Others += u.Others
	to.Execs += u.Execs
	for i, d := range u.Delays {
		to.Delays[i] += d
	}
	for i, n := range u.Exits {
		to.Exits[i] += n
	}
}

// change gives the usages another look.
func (k *fakeKernel) change(fn func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fn()
}

// alone ends the housekeeping, so that nothing is done but by the test.
func (h *testHost) alone() {
	h.inv.cancel()
	h.inv.maintainer.Wait()
}

// watch says whether cgroups found from now on are new, or were there before the collector.
func (h *testHost) watch(on bool) {
	h.inv.mu.Lock()
	defer h.inv.mu.Unlock()
	h.inv.watching = on
}

// event tells of a cgroup that need not have a directory.
func (h *testHost) event(kind bpf.CgroupEventKind, id uint64, path string) {
	h.inv.mu.Lock()
	h.inv.eventPathsOK = [2]bool{true, true}
	h.inv.mu.Unlock()
	h.inv.onEvent(bpf.CgroupEvent{Kind: kind, ID: id, Path: path})
}

// unknown makes a cgroup of which no event has come, and returns its id.
func (h *testHost) unknown(path string) uint64 {
	h.t.Helper()
	dir := filepath.Join(h.root, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		h.t.Fatal(err)
	}
	return st.Ino
}

// kills writes how many processes the OOM killer has killed, as memory.events tells it.
func (h *testHost) kills(path string, n string) {
	h.t.Helper()
	h.write(filepath.Join(path, "memory.events"), "low 0\nhigh 0\nmax 0\noom 0\noom_kill "+n+"\n")
}

// tasks gives what is known of the tasks of a container.
func (h *testHost) tasks(name string) Tasks {
	h.t.Helper()
	c, ok := h.snapshot()[name]
	if !ok {
		h.t.Fatalf("no %s", name)
	}
	return c.Tasks
}

// accounting sets the kernel's switch of delay accounting.
func (h *testHost) accounting(value string) { writeAccounting(h.t, h.proc, value) }

func writeAccounting(t testing.TB, proc, value string) {
	t.Helper()
	name := filepath.Join(proc, "sys/kernel/task_delayacct")
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(value+"\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (k *fakeKernel) ReadDiskIO(fn func(*bpf.DiskIO)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.diskIO {
		fn(&k.diskIO[i])
	}
	return k.err
}

func (k *fakeKernel) TakeDiskIO(io *bpf.DiskIO) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, d := range k.diskIO {
		if d.CgroupV2 == io.CgroupV2 && d.CgroupV1 == io.CgroupV1 && d.Major == io.Major && d.Minor == io.Minor {
			*io = d
			k.diskIO = append(k.diskIO[:i], k.diskIO[i+1:]...)
			return nil
		}
	}
	return nil
}
