// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/runtimes"
)

// fakeDirectory is asked and answers when the test says so.
type fakeDirectory struct {
	answer func(cgroups.Ref, runtimes.Info, error)

	mu    sync.Mutex
	asked map[cgroups.Ref]int
}

func (d *fakeDirectory) Ask(ref cgroups.Ref) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked[ref]++
}

func (d *fakeDirectory) Forget(ref cgroups.Ref) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.asked, ref)
}

func (d *fakeDirectory) Status() []runtimes.RuntimeStatus { return nil }

func (d *fakeDirectory) Close() {}

func (d *fakeDirectory) open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.asked)
}

// namedHost is a testHost with runtimes.
type namedHost struct {
	*testHost
	directory *fakeDirectory
}

func newNamedHost(t *testing.T, opts Options) *namedHost {
	t.Helper()
	d := &fakeDirectory{asked: map[cgroups.Ref]int{}}
	opts.Runtimes.Enabled = true
	return &namedHost{newTestHostWith(t, opts, func(o runtimes.Options) directory {
		d.answer = o.Answer
		return d
	}), d}
}

// tell has the runtimes answer for a cgroup that they were asked for.
func (h *namedHost) tell(path string, info runtimes.Info) {
	h.t.Helper()
	ref := cgroups.ParsePath("/" + path)
	h.directory.mu.Lock()
	asked := h.directory.asked[ref]
	h.directory.mu.Unlock()
	if asked == 0 {
		h.t.Fatalf("nobody asks for %s", path)
	}
	h.directory.answer(ref, info, nil)
}

func docker(name string) runtimes.Info {
	return runtimes.Info{Runtime: "docker", Name: name, Image: runtimes.Image{Reference: "redis:7"}}
}

func podInfo(pod, name string, restarts int) runtimes.Info {
	return runtimes.Info{
		Runtime: "containerd", Name: name, Restarts: restarts, Pod: runtimes.Pod{Namespace: "shop", Name: pod, UID: "u"},
	}
}

const (
	dockerA = "docker/" + hexA
	dockerB = "docker/" + hexB
	podPath = "kubepods/pod11111111-2222-3333-4444-555555555555/"
)

func TestAContainerIsGivenWhenTheRuntimesHaveAnswered(t *testing.T) {
	for _, byName := range []bool{false, true} {
		h := newNamedHost(t, Options{NameIsIdentity: byName})
		h.cgroup(dockerA, time.Second)
		h.cgroup(dockerB, time.Second)
		wantNames(t, h.snapshot())
		h.tell(dockerA, docker("web"))
		wantNames(t, h.snapshot(), "/docker/web")
		h.directory.answer(cgroups.ParsePath("/"+dockerB), runtimes.Info{}, runtimes.ErrNobodyKnows)
		wantNames(t, h.snapshot(), "/docker/web", "/"+dockerB)

		h.tell(dockerB, docker("db")) // later all the same; the series under the id must end
		got := h.snapshot()
		wantNames(t, got, "/docker/web", "/docker/db", "/"+dockerB)
		if old := got["/"+dockerB]; old.Phase != Ended || old.Info != nil {
			t.Errorf("under the id: %+v", old)
		}
		if c := got["/docker/db"]; c.Phase != Live || c.Info == nil || c.Info.Image != "redis:7" || c.Stats.CPU.Usage.V != time.Second {
			t.Errorf("under the name: %+v", c)
		}
		h.pass(keep + 1)
		wantNames(t, h.snapshot(), "/docker/web", "/docker/db")
	}
}

func TestAHungRuntimeHoldsNothingUp(t *testing.T) {
	h := newNamedHost(t, Options{})
	h.cgroup(dockerA, time.Second)
	h.pass(namesWithin + 1)
	wantNames(t, h.snapshot(), "/"+dockerA)
}

func TestRename(t *testing.T) {
	for _, byName := range []bool{false, true} {
		h := newNamedHost(t, Options{NameIsIdentity: byName})
		h.cgroup(dockerA, time.Second)
		h.tell(dockerA, docker("web"))
		h.snapshot()
		h.tell(dockerA, docker("web-old"))
		got := h.snapshot()
		wantNames(t, got, "/docker/web", "/docker/web-old")
		if got["/docker/web"].Phase != Ended || got["/docker/web-old"].Phase != Live {
			t.Errorf("phases %v and %v", got["/docker/web"].Phase, got["/docker/web-old"].Phase)
		}
		h.tell(dockerA, docker("web")) // and back
		got = h.snapshot()
		if got["/docker/web"].Phase != Live || got["/docker/web-old"].Phase != Ended {
			t.Errorf("phases %v and %v", got["/docker/web"].Phase, got["/docker/web-old"].Phase)
		}
	}
}

