// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestLogsInFiles follows the files that containers and services write to, as found by what they hold open and by the kernel.
func TestLogsInFiles(t *testing.T) {
	requireRoot(t, "ip", "nsenter", "dockerd", "containerd", "docker", "runc", "busybox")
	ctx := testContext(t)
	s := makeLogScene(ctx, t)
	s.startDocker(ctx, t)
	hostLogs := publicDir(t) // the host's own are not looked at
	unitFile := filepath.Join(hostLogs, "e2e-unit.log")
	begin := s.makeFileWriters(ctx, t)
	unit := s.makeFileUnit(t, unitFile)
	s.docker.run(ctx, t, "start", "e2e-old")
	s.awaitFile(ctx, t, "ready-old")

	s.start(ctx, t, map[string]string{"docker": s.docker.socket}, "roots: [/var/log, "+hostLogs+"]")
	s.write(t, "go", "")
	s.docker.run(ctx, t, append([]string{"start"}, begin...)...)
	p := start(t, "unit", exec.Command(unit[0], unit[1:]...))
	s.awaitFile(ctx, t, "ready-children") // for longer than the files of one that is gone are followed
	s.docker.run(ctx, t, "start", "e2e-lives")
	s.check(ctx, t)
	if err := p.running(); err != nil {
		t.Error(err)
	}
}

// makeFileWriters returns the names of the containers that are to be started.
func (s *logScene) makeFileWriters(ctx context.Context, t *testing.T) (begin []string) {
	t.Helper()
	add := func(name, source, shell string, n int, options ...string) *writer {
		w := s.createDocker(ctx, t, "e2e-"+name, "mkdir -p /var/log; "+shell, options...)
		w.messages = numbered(name, source, n)
		s.write(t, name, text(w.messages))
		begin = append(begin, "e2e-"+name)
		return w
	}
	add("held", "/var/log/app.log", "exec 3>>/var/log/app.log; each /texts/held >&3; rest", 300)
	add("each", "/var/log/sub/x.log", "mkdir -p /var/log/sub; while IFS= read -r line; do echo \"$line\" >> /var/log/sub/x.log; done < /texts/each; rest", 300)
	add("once", "/var/log/once.log", "cat /texts/once > /var/log/once.log & wait; rest", 3)
	// A container that ends at once takes its files along, but for those of a volume.
	add("brief", "/var/log/brief.log", "cat /texts/brief > /var/log/brief.log; sleep 1", 5)
	add("slow", "/var/log/slow.log", `exec 3>>/var/log/slow.log
while IFS= read -r line; do echo -n "${line%work}" >&3; sleep 0.02; echo work >&3; done < /texts/slow; rest`, 20)
	add("various", "/var/log/various.log", "cat /texts/various >> /var/log/various.log; rest", 0).messages = variety("/var/log/various.log")
	s.write(t, "various", text(variety("")))
	add("rotated", "/var/log/r.log", `exec 3>>/var/log/r.log; n=0
while IFS= read -r line; do echo "$line" >&3; n=$((n+1)); case $n in *00) sleep 0.3; mv /var/log/r.log /var/log/r.log.1; exec 3>>/var/log/r.log;; esac; done < /texts/rotated; rest`, 450)
	// Each line by a process of its own, for longer than a file is kept that seems to be gone.
	add("children", "/var/log/children.log", `while IFS= read -r line; do /busybox sh -c 'echo "$0" >> /var/log/children.log' "$line"; sleep 0.1; done < /texts/children
echo > /texts/ready-children; rest`, 80)
	lives := add("lives", "/var/log/lives.log", "read -r i < /texts/life; echo 2 > /texts/life; cat /texts/lives$i >> /var/log/lives.log; sleep 0.5", 100)
	s.write(t, "life", "1\n")
	s.write(t, "lives1", text(lives.messages[:50]))
	s.write(t, "lives2", text(lives.messages[50:]))
	volume := publicDir(t)
	add("volume", "/var/log/app.log", "each /texts/volume >> /var/log/app.log; rest", 100, "-v", volume+":/var/log")
	shared := publicDir(t)
	one := add("one", "/var/log/shared/both.log", "exec 3>>/var/log/shared/both.log; each /texts/one >&3; rest", 200, "-v", shared+":/var/log/shared")
	two := add("two", "/var/log/shared/both.log", "exec 3>>/var/log/shared/both.log; each /texts/two >&3; rest", 200, "-v", shared+":/var/log/shared")
	one.shared, two.shared = two, one

	old := numbered("old", "/var/log/old.log", 250)
	s.write(t, "old", text(old[:100]))
	s.write(t, "new", text(old[100:]))
	s.createDocker(ctx, t, "e2e-old", `mkdir -p /var/log; exec 3>>/var/log/old.log; cat /texts/old >&3; echo > /texts/ready-old
until [ -e /texts/go ]; do sleep 0.1; done; each /texts/new >&3; rest`).messages = old[100:]
	return begin
}

// makeFileUnit has a service that writes to a file of the host, and returns its command.
func (s *logScene) makeFileUnit(t *testing.T, file string) []string {
	t.Helper()
	w := s.add("unit", systemdUnit(makeCgroup(t, fmt.Sprintf("/system.slice/e2e-%d.service", time.Now().UnixNano()))), numbered("unit", file, 200)...)
	s.write(t, "unit", text(w.messages))
	return w.who.cgroup.inside(s.load, "/bin/sh", "-ec", `while IFS= read -r line; do echo "$line" >> "$1"; done < "$0"; exec sleep 600`,
		filepath.Join(s.texts, "unit"), file)
}
