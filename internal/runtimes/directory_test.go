// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDirectoryAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker := newFakeRuntime("web")
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker}, "docker")
		h.ask(cgroups.Docker, "web", "web")
		h.expect("0s id-web web")
		h.ask(cgroups.Docker, "web")
		time.Sleep(10 * time.Minute)
		h.expect()
		if diff := cmp.Diff([]string{"id-web 0s"}, docker.taken()); diff != "" {
			t.Error(diff)
		}
		want := []RuntimeStatus{{Runtime: "docker", Socket: "/docker", Connected: true, Answers: 1}}
		if diff := cmp.Diff(want, h.Status()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestDirectoryAsksAgainForWhatIsNotKnownYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker := newFakeRuntime()
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker}, "docker")
		h.ask(cgroups.Docker, "web")
		h.expect()
		time.Sleep(100 * time.Second)
		h.expect("250ms id-web nobody knows")
		want := []string{"id-web 0s", "id-web 50ms", "id-web 250ms", "id-web 1.25s", "id-web 6.25s", "id-web 36.25s", "id-web 1m36.25s"}
		if diff := cmp.Diff(want, docker.taken()); diff != "" {
			t.Error(diff)
		}
		docker.rename("id-web", "web", false)
		time.Sleep(time.Minute)
		h.expect("2m36.25s id-web web")

		h.ask(cgroups.Docker, "quick")
		time.Sleep(10 * time.Millisecond)
		docker.rename("id-quick", "quick", false)
		time.Sleep(time.Minute)
		h.expect("2m40.05s id-quick quick")
	})
}

func TestDirectoryBeginsOnceWhenAskedBeforeItLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker := newFakeRuntime()
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker})
		synctest.Wait()
		h.socket("docker")
		q := &question{ref: cgroups.Ref{Kind: cgroups.Docker, ID: "id-web"}}
		h.Directory.mu.Lock()
		h.questions[q.ref], h.fresh = q, []*question{q} // as by Ask, just before a look
		h.Directory.mu.Unlock()
		time.Sleep(lookEvery + 10*time.Millisecond)
		if diff := cmp.Diff([]string{"id-web 1s"}, docker.taken()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestDirectoryAsksFamiliesInOrder(t *testing.T) {
	for _, tt := range []struct {
		kind  cgroups.Kind
		knows string   // who knows the container
		asked []string // before that
		at    string   // when it was told
	}{
		{cgroups.Docker, "docker", nil, "0s"},
		{cgroups.Docker, "podman", []string{"docker"}, "0s"},
		{cgroups.Docker, "containerd", []string{"docker", "podman", "cri"}, "0s"},
		{cgroups.Kubernetes, "containerd", []string{"cri", "docker"}, "0s"},
		{cgroups.Containerd, "cri", []string{"containerd"}, "0s"},
		{cgroups.Podman, "podman", nil, "0s"},
		{cgroups.ECS, "docker", nil, "0s"},
		{cgroups.Other, "podman", []string{"docker", "containerd"}, "0s"},
		{cgroups.Systemd, "systemd", nil, "0s"},
		{cgroups.Podman, "docker", nil, ""},
		{cgroups.LXC, "", nil, ""},
		{cgroups.Machine, "systemd", nil, ""},
		{cgroups.Talos, "", nil, ""},
		{cgroups.None, "docker", nil, ""},
	} {
		bubble(t, fmt.Sprint(tt.kind, tt.knows), func(t *testing.T) {
			daemons := map[string]*fakeRuntime{}
			for _, name := range Families {
				daemons[name] = newFakeRuntime()
			}
			if tt.knows != "" {
				daemons[tt.knows] = newFakeRuntime("x")
			}
			h := newFakeHost(t, daemons, Families[:]...)
			h.ask(tt.kind, "x")
			var got []string
			if tt.at != "" {
				h.expect(tt.at + " id-x x")
				for name, f := range daemons {
					if f.connected() > 0 && name != tt.knows {
						got = append(got, name)
					}
				}
				slices.Sort(got)
				want := slices.Sorted(slices.Values(tt.asked))
				if !slices.Equal(want, got) {
					t.Errorf("asked %v before, want %v", got, want)
				}
				return
			}
			when := "0s"
			if tt.kind == cgroups.Podman {
				when = "250ms"
				time.Sleep(time.Second)
			}
			h.expect(when + " id-x nobody knows")
		})
	}
}

func TestDirectoryFindsRuntimesThatComeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker, containerd := newFakeRuntime("web"), newFakeRuntime()
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker, "containerd": containerd}, "containerd")
		h.ask(cgroups.ECS, "web")
		h.expect("0s id-web nobody knows") // no socket at all
		h.ask(cgroups.Docker, "web")
		time.Sleep(5500 * time.Millisecond)
		h.expect("250ms id-web nobody knows")
		h.socket("docker")
		time.Sleep(time.Second)
		h.expect("6s id-web web", "6s id-web web")

		// The socket is there before the daemon answers.
		docker.set(func() { docker.names["id-app"] = "app" })
		h.remove("docker")
		time.Sleep(2 * time.Second)
		docker.end()
		h.socket("docker")
		time.Sleep(time.Second)
		h.ask(cgroups.Docker, "app")
		time.Sleep(3 * time.Second)
		docker.set(func() { docker.refuses, docker.fails = nil, nil })
		if said := h.heard(); len(said) != 1 || !strings.HasSuffix(said[0], "id-app nobody knows") {
			t.Errorf("told %q", said)
		}
		time.Sleep(5 * time.Second)
		if said := h.heard(); len(said) != 1 || !strings.HasSuffix(said[0], "id-app app") {
			t.Errorf("told %q", said)
		}
	})
}

func TestDirectoryBearsRuntimesThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker, cri := newFakeRuntime(), newFakeRuntime("pod")
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker, "cri": cri}, "docker", "cri")
		docker.rename("id-first", "first", false)
		h.ask(cgroups.Docker, "first")
		h.expect("0s id-first first")
		docker.set(func() { docker.hangs[""] = true })
		docker.taken()
		var names []string
		for i := range 500 {
			names = append(names, fmt.Sprint(i))
			docker.rename("id-"+names[i], names[i], false)
		}
		h.ask(cgroups.ECS, names...)
		h.ask(cgroups.Kubernetes, "pod")
		h.expect("0s id-pod pod")
		time.Sleep(1900 * time.Millisecond)
		h.expect()
		time.Sleep(200 * time.Millisecond)
		if said := h.heard(); len(said) != 500 || !strings.HasSuffix(said[499], "nobody knows") {
			t.Errorf("%d told", len(said))
		}
		h.ask(cgroups.ECS, "late")
		h.expect("2.1s id-late nobody knows") // it is known to hang
		time.Sleep(10 * time.Minute)
		h.expect()
		if calls := docker.taken(); len(calls) > 2*workers {
			t.Errorf("a runtime that hangs was asked %d times", len(calls))
		}
		if n := docker.connected(); n < 15 || n > 40 {
			t.Errorf("%d connects in ten minutes", n)
		}
		docker.set(func() { docker.hangs = map[string]bool{} })
		time.Sleep(maxBackoff + time.Second)
		if said := h.heard(); len(said) != 500 || strings.HasSuffix(said[499], "nobody knows") {
			t.Errorf("%d told", len(said))
		}
		if n := h.logs.FilterLevelExact(zap.WarnLevel).Len(); n != 2 { // asking and connecting
			t.Errorf("%d warnings: %v", n, h.logs.All())
		}
	})
}

func TestDirectoryTellsInTimeWhenTwoRuntimesHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker, podman, cri := newFakeRuntime(), newFakeRuntime(), newFakeRuntime("x")
		docker.hangs[""], podman.hangs[""] = true, true
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker, "podman": podman, "cri": cri}, "docker", "podman", "cri")
		h.ask(cgroups.Docker, "x")
		time.Sleep(5 * time.Second)
		h.expect("2.4s id-x nobody knows", "4s id-x x")
	})
}

func TestDirectoryBearsOneContainerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker := newFakeRuntime("bad", "good", "other")
		docker.hangs["id-bad"] = true
		docker.slow = 10 * time.Millisecond
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker}, "docker")
		h.ask(cgroups.Docker, "bad")
		time.Sleep(time.Second)
		h.ask(cgroups.Docker, "good")
		time.Sleep(2 * time.Second)
		h.expect("1.01s id-good good", "2s id-bad nobody knows")
		if got := h.Status(); !got[0].Connected || got[0].Errors != 1 {
			t.Errorf("%+v", got)
		}
		time.Sleep(10 * time.Minute)
		docker.taken()
		h.heard()
		time.Sleep(10 * time.Minute)
		if calls := docker.taken(); len(calls) < 9 || len(calls) > 30 {
			t.Errorf("%d calls in ten minutes: %q", len(calls), calls)
		}
		h.ask(cgroups.Docker, "other")
		time.Sleep(5 * time.Second)
		if said := h.heard(); len(said) == 0 || !strings.HasSuffix(said[len(said)-1], "id-other other") {
			t.Errorf("told %q", said)
		}
	})
}

func TestDirectoryAsksAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker := newFakeRuntime()
		docker.slow = 2 * time.Millisecond
		var names []string
		for i := range 500 {
			names = append(names, fmt.Sprint(i))
			docker.rename("id-"+names[i], names[i], false)
		}
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker}, "docker")
		h.ask(cgroups.Docker, names...)
		time.Sleep(250 * time.Millisecond)
		if said := h.heard(); len(said) != 500 {
			t.Errorf("%d told", len(said))
		}
		if docker.most != workers {
			t.Errorf("%d at a time", docker.most)
		}
	})
}

func TestDirectoryHearsOfNewNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker := newFakeRuntime("web", "other")
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker}, "docker")
		h.ask(cgroups.Docker, "web", "other")
		if n := len(h.heard()); n != 2 {
			t.Errorf("%d told", n)
		}
		time.Sleep(time.Second)
		docker.rename("id-web", "www", true)
		docker.rename("id-nobody", "x", true)
		docker.rename("id-other", "other", true) // is what it was
		h.expect("1s id-web www")

		// Again while the answer with the name before is on its way.
		docker.set(func() { docker.slow = 100 * time.Millisecond })
		docker.rename("id-web", "a", true)
		time.Sleep(50 * time.Millisecond)
		docker.rename("id-web", "b", true)
		time.Sleep(time.Second)
		h.expect("1.1s id-web b")
		docker.set(func() { delete(docker.names, "id-web") })
		docker.rename("id-other", "x", true)
		time.Sleep(time.Second)
		h.expect("2.15s id-other x")
		time.Sleep(time.Hour)
		h.expect()
	})
}

func TestDirectoryAsksAgainWhenEventsWereLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker := newFakeRuntime("a", "b", "c")
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker}, "docker")
		h.ask(cgroups.Docker, "a", "b", "c")
		if n := len(h.heard()); n != 3 {
			t.Errorf("%d told", n)
		}
		docker.taken()
		docker.end()
		synctest.Wait()
		if h.Status()[0].Connected {
			t.Error("still connected")
		}
		docker.rename("id-b", "new", true)
		time.Sleep(20 * time.Second)
		h.expect()
		docker.set(func() { docker.refuses, docker.fails = nil, nil })
		time.Sleep(30 * time.Second)
		if said := h.heard(); len(said) != 1 || !strings.HasSuffix(said[0], "id-b new") {
			t.Errorf("told %q", said)
		}
		if calls := docker.taken(); len(calls) != 3 {
			t.Errorf("asked %q", calls)
		}

		// The same with a socket that vanishes meanwhile.
		docker.end()
		h.remove("docker")
		time.Sleep(time.Minute)
		docker.rename("id-c", "last", true)
		docker.set(func() { docker.refuses, docker.fails = nil, nil })
		h.socket("docker")
		time.Sleep(3 * time.Second)
		if said := h.heard(); len(said) != 1 || !strings.HasSuffix(said[0], "id-c last") {
			t.Errorf("told %q", said)
		}
		docker.rename("id-a", "newer", true)
		if said := h.heard(); len(said) != 1 || !strings.HasSuffix(said[0], "id-a newer") {
			t.Errorf("told %q", said)
		}
	})
}

func TestDirectoryNeedsNoEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		podman := newFakeRuntime("a", "b")
		podman.noEvents = errors.New("events are switched off")
		h := newFakeHost(t, map[string]*fakeRuntime{"podman": podman}, "podman")
		h.ask(cgroups.Podman, "a")
		h.expect("0s id-a a")
		time.Sleep(time.Hour)
		h.ask(cgroups.Podman, "b")
		h.expect("1h0m0s id-b b")
		if calls := podman.taken(); len(calls) != 2 {
			t.Errorf("asked %q", calls)
		}
		if n := h.logs.FilterLevelExact(zap.WarnLevel).Len(); n != 1 {
			t.Errorf("%d warnings: %v", n, h.logs.All())
		}
	})
}

func TestDirectoryReconnectsAtOnceToANewSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker := newFakeRuntime("a", "b")
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker}, "docker")
		h.ask(cgroups.Docker, "a")
		h.expect("0s id-a a")
		docker.end()
		time.Sleep(5*time.Minute + 500*time.Millisecond)
		h.ask(cgroups.Docker, "b")
		h.expect("5m0.5s id-b nobody knows")
		h.remove("docker")
		h.socket("docker")
		docker.set(func() { docker.refuses, docker.fails = nil, nil })
		time.Sleep(time.Second)
		h.expect("5m1s id-b b")
	})
}

