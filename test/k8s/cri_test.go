// SPDX-License-Identifier: Apache-2.0

//go:build linux

package k8s

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// checkCRI fails the test unless CRI tells a log file for each container, which is there and has its lines, and the
// kubelet links to it. What reads logs rests on that.
func checkCRI(t *testing.T, c *cluster, w workload) {
	conn, err := grpc.NewClient("unix://"+filepath.Join(c.dir, "run/containerd/containerd.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := cri.NewRuntimeServiceClient(conn)
	for _, r := range w.running() {
		s := w.status(r.pod, r.container)
		answer, err := client.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: s.id()})
		if err != nil {
			t.Fatal(err)
		}
		path := answer.GetStatus().GetLogPath()
		want := fmt.Sprintf("/var/log/pods/%s_%s_%s/%s/%d.log", namespace, r.pod, w.pods[r.pod].Metadata.UID, r.container,
			s.RestartCount)
		if path != want {
			t.Errorf("log path of %s: got %q, want %q", r.containerID, path, want)
		}
		eventually(t, 20*time.Second, "lines in "+path, func() error {
			b, err := os.ReadFile(filepath.Join(c.dir, path))
			if err == nil && !strings.Contains(string(b), " stdout F ") {
				err = fmt.Errorf("%q", b)
			}
			return err
		})
		link := fmt.Sprintf("/var/log/containers/%s_%s_%s-%s.log", r.pod, namespace, r.container, s.id())
		if got, err := os.Readlink(filepath.Join(c.dir, link)); err != nil || got != want {
			t.Errorf("%s links to %q, %v, want %q", link, got, err, want)
		}
	}
}
