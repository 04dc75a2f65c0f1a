// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// mortal is a container that ends, or in which something ends.
type mortal struct {
	name    string
	options []string // of docker create
	command []string
	want    deaths
	codes   []int // of its exits, as Docker and shells tell them

	who container
	pid int // of the main process, 0 when it was too quick for us
}

// deaths are the counters of a container.
type deaths struct {
	OOMKills, Restarts                     float64
	Completed, Error, Signalled, OOMKilled float64 // exits by reason
}

// deathScene is a Docker whose containers have died in many ways, and two receivers that have seen it.
type deathScene struct {
	docker     *docker
	collector  *collector
	prometheus *prometheus
	sink       sink
	mortals    []*mortal
	waiters    []*waiter
	apps       []app
	load       string
	service    container // started five times
	forerunner container // started once, with a program that runs before
}

const memoryLimit = 20 << 20

// mortals are what TestDeaths makes of Docker's containers.
func mortals() []*mortal {
	memory := []string{"--memory", strconv.Itoa(memoryLimit), "--memory-swap", strconv.Itoa(memoryLimit)}
	eat := []string{"/busybox", "tail", "/dev/zero"}
	sleep := []string{"/busybox", "sleep", "600"}
	return []*mortal{
		// How often is seen then.
		{name: "flapping", options: []string{"--restart", "always"}, command: []string{"/busybox", "sleep", "0.1"}},
		{name: "oom-restarted", options: append([]string{"--restart", "on-failure:4"}, memory...), command: eat,
			want: deaths{OOMKills: 5, Restarts: 4, OOMKilled: 5}, codes: []int{137, 137, 137, 137, 137}},
		{name: "leaderless", command: []string{"/load", "leaderless", "7"}, want: deaths{Error: 1}, codes: []int{7}},
		{name: "oom-main", options: memory, command: eat, want: deaths{OOMKills: 1, OOMKilled: 1}, codes: []int{137}},
		{name: "oom-child", options: memory, command: script("/busybox tail /dev/zero || exec /busybox sleep 600"),
			want: deaths{OOMKills: 2}},
		{name: "oom-again", options: memory, command: eat,
			want: deaths{OOMKills: 3, Restarts: 2, OOMKilled: 3}, codes: []int{137, 137, 137}},
		{name: "zero", command: script("exit 0"), want: deaths{Completed: 1}, codes: []int{0}},
		{name: "three", command: script("exit 3"), want: deaths{Error: 1}, codes: []int{3}},
		// The first process of a PID namespace would ignore SIGTERM.
		{name: "terminated", options: []string{"--pid", "host"}, command: sleep, want: deaths{Signalled: 1}, codes: []int{143}},
		{name: "killed", command: sleep, want: deaths{Signalled: 1}, codes: []int{137}},
		{name: "stopped", command: script("trap 'exit 0' TERM; /busybox sleep 600 & wait"),
			want: deaths{Completed: 1}, codes: []int{0}},
		{name: "restarted", command: sleep, want: deaths{Restarts: 3, Signalled: 3}, codes: []int{137, 137, 137}},
		{name: "execs", command: sleep},
	}
}

