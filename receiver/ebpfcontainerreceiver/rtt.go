// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// rttBuilder is for container.net.tcp.rtt what the generated builder is for all others, see metadata.yaml.
type rttBuilder struct {
	data     pmetric.Metric
	bounds   []float64
	capacity int // as many datapoints as a container has had
}

func newRTTBuilder() *rttBuilder {
	b := &rttBuilder{data: pmetric.NewMetric(), bounds: make([]float64, 0, len(inventory.RTTBounds))}
	for _, bound := range inventory.RTTBounds {
		b.bounds = append(b.bounds, bound.Seconds())
	}
	b.init()
	return b
}

func (b *rttBuilder) init() {
	b.data.SetName(metadata.MetricsInfo.ContainerNetTCPRtt.Name)
	b.data.SetDescription("Smoothed round-trip times of connections that the container began.")
	b.data.SetUnit("s")
	histogram := b.data.SetEmptyHistogram()
	histogram.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	histogram.DataPoints().EnsureCapacity(b.capacity)
}

// record adds the datapoint of e, none if e has no samples.
func (b *rttBuilder) record(start, ts pcommon.Timestamp, e *inventory.Edge) {
	var count uint64
	for _, n := range e.RTT.Counts {
		count += n
	}
	if count == 0 {
		return
	}
	dp := b.data.Histogram().DataPoints().AppendEmpty()
	dp.SetStartTimestamp(start)
	dp.SetTimestamp(ts)
	dp.SetCount(count)
	dp.SetSum(e.RTT.Sum.Seconds())
	dp.ExplicitBounds().FromRaw(b.bounds)
	dp.BucketCounts().FromRaw(e.RTT.Counts[:])
	attrs := dp.Attributes()
	attrs.EnsureCapacity(2)
	attrs.PutStr("destination", e.Destination)
	attrs.PutStr("actual_destination", e.Actual)
}

func (b *rttBuilder) empty() bool { return b.data.Histogram().DataPoints().Len() == 0 }

// emit moves what was recorded to the end of metrics.
func (b *rttBuilder) emit(metrics pmetric.MetricSlice) {
	b.capacity = max(b.capacity, b.data.Histogram().DataPoints().Len())
	b.data.MoveTo(metrics.AppendEmpty())
	b.init()
}
