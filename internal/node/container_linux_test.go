// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a process in a container that reads the host at that root.
const childEnv = "NODE_TEST_CHILD"

func TestMain(m *testing.M) {
	if root := os.Getenv(childEnv); root != "" {
		if err := tellStats(root); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// told is what the child says of the host.
type told struct {
	Stats   Stats
	NotHost map[Part]string
	Refused map[Part]string
	Errors  uint64
}

func tellStats(root string) error {
	if os.Getenv("NODE_TEST_MOUNT") != "" {
		// As a runtime does: /proc and /sys of the container's own, the host's where they are asked for.
		for _, m := range []struct {
			from, to, kind string
			flags          uintptr
		}{
			{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
			{"/proc", filepath.Join(root, "proc"), "", unix.MS_BIND | unix.MS_REC},
			{"/sys", filepath.Join(root, "sys"), "", unix.MS_BIND | unix.MS_REC},
			{"proc", "/proc", "proc", 0},
			{"sysfs", "/sys", "sysfs", 0},
		} {
			if root == "/" && m.flags&unix.MS_BIND != 0 {
				continue
			}
			err := unix.Mount(m.from, m.to, m.kind, m.flags, "")
			if err != nil && !errors.Is(err, unix.EBUSY) { // that very file system is there
				return fmt.Errorf("mount %s: %w", m.to, err)
			}
		}
	}
	r, err := Open(everything(root))
	if err != nil {
		return err
	}
	defer r.Close()
	answer := told{NotHost: map[Part]string{}, Refused: map[Part]string{}}
	for range 3 { // a namespace is entered more than once, and by any thread
		answer.Stats = r.Read(context.Background())
	}
	for _, p := range r.Status().Parts {
		if errors.Is(p.Err, ErrNotHost) {
			answer.NotHost[p.Part] = p.Err.Error()
		} else if errors.Is(p.Err, fs.ErrPermission) {
			answer.Refused[p.Part] = p.Err.Error()
		}
		if answer.Errors += p.Errors; p.Errors > 0 {
			fmt.Fprintln(os.Stderr, p.Part, p.Err)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
}

// inContainer reads the host at root from inside new namespaces.
func inContainer(t *testing.T, root string, mount bool, attr *syscall.SysProcAttr) told {
	t.Helper()
	needRoot(t)
	attr.Pdeathsig = syscall.SIGKILL
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+root)
	if mount {
		cmd.Env = append(cmd.Env, "NODE_TEST_MOUNT=1")
	}
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answer told
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if answer.Errors > 0 {
		t.Errorf("%d errors", answer.Errors)
	}
	return answer
}

// hostMount is where a container may have the host's /proc and /sys.
func hostMount(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"proc", "sys"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func names(interfaces []Interface) (all []string) {
	for _, in := range interfaces {
		all = append(all, in.Name)
	}
	return all
}

// With root_path: /host, the container's own PID and network namespaces do not matter.
func TestContainerWithHostMounted(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags uintptr
	}{
		{"without hostPID", syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS},
		{"with hostPID", syscall.CLONE_NEWNET | syscall.CLONE_NEWNS},
		{"with hostPID and hostNetwork", syscall.CLONE_NEWNS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := inContainer(t, hostMount(t), true, &syscall.SysProcAttr{Cloneflags: tt.flags})
			ours := open(t, everything("/"))
			want := ours.Read(t.Context())
			if diff := cmp.Diff(names(want.Interfaces), names(got.Stats.Interfaces)); diff != "" {
				t.Errorf("interfaces (-want +got):\n%s", diff)
			}
			if a, b := got.Stats.TCP.ResetsSent, want.TCP.ResetsSent; !a.OK || a.V > b.V || a.V < b.V-min(b.V, 1e6) {
				t.Errorf("resets: got %v, later the host said %v", a, b)
			}
			if got.Stats.Uptime.V > want.Uptime.V || got.Stats.Uptime.V < want.Uptime.V-time.Minute {
				t.Errorf("uptime %v, want %v", got.Stats.Uptime.V, want.Uptime.V)
			}
			if got.Stats.CPU.V.LogicalCores != want.CPU.V.LogicalCores || len(got.Stats.Disks) != len(want.Disks) {
				t.Errorf("got %+v", got.Stats)
			}
			if (errors.Is(ours.Status().errOf(PartProtocols), ErrNotHost)) != (len(got.NotHost) > 0) {
				t.Errorf("not the host's: %v", got.NotHost)
			}
			if len(want.Interfaces) == 0 || len(got.Stats.Interfaces) == 0 {
				t.Log("this host has no physical interface")
			} else if why := got.Refused[PartAddresses]; why != "" {
				t.Logf("as PID 1 of this host is out of reach: %s", why)
			} else if diff := cmp.Diff(want.Interfaces[0].Addresses, got.Stats.Interfaces[0].Addresses, cmp.Comparer(sameAddr)); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
}

func sameAddr(a, b netip.Addr) bool { return a == b }

// Without the host's /proc the network is the container's, and that is said.
func TestContainerOnItsOwn(t *testing.T) {
	got := inContainer(t, "/", true, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS})
	want := []Part{PartConntrack, PartInterfaces, PartListening, PartProtocols}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got.NotHost))); diff != "" {
		t.Errorf("not the host's (-want +got):\n%s", diff)
	}
	if got.Stats.TCP.ResetsSent != Some(uint64(0)) || !got.Stats.Memory.Total.OK {
		t.Errorf("got %+v", got.Stats)
	}
	t.Log(got.NotHost[PartProtocols])
}

// A user's own network namespace: PID 1 is the host's and all but its addresses can be read.
func TestUserNamespace(t *testing.T) {
	got := inContainer(t, "/", false, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}},
	})
	want := open(t, everything("/")).Read(t.Context())
	if diff := cmp.Diff(names(want.Interfaces), names(got.Stats.Interfaces)); diff != "" {
		t.Errorf("interfaces (-want +got):\n%s", diff)
	}
	if len(got.Stats.Interfaces) > 0 && (got.Refused[PartAddresses] == "" || got.Stats.Interfaces[0].Addresses != nil) {
		t.Errorf("addresses %v of a namespace that may not be entered; refused: %v", got.Stats.Interfaces[0].Addresses, got.Refused)
	}
	t.Log(got.Refused)
}

