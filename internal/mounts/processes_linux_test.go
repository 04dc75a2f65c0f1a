// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestProcessesInSeveralNamespaces(t *testing.T) {
	device := loopDevice(t, 16)
	run(t, "mkfs.ext4", "-q", device)
	r := openReader(t, Options{})
	a, b := newContainer(t), newContainer(t)
	for _, c := range []*container{a, b} {
		c.mount(device, c.path("data"), "ext4", 0, "")
		c.write(c.path("data/file"))
	}
	both := []int{a.pid, b.pid}
	first, err := r.Look(both, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantPoints(t, first, a.path("data"))
	// It stays with the namespace that it has begun with, as long as that has a process.
	again, err := r.Look([]int{b.pid, a.pid}, first)
	if err != nil {
		t.Fatal(err)
	}
	wantPoints(t, again, a.path("data"))
	other, err := r.Look([]int{b.pid}, first)
	if err != nil {
		t.Fatal(err)
	}
	wantPoints(t, other, b.path("data"))
	// Sizes are asked through whoever sees the mount itself.
	got, err := r.Sizes(t.Context(), []SizeRequest{{PIDs: func() []int { return []int{b.pid, a.pid} }, Mounts: first}})
	if err != nil || !got[0][0].Known {
		t.Errorf("%+v, %v", got, err)
	}
	// Where a process sees another mount, or none, there is no size rather than a wrong one.
	for _, m := range []Mount{first[0], other[0]} {
		m.ID, m.SizedBy = 1<<30, "none"
		got, err = r.Sizes(t.Context(), []SizeRequest{{PIDs: func() []int { return both }, Mounts: []Mount{m}}})
		if err != nil || got[0][0].Known {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func TestProcessThatHasEndedHasNoMounts(t *testing.T) {
	cmd := exec.Command("/bin/true")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() // until then it is a zombie
	stdout.Read(make([]byte, 1))
	r := openReader(t, Options{})
	eventually(t, func() bool {
		_, err := os.Readlink(filepath.Join(r.procDir(cmd.Process.Pid), "exe"))
		return err != nil
	})
	if got, err := r.Look([]int{cmd.Process.Pid}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestFilesPastTheLimitsAreCounted(t *testing.T) {
	const more = 50
	for range maxFilesPerProcess + more {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Skipf("needs many open files: %v", err)
		}
		defer f.Close()
	}
	r := openReader(t, Options{})
	wanted := map[int]*candidate{-1: {entry: &entry{id: -1}}}
	r.findWritten([]int{os.Getpid()}, wanted)
	one := r.Stats().FilesSkipped
	if one < more || one > 2*more {
		t.Errorf("%d files of one process left out, want a few more than %d", one, more)
	}
	pid := os.Getpid()
	r.findWritten([]int{pid, pid, pid, pid, pid}, wanted)
	if got := r.Stats().FilesSkipped - one; got < maxFilesPerProcess+5*more || got > maxFilesPerProcess+10*more {
		t.Errorf("%d of five processes", got)
	}
	// Nothing is read where nothing is looked for.
	before := r.Stats()
	r.findWritten([]int{pid}, nil)
	if r.Stats() != before {
		t.Error("looked at files for nothing")
	}
}

func TestOverlayWhosePathIsAnotherDirectoryHere(t *testing.T) {
	device := loopDevice(t, 16)
	run(t, "mkfs.ext4", "-q", device)
	c := newContainer(t)
	r := openReader(t, Options{})
	disk, root := c.path("disk"), c.path("root")
	c.mount(device, disk, "ext4", 0, "")
	for _, dir := range []string{"lower", "upper", "work"} {
		c.do(command{Do: "mkdir", Target: filepath.Join(disk, dir)})
	}
	c.mount("overlay", root, "overlay", 0, "lowerdir="+disk+"/lower,upperdir="+disk+"/upper,workdir="+disk+"/work")
	c.write(root + "/file")
	if err := os.MkdirAll(disk+"/upper", 0o755); err != nil { // not in the container's namespace
		t.Fatal(err)
	}
	got := lookAt(t, r, c, nil)
	wantPoints(t, got, root)
	if got[0].Device != unknownUpper || got[0].HasIO || got[0].SizedBy != got[0].Number.String() {
		t.Errorf("%+v", got[0])
	}
	wantSizes(t, r, c, got)
}

func TestReadOnlyMountsDoNotCount(t *testing.T) {
	device := loopDevice(t, 16)
	run(t, "mkfs.ext4", "-q", device)
	c := newContainer(t)
	r := openReader(t, Options{})
	data := c.path("data")
	c.mount(device, data, "ext4", 0, "")
	c.write(data + "/file")
	c.mount(data, c.path("volumes/pg/_data"), "", unix.MS_BIND, "")
	c.mount(data, c.path("copy"), "", unix.MS_BIND, "")
	c.do(command{Do: "mount", Target: c.path("copy"), Flags: unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY})
	got := lookAt(t, r, c, nil)
	wantPoints(t, got, data)
	// What was written to and is now read-only is still as full as it is.
	c.do(command{Do: "close", Target: data + "/file"})
	c.do(command{Do: "mount", Target: data, Flags: unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY})
	wantPoints(t, lookAt(t, r, c, got), data)
	wantPoints(t, lookAt(t, r, c, nil))
}

func TestOneContainerHasOnlySoManyMounts(t *testing.T) {
	device := loopDevice(t, 16)
	run(t, "mkfs.ext4", "-q", device)
	c := newContainer(t)
	r := openReader(t, Options{})
	data := c.path("data")
	c.mount(device, data, "ext4", 0, "")
	c.do(command{Do: "mkdir", Target: data + "/volumes/pg/_data"})
	const more = 10
	for i := range maxMountsOfOne + more { // a volume counts without being written to
		c.mount(data+"/volumes/pg/_data", c.path(fmt.Sprintf("m%03d", i)), "", unix.MS_BIND, "")
	}
	got := lookAt(t, r, c, nil)
	if len(got) != maxMountsOfOne || got[0].MountPoint != c.path("m000") {
		t.Errorf("%d mounts, want %d", len(got), maxMountsOfOne)
	}
	if n := r.Stats().MountsSkipped; n != more {
		t.Errorf("%d left out, want %d", n, more)
	}
	if d := cmp.Diff(got, lookAt(t, r, c, got)); d != "" {
		t.Error(d)
	}
}
