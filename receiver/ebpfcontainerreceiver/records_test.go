// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

const mib = 1 << 20

// testEvents has each kind of event, those of two containers mixed.
func testEvents() []inventory.Event {
	docker, pod := at("/docker/"+idA), at("/kubepods/besteffort/pod"+podA+"/"+idB)
	n := 0
	event := func(c inventory.Container, kind inventory.EventKind, reason inventory.ExitReason) inventory.Event {
		n++
		return inventory.Event{
			Kind: kind, At: testNow.Add(time.Duration(n) * time.Millisecond), Name: c.Name, Ref: c.Ref,
			PID: 4710 + n, InnerPID: n, Command: "nginx", Reason: reason, Life: 12345 * time.Millisecond, MaxRSS: 21 * mib,
		}
	}
	completed := event(docker, inventory.EventExit, inventory.ExitCompleted)
	failed := event(pod, inventory.EventExit, inventory.ExitError)
	failed.Code, failed.Life = 1, 3*time.Hour
	signalled := event(docker, inventory.EventExit, inventory.ExitSignal)
	signalled.Signal = 15
	killed := event(pod, inventory.EventOOMKill, inventory.ExitOOMKilled)
	killed.Command, killed.Signal = "redis-server", 9
	killed.MemoryLimit = cgroups.Some[uint64](20 * mib)
	main := killed
	main.Kind = inventory.EventExit
	pattern := inventory.Event{Kind: inventory.EventLog, At: testNow, Name: docker.Name, Ref: docker.Ref, Message: &inventory.LogMessage{
		Source: "/var/log/app\xff.log", Level: inventory.LogError, Text: "it broke <*>", Hash: "0123456789abcdef", Template: "it broke <*>", New: true,
	}}
	message := inventory.Event{Kind: inventory.EventLog, At: testNow, Name: pod.Name, Ref: pod.Ref, Message: &inventory.LogMessage{
		At: testStart, Source: "stdout/stderr", Stream: inventory.LogStderr, Text: "it broke 7 times\nand \xff", Hash: "0123456789abcdef", Template: "it broke <*> times",
	}}
	return []inventory.Event{completed, failed, signalled, killed, main, pattern, message}
}

func testRecords(cfg *Config) *recordWriter {
	return newRecordWriter(cfg, receivertest.NewNopSettings(metadata.Type), testHost)
}

func TestRecordsSemconv(t *testing.T) {
	compareGoldenLogs(t, "records.yaml",
		testRecords(createDefaultConfig().(*Config)).write(testEvents(), testNow.Add(time.Second)))
}

func TestRecordsCoroot(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Identity = IdentityCoroot
	compareGoldenLogs(t, "records_coroot.yaml", testRecords(cfg).write(testEvents()[:1], testNow.Add(time.Second)))
}

func TestRecordsHaveTheResourceOfTheMetrics(t *testing.T) {
	for _, identity := range []IdentityMode{IdentitySemconv, IdentityCoroot} {
		cfg := createDefaultConfig().(*Config)
		cfg.Identity = identity
		for _, c := range testSnapshot().Containers {
			c.Stats.CPU.Usage = cgroups.Some(time.Second) // any metric
			md := testWriter(cfg).write(inventory.Snapshot{At: testNow, Containers: []inventory.Container{c}})
			ld := testRecords(cfg).write([]inventory.Event{{Name: c.Name, Ref: c.Ref, Info: c.Info}}, testNow)
			want, got := md.ResourceMetrics().At(0).Resource(), ld.ResourceLogs().At(0).Resource()
			if diff := cmp.Diff(want.Attributes().AsRaw(), got.Attributes().AsRaw()); diff != "" {
				t.Errorf("%s, %s (-metrics +records):\n%s", identity, c.Name, diff)
			}
		}
	}
}

