// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/internal/node"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// metricsWriter turns snapshots into metrics. A value that the kernel did not tell has no datapoint, never a zero.
type metricsWriter struct {
	mb        *metadata.MetricsBuilder
	resources *resourceWriter
	diskIO    bool // the attribute of container.disk.io costs an allocation
}

func newMetricsWriter(cfg *Config, set receiver.Settings, host node.Identity) *metricsWriter {
	return &metricsWriter{
		mb:        metadata.NewMetricsBuilder(cfg.MetricsBuilderConfig, set),
		resources: newResourceWriter(cfg, host),
		diskIO:    cfg.Metrics.ContainerDiskIo.Enabled,
	}
}

// write gives one resource for each container of snapshot that has any datapoint.
func (w *metricsWriter) write(snapshot inventory.Snapshot) pmetric.Metrics {
	all := pmetric.NewMetrics()
	all.ResourceMetrics().EnsureCapacity(len(snapshot.Containers))
	ts := pcommon.NewTimestampFromTime(snapshot.At)
	for i := range snapshot.Containers {
		c := &snapshot.Containers[i]
		w.recordCPU(ts, c)
		w.recordMemory(ts, c)
		w.recordPressure(ts, c)
		w.recordTasks(ts, c, snapshot.At)
		w.recordDisks(ts, c)
		w.recordEdges(ts, c)

		one := w.mb.Emit(
			metadata.WithResource(w.resources.resource(c)),
			metadata.WithStartTimeOverride(pcommon.NewTimestampFromTime(c.Start)),
		)
		if c.Phase == inventory.Ended {
			endSeries(one)
		}
		one.ResourceMetrics().MoveAndAppendTo(all.ResourceMetrics())
	}
	return all
}

func (w *metricsWriter) recordCPU(ts pcommon.Timestamp, c *inventory.Container) {
	cpu := &c.Stats.CPU
	if v := cpu.LimitCores; v.OK {
		w.mb.RecordContainerResourcesCPULimitCoresDataPoint(ts, v.V)
	}
	if v := cpu.Usage; v.OK {
		w.mb.RecordContainerResourcesCPUUsageDataPoint(ts, v.V.Seconds())
	}
	if v := cpu.User; v.OK {
		w.mb.RecordContainerResourcesCPUUserDataPoint(ts, v.V.Seconds())
		w.mb.RecordContainerCPUTimeDataPoint(ts, v.V.Seconds(), metadata.AttributeCPUModeUser)
	}
	if v := cpu.System; v.OK {
		w.mb.RecordContainerResourcesCPUSystemDataPoint(ts, v.V.Seconds())
		w.mb.RecordContainerCPUTimeDataPoint(ts, v.V.Seconds(), metadata.AttributeCPUModeSystem)
	}
	if v := cpu.Throttled; v.OK {
		w.mb.RecordContainerResourcesCPUThrottledDataPoint(ts, v.V.Seconds())
	}
	if v := cpu.Periods; v.OK {
		w.mb.RecordContainerResourcesCPUPeriodsDataPoint(ts, toInt64(v.V))
	}
	if v := cpu.ThrottledPeriods; v.OK {
		w.mb.RecordContainerResourcesCPUThrottledPeriodsDataPoint(ts, toInt64(v.V))
	}
}

