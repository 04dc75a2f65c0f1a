// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/runtimes"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		burn()
		return
	}
	if os.Getenv(trafficEnv) != "" {
		obey(os.Stdin, os.Stdout)
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	hexA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	hexB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	keep = 10 * time.Second
)

// testHost is a v2 tree of plain files with a clock of its own.
type testHost struct {
	t      *testing.T
	root   string
	proc   string // of the proc file system
	kernel *fakeKernel
	inv    *Inventory

	mu    sync.Mutex
	clock time.Time
}

func newTestHost(t *testing.T, opts Options) *testHost {
	t.Helper()
	return newTestHostWith(t, opts, openRuntimes)
}

func newTestHostWith(t *testing.T, opts Options, openDirectory func(runtimes.Options) directory) *testHost {
	t.Helper()
	h := &testHost{t: t, root: t.TempDir(), proc: t.TempDir(), clock: begin.Add(time.Hour)}
	h.kernel = &fakeKernel{now: h.now, done: make(chan struct{})}
	h.process(1, hostNS)
	h.write("cgroup.controllers", "cpu memory io pids\n")
	fs, err := cgroups.Open(h.root)
	if err != nil {
		t.Fatal(err)
	}
	opts.CgroupRoot, opts.Keep, opts.Logger = h.root, keep, zaptest.NewLogger(t)
	if opts.ProcRoot == "" {
		opts.ProcRoot = h.proc
	}
	h.inv, err = open(t.Context(), opts, fs, h.kernel, openDirectory, h.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.inv.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *testHost) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.clock
}

func (h *testHost) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock = h.clock.Add(d)
}

func (h *testHost) write(name, content string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.root, name), []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// cgroup makes a cgroup that has used some CPU, walks, and returns its id.
func (h *testHost) cgroup(path string, cpu time.Duration) uint64 {
	h.t.Helper()
	dir := filepath.Join(h.root, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.use(path, cpu)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		h.t.Fatal(err)
	}
	h.walk()
	return st.Ino
}

func (h *testHost) use(path string, cpu time.Duration) {
	h.t.Helper()
	h.write(filepath.Join(path, "cpu.stat"), fmt.Sprintf("usage_usec %d\nuser_usec 0\nsystem_usec 0\n", cpu.Microseconds()))
}

func (h *testHost) remove(path string) {
	h.t.Helper()
	// Not deleted: its inode must not be that of the next one.
	if err := os.Rename(filepath.Join(h.root, path), filepath.Join(h.t.TempDir(), "removed")); err != nil {
		h.t.Fatal(err)
	}
	h.walk()
}