func TestDirectoryLeavesAloneWhatNobodyNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker, podman := newFakeRuntime("a"), newFakeRuntime()
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker, "podman": podman}, "docker", "podman")
		h.ask(cgroups.Docker, "a")
		h.expect("0s id-a a")
		if podman.connected() != 0 {
			t.Error("connected to podman")
		}
		h.Forget(cgroups.Ref{Kind: cgroups.Docker, ID: "id-a"})
		docker.end()
		time.Sleep(time.Minute)
		before := docker.connected()
		time.Sleep(time.Hour)
		if after := docker.connected(); after != before {
			t.Errorf("%d connects for nothing", after-before)
		}
		docker.set(func() { docker.refuses, docker.fails = nil, nil })
		h.ask(cgroups.Docker, "a")
		if said := h.heard(); len(said) != 1 || !strings.HasSuffix(said[0], "id-a a") {
			t.Errorf("told %q", said)
		}
	})
}

func TestDirectoryForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docker := newFakeRuntime("a", "b", "c")
		docker.slow = 100 * time.Millisecond
		h := newFakeHost(t, map[string]*fakeRuntime{"docker": docker}, "docker")
		h.ask(cgroups.Docker, "a", "b", "unknown")
		time.Sleep(10 * time.Millisecond)
		for _, name := range []string{"a", "unknown", "never asked"} {
			h.Forget(cgroups.Ref{Kind: cgroups.Docker, ID: "id-" + name})
		}
		time.Sleep(10 * time.Minute)
		h.expect("100ms id-b b")
		if len(docker.calls) != 3 {
			t.Errorf("asked %q", docker.calls)
		}
		if len(h.questions) != 1 || len(h.retries) != 0 || h.fresh != nil || h.news != nil {
			t.Errorf("%d questions, %d retries", len(h.questions), len(h.retries))
		}
		h.ask(cgroups.Docker, "a", "c")
		h.Close()
		h.ask(cgroups.Docker, "d")
		time.Sleep(time.Minute)
		h.expect()
	})
}

func TestDirectoryTakesLinksForOneSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		for _, dir := range []string{"run/podman", "var", "run/directory.sock"} {
			if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for link, target := range map[string]string{"var/run": "/run", "run/docker.sock": "/run/podman/podman.sock", "loop": "loop"} {
			if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
				t.Fatal(err)
			}
		}
		socket := filepath.Join(root, "run/podman/podman.sock")
		if err := syscall.Mknod(socket, syscall.S_IFSOCK|0o600, 0); err != nil {
			t.Fatal(err)
		}
		podman := newFakeRuntime("a")
		var paths []string
		connect := func(ctx context.Context, path string) (Runtime, error) {
			paths = append(paths, path)
			return podman.connect(ctx, path)
		}
		h := &fakeHost{t: t, began: time.Now()}
		h.Directory = open(Options{Root: root, Answer: h.answer}, []family{
			{"podman", "docker", []string{"/run/podman/podman.sock"}, connect},
			{"docker", "docker", []string{"/loop", "/run/directory.sock", "/run/docker.sock", "/var/run/docker.sock"}, connect},
		})
		defer h.Close()
		h.ask(cgroups.Docker, "a", "b")
		h.ask(cgroups.ECS, "a")
		h.ask(cgroups.Podman, "a")
		time.Sleep(100 * time.Millisecond)
		if said := h.heard(); len(said) != 3 {
			t.Errorf("told %q", said)
		}
		if diff := cmp.Diff([]string{socket}, paths); diff != "" {
			t.Errorf("connected to (-want +got):\n%s", diff)
		}
		want := []RuntimeStatus{{Runtime: "podman", Socket: "/run/podman/podman.sock", Connected: true, Answers: 5}}
		if diff := cmp.Diff(want, h.Status()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestDirectoryAsksTheSocketsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		daemon := newFakeRuntime("a")
		h := &fakeHost{t: t, root: t.TempDir(), began: time.Now()}
		h.socket("own")
		h.socket("usual")
		h.Directory = open(Options{
			Root: h.root, Answer: h.answer, Sockets: map[string][]string{"docker": {"/own"}, "containerd": {}},
		}, []family{
			{"docker", "docker", []string{"/usual"}, daemon.connect},
			{"containerd", "containerd", []string{"/usual"}, daemon.connect},
		})
		defer h.Close()
		h.ask(cgroups.Containerd, "a")
		h.expect("0s id-a nobody knows")
		h.ask(cgroups.Docker, "a")
		h.expect("0s id-a a")
		if got := h.Status(); len(got) != 1 || got[0].Socket != "/own" {
			t.Errorf("%+v", got)
		}
	})
}

// BenchmarkDirectoryLook is what runs each second.
func BenchmarkDirectoryLook(b *testing.B) {
	d := Open(Options{Root: "/", Answer: func(cgroups.Ref, Info, error) {}})
	defer d.Close()
	for b.Loop() {
		d.look(b.Context())
	}
}
