// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// testDaemon is a Docker or a Podman daemon of its own, with its client.
type testDaemon struct {
	dir, socket string
	cgroup      string // of its containers
	serve       []string
	client      []string
	env         []string
	process     *exec.Cmd
	ended       chan struct{} // closed when process has
}

const dockerImage = "registry.example:5000/team/busybox:1"

// requireTools skips the test, with the reason, where it cannot run.
func requireTools(t *testing.T, tools ...string) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "needs root: runs containers"
	}
	for _, tool := range tools {
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

func newTestDaemon(t *testing.T) *testDaemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "dkr") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	d := &testDaemon{dir: dir, socket: dir + "/sock", cgroup: fmt.Sprintf("/runtimes-test-%d", os.Getpid())}
	t.Cleanup(func() { d.removeFiles(t) })
	if err := os.WriteFile(dir+"/empty", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

// newTestDocker makes a Docker daemon that does not run yet and has no networks but the host's and none.
func newTestDocker(t *testing.T) *testDaemon {
	t.Helper()
	requireTools(t, "dockerd", "docker", "containerd", "runc", "busybox")
	d := newTestDaemon(t)
	config := d.dir + "/daemon.json"
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil { // not the host's
		t.Fatal(err)
	}
	const key = "/etc/docker/key.json" // dockerd makes it, wherever its other files are
	if _, err := os.Stat(key); errors.Is(err, fs.ErrNotExist) {
		t.Cleanup(func() { _ = os.Remove(key) })
	}
	d.serve = []string{
		"dockerd", "--config-file", config, "--data-root", d.dir + "/data", "--exec-root", d.dir + "/exec", "--pidfile", d.dir + "/pid",
		"-H", "unix://" + d.socket, "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver", "overlay2",
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", d.cgroup,
	}
	d.client = []string{"docker", "--config", d.dir, "-H", "unix://" + d.socket}
	return d
}

// newTestPodman makes a Podman service that does not run yet.
func newTestPodman(t *testing.T) *testDaemon {
	t.Helper()
	requireTools(t, "podman", "runc", "busybox")
	const containers = "/var/lib/containers" // Podman makes it, wherever its other files are
	if _, err := os.Stat(containers); errors.Is(err, fs.ErrNotExist) {
		t.Cleanup(func() {
			for _, path := range []string{"/cache/blob-info-cache-v1.boltdb", "/cache", ""} {
				_ = os.Remove(containers + path) // unless somebody else has files there by now
			}
		})
	}
	d := newTestDaemon(t)
	d.client = []string{
		"podman", "--root", d.dir + "/root", "--runroot", d.dir + "/runroot", "--tmpdir", d.dir + "/tmp", "--network-config-dir", d.dir + "/net",
		"--cgroup-manager=cgroupfs", "--runtime", "runc", "--storage-driver", "overlay", "--events-backend", "file",
	}
	d.serve = append(d.client[:len(d.client):len(d.client)], "system", "service", "--time", "0", "unix://"+d.socket)
	d.env = append(os.Environ(), "CONTAINERS_CONF="+d.dir+"/empty", "HOME="+d.dir)
	return d
}

func (d *testDaemon) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(d.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.process = exec.Command(d.serve[0], d.serve[1:]...)
	d.process.Stdout, d.process.Stderr, d.process.Env = log, log, d.env
	// Its mounts vanish with it and its containers, whatever becomes of us.
	d.process.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	process, ended := d.process, make(chan struct{})
	d.ended = ended
	go func() {
		defer close(ended)
		_ = process.Wait()
	}()
	t.Cleanup(func() { d.stop(t, process, ended) })
}

// waitReady waits until the daemon answers.
func (d *testDaemon) waitReady(t *testing.T) {
	t.Helper()
	waitUntil(t, 30*time.Second, "the daemon answers", func() error {
		r, err := newDocker(t.Context(), d.socket)
		if err == nil {
			err = r.Close()
		}
		return err
	})
}

func (d *testDaemon) signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	signalTo(t, d.process.Process, signal)
}