// A name that another container takes over at once must not end the series of that one.
func TestNameTakenOverByAnother(t *testing.T) {
	h := newNamedHost(t, Options{NameIsIdentity: true})
	h.cgroup(dockerA, time.Second)
	h.cgroup(dockerB, 2*time.Second)
	h.tell(dockerA, docker("web"))
	h.tell(dockerB, docker("web-new"))
	h.snapshot()

	h.tell(dockerB, docker("web")) // the news of A's new name comes later
	got := h.snapshot()
	if c := got["/docker/web"]; c.Ref.ID != hexA || c.Phase != Live {
		t.Errorf("before: %+v", c)
	}
	h.tell(dockerA, docker("web-old"))
	h.inv.grantWishes()
	got = h.snapshot()
	wantNames(t, got, "/docker/web", "/docker/web-new", "/docker/web-old")
	if c := got["/docker/web"]; c.Ref.ID != hexB || c.Phase != Live || c.Stats.CPU.Usage.V != 2*time.Second {
		t.Errorf("after: %+v", c)
	}
	if c := got["/docker/web-old"]; c.Ref.ID != hexA || c.Phase != Live {
		t.Errorf("after: %+v", c)
	}
	if got["/docker/web-new"].Phase != Ended {
		t.Error("web-new goes on")
	}
}

// Two containers that have had one name, one after the other, and gave it up: its series are ended once.
func TestTwoHaveGivenUpOneName(t *testing.T) {
	h := newNamedHost(t, Options{NameIsIdentity: true})
	h.cgroup(dockerA, time.Second)
	h.tell(dockerA, docker("web"))
	h.snapshot()
	h.tell(dockerA, docker("a_web"))
	h.cgroup(dockerB, 2*time.Second)
	h.tell(dockerB, docker("web"))
	h.snapshot()
	h.pass(time.Second)
	h.tell(dockerB, docker("b_web"))
	got := h.snapshot() // no name twice
	wantNames(t, got, "/docker/a_web", "/docker/b_web", "/docker/web")
	if c := got["/docker/web"]; c.Phase != Ended || c.Ref.ID != hexB {
		t.Errorf("got %+v", c)
	}
}

// A container may have ended, and another may have taken its name, before its name is told.
func TestANameThatIsToldTooLate(t *testing.T) {
	for _, anotherLives := range []bool{true, false} {
		h := newNamedHost(t, Options{NameIsIdentity: true})
		h.cgroup(dockerA, time.Second)
		h.snapshot() // reads it
		h.remove(dockerA)
		h.cgroup(dockerB, 2*time.Second)
		h.tell(dockerB, docker("web"))
		h.snapshot()
		if !anotherLives {
			h.pass(time.Second)
			h.remove(dockerB)
		}
		h.tell(dockerA, docker("web"))
		for range 2 {
			got := h.snapshot()
			wantNames(t, got, "/docker/web")
			c := got["/docker/web"]
			if c.Ref.ID != hexB || c.Stats.CPU.Usage.V != 3*time.Second || (c.Phase == Live) != anotherLives {
				t.Errorf("another lives %v: %+v", anotherLives, c)
			}
			h.pass(time.Second)
			h.clean()
		}
	}
}

// Where the name is the identity a container that takes the place of another with its name goes on with its totals.
func TestReusedName(t *testing.T) {
	h := newNamedHost(t, Options{NameIsIdentity: true})
	id := h.cgroup(dockerA, time.Second)
	h.kernel.use(bpf.Usage{CgroupV2: id, Inits: 1, OOMKills: 1, Exits: exitsOf(bpf.ExitOOMKilled, 1)})
	h.tell(dockerA, docker("web"))
	h.snapshot()
	h.remove(dockerA)
	id = h.cgroup(dockerB, 2*time.Second)
	h.kernel.use(bpf.Usage{CgroupV2: id, Inits: 1, OOMKills: 1})
	for range 2 {
		got := h.snapshot()
		wantNames(t, got, "/docker/web") // the other one is not known yet
	}
	h.tell(dockerB, docker("web"))
	for range 2 {
		got := h.snapshot()
		wantNames(t, got, "/docker/web")
		c := got["/docker/web"]
		if c.Phase != Live || c.Ref.ID != hexB || c.Stats.CPU.Usage.V != 3*time.Second || c.Tasks.Restarts.V != 1 || c.Tasks.OOMKills.V != 2 {
			t.Errorf("got %+v", c)
		}
		h.pass(keep + 1)
		h.clean()
		h.inv.cleanTasks(h.now())
	}
	h.remove(dockerB)
	h.pass(2*keep + 1)
	h.clean()
	if n := h.directory.open(); n != 0 {
		t.Errorf("%d still asked for", n)
	}
	h.inv.mu.Lock()
	defer h.inv.mu.Unlock()
	if len(h.inv.asked) != 0 || len(h.inv.containers) != 0 {
		t.Errorf("still known: %v, %v", h.inv.asked, h.inv.containers)
	}
}

