// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	downInterval = time.Second
	// namesWithin is how long, at most, the receiver waits for a name before it gives a container without one.
	namesWithin = 3 * time.Second
	// untilShown is how long it takes on a busy host until what is given is on the page of an exporter.
	untilShown = downInterval + 3*time.Second
)

// downScene is a Docker that goes away and comes back while its containers run.
type downScene struct {
	docker         *docker
	binary         string
	web            container // as Docker knows it
	webID, strayID container // without a name; stray is one that Docker does not know
	rootfs         string
}

// TestRuntimeDown kills and halts a Docker daemon: what has a name keeps it, what has none is given without one soon and
// gets it later, and collections go on.
func TestRuntimeDown(t *testing.T) {
	requireRoot(t, "ip", "nsenter", "iptables", "dockerd", "containerd", "docker", "runc", "busybox")
	keepDelayAccounting(t)
	ctx := testContext(t)
	s := &downScene{binary: collectorBinary(ctx, t), rootfs: makeRootfs(t, buildLoad(ctx, t))}
	s.docker = startDocker(ctx, t, makeNetns(ctx, t), "--live-restore")
	s.docker.importImage(ctx, t, s.rootfs)
	id := s.docker.run(ctx, t, append([]string{"run", "-d", "--name", "e2e-web", testImage}, ticking...)...)
	s.webID, s.strayID = dockerContainer(id), dockerContainer(containerID("stray"))
	s.web = s.webID
	s.web.path, s.web.semconv = "/docker/e2e-web", namedAs("docker", id, "e2e-web", testImage)

	early := s.start(ctx, t)
	watch := startWatch(t, early)
	s.wantShown(ctx, t, early, untilShown, s.web)
	s.kill(ctx, t, early)
	s.halt(ctx, t, early)
	for _, id := range identities(t) {
		got, _ := watch.resources(id.name)
		if want := id.resources(s.web, s.strayID); !slices.Equal(got, want) {
			t.Errorf("ever shown: %v, want %v", got, want)
		}
	}
}

func (s *downScene) start(ctx context.Context, t *testing.T) *collector {
	t.Helper()
	config := collectorConfig{
		interval:   downInterval,
		sockets:    map[string]string{"docker": s.docker.socket},
		containers: []string{s.web.path, s.webID.path, s.strayID.path},
	}
	for _, id := range identities(t) {
		config.identities = append(config.identities, id.name)
	}
	return startCollector(ctx, t, s.binary, config)
}

// wantShown waits until exactly these containers are shown.
func (s *downScene) wantShown(ctx context.Context, t *testing.T, c *collector, within time.Duration, all ...container) {
	t.Helper()
	began := time.Now()
	for _, id := range identities(t) {
		eventually(ctx, t, within-time.Since(began), fmt.Sprintf("%d containers in identity %s", len(all), id.name), func() error {
			p, err := readPage(ctx, c.targets[id.name])
			if err == nil {
				err = wantOnly(p, id, all)
			}
			return err
		})
	}
}

// cpu returns the CPU time that is shown of a container.
func (s *downScene) cpu(ctx context.Context, t *testing.T, c *collector, id identity, who container) float64 {
	t.Helper()
	p, err := readPage(ctx, c.targets[id.name])
	if err != nil {
		t.Fatal(err)
	}
	return p.of(id, who).sum("container_resources_cpu_usage_seconds_total")
}

