// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const testImage = "e2e/load:1"

// docker is a Docker daemon of its own, with its bridge, its iptables rules and its files apart from any other.
type docker struct {
	dir    string
	socket string
	words  []string // of the command that runs the daemon
	daemon *process
}

// startDocker starts dockerd in the network namespace and waits until it answers.
func startDocker(ctx context.Context, t *testing.T, ns netns, options ...string) *docker {
	t.Helper()
	dir := t.TempDir()
	d := &docker{dir: dir, socket: filepath.Join(dir, "docker.sock")}
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil { // not the host's /etc/docker/daemon.json
		t.Fatal(err)
	}
	removeNewParents(t, "/docker/id")
	const key = "/etc/docker/key.json" // dockerd makes it, wherever its other files are
	if _, err := os.Stat(key); errors.Is(err, fs.ErrNotExist) {
		t.Cleanup(func() { _ = os.Remove(key) })
	}
	t.Cleanup(func() { sweep(t, "dockerd", d.dir+"/exec/") })
	d.words = append(ns.inside("dockerd", "--config-file", config,
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "-H", "unix://"+d.socket, "--bip", "198.18.0.1/24",
		"--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs"), options...)
	d.start(ctx, t)
	return d
}

// start starts the daemon, for the first time or again after its end.
func (d *docker) start(ctx context.Context, t *testing.T) {
	t.Helper()
	// The containerd of a daemon that was killed dies with it. Until its new parent has noticed, it would be taken to be alive.
	_ = os.Remove(filepath.Join(d.dir, "exec/containerd/containerd.pid"))
	cmd := exec.Command(d.words[0], d.words[1:]...)
	// Its mounts vanish with it and its containers, whatever becomes of us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	d.daemon = start(t, "dockerd", cmd)
	t.Cleanup(func() { d.removeContainers(t) })
	eventually(ctx, t, 30*time.Second, "dockerd answers", func() error {
		if err := d.daemon.running(); err != nil {
			t.Fatal(err)
		}
		_, err := output(d.command(ctx, "version"))
		return err
	})
}

func (d *docker) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "docker", append([]string{"--config", d.dir, "-H", "unix://" + d.socket}, args...)...)
}

// run runs a docker command and returns what it printed, trimmed.
func (d *docker) run(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := output(d.command(ctx, args...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// importImage makes testImage out of the files of a root file system. By itself it sleeps, as the sandboxes of pods do.
func (d *docker) importImage(ctx context.Context, t *testing.T, rootfs string) {
	t.Helper()
	var image bytes.Buffer
	w := tar.NewWriter(&image)
	if err := errors.Join(w.AddFS(os.DirFS(rootfs)), w.Close()); err != nil {
		t.Fatal(err)
	}
	cmd := d.command(ctx, "import", "-c", `CMD ["/busybox", "sleep", "600"]`, "-", testImage)
	cmd.Stdin = &image
	if _, err := output(cmd); err != nil {
		t.Fatal(err)
	}
}

// create makes a container of testImage, not yet started, and returns its id.
func (d *docker) create(ctx context.Context, t *testing.T, name string, command ...string) string {
	t.Helper()
	return d.run(ctx, t, append([]string{"create", "--name", name, testImage}, command...)...)
}

// address returns the address of a running container on the bridge.
func (d *docker) address(ctx context.Context, t *testing.T, id string) string {
	t.Helper()
	return d.run(ctx, t, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", id)
}

// followEvents lets Docker print the starts and ends of all containers from now on.
func (d *docker) followEvents(t *testing.T) *process {
	t.Helper()
	// Afterwards it would tell the last 256 only.
	return start(t, "docker-events", d.command(context.Background(), "events", "--filter", "event=start",
		"--filter", "event=die", "--format", "{{.ID}} {{.Action}} {{.Actor.Attributes.exitCode}}"))
}

// diedWith returns the exit codes of a container, in order, that followEvents has shown.
func diedWith(t *testing.T, events *process, id string) (codes []int) {
	t.Helper()
	for line := range strings.Lines(events.output(t)) {
		if text, ok := strings.CutPrefix(line, id+" die "); ok {
			code, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, code)
		}
	}
	return codes
}

func (d *docker) removeContainers(t *testing.T) {
	t.Helper()
	if d.daemon.running() != nil {
		return // ended by the test, and not the last one
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ids, err := output(d.command(ctx, "ps", "-aq"))
	if fields := strings.Fields(ids); err == nil && len(fields) > 0 {
		_, err = output(d.command(ctx, append([]string{"rm", "-f"}, fields...)...))
	}
	if err != nil {
		t.Error(err)
	}
}

// sweep ends what a daemon that did not stop properly left running. Everything of ours has our directory in its command
// line: containerd and its shims; containers are in cgroups below their shim's children.
func sweep(t *testing.T, daemon, dir string) {
	t.Helper()
	for pid, cmdline := range processesWith(t, dir) {
		t.Errorf("%s left process %s: %s", daemon, pid, cmdline)
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%s/task/%s/children", pid, pid))
		for _, p := range append(strings.Fields(string(children)), pid) {
			kill(p)
		}
	}
}

// processesWith returns the command lines, by process id, that have a word in them.
func processesWith(t *testing.T, word string) map[string]string {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	found := map[string]string{}
	for _, file := range procs {
		cmdline, err := os.ReadFile(file)
		if err == nil && bytes.Contains(cmdline, []byte(word)) {
			found[filepath.Base(filepath.Dir(file))] = string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))
		}
	}
	return found
}
