// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// javaTrace is one message.
const javaTrace = `2026-11-21 10:00:01,250 ERROR [worker-7] com.acme.orders.Service - order 4711 was not taken
java.lang.IllegalStateException: stock is closed
	at com.acme.orders.Stock.take(Stock.java:117)
	at com.acme.orders.Service.accept(Service.java:64)
	at java.base/java.lang.Thread.run(Thread.java:840)
Caused by: java.net.ConnectException: Connection refused
	at java.base/sun.nio.ch.Net.pollConnect(Native Method)
	... 12 more`

// variety are messages that are not one plain line each. The long one is more than two of Docker's records.
func variety(source string) []message {
	return []message{
		{source, "info", "2026-11-21 10:00:01,000 INFO  [main] com.acme.Main - started in 1.250 seconds"},
		{source, "error", javaTrace},
		{source, "info", "2026-11-21 10:00:02,000 INFO  [main] com.acme.Main - got " + strings.Repeat("one more word ", 40000/14)},
		{source, "error", javaTrace},
		{source, "warning", `{"time":"2026-11-21T10:00:02Z","level":"warn","msg":"queue is long","length":83}`},
		{source, "debug", `level=debug msg="cache was asked" key=user`},
		{source, "unknown", "a line that says nothing of errors"},
		{source, "info", "2026-11-21 10:00:03,000 INFO  [main] com.acme.Main - \u043f\u0440\u0438\u0432\u0435\u0442 na\u00efve \u2713"},
	}
}

const lives = 3 // of the container that is restarted

// TestLogsOfDocker follows what containers write to their standard output and error.
func TestLogsOfDocker(t *testing.T) {
	requireRoot(t, "ip", "nsenter", "dockerd", "containerd", "docker", "runc", "busybox")
	ctx := testContext(t)
	s := makeLogScene(ctx, t)
	s.startDocker(ctx, t)
	run := func(args ...string) { s.docker.run(ctx, t, args...) }

	s.makeOld(ctx, t)
	lines := s.createDocker(ctx, t, "e2e-lines", "cat /texts/various; each /texts/lines & cat /texts/errors >&2; wait; rest")
	various, out, errs := variety(onOutput), numbered("output", onOutput, 700), numbered("errors", onOutput, 300)
	lines.messages = append(append(various, out...), errs...)
	s.write(t, "various", text(various))
	s.write(t, "lines", text(out))
	s.write(t, "errors", text(errs))
	s.makeRestarted(ctx, t)
	short := s.createDocker(ctx, t, "e2e-short", "each /texts/short; sleep 1; each /texts/last >&2", "--rm")
	short.messages = numbered("short", onOutput, 30)
	s.write(t, "short", text(short.messages[:15]))
	s.write(t, "last", text(short.messages[15:]))
	shortest := s.createDocker(ctx, t, "e2e-shortest", "cat /texts/shortest")
	shortest.messages = numbered("shortest", onOutput, 10)
	s.write(t, "shortest", text(shortest.messages))
	s.makeOtherDrivers(ctx, t)
	disabled := s.createDocker(ctx, t, "e2e-disabled", "each /texts/shortest; rest", "--env", "COROOT_LOG_MONITORING=disabled")
	s.makeSecrets(ctx, t)

	s.start(ctx, t, map[string]string{"docker": s.docker.socket})
	s.write(t, "go", "")
	run("start", "e2e-again", "e2e-lines", "e2e-short", "e2e-shortest", "e2e-restarted", "e2e-disabled", "e2e-secrets", "e2e-more-secrets",
		"e2e-local", "e2e-local-again", "e2e-syslog")
	for life := 1; life < lives; life++ {
		s.awaitFile(ctx, t, fmt.Sprint("ready", life))
		run("restart", "-t", "5", "e2e-restarted")
	}
	s.check(ctx, t)
	s.checkDisabled(ctx, t, disabled)
	s.checkSecrets(ctx, t)
}

