// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a process that tells what it may do to the process of that id.
const childEnv = "NETNS_TEST_CHILD"

func TestMain(m *testing.M) {
	if pid, err := strconv.Atoi(os.Getenv(childEnv)); err == nil {
		tellWhatIsAllowed(pid)
		return
	}
	goleak.VerifyTestMain(m)
}

// lab is a network namespace of the test's own, with a process in it.
type lab struct {
	t   *testing.T
	pid int
	ns  *Namespace
}

func newLab(t *testing.T) *lab {
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
	ns, err := Open("/proc", cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return &lab{t: t, pid: cmd.Process.Pid, ns: ns}
}

func needTool(t *testing.T, tool string) {
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

// run runs commands, one a line, in the namespace.
func (l *lab) run(script string) {
	l.t.Helper()
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		args := append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", l.pid)}, strings.Fields(line)...)
		if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
			l.t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
}

// joined makes two namespaces with a link between them: 10.7.0.1 and fd07::1 in the first, 10.7.0.2 and fd07::2 in the second,
// which is also where the first one's default routes go.
func joined(t *testing.T) (a, b *lab) {
	t.Helper()
	a, b = newLab(t), newLab(t)
	a.run(fmt.Sprintf("ip link add veth0 type veth peer name veth0 netns %d", b.pid))
	for i, l := range []*lab{a, b} {
		l.run(fmt.Sprintf(`ip link set lo up
			ip addr add 10.7.0.%d/24 dev veth0
			ip addr add fd07::%d/64 dev veth0 nodad
			ip link set veth0 up`, i+1, i+1))
	}
	a.run(`ip route add default via 10.7.0.2
		ip -6 route add default via fd07::2`)
	return a, b
}

func TestAddressesOfNamespace(t *testing.T) {
	a, _ := joined(t)
	a.run("ip addr add 10.7.0.9/24 dev veth0")
	want := addrs("10.7.0.1", "10.7.0.9", "127.0.0.1", "::1", "fd07::1")
	got, err := Addresses("/proc", a.pid)
	if err != nil {
		t.Fatal(err)
	}
	got = slices.DeleteFunc(got, netip.Addr.IsLinkLocalUnicast) // comes when it likes
	if diff := cmp.Diff(want, got, cmpAddrs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOpenOfNobody(t *testing.T) {
	if _, err := Open("/proc", 1<<22+1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	// A process that has ended and was not waited for.
	var err error
	for end := time.Now().Add(10 * time.Second); err == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		var n *Namespace
		if n, err = Open("/proc", cmd.Process.Pid); err == nil {
			n.Close()
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func netnsOf(path string) (string, error) { return os.Readlink(filepath.Join(path, "ns", "net")) }

func TestInsideIsThereAndBackAgain(t *testing.T) {
	l := newLab(t)
	here, err := netnsOf("/proc/thread-self")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("net:[%d]", l.ns.ID())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				var got, leader string
				err := l.ns.inside(func() (err error) {
					if got, err = netnsOf("/proc/thread-self"); err != nil {
						return err
					}
					leader, err = netnsOf("/proc/self")
					return err
				})
				if err != nil || got != want || leader != here {
					t.Errorf("in %s, main thread in %s: %v; want %s and %s", got, leader, err, want, here)
				}
			}
		})
	}
	wg.Wait()
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if got, err := netnsOf(task); err == nil && got != here {
			t.Errorf("%s is in %s, want %s", task, got, here)
		}
	}
}

func TestInsideGivesTheError(t *testing.T) {
	l := newLab(t)
	if err := l.ns.inside(func() error { return unix.EXDEV }); !errors.Is(err, unix.EXDEV) {
		t.Errorf("got %v", err)
	}
	l.ns.Close()
	if err := l.ns.Route(netip.MustParseAddr("127.0.0.1")); err == nil {
		t.Error("no error after Close")
	}
}

// TestInsideEndsAThreadThatCannotGoBack takes the capability away that the way back needs.
func TestInsideEndsAThreadThatCannotGoBack(t *testing.T) {
	l := newLab(t)
	there := fmt.Sprintf("net:[%d]", l.ns.ID())
	var task string
	err := l.ns.inside(func() error {
		task = fmt.Sprintf("/proc/self/task/%d", unix.Gettid())
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		return unix.Capset(&header, &none[0]) // of this thread alone
	})
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if at, err := netnsOf(task); err != nil || at != there {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is still there", task)
		}
	}
}

// tellWhatIsAllowed is the child of TestPrivileges.
func tellWhatIsAllowed(foreign int) {
	say := func(what string, err error) {
		switch {
		case err == nil:
			fmt.Println(what, "allowed")
		case errors.Is(err, fs.ErrPermission):
			fmt.Println(what, "refused")
		default:
			fmt.Println(what, err)
		}
	}
	loop := addrs("127.0.0.1", "::1")
	ask := func(whose string, n *Namespace) {
		say(whose+".route", n.Route(loop[0]))
		say(whose+".translations", n.Translations(context.Background(), func(Translation) {}))
		times, err := n.Echo(context.Background(), loop, 5*time.Second)
		if err == nil && len(times) != len(loop) {
			err = fmt.Errorf("answers: %v", times)
		}
		say(whose+".echo", err)
	}
	_, err := Addresses("/proc", foreign)
	say("foreign.addresses", err)
	own, err := Open("/proc", os.Getpid())
	if say("own.open", err); err == nil {
		ask("own", own)
	}
	theirs, err := Open("/proc", foreign)
	if say("foreign.open", err); err == nil {
		ask("foreign", theirs)
	}
}

func TestPrivileges(t *testing.T) {
	home, foreign := newLab(t), newLab(t)
	home.run("ip link set lo up")
	foreign.run("ip link set lo up")
	for _, tt := range []struct {
		name   string
		caps   []uintptr
		sysctl string
		want   map[string]string
	}{
		{name: "none", want: map[string]string{
			"foreign.addresses": "allowed", "foreign.open": "refused",
			"own.open": "allowed", "own.route": "allowed", "own.translations": "refused", "own.echo": "refused",
		}},
		{name: "to trace and to speak", caps: []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_NET_RAW}, want: map[string]string{
			"foreign.addresses": "allowed", "foreign.open": "allowed",
			"foreign.route": "refused", "foreign.translations": "refused", "foreign.echo": "refused",
			"own.open": "allowed", "own.route": "allowed", "own.translations": "refused", "own.echo": "allowed",
		}},
		{
			name: "all", caps: []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_ADMIN},
			want: map[string]string{
				"foreign.addresses": "allowed", "foreign.open": "allowed",
				"foreign.route": "allowed", "foreign.translations": "allowed", "foreign.echo": "allowed",
				"own.open": "allowed", "own.route": "allowed", "own.translations": "allowed", "own.echo": "allowed",
			},
		},
		{name: "group that may ping", sysctl: "65534 65534", want: map[string]string{
			"foreign.addresses": "allowed", "foreign.open": "refused",
			"own.open": "allowed", "own.route": "allowed", "own.translations": "refused", "own.echo": "allowed",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.sysctl != "" {
				home.setPingGroups(tt.sysctl)
			}
			got := home.askChild(foreign.pid, &syscall.SysProcAttr{
				Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: tt.caps,
			})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// setPingGroups sets the sysctl, whose file shows the namespace of the thread that opens it.
func (l *lab) setPingGroups(groups string) {
	l.t.Helper()
	err := l.ns.inside(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0o644)
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// askChild runs the test binary inside the namespace as somebody else.
func (l *lab) askChild(foreign int, attr *syscall.SysProcAttr) map[string]string {
	l.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", childEnv, foreign))
	cmd.SysProcAttr = attr
	cmd.Dir = "/"
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := l.ns.inside(cmd.Start); err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		l.t.Fatalf("%v: %s", err, out.String())
	}
	m := map[string]string{}
	for line := range strings.Lines(out.String()) {
		what, answer, _ := strings.Cut(strings.TrimSpace(line), " ")
		m[what] = answer
	}
	return m
}