// Where the id is the identity they are two.
func TestReusedNameWithIDs(t *testing.T) {
	h := newNamedHost(t, Options{})
	h.cgroup(dockerA, time.Second)
	h.tell(dockerA, docker("web"))
	h.remove(dockerA)
	h.cgroup(dockerB, 2*time.Second)
	h.tell(dockerB, docker("web"))
	s, err := h.inv.Snapshot(t.Context())
	if err != nil || len(s.Containers) != 2 {
		t.Fatalf("%v, %v", s.Containers, err)
	}
	for _, c := range s.Containers {
		want := Live
		if c.Ref.ID == hexA {
			want = Gone
		}
		if c.Name != "/docker/web" || c.Phase != want {
			t.Errorf("got %+v", c)
		}
	}
}

// The kubelet makes a new container for each restart.
func TestRestartsInAPod(t *testing.T) {
	for _, byName := range []bool{false, true} {
		h := newNamedHost(t, Options{NameIsIdentity: byName})
		for i, id := range []string{hexA, hexB} {
			h.kernel.use(bpf.Usage{CgroupV2: h.cgroup(podPath+id, time.Second), Inits: 1})
			h.tell(podPath+id, podInfo("web-0", "main", 4+i))
			got := h.snapshot()
			wantNames(t, got, "/k8s/shop/web-0/main")
			if n := got["/k8s/shop/web-0/main"].Tasks.Restarts.V; n != uint64(4+i) {
				t.Errorf("%d restarts, want %d", n, 4+i)
			}
			h.remove(podPath + id)
			if !byName {
				h.pass(2*keep + 1)
				h.clean()
			}
		}
	}
}

func TestSandboxesAreNotGiven(t *testing.T) {
	h := newNamedHost(t, Options{})
	h.cgroup(podPath+hexA, time.Second)
	sandbox := podInfo("web-0", "", 0)
	sandbox.Sandbox = true
	h.tell(podPath+hexA, sandbox)
	h.pass(namesWithin + 1)
	wantNames(t, h.snapshot())
	h.cgroup(podPath+hexA+"/below", time.Second)
	wantNames(t, h.snapshot())
	h.remove(podPath + hexA)
	if n := h.directory.open(); n != 0 {
		t.Errorf("%d still asked for", n)
	}
}

func TestIncludeAndExcludeMatchNames(t *testing.T) {
	h := newNamedHost(t, Options{
		Include: []*regexp.Regexp{regexp.MustCompile("^/docker/web"), regexp.MustCompile("^/docker/bbbb")},
		Exclude: []*regexp.Regexp{regexp.MustCompile("^/docker/web-secret$")},
	})
	h.cgroup(dockerA, time.Second)
	h.cgroup(dockerB, time.Second)
	h.cgroup("system.slice/web.service", time.Second)
	h.pass(namesWithin + 1)
	wantNames(t, h.snapshot(), "/"+dockerB)
	h.tell(dockerA, docker("web-1"))
	h.tell(dockerB, docker("db"))
	got := h.snapshot()
	if got["/docker/db"].Phase != Live || got["/docker/web-1"].Phase != Live {
		t.Errorf("got %v", names(got))
	}
	h.tell(dockerA, docker("web-secret"))
	if _, ok := h.snapshot()["/docker/web-secret"]; ok {
		t.Error("excluded but given")
	}
	h.tell(dockerA, docker("web-2")) // renamed again
	h.walk()
	h.tell(dockerA, docker("web-2"))
	if c, ok := h.snapshot()["/docker/web-2"]; !ok || c.Phase != Live {
		t.Errorf("got %v", names(h.snapshot()))
	}
}

