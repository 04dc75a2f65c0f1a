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
	c.Edges = []inventory.Edge{
		{
			Destination: "10.96.0.10:53", Actual: "10.244.0.7:53", Connects: 1000, FailedConnects: 37,
			ConnectTime: 1500 * time.Millisecond, Active: 2, BytesSent: 1 << 20, BytesReceived: 1 << 40, Retransmits: 3,
		},
		{Destination: "10.96.0.11:81", Actual: "10.96.0.11:81", FailedConnects: 5},
		{Destination: "[2001:db8::1]:443", Actual: "[2001:db8::1]:443", Active: 1}, // was there before us
		{Destination: inventory.OtherDestination, Actual: inventory.OtherDestination, Connects: 1},
	}
	return c
}

func testSnapshot() inventory.Snapshot {
	live := full(at("/docker/" + idA))
	gone := full(at("/kubepods/besteffort/pod" + podA + "/" + idB))
	gone.Phase = inventory.Gone
	gone.Edges = gone.Edges[:1]
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
	snapshot := testSnapshot()
	snapshot.Containers = snapshot.Containers[:1]
	compareGolden(t, "optional.yaml", testWriter(cfg).write(snapshot))
}

// points calls f with each datapoint.
func points(md pmetric.Metrics, f func(metric string, dp pmetric.NumberDataPoint)) {
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				dps := m.Gauge().DataPoints
				if m.Type() == pmetric.MetricTypeSum {
					dps = m.Sum().DataPoints
				}
				for _, dp := range dps().All() {
					f(m.Name(), dp)
				}
			}
		}
	}
}

func TestMetricsTimes(t *testing.T) {
	n := 0
	points(testWriter(createDefaultConfig().(*Config)).write(testSnapshot()), func(name string, dp pmetric.NumberDataPoint) {
		n++
		if got := dp.Timestamp().AsTime(); !got.Equal(testNow) {
			t.Errorf("%s: timestamp %v, want %v", name, got, testNow)
		}
		if got := dp.StartTimestamp().AsTime(); !got.Equal(testStart) {
			t.Errorf("%s: start %v, want %v", name, got, testStart)
		}
	})
	if n == 0 {
		t.Error("no datapoints")
	}
}

func TestMetricsOfAnEndedContainerHaveNoValues(t *testing.T) {
	w := testWriter(createDefaultConfig().(*Config))
	live, ended := testSnapshot(), testSnapshot()
	live.Containers = live.Containers[:1]
	ended.Containers = ended.Containers[:1]
	ended.Containers[0].Phase = inventory.Ended

	series := map[string]bool{}
	points(w.write(live), func(name string, dp pmetric.NumberDataPoint) {
		series[fmt.Sprint(name, dp.Attributes().AsRaw())] = true
		if dp.Flags().NoRecordedValue() || dp.ValueType() == pmetric.NumberDataPointValueTypeEmpty {
			t.Errorf("%s: live without a value", name)
		}
	})
	points(w.write(ended), func(name string, dp pmetric.NumberDataPoint) {
		delete(series, fmt.Sprint(name, dp.Attributes().AsRaw()))
		if !dp.Flags().NoRecordedValue() || dp.ValueType() != pmetric.NumberDataPointValueTypeEmpty {
			t.Errorf("%s: ended with a value", name)
		}
	})
	for s := range series {
		t.Errorf("%s: not ended", s)
	}
	for _, sm := range w.write(ended).ResourceMetrics().At(0).ScopeMetrics().All() {
		for _, m := range sm.Metrics().All() {
			if n := pointsOf(m).Len(); n != 1 {
				t.Errorf("%s: %d points in one metric, of which the prometheus exporter would end the first only", m.Name(), n)
			}
		}
	}
}

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

func crowd(containers, edges int) inventory.Snapshot {
	s := inventory.Snapshot{At: testNow}
	for i := range containers {
		c := full(at("/docker/" + fmt.Sprintf("%064x", i)))
		e := c.Edges[0]
		c.Edges = nil
		for j := range edges {
			e.Destination = fmt.Sprintf("10.%d.%d.%d:%d", i%256, j/256%256, j%256, 1024+j)
			e.Actual = e.Destination
			c.Edges = append(c.Edges, e)
		}
		s.Containers = append(s.Containers, c)
	}
	return s
}

func BenchmarkMetrics(b *testing.B) {
	for _, bb := range []struct{ containers, edges int }{{200, 0}, {200, 20}, {1, 500}, {1, 5000}} {
		b.Run(fmt.Sprintf("containers=%d/edges=%d", bb.containers, bb.edges), func(b *testing.B) {
			w := testWriter(createDefaultConfig().(*Config))
			snapshot := crowd(bb.containers, bb.edges)
			n := w.write(snapshot).DataPointCount()
			b.ReportAllocs()
			for b.Loop() {
				w.write(snapshot)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/point")
		})
	}
}

// Ten times the edges must not take much more than ten times as long: mdatagen has a recorder that compares each
// datapoint with all others, which is generated as soon as one attribute is not required.
func TestMetricsOfManyEdgesAreLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("measures time")
	}
	cost := func(edges int) time.Duration {
		w := testWriter(createDefaultConfig().(*Config))
		snapshot := crowd(1, edges)
		best := time.Hour
		for range 5 {
			begin := time.Now()
			w.write(snapshot)
			best = min(best, time.Since(begin))
		}
		return best
	}
	small, large := cost(500), cost(5000)
	if ratio := float64(large) / float64(small); ratio > 40 { // quadratic would be 100
		t.Errorf("500 edges take %v, 5000 take %v, %.0f times as long", small, large, ratio)
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
		"container.net.tcp.successful_connects":    "destination actual_destination",
		"container.net.tcp.connection_time":        "destination actual_destination",
		"container.net.tcp.active_connections":     "destination actual_destination",
		"container.net.tcp.retransmits":            "destination actual_destination",
		"container.net.tcp.bytes_sent":             "destination actual_destination",
		"container.net.tcp.bytes_received":         "destination actual_destination",
		"container.net.tcp.failed_connects":        "destination",
	}
	got := map[string]string{}
	points(testWriter(createDefaultConfig().(*Config)).write(testSnapshot()), func(name string, dp pmetric.NumberDataPoint) {
		var keys []string
		for k := range dp.Attributes().All() {
			keys = append(keys, k)
		}
		got[name] = strings.Join(keys, " ")
	})
	for name, keys := range want {
		if got[name] != keys {
			t.Errorf("%s: attributes %q, want %q", name, got[name], keys)
		}
	}
}
