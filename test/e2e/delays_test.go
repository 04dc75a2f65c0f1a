// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// waiter is a container whose processes wait for a CPU.
type waiter struct {
	name  string
	limit []string // of docker update
	gate  string   // a FIFO: the container begins its work when something is written to it

	who container
}

func waiters() []*waiter {
	return []*waiter{
		{name: "quota", limit: []string{"--cpus", "0.1"}},
		{name: "one-cpu", limit: []string{"--cpuset-cpus", "0"}},
	}
}

// waiting is the script of waiters: two processes that use a CPU at the same time, and say how long they waited for it.
// The shell says that of itself, and goes to sleep.
const waiting = "read go </gate/fifo; /load burn -cpu 300ms & /load burn -cpu 300ms & wait; " +
	"read ran waited slices </proc/self/schedstat; echo shell $waited; exec /busybox sleep 600"

// open lets the work begin.
func (w *waiter) open(ctx context.Context, t *testing.T) {
	t.Helper()
	eventually(ctx, t, 20*time.Second, w.name+" is at its gate", func() error {
		// ENXIO until the other end is open.
		f, err := os.OpenFile(w.gate, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("go\n")
		return errors.Join(err, f.Close())
	})
}

// checkDelay compares with the sum of what the processes said of themselves when they were done.
func (s *deathScene) checkDelay(ctx context.Context, t *testing.T, id identity, w *waiter) {
	t.Helper()
	truth := 0.0
	eventually(ctx, t, 20*time.Second, "work is done by "+w.name, func() error {
		logs := s.docker.run(ctx, t, "logs", w.name)
		burnt := truths[burnTruth](t, logs)
		_, text, ok := strings.Cut(logs, "shell ")
		if len(burnt) != 2 || !ok {
			return fmt.Errorf("printed so far: %q", logs)
		}
		ns, err := strconv.ParseFloat(strings.TrimSpace(strings.Split(text, "\n")[0]), 64)
		truth = burnt[0].DelaySeconds + burnt[1].DelaySeconds + ns/1e9
		return err
	})
	sel := id.selector(w.who)
	eventually(ctx, t, 20*time.Second, "delay of "+w.name, func() error {
		got, err := s.prometheus.value(ctx, fmt.Sprintf("container_resources_cpu_delay_seconds_total{%s}", sel))
		if err != nil {
			return err
		}
		// Starting a container has its delays too, which nobody tells.
		if math.Abs(got-truth) > 0.05*truth+0.03 {
			return fmt.Errorf("got %v s, its processes waited %v s", got, truth)
		}
		throttled, err := s.prometheus.value(ctx, fmt.Sprintf("container_resources_cpu_throttled_seconds_total{%s}", sel))
		t.Logf("%s: delay of %.3f s, its processes waited %.3f s; throttled %.3f s (error: %v)", w.name, got, truth, throttled, err)
		return s.prometheus.wantValue(ctx, fmt.Sprintf("container_resources_delay_seconds_total{%s,kind='cpu'}", sel), got)
	})
}

// app is a container that runs something known.
type app struct {
	who   container
	types []string
}

func (s *deathScene) checkApp(ctx context.Context, t *testing.T, id identity, a app) {
	t.Helper()
	eventually(ctx, t, 10*time.Second, "application types of "+a.who.path, func() error {
		all, err := s.prometheus.query(ctx, fmt.Sprintf("container_application_type{%s} == 1", id.selector(a.who)))
		types := map[string]bool{}
		for _, one := range all {
			types[one.labels["application_type"]] = true
		}
		if got := slices.Sorted(maps.Keys(types)); err == nil && !slices.Equal(got, a.types) {
			err = fmt.Errorf("got %v, want %v", got, a.types)
		}
		return err
	})
}
