// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cloudmeta"
	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/internal/node"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// metricsWriter turns snapshots into metrics. A value that the kernel did not tell has no datapoint, never a zero.
type metricsWriter struct {
	mb        *metadata.MetricsBuilder
	rtt       *rttBuilder // nil when switched off
	resources *resourceWriter
	version   string // of the scope
	diskIO    bool   // the attribute of container.disk.io costs an allocation
	zones     bool   // give the zones of destinations

	// where is the instance that the host is, as it is known now; nil for what is configured.
	where func() cloudmeta.Instance

	given   bool              // something, since it is there
	started pcommon.Timestamp // what the datapoints that are recorded now begin with
}

func newMetricsWriter(cfg *Config, set receiver.Settings, host node.Identity) *metricsWriter {
	w := &metricsWriter{
		mb:        metadata.NewMetricsBuilder(cfg.MetricsBuilderConfig, set),
		resources: newResourceWriter(cfg, host),
		version:   set.BuildInfo.Version,
		diskIO:    cfg.Metrics.ContainerDiskIo.Enabled,
		zones:     cfg.Network.ZoneAttribute,
	}
	if cfg.Metrics.ContainerNetTCPRtt.Enabled {
		w.rtt = newRTTBuilder()
	}
	return w
}

// write gives one resource for each container of snapshot that has any datapoint.
func (w *metricsWriter) write(snapshot inventory.Snapshot) pmetric.Metrics {
	all := pmetric.NewMetrics()
	all.ResourceMetrics().EnsureCapacity(len(snapshot.Containers))
	former := w.locate()
	w.given = true
	ts := pcommon.NewTimestampFromTime(snapshot.At)
	for i := range snapshot.Containers {
		c := &snapshot.Containers[i]
		w.begin(pcommon.NewTimestampFromTime(c.Start))
		w.recordCPU(ts, c)
		w.recordMemory(ts, c)
		w.recordPressure(ts, c)
		w.recordTasks(ts, c, snapshot.At)
		w.recordDelays(ts, c)
		w.recordDeaths(ts, c)
		w.recordDevices(ts, c)
		w.recordConnections(ts, c)
		more := w.recordPeers(ts, c, false)
		one := w.emit(c)
		if c.Phase == inventory.Ended {
			endSeries(one)
		}
		if more || len(c.EndedTypes) > 0 || len(c.EndedLabels) > 0 {
			w.recordPeers(ts, c, true)
			w.recordTypes(ts, c.EndedTypes)
			for i := range c.EndedLabels {
				w.recordInfo(ts, &c.EndedLabels[i])
			}
			over := w.emit(c)
			endSeries(over)
			join(one, over)
		}
		if w.zones {
			w.endFormerZones(one, ts, c)
		}
		if former != nil {
			w.endFormer(all.ResourceMetrics(), one, ts, c, former)
		}
		one.MoveAndAppendTo(all.ResourceMetrics())
	}
	return all
}

// locate takes in where the host is by now. If that is news it returns what the resources were made by until now, for endFormer.
func (w *metricsWriter) locate() (former *resourceWriter) {
	if w.where == nil {
		return nil
	}
	now := w.resources.at(w.where())
	if now == w.resources {
		return nil
	}
	former, w.resources = w.resources, now
	if !w.given {
		return nil
	}
	return former
}

// endFormer ends the series of a container that do not go on as they were: all of them if its resource is another one, otherwise
// those of the zone that is the host's own.
func (w *metricsWriter) endFormer(to, now pmetric.ResourceMetricsSlice, ts pcommon.Timestamp, c *inventory.Container, former *resourceWriter) {
	w.recordFormerZone(ts, c, former)
	zone := w.emit(c)
	if former.common.Equal(w.resources.common) {
		endSeries(zone)
		join(now, zone)
		return
	}
	ended := pmetric.NewResourceMetricsSlice()
	now.CopyTo(ended)
	join(ended, zone)
	res := former.resource(c)
	for _, rm := range ended.All() {
		res.CopyTo(rm.Resource())
	}
	endSeries(ended)
	ended.MoveAndAppendTo(to)
}

// begin makes start that of the datapoints recorded from now on.
func (w *metricsWriter) begin(start pcommon.Timestamp) {
	if start == w.started {
		return
	}
	w.started = start
	w.mb.Reset(metadata.WithStartTime(start)) // nothing but the start time, in spite of its name
}

// emit takes all that has been recorded of c: one resource, or none if there is nothing.
func (w *metricsWriter) emit(c *inventory.Container) pmetric.ResourceMetricsSlice {
	res := w.resources.resource(c)
	out := w.mb.Emit(metadata.WithResource(res)).ResourceMetrics()
	if w.rtt != nil && !w.rtt.empty() {
		w.emitRTT(out, res)
	}
	if w.zones && out.Len() > 0 {
		putZones(out.At(0).ScopeMetrics().At(0).Metrics(), c)
	}
	return out
}

// emitRTT adds the histogram to out.
func (w *metricsWriter) emitRTT(out pmetric.ResourceMetricsSlice, res pcommon.Resource) {
	if out.Len() == 0 { // all others are switched off
		rm := out.AppendEmpty()
		res.MoveTo(rm.Resource())
		scope := rm.ScopeMetrics().AppendEmpty().Scope()
		scope.SetName(metadata.ScopeName)
		scope.SetVersion(w.version)
	}
	w.rtt.emit(out.At(0).ScopeMetrics().At(0).Metrics())
}

// join moves the metrics of from, which is of the same container, to the end of those of to.
func join(to, from pmetric.ResourceMetricsSlice) {
	if to.Len() == 0 || from.Len() == 0 {
		from.MoveAndAppendTo(to)
		return
	}
	from.At(0).ScopeMetrics().At(0).Metrics().MoveAndAppendTo(to.At(0).ScopeMetrics().At(0).Metrics())
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
	w.recordTypes(ts, c.ApplicationTypes)
	w.recordInfo(ts, &c.InfoLabels)
	if c.Phase == inventory.Live && !c.Born.IsZero() {
		w.mb.RecordContainerUptimeDataPoint(ts, max(at.Sub(c.Born), 0).Seconds())
	}
}

func (w *metricsWriter) recordTypes(ts pcommon.Timestamp, types []string) {
	for _, what := range types {
		w.mb.RecordContainerApplicationTypeDataPoint(ts, 1, valid(what))
	}
}

// recordInfo gives a point also of what nobody knows: dashboards join on it.
func (w *metricsWriter) recordInfo(ts pcommon.Timestamp, l *inventory.InfoLabels) {
	w.mb.RecordContainerInfoDataPoint(ts, 1, valid(l.Image), valid(l.TriggeredBy), valid(l.UnitType))
}
