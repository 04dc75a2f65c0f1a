// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// scene is what TestEndToEnd sets up: who connects to whom, and who watches.
type scene struct {
	docker     *docker
	client     container // in Docker; connects to the server in another container of that Docker
	bare       container // of runc alone; connects to the same server, and burns CPU
	service    container // a systemd unit; connects over both loopbacks, and keeps some connections open
	unit       *process  // of service
	server     string    // address:port of the server
	closed     string    // address:port of the server's container where nobody listens
	loopback4  string
	loopback6  string
	burnt      burnTruth // what bare used
	prometheus *prometheus
	sinks      map[string]sink // of the identities
}

const (
	clientConnects = 1000
	clientRefused  = 37
	bareConnects   = 250
	serviceOver4   = 120
	serviceOver6   = 80
	serviceHeld    = 3    // more connections over IPv4, left open
	serviceSent    = 1000 // bytes over each of them
)

// TestEndToEnd follows connections, CPU time and memory from the kernel to PromQL, in both identities.
func TestEndToEnd(t *testing.T) {
	requireRoot(t, "ip", "nsenter", "iptables", "dockerd", "containerd", "docker", "runc", "busybox", "prometheus")
	ctx := testContext(t)
	s := playScene(ctx, t)

	for _, id := range identities(t) {
		t.Run(id.name, func(t *testing.T) {
			s.checkConnections(ctx, t, id)
			s.checkResources(ctx, t, id)
			s.checkSeries(ctx, t, id)
			s.checkOTLP(ctx, t, id)
		})
	}
	s.checkEnd(ctx, t)
	s.prometheus.checkScrapes(ctx, t)
	s.prometheus.checkCounters(ctx, t)
}

// playScene starts everything, runs the load and returns when the load is done.
func playScene(ctx context.Context, t *testing.T) *scene {
	t.Helper()
	binary := collectorBinary(ctx, t)
	load := buildLoad(ctx, t)
	rootfs := makeRootfs(t, load)
	ns := makeNetns(ctx, t)
	s := &scene{docker: startDocker(ctx, t, ns), sinks: map[string]sink{}}
	s.docker.importImage(ctx, t, rootfs)

	serverID := s.docker.create(ctx, t, "server", "/load", "serve", ":8080")
	s.docker.run(ctx, t, "start", serverID)
	address := s.docker.address(ctx, t, serverID)
	s.server, s.closed = address+":8080", address+":8081"
	eventually(ctx, t, 10*time.Second, "server listens", func() error {
		if s.docker.run(ctx, t, "logs", serverID) == "" {
			return fmt.Errorf("nothing printed")
		}
		return nil
	})
	port := freePort(t)
	s.loopback4, s.loopback6 = fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", port)
	startServer(ctx, t, load, s.loopback4, s.loopback6)

	clientID := s.docker.create(ctx, t, "client", script(fmt.Sprintf(
		"/load connect -n %d -c 4 %s; /load connect -n %d %s; exec /busybox sleep 600",
		clientConnects, s.server, clientRefused, s.closed))...)
	bareID := containerID("bare")
	s.client, s.bare = dockerContainer(clientID), containerdContainer("default", bareID)
	s.service = systemdUnit(makeCgroup(t, fmt.Sprintf("/system.slice/e2e-%d.service", time.Now().UnixNano())))

	targets := map[string]string{}
	for _, id := range identities(t) {
		s.sinks[id.name] = startSink(ctx, t, binary)
		c := startCollector(ctx, t, binary, collectorConfig{
			identities: []string{id.name},
			interval:   time.Second,
			containers: []string{s.client.path, s.bare.path, s.service.path, dockerContainer(serverID).path},
			otlp:       s.sinks[id.name].address,
		})
		targets[id.name] = c.targets[id.name]
	}
	s.prometheus = startPrometheus(ctx, t, targets)

	s.docker.run(ctx, t, "start", clientID)
	bare := startRunc(t, bareID, rootfs, s.bare.cgroup.path, ns.path(), script(fmt.Sprintf(
		"/load connect -n %d %s; /load burn -cpu 1500ms -memory 33554432; exec /busybox sleep 600", bareConnects, s.server))...)
	service := s.service.cgroup.inside(load, "/bin/sh", "-ec", fmt.Sprintf(
		"$0 connect -n %d %s; $0 connect -n %d '%s'; exec $0 connect -n %d -hold -send %d %s",
		serviceOver4, s.loopback4, serviceOver6, s.loopback6, serviceHeld, serviceSent, s.loopback4), load)
	s.unit = start(t, "service", exec.Command(service[0], service[1:]...))

	eventually(ctx, t, 30*time.Second, "load is done", func() error {
		ok := s.wantLoad(t, "client", s.docker.run(ctx, t, "logs", clientID), clientConnects, clientRefused) &&
			s.wantLoad(t, "bare", bare.process.output(t), bareConnects, 0) &&
			s.wantLoad(t, "service", s.unit.output(t), serviceOver4+serviceOver6+serviceHeld, 0)
		burnt := truths[burnTruth](t, bare.process.output(t))
		if !ok || len(burnt) < 2 {
			return fmt.Errorf("not all truths printed")
		}
		s.burnt = burnt[1]
		return nil
	})
	return s
}

