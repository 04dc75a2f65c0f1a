// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// writeTo is what the kernel tells of a write to a file that the test sees on a disk.
func writeTo(t testing.TB, path string) Write {
	t.Helper()
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, statxMask, &x); err != nil {
		t.Fatal(err)
	}
	table, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	mounts, _, err := selectMounts(table, []root{{dir: path}})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if rest, ok := cutDir(path, m.point); ok && m.id == x.Mnt_id {
			return Write{Device: m.device, Inode: x.Ino, Path: m.root + rest}
		}
	}
	t.Fatalf("%s: no mount", path)
	return Write{}
}

// wantWritten looks for a write, whole and cut. The file is the same as Open gives for the path.
func wantWritten(t *testing.T, f *Finder, c *child, w Write, path string) {
	t.Helper()
	open, err := f.Open(c.pid)
	if err != nil {
		t.Fatal(err)
	}
	var want File
	for _, file := range open {
		if file.Path == path {
			want = file
			want.Offset = 0
		}
	}
	if want.Path == "" {
		t.Fatalf("%q is not open, only %q", path, paths(open))
	}
	got, ok := f.Written(c.pid, w)
	if d := cmp.Diff(want, got); d != "" || !ok {
		t.Errorf("%+v: %v, %s", w, ok, d)
	}
}

func wantNone(t *testing.T, f *Finder, pid int, writes ...Write) {
	t.Helper()
	for _, w := range writes {
		if got, ok := f.Written(pid, w); ok {
			t.Errorf("%+v is %+v", w, got)
		}
	}
}

// cut leaves that many names of the path.
func cut(w Write, names int) Write {
	all := strings.Split(w.Path, "/")
	w.Path, w.Cut = strings.Join(all[len(all)-names:], "/"), true
	return w
}

func otherInode(w Write) Write {
	w.Inode++
	return w
}

func TestWrittenByAProcessOfTheHost(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "logs", "app", "x.log")
	put(t, path)
	if err := os.Symlink("logs", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	f := New(Options{Roots: []string{filepath.Join(dir, "link")}})
	w := writeTo(t, path)
	pid := os.Getpid()
	for _, w := range []Write{w, {Device: w.Device, Inode: w.Inode, Path: w.Path[1:]}, cut(w, 3), cut(w, 4)} {
		got, ok := f.Written(pid, w)
		if d := cmp.Diff(fileOf(t, pid, path, 0), got); d != "" || !ok {
			t.Errorf("%+v: %v, %s", w, ok, d)
		}
	}
	other := w
	other.Device++
	packed := path + ".gz"
	put(t, packed)
	beside := filepath.Join(dir, "logs2", "app", "x.log")
	put(t, beside)
	wantNone(t, f, pid, otherInode(w), other, cut(w, 2), cut(w, 1), writeTo(t, packed), writeTo(t, beside),
		Write{}, Write{Path: "/"}, Write{Path: "/", Cut: true},
		Write{Device: w.Device, Inode: w.Inode, Path: strings.Replace(w.Path, "/app/", "/app/../app/", 1)},
		Write{Device: w.Device, Inode: w.Inode, Path: filepath.Dir(w.Path)})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantNone(t, f, pid, w)
	wantNone(t, f, -1, w)
}

func TestWrittenToAVolume(t *testing.T) {
	c := newChild(t)
	volume := c.path("pods/uid/volumes/empty-dir/logs")
	c.layers()
	c.bind(volume, c.path("merged/var/log"))
	c.bind(c.path("deep"), c.path("merged/var/log/deep"))
	put(t, c.path("single"))
	c.do(command{Do: "bind file", Source: c.path("single"), Target: c.path("merged/var/log/single.log")})
	c.do(command{Do: "mount", Source: "x", Target: c.path("merged/var/log/memory"), Type: "tmpfs"})
	c.do(command{Do: "pivot", Target: c.path("merged")})
	for _, name := range []string{"app/x.log", "deep/x.log", "single.log", "memory/x.log"} {
		if dir := filepath.Dir(name); dir == "app" {
			c.do(command{Do: "mkdir", Target: "/var/log/app"})
		}
		c.open("/var/log/" + name)
	}
	f := New(Options{})
	x := writeTo(t, filepath.Join(volume, "app/x.log"))
	wantWritten(t, f, c, x, "/var/log/app/x.log")
	wantWritten(t, f, c, cut(x, 3), "/var/log/app/x.log")
	wantWritten(t, f, c, cut(x, 6), "/var/log/app/x.log")
	wantNone(t, f, c.pid, cut(x, 2), otherInode(x))
	deep := writeTo(t, c.path("deep/x.log"))
	wantWritten(t, f, c, deep, "/var/log/deep/x.log")
	wantWritten(t, f, c, writeTo(t, c.path("single")), "/var/log/single.log")
	memory := writeIn(t, c, "/var/log/memory/x.log", "/x.log")
	wantWritten(t, f, c, memory, "/var/log/memory/x.log")

	// The same inode under another mount is another file.
	c.do(command{Do: "mount", Source: "x", Target: "/var/log/memory", Type: "tmpfs"})
	c.open("/var/log/memory/x.log")
	again := writeIn(t, c, "/var/log/memory/x.log", "/x.log")
	if again.Inode != memory.Inode {
		t.Logf("inodes %d and %d", memory.Inode, again.Inode)
	}
	later(f)
	wantNone(t, f, c.pid, memory)
	wantWritten(t, f, c, again, "/var/log/memory/x.log")
}

