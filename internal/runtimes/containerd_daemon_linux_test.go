// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// daemonImage is the image that testContainerd has: busybox, which runs the pods' sandboxes as well.
const daemonImage = "docker.io/test/busybox:1"

// testContainerd is a containerd of its own with the CRI plugin. All its files are below dir: its shims, which want
// theirs in /run/containerd, see another directory there.
type testContainerd struct {
	dir, socket string
	cgroup      string // of all its containers
	imageID     string
	daemon      *exec.Cmd
}

// requireContainerd skips the test, with the reason, where containerd cannot run.
func requireContainerd(t *testing.T) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "needs root: runs containers"
	}
	for _, tool := range []string{"containerd", "ctr", "runc", "busybox"} {
		if _, err := exec.LookPath(tool); err != nil && missing == "" {
			missing = "no " + tool + " in PATH"
		}
	}
	switch {
	case missing == "":
	case os.Getenv("EBPFCONTAINER_REQUIRE_ROOT_TESTS") == "1":
		t.Fatalf("required by EBPFCONTAINER_REQUIRE_ROOT_TESTS: %s", missing)
	default:
		t.Skip(missing)
	}
}

// startContainerd starts a containerd and gives it daemonImage.
func startContainerd(t *testing.T) *testContainerd {
	t.Helper()
	requireContainerd(t)
	dir, err := os.MkdirTemp("", "ctd") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	c := &testContainerd{dir: dir, socket: dir + "/c.sock", cgroup: fmt.Sprintf("/runtimes-test-%d", os.Getpid())}
	t.Cleanup(func() { c.removeFiles(t) })
	config := fmt.Sprintf(containerdConfig, dir, daemonImage)
	if err := os.WriteFile(dir+"/config.toml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	const shims = "/run/containerd"
	if os.Mkdir(shims, 0o711) == nil {
		t.Cleanup(func() { _ = os.Remove(shims) })
	}
	if err := os.Mkdir(dir+"/run", 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.sweep(t) })
	c.start(t)
	t.Cleanup(func() { c.kill(t, syscall.SIGTERM) })
	archive, id := imageArchive(t)
	c.imageID = id
	file := dir + "/image.tar"
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{namespaceCRI, "default"} {
		c.ctr(t, "-n", namespace, "images", "import", "--snapshotter", "native", file)
	}
	return c
}

// containerdConfig takes the directory and the image of the sandboxes.
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
  sandbox_image = "%[2]s"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[1]s/cni-bin"
    conf_dir = "%[1]s/cni"