// lab is a network namespace of the test's own, and a root where a process in it is PID 1.
type lab struct {
	t    *testing.T
	pid  string
	root string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	needRoot(t)
	for _, name := range []string{"ip", "nsenter", "sleep"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	cmd := exec.Command("sleep", "300")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	l := &lab{t: t, pid: strconv.Itoa(cmd.Process.Pid)}
	l.root = fakeHost(t, map[string]string{"proc/1@": "/proc/" + l.pid, "proc/2@": "/proc/2"})
	return l
}

func (l *lab) ip(args string) {
	l.t.Helper()
	cmd := exec.Command("nsenter", append([]string{"--net=/proc/" + l.pid + "/ns/net", "ip"}, strings.Fields(args)...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
}

// read reads the lab and looks its interfaces up in a sysfs made for that.
func (l *lab) read(names ...string) (Stats, Status) {
	l.t.Helper()
	out, err := exec.Command("nsenter", "--net=/proc/"+l.pid+"/ns/net", "ip", "-j", "link").Output()
	if err != nil {
		l.t.Fatal(err)
	}
	var links []struct {
		Index int    `json:"ifindex"`
		Name  string `json:"ifname"`
	}
	if err := json.Unmarshal(out, &links); err != nil {
		l.t.Fatal(err)
	}
	o := everything(l.root)
	for _, link := range links {
		dir := filepath.Join(l.root, "sys/class/net", link.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			l.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "ifindex"), []byte(strconv.Itoa(link.Index)+"\n"), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	for _, name := range names {
		o.Interfaces = append(o.Interfaces, regexp.MustCompile("^"+name+"$"))
	}
	r := open(l.t, o)
	for range 20 { // on all threads there are
		r.Read(l.t.Context())
	}
	return r.Read(l.t.Context()), r.Status()
}

func TestAddressesOfAnotherNamespace(t *testing.T) {
	l := newLab(t)
	l.ip("link add first type veth peer name second")
	for _, args := range []string{
		"addr add 192.0.2.1/32 dev first", "addr add 203.0.113.9/24 dev first", "addr add 203.0.113.9/32 dev first",
		"addr add 169.254.7.7/16 dev first scope link",
		"addr add 198.18.0.1 peer 198.18.0.2 dev first",
		"-6 addr add 2001:db8::1/64 dev first nodad", "-6 addr add fd00::1/64 dev first nodad",
		"link set first up",
		"-6 addr add 2001:db8::2/64 dev first", // tentative as long as there is no carrier
	} {
		l.ip(args)
	}
	st, status := l.read("first", "second")
	if err := status.errOf(PartAddresses); err != nil {
		t.Fatal(err)
	}
	var want []netip.Addr
	for _, s := range []string{"192.0.2.1", "198.18.0.1", "203.0.113.9", "2001:db8::1", "fd00::1"} {
		want = append(want, netip.MustParseAddr(s))
	}
	if len(st.Interfaces) != 2 {
		t.Fatalf("got %+v", st.Interfaces)
	}
	if diff := cmp.Diff(want, st.Interfaces[0].Addresses, cmp.Comparer(sameAddr)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := st.Interfaces[1].Addresses; got != nil {
		t.Errorf("second: got %v, want none", got)
	}
	// Nobody was left in there.
	own, err := net.Interfaces()
	if err != nil || slices.ContainsFunc(own, func(i net.Interface) bool { return i.Name == "first" }) {
		t.Errorf("this thread is in the lab: %v, %v", own, err)
	}
}

// A listener counts once for all of its addresses, and the two ways to look give the same.
func TestListeningOfAnotherNamespace(t *testing.T) {
	l := newLab(t)
	l.ip("link set lo up")
	var r *Reader
	var keep []net.Listener
	var err error
	ns := findNamespace(filepath.Join(l.root, "proc"), "/proc")
	defer ns.close()
	if ns.ours || ns.note != nil {
		t.Fatalf("got %+v", ns)
	}
	listen := func(network, address string) {
		t.Helper()
		var ln net.Listener
		if insideErr := ns.inside(func() error {
			ln, err = net.Listen(network, address)
			return err
		}); insideErr != nil {
			t.Fatal(insideErr)
		}
		keep = append(keep, ln)
	}
	for _, address := range []string{"127.0.0.1:80", "127.0.0.2:80", "[::1]:80", "127.0.0.1:443", "[::1]:8080"} {
		listen("tcp", address)
	}
	defer func() {
		for _, ln := range keep {
			ln.Close()
		}
	}()
	var conn net.Conn
	if err := ns.inside(func() (err error) {
		conn, err = net.Dial("tcp", "127.0.0.1:443")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	r = open(t, Options{Root: l.root, Network: true})
	viaDiag := map[uint16]struct{}{}
	if err := listeners(t.Context(), &r.diag, viaDiag); err != nil {
		t.Fatal(err)
	}
	viaProc := map[uint16]struct{}{}
	if err := r.walkPorts(t.Context(), "tcp", stateListen, viaProc); err != nil {
		t.Fatal(err)
	}
	want := []uint16{80, 443, 8080}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(viaDiag))); diff != "" {
		t.Errorf("sock_diag (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(viaProc))); diff != "" {
		t.Errorf("/proc/net (-want +got):\n%s", diff)
	}
	if st := r.Read(t.Context()); st.Listening.TCP != Some(3) || st.Listening.UDP != Some(0) {
		t.Errorf("got %+v", st.Listening)
	}
}
