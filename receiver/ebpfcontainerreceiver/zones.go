// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// recordZones records the traffic with peers in other zones than the host's. Where that is not known all are others.
func (w *metricsWriter) recordZones(ts pcommon.Timestamp, c *inventory.Container) {
	own := w.resources.instance.AvailabilityZone
	w.recordZonesIf(ts, c, func(zone string) bool { return zone != own })
}

// recordFormerZone records the traffic with peers in the host's zone, as long as that was not known.
func (w *metricsWriter) recordFormerZone(ts pcommon.Timestamp, c *inventory.Container, former *resourceWriter) {
	own := w.resources.instance.AvailabilityZone
	w.recordZonesIf(ts, c, func(zone string) bool { return zone == own && own != former.instance.AvailabilityZone })
}

func (w *metricsWriter) recordZonesIf(ts pcommon.Timestamp, c *inventory.Container, wanted func(zone string) bool) {
	w.begin(pcommon.NewTimestampFromTime(c.Start))
	for i := range c.Zones {
		z := &c.Zones[i]
		if !wanted(z.Zone) {
			continue
		}
		zone := valid(z.Zone)
		w.mb.RecordContainerNetTCPInterZoneBytesDataPoint(ts, toInt64(z.Sent), zone, metadata.AttributeDirectionSent)
		w.mb.RecordContainerNetTCPInterZoneBytesDataPoint(ts, toInt64(z.Received), zone, metadata.AttributeDirectionReceived)
	}
}

// zoneAttribute is added to the points of an edge, if that is asked for: the generated code would compare each new point of a
// metric with all before it if it knew of an attribute that some have.
const zoneAttribute = "actual_destination_zone"

// endFormerZones ends the series of edges whose peers were in another zone a short while ago.
func (w *metricsWriter) endFormerZones(to pmetric.ResourceMetricsSlice, ts pcommon.Timestamp, c *inventory.Container) {
	was := *c
	was.Edges = nil
	for i := range c.Edges {
		if !c.Edges[i].FormerZone.OK {
			continue
		}
		e := c.Edges[i]
		e.Zone = e.FormerZone.V
		was.Edges = append(was.Edges, e)
		w.beginWith(c, &e.Lifetime)
		w.recordEdge(ts, &e)
	}
	if was.Edges == nil { // as nearly always
		return
	}
	over := w.emit(&was)
	endSeries(over)
	join(to, over)
}

// putZones adds the attribute to the points of c's edges.
func putZones(metrics pmetric.MetricSlice, c *inventory.Container) {
	zones := make(map[string]string, len(c.Edges))
	for i := range c.Edges {
		zones[c.Edges[i].Actual] = valid(c.Edges[i].Zone)
	}
	put := func(attrs pcommon.Map) {
		if actual, ok := attrs.Get("actual_destination"); ok {
			attrs.PutStr(zoneAttribute, zones[actual.Str()])
		}
	}
	for _, m := range metrics.All() {
		if m.Type() == pmetric.MetricTypeHistogram {
			for _, dp := range m.Histogram().DataPoints().All() {
				put(dp.Attributes())
			}
			continue
		}
		for _, dp := range pointsOf(m).All() {
			put(dp.Attributes())
		}
	}
}
