// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

// checkRename gives new names to containers that run: their series go on under these, and those under the old ones end.
func (s *nameScene) checkRename(ctx context.Context, t *testing.T) {
	t.Helper()
	type renaming struct {
		n        *named
		old, new container
		before   map[string]float64 // CPU time by identity
	}
	const cpu = "container_resources_cpu_usage_seconds_total"
	var all []*renaming
	for _, n := range s.all {
		switch n.who.path {
		case "/docker/e2e-web", "/podman/e2e-pod", "/containerd/e2e/e2e-nerd":
		default:
			continue
		}
		r := &renaming{n: n, old: n.who, new: n.who, before: map[string]float64{}}
		name := n.who.semconv["container_name"]
		r.new.path = strings.TrimSuffix(n.who.path, name) + name + "-2"
		r.new.semconv = maps.Clone(n.who.semconv)
		r.new.semconv["container_name"] = name + "-2"
		for _, id := range identities(t) {
			p, err := readPage(ctx, s.collector.targets[id.name])
			if r.before[id.name] = p.of(id, r.old).sum(cpu); err != nil || r.before[id.name] == 0 {
				t.Fatalf("CPU time of %s: %v, %v", r.old.path, p.of(id, r.old).named(cpu), err)
			}
		}
		all = append(all, r)
	}
	for _, r := range all {
		r.n.rename(r.new.semconv["container_name"])
		r.n.who = r.new
		s.renamed = append(s.renamed, r.old)
		began := time.Now()
		for _, id := range identities(t) {
			// The runtime has to tell it, and a page may be as old as a collection.
			eventually(ctx, t, 2*namesInterval+10*time.Second-time.Since(began), r.old.path+" has another name in identity "+id.name, func() error {
				p, err := readPage(ctx, s.collector.targets[id.name])
				if err != nil {
					return err
				}
				if now := p.of(id, r.new).sum(cpu); now < r.before[id.name] {
					return fmt.Errorf("CPU time was %v, is %v", r.before[id.name], now)
				}
				if left := p.of(id, r.old); len(left) > 0 {
					return fmt.Errorf("%d series with the old name, such as %v", len(left), left[0])
				}
				return nil
			})
		}
	}
	for _, id := range identities(t) {
		eventually(ctx, t, 20*time.Second, "new names in Prometheus in identity "+id.name, func() error {
			now, err := s.prometheus.query(ctx, fmt.Sprintf("{__name__=~'container_.+',job=%q}", id.name))
			if err == nil {
				err = wantOnly(now, id, s.shown())
			}
			return err
		})
		for _, r := range all {
			got, err := s.prometheus.value(ctx, cpu+"{"+id.selector(r.new)+"}")
			if err != nil || got < r.before[id.name] {
				t.Errorf("CPU time of %s: %v, %v; was %v before it was renamed", r.new.path, got, err, r.before[id.name])
			}
		}
	}
}

// checkReuse removes a container and makes another one of the same name.
func (s *nameScene) checkReuse(ctx context.Context, t *testing.T) {
	t.Helper()
	const cpu = "container_resources_cpu_usage_seconds_total"
	burn := func(cpu time.Duration) container {
		id := s.docker.run(ctx, t, append([]string{"run", "-d", "--name", "e2e-again", testImage},
			script(fmt.Sprintf("/load burn -cpu %v; exec /busybox sleep 600", cpu))...)...)
		return container{path: "/docker/e2e-again", id: id, semconv: namedAs("docker", id, "e2e-again", testImage)}
	}
	wait := func(what string, check func(id identity, p page) error) {
		t.Helper()
		for _, id := range identities(t) {
			eventually(ctx, t, 10*time.Second, what+" in identity "+id.name, func() error {
				p, err := readPage(ctx, s.collector.targets[id.name])
				if err == nil {
					err = check(id, p)
				}
				return err
			})
		}
	}
	first := burn(500 * time.Millisecond)
	wait("the first one", func(id identity, p page) error {
		if got := p.of(id, first).sum(cpu); got < 0.5 {
			return fmt.Errorf("CPU time: %v", got)
		}
		return nil
	})
	s.docker.run(ctx, t, "rm", "-f", first.id)
	second := burn(300 * time.Millisecond)
	wait("the second one", func(id identity, p page) error {
		one, two := p.of(id, first), p.of(id, second)
		if id.name == "coroot" { // they are the same
			got, restarts := one.sum(cpu), one.sum("container_restarts_total")
			if got < 0.5 {
				t.Fatalf("the CPU time fell to %v", got)
			}
			if got < 0.8 || got > 1.6 || restarts != 1 || len(one.named(cpu)) != 1 {
				return fmt.Errorf("CPU time %v, restarts %v", got, restarts)
			}
			return nil
		}
		if one.sum(cpu) < 0.5 || two.sum(cpu) < 0.3 || two.sum(cpu) > 0.7 || len(two.named("container_restarts_total")) != 1 ||
			one.sum("container_restarts_total") != 0 || two.sum("container_restarts_total") != 0 {
			return fmt.Errorf("CPU times %v and %v, restarts %v and %v", one.sum(cpu), two.sum(cpu),
				one.named("container_restarts_total"), two.named("container_restarts_total"))
		}
		return nil
	})
	s.all = append(s.all, &named{who: second})
	s.renamed = append(s.renamed, first)
}
