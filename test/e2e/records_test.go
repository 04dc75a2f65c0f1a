// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/plog"
	"golang.org/x/sys/unix"
)

// record is one log record as it came over OTLP.
type record struct {
	at              time.Time
	event, severity string
	body            string
	resource        map[string]string // as labels of Prometheus
	attributes      map[string]any
}

// records reads all log records that have arrived, in order.
func (s sink) records() ([]record, error) {
	b, err := os.ReadFile(s.logs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []record
	for line := range strings.Lines(string(b)) {
		if !strings.HasSuffix(line, "\n") {
			break // still being written
		}
		logs, err := (&plog.JSONUnmarshaler{}).UnmarshalLogs([]byte(line))
		if err != nil {
			return nil, err
		}
		for _, rl := range logs.ResourceLogs().All() {
			for _, sl := range rl.ScopeLogs().All() {
				for _, lr := range sl.LogRecords().All() {
					all = append(all, record{
						at: lr.Timestamp().AsTime(), event: lr.EventName(), severity: lr.SeverityText(), body: lr.Body().AsString(),
						resource: labels(rl.Resource().Attributes()), attributes: lr.Attributes().AsRaw(),
					})
				}
			}
		}
	}
	return all, nil
}

// recordsOf returns the records of one container in one identity, by the name of the event.
func (s sink) recordsOf(id identity, who container) (map[string][]record, error) {
	all, err := s.records()
	of := map[string][]record{}
	for _, r := range all {
		if maps.Equal(r.resource, id.labels(who)) {
			of[r.event] = append(of[r.event], r)
		}
	}
	return of, err
}

// status returns what shells and Docker call the exit code.
func (r record) status() (int, error) {
	name, isSignal := r.attributes["process.exit.signal"].(string)
	code, isCode := r.attributes["process.exit.code"].(int64)
	if isSignal == isCode {
		return 0, fmt.Errorf("not one of code and signal: %v", r.attributes)
	}
	if isSignal {
		n := unix.SignalNum(name)
		if n == 0 {
			return 0, fmt.Errorf("no such signal: %v", r.attributes)
		}
		return 128 + int(n), nil
	}
	return int(code), nil
}

// checkRecords looks at the log records of one container, which are as many as its exits and OOM kills.
func (s *deathScene) checkRecords(ctx context.Context, t *testing.T, id identity, m *mortal) {
	t.Helper()
	var exits, kills []record
	eventually(ctx, t, 10*time.Second, "records of "+m.name, func() error {
		all, err := s.sink.recordsOf(id, m.who)
		if err != nil {
			return err
		}
		exits, kills = all["container.exit"], all["container.oom_kill"]
		if len(exits) != len(m.codes) || len(kills) != int(m.want.OOMKills) || len(all) > 2 {
			return fmt.Errorf("%d exits and %d OOM kills, want %d and %v: %v", len(exits), len(kills), len(m.codes), m.want.OOMKills, all)
		}
		return nil
	})
	var codes []int
	var got deaths
	for _, r := range exits {
		code, err := r.status()
		if err != nil {
			t.Error(err)
		}
		codes = append(codes, code)
		switch fmt.Sprint(r.attributes["container.exit.reason"], " ", r.severity, " ", r.attributes["container.exit.oom_killed"]) {
		case "completed INFO false":
			got.Completed++
		case "error WARN false":
			got.Error++
		case "signal WARN false":
			got.Signalled++
		case "oom_killed ERROR true":
			got.OOMKilled++
		default:
			t.Errorf("%s: %+v", m.name, r)
		}
	}
	if diff := cmp.Diff(m.codes, codes); diff != "" {
		t.Errorf("%s: codes in records (-want +got):\n%s", m.name, diff)
	}
	got.OOMKills, got.Restarts = m.want.OOMKills, m.want.Restarts // no records of restarts
	if diff := cmp.Diff(m.want, got); diff != "" {
		t.Errorf("%s: reasons in records (-want +got):\n%s", m.name, diff)
	}
	for _, r := range kills {
		m.checkKill(t, r)
	}
	if len(exits) > 0 {
		s.checkLastExit(ctx, t, m, exits[len(exits)-1])
	}
}

// checkKill looks at the record of a process that had the whole memory of its container.
func (m *mortal) checkKill(t *testing.T, r record) {
	t.Helper()
	pid, _ := r.attributes["process.pid"].(int64)
	inner, _ := r.attributes["process.vpid"].(int64)
	rss, _ := r.attributes["process.memory.rss_peak"].(int64)
	if r.severity != "ERROR" || pid < 2 || (inner == 1) != (m.want.OOMKilled > 0) || rss < memoryLimit/2 || rss > memoryLimit*5/4 ||
		r.attributes["process.executable.name"] != "busybox" || r.attributes["container.memory.limit"] != int64(memoryLimit) {
		t.Errorf("%s: %+v", m.name, r)
	}
}

// checkLastExit compares with what Docker and /proc had to say of the process.
func (s *deathScene) checkLastExit(ctx context.Context, t *testing.T, m *mortal, r record) {
	t.Helper()
	times := strings.Fields(s.docker.run(ctx, t, "inspect", "-f", "{{.State.StartedAt}} {{.State.FinishedAt}}", m.name))
	began, err := time.Parse(time.RFC3339Nano, times[0])
	if err != nil {
		t.Fatal(err)
	}
	ended, err := time.Parse(time.RFC3339Nano, times[1])
	if err != nil {
		t.Fatal(err)
	}
	life, _ := r.attributes["process.uptime"].(float64)
	// The process has begun as runc, some time before Docker calls the container started.
	if more := life - ended.Sub(began).Seconds(); more < -0.5 || more > 3 {
		t.Errorf("%s: lived for %v s, %v for Docker: %+v", m.name, life, ended.Sub(began), r)
	}
	if late := ended.Sub(r.at).Seconds(); math.Abs(late) > 2 {
		t.Errorf("%s: Docker says that it ended at %v: %+v", m.name, ended, r)
	}
	if m.pid != 0 && r.attributes["process.pid"] != int64(m.pid) {
		t.Errorf("%s: Docker says pid %d: %+v", m.name, m.pid, r)
	}
	wantInner := int64(1)
	if m.name == "terminated" {
		wantInner = int64(m.pid) // in the host's namespace
	}
	if r.attributes["process.vpid"] != wantInner {
		t.Errorf("%s: pid in its namespace: %+v, want %s", m.name, r, strconv.FormatInt(wantInner, 10))
	}
}
