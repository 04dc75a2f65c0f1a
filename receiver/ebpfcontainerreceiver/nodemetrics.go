// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"net/netip"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cloudmeta"
	"github.com/ebpfcontainer/ebpfcontainer/internal/node"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// nodeWriter turns what was read of the host into metrics: one resource. What is not known has no datapoint. It is used by one
// goroutine.
type nodeWriter struct {
	mb        *metadata.MetricsBuilder
	resources *resourceWriter
	host      node.Identity
	version   string // of the collector

	where func() cloudmeta.Instance // as in metricsWriter

	booted pcommon.Timestamp            // 0 until it is known
	given  pmetric.ResourceMetricsSlice // the last time
}

func newNodeWriter(cfg *Config, set receiver.Settings, host node.Identity, resources *resourceWriter) *nodeWriter {
	return &nodeWriter{
		mb:        metadata.NewMetricsBuilder(cfg.MetricsBuilderConfig, set),
		resources: resources,
		host:      host,
		version:   set.BuildInfo.Version,
		given:     pmetric.NewResourceMetricsSlice(),
	}
}

// write gives one resource with all that is in st, and with points that end the series that were given the last time and are
// not any more, such as those of a disk that was taken out. Nil is no reading, and gives and ends nothing.
func (w *nodeWriter) write(st *nodeStats) pmetric.ResourceMetricsSlice {
	if st == nil {
		return pmetric.NewResourceMetricsSlice()
	}
	if w.where != nil {
		w.resources = w.resources.at(w.where())
	}
	ts := pcommon.NewTimestampFromTime(st.At)
	// Kept, and in whole seconds: a start that moves from one collection to the next is that of another series.
	if up := st.Uptime; up.OK && w.booted == 0 {
		w.booted = pcommon.NewTimestampFromTime(st.At.Add(-up.V).Round(time.Second))
	}
	w.begin(0) // the life of a disk began at no time that is known
	for i := range st.Health {
		w.recordHealth(ts, &st.Health[i])
	}
	w.begin(w.booted)
	w.recordHost(ts, st)
	w.recordCPU(ts, &st.CPU)
	w.recordMemory(ts, &st.Memory)
	w.recordDevices(ts, st)
	w.recordNetwork(ts, st)
	w.recordPressure(ts, &st.Pressure)
	now := w.mb.Emit(metadata.WithResource(w.resources.node())).ResourceMetrics()

	over := w.given
	w.given = pmetric.NewResourceMetricsSlice()
	now.CopyTo(w.given)
	endMissing(over, now, ts)
	return now
}

func (w *nodeWriter) begin(start pcommon.Timestamp) { w.mb.Reset(metadata.WithStartTime(start)) }

// node returns the resource of the host itself.
func (w *resourceWriter) node() pcommon.Resource {
	res := pcommon.NewResource()
	w.common.CopyTo(res.Attributes())
	if w.identity == IdentityCoroot { // there az and region are of containers
		res.Attributes().RemoveIf(func(key string, _ pcommon.Value) bool { return key != "machine_id" && key != "system_uuid" })
	}
	return res
}

func (w *nodeWriter) recordHost(ts pcommon.Timestamp, st *nodeStats) {
	w.mb.RecordNodeAgentInfoDataPoint(ts, 1, valid(w.version))
	if w.host.HostName != "" || w.host.KernelVersion != "" {
		w.mb.RecordNodeInfoDataPoint(ts, 1, valid(w.host.HostName), valid(w.host.KernelVersion))
	}
	w.recordCloud(ts, w.resources.instance)
	if up := st.Uptime; up.OK {
		w.mb.RecordNodeUptimeDataPoint(ts, up.V.Seconds())
	}
}

func (w *nodeWriter) recordCPU(ts pcommon.Timestamp, cpu *node.Opt[node.CPU]) {
	if !cpu.OK {
		return
	}
	w.mb.RecordNodeResourcesCPULogicalCoresDataPoint(ts, int64(cpu.V.LogicalCores))
	for _, mode := range [...]struct {
		mode    metadata.AttributeNodeCPUMode
		seconds float64
	}{
		{metadata.AttributeNodeCPUModeUser, cpu.V.User},
		{metadata.AttributeNodeCPUModeNice, cpu.V.Nice},
		{metadata.AttributeNodeCPUModeSystem, cpu.V.System},
		{metadata.AttributeNodeCPUModeIdle, cpu.V.Idle},
		{metadata.AttributeNodeCPUModeIowait, cpu.V.IOWait},
		{metadata.AttributeNodeCPUModeIrq, cpu.V.IRQ},
		{metadata.AttributeNodeCPUModeSoftirq, cpu.V.SoftIRQ},
		{metadata.AttributeNodeCPUModeSteal, cpu.V.Steal},
	} {
		w.mb.RecordNodeResourcesCPUUsageDataPoint(ts, mode.seconds, mode.mode)
	}
}