// signalTo returns when a process that is stopped has: until then its other threads may still answer.
func signalTo(t *testing.T, p *os.Process, signal syscall.Signal) {
	t.Helper()
	if err := p.Signal(signal); err != nil {
		t.Error(err)
	}
	if signal != syscall.SIGSTOP {
		return
	}
	waitUntil(t, 5*time.Second, "all threads have stopped", func() error {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("no threads: %w", err)
		}
		for _, file := range files {
			if stat, err := os.ReadFile(file); err != nil || !bytes.Contains(stat, []byte(") T ")) {
				return fmt.Errorf("%s: %s: %w", file, stat, err)
			}
		}
		return nil
	})
}

func (d *testDaemon) stop(t *testing.T, process *exec.Cmd, ended <-chan struct{}) {
	t.Helper()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGCONT} {
		_ = process.Process.Signal(signal) // it may have ended
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Errorf("%s does not end", process.Path)
		_ = process.Process.Kill()
		<-ended
	}
}

// run runs a command of the client and returns the last line that it printed.
func (d *testDaemon) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := d.try(nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (d *testDaemon) try(stdin []byte, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	args = append(d.client[1:len(d.client):len(d.client)], args...)
	cmd := exec.CommandContext(ctx, d.client[0], args...)
	cmd.Env, cmd.Stdin = d.env, bytes.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1], nil
}

// importImage makes dockerImage.
func (d *testDaemon) importImage(t *testing.T) (id string) {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if id, err = d.try(tarOf(t, "bin/busybox", busybox), "import", "-c", `CMD ["/bin/busybox", "sleep", "600"]`, "-", dockerImage); err != nil {
		t.Fatal(err)
	}
	return id
}

func (d *testDaemon) create(t *testing.T, name string, options ...string) (id string) {
	t.Helper()
	return d.run(t, append(append([]string{"create", "--name", name}, options...), dockerImage, "/bin/busybox", "sleep", "600")...)
}

// removeFiles ends what the daemon left running, which has our directory in its command line, and removes its cgroups
// and its files.
func (d *testDaemon) removeFiles(t *testing.T) {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		cmdline, err := os.ReadFile(file)
		pid, numErr := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && numErr == nil && pid > 1 && pid != os.Getpid() && bytes.Contains(cmdline, []byte(d.dir+"/")) {
			t.Errorf("left running: %s", bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
		}
	}
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + d.cgroup)
	for _, dir := range append(dirs, "/sys/fs/cgroup"+d.cgroup) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	if t.Failed() {
		log, _ := os.ReadFile(d.dir + "/log")
		t.Logf("daemon: %s", log[max(0, len(log)-4000):])
	}
	mounts, _ := os.ReadFile("/proc/mounts") // Podman's client makes one
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], d.dir+"/") {
			if err := syscall.Unmount(fields[1], syscall.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", fields[1], err)
			}
		}
	}
	if err := os.RemoveAll(d.dir); err != nil {
		t.Error(err)
	}
}

// followed starts to follow names and returns the ids of containers that were renamed.
func followed(t *testing.T, r Runtime) <-chan string {
	t.Helper()
	ids := make(chan string, 10)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Follow(ctx, func(id string) { ids <- id }); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return ids
}

func expectID(t *testing.T, ids <-chan string, want string) {
	t.Helper()
	select {
	case got := <-ids:
		if got != want {
			t.Errorf("%s was renamed, not %s", got, want)
		}
	case <-time.After(5 * time.Second):
		t.Error("no new name within 5 s")
	}
}

