// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// hold opens a file of this process until the test ends.
func hold(t testing.TB, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// fileOf is what a Finder should say of a file whose path is the same for a process and the test.
func fileOf(t testing.TB, pid int, path string, offset uint64) File {
	t.Helper()
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, statxMask, &x); err != nil {
		t.Fatal(err)
	}
	f := File{
		Path: path, Root: fmt.Sprintf("/proc/%d/root", pid), Dev: unix.Mkdev(x.Dev_major, x.Dev_minor), Inode: x.Ino, Size: x.Size,
		Offset: offset,
	}
	if x.Mask&unix.STATX_BTIME != 0 {
		f.Born = time.Unix(x.Btime.Sec, int64(x.Btime.Nsec))
	}
	return f
}

func wantOpen(t *testing.T, f *Finder, pid int, want ...File) {
	t.Helper()
	got, err := f.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func paths(files []File) (all []string) {
	for _, f := range files {
		all = append(all, f.Path)
	}
	return all
}

func wantPaths(t *testing.T, f *Finder, pid int, want ...string) {
	t.Helper()
	got, err := f.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, paths(got)); d != "" {
		t.Error(d)
	}
}

func TestOpenGivesWhatIsOpenForWriting(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	f := New(Options{Roots: []string{dir + "/"}})

	appending := hold(t, at("append.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND)
	fmt.Fprint(appending, "four")
	hold(t, at("append.log"), os.O_WRONLY) // stands at 0
	hold(t, at("both.log"), os.O_CREATE|os.O_RDWR)
	hold(t, at("odd \xff\nname (deleted)"), os.O_CREATE|os.O_RDWR)
	put(t, at("read.log"))
	hold(t, at("read.log"), os.O_RDONLY)
	hold(t, at("read.log"), unix.O_PATH)
	hold(t, at("packed.log.gz"), os.O_CREATE|os.O_WRONLY)
	if err := unix.Mkfifo(at("pipe.log"), 0o600); err != nil {
		t.Fatal(err)
	}
	hold(t, at("pipe.log"), os.O_RDWR)
	hold(t, filepath.Join(t.TempDir(), "elsewhere.log"), os.O_CREATE|os.O_WRONLY)

	hold(t, at("moved.log"), os.O_CREATE|os.O_WRONLY)
	hold(t, at("moved out.log"), os.O_CREATE|os.O_WRONLY)
	hold(t, at("deleted.log"), os.O_CREATE|os.O_WRONLY)
	hold(t, at("made again.log"), os.O_CREATE|os.O_WRONLY)
	for _, err := range []error{
		os.Rename(at("moved.log"), at("moved.log.1")),
		os.Rename(at("moved out.log"), filepath.Join(t.TempDir(), "x.log")),
		os.Remove(at("deleted.log")), os.Remove(at("made again.log")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	put(t, at("deleted.log (deleted)"))
	put(t, at("made again.log"))

	pid := os.Getpid()
	wantOpen(t, f, pid, fileOf(t, pid, at("append.log"), 4), fileOf(t, pid, at("both.log"), 0),
		fileOf(t, pid, at("odd \xff\nname (deleted)"), 0), fileOf(t, pid, at("moved.log.1"), 0))
	if d := cmp.Diff(Stats{}, f.Stats()); d != "" {
		t.Error(d)
	}
}

func TestOpenFollowsARootThatIsASymlink(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "data", "log", "app", "x.log"))
	hold(t, filepath.Join(dir, "data", "log", "app", "x.log"), os.O_WRONLY)
	if err := os.Symlink("./data/../data/log", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(dir, "data", "log", "app", "x.log")
	wantPaths(t, New(Options{Roots: []string{filepath.Join(dir, "link")}}), os.Getpid(), want)
	wantPaths(t, New(Options{Roots: []string{filepath.Join(dir, "missing"), filepath.Join(dir, "link", "app")}}), os.Getpid(), want)
	wantPaths(t, New(Options{Roots: []string{filepath.Join(dir, "link", "ap")}}), os.Getpid())
}

func TestOpenWithTheWholeRootAsLogs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	hold(t, path, os.O_CREATE|os.O_WRONLY)
	files, err := New(Options{Roots: []string{"/"}}).Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Path == path {
			return
		}
	}
	t.Errorf("%q has no %q", paths(files), path)
}

func TestOpenInAnotherRootDirectory(t *testing.T) {
	c := newChild(t)
	put(t, c.path("data/log/x.log"))
	if err := os.Symlink("/data", c.path("var")); err != nil { // of the host there is none
		t.Fatal(err)
	}
	put(t, c.path("outside.log"))
	c.open(c.path("outside.log"))
	c.do(command{Do: "chroot", Target: c.dir})
	c.open("/var/log/x.log")
	f := New(Options{Roots: []string{"/var/log", "/"}})
	want := fileOf(t, c.pid, c.path("data/log/x.log"), 12)
	want.Path = "/data/log/x.log"
	outside := fileOf(t, c.pid, c.path("outside.log"), 12)
	outside.Path = "/outside.log"
	wantOpen(t, f, c.pid, outside, want)
	wantOpen(t, New(Options{}), c.pid, want)

	hidden := newChild(t)
	put(t, hidden.path("var/log/x.log"))
	hidden.open(hidden.path("var/log/x.log"))
	hidden.do(command{Do: "mkdir", Target: hidden.path("jail/var/log")})
	hidden.do(command{Do: "chroot", Target: hidden.path("jail")})
	wantOpen(t, New(Options{Roots: []string{"/var/log", filepath.Join(hidden.dir, "var/log")}}), hidden.pid)
}

func TestOpenInAContainer(t *testing.T) {
	c := newChild(t)
	c.layers("image.log")
	c.bind(c.path("volume"), c.path("merged/var/log/volume"))
	c.do(command{Do: "mount", Source: "x", Target: c.path("merged/var/log/memory"), Type: "tmpfs"})
	c.do(command{Do: "pivot", Target: c.path("merged")})
	c.open("/var/log/new.log")
	c.open("/var/log/image.log")
	c.open("/var/log/volume/x.log")
	c.open("/var/log/memory/x.log")
	c.open("/tmp.log")
	f := New(Options{})
	wantPaths(t, f, c.pid, "/var/log/new.log", "/var/log/image.log", "/var/log/volume/x.log", "/var/log/memory/x.log")
	c.do(command{Do: "mount", Source: "x", Target: "/var/log/volume", Type: "tmpfs"})
	wantPaths(t, f, c.pid, "/var/log/new.log", "/var/log/image.log", "/var/log/memory/x.log")
	c.do(command{Do: "close", Target: "/var/log/new.log"})
	files, err := f.Open(c.pid)
	if err != nil || len(files) != 2 {
		t.Fatalf("%q, %v", paths(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file.Root + file.Path)
		if err != nil || uint64(len(text)) != file.Size || file.Offset != file.Size || file.Born.IsZero() {
			t.Errorf("%+v: %q, %v", file, text, err)
		}
	}
}

func TestOpenIsBounded(t *testing.T) {
	dir := t.TempDir()
	hold(t, filepath.Join(dir, "first.log"), os.O_CREATE|os.O_WRONLY)
	null := hold(t, os.DevNull, os.O_WRONLY)
	var more []int
	t.Cleanup(func() {
		for _, fd := range more {
			unix.Close(fd)
		}
	})
	for range 5000 {
		fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Skipf("needs 5000 descriptors: %v", err)
		}
		more = append(more, fd)
	}
	hold(t, filepath.Join(dir, "last.log"), os.O_CREATE|os.O_WRONLY)
	f := New(Options{Roots: []string{dir}})
	begin := time.Now()
	wantPaths(t, f, os.Getpid(), filepath.Join(dir, "first.log"))
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if s := f.Stats(); s.Descriptors < 900 || s.Descriptors > 1100 || s.Files != 0 {
		t.Errorf("%+v", s)
	}
}

func TestOpenGivesNotTooManyFiles(t *testing.T) {
	dir := t.TempDir()
	for i := range maxFiles + 3 {
		hold(t, filepath.Join(dir, strconv.Itoa(i)), os.O_CREATE|os.O_WRONLY)
	}
	f := New(Options{Roots: []string{dir}})
	files, err := f.Open(os.Getpid())
	if err != nil || len(files) != maxFiles {
		t.Errorf("%d files, %v", len(files), err)
	}
	if d := cmp.Diff(Stats{Files: 3}, f.Stats()); d != "" {
		t.Error(d)
	}
}

func TestOpenOfAProcessThatHasEnded(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1") // has no input and ends
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	f := New(Options{})
	wantOpen(t, f, cmd.Process.Pid) // nobody has waited for it
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	wantOpen(t, f, cmd.Process.Pid)
	wantOpen(t, f, -1)
}

func TestOpenOfAProcessOfAnotherUser(t *testing.T) {
	needRoot(t)
	c := startChild(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL})
	c.do(command{Do: "look"})
}

