// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// trafficEnv makes the test binary a process that does what its standard input says, one command a line, and answers each
// with a line.
const trafficEnv = "INVENTORY_TEST_TRAFFIC"

func obey(in io.Reader, out io.Writer) {
	listeners := map[string]net.Listener{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		words := strings.Fields(lines.Text())
		fmt.Fprintln(out, answerTo(words[0], words[1:], listeners))
	}
}

func answerTo(command string, args []string, listeners map[string]net.Listener) string {
	switch command {
	case "hello":
		return "hello"
	case "dial":
		c, err := net.DialTimeout("tcp", args[0], 10*time.Second)
		if err != nil {
			return err.Error()
		}
		_ = c.Close()
		return "ok"
	case "listen":
		network := "tcp"
		if strings.HasPrefix(args[0], "0.0.0.0:") {
			network = "tcp4" // Go takes it for both families
		}
		var config net.ListenConfig
		config.SetMultipathTCP(false) // the kernel keeps the queue of such a listener from us when it is older than we are
		l, err := config.Listen(context.Background(), network, args[0])
		if err != nil {
			return err.Error()
		}
		listeners[args[0]] = l
		go serve(l)
		return "ok"
	case "close":
		return fmt.Sprint(listeners[args[0]].Close())
	case "flood":
		return flood(args)
	}
	return "what?"
}

// serve accepts and closes after the peer.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // a peer that is stopped in between does not close
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
}

// flood connects to a closed port of so many addresses of loopback, and so many times to a listener.
func flood(args []string) string {
	var destinations, connects int
	if _, err := fmt.Sscan(strings.Join(args[1:], " "), &destinations, &connects); err != nil {
		return err.Error()
	}
	server := netip.MustParseAddrPort(args[0])
	for n := range destinations {
		addr := netip.AddrFrom4([4]byte{127, byte(1 + n>>16), byte(n >> 8), byte(n)})
		if err := connectAndReset(netip.AddrPortFrom(addr, closedPort)); !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Sprintf("%s: %v", addr, err)
		}
		if n%(destinations/connects) == 0 {
			if err := connectAndReset(server); err != nil {
				return err.Error()
			}
		}
	}
	return "ok"
}

// closedPort is one on which nobody listens.
const closedPort = 9

// connectAndReset leaves no socket in TIME_WAIT.
func connectAndReset(to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	return unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
}

// realProcess obeys.
type realProcess struct {
	t       *testing.T
	pid     int
	in      io.WriteCloser
	answers *bufio.Scanner
}

// startProcess starts one in cgroups, and in a network namespace of its own if it is to have one.
func startProcess(t *testing.T, cgroups []string, ownNetns bool) *realProcess {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), trafficEnv+"=1")
	cmd.Stderr = os.Stderr
	if ownNetns {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	}
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
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for _, dir := range cgroups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	p := &realProcess{t: t, pid: cmd.Process.Pid, in: in, answers: bufio.NewScanner(out)}
	p.want("hello", "hello")
	return p
}

// do gives a command and returns the answer.
func (p *realProcess) do(format string, args ...any) string {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
	if !p.answers.Scan() {
		p.t.Fatalf("no answer: %v", p.answers.Err())
	}
	return p.answers.Text()
}

func (p *realProcess) want(answer, format string, args ...any) {
	p.t.Helper()
	if got := p.do(format, args...); !strings.Contains(got, answer) {
		p.t.Errorf("%s: got %q, want %q", fmt.Sprintf(format, args...), got, answer)
	}
}

// ip runs commands of iproute2, one a line, in the process's network namespace.
func (p *realProcess) ip(script string) {
	p.t.Helper()
	for line := range strings.Lines(script) {
		args := append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", p.pid), "ip"}, strings.Fields(line)...)
		if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
			p.t.Fatalf("ip %s: %v: %s", strings.TrimSpace(line), err, out)
		}
	}
}
