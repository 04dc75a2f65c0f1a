// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

func openReader(t testing.TB, opts Options) *Reader {
	r := Open(opts)
	t.Cleanup(r.Close)
	return r
}

func lookAt(t *testing.T, r *Reader, c *container, before []Mount) []Mount {
	t.Helper()
	got, err := r.Look(c.pids(), before)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func pointsOf(mounts []Mount) []string {
	points := []string{}
	for _, m := range mounts {
		points = append(points, m.MountPoint)
	}
	return points
}

func wantPoints(t *testing.T, got []Mount, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, pointsOf(got), cmpopts.EquateEmpty()); d != "" {
		t.Fatal(d)
	}
}

// wantSizes compares with what statfs says through another path to the same mount.
func wantSizes(t *testing.T, r *Reader, c *container, mounts []Mount) []Usage {
	t.Helper()
	got, err := r.Sizes(t.Context(), []SizeRequest{{PIDs: c.pids, Mounts: mounts}})
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range mounts {
		var st unix.Statfs_t
		if err := unix.Statfs(filepath.Join(r.procDir(c.pid), "root", m.MountPoint), &st); err != nil {
			t.Fatal(err)
		}
		unit := uint64(st.Frsize)
		want := Usage{Size: st.Blocks * unit, Used: (st.Blocks - st.Bfree) * unit, Reserved: (st.Bfree - st.Bavail) * unit, Known: true}
		if d := cmp.Diff(want, got[0][i]); d != "" {
			t.Errorf("%s: %s", m.MountPoint, d)
		}
	}
	return got[0]
}

func numberOfNode(t *testing.T, name string) DeviceNumber {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return DeviceNumber{unix.Major(st.Rdev), unix.Minor(st.Rdev)}
}

func TestMountsThatAreWrittenTo(t *testing.T) {
	device := loopDevice(t, 64)
	partition := addPartition(t, device, 1, 1, 40)
	run(t, "mkfs.ext4", "-q", partition)
	c := newContainer(t)
	r := openReader(t, Options{})
	// The same disk is mounted three times: with its own root, with a directory of it, and with a name that needs escapes.
	data, bind, odd := c.path("data"), c.path("bind"), c.path("odd \t\n\\#name")
	c.mount(partition, data, "ext4", 0, "")
	c.do(command{Do: "mkdir", Target: data + "/a b"})
	c.mount(data+"/a b", bind, "", unix.MS_BIND, "")
	c.mount(data, odd, "", unix.MS_BIND, "")

	wantPoints(t, lookAt(t, r, c, nil))
	c.write(data + "/file")
	c.do(command{Do: "close", Target: data + "/file"})
	c.do(command{Do: "open", Target: data + "/file", Flags: unix.O_RDONLY})
	c.do(command{Do: "open", Target: data, Flags: unix.O_RDONLY | unix.O_DIRECTORY})
	c.do(command{Do: "open", Target: data, Flags: unix.O_RDWR | unix.O_PATH})
	wantPoints(t, lookAt(t, r, c, nil))

	c.write(bind + "/file")
	first := lookAt(t, r, c, nil)
	want := []Mount{{
		MountPoint: bind, Device: filepath.Base(partition), FSType: "ext4", Number: numberOfNode(t, partition), Root: "/a b",
		Source: partition, SizedBy: numberOfNode(t, partition).String(), IODevice: numberOfNode(t, device), HasIO: true, GivesIO: true,
	}}
	if d := cmp.Diff(want, first, cmpopts.IgnoreFields(Mount{}, "ID", "Namespace")); d != "" {
		t.Fatal(d)
	}
	c.do(command{Do: "close", Target: bind + "/file"})
	c.write(data + "/file2")
	c.write(odd + "/file3")
	second := lookAt(t, r, c, first)
	wantPoints(t, second, bind, data, odd)
	for _, m := range second {
		if m.GivesIO != (m.MountPoint == bind) {
			t.Errorf("%q gives I/O: %v", m.MountPoint, m.GivesIO)
		}
	}
	usage := wantSizes(t, r, c, second)
	if usage[0].Reserved == 0 || usage[0].Used == 0 || usage[0].Size < 20<<20 {
		t.Errorf("an ext4 of 40 MiB: %+v", usage[0])
	}
	places := PlaceIO([]DeviceNumber{numberOfNode(t, device)}, second, r.Disk)
	if d := cmp.Diff([]Place{{MountPoint: bind, Device: filepath.Base(partition), Disks: []DeviceNumber{numberOfNode(t, device)}}}, places); d != "" {
		t.Error(d)
	}

	// Mounted anew in the same place is another mount, which nobody has written to yet.
	c.do(command{Do: "unmount", Target: bind})
	c.mount(data, bind, "", unix.MS_BIND, "")
	third := lookAt(t, r, c, second)
	wantPoints(t, third, data, odd)
	if !third[0].GivesIO || third[1].GivesIO {
		t.Errorf("I/O is given at %+v", third)
	}
	if got := len(second); got != 3 || !second[0].GivesIO {
		t.Error("Look has changed what it was given")
	}
}