// TestDeaths follows how containers end from the kernel to PromQL and to log records, in both identities. The truth is
// Docker's, and that of processes about themselves.
func TestDeaths(t *testing.T) {
	requireRoot(t, "ip", "nsenter", "iptables", "dockerd", "containerd", "docker", "runc", "busybox", "prometheus")
	ctx := testContext(t)
	s := startDeathScene(ctx, t)
	events := s.docker.followEvents(t)
	s.play(ctx, t)

	for _, m := range s.mortals {
		s.checkDocker(ctx, t, m, events)
	}
	for _, id := range identities(t) {
		t.Run(id.name, func(t *testing.T) {
			for _, m := range s.mortals {
				s.checkDeaths(ctx, t, id, m.who, m.want)
			}
			s.checkDeaths(ctx, t, id, s.service, deaths{Restarts: 4, Completed: 5})
			s.checkDeaths(ctx, t, id, s.forerunner, deaths{Completed: 2})
			for _, m := range s.mortals {
				s.checkRecords(ctx, t, id, m)
			}
			all, err := s.prometheus.query(ctx, fmt.Sprintf("{__name__=~'container_.+',%s}", id.selector(s.named("oom-child").who)))
			if err == nil {
				err = id.checkLabels(s.named("oom-child").who, all)
			}
			if err != nil {
				t.Error(err)
			}
			for _, w := range s.waiters {
				s.checkDelay(ctx, t, id, w)
			}
			for _, a := range s.apps {
				s.checkApp(ctx, t, id, a)
			}
		})
	}
	s.collector.wantNoLoss(ctx, t, "events_lost", "events_dropped", "tasks_unaccounted", "tasks_unknown")
	s.prometheus.checkScrapes(ctx, t)
	s.prometheus.checkCounters(ctx, t)
}

// startDeathScene makes all containers and starts none of them: the collector sees each from its begin.
func startDeathScene(ctx context.Context, t *testing.T) *deathScene {
	t.Helper()
	binary := collectorBinary(ctx, t)
	load := buildLoad(ctx, t)
	rootfs := makeRootfs(t, load)
	copyProgram(t, load, filepath.Join(rootfs, "redis-server"))
	s := &deathScene{docker: startDocker(ctx, t, makeNetns(ctx, t)), mortals: mortals(), load: load}
	s.docker.importImage(ctx, t, rootfs)
	config := collectorConfig{interval: time.Second}
	create := func(name string, options, command []string) container {
		args := append([]string{"create", "--name", name, "--network", "none"}, options...)
		who := dockerContainer(s.docker.run(ctx, t, append(append(args, testImage), command...)...))
		config.containers = append(config.containers, who.path)
		return who
	}
	for _, m := range s.mortals {
		m.who = create(m.name, m.options, m.command)
	}
	s.waiters = waiters()
	for _, w := range s.waiters {
		w.gate = filepath.Join(t.TempDir(), "fifo")
		if err := syscall.Mkfifo(w.gate, 0o600); err != nil {
			t.Fatal(err)
		}
		w.who = create(w.name, []string{"-v", filepath.Dir(w.gate) + ":/gate"}, script(waiting))
	}
	stamp := time.Now().UnixNano()
	s.service = systemdUnit(makeCgroup(t, fmt.Sprintf("/system.slice/e2e-service-%d.service", stamp)))
	s.forerunner = systemdUnit(makeCgroup(t, fmt.Sprintf("/system.slice/e2e-forerunner-%d.service", stamp)))
	own := systemdUnit(makeCgroup(t, fmt.Sprintf("/system.slice/e2e-prometheus-%d.service", stamp)))
	config.containers = append(config.containers, s.service.path, s.forerunner.path, own.path)
	s.apps = []app{
		{who: own, types: []string{"golang", "prometheus"}},
		{who: create("redis", nil, []string{"/redis-server", "serve", "127.0.0.1:6379"}), types: []string{"golang", "redis"}},
		{who: s.named("execs").who}, // a shell's tools are no application
	}

	s.sink = startSink(ctx, t, binary)
	config.otlp = s.sink.address
	for _, id := range identities(t) {
		config.identities = append(config.identities, id.name)
	}
	s.collector = startCollector(ctx, t, binary, config)
	s.prometheus = startPrometheus(ctx, t, s.collector.targets, own.cgroup.inside(load)...)
	return s
}

func (s *deathScene) named(name string) *mortal {
	return s.mortals[slices.IndexFunc(s.mortals, func(m *mortal) bool { return m.name == name })]
}