// makeOld has two containers that have written before the collector runs: of one that goes on, and of one that is started
// again, only what is new counts.
func (s *logScene) makeOld(ctx context.Context, t *testing.T) {
	t.Helper()
	before, again := numbered("before", onOutput, 300), numbered("again", onOutput, 120)
	s.write(t, "early", text(before[:200]))
	s.write(t, "late", text(before[200:]))
	s.write(t, "again", text(again[:60]))
	s.createDocker(ctx, t, "e2e-before", "cat /texts/early; until [ -e /texts/go ]; do sleep 0.1; done; each /texts/late; rest").messages = before[200:]
	s.createDocker(ctx, t, "e2e-again", "cat /texts/again; echo > /texts/ready-again; rest").messages = again[60:]
	s.docker.run(ctx, t, "start", "e2e-before", "e2e-again")
	eventually(ctx, t, 10*time.Second, "all has been written that is old", func() error {
		n := strings.Count(s.docker.run(ctx, t, "logs", "e2e-before"), "\n") + strings.Count(s.docker.run(ctx, t, "logs", "e2e-again"), "\n")
		if n != 200+60-2 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
	s.docker.run(ctx, t, "stop", "-t", "0", "e2e-again")
	s.write(t, "again", text(again[60:]))
}

// makeOtherDrivers has containers whose logs are in files that Docker does not tell of. One has written before the collector runs,
// one has its files rotated, maybe before they are known.
func (s *logScene) makeOtherDrivers(ctx context.Context, t *testing.T) {
	t.Helper()
	const show = "cat /texts/various; each /texts/lines & cat /texts/errors >&2; wait; rest"
	all := append(append(variety(onOutput), numbered("output", onOutput, 700)...), numbered("errors", onOutput, 300)...)
	local := s.createDocker(ctx, t, "e2e-local", show, "--log-driver=local", "--log-opt=max-size=64k", "--log-opt=compress=false")
	syslog := s.createDocker(ctx, t, "e2e-syslog", show, "--log-driver=syslog", "--log-opt=syslog-address=unixgram://"+takeSyslog(t))
	local.messages, syslog.messages = all, all

	again := numbered("again", onOutput, 120)
	s.write(t, "local-again", text(again[:60]))
	s.createDocker(ctx, t, "e2e-local-again", "cat /texts/local-again; echo > /texts/ready-local; rest", "--log-driver=local").messages = again[60:]
	s.docker.run(ctx, t, "start", "e2e-local-again")
	s.awaitFile(ctx, t, "ready-local")
	s.docker.run(ctx, t, "stop", "-t", "0", "e2e-local-again")
	s.write(t, "local-again", text(again[60:]))
}

// takeSyslog takes what comes at a socket until the test ends: what cannot be sent Docker does not keep either.
func takeSyslog(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "syslog")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		for b := make([]byte, 1<<17); err == nil; {
			_, err = l.Read(b)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-taken
	})
	return path
}

// makeRestarted has a container that writes at the begin and at the end of each life.
func (s *logScene) makeRestarted(ctx context.Context, t *testing.T) {
	t.Helper()
	w := s.createDocker(ctx, t, "e2e-restarted", `read -r i < /texts/life; echo $((i+1)) > /texts/life
trap 'each /texts/end$i; exit 0' TERM
each /texts/begin$i; echo > /texts/ready$i; while :; do sleep 0.05; done`)
	all := numbered("restarted", onOutput, lives*150)
	s.write(t, "life", "1\n")
	for life := range lives {
		mine := all[life*150:]
		s.write(t, "begin"+strconv.Itoa(life+1), text(mine[:100]))
		s.write(t, "end"+strconv.Itoa(life+1), text(mine[100:150]))
		w.messages = append(w.messages, mine[:100]...)
		if life+1 < lives {
			w.messages = append(w.messages, mine[100:150]...)
		}
	}
}

// awaitFile waits for a file that a container makes.
func (s *logScene) awaitFile(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	eventually(ctx, t, 20*time.Second, name, func() error {
		_, err := os.Stat(filepath.Join(s.texts, name))
		return err
	})
}

// checkDisabled looks at a container that asks not to have its logs read.
func (s *logScene) checkDisabled(ctx context.Context, t *testing.T, w *writer) {
	t.Helper()
	for _, id := range identities(t) {
		p, err := readPage(ctx, s.collector.targets[id.name])
		own := p.of(id, w.who)
		if err != nil || len(own) == 0 {
			t.Errorf("%d series, %v", len(own), err)
		}
		for _, one := range own {
			if strings.HasPrefix(one.labels["__name__"], "container_log_") {
				t.Errorf("shown although logs are disabled: %v", one)
			}
		}
	}
}