// kill ends the daemon as a crash would, and starts it again.
func (s *downScene) kill(ctx context.Context, t *testing.T, early *collector) {
	t.Helper()
	if err := s.docker.daemon.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.docker.daemon.wait(ctx, t)
	eventually(ctx, t, 20*time.Second, "the collector says that Docker is down", func() error {
		return early.wantRuntime(ctx, "docker", false, 1, 100)
	})
	if err := os.Remove(s.docker.socket); err != nil { // refuses to early, is not there for late
		t.Fatal(err)
	}
	began := time.Now()
	late := s.start(ctx, t)
	s.wantShown(ctx, t, late, untilShown, s.webID)
	t.Logf("without a name %v after the start of the collector", time.Since(began).Round(time.Millisecond))
	ofDocker := func(s series) bool { return s.labels["runtime"] == "docker" }
	if own, err := late.readOwn(ctx); err != nil || slices.ContainsFunc(own, ofDocker) {
		t.Errorf("want nothing said of a runtime that is not installed: %v, %v", own, err)
	}
	before := map[string]float64{}
	for _, id := range identities(t) {
		before[id.name] = s.cpu(ctx, t, late, id, s.webID)
	}
	s.docker.start(ctx, t)
	s.wantShown(ctx, t, late, 10*time.Second, s.web)
	s.wantShown(ctx, t, early, untilShown, s.web)
	for _, id := range identities(t) {
		if now := s.cpu(ctx, t, late, id, s.web); now < before[id.name] || before[id.name] == 0 {
			t.Errorf("CPU time with a name %v, before that %v", now, before[id.name])
		}
	}
	for c, errors := range map[*collector]float64{early: 1, late: 0} {
		eventually(ctx, t, 20*time.Second, "the collector says that Docker is up", func() error {
			return c.wantRuntime(ctx, "docker", true, errors, math.Inf(1))
		})
	}
	late.process.stop(t)
}

// halt makes the daemon hang, and go on again.
func (s *downScene) halt(ctx context.Context, t *testing.T, early *collector) {
	t.Helper()
	signal := func(sig syscall.Signal) {
		if err := s.docker.daemon.cmd.Process.Signal(sig); err != nil {
			t.Error(err)
		}
	}
	signal(syscall.SIGSTOP)
	t.Cleanup(func() { signal(syscall.SIGCONT) }) // before it is asked to end
	stray := startRunc(t, s.strayID.id, s.rootfs, s.strayID.cgroup.path, "", ticking...)
	began := time.Now()
	s.wantShown(ctx, t, early, namesWithin+untilShown, s.web, s.strayID)
	t.Logf("one that began while Docker hung is given after %v", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	late := s.start(ctx, t)
	s.wantShown(ctx, t, late, namesWithin+untilShown, s.webID, s.strayID)
	t.Logf("a collector that began while Docker hung gives all %v after its start", time.Since(began).Round(time.Millisecond))
	for _, c := range []*collector{early, late} {
		eventually(ctx, t, 20*time.Second, "the collector says that Docker hangs", func() error {
			return c.wantRuntime(ctx, "docker", false, 1, math.Inf(1))
		})
		s.wantQuickCollections(ctx, t, c)
	}
	s.wantFlow(ctx, t, early, s.web)
	s.wantFlow(ctx, t, late, s.webID)
	signal(syscall.SIGCONT)
	s.wantShown(ctx, t, late, 15*time.Second, s.web, s.strayID)
	stray.remove(t)
}

// wantFlow waits until a container that uses CPU time is shown to have used more.
func (s *downScene) wantFlow(ctx context.Context, t *testing.T, c *collector, who container) {
	t.Helper()
	for _, id := range identities(t) {
		before := s.cpu(ctx, t, c, id, who)
		eventually(ctx, t, untilShown, "more CPU time while Docker hangs in identity "+id.name, func() error {
			if now := s.cpu(ctx, t, c, id, who); now <= before {
				return fmt.Errorf("was %v, is %v", before, now)
			}
			return nil
		})
	}
}

// wantQuickCollections fails the test if one has taken a second.
func (s *downScene) wantQuickCollections(ctx context.Context, t *testing.T, c *collector) {
	t.Helper()
	own, err := c.readOwn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	all, quick := 0.0, 0.0
	for _, m := range own {
		switch {
		case m.labels["__name__"] == "otelcol_ebpf_container_scrape_duration_count":
			all += m.value
		case strings.HasSuffix(m.labels["__name__"], "scrape_duration_bucket") && m.labels["le"] == "1":
			quick += m.value
		}
	}
	if all == 0 || quick != all {
		t.Errorf("%v of %v parts of collections took less than a second", quick, all)
	}
}