// play lets everybody live and die, and returns when all is over but what goes on until the end.
func (s *deathScene) play(ctx context.Context, t *testing.T) {
	t.Helper()
	names := []string{"start"}
	for _, w := range s.waiters {
		names = append(names, w.name)
	}
	s.docker.run(ctx, t, append(names, "flapping", "oom-restarted", "leaderless", "redis")...)
	for _, w := range s.waiters {
		s.docker.run(ctx, t, append(append([]string{"update"}, w.limit...), w.name)...)
		w.open(ctx, t)
	}
	s.docker.run(ctx, t, "start", "oom-main", "oom-child", "zero", "three", "terminated", "killed", "stopped", "restarted", "execs")
	for _, name := range []string{"leaderless", "terminated", "killed", "stopped"} {
		m := s.named(name)
		var err error
		if m.pid, err = strconv.Atoi(s.docker.run(ctx, t, "inspect", "-f", "{{.State.Pid}}", name)); err != nil || m.pid < 2 {
			t.Fatalf("%s has pid %d: %v", name, m.pid, err)
		}
	}
	s.docker.run(ctx, t, "kill", "-s", "TERM", "terminated", "stopped")
	s.docker.run(ctx, t, "kill", "-s", "KILL", "killed")
	for _, command := range []string{"exit 0", "exit 3", "kill -KILL $$"} {
		// The status of docker exec is that of the command.
		_, _ = output(s.docker.command(ctx, append([]string{"exec", "execs"}, script(command)...)...))
	}
	if _, err := output(s.docker.command(ctx, "exec", "oom-child", "/busybox", "tail", "/dev/zero")); err == nil {
		t.Error("nobody killed a process for its memory")
	}
	for range 3 {
		s.docker.run(ctx, t, "restart", "-t", "0", "restarted")
		s.docker.run(ctx, t, "start", "oom-again")
		s.docker.run(ctx, t, "wait", "oom-again")
	}
	s.playServices(ctx, t)
	s.playLeaderless(ctx, t)
	s.playFlapping(ctx, t)
	s.docker.run(ctx, t, "wait", "oom-restarted", "leaderless", "oom-main", "zero", "three", "terminated", "killed", "stopped")
}

