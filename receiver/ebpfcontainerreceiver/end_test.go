// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

func TestMetricsOfAnEndedContainerHaveNoValues(t *testing.T) {
	w := testWriter(createDefaultConfig().(*Config))
	live, ended := testSnapshot(), testSnapshot()
	live.Containers = live.Containers[:1]
	ended.Containers = ended.Containers[:1]
	ended.Containers[0].Phase = inventory.Ended
	ended.Containers[0].Edges[0].Ended = true // before the container

	left := map[string]bool{}
	points(w.write(live), func(name string, dp testPoint) {
		left[series(name, dp)] = true
		closed := dp.Attributes().AsRaw()["listen_addr"] == "192.0.2.1:81" && strings.Contains(name, ".accept_queue")
		if dp.flags.NoRecordedValue() != closed || dp.empty != closed {
			t.Errorf("%s: live without a value, or closed with one", series(name, dp))
		}
	})
	md := w.write(ended)
	points(md, func(name string, dp testPoint) {
		delete(left, series(name, dp))
		if !dp.flags.NoRecordedValue() || !dp.empty {
			t.Errorf("%s: ended with a value", name)
		}
	})
	for s := range left {
		t.Errorf("%s: not ended", s)
	}
	expectEndsAlone(t, md)
}

// expectEndsAlone checks that each point that ends a series is a metric of its own.
func expectEndsAlone(t *testing.T, md pmetric.Metrics) {
	t.Helper()
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				n, ends := 0, false
				one := pmetric.NewMetrics()
				m.CopyTo(one.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty())
				points(one, func(_ string, dp testPoint) {
					n++
					ends = ends || dp.flags.NoRecordedValue()
				})
				if ends && n != 1 {
					t.Errorf("%s: %d points in one metric, of which the prometheus exporter would end the first only", m.Name(), n)
				}
			}
		}
	}
}

func TestMetricsOfEndedPeers(t *testing.T) {
	w := testWriter(createDefaultConfig().(*Config))
	live, ended := testSnapshot(), testSnapshot()
	live.Containers, ended.Containers = live.Containers[:1], ended.Containers[:1]
	endPeers(&ended.Containers[0])

	all, over := map[string]bool{}, map[string]bool{}
	points(w.write(live), func(name string, dp testPoint) { all[series(name, dp)] = dp.flags.NoRecordedValue() })
	md := w.write(ended)
	points(md, func(name string, dp testPoint) {
		before, ok := all[series(name, dp)]
		if !ok {
			t.Errorf("%s: given twice, or never before", series(name, dp))
		}
		delete(all, series(name, dp))
		if !before && dp.flags.NoRecordedValue() {
			over[series(name, dp)] = true
		}
	})
	for s := range all {
		t.Errorf("%s: neither given nor ended", s)
	}
	want := map[string]bool{}
	for _, name := range []string{
		"successful_connects", "connection_time", "active_connections", "retransmits", "bytes_sent", "bytes_received", "rtt",
	} {
		want["container.net.tcp."+name+"map[actual_destination:10.244.0.7:53 destination:10.96.0.10:53]"] = true
	}
	for _, reason := range connectErrors {
		want["container.net.tcp.connect_errorsmap[destination:10.96.0.10:53 error.type:"+reason.String()+"]"] = true
	}
	want["container.net.tcp.failed_connectsmap[destination:10.96.0.10:53]"] = true
	for _, name := range []string{
		"inbound.connections", "inbound.active", "inbound.bytes_sent", "inbound.bytes_received",
	} {
		want["container.net.tcp."+name+"map[listen_addr:10.244.0.9:8080]"] = true
	}
	for _, name := range []string{"accept_queue", "accept_queue_limit", "listen_overflows"} {
		want["container.net.tcp."+name+"map[listen_addr:0.0.0.0:8080]"] = true
	}
	want["container.net.tcp.listen_infomap[listen_addr:10.244.0.9:8080 proxy:]"] = true
	want["container.log.messagesmap[level:error pattern_hash:0123456789abcdef sample:it broke <*> source:stdout/stderr]"] = true
	if diff := cmp.Diff(want, over); diff != "" {
		t.Errorf("ended series (-want +got):\n%s", diff)
	}
	if n := md.ResourceMetrics().Len(); n != 1 {
		t.Errorf("got %d resources of one container", n)
	}
	expectEndsAlone(t, md)
}

// An exporter for Prometheus ends the buckets that it finds in the point, and the sum if there is one.
func TestEndedHistogramKeepsItsShape(t *testing.T) {
	snapshot := testSnapshot()
	snapshot.Containers = snapshot.Containers[:1]
	endPeers(&snapshot.Containers[0])
	cfg := createDefaultConfig().(*Config)
	cfg.Metrics = metadata.MetricsConfig{}
	cfg.Metrics.ContainerNetTCPRtt.Enabled = true
	md := testWriter(cfg).write(snapshot)
	if n := md.DataPointCount(); n != 1 {
		t.Fatalf("got %d points, want that of the only edge with samples", n)
	}
	dp := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Histogram().DataPoints().At(0)
	if !dp.Flags().NoRecordedValue() || !dp.HasSum() || dp.Sum() != 0 || dp.Count() != 0 ||
		dp.ExplicitBounds().Len() != len(inventory.RTTBounds) || dp.BucketCounts().Len() != len(inventory.RTTBounds)+1 {
		t.Errorf("got count %d, sum %v, %d bounds, %d buckets",
			dp.Count(), dp.Sum(), dp.ExplicitBounds().Len(), dp.BucketCounts().Len())
	}
}
