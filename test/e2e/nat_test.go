// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// natScene is a server in Docker with published ports and two containers that connect to them by the host's address.
type natScene struct {
	docker     *docker
	server     container
	bridged    container // on the same bridge
	hosted     container // in the host's network namespace
	backend    string    // address:port of the server on the bridge
	prometheus *prometheus
}

const (
	hostAddress = "198.18.255.2" // of makeNetns
	published   = hostAddress + ":8081"
	unpublished = hostAddress + ":8082"
	dead        = hostAddress + ":8083" // published, but the server does not listen there

	bridgedConnects = 400
	bridgedRefused  = 13
	hostedConnects  = 250
	hostedRefused   = 7
)

// TestPublishedPort follows connections to a port that Docker publishes to the container behind it.
func TestPublishedPort(t *testing.T) {
	requireRoot(t, "ip", "nsenter", "iptables", "dockerd", "containerd", "docker", "runc", "busybox", "prometheus")
	for _, tt := range []struct {
		name    string
		options []string // of dockerd
		proxy   bool     // docker-proxy holds the port on the host, and serves those on the server's bridge itself
		older   bool     // the server listens before the collector starts
	}{
		{name: "with docker-proxy", proxy: true, older: true},
		{name: "by translation alone", options: []string{"--userland-proxy=false"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := testContext(t)
			s := playNAT(ctx, t, tt.older, tt.options...)
			bridgedActual := s.backend
			if tt.proxy {
				bridgedActual = published
			}
			for _, id := range identities(t) {
				t.Run(id.name, func(t *testing.T) {
					s.checkClient(ctx, t, id, s.bridged, bridgedActual, bridgedConnects, unpublished, bridgedRefused)
					s.checkClient(ctx, t, id, s.hosted, s.backend, hostedConnects, dead, hostedRefused)
					s.checkServer(ctx, t, id, tt.proxy)
				})
			}
			s.docker.run(ctx, t, "kill", s.server.id)
			for _, id := range identities(t) {
				s.checkClosed(ctx, t, id)
			}
			s.prometheus.checkScrapes(ctx, t)
			s.prometheus.checkCounters(ctx, t)
		})
	}
}

// playNAT starts everything and returns when the load is done.
func playNAT(ctx context.Context, t *testing.T, older bool, options ...string) *natScene {
	t.Helper()
	binary := collectorBinary(ctx, t)
	load := buildLoad(ctx, t)
	rootfs := makeRootfs(t, load)
	service := makeCgroup(t, fmt.Sprintf("/system.slice/e2e-docker-%d.service", time.Now().UnixNano()))
	s := &natScene{docker: startDocker(ctx, t, makeNetns(ctx, t), options...)}
	s.docker.moveTo(t, service)
	s.docker.importImage(ctx, t, rootfs)

	serverID := s.docker.run(ctx, t, "create", "--name", "server", "-p", "8081:8080", "-p", "8083:9", testImage, "/load", "serve", ":8080")
	bridgedID := s.docker.create(ctx, t, "bridged", script(fmt.Sprintf(
		"/load connect -n %d -c 4 %s; /load connect -n %d %s; exec /busybox sleep 600",
		bridgedConnects, published, bridgedRefused, unpublished))...)
	hostedID := s.docker.run(ctx, t, append([]string{"create", "--name", "hosted", "--network", "host", testImage}, script(fmt.Sprintf(
		"/load connect -n %d %s; /load connect -n %d %s; exec /busybox sleep 600",
		hostedConnects, published, hostedRefused, dead))...)...)
	s.server, s.bridged, s.hosted = dockerContainer(serverID), dockerContainer(bridgedID), dockerContainer(hostedID)

	if older {
		s.startServer(ctx, t)
	}
	config := collectorConfig{interval: time.Second, containers: []string{s.server.path, s.bridged.path, s.hosted.path}}
	for _, id := range identities(t) {
		config.identities = append(config.identities, id.name)
	}
	s.prometheus = startPrometheus(ctx, t, startCollector(ctx, t, binary, config).targets)
	if !older {
		s.startServer(ctx, t)
	}
	for id, want := range map[string]connectTruth{
		bridgedID: {Connected: bridgedConnects, Refused: bridgedRefused},
		hostedID:  {Connected: hostedConnects, Refused: hostedRefused},
	} {
		s.docker.run(ctx, t, "start", id)
		eventually(ctx, t, 30*time.Second, "load is done", func() error {
			var got connectTruth
			for _, truth := range truths[connectTruth](t, s.docker.run(ctx, t, "logs", id)) {
				got.Connected += truth.Connected
				got.Refused += truth.Refused
			}
			if got != want {
				return fmt.Errorf("got %+v, want %+v", got, want)
			}
			return nil
		})
	}
	return s
}

