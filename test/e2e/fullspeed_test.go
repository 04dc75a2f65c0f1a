// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"fmt"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// TestFullSpeed counts connections made as fast as this machine can: every single one, and no failure. Two receivers
// in one process see the same.
func TestFullSpeed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds of full load")
	}
	requireRoot(t, "prometheus")
	ctx := testContext(t)
	load := buildLoad(ctx, t)
	port := freePort(t)
	over4, over6 := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", port)
	startServer(ctx, t, load, over4, over6)

	type round struct {
		name, destination string
		connects          int
		flags             []string
		who               container
	}
	rounds := []round{
		{name: "IPv4", destination: over4, connects: 100_000, flags: []string{"-rotate"}},
		{name: "IPv4 over IPv6 sockets", destination: over4, connects: 20_000, flags: []string{"-rotate", "-mapped"}},
		{name: "IPv6", destination: over6, connects: 20_000},
	}
	config := collectorConfig{interval: time.Second}
	for i := range rounds {
		rounds[i].who = dockerContainer(containerID(rounds[i].name))
		makeCgroup(t, rounds[i].who.path)
		config.containers = append(config.containers, rounds[i].who.path)
	}
	for _, id := range identities(t) {
		config.identities = append(config.identities, id.name)
	}
	col := startCollector(ctx, t, collectorBinary(ctx, t), config)
	prom := startPrometheus(ctx, t, col.targets)

	for _, r := range rounds {
		t.Run(r.name, func(t *testing.T) {
			args := append([]string{"connect", "-n", strconv.Itoa(r.connects), "-c", "4"}, r.flags...)
			command := r.who.cgroup.inside(load, append(append([]string{load}, args...), r.destination)...)
			began := time.Now()
			out, err := output(exec.CommandContext(ctx, command[0], command[1:]...))
			took := time.Since(began)
			if err != nil {
				t.Fatal(err)
			}
			made := truths[connectTruth](t, out)
			if len(made) != 1 || made[0].Connected != int64(r.connects) {
				t.Fatalf("the load did not do its work: %s", out)
			}
			for _, id := range identities(t) {
				sel := id.selector(r.who)
				counted := -1.0
				eventually(ctx, t, 10*time.Second, "count in identity "+id.name, func() (err error) {
					counted, err = prom.value(ctx, fmt.Sprintf("sum(container_net_tcp_successful_connects_total{%s})", sel))
					if err == nil && counted < float64(made[0].Connected) {
						err = fmt.Errorf("made %d, counted %v", made[0].Connected, counted)
					}
					return err
				})
				t.Logf("%s, identity %s: made %d at %.0f/s, counted %.0f", r.name, id.name,
					made[0].Connected, float64(made[0].Connected)/took.Seconds(), counted)
				for expr, want := range map[string]float64{
					fmt.Sprintf("sum(container_net_tcp_successful_connects_total{%s,destination=%q})", sel, r.destination): float64(r.connects),
					fmt.Sprintf("sum(container_net_tcp_successful_connects_total{%s})", sel):                               float64(r.connects),
					fmt.Sprintf("sum(container_net_tcp_failed_connects_total{%s}) or vector(0)", sel):                      0,
				} {
					if err := prom.wantValue(ctx, expr, want); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	prom.checkScrapes(ctx, t)
	prom.checkCounters(ctx, t)

	col.wantNoLoss(ctx, t, "edges_folded", "edges_unaccounted", "events_lost")
}