func TestContainerOnAnOverlay(t *testing.T) {
	device := loopDevice(t, 32)
	run(t, "mkfs.ext4", "-q", device)
	c := newContainer(t)
	r := openReader(t, Options{})
	disk, root := c.path("disk"), c.path("root")
	c.mount(device, disk, "ext4", 0, "")
	upper := disk + "/up,per: \\x"
	for _, dir := range []string{"/lower/etc", "/work"} {
		c.do(command{Do: "mkdir", Target: disk + dir})
	}
	c.do(command{Do: "mkdir", Target: upper})
	c.do(command{Do: "touch", Target: disk + "/hosts"})
	c.do(command{Do: "touch", Target: disk + "/lower/etc/hosts"})
	c.do(command{Do: "touch", Target: disk + "/lower/etc/passwd"})
	c.mount("overlay", root, "overlay", 0, "lowerdir="+disk+"/lower,upperdir="+escapeOption(upper)+",workdir="+disk+"/work")
	c.do(command{Do: "mount", Source: disk + "/hosts", Target: root + "/etc/hosts", Flags: unix.MS_BIND})
	c.do(command{Do: "mount", Source: disk + "/hosts", Target: root + "/etc/passwd", Flags: unix.MS_BIND})
	c.do(command{Do: "mkdir", Target: disk + "/volumes/pg/_data"})
	c.mount(disk+"/volumes/pg/_data", root+"/data", "", unix.MS_BIND, "")
	c.do(command{Do: "root", Target: root})

	// The root of this test does not see the disk: only the volume is known, since nobody has written to the root.
	volume := lookAt(t, r, c, nil)
	wantPoints(t, volume, "/data")
	if !volume[0].GivesIO {
		t.Errorf("%+v", volume[0])
	}
	c.write("/file")
	c.do(command{Do: "open", Target: "/etc/passwd", Flags: unix.O_RDWR})
	c.do(command{Do: "open", Target: "/etc/hosts", Flags: unix.O_RDWR})
	got := lookAt(t, r, c, volume)
	wantPoints(t, got, "/", "/data")
	if got[0].Device != unknownUpper || got[0].HasIO || !got[1].GivesIO {
		t.Errorf("%+v", got)
	}
	wantSizes(t, r, c, got)

	// Seen through a process that has the disk, as the host does, the root is on it.
	outside := newContainer(t)
	outside.dir = c.dir
	outside.mount(device, disk, "ext4", 0, "")
	r2 := openReader(t, Options{HostRoot: filepath.Join(r.procDir(outside.pid), "root")})
	hostTable, err := r2.readMounts(r2.procDir(outside.pid))
	if err != nil {
		t.Fatal(err)
	}
	r2.host.table, r2.host.readAt = hostTable, r2.host.now()
	if again := lookAt(t, r2, c, got); again[0].Device != filepath.Base(device) || again[0].GivesIO || !again[1].GivesIO {
		t.Errorf("its disk was not known, and is now: %+v", again)
	}
	got = lookAt(t, r2, c, nil)
	want := []Mount{
		{MountPoint: "/", FSType: "overlay", Root: "/", Source: "overlay", GivesIO: true},
		{MountPoint: "/data", FSType: "ext4", Root: "/volumes/pg/_data", Source: device},
	}
	for i := range want {
		want[i].Device, want[i].SizedBy = filepath.Base(device), numberOfNode(t, device).String()
		want[i].IODevice, want[i].HasIO = numberOfNode(t, device), true
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(Mount{}, "ID", "Namespace", "Number")); d != "" {
		t.Error(d)
	}
	wantSizes(t, r2, c, got)
}