func (w *metricsWriter) recordMemory(ts pcommon.Timestamp, c *inventory.Container) {
	mem := &c.Stats.Memory
	if v := mem.Limit; v.OK {
		w.mb.RecordContainerResourcesMemoryLimitDataPoint(ts, toInt64(v.V))
	}
	if v := mem.RSS; v.OK {
		w.mb.RecordContainerResourcesMemoryRssDataPoint(ts, toInt64(v.V))
		w.mb.RecordContainerMemoryRssDataPoint(ts, toInt64(v.V))
	}
	if v := mem.Cache; v.OK {
		w.mb.RecordContainerResourcesMemoryCacheDataPoint(ts, toInt64(v.V))
	}
	if v := mem.Usage; v.OK {
		w.mb.RecordContainerResourcesMemoryUsageDataPoint(ts, toInt64(v.V))
		w.mb.RecordContainerMemoryUsageDataPoint(ts, toInt64(v.V))
	}
	if v := mem.WorkingSet; v.OK {
		w.mb.RecordContainerResourcesMemoryWorkingSetDataPoint(ts, toInt64(v.V))
		w.mb.RecordContainerMemoryWorkingSetDataPoint(ts, toInt64(v.V))
	}
	if v := mem.Swap; v.OK {
		w.mb.RecordContainerResourcesMemorySwapDataPoint(ts, toInt64(v.V))
	}
	if v := mem.Kernel; v.OK {
		w.mb.RecordContainerResourcesMemoryKernelDataPoint(ts, toInt64(v.V))
	}
	if v := mem.Peak; v.OK {
		w.mb.RecordContainerResourcesMemoryPeakDataPoint(ts, toInt64(v.V))
	}
	if v := mem.MinorFaults; v.OK {
		w.mb.RecordContainerResourcesMemoryFaultsDataPoint(ts, toInt64(v.V), metadata.AttributeFaultTypeMinor)
	}
	if v := mem.MajorFaults; v.OK {
		w.mb.RecordContainerResourcesMemoryFaultsDataPoint(ts, toInt64(v.V), metadata.AttributeFaultTypeMajor)
	}
	w.recordMemoryEvents(ts, c)
}

func (w *metricsWriter) recordMemoryEvents(ts pcommon.Timestamp, c *inventory.Container) {
	ev := &c.Stats.Memory.Events
	if v := ev.Low; v.OK {
		w.mb.RecordContainerResourcesMemoryEventsDataPoint(ts, toInt64(v.V), metadata.AttributeMemoryEventTypeLow)
	}
	if v := ev.High; v.OK {
		w.mb.RecordContainerResourcesMemoryEventsDataPoint(ts, toInt64(v.V), metadata.AttributeMemoryEventTypeHigh)
	}
	if v := ev.Max; v.OK {
		w.mb.RecordContainerResourcesMemoryEventsDataPoint(ts, toInt64(v.V), metadata.AttributeMemoryEventTypeMax)
	}
	if v := ev.OOM; v.OK {
		w.mb.RecordContainerResourcesMemoryEventsDataPoint(ts, toInt64(v.V), metadata.AttributeMemoryEventTypeOom)
	}
	if v := ev.OOMKill; v.OK {
		w.mb.RecordContainerResourcesMemoryEventsDataPoint(ts, toInt64(v.V), metadata.AttributeMemoryEventTypeOomKill)
	}
}

func (w *metricsWriter) recordPressure(ts pcommon.Timestamp, c *inventory.Container) {
	psi := &c.Stats.Pressure
	if v := psi.CPU.Some; v.OK {
		w.mb.RecordContainerResourcesCPUPressureWaitingDataPoint(ts, v.V.Seconds(), metadata.AttributeKindSome)
	}
	if v := psi.CPU.Full; v.OK {
		w.mb.RecordContainerResourcesCPUPressureWaitingDataPoint(ts, v.V.Seconds(), metadata.AttributeKindFull)
	}
	if v := psi.Memory.Some; v.OK {
		w.mb.RecordContainerResourcesMemoryPressureWaitingDataPoint(ts, v.V.Seconds(), metadata.AttributeKindSome)
	}
	if v := psi.Memory.Full; v.OK {
		w.mb.RecordContainerResourcesMemoryPressureWaitingDataPoint(ts, v.V.Seconds(), metadata.AttributeKindFull)
	}
	if v := psi.IO.Some; v.OK {
		w.mb.RecordContainerResourcesIoPressureWaitingDataPoint(ts, v.V.Seconds(), metadata.AttributeKindSome)
	}
	if v := psi.IO.Full; v.OK {
		w.mb.RecordContainerResourcesIoPressureWaitingDataPoint(ts, v.V.Seconds(), metadata.AttributeKindFull)
	}
}