func (h *testHost) walk() {
	h.t.Helper()
	if err := h.inv.walk(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *testHost) clean() {
	h.t.Helper()
	if err := h.inv.clean(h.t.Context(), h.now()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *testHost) snapshot() map[string]Container {
	h.t.Helper()
	s, err := h.inv.Snapshot(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	m := map[string]Container{}
	for _, c := range s.Containers {
		if _, twice := m[c.Name]; twice {
			h.t.Errorf("%s given twice", c.Name)
		}
		m[c.Name] = c
	}
	return m
}

func names(m map[string]Container) []string {
	var list []string
	for name := range m {
		list = append(list, name)
	}
	return list
}

func wantNames(t *testing.T, m map[string]Container, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, names(m), cmpopts.SortSlices(strings.Compare), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
}

func TestContainersAreFoundWithWhatIsBelowThem(t *testing.T) {
	h := newTestHost(t, Options{SkipSystemUnits: true})
	h.cgroup("docker/"+hexA+"/init.scope", 0)
	h.cgroup("system.slice/nginx.service", time.Second)
	h.cgroup("system.slice/systemd-journald.service", 0)
	h.cgroup("user.slice/user-1000.slice/session-1.scope", 0)

	got := h.snapshot()
	wantNames(t, got, "/docker/"+hexA, "/system.slice/nginx.service")
	if u := got["/system.slice/nginx.service"].Stats.CPU.Usage; u != cgroups.Some(time.Second) {
		t.Errorf("CPU usage %v", u)
	}
	if s := h.inv.Status(); s.Containers != 2 || s.CgroupMode != "unified" || s.ReadErrors != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestIncludeAndExclude(t *testing.T) {
	h := newTestHost(t, Options{
		Include: []*regexp.Regexp{regexp.MustCompile("^/docker/"), regexp.MustCompile("nginx")},
		Exclude: []*regexp.Regexp{regexp.MustCompile("^/docker/b")},
	})
	for _, path := range []string{"docker/" + hexA, "docker/" + hexB, "system.slice/nginx.service", "system.slice/redis.service"} {
		h.cgroup(path, 0)
	}
	wantNames(t, h.snapshot(), "/docker/"+hexA, "/system.slice/nginx.service")
}

func TestMinAgeHidesTheYoung(t *testing.T) {
	h := newTestHost(t, Options{MinAge: 3 * time.Second})
	h.cgroup("docker/"+hexA, 0)
	h.pass(2 * time.Second)
	h.cgroup("docker/"+hexB, 0)
	h.pass(time.Second)
	wantNames(t, h.snapshot(), "/docker/"+hexA)
	h.remove("docker/" + hexB) // lived a second
	h.pass(5 * time.Second)
	wantNames(t, h.snapshot(), "/docker/"+hexA)
}

func TestLastTotalsOutliveTheContainer(t *testing.T) {
	h := newTestHost(t, Options{})
	name := "/docker/" + hexA
	id := h.cgroup(name, time.Second)
	h.kernel.set(nil, []bpf.Edge{{CgroupV2: id, Destination: netip.MustParseAddrPort("10.0.0.1:80"), Connects: 7}}...)
	h.snapshot()
	h.use(name, 2*time.Second)
	h.snapshot()
	h.remove(name)

	for _, step := range []struct {
		after time.Duration
		phase Phase
	}{{0, Gone}, {keep, Gone}, {time.Second, Ended}} {
		h.pass(step.after)
		h.clean()
		c, ok := h.snapshot()[name]
		if !ok || c.Phase != step.phase {
			t.Fatalf("%v later: present %v, phase %v, want %v", step.after, ok, c.Phase, step.phase)
		}
		if c.Stats.CPU.Usage != cgroups.Some(2*time.Second) || len(c.Edges) != 1 || c.Edges[0].Connects != 7 {
			t.Errorf("phase %v: %+v", c.Phase, c)
		}
	}
	h.pass(keep)
	wantNames(t, h.snapshot())
	h.clean()
	if n := h.inv.Status().Containers + len(h.kernel.all()); n != 0 {
		t.Errorf("%d things left behind", n)
	}
}

func TestTotalsGoOnAfterARestartUnderTheSameName(t *testing.T) {
	h := newTestHost(t, Options{})
	const path = "/system.slice/nginx.service"
	dst := netip.MustParseAddrPort("10.0.0.1:80")
	var start time.Time
	var connects uint64
	for i := range 5 {
		id := h.cgroup(path, time.Second)
		h.kernel.set(nil, append(h.kernel.all(), bpf.Edge{CgroupV2: id, Destination: dst, Connects: 10})...)
		connects += 10
		c := h.snapshot()[path]
		if i == 0 {
			start = c.Start
		}
		if want := time.Duration(i+1) * time.Second; c.Stats.CPU.Usage.V != want || !c.Start.Equal(start) {
			t.Errorf("life %d: CPU %v since %v, want %v since %v", i, c.Stats.CPU.Usage.V, c.Start, want, start)
		}
		if len(c.Edges) != 1 || c.Edges[0].Connects != connects {
			t.Errorf("life %d: edges %+v, want %d connects", i, c.Edges, connects)
		}
		h.remove(path)
		h.pass(keep - time.Second)
		h.clean()
	}
	if n := len(h.kernel.all()); n > 2 {
		t.Errorf("%d edges of former lives not taken in", n)
	}
}

func TestReplacedBetweenTwoWalks(t *testing.T) {
	h := newTestHost(t, Options{})
	path := "docker/" + hexA
	h.cgroup(path, time.Second)
	h.snapshot()
	if err := os.Rename(filepath.Join(h.root, path), filepath.Join(h.root, "old")); err != nil {
		t.Fatal(err)
	}
	h.cgroup(path, 3*time.Second)
	c := h.snapshot()["/docker/"+hexA]
	if c.Phase != Live || c.Stats.CPU.Usage.V != 4*time.Second {
		t.Errorf("phase %v, CPU %v, want live and 4s", c.Phase, c.Stats.CPU.Usage)
	}
}

func TestEventsBringAndTake(t *testing.T) {
	h := newTestHost(t, Options{})
	h.inv.mu.Lock()
	h.inv.eventPathsOK[cgroups.Unified] = true
	h.inv.mu.Unlock()
	path := "/docker/" + hexA
	if err := os.MkdirAll(filepath.Join(h.root, path), 0o755); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(h.root, path), &st); err != nil {
		t.Fatal(err)
	}
	h.inv.onEvent(bpf.CgroupEvent{Kind: bpf.CgroupMade, ID: st.Ino, Path: path})
	h.use(path, time.Second)
	h.inv.onEvent(bpf.CgroupEvent{Kind: bpf.CgroupEmptied, ID: st.Ino, Path: path})
	if err := os.RemoveAll(filepath.Join(h.root, path)); err != nil {
		t.Fatal(err)
	}
	h.inv.onEvent(bpf.CgroupEvent{Kind: bpf.CgroupRemoved, ID: st.Ino, Path: path})
	c := h.snapshot()[path]
	if c.Phase != Gone || c.Stats.CPU.Usage.V != time.Second {
		t.Errorf("phase %v, CPU %v", c.Phase, c.Stats.CPU.Usage)
	}
}

func TestTwoContainersOfOneName(t *testing.T) {
	h := newTestHost(t, Options{})
	h.cgroup("lxc/web", 50*time.Second)
	h.cgroup("lxc/web/lxc/web", time.Second)
	h.cgroup("lxc/web/lxc/web/init.scope", 0)
	const inner = "/lxc/web/lxc/web"
	got := h.snapshot()
	wantNames(t, got, "/lxc/web", inner)
	if outer := got["/lxc/web"]; outer.Stats.CPU.Usage.V != 50*time.Second || got[inner].Stats.CPU.Usage.V != time.Second {
		t.Errorf("got %v and %v", outer.Stats.CPU.Usage, got[inner].Stats.CPU.Usage)
	}
	h.remove("lxc/web/lxc/web")
	h.use("lxc/web", 60*time.Second)
	h.pass(3 * keep)
	h.clean()
	got = h.snapshot()
	wantNames(t, got, "/lxc/web")
	if outer := got["/lxc/web"]; outer.Phase != Live || outer.Stats.CPU.Usage.V != 60*time.Second {
		t.Errorf("after the inner one ended: %v, %v", outer.Phase, outer.Stats.CPU.Usage)
	}
}

func TestCgroupBelowAContainerThatIsNotKnownMakesNone(t *testing.T) {
	h := newTestHost(t, Options{})
	h.inv.mu.Lock()
	h.inv.eventPathsOK[cgroups.Unified] = true
	h.inv.mu.Unlock()
	h.inv.onEvent(bpf.CgroupEvent{Kind: bpf.CgroupMade, ID: 1 << 40, Path: "/docker/" + hexA + "/init.scope"})
	wantNames(t, h.snapshot())
}

func TestTotalsStayWhenAFileCannotBeRead(t *testing.T) {
	h := newTestHost(t, Options{})
	const path = "/system.slice/nginx.service"
	h.cgroup(path, 5*time.Second)
	h.snapshot()
	h.remove(path)
	h.cgroup(path, 2*time.Second)
	h.snapshot()
	h.write(filepath.Join(path, "cpu.stat"), "usage_usec nonsense\n")
	if u := h.snapshot()[path].Stats.CPU.Usage; u != cgroups.Some(7*time.Second) {
		t.Errorf("got %v, want 7s", u)
	}
	if h.inv.Status().ReadErrors == 0 {
		t.Error("not counted")
	}
}

// All events are handled after the name was used again.
func TestLateEvents(t *testing.T) {
	h := newTestHost(t, Options{})
	h.inv.mu.Lock()
	h.inv.eventPathsOK[cgroups.Unified] = true
	h.inv.mu.Unlock()
	path := "/docker/" + hexA
	if err := os.MkdirAll(filepath.Join(h.root, path), 0o755); err != nil {
		t.Fatal(err)
	}
	h.use(path, 3*time.Second)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(h.root, path), &st); err != nil {
		t.Fatal(err)
	}
	for _, e := range []bpf.CgroupEvent{
		{Kind: bpf.CgroupMade, ID: 1 << 40}, {Kind: bpf.CgroupEmptied, ID: 1 << 40}, {Kind: bpf.CgroupRemoved, ID: 1 << 40},
		{Kind: bpf.CgroupMade, ID: st.Ino},
	} {
		e.Path = path
		h.inv.onEvent(e)
	}
	if c := h.snapshot()[path]; c.Phase != Live || c.Stats.CPU.Usage.V != 3*time.Second {
		t.Errorf("phase %v, CPU %v, want live and 3s", c.Phase, c.Stats.CPU.Usage)
	}
}

func TestWalkGoesOnPastWhatItMayNotSee(t *testing.T) {
	h := newTestHost(t, Options{})
	for _, path := range []string{"docker/" + hexA, "docker/" + hexB, "system.slice/a.service"} {
		if err := os.MkdirAll(filepath.Join(h.root, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(h.root, "system.slice")
	for name, mode := range map[string]os.FileMode{filepath.Dir(h.root): 0o755, dir: 0} { // the first is the test's alone
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _ = os.Chmod(dir, 0o755) }()
	var err error
	asNobody(func() { err = h.inv.walk(t.Context()) })
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("got error %v, want %v", err, os.ErrPermission)
	}
	wantNames(t, h.snapshot(), "/docker/"+hexA, "/docker/"+hexB)
	if h.inv.Status().WalkErrors == 0 {
		t.Error("not counted")
	}
}

// asNobody calls f with the access to files of another user than root: setfsuid takes it, and the capabilities for files,
// from one thread.
func asNobody(f func()) {
	if os.Getuid() == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_, _ = unix.SetfsuidRetUid(65534)
		defer func() { _, _ = unix.SetfsuidRetUid(0) }()
	}
	f()
}

func TestHousekeepingUnits(t *testing.T) {
	for unit, want := range map[string]bool{
		"systemd-journald.service": true, "dbus.service": true, "getty@tty1.service": true, "serial-getty@ttyS0.service": true,
		"nginx.service": false, "postgresql@15-main.service": false, "dbus-monitor.service": false,
	} {
		if got := isHousekeeping(unit); got != want {
			t.Errorf("%s: got %v", unit, got)
		}
	}
}

func TestSnapshotEndsWithItsContext(t *testing.T) {
	h := newTestHost(t, Options{})
	h.cgroup("docker/"+hexA, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := h.inv.Snapshot(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(s.Containers) != 1 {
		t.Errorf("%d containers, want the one that is known", len(s.Containers))
	}
}

func TestOpenNeedsACgroupFileSystem(t *testing.T) {
	if _, err := Open(t.Context(), Options{CgroupRoot: t.TempDir()}); err == nil {
		t.Error("no error")
	}
}