func (w *nodeWriter) recordMemory(ts pcommon.Timestamp, mem *node.Memory) {
	for _, c := range [...]count{
		{mem.Total, w.mb.RecordNodeResourcesMemoryTotalDataPoint},
		{mem.Free, w.mb.RecordNodeResourcesMemoryFreeDataPoint},
		{mem.Available, w.mb.RecordNodeResourcesMemoryAvailableDataPoint},
		{mem.Cached, w.mb.RecordNodeResourcesMemoryCachedDataPoint},
	} {
		c.recordAt(ts)
	}
}

// count is a number that may be unknown, and how it is recorded.
type count struct {
	node.Opt[uint64]
	record func(pcommon.Timestamp, int64)
}

func (c *count) recordAt(ts pcommon.Timestamp) {
	if c.OK {
		c.record(ts, toInt64(c.V))
	}
}

func (w *nodeWriter) recordNetwork(ts pcommon.Timestamp, st *nodeStats) {
	for _, c := range [...]count{
		{st.TCP.Retransmits, w.mb.RecordNodeNetTCPRetransmitsDataPoint},
		{st.TCP.ResetsSent, w.mb.RecordNodeNetTCPResetsSentDataPoint},
		{st.TCP.EstablishedResets, w.mb.RecordNodeNetTCPResetsDataPoint},
		{st.TCP.ListenDrops, w.mb.RecordNodeNetTCPListenDropsDataPoint},
		{st.TCP.ListenOverflows, w.mb.RecordNodeNetTCPListenOverflowsDataPoint},
		{st.UDP.ReceiveErrors, w.mb.RecordNodeNetUDPReceiveErrorsDataPoint},
		{st.UDP.ReceiveBufferErrors, w.mb.RecordNodeNetUDPReceiveBufferErrorsDataPoint},
		{st.UDP.ChecksumErrors, w.mb.RecordNodeNetUDPChecksumErrorsDataPoint},
		{st.UDP.SendBufferErrors, w.mb.RecordNodeNetUDPSendBufferErrorsDataPoint},
		{st.UDP.NoPort, w.mb.RecordNodeNetUDPNoPortDataPoint},
		{st.Conntrack.Entries, w.mb.RecordNodeNetConntrackEntriesDataPoint},
		{st.Conntrack.Limit, w.mb.RecordNodeNetConntrackLimitDataPoint},
	} {
		c.recordAt(ts)
	}
	if v := st.Listening.TCP; v.OK {
		w.mb.RecordNodeNetListeningPortsDataPoint(ts, int64(v.V), metadata.AttributeTransportTCP)
	}
	if v := st.Listening.UDP; v.OK {
		w.mb.RecordNodeNetListeningPortsDataPoint(ts, int64(v.V), metadata.AttributeTransportUDP)
	}
}

func (w *nodeWriter) recordPressure(ts pcommon.Timestamp, psi *node.Pressure) {
	for _, r := range [...]struct {
		resource metadata.AttributePressureResource
		stall    *node.Stall
	}{
		{metadata.AttributePressureResourceCPU, &psi.CPU},
		{metadata.AttributePressureResourceMemory, &psi.Memory},
		{metadata.AttributePressureResourceIo, &psi.IO},
	} {
		if v := r.stall.Some; v.OK {
			w.mb.RecordNodeResourcesPressureWaitingDataPoint(ts, v.V.Seconds(), r.resource, metadata.AttributeKindSome)
		}
		if v := r.stall.Full; v.OK {
			w.mb.RecordNodeResourcesPressureWaitingDataPoint(ts, v.V.Seconds(), r.resource, metadata.AttributeKindFull)
		}
	}
}

// recordCloud gives a point where anything is known. What is not is an empty label: dashboards join on all of them.
func (w *nodeWriter) recordCloud(ts pcommon.Timestamp, i cloudmeta.Instance) {
	if i == (cloudmeta.Instance{}) {
		return
	}
	address := func(a netip.Addr) string {
		if !a.IsValid() {
			return ""
		}
		return a.String()
	}
	w.mb.RecordNodeCloudInfoDataPoint(ts, 1, valid(string(i.Provider)), valid(i.AccountID), valid(i.InstanceID), valid(i.InstanceType),
		valid(i.LifeCycle), valid(i.Region), valid(i.AvailabilityZone), valid(i.AvailabilityZoneID), address(i.LocalIPv4), address(i.PublicIPv4))
}
