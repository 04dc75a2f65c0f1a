// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

var (
	testStart = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	testBack  = testStart.Add(20 * time.Second)
	testNow   = testStart.Add(time.Minute)
)

// full has a different value in each field, so that no two can be mixed up.
func full(c inventory.Container) inventory.Container {
	n := uint64(1000)
	count := func() cgroups.Opt[uint64] { n++; return cgroups.Some(n) }
	took := func() cgroups.Opt[time.Duration] { n++; return cgroups.Some(time.Duration(n) * time.Millisecond) }
	c.Start, c.Born = testStart, testStart
	c.Stats = cgroups.Stats{
		CPU: cgroups.CPU{
			Usage: took(), User: took(), System: took(), Throttled: took(),
			Periods: count(), ThrottledPeriods: count(), LimitCores: cgroups.Some(0.5),
		},
		Memory: cgroups.Memory{
			Usage: count(), WorkingSet: count(), RSS: count(), Cache: count(), Swap: count(), Kernel: count(),
			Peak: count(), Limit: count(), MinorFaults: count(), MajorFaults: count(),
			Events: cgroups.MemoryEvents{Low: count(), High: count(), Max: count(), OOM: count(), OOMKill: count()},
		},
		Devices: []cgroups.Device{
			{Major: 8, Minor: 0, ReadBytes: 4096, WriteBytes: 8192, Reads: 1, Writes: 2},
			{Major: 259, Minor: 1, ReadBytes: 512, WriteBytes: 1024, Reads: 1, Writes: 2},
		},
		PIDs: cgroups.PIDs{Current: count(), Limit: count()},
		Pressure: cgroups.Pressure{
			CPU:    cgroups.Stall{Some: took(), Full: took()},
			Memory: cgroups.Stall{Some: took(), Full: took()},
			IO:     cgroups.Stall{Some: took(), Full: took()},
		},
	}
	fullTasks(&c)
	fullDisks(&c)
	fullNetwork(&c)
	fullLogs(&c)
	return c
}

func testSnapshot() inventory.Snapshot {
	live := full(named(at("/docker/"+idA), "/docker/web", inventory.Info{
		Runtime: "docker", Name: "web", Image: "team/app:1.2", ImageName: "team/app", ImageTags: []string{"1.2"},
	}))
	gone := full(at("/kubepods/besteffort/pod" + podA + "/" + idB))
	gone.Phase = inventory.Gone
	gone.Edges = gone.Edges[:1]
	endPeers(&gone)
	ended := full(at("/system.slice/nginx.service"))
	ended.Phase = inventory.Ended
	ended.Edges = ended.Edges[:2]
	bare := at("/lxc.payload.bare") // a host that tells nothing but CPU usage
	bare.Start = testStart
	bare.Stats.CPU.Usage = cgroups.Some(0 * time.Second)
	silent := at("/lxc.payload.silent") // and one that tells nothing at all
	silent.Start = testStart
	return inventory.Snapshot{At: testNow, Containers: []inventory.Container{live, gone, bare, silent, ended}}
}

func testWriter(cfg *Config) *metricsWriter {
	return newMetricsWriter(cfg, receivertest.NewNopSettings(metadata.Type), testHost)
}

func TestMetricsSemconv(t *testing.T) {
	compareGolden(t, "semconv.yaml", testWriter(createDefaultConfig().(*Config)).write(testSnapshot()))
}

func TestMetricsCoroot(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Identity = IdentityCoroot
	cfg.Cloud.Region, cfg.Cloud.AvailabilityZone = "eu-central-1", "eu-central-1a"
	snapshot := testSnapshot()
	snapshot.Containers = snapshot.Containers[:1]
	compareGolden(t, "coroot.yaml", testWriter(cfg).write(snapshot))
}

func TestMetricsOptional(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Metrics = metadata.MetricsConfig{}
	cfg.Metrics.ContainerCPUTime.Enabled = true
	cfg.Metrics.ContainerDiskIo.Enabled = true
	cfg.Metrics.ContainerMemoryRss.Enabled = true
	cfg.Metrics.ContainerMemoryUsage.Enabled = true
	cfg.Metrics.ContainerMemoryWorkingSet.Enabled = true
	cfg.Metrics.ContainerUptime.Enabled = true
	cfg.Metrics.K8sContainerRestartCount.Enabled = true
	snapshot := testSnapshot()
	snapshot.Containers = snapshot.Containers[:2] // the second one is of Kubernetes
	compareGolden(t, "optional.yaml", testWriter(cfg).write(snapshot))
}