// wantLoad tells whether the load has printed that it did what this test counts on.
func (s *scene) wantLoad(t *testing.T, who, out string, connected, refused int64) bool {
	t.Helper()
	var c, r int64
	for _, truth := range truths[connectTruth](t, out) {
		c, r = c+truth.Connected, r+truth.Refused
	}
	if c > connected || r > refused {
		t.Fatalf("the load of %s made %d and %d connections", who, c, r)
	}
	return c == connected && r == refused
}

// startServer serves in the main network namespace, outside of any container.
func startServer(ctx context.Context, t *testing.T, load string, addrs ...string) {
	t.Helper()
	p := start(t, "server", exec.Command(load, append([]string{"serve"}, addrs...)...))
	eventually(ctx, t, 20*time.Second, "server listens", func() error {
		if err := p.running(); err != nil {
			t.Fatal(err)
		}
		if p.output(t) == "" {
			return fmt.Errorf("nothing printed")
		}
		return nil
	})
}

// checkConnections waits for the totals, then looks at every series that adds up to them.
func (s *scene) checkConnections(ctx context.Context, t *testing.T, id identity) {
	t.Helper()
	type edge struct {
		destination             string
		good, bad, active, sent float64
	}
	for _, want := range []struct {
		who   container
		edges []edge
	}{
		{s.client, []edge{{destination: s.server, good: clientConnects}, {destination: s.closed, bad: clientRefused}}},
		{s.bare, []edge{{destination: s.server, good: bareConnects}}},
		{s.service, []edge{
			{destination: s.loopback4, good: serviceOver4 + serviceHeld, active: serviceHeld, sent: serviceHeld * serviceSent},
			{destination: s.loopback6, good: serviceOver6},
		}},
	} {
		sel := id.selector(want.who)
		var good, bad float64
		for _, e := range want.edges {
			good, bad = good+e.good, bad+e.bad
		}
		eventually(ctx, t, 10*time.Second, "connects of "+want.who.path, func() error {
			return s.prometheus.wantValue(ctx, fmt.Sprintf("sum(container_net_tcp_successful_connects_total{%s})", sel), good)
		})
		checks := map[string]float64{
			fmt.Sprintf("sum(container_net_tcp_failed_connects_total{%s})", sel):                  bad,
			fmt.Sprintf("sum(container_net_tcp_connection_time_seconds_total{%s}) > bool 0", sel): 1,
		}
		for _, e := range want.edges {
			failed := fmt.Sprintf("%s,destination=%q", sel, e.destination)
			other := fmt.Sprintf("%s,actual_destination=%q", failed, e.destination)
			checks["sum(container_net_tcp_failed_connects_total{"+failed+"})"] = e.bad
			for metric, value := range map[string]float64{
				"successful_connects_total": e.good,
				"active_connections":        e.active,
				"bytes_sent_total":          e.sent,
				"bytes_received_total":      0,
			} {
				checks["sum(container_net_tcp_"+metric+"{"+other+"}) or vector(0)"] = value
			}
		}
		for expr, value := range checks {
			if err := s.prometheus.wantValue(ctx, expr, value); err != nil {
				t.Error(err)
			}
		}
	}
}

// checkResources compares with the files of the cgroups, which have come to rest.
func (s *scene) checkResources(ctx context.Context, t *testing.T, id identity) {
	t.Helper()
	for _, who := range []container{s.client, s.bare, s.service} {
		sel := id.selector(who)
		eventually(ctx, t, 20*time.Second, "CPU time and memory of "+who.path, func() error {
			cpu, err := s.prometheus.value(ctx, fmt.Sprintf("container_resources_cpu_usage_seconds_total{%s}", sel))
			if err != nil {
				return err
			}
			file, err := who.cgroup.cpuSeconds()
			if err != nil {
				return err
			}
			if math.Abs(cpu-file) > 0.01 {
				return fmt.Errorf("CPU seconds: got %v, cgroup file has %v", cpu, file)
			}
			rss, err := s.prometheus.value(ctx, fmt.Sprintf("container_resources_memory_rss_bytes{%s}", sel))
			if err != nil {
				return err
			}
			if file, err = who.cgroup.rssBytes(); err != nil {
				return err
			}
			if math.Abs(rss-file) > 1<<20 {
				return fmt.Errorf("resident memory: got %v, cgroup file has %v", rss, file)
			}
			return nil
		})
	}
	// The file could be wrong in the same way: the load knows what it used.
	sel := id.selector(s.bare)
	for expr, least := range map[string]float64{
		fmt.Sprintf("container_resources_cpu_usage_seconds_total{%s}", sel): s.burnt.CPUSeconds,
		fmt.Sprintf("container_resources_memory_peak_bytes{%s}", sel):       s.burnt.Memory,
	} {
		switch got, err := s.prometheus.value(ctx, expr); {
		case err != nil:
			t.Error(err)
		case got < least || got > 2*least:
			t.Errorf("%s: got %v, the load used %v", expr, got, least)
		}
	}
}

