// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var podOfLogs = pod{uid: "5f3b1c52-8c0e-4e0a-9b57-000000002e2e", class: "besteffort"}

// TestLogsOfPods follows the containers of a pod, which containerd makes as the kubelet would have it: one is ended, and
// another one takes its place.
func TestLogsOfPods(t *testing.T) {
	requireRoot(t, "ip", "nsenter", "dockerd", "containerd", "docker", "ctr", "runc", "busybox")
	ctx := testContext(t)
	s := makeLogScene(ctx, t)
	removeNewParents(t, podOfLogs.parent()+"/id")
	s.startDocker(ctx, t)
	archive := filepath.Join(t.TempDir(), "image.tar")
	s.docker.run(ctx, t, "save", "-o", archive, testImage)
	c := startContainerd(ctx, t, s.ns)
	c.importImage(ctx, t, "k8s.io", archive)
	p := s.makePod(ctx, t, c)

	steps := numbered("pod", onOutput, 300)
	s.write(t, "various", text(variety(onOutput)))
	s.write(t, "attempt0", text(steps[:200]))
	s.write(t, "attempt1", text(steps[200:]))
	first := p.create(ctx, t, 0, "cat /texts/various >&2; each /texts/attempt0; rest")
	second := p.create(ctx, t, 1, "each /texts/attempt1; rest")
	w := s.add("first", p.who(first), append(variety(onOutput), steps[:200]...)...)
	s.add("second", p.who(second), steps[200:]...)
	s.start(ctx, t, map[string]string{"cri": c.socket, "containerd": c.socket}, "roots: []")
	p.start(ctx, t, first)
	eventually(ctx, t, 30*time.Second, "the first container has written", func() error {
		return s.seen.want(identities(t)[0], w, len(w.messages))
	})
	if _, err := p.cri.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: first}); err != nil {
		t.Fatal(err)
	}
	p.start(ctx, t, second)
	s.check(ctx, t)
}

// criPod is a pod with its sandbox.
type criPod struct {
	cri     runtimeapi.RuntimeServiceClient
	config  *runtimeapi.PodSandboxConfig
	sandbox string
	texts   string
}

const criPodName = "logger-0"

func (s *logScene) makePod(ctx context.Context, t *testing.T, c *containerd) *criPod {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+c.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p := &criPod{cri: runtimeapi.NewRuntimeServiceClient(conn), texts: s.texts}
	p.config = &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: criPodName, Namespace: "e2e", Uid: podOfLogs.uid},
		Labels: map[string]string{
			"io.kubernetes.pod.name": criPodName, "io.kubernetes.pod.namespace": "e2e", "io.kubernetes.pod.uid": podOfLogs.uid,
		},
		LogDirectory: filepath.Join(publicDir(t), "pod"),
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: podOfLogs.parent(), SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: hostNetwork}},
	}
	sandbox, err := p.cri.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.config})
	if err != nil {
		t.Fatal(err)
	}
	p.sandbox = sandbox.GetPodSandboxId()
	t.Cleanup(func() { removePod(t, p.cri, p.sandbox) })
	return p
}

var hostNetwork = &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}

// create makes a container that runs a script and returns its id.
func (p *criPod) create(ctx context.Context, t *testing.T, attempt uint32, shell string) string {
	t.Helper()
	labels := maps.Clone(p.config.GetLabels())
	labels["io.kubernetes.container.name"] = "main"
	made, err := p.cri.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.sandbox, SandboxConfig: p.config,
		Config: &runtimeapi.ContainerConfig{
			Metadata:    &runtimeapi.ContainerMetadata{Name: "main", Attempt: attempt},
			Image:       &runtimeapi.ImageSpec{Image: "docker.io/" + testImage},
			Command:     script(inBusybox + shell),
			Labels:      labels,
			Annotations: map[string]string{"io.kubernetes.container.restartCount": fmt.Sprint(attempt)},
			LogPath:     fmt.Sprintf("main/%d.log", attempt),
			Mounts:      []*runtimeapi.Mount{{ContainerPath: "/texts", HostPath: p.texts}},
			Linux:       &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: hostNetwork}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return made.GetContainerId()
}

func (p *criPod) start(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	if _, err := p.cri.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
}

// who is the container as the identities have it.
func (p *criPod) who(id string) container {
	who := container{path: "/k8s/e2e/" + criPodName + "/main", appID: "/k8s/e2e/logger", id: id, semconv: namedAs("containerd", id, "main", "docker.io/"+testImage)}
	maps.Copy(who.semconv, podOfLogs.labels(criPodName))
	return who
}