func TestRecordsOfAllKindsOfProcesses(t *testing.T) {
	exit := inventory.Event{Kind: inventory.EventExit, At: testNow, PID: 4711, InnerPID: 1, Command: "app", Life: 12345 * time.Millisecond}
	kill := inventory.Event{Kind: inventory.EventOOMKill, At: testNow, PID: 4711, InnerPID: 7, Command: "app", Reason: inventory.ExitOOMKilled}
	for _, tt := range []struct {
		name      string
		event     inventory.Event
		change    func(*inventory.Event)
		body      string
		severity  string
		attribute string // one that must be there
		value     any    // nil if it must not
	}{
		{"completed", exit, func(*inventory.Event) {},
			"main process app (pid 4711) exited with status 0 after 12.3 s", "INFO", "process.exit.code", int64(0)},
		{"error", exit, func(e *inventory.Event) { e.Reason, e.Code, e.Life = inventory.ExitError, 255, time.Millisecond },
			"main process app (pid 4711) exited with status 255 after 0.001 s", "WARN", "process.exit.code", int64(255)},
		{"signal", exit, func(e *inventory.Event) { e.Reason, e.Signal, e.Life = inventory.ExitSignal, 11, 90*time.Second },
			"main process app (pid 4711) was killed by SIGSEGV after 1m30s", "WARN", "process.exit.signal", "SIGSEGV"},
		{"no status of the killed", exit, func(e *inventory.Event) { e.Reason, e.Signal = inventory.ExitSignal, 9 },
			"main process app (pid 4711) was killed by SIGKILL after 12.3 s", "WARN", "process.exit.code", nil},
		{"real-time signal", exit, func(e *inventory.Event) { e.Reason, e.Signal = inventory.ExitSignal, 40 },
			"main process app (pid 4711) was killed by 40 after 12.3 s", "WARN", "process.exit.signal", "40"},
		{"oom killed", exit, func(e *inventory.Event) { e.Reason, e.Signal = inventory.ExitOOMKilled, 9 },
			"main process app (pid 4711) was killed by the OOM killer after 12.3 s", "ERROR", "container.exit.oom_killed", true},
		{"reason of a newer kernel program", exit, func(e *inventory.Event) { e.Reason = 200 },
			"main process app (pid 4711) exited with status 0 after 12.3 s", "ERROR", "container.exit.reason", nil},
		{"invalid UTF-8", exit, func(e *inventory.Event) { e.Command = "caf\xe9" },
			`main process caf\xe9 (pid 4711) exited with status 0 after 12.3 s`, "INFO", "process.executable.name", `caf\xe9`},
		{"line break", exit, func(e *inventory.Event) { e.Command = "a\nb" },
			"main process a?b (pid 4711) exited with status 0 after 12.3 s", "INFO", "process.executable.name", "a\nb"},
		{"OOM kill of unknown size", kill, func(*inventory.Event) {},
			"OOM killer killed app (pid 4711)", "ERROR", "process.memory.rss_peak", nil},
		{"OOM kill without limit", kill, func(e *inventory.Event) { e.MaxRSS = 3 << 29 },
			"OOM killer killed app (pid 4711): it had up to 1.5 GiB of memory", "ERROR",
			"process.memory.rss_peak", int64(3 << 29)},
		{"OOM kill at a limit", kill, func(e *inventory.Event) { e.MaxRSS, e.MemoryLimit = 21*mib, cgroups.Some[uint64](20*mib) },
			"OOM killer killed app (pid 4711): it had up to 21 MiB of memory, the limit of the container is 20 MiB", "ERROR",
			"container.memory.limit", int64(20 * mib)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.change(&tt.event)
			tt.event.Name = "/docker/" + idA
			ld := testRecords(createDefaultConfig().(*Config)).write([]inventory.Event{tt.event}, testNow)
			lr := ld.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0)
			if lr.Body().Str() != tt.body || lr.SeverityText() != tt.severity {
				t.Errorf("got %s %q, want %s %q", lr.SeverityText(), lr.Body().Str(), tt.severity, tt.body)
			}
			if got := lr.Attributes().AsRaw()[tt.attribute]; got != tt.value {
				t.Errorf("%s: got %v, want %v", tt.attribute, got, tt.value)
			}
		})
	}
}

func TestBytesText(t *testing.T) {
	for _, tt := range []struct {
		n    uint64
		want string
	}{
		{0, "0 B"}, {1023, "1023 B"}, {1024, "1 KiB"}, {1536, "1.5 KiB"}, {20 * mib, "20 MiB"}, {1 << 40, "1 TiB"},
		{1 << 52, "4096 TiB"},
	} {
		if got := bytesText(tt.n); got != tt.want {
			t.Errorf("%d: got %s, want %s", tt.n, got, tt.want)
		}
	}
}