func TestDockerOfDocker(t *testing.T) {
	d := newTestDocker(t)
	d.start(t)
	d.waitReady(t)
	imageID := d.importImage(t)
	id := d.run(t, "run", "-d", "--name", "web", "--network", "none", "-v", "data:/data", "-v", d.dir+":/host:ro", "-e", "SECRET=s",
		"-e", "NOMAD_JOB_NAME=j", "-l", "com.docker.swarm.task.name=a.1.b", dockerImage, "/bin/busybox", "sleep", "600")
	t.Cleanup(func() { d.run(t, "rm", "-f", id) })
	r := connect(t, newDocker, d.socket)
	ids := followed(t, r)
	want := Info{
		Runtime: "docker", ID: id, Name: "web", Image: Image{Reference: dockerImage, ID: imageID},
		Labels: map[string]string{"com.docker.swarm.task.name": "a.1.b"}, Env: map[string]string{"NOMAD_JOB_NAME": "j"},
		LogDriver: "json-file", LogPath: d.dir + "/data/containers/" + id + "/" + id + "-json.log",
		Mounts: []Mount{
			{Source: d.dir + "/data/volumes/data/_data", Destination: "/data", Volume: "data"},
			{Source: d.dir, Destination: "/host"},
		},
	}
	if diff := cmp.Diff(want, inspect(t, r, cgroups.Ref{Kind: cgroups.Docker, ID: id})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, unknown := range []string{anID, "web", id[:12]} {
		if info, err := r.Inspect(t.Context(), cgroups.Ref{ID: unknown}); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %+v, %v", unknown, info, err)
		}
	}
	d.run(t, "rename", "web", "www")
	expectID(t, ids, id)
	if info := inspect(t, r, cgroups.Ref{ID: id}); info.Name != "www" {
		t.Errorf("the new name is %q", info.Name)
	}
}

func TestDockerOfPodman(t *testing.T) {
	d := newTestPodman(t)
	imageID := d.importImage(t)
	d.start(t)
	d.waitReady(t)
	id := d.create(t, "web", "--network", "host", "--log-driver", "k8s-file", "-v", "data:/data", "-v", d.dir+":/host:ro", "-e", "SECRET=s",
		"-e", "NOMAD_JOB_NAME=j", "-l", "a=b")
	d.run(t, "pod", "create", "--name", "pod", "--network", "host", "--cgroup-parent", d.cgroup, "--infra-image", dockerImage)
	t.Cleanup(func() { d.run(t, "pod", "rm", "-f", "pod") })
	infra := d.run(t, "pod", "inspect", "--format", "{{.InfraContainerID}}", "pod")
	r := connect(t, newDocker, d.socket)
	ids := followed(t, r)
	want := Info{
		Runtime: "podman", ID: id, Name: "web", Image: Image{Reference: dockerImage, ID: imageID},
		Labels: map[string]string{"a": "b"}, Env: map[string]string{"NOMAD_JOB_NAME": "j"},
		LogDriver: "k8s-file", LogPath: d.dir + "/root/overlay-containers/" + id + "/userdata/ctr.log",
		Mounts: []Mount{
			{Source: d.dir + "/root/volumes/data/_data", Destination: "/data", Volume: "data"},
			{Source: d.dir, Destination: "/host"},
		},
	}
	if diff := cmp.Diff(want, inspect(t, r, cgroups.Ref{Kind: cgroups.Podman, ID: id})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if info := inspect(t, r, cgroups.Ref{ID: infra}); !info.Sandbox {
		t.Errorf("%+v is no sandbox", info)
	}
	if info, err := r.Inspect(t.Context(), cgroups.Ref{ID: anID}); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown: %+v, %v", info, err)
	}
	d.run(t, "rename", "web", "www")
	expectID(t, ids, id)
	if info := inspect(t, r, cgroups.Ref{ID: id}); info.Name != "www" {
		t.Errorf("the new name is %q", info.Name)
	}
}

// answers is what a Directory has told last of each container.
type answers struct {
	mu    sync.Mutex
	names map[cgroups.Ref]string // "" where nobody knows
}

func (a *answers) answer(ref cgroups.Ref, info Info, _ error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names[ref] = info.Name
}

// wait waits until the names of the containers are as wanted and returns how long that took.
func (a *answers) wait(t *testing.T, limit time.Duration, want map[cgroups.Ref]string) time.Duration {
	t.Helper()
	began := time.Now()
	for ; ; time.Sleep(time.Millisecond) {
		a.mu.Lock()
		diff := ""
		for ref, name := range want {
			if got, told := a.names[ref]; !told || got != name {
				diff = fmt.Sprintf("%s: %q (told: %v), want %q", ref.ID, got, told, name)
			}
		}
		a.mu.Unlock()
		switch took := time.Since(began); {
		case diff == "":
			return took
		case took > limit:
			t.Fatalf("not in %v: %s", limit, diff)
		}
	}
}

