// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

const testPodUID = "0d1f2c3b-1111-2222-3333-444455556666"

// testPodConfig is what the kubelet asks for.
func testPodConfig(c *testContainerd) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "web-0", Namespace: "shop", Uid: testPodUID},
		LogDirectory: c.dir + "/pods/shop_web-0_" + testPodUID,
		Labels: map[string]string{
			labelPodName: "web-0", labelPodNamespace: "shop", labelPodUID: testPodUID, "app": "web",
		},
		Annotations: map[string]string{"EBPF_CONTAINER_LOGS": "disabled", "kubernetes.io/config.source": "api"},
	}
}

// testContainerConfig is what the kubelet asks for; image is the id that it resolved the name to.
func testContainerConfig(name, image string, attempt uint32) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name, Attempt: attempt},
		Image:    &runtimeapi.ImageSpec{Image: image},
		LogPath:  fmt.Sprintf("%s/%d.log", name, attempt),
		Labels: map[string]string{
			labelContainer: name, labelPodName: "web-0", labelPodNamespace: "shop", labelPodUID: testPodUID,
		},
		Annotations: map[string]string{annotationRestart: fmt.Sprint(attempt)},
	}
}

func connect(t *testing.T, connectTo func(context.Context, string) (Runtime, error), socket string) Runtime {
	t.Helper()
	var r Runtime
	waitUntil(t, 20*time.Second, "connect", func() (err error) {
		r, err = connectTo(t.Context(), socket)
		return err
	})
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func inspect(t *testing.T, r Runtime, ref cgroups.Ref) Info {
	t.Helper()
	info, err := r.Inspect(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestCRITellsOfPodsOfContainerd(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	daemon := startContainerd(t)
	volume := t.TempDir()
	pod := daemon.runPod(t, testPodConfig(daemon))
	web := testContainerConfig("web", daemon.imageID, 0)
	web.Envs = []*runtimeapi.KeyValue{
		{Key: "COROOT_LOG_MONITORING", Value: "disabled"}, {Key: "PASSWORD", Value: "secret"},
	}
	web.Mounts = []*runtimeapi.Mount{{ContainerPath: "/data", HostPath: volume}}
	webID := pod.start(t, web)
	side := testContainerConfig("side", daemonImage, 3)
	side.Annotations["EBPF_CONTAINER_LOGS"] = "enabled"
	sideID := pod.start(t, side)
	r := connect(t, newCRI, daemon.socket)

	refs := map[string]string{"web": webID, "side": sideID, "sandbox": pod.id}
	got := map[string]Info{}
	for name, id := range refs {
		got[name] = inspect(t, r, cgroups.Ref{Kind: cgroups.Kubernetes, ID: id, PodUID: testPodUID})
	}
	podIs := Pod{Namespace: "shop", Name: "web-0", UID: testPodUID}
	logs := daemon.dir + "/pods/shop_web-0_" + testPodUID
	image := Image{Reference: daemonImage, ID: daemon.imageID}
	want := map[string]Info{
		"web": {
			Runtime: "containerd", ID: webID, Name: "web", Pod: podIs, Image: image, Labels: web.Labels,
			Annotations: map[string]string{
				"EBPF_CONTAINER_LOGS": "disabled", "kubernetes.io/config.source": "api", annotationRestart: "0",
			},
			Env:     map[string]string{"COROOT_LOG_MONITORING": "disabled", "NOMAD_TASK_NAME": "of-the-image"},
			LogPath: logs + "/web/0.log",
			Mounts:  []Mount{{Source: volume, Destination: "/data"}},
		},
		"side": {
			Runtime: "containerd", ID: sideID, Name: "side", Pod: podIs, Image: image, Labels: side.Labels,
			Restarts: 3,
			Annotations: map[string]string{
				"EBPF_CONTAINER_LOGS": "enabled", "kubernetes.io/config.source": "api", annotationRestart: "3",
			},
			Env:     map[string]string{"NOMAD_TASK_NAME": "of-the-image"},
			LogPath: logs + "/side/3.log",
		},
		"sandbox": {
			Runtime: "containerd", ID: pod.id, Pod: podIs, Sandbox: true,
			Labels: testPodConfig(daemon).Labels, Annotations: testPodConfig(daemon).Annotations,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, id := range []string{strings.Repeat("0", 64), webID[:12], "", "\xff", "web"} {
		if _, err := r.Inspect(t.Context(), cgroups.Ref{ID: id}); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: got %v, want %v", id, err, ErrNotFound)
		}
	}

	// What the kubelet does when a container has been killed.
	pod.stop(t, webID)
	again := testContainerConfig("web", daemon.imageID, 1)
	againID := pod.start(t, again)
	info := inspect(t, r, cgroups.Ref{ID: againID})
	if info.Name != "web" || info.Restarts != 1 || info.Pod != podIs || info.LogPath != logs+"/web/1.log" || againID == webID {
		t.Errorf("started again: got %+v", info)
	}
	if got := inspect(t, r, cgroups.Ref{ID: webID}); got.Restarts != 0 {
		t.Errorf("the container before: got %+v", got)
	}

	// Without CRI the same containers are those of a namespace; the pod's annotations are out of reach.
	own := connect(t, newContainerd, daemon.socket)
	gotWeb := inspect(t, own, cgroups.Ref{Kind: cgroups.Kubernetes, ID: webID, PodUID: testPodUID})
	for name := range gotWeb.Annotations {
		if strings.HasPrefix(name, "io.kubernetes.cri.") {
			delete(gotWeb.Annotations, name)
		}
	}
	wantWeb := want["web"]
	wantWeb.Namespace = "k8s.io"
	wantWeb.Annotations = map[string]string{annotationRestart: "0"}
	wantWeb.Labels = withLabel(web.Labels, labelCRIKind, "container")
	if diff := cmp.Diff(wantWeb, gotWeb); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := inspect(t, own, cgroups.Ref{ID: pod.id}); !got.Sandbox || got.Name != "" || got.VM || got.Pod != podIs {
		t.Errorf("got %+v, want the sandbox of %v", got, podIs)
	}
}

func withLabel(labels map[string]string, name, value string) map[string]string {
	return overlay(labels, map[string]string{name: value})
}

func TestContainerdTellsOfContainersInAllNamespaces(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	daemon := startContainerd(t)
	volume := t.TempDir()
	daemon.run(t, "default", "db", "--env", "NOMAD_JOB_NAME=job", "--env", "PASSWORD=secret",
		"--mount", "type=bind,src="+volume+",dst=/data,options=rbind:ro")
	daemon.ctr(t, "-n", "other", "images", "import", "--snapshotter", "native", daemon.dir+"/image.tar")
	named := strings.Repeat("ab", 32)
	daemon.run(t, "other", named, "--label", "nerdctl/name=shop-db")
	daemon.run(t, "other", "db", "--label", "com.docker.compose.project=p", "--label", "com.docker.compose.service=s")
	r := connect(t, newContainerd, daemon.socket)

	var got []Info
	for _, ref := range []cgroups.Ref{
		{Kind: cgroups.Containerd, Namespace: "default", ID: "db"},
		{Kind: cgroups.Containerd, Namespace: "other", ID: "db"},
		{Kind: cgroups.Containerd, ID: named},
		{Kind: cgroups.Docker, ID: named},
	} {
		info := inspect(t, r, ref)
		if info.Image.Reference != daemonImage {
			t.Errorf("%v: image is %v", ref, info.Image)
		}
		info.Labels, info.Image = nil, Image{}
		got = append(got, info)
	}
	shopDB := map[string]string{"nerdctl/name": "shop-db"} // labels are annotations, too
	nomad := map[string]string{"NOMAD_TASK_NAME": "of-the-image"}
	want := []Info{
		{
			Runtime: "containerd", Namespace: "default", ID: "db", Name: "db",
			Env:    withLabel(nomad, "NOMAD_JOB_NAME", "job"),
			Mounts: []Mount{{Source: volume, Destination: "/data"}},
		},
		{
			Runtime: "containerd", Namespace: "other", ID: "db", Name: "p-s", Env: nomad,
			Annotations: map[string]string{"com.docker.compose.project": "p", "com.docker.compose.service": "s"},
		},
		{Runtime: "containerd", Namespace: "other", ID: named, Name: "shop-db", Env: nomad, Annotations: shopDB},
		{Runtime: "containerd", Namespace: "other", ID: named, Name: "shop-db", Env: nomad, Annotations: shopDB},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, ref := range []cgroups.Ref{
		{Kind: cgroups.Containerd, Namespace: "k8s.io", ID: "db"}, {Kind: cgroups.Containerd, Namespace: "\n", ID: "db"},
		{Kind: cgroups.Containerd, Namespace: "none", ID: "db"}, {Kind: cgroups.Other, ID: "nobody"}, {ID: ""}, {ID: "\xff"},
	} {
		if _, err := r.Inspect(t.Context(), ref); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v: got %v, want %v", ref, err, ErrNotFound)
		}
	}
}

// As `nerdctl rename` does.
func TestContainerdFollowsNames(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	daemon := startContainerd(t)
	daemon.ctr(t, "-n", "default", "containers", "create", "--snapshotter", "native", daemonImage, "db")
	r := connect(t, newContainerd, daemon.socket)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changed, followed := make(chan string, 100), make(chan error, 1)
	go func() { followed <- r.Follow(ctx, func(id string) { changed <- id }) }()
	n := 0
	waitUntil(t, 10*time.Second, "a change is told", func() error {
		n++ // Follow may not have begun
		daemon.ctr(t, "-n", "default", "containers", "label", "db", fmt.Sprintf("nerdctl/name=name-%d", n))
		select {
		case id := <-changed:
			if id != "db" {
				t.Errorf("got %q, want db", id)
			}
			return nil
		case <-time.After(200 * time.Millisecond):
			return errors.New("none")
		}
	})
	if got, want := inspect(t, r, cgroups.Ref{ID: "db"}).Name, fmt.Sprintf("name-%d", n); got != want {
		t.Errorf("got name %q, want %q", got, want)
	}
	cancel()
	if err := <-followed; err != nil {
		t.Errorf("Follow: %v", err)
	}
	go func() { followed <- r.Follow(t.Context(), func(string) {}) }()
	time.Sleep(100 * time.Millisecond) // so that it most likely waits for events
	daemon.kill(t, syscall.SIGKILL)
	if err := <-followed; err == nil {
		t.Error("Follow returned nil when the daemon was killed")
	}
}

func TestRuntimesOutliveContainerd(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	daemon := startContainerd(t)
	pod := daemon.runPod(t, testPodConfig(daemon))
	ref := cgroups.Ref{Kind: cgroups.Kubernetes, ID: pod.start(t, testContainerConfig("web", daemon.imageID, 0))}
	runtimes := map[string]Runtime{"CRI": connect(t, newCRI, daemon.socket), "own": connect(t, newContainerd, daemon.socket)}
	before := map[string]Info{}
	for name, r := range runtimes {
		before[name] = inspect(t, r, ref)
	}
	followed := make(chan error, 1)
	go func() { followed <- runtimes["CRI"].Follow(t.Context(), nil) }()

	signalTo(t, daemon.daemon.Process, syscall.SIGSTOP)
	for name, r := range runtimes {
		start := time.Now()
		if _, err := r.Inspect(t.Context(), ref); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%s, daemon hangs: got %v, want an error", name, err)
		}
		if took := time.Since(start); took < Deadline/2 || took > 2*Deadline {
			t.Errorf("%s, daemon hangs: took %s, want %s", name, took, Deadline)
		}
	}
	if _, err := newCRI(t.Context(), daemon.socket); err == nil {
		t.Error("connected to a daemon that hangs")
	}
	signalTo(t, daemon.daemon.Process, syscall.SIGCONT)
	for name, r := range runtimes {
		if diff := cmp.Diff(before[name], inspect(t, r, ref)); diff != "" {
			t.Errorf("%s after it hung (-before +after)\n%s", name, diff)
		}
	}

	daemon.kill(t, syscall.SIGKILL)
	for name, r := range runtimes {
		start := time.Now()
		_, err := r.Inspect(t.Context(), ref)
		if err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%s, daemon killed: got %v, want an error", name, err)
		}
		t.Logf("%s, daemon killed: %v after %s", name, err, time.Since(start))
	}
	select {
	case err := <-followed:
		if err == nil {
			t.Error("Follow returned nil when the daemon was killed")
		}
	case <-time.After(5 * time.Second):
		t.Error("Follow does not see that the daemon was killed")
	}

	daemon.start(t)
	for name, r := range runtimes {
		start := time.Now()
		waitUntil(t, 15*time.Second, name+" after the restart", func() error {
			after, err := r.Inspect(t.Context(), ref)
			if err == nil {
				if diff := cmp.Diff(before[name], after); diff != "" {
					t.Errorf("%s after the restart (-before +after)\n%s", name, diff)
				}
			}
			return err
		})
		t.Logf("%s: answers %s after the restart", name, time.Since(start))
	}
}

func TestCRINeedsItsPlugin(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	requireContainerd(t)
	daemon := startContainerd(t)
	daemon.kill(t, syscall.SIGTERM)
	daemon.disableCRI(t)
	daemon.start(t)
	start := time.Now()
	if _, err := newCRI(t.Context(), daemon.socket); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v, want %v", err, errors.ErrUnsupported)
	}
	if took := time.Since(start); took > Deadline/2 {
		t.Errorf("took %s", took)
	}
	connect(t, newContainerd, daemon.socket)
}