// writeIn is what the kernel tells of a write to a file that only the child sees.
func writeIn(t testing.TB, c *child, path, inFS string) Write {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/root%s", c.pid, path), &st); err != nil {
		t.Fatal(err)
	}
	return Write{Device: st.Dev, Inode: st.Ino, Path: inFS}
}

// later makes the views of a Finder old.
func later(f *Finder) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, v := range f.views {
		aged := *v
		aged.at = aged.at.Add(-keepView)
		f.views[key] = &aged
	}
}

func TestWrittenInAContainer(t *testing.T) {
	c := newChild(t)
	c.container("image.log")
	upper := c.path("overlay2/0123/diff")
	c.open("/var/log/new.log")
	c.open("/var/log/image.log")
	f := New(Options{})
	written := writeTo(t, upper+"/var/log/new.log")
	copied := writeTo(t, upper+"/var/log/image.log")
	if lower := writeTo(t, c.path("lower/var/log/image.log")); lower.Inode == copied.Inode {
		t.Fatal("was not copied")
	}
	wantWritten(t, f, c, written, "/var/log/new.log")
	for names := 2; names < 8; names++ {
		wantWritten(t, f, c, cut(written, names), "/var/log/new.log")
	}
	wantNone(t, f, c.pid, cut(written, 1))

	wantWritten(t, f, c, copied, "/var/log/image.log")
	wantWritten(t, f, c, cut(copied, 5), "/var/log/image.log") // 0123/diff/var/log/image.log
	wantNone(t, f, c.pid, cut(copied, 4), cut(copied, 3))

	for name, change := range map[string]func(*Write){
		"another layer":     func(w *Write) { w.Path = strings.Replace(w.Path, "/0123/", "/4567/", 1) },
		"not of a layer":    func(w *Write) { w.Path = "/var/log/image.log" },
		"not there":         func(w *Write) { w.Path += "x" },
		"not below a root":  func(w *Write) { w.Path = strings.Replace(w.Path, "/var/log/", "/var/tmp/", 1) },
		"read elsewhere":    func(w *Write) { w.Path = strings.Replace(w.Path, "image.log", "pods/image.log", 1) },
		"the root itself":   func(w *Write) { w.Path = filepath.Dir(w.Path) },
		"below a file":      func(w *Write) { w.Path += "/x" },
		"name of other end": func(w *Write) { w.Path = strings.Replace(w.Path, "/var/log/", "/var/logs/", 1) },
	} {
		w := copied
		change(&w)
		if got, ok := f.Written(c.pid, w); ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// The layer may be on a mount that the path of its directory does not tell of.
	elsewhere := copied
	elsewhere.Path = "/disk/0123/diff/var/log/image.log"
	wantWritten(t, f, c, elsewhere, "/var/log/image.log")

	f.now = func() time.Time { return time.Now().Add(2 * recently) }
	wantWritten(t, f, c, written, "/var/log/new.log")
	wantNone(t, f, c.pid, copied)
}

func TestWrittenToTheOverlayItself(t *testing.T) {
	c := newChild(t)
	c.container("image.log")
	c.open("/var/log/image.log")
	wantWritten(t, New(Options{}), c, writeIn(t, c, "/var/log/image.log", "/var/log/image.log"), "/var/log/image.log")
}

func TestWrittenToAnOverlayOfOtherFileSystems(t *testing.T) {
	c := newChild(t)
	c.do(command{Do: "mount", Source: "x", Target: c.path("overlay2"), Type: "tmpfs"})
	c.container("image.log")
	c.open("/var/log/new.log")
	c.open("/var/log/image.log")
	f := New(Options{})
	w := writeIn(t, c, "/var/log/new.log", "/0123/diff/var/log/new.log")
	wantWritten(t, f, c, w, "/var/log/new.log")
	w.Path, w.Inode = "/0123/diff/var/log/image.log", 1<<40
	wantWritten(t, f, c, w, "/var/log/image.log")
}

func TestWrittenInAnotherRootDirectory(t *testing.T) {
	c := newChild(t)
	c.do(command{Do: "mkdir", Target: c.path("var/log")})
	put(t, c.path("host.log"))
	c.do(command{Do: "chroot", Target: c.dir})
	c.open("/var/log/x.log")
	f := New(Options{})
	w := writeTo(t, c.path("var/log/x.log"))
	wantWritten(t, f, c, w, "/var/log/x.log")
	wantWritten(t, f, c, cut(w, 2), "/var/log/x.log")
	wantNone(t, f, c.pid, cut(w, 1), otherInode(w), writeTo(t, c.path("host.log")))
	other := w
	other.Device++
	wantNone(t, f, c.pid, other)

	inside := newChild(t)
	inside.container()
	inside.do(command{Do: "mkdir", Target: "/jail/var/log"})
	inside.do(command{Do: "chroot", Target: "/jail"})
	inside.open("/var/log/x.log")
	wantWritten(t, f, inside, writeTo(t, inside.path("overlay2/0123/diff/jail/var/log/x.log")), "/var/log/x.log")
}

func TestWrittenOnBtrfs(t *testing.T) {
	needRoot(t)
	c := newChild(t)
	mkfs, err := exec.LookPath("mkfs.btrfs")
	if err != nil {
		t.Skip("needs mkfs.btrfs")
	}
	disk := c.path("disk")
	put(t, disk)
	if err := os.Truncate(disk, 128<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.do(command{Do: "mkdir", Target: c.path("fs")})
	enter := fmt.Sprint("--mount=/proc/", c.pid, "/ns/mnt")
	for _, args := range [][]string{
		{"mount", "-o", "loop", disk, c.path("fs")}, {"btrfs", "subvolume", "create", c.path("fs/vol")},
		{"mkdir", "-p", c.path("fs/vol/logs")}, {"mkdir", "-p", c.path("jail/var/log")},
		{"mount", "--bind", c.path("fs/vol/logs"), c.path("jail/var/log")},
	} {
		if out, err := exec.Command("nsenter", append([]string{enter}, args...)...).CombinedOutput(); err != nil {
			t.Skipf("needs btrfs on a loop device: %q: %v: %s", args, err, out)
		}
	}
	c.do(command{Do: "chroot", Target: c.path("jail")})
	c.open("/var/log/x.log")
	f := New(Options{})
	w := writeIn(t, c, "/var/log/x.log", "/vol/logs/x.log")
	stat := w.Device
	p, err := f.openProcess(c.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	mounts, _, err := p.readMounts([]root{{dir: "/var/log"}})
	if err != nil || len(mounts) != 1 {
		t.Fatalf("%+v, %v", mounts, err)
	}
	if w.Device = mounts[0].device; w.Device == stat {
		t.Errorf("both numbers are %#x", stat)
	}
	wantWritten(t, f, c, w, "/var/log/x.log")
}

func TestMountsAreReadAgain(t *testing.T) {
	c := newChild(t)
	c.container()
	c.bind("/volume", "/other")
	f := New(Options{Roots: []string{"/logs"}})
	clock := time.Now()
	f.now = func() time.Time { return clock }
	c.do(command{Do: "mkdir", Target: "/volume"})
	c.open("/volume/x.log")
	w := writeTo(t, c.path("overlay2/0123/diff/volume/x.log"))
	wantNone(t, f, c.pid, w)
	c.bind("/volume", "/logs")
	wantNone(t, f, c.pid, w) // for a while
	clock = clock.Add(keepView)
	got, ok := f.Written(c.pid, w)
	if !ok || got.Path != "/logs/x.log" {
		t.Errorf("%+v, %v", got, ok)
	}
}

func TestViewsAreBounded(t *testing.T) {
	f := New(Options{})
	now := time.Now()
	for i := range maxViews {
		f.views[viewKey{inode: uint64(i), mount: ^uint64(0)}] = &view{at: now}
	}
	if _, err := f.Open(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if n := len(f.views); n != 1 {
		t.Errorf("%d views, want that of this process", n)
	}
	for i := range maxViews {
		f.views[viewKey{inode: uint64(i), mount: ^uint64(0)}] = &view{at: now.Add(-keepView)}
	}
	f.dropOldViews()
	if n := len(f.views); n != 1 {
		t.Errorf("%d views, want the one that is not old", n)
	}
}
