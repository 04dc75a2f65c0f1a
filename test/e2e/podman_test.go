// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// podman has its files apart from any other Podman. Its service answers on the socket.
type podman struct {
	dir, socket string
	words       []string // that stand before its commands
}

// Where CAP_SYS_RESOURCE is missing, Podman must not ask for higher limits than there are.
const podmanContainers = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
netns = "host"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
lock_type = "file"
events_logger = "file"
tmp_dir = "%[1]s/tmp"
`

const podmanStorage = `[storage]
driver = "vfs"
graphroot = "%[1]s/root"
runroot = "%[1]s/run"
`

// startPodman starts Podman's service in the network namespace and waits until it answers.
func startPodman(ctx context.Context, t *testing.T, ns netns) *podman {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2epod") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := &podman{dir: dir, socket: filepath.Join(dir, "s"), words: ns.inside("podman")}
	for name, text := range map[string]string{"containers.conf": podmanContainers, "storage.conf": podmanStorage} {
		if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, text, dir), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	removeNewParents(t, "/libpod_parent/conmon/id")
	t.Cleanup(func() { sweep(t, "podman", dir+"/") })
	service := start(t, "podman", p.command(context.Background(), "system", "service", "--time=0", "unix://"+p.socket))
	t.Cleanup(func() { p.removeContainers(t) })
	eventually(ctx, t, 30*time.Second, "podman listens", func() error {
		if err := service.running(); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(p.socket)
		return err
	})
	return p
}

func (p *podman) command(ctx context.Context, args ...string) *exec.Cmd {
	command := append(p.words[:len(p.words):len(p.words)], args...)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(p.dir, "containers.conf"),
		"CONTAINERS_STORAGE_CONF="+filepath.Join(p.dir, "storage.conf"))
	return cmd
}

// run runs a podman command and returns what it printed, trimmed.
func (p *podman) run(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := output(p.command(ctx, args...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// removeContainers also waits for their monitors, which live on for a moment.
func (p *podman) removeContainers(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := output(p.command(ctx, "rm", "-af", "-t", "0")); err != nil {
		t.Error(err)
	}
	for ctx.Err() == nil && len(processesWith(t, p.dir+"/root")) > 0 {
		time.Sleep(20 * time.Millisecond)
	}
}
