// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logfiles"
	"github.com/ebpfcontainer/ebpfcontainer/internal/logtail"
	"github.com/ebpfcontainer/ebpfcontainer/internal/runtimes"
)

// logHost is a host on which containers log to files of Docker.
type logHost struct {
	*namedHost
	dir     string
	written int // messages, by all
}

func newLogHost(t *testing.T, opts Options) *logHost {
	t.Helper()
	h := &logHost{dir: t.TempDir()}
	opts.Logs.Enabled, opts.Logs.Root = true, h.dir
	h.namedHost = newNamedHost(t, opts)
	return h
}

// logs adds messages to the file of a container.
func (h *logHost) log(id string, n int) {
	h.t.Helper()
	f, err := os.OpenFile(filepath.Join(h.dir, id), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for range n {
		h.written++
		at := h.now().Format(time.RFC3339Nano)
		if _, err := fmt.Fprintf(f, `{"log":"INFO has done step %d\n","stream":"stdout","time":%q}`+"\n", h.written, at); err != nil {
			h.t.Fatal(err)
		}
	}
}

// tellLog has the runtimes answer for one that logs to the file of an id.
func (h *logHost) tellLog(path, id, name string, env ...string) {
	h.t.Helper()
	info := docker(name)
	info.LogDriver, info.LogPath = "json-file", "/"+id
	for _, name := range env {
		info.Env = map[string]string{name: "disabled"}
	}
	h.tell(path, info)
}

// counted returns the messages of a container, -1 if there is nothing of its logs.
func (h *logHost) counted(name string) int {
	h.t.Helper()
	c, ok := h.snapshot()[name]
	if !ok || c.Phase == Ended || c.Logs == nil {
		return -1
	}
	n := 0
	for _, p := range c.Logs.Patterns {
		if !p.Ended {
			n += int(p.Messages)
		}
	}
	return n
}

// want waits until so many messages of a container are counted, and looks whether there come more.
func (h *logHost) want(name string, n int) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%d messages of %s", n, name), func() (string, bool) {
		got := h.counted(name)
		return fmt.Sprint(got), got == n
	})
	h.settle()
	if got := h.counted(name); got != n {
		h.t.Fatalf("%d messages of %s, want %d and no more", got, name, n)
	}
}

// settle has all done that is to be done of logs, but for what is read by then.
func (h *logHost) settle() {
	h.t.Helper()
	h.inv.passLogs(h.t.Context())
	h.inv.passLogs(h.t.Context())
}

// wantFollowed waits until there are so many owners of logs and files.
func (h *logHost) wantFollowed(owners, files int) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%d owners and %d files", owners, files), func() (string, bool) {
		s := h.inv.Status().Logs
		h.inv.mu.Lock()
		known := len(h.inv.logOwners)
		h.inv.mu.Unlock()
		return fmt.Sprintf("%d, %d and %d", s.Owners, known, s.Files.Sources), s.Owners == owners && known == owners && int(s.Files.Sources) == files
	})
}

// eventually waits for what is done by others. Each time more of the host's time passes, so that messages end.
func (h *logHost) eventually(what string, check func() (got string, ok bool)) {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got, ok := check()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("not %s, but %s", what, got)
		}
		h.pass(50 * time.Millisecond)
	}
}

// end takes the time that it takes to forget what is gone.
func (h *logHost) end() {
	h.t.Helper()
	h.pass(2*keep + 1)
	h.clean()
	h.settle()
}

func TestLogsGoOnWhenAContainerIsRenamed(t *testing.T) {
	for _, byName := range []bool{false, true} {
		h := newLogHost(t, Options{NameIsIdentity: byName})
		h.log(hexA, 100) // before its time
		h.pass(2 * lateRecords)
		h.cgroup(dockerA, 0)
		h.log(hexA, 3)
		h.tellLog(dockerA, hexA, "web")
		h.want("/docker/web", 3)
		h.tellLog(dockerA, hexA, "web-old")
		h.log(hexA, 2)
		h.want("/docker/web-old", 5)
		if n := h.counted("/docker/web"); n > 0 {
			t.Errorf("%d messages under the old name", n)
		}
		h.wantFollowed(1, 1)
		h.remove(dockerA)
		h.end()
		h.wantFollowed(0, 0)
	}
}

// Where the name is the identity, the logs of all that have had it one after the other are one.
func TestLogsOfReusedName(t *testing.T) {
	h := newLogHost(t, Options{NameIsIdentity: true})
	path, id := dockerA, hexA
	h.cgroup(path, 0)
	h.tellLog(path, id, "web")
	total := 0
	for i := range 5 {
		h.log(id, 10+i)
		total += 10 + i
		h.want("/docker/web", total)
		h.remove(path)
		h.pass(time.Second)
		id = fmt.Sprintf("%064x", i+1)
		path = "docker/" + id
		h.cgroup(path, 0)
		h.tellLog(path, id, "web")
	}
	h.log(id, 1)
	h.want("/docker/web", total+1)
	h.wantFollowed(1, 1)
	h.remove(path)
	h.end()
	h.wantFollowed(0, 0)
}

