// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const journaldPath = "/lib/systemd/systemd-journald"

// journald is a daemon of the test's own, in a mount namespace that has its socket and files in the usual places.
type journald struct {
	dir    string // of journal files, on the host
	mounts string // its mount namespace
}

func startJournald(ctx context.Context, t *testing.T) journald {
	t.Helper()
	dir := publicDir(t)
	j := journald{dir: filepath.Join(dir, "log", "journal")}
	command := "exec " + journaldPath
	for _, at := range []struct{ name, over string }{
		{"socket", "/run/systemd/journal"}, {"conf", "/run/systemd/journald.conf.d"}, {"log", "/run/log"},
	} {
		if err := os.Mkdir(filepath.Join(dir, at.name), 0o755); err != nil {
			t.Fatal(err)
		}
		makeMountPoint(t, at.over)
		command = fmt.Sprintf("mount --bind %s/%s %s; ", dir, at.name, at.over) + command
	}
	const config = "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\nForwardToWall=no\nRateLimitIntervalSec=0\n"
	if err := os.WriteFile(filepath.Join(dir, "conf/e2e.conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-ec", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	p := start(t, "journald", cmd)
	j.mounts = fmt.Sprintf("/proc/%d/ns/mnt", p.cmd.Process.Pid)
	eventually(ctx, t, 10*time.Second, "journald listens", func() error {
		if err := p.running(); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(filepath.Join(dir, "socket/stdout"))
		return err
	})
	return j
}

// makeMountPoint makes a directory of the host, and removes it when the test ends.
func makeMountPoint(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	makeMountPoint(t, filepath.Dir(dir))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
}

// TestLogsInJournal follows a service and containers whose log is the journal, and Podman's other log beside.
func TestLogsInJournal(t *testing.T) {
	requireRoot(t, "ip", "nsenter", "dockerd", "containerd", "docker", "runc", "busybox", "mount", "systemd-cat", journaldPath)
	ctx := testContext(t)
	s := makeLogScene(ctx, t)
	j := startJournald(ctx, t)
	s.ns.mounts = j.mounts
	s.startDocker(ctx, t)
	sockets := map[string]string{"docker": s.docker.socket}

	w := s.createDocker(ctx, t, "e2e-journal", "cat /texts/various; each /texts/journal; rest", "--log-driver", "journald")
	w.messages = append(variety(onJournal), numbered("journal", onJournal, 300)...)
	s.write(t, "various", text(variety(onJournal)))
	s.write(t, "journal", text(numbered("journal", onJournal, 300)))
	unit := s.makeJournalUnit(t, j)
	begin := s.makePodman(ctx, t, sockets)

	s.start(ctx, t, sockets, "roots: []", "journal_dirs: ["+j.dir+"]")
	s.docker.run(ctx, t, "start", "e2e-journal")
	begin()
	p := start(t, "unit", exec.Command(unit[0], unit[1:]...))
	s.check(ctx, t)
	if err := p.running(); err != nil {
		t.Error(err)
	}
	t.Run("podman", func(t *testing.T) { requireRoot(t, "podman") }) // says so if it is missing
}

// makeJournalUnit has a service that logs with priorities, and by words in its output; it returns its command.
func (s *logScene) makeJournalUnit(t *testing.T, j journald) []string {
	t.Helper()
	w := s.add("unit", systemdUnit(makeCgroup(t, fmt.Sprintf("/system.slice/e2e-%d.service", time.Now().UnixNano()))))
	var entries []string
	for i := range 160 {
		priority := i % 8
		level := [8]string{"critical", "critical", "critical", "error", "warning", "info", "info", "debug"}[priority]
		w.messages = append(w.messages, message{onJournal, level, fmt.Sprintf("the unit tells number %d of errors", i)})
		entries = append(entries, fmt.Sprintf("MESSAGE=%s\nPRIORITY=%d", w.messages[i].text, priority))
	}
	s.write(t, "entries", strings.Join(entries, "\n\n"))
	// What is written to the output has the priority of informational messages, whatever it says.
	output := []message{{onJournal, "error", javaTrace}, {onJournal, "info", "nothing is said of levels"}}
	output = append(output, numbered("unit", onJournal, 100)...)
	s.write(t, "unit", text(output))
	w.messages = append(w.messages, output...)
	// Each writer goes on: journald asks /proc for the cgroup of who has written.
	return w.who.cgroup.inside(s.load, "/bin/sh", "-ec",
		`nsenter "--mount=$1" systemd-cat sh -c 'while IFS= read -r line; do printf "%s\n" "$line"; done < "$0"; exec sleep 600' "$2/unit" &
exec "$0" journal "$3/socket" "$2/entries"`,
		s.load, j.mounts, s.texts, filepath.Join(filepath.Dir(filepath.Dir(j.dir)), "socket"))
}

// makePodman has a container for each of Podman's log drivers, and returns what starts them. Without Podman there are none.
func (s *logScene) makePodman(ctx context.Context, t *testing.T, sockets map[string]string) (begin func()) {
	t.Helper()
	if _, err := exec.LookPath("podman"); err != nil {
		return func() {}
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	s.docker.run(ctx, t, "save", "-o", archive, testImage)
	p := startPodman(ctx, t, s.ns)
	sockets["podman"] = p.socket
	p.run(ctx, t, "load", "-i", archive)
	const image = "localhost/" + testImage
	s.write(t, "podman", text(numbered("podman", "", 200)))
	var ids []string
	for driver, source := range map[string]string{"k8s-file": onOutput, "journald": onJournal} {
		name := "e2e-" + driver
		id := p.run(ctx, t, append([]string{"create", "--pull", "never", "--name", name, "--log-driver", driver, "-v", s.texts + ":/texts", image},
			script(inBusybox+"each /texts/podman; cat /texts/various; rest")...)...)
		s.add(driver, container{path: "/podman/" + name, id: id, semconv: namedAs("podman", id, name, image)},
			append(numbered("podman", source, 200), variety(source)...)...)
		ids = append(ids, id)
	}
	return func() { p.run(ctx, t, append([]string{"start"}, ids...)...) }
}