// playServices starts and stops a service five times as systemd does, each time with a new cgroup, and another one
// once, with a program that runs before its main one.
func (s *deathScene) playServices(ctx context.Context, t *testing.T) {
	t.Helper()
	one := func(who container) {
		command := who.cgroup.inside(s.load, "/bin/sleep", "0.05")
		run(ctx, t, command[0], command[1:]...)
	}
	began := time.Now()
	for range 5 {
		for _, dir := range s.service.cgroup.dirs() {
			if err := makeCgroupDir(dir, new([]string)); err != nil {
				t.Fatal(err)
			}
		}
		one(s.service)
		for _, dir := range s.service.cgroup.dirs() {
			if err := removeCgroupDir(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("the service started five times in %v", time.Since(began).Round(time.Millisecond))
	one(s.forerunner)
	one(s.forerunner)
}

// playLeaderless makes sure that the process is what it is to be, a main thread that has exited while others live, and
// that this is no exit. Then it ends the process.
func (s *deathScene) playLeaderless(ctx context.Context, t *testing.T) {
	t.Helper()
	m := s.named("leaderless")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.pid))
	if err != nil || !strings.Contains(string(status), "State:\tZ") {
		t.Errorf("leader: %v\n%s", err, status)
	}
	running := s.docker.run(ctx, t, "inspect", "-f", "{{.State.Running}}", m.name)
	for _, id := range identities(t) {
		got, err := s.deaths(ctx, id, m.who)
		if running != "true" || err != nil || got != (deaths{}) {
			t.Errorf("identity %s: a process without its leader, running: %s: %+v, %v", id.name, running, got, err)
		}
	}
	// Not by Docker, for which it does not run.
	if err := syscall.Kill(m.pid, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// playFlapping compares with Docker while it goes on restarting, and stops that.
func (s *deathScene) playFlapping(ctx context.Context, t *testing.T) {
	t.Helper()
	m := s.named("flapping")
	restarts := func() float64 {
		var n float64
		var waiting bool
		told := s.docker.run(ctx, t, "inspect", "-f", "{{.RestartCount}} {{.State.Restarting}}", m.name)
		if _, err := fmt.Sscan(told, &n, &waiting); err != nil {
			t.Fatalf("%q: %v", told, err)
		}
		if waiting {
			n-- // Docker counts a restart, and then waits with it
		}
		return n
	}
	for _, id := range identities(t) {
		eventually(ctx, t, 30*time.Second, "restarts meanwhile in identity "+id.name, func() error {
			before := restarts()
			got, err := s.deaths(ctx, id, m.who)
			if after := restarts(); err == nil && (got.Restarts < before || got.Restarts > after || before < 3) {
				err = fmt.Errorf("restarts %v, Docker had %v before and %v after", got.Restarts, before, after)
			}
			return err
		})
	}
	s.docker.run(ctx, t, "stop", "-t", "0", m.name)
}

// deaths reads the counters of a container, which may be gone.
func (s *deathScene) deaths(ctx context.Context, id identity, who container) (deaths, error) {
	var d deaths
	all, err := s.prometheus.query(ctx, fmt.Sprintf(
		"last_over_time({__name__=~'container_(oom_kills|restarts|exits)_total',%s}[5m])", id.selector(who)))
	for _, one := range all {
		switch one.labels["__name__"] + one.labels["reason"] {
		case "container_oom_kills_total":
			d.OOMKills = one.value
		case "container_restarts_total":
			d.Restarts = one.value
		case "container_exits_totalcompleted":
			d.Completed = one.value
		case "container_exits_totalerror":
			d.Error = one.value
		case "container_exits_totalsignal":
			d.Signalled = one.value
		case "container_exits_totaloom_killed":
			d.OOMKilled = one.value
		}
	}
	if err == nil && len(all) != 6 {
		err = fmt.Errorf("%d series: %v", len(all), all)
	}
	return d, err
}

func (s *deathScene) checkDeaths(ctx context.Context, t *testing.T, id identity, who container, want deaths) {
	t.Helper()
	eventually(ctx, t, 10*time.Second, "ends of "+who.path, func() error {
		got, err := s.deaths(ctx, id, who)
		if diff := cmp.Diff(want, got); err == nil && diff != "" {
			err = fmt.Errorf("(-want +got):\n%s", diff)
		}
		return err
	})
}

// checkDocker makes sure that Docker saw what this test counts on.
func (s *deathScene) checkDocker(ctx context.Context, t *testing.T, m *mortal, events *process) {
	t.Helper()
	if m.name == "flapping" {
		m.codes = diedWith(t, events, m.who.id)
		for _, code := range m.codes {
			if code == 0 {
				m.want.Completed++
			} else {
				m.want.Signalled++ // it was running when it was stopped
			}
		}
		m.want.Restarts = float64(strings.Count(events.output(t), m.who.id+" start") - 1)
	}
	eventually(ctx, t, 20*time.Second, "Docker's events of "+m.name, func() error {
		if diff := cmp.Diff(m.codes, diedWith(t, events, m.who.id)); diff != "" {
			return fmt.Errorf("exit codes (-want +got):\n%s", diff)
		}
		return nil
	})
	starts := strings.Count(events.output(t), m.who.id+" start")
	if starts != int(m.want.Restarts)+1 {
		t.Errorf("Docker started %s %d times, want %v restarts", m.name, starts, m.want.Restarts)
	}
	told := s.docker.run(ctx, t, "inspect", "-f", "{{.State.OOMKilled}}", m.name)
	if want := strconv.FormatBool(m.want.OOMKilled > 0); told != want && len(m.codes) > 0 {
		// containerd may tell Docker of the exit before it tells of the OOM kill; then Docker never says it.
		if told == "true" {
			t.Errorf("Docker says of %s OOMKilled %s, want %s", m.name, told, want)
		}
	}
}