func TestOpenWhileFilesAreClosed(t *testing.T) {
	dir := t.TempDir()
	stays := filepath.Join(dir, "stays.log")
	hold(t, stays, os.O_CREATE|os.O_WRONLY)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for path := filepath.Join(dir, strconv.Itoa(i)); ; {
				select {
				case <-stop:
					return
				default:
				}
				if f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
					os.Remove(path)
					f.Close()
				}
			}
		})
	}
	f := New(Options{Roots: []string{dir}})
	for range 200 {
		files, err := f.Open(os.Getpid())
		if err != nil || len(files) == 0 || files[0].Path != stays {
			t.Errorf("%q, %v", paths(files), err)
			break
		}
	}
	close(stop)
	writers.Wait()
}

func TestNamesOfLogs(t *testing.T) {
	for name, want := range map[string]bool{
		"x.log": true, "syslog": true, "a/b/error.log.1": true, "wtmp.log": true, "db": true, "gz": true, "x.journal.txt": true,
		"": false, "a/": false, "wtmp": false, "a/btmp": false, "lastlog": false, "x.gz": false, "a.gz/x.zst": false,
		"x.sqlite3-wal": false, "x.db": false, ".x.swp": false, "app.pid": false,
	} {
		if got := mayBeLog(name); got != want {
			t.Errorf("%q: got %v", name, got)
		}
	}
	for _, tt := range []struct {
		root, rest string
		want       bool
	}{
		{"/var/log", "pods/ns_pod_uid/c/0.log", true},
		{"/var/log", "containers/x.log", true},
		{"/var/log", "journal/0123/system", true},
		{"/host/var/log", "pods/x", true},
		{"", "var/log/pods/x", true},
		{"/var/log/pods", "x", true},
		{"/var/log", "pods", false},
		{"/var/log", "app/pods/x", false},
		{"/data", "pods/x.log", false},
	} {
		if got := isReadElsewhere(tt.root, tt.rest); got != tt.want {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
}

func TestParseFileInfo(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		offset   uint64
		written  bool
	}{
		{"read", "pos:\t7\nflags:\t0100000\nmnt_id:\t29\n", 0, false},
		{"append", "pos:\t7\nflags:\t0102001\nmnt_id:\t29\n", 7, true},
		{"both", "pos:\t0\nflags:\t02\n", 0, true},
		{"path only", "pos:\t0\nflags:\t012000000\n", 0, false},
		{"cut off", "pos:\t0\nflags:\t02", 0, false},
		{"not octal", "pos:\t0\nflags:\t09\n", 0, false},
		{"negative", "pos:\t-1\nflags:\t02\n", 0, false},
		{"no flags", "pos:\t0\n", 0, false},
		{"empty", "", 0, false},
	} {
		if offset, written := parseFileInfo([]byte(tt.in)); offset != tt.offset || written != tt.written {
			t.Errorf("%s: got %d, %v", tt.name, offset, written)
		}
	}
}

func TestErrorsSayWhy(t *testing.T) {
	_, err := New(Options{ProcRoot: "/proc/self/status"}).Open(1)
	if err == nil || errors.Is(err, fs.ErrPermission) {
		t.Errorf("not a directory: %v", err)
	}
}
