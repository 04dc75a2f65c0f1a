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
	"syscall"
	"testing"
	"time"
)

// containerd is a daemon of its own, with CRI.
type containerd struct{ dir, socket string }

const containerdConfig = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.internal.v1.restart", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
  address = "%[1]s/c.sock"
[ttrpc]
  address = "%[1]s/c.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/%[2]s"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[1]s/cni-bin"
    conf_dir = "%[1]s/cni"
`

// startContainerd starts containerd in the network namespace and waits until it answers.
func startContainerd(ctx context.Context, t *testing.T, ns netns) *containerd {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2ectd") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	c := &containerd{dir: dir, socket: filepath.Join(dir, "c.sock")}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, containerdConfig, dir, testImage), 0o600); err != nil {
		t.Fatal(err)
	}
	const shims = "/run/containerd" // where they have their sockets
	if os.Mkdir(shims, 0o711) == nil {
		t.Cleanup(func() { _ = os.Remove(shims) })
	}
	own := filepath.Join(dir, "run")
	if err := os.Mkdir(own, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sweep(t, "containerd", dir+"/") })
	command := ns.inside("sh", "-ec", `mount --bind "$0" "$1"; exec containerd --config "$2"`, own, shims, config)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	daemon := start(t, "containerd", cmd)
	eventually(ctx, t, 30*time.Second, "containerd answers", func() error {
		if err := daemon.running(); err != nil {
			t.Fatal(err)
		}
		_, err := output(c.command(ctx, "version"))
		return err
	})
	return c
}

// command is one of containerd's own client.
func (c *containerd) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ctr", append([]string{"--address", c.socket}, args...)...)
}

// importImage takes an archive that docker save made into a namespace.
func (c *containerd) importImage(ctx context.Context, t *testing.T, namespace, archive string) {
	t.Helper()
	if _, err := output(c.command(ctx, "-n", namespace, "images", "import", archive)); err != nil {
		t.Fatal(err)
	}
}

// start runs a command in a container of a namespace until the test ends. The id is its name for ctr.
func (c *containerd) start(ctx context.Context, t *testing.T, namespace, id string, options []string, command ...string) {
	t.Helper()
	removeNewParents(t, "/"+namespace+"/"+id)
	args := append([]string{"-n", namespace, "run", "-d", "--null-io"}, options...)
	t.Cleanup(func() { c.remove(t, namespace, id) })
	if _, err := output(c.command(ctx, append(append(args, "docker.io/"+testImage, id), command...)...)); err != nil {
		t.Fatal(err)
	}
}

func (c *containerd) remove(t *testing.T, namespace, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := output(c.command(ctx, "-n", namespace, "tasks", "rm", "-f", id))
	if err == nil {
		_, err = output(c.command(ctx, "-n", namespace, "containers", "rm", id))
	}
	if err != nil {
		t.Error(err)
	}
}

// pid returns the main process of a container.
func (c *containerd) pid(ctx context.Context, t *testing.T, namespace, id string) string {
	t.Helper()
	list, err := output(c.command(ctx, "-n", namespace, "tasks", "ls"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == id {
			return fields[1]
		}
	}
	t.Fatalf("containerd does not know %s: %s", id, list)
	return ""
}