// testPoint is what is told of a datapoint of any kind.
type testPoint struct {
	point
	flags pmetric.DataPointFlags
	empty bool // without a value
}

// points calls f with each datapoint.
func points(md pmetric.Metrics, f func(metric string, dp testPoint)) {
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				if m.Type() == pmetric.MetricTypeHistogram {
					for _, dp := range m.Histogram().DataPoints().All() {
						f(m.Name(), testPoint{point: dp, flags: dp.Flags(), empty: dp.Count() == 0})
					}
					continue
				}
				for _, dp := range pointsOf(m).All() {
					empty := dp.ValueType() == pmetric.NumberDataPointValueTypeEmpty
					f(m.Name(), testPoint{point: dp, flags: dp.Flags(), empty: empty})
				}
			}
		}
	}
}

func series(name string, dp testPoint) string { return fmt.Sprint(name, dp.Attributes().AsRaw()) }

func TestMetricsWriterKeepsNothingBetweenSnapshots(t *testing.T) {
	w := testWriter(createDefaultConfig().(*Config))
	first := w.write(testSnapshot()).DataPointCount()
	if second := w.write(testSnapshot()).DataPointCount(); second != first {
		t.Errorf("got %d datapoints, then %d of the same snapshot", first, second)
	}
	if n := w.write(inventory.Snapshot{At: testNow}).DataPointCount(); n != 0 {
		t.Errorf("got %d datapoints of an empty snapshot", n)
	}
}

// The metrics of metrics.md, section 1, are those of the predecessor: no attribute of ours may split them.
func TestMetricsOfThePredecessorHaveItsAttributes(t *testing.T) {
	want := map[string]string{
		"container.resources.cpu.usage":            "",
		"container.resources.cpu.throttled":        "",
		"container.resources.cpu.limit_cores":      "",
		"container.resources.memory.limit":         "",
		"container.resources.memory.rss":           "",
		"container.resources.memory.cache":         "",
		"container.resources.cpu.pressure_waiting": "kind",
		"container.resources.cpu.delay":            "",
		"container.resources.disk.delay":           "",
		"container.oom_kills":                      "",
		"container.restarts":                       "",
		"container.info":                           "image systemd_triggered_by systemd_type",
		"container.resources.disk.size":            "device mount_point volume",
		"container.resources.disk.used":            "device mount_point volume",
		"container.resources.disk.reserved":        "device mount_point volume",
		"container.resources.disk.reads":           "device mount_point volume",
		"container.resources.disk.writes":          "device mount_point volume",
		"container.resources.disk.read":            "device mount_point volume",
		"container.resources.disk.written":         "device mount_point volume",
		"container.application_type":               "application_type",
		"container.net.tcp.successful_connects":    "destination actual_destination",
		"container.net.tcp.connection_time":        "destination actual_destination",
		"container.net.tcp.active_connections":     "destination actual_destination",
		"container.net.tcp.retransmits":            "destination actual_destination",
		"container.net.tcp.bytes_sent":             "destination actual_destination",
		"container.net.tcp.bytes_received":         "destination actual_destination",
		"container.net.tcp.failed_connects":        "destination",
		"container.net.tcp.listen_info":            "listen_addr proxy",
		"container.net.latency":                    "destination_ip",
		"container.log.messages":                   "source level pattern_hash sample",
	}
	got := map[string]string{}
	points(testWriter(createDefaultConfig().(*Config)).write(testSnapshot()), func(name string, dp testPoint) {
		var keys []string
		for k := range dp.Attributes().All() {
			keys = append(keys, k)
		}
		got[name] = strings.Join(keys, " ")
	})
	for name, keys := range want {
		if have, ok := got[name]; !ok || have != keys {
			t.Errorf("%s: attributes %q, want %q", name, have, keys)
		}
	}
}
