// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// realAddresses are those of all metadata services.
var realAddresses = []string{
	"169.254.169.254", "100.100.100.200", "169.254.42.42", "fd00:ec2::254", "fd20:ce::254", "fd00:42::42", "fd00:c1::a9fe:a9fe",
}

// lab is a network namespace of the test's own, with a process in it.
type lab struct {
	t   testing.TB
	pid int
}

// tryLab makes a namespace with nothing but a loopback interface that has all real addresses, nil where that is not allowed.
func tryLab(t testing.TB) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	l := newLab(t)
	l.run("ip link set lo up")
	for _, addr := range realAddresses {
		if strings.Contains(addr, ":") {
			l.run("ip -6 addr add " + addr + "/128 dev lo nodad")
		} else {
			l.run("ip addr add " + addr + "/32 dev lo")
		}
	}
	return l
}

// newLab makes a namespace without anything.
func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	for _, tool := range []string{"ip", "nsenter", "sleep"} {
		needTool(t, tool)
	}
	cmd := exec.Command("sleep", "300")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &lab{t: t, pid: cmd.Process.Pid}
}

func needTool(t testing.TB, tool string) {
	t.Helper()
	_, err := exec.LookPath(tool)
	switch {
	case err == nil:
	case os.Getenv("EBPFCONTAINER_REQUIRE_ROOT_TESTS") == "1":
		t.Fatalf("required by EBPFCONTAINER_REQUIRE_ROOT_TESTS: %v", err)
	default:
		t.Skip(err)
	}
}

func (l *lab) path() string { return fmt.Sprintf("/proc/%d/ns/net", l.pid) }

// become makes the namespace that of the host whose root file system is at root.
func (l *lab) become(root string) {
	l.t.Helper()
	dir := filepath.Join(root, "proc", "1", "ns")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Symlink(l.path(), filepath.Join(dir, "net")); err != nil {
		l.t.Fatal(err)
	}
}

// run runs commands, one a line, in the namespace.
func (l *lab) run(script string) {
	l.t.Helper()
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		args := append([]string{"--net=" + l.path()}, strings.Fields(line)...)
		if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
			l.t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
}

// inside runs fn on a thread that is inside and ends afterwards.
func (l *lab) inside(fn func() error) {
	l.t.Helper()
	done := make(chan error, 1)
	var onThread func()
	onThread = func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			other := make(chan struct{})
			go func() { defer close(other); onThread() }()
			<-other
			return
		}
		f, err := os.Open(l.path())
		if err == nil {
			defer f.Close()
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}
	go onThread()
	if err := <-done; err != nil {
		l.t.Fatal(err)
	}
}

// listen listens inside until the end of the test.
func (l *lab) listen(address string) net.Listener {
	l.t.Helper()
	var listener net.Listener
	l.inside(func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	l.t.Cleanup(func() { listener.Close() })
	return listener
}

func (l *lab) listenEverywhere() []net.Listener {
	l.t.Helper()
	var all []net.Listener
	for _, addr := range realAddresses {
		all = append(all, l.listen(net.JoinHostPort(addr, "80")))
	}
	return all
}