// A container may have ended, and another may have taken its name, before its name is told.
func TestLogsOfANameThatIsToldTooLate(t *testing.T) {
	h := newLogHost(t, Options{NameIsIdentity: true})
	h.cgroup(dockerA, 0)
	h.log(hexA, 4)
	h.snapshot()
	h.remove(dockerA)
	h.cgroup(dockerB, 0)
	h.log(hexB, 5)
	h.tellLog(dockerB, hexB, "web")
	h.want("/docker/web", 5)
	h.tellLog(dockerA, hexA, "web")
	h.want("/docker/web", 5) // the file of the first one is not known any more
	h.wantFollowed(1, 1)
}

// A container that lives shorter than it takes to ask for its name has logged all the same.
func TestLogsOfAContainerThatIsGoneWhenItsNameIsTold(t *testing.T) {
	for _, after := range []time.Duration{0, forgetLogsAfter + time.Second} {
		h := newLogHost(t, Options{})
		h.cgroup(dockerA, 0)
		h.log(hexA, 7)
		h.snapshot()
		h.remove(dockerA)
		h.pass(after)
		h.tellLog(dockerA, hexA, "job")
		h.want("/docker/job", 7)
		h.pass(forgetLogsAfter)
		h.want("/docker/job", 7)
		h.wantFollowed(1, 0)
		h.end()
		h.wantFollowed(0, 0)
	}
}

func TestLogsOfAContainerThatIsGoneAndBack(t *testing.T) {
	h := newLogHost(t, Options{})
	h.cgroup(dockerA, 0)
	h.tellLog(dockerA, hexA, "web")
	total := 0
	for i, pause := range []time.Duration{time.Second, forgetLogsAfter + 2*time.Second, 2 * forgetLogsAfter} {
		h.log(hexA, 10+i)
		total += 10 + i
		h.want("/docker/web", total)
		h.remove(dockerA)
		h.log(hexA, 1) // its runtime is late
		total++
		h.pass(pause)
		h.want("/docker/web", total)
		if pause > forgetLogsAfter {
			h.wantFollowed(1, 0)
		}
		h.cgroup(dockerA, 0)
		h.tellLog(dockerA, hexA, "web")
	}
	h.log(hexA, 2)
	h.want("/docker/web", total+2)
	h.wantFollowed(1, 1)
}

// The logs are read before whoever follows the messages has come.
func TestMessagesWaitForTheirFollower(t *testing.T) {
	h := newLogHost(t, Options{Logs: LogsOptions{Forward: ForwardAll}})
	h.cgroup(dockerA, 0)
	h.log(hexA, 2000)
	h.tellLog(dockerA, hexA, "web")
	h.want("/docker/web", 2000)
	f := follow(t, h.inv, nil)
	if n := len(f.wait(t, 2000)); n != 2000 {
		t.Errorf("%d events", n)
	}
	h.log(hexA, 1)
	h.want("/docker/web", 2001)
	if n := len(f.wait(t, 2001)); n != 2001 {
		t.Errorf("%d events", n)
	}
	wantDropped(t, h.testHost, 0)
}

// In which format runtimes write is by them and their drivers.
func TestLogFormats(t *testing.T) {
	h := newLogHost(t, Options{Logs: LogsOptions{Journal: true}})
	h.cgroup(dockerA, 0)
	for _, tt := range []struct {
		runtime, driver, path string
		want                  logPlace
	}{
		{"docker", "json-file", "/a", logPlace{path: "/a", format: logtail.DockerJSON}},
		{"docker", "local", "/a", logPlace{path: "/a", format: logtail.DockerLocal}},
		{"docker", "fluentd", "/a", logPlace{path: "/a", format: logtail.DockerLocal}},
		{"docker", "", "/a", logPlace{path: "/a", format: logtail.DockerJSON}}, // cri-dockerd
		{"docker", "none", "", logPlace{}},
		{"docker", "journald", "", logPlace{container: hexA}},
		{"podman", "json-file", "/a", logPlace{path: "/a", format: logtail.CRI}},
		{"podman", "k8s-file", "/a", logPlace{path: "/a", format: logtail.CRI}},
		{"podman", "none", "/a", logPlace{}},
		{"containerd", "json-file", "/a", logPlace{path: "/a", format: logtail.DockerJSON}}, // nerdctl
		{"containerd", "", "/a", logPlace{path: "/a", format: logtail.CRI}},
		{"cri-o", "", "/a", logPlace{path: "/a", format: logtail.CRI}},
	} {
		h.tell(dockerA, runtimes.Info{Runtime: tt.runtime, Name: "web", LogDriver: tt.driver, LogPath: tt.path})
		h.inv.mu.Lock()
		got := h.inv.logPlaceOf(h.inv.containers["/"+dockerA])
		h.inv.mu.Unlock()
		if got != tt.want {
			t.Errorf("%s %s: got %+v, want %+v", tt.runtime, tt.driver, got, tt.want)
		}
	}
}

