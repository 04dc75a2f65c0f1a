// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"maps"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pod is one of namespace e2e, whose containers are all called main.
type pod struct{ uid, class string }

var (
	podOfDocker = pod{uid: "5f3b1c52-8c0e-4e0a-9b57-000000000e2e", class: "burstable"}
	podOfCRI    = pod{uid: "5f3b1c52-8c0e-4e0a-9b57-000000001e2e", class: "besteffort"}
)

// parent is the cgroup that the kubelet has containers of the pod made in.
func (p pod) parent() string { return "/kubepods/" + p.class + "/pod" + p.uid }

// labels are what Kubernetes adds to those of a container in the semantic conventions.
func (p pod) labels(name string) map[string]string {
	return map[string]string{
		"container_name": "main", "k8s_container_name": "main", "k8s_namespace_name": "e2e", "k8s_pod_name": name, "k8s_pod_uid": p.uid,
	}
}

// makeCRI has containerd make a pod as the kubelet would: its sandbox runs at once, its container when it is begun.
func (s *nameScene) makeCRI(ctx context.Context, t *testing.T, archive string) {
	t.Helper()
	s.containerd.importImage(ctx, t, "k8s.io", archive)
	conn, err := grpc.NewClient("unix://"+s.containerd.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	cri := runtimeapi.NewRuntimeServiceClient(conn)

	const name, image = "api-0", "docker.io/" + testImage
	labels := map[string]string{
		"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "e2e", "io.kubernetes.pod.uid": podOfCRI.uid,
	}
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "e2e", Uid: podOfCRI.uid},
		Labels:   labels,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: podOfCRI.parent(),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
			},
		},
	}
	sandbox, err := cri.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removePod(t, cri, sandbox.GetPodSandboxId()) })
	labels = maps.Clone(labels)
	labels["io.kubernetes.container.name"] = "main"
	made, err := cri.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId:  sandbox.GetPodSandboxId(),
		SandboxConfig: config,
		Config: &runtimeapi.ContainerConfig{
			Metadata:    &runtimeapi.ContainerMetadata{Name: "main", Attempt: 2},
			Image:       &runtimeapi.ImageSpec{Image: image},
			Command:     ticking,
			Labels:      labels,
			Annotations: map[string]string{"io.kubernetes.container.restartCount": "2"},
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	add := func(path, id string, begin func()) {
		who := container{path: path, appID: "/k8s/e2e/api", id: id, semconv: namedAs("containerd", id, "main", image)}
		maps.Copy(who.semconv, podOfCRI.labels(name))
		s.all = append(s.all, &named{
			runtime: "cri", who: who, idForm: "/k8s/" + podOfCRI.uid + "/" + id, image: image, begin: begin,
			pid: func() string { return s.containerd.pid(ctx, t, "k8s.io", id) },
		})
	}
	add("", sandbox.GetPodSandboxId(), func() {})
	add("/k8s/e2e/"+name+"/main", made.GetContainerId(), func() {
		if _, err := cri.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: made.GetContainerId()}); err != nil {
			t.Fatal(err)
		}
	})
}

func removePod(t *testing.T, cri runtimeapi.RuntimeServiceClient, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	if err == nil {
		_, err = cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	}
	if err != nil {
		t.Error(err)
	}
}
