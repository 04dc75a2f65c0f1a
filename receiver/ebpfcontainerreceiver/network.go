// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// connectErrors has the attribute of each inventory.ConnectError.
var connectErrors = [inventory.NumConnectErrors]metadata.AttributeErrorType{
	inventory.ConnectRefused:            metadata.AttributeErrorTypeRefused,
	inventory.ConnectTimeout:            metadata.AttributeErrorTypeTimeout,
	inventory.ConnectReset:              metadata.AttributeErrorTypeReset,
	inventory.ConnectHostUnreachable:    metadata.AttributeErrorTypeHostUnreachable,
	inventory.ConnectNetworkUnreachable: metadata.AttributeErrorTypeNetworkUnreachable,
	inventory.ConnectAborted:            metadata.AttributeErrorTypeAborted,
	inventory.ConnectOther:              metadata.AttributeErrorTypeOther,
}

// recordConnections records what is told of all connections of c together.
func (w *metricsWriter) recordConnections(ts pcommon.Timestamp, c *inventory.Container) {
	if v := c.ResetsSent; v.OK {
		w.mb.RecordContainerNetTCPResetsDataPoint(ts, toInt64(v.V), metadata.AttributeDirectionSent)
	}
	if v := c.ResetsReceived; v.OK {
		w.mb.RecordContainerNetTCPResetsDataPoint(ts, toInt64(v.V), metadata.AttributeDirectionReceived)
	}
}

// recordPeers records the disks, destinations, listeners and logs of c: those that have ended, or those that have not. It tells
// whether there are others. The rare container that has both is gone through twice, so that the ordinary one pays nothing.
func (w *metricsWriter) recordPeers(ts pcommon.Timestamp, c *inventory.Container, ended bool) (others bool) {
	take := func(l *inventory.Lifetime) bool {
		if l.Ended != ended {
			others = true
			return false
		}
		w.beginWith(c, l)
		return true
	}
	for i := range c.Disks {
		if d := &c.Disks[i]; take(&d.Lifetime) {
			w.recordDisk(ts, d)
		}
	}
	for i := range c.Destinations {
		if d := &c.Destinations[i]; take(&d.Lifetime) {
			w.recordDestination(ts, d)
		}
	}
	for i := range c.Edges {
		if e := &c.Edges[i]; take(&e.Lifetime) {
			w.recordEdge(ts, e)
		}
	}
	for i := range c.Inbound {
		if in := &c.Inbound[i]; take(&in.Lifetime) {
			w.recordInbound(ts, in)
		}
	}
	for i := range c.Listeners {
		if l := &c.Listeners[i]; take(&l.Lifetime) {
			var open int64
			if l.Open {
				open = 1
			}
			w.mb.RecordContainerNetTCPListenInfoDataPoint(ts, open, l.ListenAddr, l.Proxy)
		}
	}
	for i := range c.Queues {
		q := &c.Queues[i]
		if take(&q.Lifetime) {
			w.mb.RecordContainerNetTCPListenOverflowsDataPoint(ts, toInt64(q.Overflows), q.ListenAddr)
		}
		// Nothing waits for a socket that is closed, and nothing may: its gauges are over at once.
		if take(&inventory.Lifetime{Start: q.Start, Ended: q.Ended || !q.Open}) {
			w.mb.RecordContainerNetTCPAcceptQueueDataPoint(ts, toInt64(q.Queue), q.ListenAddr)
			w.mb.RecordContainerNetTCPAcceptQueueLimitDataPoint(ts, toInt64(q.Limit), q.ListenAddr)
		}
	}
	for i := range c.Latencies {
		if l := &c.Latencies[i]; take(&l.Lifetime) {
			w.mb.RecordContainerNetLatencyDataPoint(ts, l.RTT.Seconds(), l.DestinationIP)
		}
	}
	if !ended {
		w.recordZones(ts, c)
	}
	return w.recordLogs(ts, c.Logs, ended) || others
}

// beginWith makes the start that of something of c.
func (w *metricsWriter) beginWith(c *inventory.Container, l *inventory.Lifetime) {
	start := c.Start
	if l.Start.After(start) {
		start = l.Start
	}
	w.begin(pcommon.NewTimestampFromTime(start))
}

func (w *metricsWriter) recordDestination(ts pcommon.Timestamp, d *inventory.Destination) {
	var failed uint64
	for reason, n := range d.Failed {
		if n > 0 {
			failed += n
			w.mb.RecordContainerNetTCPConnectErrorsDataPoint(ts, toInt64(n), d.Destination, connectErrors[reason])
		}
	}
	// Given even when zero: a counter that first shows up as 1 is no increase for a Prometheus query.
	w.mb.RecordContainerNetTCPFailedConnectsDataPoint(ts, toInt64(failed), d.Destination)
}

func (w *metricsWriter) recordEdge(ts pcommon.Timestamp, e *inventory.Edge) {
	if e.Connects == 0 && e.Active == 0 && e.BytesSent == 0 && e.BytesReceived == 0 {
		return // nothing but failures: a scan of many ports must not make seven more series of each
	}
	w.mb.RecordContainerNetTCPSuccessfulConnectsDataPoint(ts, toInt64(e.Connects), e.Destination, e.Actual)
	w.mb.RecordContainerNetTCPConnectionTimeDataPoint(ts, e.ConnectTime.Seconds(), e.Destination, e.Actual)
	w.mb.RecordContainerNetTCPActiveConnectionsDataPoint(ts, toInt64(e.Active), e.Destination, e.Actual)
	w.mb.RecordContainerNetTCPRetransmitsDataPoint(ts, toInt64(e.Retransmits), e.Destination, e.Actual)
	w.mb.RecordContainerNetTCPBytesSentDataPoint(ts, toInt64(e.BytesSent), e.Destination, e.Actual)
	w.mb.RecordContainerNetTCPBytesReceivedDataPoint(ts, toInt64(e.BytesReceived), e.Destination, e.Actual)
	if w.rtt != nil {
		w.rtt.record(w.started, ts, e)
	}
}

func (w *metricsWriter) recordInbound(ts pcommon.Timestamp, in *inventory.Inbound) {
	w.mb.RecordContainerNetTCPInboundConnectionsDataPoint(ts, toInt64(in.Accepted), in.ListenAddr)
	w.mb.RecordContainerNetTCPInboundActiveDataPoint(ts, toInt64(in.Active), in.ListenAddr)
	w.mb.RecordContainerNetTCPInboundBytesSentDataPoint(ts, toInt64(in.BytesSent), in.ListenAddr)
	w.mb.RecordContainerNetTCPInboundBytesReceivedDataPoint(ts, toInt64(in.BytesReceived), in.ListenAddr)
}