// escapeOption keeps the commas and backslashes of an option's value.
func escapeOption(s string) string {
	out := ""
	for _, c := range s {
		if c == ',' || c == '\\' {
			out += `\`
		}
		out += string(c)
	}
	return out
}

func TestMountsOverOthers(t *testing.T) {
	device := loopDevice(t, 32)
	run(t, "mkfs.ext4", "-q", device)
	c := newContainer(t)
	r := openReader(t, Options{})
	disk, data := c.path("disk"), c.path("data")
	c.mount(device, disk, "ext4", 0, "")
	for _, dir := range []string{"a", "b", "gone"} {
		c.do(command{Do: "mkdir", Target: filepath.Join(disk, dir)})
	}
	c.mount(disk+"/a", data, "", unix.MS_BIND, "")
	c.write(data + "/below")
	c.mount(disk+"/b", data, "", unix.MS_BIND, "")
	c.write(data + "/above")
	c.mount(disk, c.path("srv/sub"), "", unix.MS_BIND, "")
	c.write(c.path("srv/sub/hidden"))
	c.mount("none", c.path("srv"), "tmpfs", 0, "")
	c.mount(disk+"/gone", c.path("gone"), "", unix.MS_BIND, "")
	c.write(c.path("gone/file"))
	c.do(command{Do: "remove", Target: disk + "/gone"})

	got := lookAt(t, r, c, nil)
	wantPoints(t, got, data, c.path("gone"))
	if got[0].Root != "/b" || got[1].Root != "/gone" {
		t.Errorf("%+v", got)
	}
	wantSizes(t, r, c, got)

	// What was below comes up again.
	c.do(command{Do: "close", Target: data + "/above"})
	c.do(command{Do: "unmount", Target: data})
	got = lookAt(t, r, c, got)
	wantPoints(t, got, data, c.path("gone"))
	if got[0].Root != "/a" {
		t.Errorf("%+v", got[0])
	}
}

func TestBtrfsSubvolumes(t *testing.T) {
	device := loopDevice(t, 160)
	partition := addPartition(t, device, 1, 1, 150)
	run(t, "mkfs.btrfs", "-q", partition)
	c := newContainer(t)
	r := openReader(t, Options{})
	all, sub := c.path("all"), c.path("sub")
	c.do(command{Do: "mkdir", Target: all})
	if err := c.try(command{Do: "mount", Source: partition, Target: all, Type: "btrfs"}); err != nil {
		t.Skipf("needs btrfs: %v", err)
	}
	run(t, "btrfs", "subvolume", "create", filepath.Join(r.procDir(c.pid), "root", all, "s1"))
	c.mount(partition, sub, "btrfs", 0, "subvol=s1")
	c.write(sub + "/file")
	c.write(all + "/file")
	got := lookAt(t, r, c, nil)
	wantPoints(t, got, all, sub)
	for _, m := range got {
		if m.Device != filepath.Base(partition) || m.IODevice != numberOfNode(t, device) || m.Number.Major != 0 {
			t.Errorf("%+v", m)
		}
	}
	if got[0].SizedBy != got[1].SizedBy || got[1].Root != "/s1" {
		t.Errorf("%+v", got)
	}
	wantSizes(t, r, c, got)
}

func TestMemoryIsSeenIfAskedFor(t *testing.T) {
	c := newContainer(t)
	c.mount("scratch", c.path("tmp"), "tmpfs", 0, "size=1m")
	c.write(c.path("tmp/file"))
	wantPoints(t, lookAt(t, openReader(t, Options{}), c, nil))
	r := openReader(t, Options{Tmpfs: true})
	got := lookAt(t, r, c, nil)
	wantPoints(t, got, c.path("tmp"))
	if got[0].Device != "scratch" || got[0].HasIO {
		t.Errorf("%+v", got[0])
	}
	if usage := wantSizes(t, r, c, got); usage[0].Size != 1<<20 {
		t.Errorf("%+v", usage[0])
	}
	// A device or a named pipe in it is no file.
	c.do(command{Do: "close", Target: c.path("tmp/file")})
	fifo := filepath.Join(r.procDir(c.pid), "root", c.path("tmp/fifo"))
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c.do(command{Do: "open", Target: c.path("tmp/fifo"), Flags: unix.O_RDWR})
	wantPoints(t, lookAt(t, r, c, nil))
}

func TestNobodyIsThere(t *testing.T) {
	r := openReader(t, Options{})
	before := []Mount{{MountPoint: "/", ID: 1}}
	got, err := r.Look([]int{1 << 30}, before)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	if d := cmp.Diff(before, got); d != "" {
		t.Error(d)
	}
	if _, err := r.Look(nil, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no process: got %v, want %v", err, fs.ErrNotExist)
	}
	usage, err := r.Sizes(t.Context(), []SizeRequest{{PIDs: func() []int { return []int{1 << 30} }, Mounts: before}, {Mounts: before}, {}})
	if d := cmp.Diff([][]Usage{{{}}, {{}}, {}}, usage); d != "" || err != nil {
		t.Error(d, err)
	}
	if got := r.Stats().FailedSizes; got != 2 {
		t.Errorf("%d failed, want 2", got)
	}
	r.Close()
	if _, err := r.Sizes(context.Background(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want %v", err, ErrClosed)
	}
}

func TestLinksOfTheContainerLeadNowhere(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: opens the root directory of a process")
	}
	r := openReader(t, Options{})
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(dir, "a/out")); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	for _, steps := range []bool{false, true} {
		r.noOpenat2.Store(steps)
		fd, err := r.openBelow(root, "a/b")
		if err != nil {
			t.Errorf("step by step: %v: %v", steps, err)
		}
		unix.Close(fd)
		for _, path := range []string{"a/out/etc", "../etc", "a/../../etc", "a/none"} {
			if fd, err := r.openBelow(root, path); err == nil {
				target, _ := os.Readlink("/proc/self/fd/" + itoa(fd))
				unix.Close(fd)
				if target != filepath.Join(dir, "etc") {
					t.Errorf("step by step: %v: %s leads to %s", steps, path, target)
				}
			}
		}
	}
}
