// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/collector/scraper/scrapererror"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadatatest"
)

func TestFirstCollectionIsRightAtTheStart(t *testing.T) {
	asked := make(chan time.Duration, 1)
	host := &fakeHost{snapshot: func(ctx context.Context) (inventory.Snapshot, error) {
		deadline, _ := ctx.Deadline()
		asked <- time.Until(deadline)
		return testSnapshot(), nil
	}}
	sink := new(consumertest.MetricsSink)
	cfg := newTestConfig()
	r, err := newFactory(host.open).CreateMetrics(
		context.Background(), receivertest.NewNopSettings(metadata.Type), cfg, sink)
	if err != nil {
		t.Fatal(err)
	}
	start(t, r)
	select {
	case left := <-asked:
		if left <= 0 || left > cfg.Timeout {
			t.Errorf("got %v for the collection, want at most %v", left, cfg.Timeout)
		}
	case <-time.After(10 * time.Second):
		t.Error("no collection")
	}
	shutdown(t, r) // waits for the collection
	if want := testWriter(cfg).write(testSnapshot()).DataPointCount(); sink.DataPointCount() != want {
		t.Errorf("got %d datapoints, want %d", sink.DataPointCount(), want)
	}
	host.expect(t, 1, 1)
}

func TestShutdownWaitsForACollectionUnderWay(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	host := &fakeHost{snapshot: func(context.Context) (inventory.Snapshot, error) {
		close(asked)
		<-answer
		return testSnapshot(), nil
	}}
	m := newMetrics(t, newFactory(host.open), receivertest.NewNopSettings(metadata.Type), newTestConfig())
	start(t, m)
	<-asked
	done := make(chan error)
	go func() { done <- m.Shutdown(context.Background()) }()
	host.expect(t, 1, 0)
	close(answer)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	host.expect(t, 1, 1)
}

// newRunningScraper returns a started scraper without its controller.
func newRunningScraper(t *testing.T, host *fakeHost, tel *componenttest.Telemetry) *metricsScraper {
	t.Helper()
	set := receivertest.NewNopSettings(metadata.Type)
	set.ID = component.NewIDWithName(metadata.Type, "own")
	set.TelemetrySettings = tel.NewTelemetrySettings()
	shared := &instances{open: host.open, byKey: map[instanceKey]*instance{}}
	cfg := newTestConfig()
	s := newMetricsScraper(shared.newSignal(set, cfg), cfg, set)
	start(t, s)
	return s
}

