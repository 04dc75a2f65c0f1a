// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"iter"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// endMissing adds those series of last to now that now does not have: with the time ts, as ended. Both are of one node, without
// histograms.
func endMissing(last, now pmetric.ResourceMetricsSlice, ts pcommon.Timestamp) {
	here := map[string]bool{}
	for m, dp := range nodePoints(now) {
		here[seriesKey(m, dp)] = true
	}
	// Should the host be called something else from now on, all of its series are others.
	renamed := last.Len() > 0 && now.Len() > 0 && !last.At(0).Resource().Attributes().Equal(now.At(0).Resource().Attributes())
	if renamed {
		clear(here)
	}
	keepMissing(last, here, ts)
	endSeries(last)
	if renamed { // the ends first: what does not tell resources apart, as some exporters, keeps what comes last
		now.MoveAndAppendTo(last)
		last.MoveAndAppendTo(now)
		return
	}
	join(now, last)
}

// keepMissing leaves of the series of last those that are not here, with the time ts.
func keepMissing(last pmetric.ResourceMetricsSlice, here map[string]bool, ts pcommon.Timestamp) {
	missing := false
	for m, dp := range nodePoints(last) {
		missing = missing || !here[seriesKey(m, dp)]
	}
	last.RemoveIf(func(rm pmetric.ResourceMetrics) bool {
		if !missing { // as nearly always
			return true
		}
		rm.ScopeMetrics().At(0).Metrics().RemoveIf(func(m pmetric.Metric) bool {
			pointsOf(m).RemoveIf(func(dp pmetric.NumberDataPoint) bool {
				dp.SetTimestamp(ts)
				return here[seriesKey(m, dp)]
			})
			return pointsOf(m).Len() == 0
		})
		return false
	})
}

// nodePoints goes through all points.
func nodePoints(resources pmetric.ResourceMetricsSlice) iter.Seq2[pmetric.Metric, pmetric.NumberDataPoint] {
	return func(yield func(pmetric.Metric, pmetric.NumberDataPoint) bool) {
		for _, rm := range resources.All() {
			for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
				for _, dp := range pointsOf(m).All() {
					if !yield(m, dp) {
						return
					}
				}
			}
		}
	}
}

// seriesKey tells the series of a node apart: the attributes of a metric always come in one order.
func seriesKey(m pmetric.Metric, dp pmetric.NumberDataPoint) string {
	var key strings.Builder
	key.WriteString(m.Name())
	for _, v := range dp.Attributes().All() {
		key.WriteByte(0) // in no name of a device
		key.WriteString(v.Str())
	}
	return key.String()
}