func TestDirectoryOfDocker(t *testing.T) {
	d := newTestDocker(t)
	d.start(t)
	d.waitReady(t)
	d.importImage(t)
	web := cgroups.Ref{Kind: cgroups.Docker, ID: d.create(t, "web")}
	second := cgroups.Ref{Kind: cgroups.Docker, ID: d.create(t, "second")}
	d.stop(t, d.process, d.ended)

	told := &answers{names: map[cgroups.Ref]string{}}
	dir := Open(Options{
		Root: "/", Answer: told.answer, Logger: zaptest.NewLogger(t),
		Sockets: map[string][]string{"docker": {d.socket}, "podman": nil, "cri": nil, "containerd": nil, "systemd": nil},
	})
	defer dir.Close()
	dir.Ask(web)
	t.Log("nobody there:", told.wait(t, time.Second, map[cgroups.Ref]string{web: ""}))
	d.start(t)
	t.Log("started:", told.wait(t, 30*time.Second, map[cgroups.Ref]string{web: "web"}))
	d.run(t, "rename", "web", "www")
	t.Log("renamed:", told.wait(t, 5*time.Second, map[cgroups.Ref]string{web: "www"}))

	many := map[cgroups.Ref]string{}
	for i := range 500 {
		ref := cgroups.Ref{Kind: cgroups.Docker, ID: web.ID, Path: fmt.Sprint("/", i)}
		many[ref] = "www"
		dir.Ask(ref)
	}
	t.Log("500 asked:", told.wait(t, 5*time.Second, many))

	d.signal(t, syscall.SIGSTOP)
	dir.Ask(second)
	t.Log("hangs:", told.wait(t, 3*time.Second, map[cgroups.Ref]string{second: ""}))
	if status := dir.Status(); len(status) != 1 || status[0].Connected || status[0].Err == nil {
		t.Errorf("%+v", status)
	}
	d.signal(t, syscall.SIGCONT)
	t.Log("goes on:", told.wait(t, maxBackoff+Deadline, map[cgroups.Ref]string{second: "second"}))

	d.stop(t, d.process, d.ended)
	waitUntil(t, 5*time.Second, "it is seen that the daemon is gone", func() error {
		if status := dir.Status(); status[0].Connected {
			return errors.New("connected")
		}
		return nil
	})
	unknown := cgroups.Ref{Kind: cgroups.Docker, ID: anID}
	dir.Ask(unknown)
	t.Log("dead:", told.wait(t, time.Second, map[cgroups.Ref]string{unknown: ""}))
	d.start(t)
	d.waitReady(t)
	d.run(t, "rename", "www", "new") // before its events may be followed
	// The 502 containers that are known are asked for again one after the other.
	t.Log("restarted:", told.wait(t, 30*time.Second, map[cgroups.Ref]string{web: "new", second: "second"}))
	if status := dir.Status(); !status[0].Connected || status[0].Err != nil || status[0].Errors == 0 || status[0].Answers < 500 {
		t.Errorf("%+v", status)
	}
}

func TestDirectoryOfPodman(t *testing.T) {
	d := newTestPodman(t)
	d.importImage(t)
	web := cgroups.Ref{Kind: cgroups.Podman, ID: d.create(t, "web", "--network", "host")}
	told := &answers{names: map[cgroups.Ref]string{}}
	dir := Open(Options{
		Answer: told.answer, Logger: zaptest.NewLogger(t),
		Sockets: map[string][]string{"docker": nil, "podman": {d.socket}, "cri": nil, "containerd": nil, "systemd": nil},
	})
	defer dir.Close()
	dir.Ask(web)
	t.Log("nobody there:", told.wait(t, time.Second, map[cgroups.Ref]string{web: ""}))
	d.start(t)
	t.Log("started:", told.wait(t, 30*time.Second, map[cgroups.Ref]string{web: "web"}))
	d.run(t, "rename", "web", "www")
	t.Log("renamed:", told.wait(t, 5*time.Second, map[cgroups.Ref]string{web: "www"}))
}
