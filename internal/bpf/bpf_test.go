// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a process that does what its standard input says, one command a line.
const childEnv = "BPF_TEST_CHILD"

// cgroupRootEnv tells a child that loads programs where the unified hierarchy is.
const cgroupRootEnv = "BPF_TEST_CGROUP_ROOT"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		goleak.VerifyTestMain(m)
	case "commands":
		runChild(os.Stdin, os.Stdout)
	case "task":
		runTaskChild(os.Args[1:])
	case "files":
		runFileChild(os.Args[1:], os.Stdin, os.Stdout)
	case "features":
		printFeatures(os.Stdout)
	}
}

// host is the cgroup set-up of this machine.
type host struct {
	unified string // mount point of the v2 hierarchy
	legacy  string // that of the v1 memory controller, "" on a pure v2 host
}

func findHost(t *testing.T) host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: loads BPF programs and makes cgroups")
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return host{unified: "/sys/fs/cgroup"}
	}
	h := host{unified: "/sys/fs/cgroup/unified", legacy: "/sys/fs/cgroup/memory"}
	for _, dir := range []string{h.unified, h.legacy} {
		if _, err := os.Stat(dir); err != nil {
			t.Fatalf("neither a v2 nor a hybrid host: %v", err)
		}
	}
	return h
}

func (h host) controller() string {
	if h.legacy == "" {
		return ""
	}
	return "memory"
}

// cgroup is a cgroup of the test's own in each hierarchy.
type cgroup struct {
	dirs   []string
	v2, v1 uint64
}

func (h host) makeCgroup(t *testing.T, name string) cgroup {
	t.Helper()
	var c cgroup
	make := func(root string) uint64 {
		dir := filepath.Join(root, fmt.Sprintf("bpf-test-%d-%s", os.Getpid(), name))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeCgroup(t, dir) })
		c.dirs = append(c.dirs, dir)
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	c.v2 = make(h.unified)
	if h.legacy != "" {
		c.v1 = make(h.legacy)
	}
	return c
}

func removeCgroup(t *testing.T, dir string) {
	eventually(t, "remove "+dir, func() bool {
		err := os.Remove(dir)
		return err == nil || os.IsNotExist(err)
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 10 s: %s", what)
}

// child is a process inside a cgroup.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startChild(t *testing.T, c cgroup) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=commands")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ch := &child{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(ch.kill)
	for _, dir := range c.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	return ch
}

// do sends a command and returns the answer.
func (c *child) do(format string, args ...any) string {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.in, format+"\n", args...); err != nil {
		c.t.Fatal(err)
	}
	s, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}

// runChild is the child's side: it holds connections and answers each command with one line.
func runChild(in io.Reader, out io.Writer) {
	var held []net.Conn
	servers := &childServers{}
	for sc := bufio.NewScanner(in); sc.Scan(); {
		var addr string
		var n int
		verb, rest, _ := strings.Cut(sc.Text(), " ")
		_, _ = fmt.Sscan(rest, &n, &addr)
		done, failed := 0, 0
		switch verb {
		case "connect", "hold": // n connections to addr, closed or kept
			for range n {
				c, err := net.DialTimeout("tcp", addr, time.Second)
				if err != nil {
					failed++
					continue
				}
				done++
				if verb == "hold" {
					held = append(held, c)
				} else {
					_ = c.Close()
				}
			}
		case "mapped": // n connections from an IPv6 socket to an IPv4 address
			done = connectMapped(n, netip.MustParseAddrPort(addr))
			failed = n - done
		case "giveup": // one connect that is closed after n milliseconds without an answer
			if _, err := net.DialTimeout("tcp", addr, time.Duration(n)*time.Millisecond); err != nil {
				failed++
			}
		case "echo": // send n bytes over each connection held and read them back
			buf := make([]byte, n)
			for _, c := range held {
				if _, err := c.Write(buf); err == nil {
					m, _ := io.ReadFull(c, buf)
					done += m
				}
			}
		case "halfclose":
			for _, c := range held {
				_ = c.(*net.TCPConn).CloseWrite()
			}
		case "close":
			for _, c := range held {
				_ = c.Close()
			}
			held = nil
		case "serve", "listen", "unserve":
			done, failed = servers.run(verb, n, addr)
		case "reset": // n connections to addr that end with a reset
			done, failed = resetConnections(n, addr)
		case "attempt":
			done, failed = runAttempts(rest)
		default:
			done, failed = runTraffic(verb, rest)
		}
		fmt.Fprintln(out, done, failed)
	}
}

func connectMapped(n int, addr netip.AddrPort) (done int) {
	for range n {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if unix.Connect(fd, &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}) == nil {
			done++
		}
		_ = unix.Close(fd)
	}
	return done
}

// serveEcho accepts on addr until the test ends and sends back what it reads.
func serveEcho(t *testing.T, addr string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func openTracer(t *testing.T, o Options) *Tracer {
	t.Helper()
	o.CgroupRoot = findHost(t).unified
	tr := Open(o)
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, f := range tr.Features() {
		if f.Err != nil && !errors.Is(f.Err, errNoConntrack) {
			t.Fatalf("%s: %v", f.Name, f.Err)
		}
	}
	return tr
}

// edgesOf returns the edges of one cgroup by destination.
func edgesOf(t *testing.T, tr *Tracer, c cgroup) map[netip.AddrPort]Edge {
	t.Helper()
	m := map[netip.AddrPort]Edge{}
	if err := tr.EachEdge(func(e *Edge) {
		if e.CgroupV2 == c.v2 && e.CgroupV1 == c.v1 && !e.Inbound {
			m[e.Destination] = *e
		}
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

func printFeatures(w io.Writer) {
	tr := Open(Options{Network: true, DiskIO: true, FileWrites: true, CgroupRoot: os.Getenv(cgroupRootEnv)})
	for _, f := range tr.Features() {
		fmt.Fprintln(w, f.Name, f.Err)
	}
	_ = tr.Close()
}

// featuresAs runs Open in a process of its own.
func featuresAs(t *testing.T, attr *syscall.SysProcAttr) map[string]string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=features")
	cmd.SysProcAttr = attr
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, reason, _ := strings.Cut(strings.TrimSpace(line), " ")
		m[name] = reason
	}
	return m
}