func newTelemetry(t *testing.T) *componenttest.Telemetry {
	t.Helper()
	tel := componenttest.NewTelemetry()
	t.Cleanup(func() {
		if err := tel.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tel
}

func TestScrapeThatMissesItsDeadline(t *testing.T) {
	for _, tt := range []struct {
		name     string
		snapshot inventory.Snapshot
		partial  bool
	}{
		{"nothing read", inventory.Snapshot{}, false},
		{"something read", testSnapshot(), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newRunningScraper(t, &fakeHost{snapshot: func(context.Context) (inventory.Snapshot, error) {
				return tt.snapshot, context.DeadlineExceeded
			}}, newTelemetry(t))
			defer shutdown(t, s)
			md, err := s.ScrapeMetrics(context.Background())
			if err == nil {
				t.Error("got no error")
			}
			if scrapererror.IsPartialScrapeError(err) != tt.partial || (md.ResourceMetrics().Len() > 0) != tt.partial {
				t.Errorf("got %d resources with error %v", md.ResourceMetrics().Len(), err)
			}
		})
	}
}

func TestOwnMetrics(t *testing.T) {
	host := &fakeHost{status: inventory.Status{
		Features: []inventory.Feature{
			{Name: "cgroup_events"},
			{Name: "network", Err: syscall.EPERM},
			{Name: "network_live", Err: errors.New("pid 4711: something else each time")},
		},
		Containers: 1, ReadErrors: 2, WalkErrors: 3, EventsLost: 4, EdgesLive: 5, EdgesMax: 6, EdgesFolded: 7,
		EdgesUnaccounted: 8, CgroupsUnresolved: 9, ListenersLive: 10, ListenersMax: 11, ListenersFolded: 12,
		SocketsAdopted: 13, EventsDropped: 14, UsagesLive: 15, UsagesMax: 16, TasksUnaccounted: 17, TasksUnknown: 18,
		DelayAnomalies: 19, FileWritesLost: 20, LogFilesSkipped: 21, LogFilesUnseen: 22, MessagesDropped: 1000,
	}}
	host.status.Logs.Files.Lost.Truncated, host.status.Logs.Files.Lost.Deleted, host.status.Logs.Files.Lost.Abandoned = 30, 31, 32
	host.status.Logs.Messages, host.status.Logs.Untold, host.status.Logs.Suppressed = 33, 34, 35
	host.status.Logs.UncleanStarts, host.status.Logs.CheckpointErrors = 36, 37
	tel := newTelemetry(t)
	s := newRunningScraper(t, host, tel)
	s.running.dropped.events.Add(100) // by the logs signal
	s.running.dropped.messages.Add(200)

	point := func(v int64, attrs ...attribute.KeyValue) metricdata.DataPoint[int64] {
		attrs = append(attrs, attribute.String("receiver", "ebpf_container/own"))
		return metricdata.DataPoint[int64]{Value: v, Attributes: attribute.NewSet(attrs...)}
	}
	one := func(v int64, attrs ...attribute.KeyValue) []metricdata.DataPoint[int64] {
		return []metricdata.DataPoint[int64]{point(v, attrs...)}
	}
	feature := func(on int64, name, reason string) metricdata.DataPoint[int64] {
		return point(on, attribute.String("feature", name), attribute.String("reason", reason))
	}
	noTime := metricdatatest.IgnoreTimestamp()
	metadatatest.AssertEqualEbpfContainerContainers(t, tel, one(1), noTime)
	metadatatest.AssertEqualEbpfContainerReadErrors(t, tel, one(2), noTime)
	metadatatest.AssertEqualEbpfContainerWalkErrors(t, tel, one(3), noTime)
	metadatatest.AssertEqualEbpfContainerEventsLost(t, tel, one(4), noTime)
	edges, listeners := attribute.String("map", "edges"), attribute.String("map", "listeners")
	usages := attribute.String("map", "usages")
	metadatatest.AssertEqualEbpfContainerMapEntries(t, tel,
		[]metricdata.DataPoint[int64]{point(5, edges), point(10, listeners), point(15, usages)}, noTime)
	metadatatest.AssertEqualEbpfContainerMapLimit(t, tel,
		[]metricdata.DataPoint[int64]{point(6, edges), point(11, listeners), point(16, usages)}, noTime)
	metadatatest.AssertEqualEbpfContainerEdgesFolded(t, tel, one(7), noTime)
	metadatatest.AssertEqualEbpfContainerEdgesUnaccounted(t, tel, one(8), noTime)
	metadatatest.AssertEqualEbpfContainerCgroupsUnresolved(t, tel, one(9), noTime)
	metadatatest.AssertEqualEbpfContainerListenersFolded(t, tel, one(12), noTime)
	metadatatest.AssertEqualEbpfContainerSocketsAdopted(t, tel, one(13), noTime)
	metadatatest.AssertEqualEbpfContainerEventsDropped(t, tel, one(114), noTime)
	metadatatest.AssertEqualEbpfContainerTasksUnaccounted(t, tel, one(17), noTime)
	metadatatest.AssertEqualEbpfContainerTasksUnknown(t, tel, one(18), noTime)
	metadatatest.AssertEqualEbpfContainerDelayAnomalies(t, tel, one(19), noTime)
	metadatatest.AssertEqualEbpfContainerFileWritesLost(t, tel, one(20), noTime)
	metadatatest.AssertEqualEbpfContainerLogFilesSkipped(t, tel, one(43), noTime)
	loss := func(v int64, why string) metricdata.DataPoint[int64] {
		return point(v, attribute.String("reason", why))
	}
	metadatatest.AssertEqualEbpfContainerLogBytesLost(t, tel,
		[]metricdata.DataPoint[int64]{loss(30, "truncated"), loss(31, "deleted"), loss(32, "abandoned")}, noTime)
	metadatatest.AssertEqualEbpfContainerLogMessages(t, tel, one(33), noTime)
	metadatatest.AssertEqualEbpfContainerLogRecordsDropped(t, tel, one(34+35+200+1000), noTime)
	metadatatest.AssertEqualEbpfContainerLogUncleanStarts(t, tel, one(36), noTime)
	metadatatest.AssertEqualEbpfContainerLogCheckpointErrors(t, tel, one(37), noTime)
	metadatatest.AssertEqualEbpfContainerFeatureEnabled(t, tel, []metricdata.DataPoint[int64]{
		feature(1, "cgroup_events", ""),
		feature(0, "network", "permission"),
		feature(0, "network_live", "error"),
	}, noTime)

	if _, err := s.ScrapeMetrics(context.Background()); err != nil {
		t.Fatal(err)
	}
	got, err := tel.GetMetric("otelcol_ebpf_container_scrape_duration")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got.Data.(metricdata.Histogram[float64]).DataPoints); n != 2 {
		t.Errorf("got %d phases, want 2", n)
	}

	shutdown(t, s)
	host.expect(t, 1, 1)
	if _, err := tel.GetMetric("otelcol_ebpf_container_containers"); err == nil {
		t.Error("the own metrics are still asked for after Shutdown")
	}
}