func (s *natScene) startServer(ctx context.Context, t *testing.T) {
	t.Helper()
	s.docker.run(ctx, t, "start", s.server.id)
	s.backend = s.docker.address(ctx, t, s.server.id) + ":8080"
	eventually(ctx, t, 10*time.Second, "server listens", func() error {
		if s.docker.run(ctx, t, "logs", s.server.id) == "" {
			return fmt.Errorf("nothing printed")
		}
		return nil
	})
}

// moveTo puts dockerd, and what it starts from now on, into a cgroup, as systemd does: in the root of all hierarchies it
// would be the host itself.
func (d *docker) moveTo(t *testing.T, cg cgroup) {
	t.Helper()
	for _, dir := range cg.dirs() {
		pid := strconv.Itoa(d.daemon.cmd.Process.Pid)
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(pid), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// checkClient looks at one who has connected to the published port, and was refused somewhere else.
func (s *natScene) checkClient(ctx context.Context, t *testing.T, id identity, who container, actual string, connects float64, refusing string, refused float64) {
	t.Helper()
	sel := id.selector(who)
	connected := fmt.Sprintf("%s,destination=%q,actual_destination=%q", sel, published, actual)
	failed := fmt.Sprintf("%s,destination=%q", sel, refusing)
	s.wantAll(ctx, t, map[string]float64{
		"container_net_tcp_successful_connects_total{" + connected + "}":              connects,
		"sum(container_net_tcp_successful_connects_total{" + sel + "})":               connects,
		"container_net_tcp_active_connections{" + connected + "}":                     0,
		"container_net_tcp_connection_time_seconds_total{" + connected + "} > bool 0": 1,
		"container_net_tcp_failed_connects_total{" + failed + "}":                     refused,
		"sum(container_net_tcp_failed_connects_total{" + sel + "})":                   refused,
		"container_net_tcp_connect_errors_total{" + failed + `,error_type="refused"}`: refused,
		"sum(container_net_tcp_connect_errors_total{" + sel + "})":                    refused,
		"count(container_net_tcp_listen_info{" + sel + "}) or vector(0)":              0,
		"sum(container_net_tcp_inbound_connections_total{" + sel + "}) or vector(0)":  0,
	})
	s.checkLabels(ctx, t, id, who)
}

// checkServer looks at the one behind the port.
func (s *natScene) checkServer(ctx context.Context, t *testing.T, id identity, proxy bool) {
	t.Helper()
	sel := id.selector(s.server)
	want := map[string]float64{
		fmt.Sprintf("container_net_tcp_inbound_connections_total{%s,listen_addr=%q}", sel, s.backend): bridgedConnects + hostedConnects,
		fmt.Sprintf("sum(container_net_tcp_inbound_connections_total{%s})", sel):                      bridgedConnects + hostedConnects,
		fmt.Sprintf("container_net_tcp_inbound_active{%s,listen_addr=%q}", sel, s.backend):            0,
		fmt.Sprintf("container_net_tcp_listen_info{%s,listen_addr=%q,proxy=''}", sel, s.backend):      1,
		fmt.Sprintf("sum(container_net_tcp_successful_connects_total{%s}) or vector(0)", sel):         0,
	}
	if proxy { // without one the port is held by dockerd itself, which serves nobody
		want[fmt.Sprintf("container_net_tcp_listen_info{%s,listen_addr=%q,proxy='dockerd'}", sel, published)] = 1
	}
	s.wantAll(ctx, t, want)
	s.checkLabels(ctx, t, id, s.server)
}

// checkClosed waits until a server that has ended is not said to listen any more.
func (s *natScene) checkClosed(ctx context.Context, t *testing.T, id identity) {
	t.Helper()
	eventually(ctx, t, 25*time.Second, "nobody listens, in identity "+id.name, func() error {
		open, err := s.prometheus.query(ctx, fmt.Sprintf("container_net_tcp_listen_info{%s} == 1", id.selector(s.server)))
		if err == nil && len(open) > 0 {
			err = fmt.Errorf("%v", open)
		}
		return err
	})
}

// wantAll waits until each expression gives its number.
func (s *natScene) wantAll(ctx context.Context, t *testing.T, want map[string]float64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		var errs []error
		for expr, value := range want {
			if err := s.prometheus.wantValue(ctx, expr, value); err != nil {
				errs = append(errs, err)
			}
		}
		if len(errs) == 0 {
			return
		}
		if time.Now().After(deadline) {
			for _, err := range errs {
				t.Error(err)
			}
			return
		}
	}
}

func (s *natScene) checkLabels(ctx context.Context, t *testing.T, id identity, who container) {
	t.Helper()
	all, err := s.prometheus.query(ctx, fmt.Sprintf("{__name__=~'container_.+',%s}", id.selector(who)))
	if err == nil {
		err = id.checkLabels(who, all)
	}
	if err != nil {
		t.Error(err)
	}
}