// checkSeries looks at the labels of everything that is shown of the containers.
func (s *scene) checkSeries(ctx context.Context, t *testing.T, id identity) {
	t.Helper()
	shown := 0.0
	for _, who := range []container{s.client, s.bare, s.service} {
		all, err := s.prometheus.query(ctx, fmt.Sprintf("{__name__=~'container_.+',%s}", id.selector(who)))
		if err == nil {
			err = id.checkLabels(who, all)
		}
		if err != nil {
			t.Error(err)
		}
		shown += float64(len(all))
		t.Logf("%s has %d series", who.path, len(all))
	}
	// The server is included too; everybody else on this machine is not.
	others := fmt.Sprintf("count(count by (%s) ({__name__=~'container_.+',job=%q}))", "container_id, systemd_unit_name", id.name)
	if err := s.prometheus.wantValue(ctx, others, 4); err != nil {
		t.Error(err)
	}
}

// checkOTLP compares what was pushed to the other collector with what was scraped.
func (s *scene) checkOTLP(ctx context.Context, t *testing.T, id identity) {
	t.Helper()
	eventually(ctx, t, 10*time.Second, "OTLP gives the same", func() error {
		pushed, err := s.sinks[id.name].series()
		if err != nil {
			return err
		}
		scraped, err := s.prometheus.query(ctx, fmt.Sprintf("{__name__=~'container_.+',job=%q}", id.name))
		if err != nil {
			return err
		}
		coroot := []string{"app_id", "container_id", "machine_id", "system_uuid"} // empty or not
		for key, p := range pushed {
			if strings.HasPrefix(key, "node_") { // no container's
				delete(pushed, key)
				continue
			}
			if id.name == "coroot" && !slices.Equal(p.resource, coroot) {
				return fmt.Errorf("%s: resource attributes %v, want %v", key, p.resource, coroot)
			}
		}
		return comparePushedWithScraped(pushed, scraped)
	})
}

// checkEnd kills a process that has connections open: they are no longer active. It removes a container: its last
// totals stay for the grace time, then all its series end, and only they.
func (s *scene) checkEnd(ctx context.Context, t *testing.T) {
	t.Helper()
	s.unit.stop(t)
	for _, id := range identities(t) {
		sel := id.selector(s.service)
		eventually(ctx, t, 10*time.Second, "no active connections in identity "+id.name, func() error {
			return s.prometheus.wantValue(ctx, fmt.Sprintf("sum(container_net_tcp_active_connections{%s})", sel), 0)
		})
		sent := fmt.Sprintf("sum(container_net_tcp_bytes_sent_total{%s})", sel)
		if err := s.prometheus.wantValue(ctx, sent, serviceHeld*serviceSent); err != nil {
			t.Error(err)
		}
	}
	s.docker.run(ctx, t, "rm", "-f", s.client.id)
	for _, id := range identities(t) {
		sel := id.selector(s.client)
		eventually(ctx, t, 25*time.Second, "series end in identity "+id.name, func() error {
			all, err := s.prometheus.query(ctx, fmt.Sprintf("{__name__=~'container_.+',%s}", sel))
			if err != nil {
				return err
			}
			for _, one := range all {
				if one.labels["__name__"] == "container_net_tcp_successful_connects_total" &&
					one.labels["destination"] == s.server && one.value != clientConnects {
					t.Fatalf("the total changed after the container was gone: %v", one)
				}
			}
			if len(all) > 0 {
				return fmt.Errorf("still %d series, such as %v", len(all), all[0])
			}
			return nil
		})
		bare := fmt.Sprintf("sum(container_net_tcp_successful_connects_total{%s})", id.selector(s.bare))
		if err := s.prometheus.wantValue(ctx, bare, bareConnects); err != nil {
			t.Errorf("of another container: %v", err)
		}
	}
}