func (w *metricsWriter) recordTasks(ts pcommon.Timestamp, c *inventory.Container, at time.Time) {
	if v := c.Stats.PIDs.Current; v.OK {
		w.mb.RecordContainerResourcesPidsDataPoint(ts, toInt64(v.V))
	}
	if v := c.Stats.PIDs.Limit; v.OK {
		w.mb.RecordContainerResourcesPidsLimitDataPoint(ts, toInt64(v.V))
	}
	if c.Phase == inventory.Live && !c.Born.IsZero() {
		w.mb.RecordContainerUptimeDataPoint(ts, max(at.Sub(c.Born), 0).Seconds())
	}
}

func (w *metricsWriter) recordDisks(ts pcommon.Timestamp, c *inventory.Container) {
	if !w.diskIO {
		return
	}
	for _, d := range c.Stats.Devices {
		dev := strconv.FormatUint(uint64(d.Major), 10) + ":" + strconv.FormatUint(uint64(d.Minor), 10)
		w.mb.RecordContainerDiskIoDataPoint(ts, toInt64(d.ReadBytes), metadata.AttributeDiskIoDirectionRead, dev)
		w.mb.RecordContainerDiskIoDataPoint(ts, toInt64(d.WriteBytes), metadata.AttributeDiskIoDirectionWrite, dev)
	}
}

func (w *metricsWriter) recordEdges(ts pcommon.Timestamp, c *inventory.Container) {
	for i := range c.Edges {
		e := &c.Edges[i]
		// Given even when zero: a counter that first shows up as 1 is no increase for a Prometheus query.
		w.mb.RecordContainerNetTCPFailedConnectsDataPoint(ts, toInt64(e.FailedConnects), e.Destination)
		if e.Connects == 0 && e.Active == 0 && e.BytesSent == 0 && e.BytesReceived == 0 {
			continue // nothing but failures: a scan of many ports must not make seven more series of each
		}
		w.mb.RecordContainerNetTCPSuccessfulConnectsDataPoint(ts, toInt64(e.Connects), e.Destination, e.Actual)
		w.mb.RecordContainerNetTCPConnectionTimeDataPoint(ts, e.ConnectTime.Seconds(), e.Destination, e.Actual)
		w.mb.RecordContainerNetTCPActiveConnectionsDataPoint(ts, toInt64(e.Active), e.Destination, e.Actual)
		w.mb.RecordContainerNetTCPRetransmitsDataPoint(ts, toInt64(e.Retransmits), e.Destination, e.Actual)
		w.mb.RecordContainerNetTCPBytesSentDataPoint(ts, toInt64(e.BytesSent), e.Destination, e.Actual)
		w.mb.RecordContainerNetTCPBytesReceivedDataPoint(ts, toInt64(e.BytesReceived), e.Destination, e.Actual)
	}
}

// endSeries makes of md the points that end its series: marked as not recorded, without a value. Each is a metric of its
// own: the prometheus exporter (v0.155) looks at no further point of a metric after the first that ends a series.
func endSeries(md pmetric.Metrics) {
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			ended := pmetric.NewMetricSlice()
			for _, m := range sm.Metrics().All() {
				for _, dp := range pointsOf(m).All() {
					endPoint(ended.AppendEmpty(), m, dp)
				}
			}
			ended.CopyTo(sm.Metrics())
		}
	}
}

func pointsOf(m pmetric.Metric) pmetric.NumberDataPointSlice {
	if m.Type() == pmetric.MetricTypeSum {
		return m.Sum().DataPoints()
	}
	return m.Gauge().DataPoints()
}

func endPoint(to, m pmetric.Metric, dp pmetric.NumberDataPoint) {
	to.SetName(m.Name())
	to.SetUnit(m.Unit())
	to.SetDescription(m.Description())
	if m.Type() == pmetric.MetricTypeSum {
		sum := to.SetEmptySum()
		sum.SetIsMonotonic(m.Sum().IsMonotonic())
		sum.SetAggregationTemporality(m.Sum().AggregationTemporality())
	} else {
		to.SetEmptyGauge()
	}
	ended := pointsOf(to).AppendEmpty()
	ended.SetStartTimestamp(dp.StartTimestamp())
	ended.SetTimestamp(dp.Timestamp())
	ended.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
	dp.Attributes().MoveTo(ended.Attributes())
}
