// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a process that does what its standard input says.
const childEnv = "LOGFILES_TEST_CHILD"

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
			fmt.Fprintf(out, "%s %s: %s\n", c.Do, c.Target, strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Fprintln(out, "ok")
	}
	return lines.Err()
}

func (c command) run(open map[string]int) error {
	switch c.Do {
	case "mount":
		return errors.Join(os.MkdirAll(c.Target, 0o755), unix.Mount(c.Source, c.Target, c.Type, uintptr(c.Flags), c.Data))
	case "bind file":
		return errors.Join(os.WriteFile(c.Target, nil, 0o644), unix.Mount(c.Source, c.Target, "", unix.MS_BIND, ""))
	case "open":
		fd, err := unix.Open(c.Target, c.Flags|unix.O_CLOEXEC|unix.O_CREAT, 0o600)
		if err != nil {
			return err
		}
		open[c.Target] = fd
		_, err = unix.Write(fd, []byte("hello\n"))
		return err
	case "close":
		defer delete(open, c.Target)
		return unix.Close(open[c.Target])
	case "mkdir":
		return os.MkdirAll(c.Target, 0o755)
	case "chroot":
		return errors.Join(unix.Chroot(c.Target), os.Chdir("/"))
	case "pivot": // what a runtime does
		old := filepath.Join(c.Target, "old")
		return errors.Join(os.MkdirAll(old, 0o755), unix.PivotRoot(c.Target, old), os.Chdir("/"),
			unix.Unmount("/old", unix.MNT_DETACH))
	case "look": // at its parent, whom it may not look at
		if _, err := New(Options{}).Open(os.Getppid()); !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("got %w, want fs.ErrPermission", err)
		}
		return nil
	default:
		return errors.ErrUnsupported
	}
}

// child is a process with a mount namespace of its own.
type child struct {
	t     testing.TB
	pid   int
	dir   string
	stdin io.WriteCloser
	lines *bufio.Scanner
	end   func()
}

// needRoot skips a test, which fails it under EBPFCONTAINER_REQUIRE_ROOT_TESTS=1.
func needRoot(t testing.TB) {
	t.Helper()
	switch {
	case os.Getuid() == 0:
	case os.Getenv("EBPFCONTAINER_REQUIRE_ROOT_TESTS") == "1":
		t.Fatal("required by EBPFCONTAINER_REQUIRE_ROOT_TESTS: not root")
	default:
		t.Skip("needs root: makes mount namespaces")
	}
}

func newChild(t testing.TB) *child {
	t.Helper()
	needRoot(t)
	c := startChild(t, &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL})
	c.do(command{Do: "mount", Source: "none", Target: "/", Flags: unix.MS_REC | unix.MS_PRIVATE})
	return c
}

func startChild(t testing.TB, attr *syscall.SysProcAttr) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr, cmd.Stderr = attr, os.Stderr
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
	c := &child{t: t, pid: cmd.Process.Pid, dir: t.TempDir(), stdin: stdin, lines: bufio.NewScanner(stdout)}
	c.end = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Cleanup(c.end)
	return c
}

func (c *child) path(name string) string { return filepath.Join(c.dir, name) }

func (c *child) do(cmd command) {
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
		c.t.Fatal(got)
	}
}

func (c *child) open(path string) {
	c.t.Helper()
	c.do(command{Do: "open", Target: path, Flags: unix.O_WRONLY | unix.O_APPEND})
}

func (c *child) bind(source, target string) {
	c.t.Helper()
	c.do(command{Do: "mkdir", Target: source})
	c.do(command{Do: "mount", Source: source, Target: target, Flags: unix.MS_BIND})
}

// container makes a root directory of the child, of an overlay, as a runtime does. Files that the image has in /var/log are
// given by name.
func (c *child) container(image ...string) {
	c.t.Helper()
	c.layers(image...)
	c.do(command{Do: "pivot", Target: c.path("merged")})
}

// layers mounts that overlay.
func (c *child) layers(image ...string) {
	c.t.Helper()
	for _, dir := range []string{"lower/var/log", "overlay2/0123/diff", "overlay2/0123/work"} {
		c.do(command{Do: "mkdir", Target: c.path(dir)})
	}
	for _, name := range image {
		put(c.t, c.path("lower/var/log/"+name))
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%[2]s/diff,workdir=%[2]s/work", c.path("lower"), c.path("overlay2/0123"))
	c.do(command{Do: "mount", Source: "overlay", Target: c.path("merged"), Type: "overlay", Data: options})
}

func put(t testing.TB, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