`

// start starts the daemon and waits until it answers.
func (c *testContainerd) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(c.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.daemon = exec.Command("sh", "-c", `mount --bind "$0/run" /run/containerd && exec containerd --config "$0/config.toml"`, c.dir)
	c.daemon.Stdout, c.daemon.Stderr = log, log
	c.daemon.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // its mounts end with it and its shims
	if err := c.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, 30*time.Second, "containerd answers", func() error {
		r, err := newContainerd(t.Context(), c.socket)
		if err == nil {
			err = r.Close()
		}
		return err
	})
}

// kill ends the daemon. Its containers live on.
func (c *testContainerd) kill(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if c.daemon == nil {
		return
	}
	if err := c.daemon.Process.Signal(signal); err != nil {
		t.Error(err)
	}
	_ = c.daemon.Wait() // it was killed
	c.daemon = nil
}

// ctr runs a command of containerd's own client.
func (c *testContainerd) ctr(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.tryCtr(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (c *testContainerd) tryCtr(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ctr", append([]string{"--address", c.socket}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// run starts a container with ctr, which lives until the test ends.
func (c *testContainerd) run(t *testing.T, namespace, id string, options ...string) {
	t.Helper()
	args := []string{"-n", namespace, "run", "-d", "--null-io", "--snapshotter", "native", "--cgroup", c.cgroup + "/" + namespace + "-" + id}
	c.ctr(t, append(append(args, options...), daemonImage, id, "/bin/busybox", "sleep", "600")...)
	t.Cleanup(func() {
		_, err := c.tryCtr("-n", namespace, "tasks", "rm", "-f", id)
		if err == nil {
			_, err = c.tryCtr("-n", namespace, "containers", "rm", id)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// pod is a pod that the test made as the kubelet does.
type pod struct {
	client runtimeapi.RuntimeServiceClient
	config *runtimeapi.PodSandboxConfig
	id     string
}

// runPod starts the sandbox of a pod in the host's network.
func (c *testContainerd) runPod(t *testing.T, config *runtimeapi.PodSandboxConfig) *pod {
	t.Helper()
	conn, err := dialGRPC(c.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p := &pod{client: runtimeapi.NewRuntimeServiceClient(conn), config: config}
	config.Linux = &runtimeapi.LinuxPodSandboxConfig{
		CgroupParent:    c.cgroup,
		SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: hostNetwork()},
	}
	var answer *runtimeapi.RunPodSandboxResponse
	waitUntil(t, 20*time.Second, "CRI is ready", func() error { // its plugin comes up after the others
		var err error
		answer, err = p.client.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
		if status.Code(err) != codes.Unavailable && err != nil && !strings.Contains(err.Error(), "not initialized") {
			t.Fatal(err)
		}
		return err
	})
	p.id = answer.GetPodSandboxId()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if _, err := p.client.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Error(err)
		}
		if _, err := p.client.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Error(err)
		}
	})
	return p
}

func hostNetwork() *runtimeapi.NamespaceOption {
	return &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}
}

// start makes a container in the pod and starts it; the test may have set more in config.
func (p *pod) start(t *testing.T, config *runtimeapi.ContainerConfig) string {
	t.Helper()
	config.Command = []string{"/bin/busybox", "sleep", "600"}
	config.Linux = &runtimeapi.LinuxContainerConfig{
		SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: hostNetwork()},
	}
	created, err := p.client.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.id, Config: config, SandboxConfig: p.config,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: created.GetContainerId()}); err != nil {
		t.Fatal(err)
	}
	return created.GetContainerId()
}

// stop kills a container of the pod.
func (p *pod) stop(t *testing.T, id string) {
	t.Helper()
	if _, err := p.client.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
}

// sweep ends what the daemon left running: everything of ours has our directory in its command line.
func (c *testContainerd) sweep(t *testing.T) {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		cmdline, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(cmdline, []byte(c.dir+"/")) {
			continue
		}
		t.Errorf("containerd left %s: %s", file, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && pid > 1 && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
		}
	}
}

// removeFiles removes the cgroups, which are empty, and the directory.
func (c *testContainerd) removeFiles(t *testing.T) {
	t.Helper()
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + c.cgroup)
	for _, dir := range append(dirs, "/sys/fs/cgroup"+c.cgroup) {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	}
	if t.Failed() {
		log, _ := os.ReadFile(c.dir + "/log")
		t.Logf("containerd: %s", log[max(0, len(log)-4000):])
	}
	if err := os.RemoveAll(c.dir); err != nil {
		t.Error(err)
	}
}

// waitUntil calls check until it returns nil.
func waitUntil(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not in %s: %s: %v", limit, what, err)
		}
	}
}

// imageArchive makes daemonImage in the format of docker save, and tells its id.
func imageArchive(t *testing.T) (archive []byte, id string) {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	layer := tarOf(t, "bin/busybox", busybox)
	config := marshal(t, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{
			"Entrypoint": []string{"/bin/busybox", "sleep", "100000"}, // of the sandboxes
			"Env":        []string{"PATH=/bin", "NOMAD_TASK_NAME=of-the-image"},
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer)}},
	})
	manifest := marshal(t, []map[string]any{{
		"Config": "config.json", "RepoTags": []string{daemonImage}, "Layers": []string{"layer.tar"},
	}})
	return tarOf(t, "layer.tar", layer, "config.json", config, "manifest.json", manifest), "sha256:" + sum(config)
}

func tarOf(t *testing.T, namesAndFiles ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(namesAndFiles); i += 2 {
		data := namesAndFiles[i+1].([]byte)
		if err := w.WriteHeader(&tar.Header{Name: namesAndFiles[i].(string), Mode: 0o755, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// disableCRI changes the configuration of a daemon that does not run.
func (c *testContainerd) disableCRI(t *testing.T) {
	t.Helper()
	config, err := os.ReadFile(c.dir + "/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	config = bytes.Replace(config, []byte("disabled_plugins = ["), []byte(`disabled_plugins = ["io.containerd.grpc.v1.cri", `), 1)
	if err := os.WriteFile(c.dir+"/config.toml", config, 0o600); err != nil {
		t.Fatal(err)
	}
}
