// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a process with a mount namespace of its own that does what its standard input says.
const childEnv = "MOUNTS_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if err := runChild(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// command is what the child shall do.
type command struct {
	Do     string
	Source string `json:",omitempty"`
	Target string `json:",omitempty"`
	Type   string `json:",omitempty"`
	Data   string `json:",omitempty"`
	Flags  int    `json:",omitempty"`
}

func runChild(in io.Reader, out io.Writer) error {
	open := map[string]int{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return err
		}
		if err := c.run(open); err != nil {
			fmt.Fprintf(out, "%s %s: %v\n", c.Do, strings.ReplaceAll(c.Target, "\n", " "), err)
			continue
		}
		fmt.Fprintln(out, "ok")
	}
	return lines.Err()
}

func (c command) run(open map[string]int) error {
	switch c.Do {
	case "mount":
		return unix.Mount(c.Source, c.Target, c.Type, uintptr(c.Flags), c.Data)
	case "unmount":
		return unix.Unmount(c.Target, c.Flags)
	case "open":
		fd, err := unix.Open(c.Target, c.Flags|unix.O_CLOEXEC, 0o600)
		if err == nil {
			open[c.Target] = fd
		}
		return err
	case "close":
		fd, ok := open[c.Target]
		if !ok {
			return os.ErrNotExist
		}
		delete(open, c.Target)
		return unix.Close(fd)
	case "mkdir":
		return os.MkdirAll(c.Target, 0o755)
	case "touch":
		return os.WriteFile(c.Target, nil, 0o600)
	case "remove":
		return os.RemoveAll(c.Target)
	case "fuse": // nobody ever answers it
		fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		open[c.Target] = fd
		data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)
		return unix.Mount(c.Source, c.Target, "fuse.silent", 0, data)
	case "root": // what a runtime does
		old := filepath.Join(c.Target, "old")
		return errors.Join(os.MkdirAll(old, 0o755), unix.PivotRoot(c.Target, old), os.Chdir("/"),
			unix.Unmount("/old", unix.MNT_DETACH))
	default:
		return errors.ErrUnsupported
	}
}

// container is a child, and where it and the test make files.
type container struct {
	t     *testing.T
	pid   int
	dir   string
	stdin io.WriteCloser
	lines *bufio.Scanner
}

func newContainer(t *testing.T) *container {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts file systems in a namespace of its own")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &container{t: t, pid: cmd.Process.Pid, dir: t.TempDir(), stdin: stdin, lines: bufio.NewScanner(stdout)}
	t.Cleanup(func() {
		cmd.Process.Kill() // closes what it has open: a silent file system ends with that
		cmd.Wait()
	})
	return c
}

func (c *container) path(name string) string { return filepath.Join(c.dir, name) }

func (c *container) try(cmd command) error {
	c.t.Helper()
	b, err := json.Marshal(cmd)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.stdin.Write(append(b, '\n')); err != nil {
		c.t.Fatal(err)
	}
	if !c.lines.Scan() {
		c.t.Fatalf("child ended: %v", c.lines.Err())
	}
	if got := c.lines.Text(); got != "ok" {
		return errors.New(got)
	}
	return nil
}

func (c *container) do(cmd command) {
	c.t.Helper()
	if err := c.try(cmd); err != nil {
		c.t.Fatal(err)
	}
}

// mount makes the mount point, too.
func (c *container) mount(source, target, fsType string, flags int, data string) {
	c.t.Helper()
	c.do(command{Do: "mkdir", Target: target})
	c.do(command{Do: "mount", Source: source, Target: target, Type: fsType, Flags: flags, Data: data})
}

func (c *container) write(name string) {
	c.t.Helper()
	c.do(command{Do: "open", Target: name, Flags: unix.O_WRONLY | unix.O_CREAT})
}

func (c *container) pids() []int { return []int{c.pid} }

// loopDevice attaches a new file of some MiB to a loop device.
func loopDevice(t *testing.T, mib int64) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes loop devices")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs a loop device: %v", err)
	}
	defer control.Close()
	for end := time.Now().Add(5 * time.Second); ; {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Skipf("needs a loop device: %v", err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		device, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Skipf("needs a loop device: %v", err)
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{Fd: uint32(file.Fd())})
		device.Close()
		switch {
		case err == nil:
			t.Cleanup(func() { detachLoop(t, name) })
			return name
		case !errors.Is(err, unix.EBUSY) || time.Now().After(end): // somebody else was quicker
			t.Skipf("needs a loop device: %s: %v", name, err)
		}
	}
}

// detachLoop runs after the child, and with that its mounts, is gone.
func detachLoop(t *testing.T, name string) {
	device, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer device.Close()
	if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
		t.Errorf("detach %s: %v", name, err)
	}
}

// run runs a program that a test needs, and skips the test where there is none.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Skipf("needs %s", name)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// addPartition makes the kernel know a partition, which needs no partition table. Offset and size are in MiB.
func addPartition(t *testing.T, device string, number, offset, size int) string {
	t.Helper()
	no := fmt.Sprint(number)
	run(t, "addpart", device, no, fmt.Sprint(offset*2048), fmt.Sprint(size*2048))
	t.Cleanup(func() { run(t, "delpart", device, no) })
	return device + "p" + no
}