// A container may have ever so many log files, if they go again.
// The number of the process that a file was found by may be that of another container's process by the next look.
func TestLogFileOfAProcessWhoseNumberIsReused(t *testing.T) {
	proc := t.TempDir()
	process := func(pid int) string {
		t.Helper()
		if err := os.MkdirAll(fmt.Sprintf("%s/%d/root", proc, pid), 0o700); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s/%d/root", proc, pid)
	}
	inv := &Inventory{}
	inv.opts.ProcRoot = proc
	first, other := process(7), process(8)
	f := &logFile{File: logfiles.File{Path: "/app.log", Root: first}, followed: true}
	f.seen, _ = rootOf(first)
	l := &life{container: &container{logs: logState{files: map[string]*logFile{f.Path: f}}}}
	inv.rootAnew(l, []int{7, 8})
	if f.Root != first || !f.followed {
		t.Errorf("followed by way of %s while its process is there", f.Root)
	}
	if err := os.Rename(first, first+".gone"); err != nil { // its inode stays in use
		t.Fatal(err)
	}
	process(7)
	inv.rootAnew(l, []int{8})
	if f.Root != other || f.followed || !l.container.logs.newFiles {
		t.Errorf("followed by way of %s, which is another's", f.Root)
	}
}

func TestLogFilesThatAreGone(t *testing.T) {
	h := newLogHost(t, Options{Logs: LogsOptions{Roots: []string{"/"}, GoneAfter: 100 * time.Millisecond}})
	h.cgroup(dockerA, 0)
	h.log(hexA, 1)
	h.tellLog(dockerA, hexA, "web")
	h.want("/docker/web", 1)
	h.inv.mu.Lock()
	l := h.inv.containers["/"+dockerA].current
	h.inv.mu.Unlock()
	write := func(name string) {
		t.Helper()
		path := filepath.Join(h.dir, name)
		if err := os.WriteFile(path, []byte("INFO has done step 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		h.inv.addLogFile(l, os.Getpid(), logfiles.File{Path: "/" + name, Dev: st.Dev, Inode: st.Ino}, logtail.Beginning())
	}
	total := 1
	for n := range 3 {
		write("stays.log")
		if n == 0 {
			total++
		}
		for i := range 5 {
			write(fmt.Sprintf("job-%d.log", i))
			total++
		}
		h.settle()
		h.want("/docker/web", total)
		h.wantFollowed(1, 7)
		for i := range 5 {
			if err := os.Remove(filepath.Join(h.dir, fmt.Sprintf("job-%d.log", i))); err != nil {
				t.Fatal(err)
			}
		}
		h.eventually("two files followed", func() (string, bool) {
			h.settle()
			h.inv.mu.Lock()
			defer h.inv.mu.Unlock()
			n, files := h.inv.logs.Stats().Files.Sources, len(l.container.logs.files)
			return fmt.Sprint(n, files), n == 2 && files == 1
		})
	}
	// The log of its runtime may come back, however long it is gone.
	if err := os.Remove(filepath.Join(h.dir, hexA)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	h.settle()
	h.log(hexA, 1)
	h.want("/docker/web", total+1)
}

func TestLogsAreNotFollowedWhereTheyAreNotWanted(t *testing.T) {
	h := newLogHost(t, Options{Exclude: []*regexp.Regexp{regexp.MustCompile("^/docker/secret")}})
	h.cgroup(dockerA, 0)
	h.cgroup(dockerB, 0)
	h.log(hexA, 3)
	h.log(hexB, 4)
	h.tellLog(dockerA, hexA, "web", "COROOT_LOG_MONITORING")
	h.tellLog(dockerB, hexB, "secret")
	h.settle()
	h.wantFollowed(0, 0)
	if n := h.counted("/docker/web"); n != -1 {
		t.Errorf("%d messages of one that asks not to be followed", n)
	}

	h.tellLog(dockerA, hexA, "web") // it has changed its mind
	h.want("/docker/web", 3)
	h.tellLog(dockerB, hexB, "public")
	h.walk()
	h.tellLog(dockerB, hexB, "public")
	h.settle()
	h.log(hexB, 5)
	h.want("/docker/public", 5) // what it wrote while it was not wanted is not counted
	h.wantFollowed(2, 2)

	h.tellLog(dockerA, hexA, "web", "EBPF_CONTAINER_LOGS")
	h.tellLog(dockerB, hexB, "secret")
	h.settle()
	h.wantFollowed(0, 0)
	if n := h.counted("/docker/web"); n != -1 {
		t.Errorf("%d messages of one that asks not to be followed any more", n)
	}
}

// What nobody knows has its cgroup's name, and no log.
func TestNoLogsWithoutARuntime(t *testing.T) {
	h := newLogHost(t, Options{})
	h.cgroup(dockerA, 0)
	h.directory.answer(cgroups.ParsePath("/"+dockerA), runtimes.Info{}, runtimes.ErrNobodyKnows)
	h.settle()
	h.wantFollowed(0, 0)
	h.remove(dockerA)
	h.settle()
	h.wantFollowed(0, 0)
}