func TestChoresAreNotGiven(t *testing.T) {
	h := newNamedHost(t, Options{SkipSystemUnits: true})
	units := map[string]runtimes.Unit{
		"nginx": {Type: "notify"}, "backup": {Type: "simple", TriggeredBy: []string{"backup.timer"}}, "setup": {Type: "oneshot"},
		"docker": {Type: "notify", TriggeredBy: []string{"docker.socket", "a.path"}}, "polkit": {Type: "dbus"},
	}
	for name, unit := range units {
		path := "system.slice/" + name + ".service"
		h.cgroup(path, time.Second)
		h.tell(path, runtimes.Info{Unit: unit})
	}
	got := h.snapshot()
	wantNames(t, got, "/system.slice/nginx.service", "/system.slice/docker.service")
	want := InfoLabels{TriggeredBy: "a.path,docker.socket", UnitType: "notify"}
	if diff := cmp.Diff(want, got["/system.slice/docker.service"].InfoLabels); diff != "" {
		t.Error(diff)
	}
}

// What is told late of a service does not change what it is called; the old labels of container.info must end.
func TestLabelsThatChange(t *testing.T) {
	h := newNamedHost(t, Options{NameIsIdentity: true})
	const path = "system.slice/nginx.service"
	h.cgroup(path, time.Second)
	h.directory.answer(cgroups.ParsePath("/"+path), runtimes.Info{}, runtimes.ErrNobodyKnows)
	h.snapshot()
	h.tell(path, runtimes.Info{Unit: runtimes.Unit{Type: "notify"}})
	got := h.snapshot()
	wantNames(t, got, "/"+path)
	if c := got["/"+path]; !slices.Equal(c.EndedLabels, []InfoLabels{{}}) || c.InfoLabels.UnitType != "notify" {
		t.Errorf("got %+v, ended %+v", c.InfoLabels, c.EndedLabels)
	}
	h.pass(keep + 1)
	if c := h.snapshot()["/"+path]; len(c.EndedLabels) > 0 {
		t.Errorf("still ended: %v", c.EndedLabels)
	}
}

// Docker starts a container again under its id: it must be known by its name at once, and its name be asked for again.
func TestRestartUnderTheSameID(t *testing.T) {
	for _, byName := range []bool{false, true} {
		h := newNamedHost(t, Options{NameIsIdentity: byName})
		h.cgroup(dockerA, time.Second)
		h.tell(dockerA, docker("web"))
		h.snapshot()
		h.remove(dockerA)
		h.cgroup(dockerA, 2*time.Second)
		got := h.snapshot()
		wantNames(t, got, "/docker/web")
		if c := got["/docker/web"]; c.Phase != Live || c.Stats.CPU.Usage.V != 3*time.Second {
			t.Errorf("got %+v", c)
		}
		h.tell(dockerA, docker("web")) // it is asked for
	}
}

func TestEventsWaitForTheName(t *testing.T) {
	h := newNamedHost(t, Options{})
	events := make(chan Event, 1)
	follow(t, h.inv, func(e Event) { events <- e })
	id := h.cgroup(dockerA, 0)
	h.kernel.exit(mainExit(id, 7))
	h.inv.retryStrangeExits(h.now())
	if len(events) > 0 {
		t.Error("told before the name is known")
	}
	h.tell(dockerA, docker("web"))
	h.inv.retryStrangeExits(h.now())
	if e := <-events; e.Name != "/docker/web" || e.Info == nil || e.PID != 7 {
		t.Errorf("got %+v", e)
	}
}

// A container that a name may yet make wanted is not read when no name came: it may be one of hundreds.
func TestHiddenContainersAreNotRead(t *testing.T) {
	h := newNamedHost(t, Options{Include: []*regexp.Regexp{regexp.MustCompile("^/docker/web$")}})
	h.cgroup(dockerA, time.Second)
	ref := cgroups.ParsePath("/" + dockerA)
	h.directory.answer(ref, runtimes.Info{}, runtimes.ErrNobodyKnows)
	h.use(dockerA, 2*time.Second)
	h.pass(time.Minute)
	wantNames(t, h.snapshot())
	h.inv.mu.Lock()
	read := h.inv.containers["/"+dockerA].current.lastStats().CPU.Usage.V
	h.inv.mu.Unlock()
	if read == 2*time.Second {
		t.Error("it was read")
	}
	h.tell(dockerA, docker("web"))
	if c := h.snapshot()["/docker/web"]; c.Stats.CPU.Usage.V != 2*time.Second {
		t.Errorf("got %+v", c.Stats.CPU)
	}
}
