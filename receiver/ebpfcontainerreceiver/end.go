// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// endSeries makes of all points those that end their series: marked as not recorded, without a value. Each is a metric
// of its own: the prometheus exporter (v0.155) looks at no further point of a metric after the first that ends a series.
func endSeries(resources pmetric.ResourceMetricsSlice) {
	for _, rm := range resources.All() {
		for _, sm := range rm.ScopeMetrics().All() {
			ended := pmetric.NewMetricSlice()
			for _, m := range sm.Metrics().All() {
				if m.Type() == pmetric.MetricTypeHistogram {
					for _, dp := range m.Histogram().DataPoints().All() {
						endHistogram(withoutPoints(ended.AppendEmpty(), m), dp)
					}
					continue
				}
				for _, dp := range pointsOf(m).All() {
					endNumber(withoutPoints(ended.AppendEmpty(), m), dp)
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

// withoutPoints makes to the same metric as m, and returns it.
func withoutPoints(to, m pmetric.Metric) pmetric.Metric {
	to.SetName(m.Name())
	to.SetUnit(m.Unit())
	to.SetDescription(m.Description())
	switch m.Type() {
	case pmetric.MetricTypeSum:
		sum := to.SetEmptySum()
		sum.SetIsMonotonic(m.Sum().IsMonotonic())
		sum.SetAggregationTemporality(m.Sum().AggregationTemporality())
	case pmetric.MetricTypeHistogram:
		to.SetEmptyHistogram().SetAggregationTemporality(m.Histogram().AggregationTemporality())
	default:
		to.SetEmptyGauge()
	}
	return to
}

func endNumber(m pmetric.Metric, dp pmetric.NumberDataPoint) {
	end(pointsOf(m).AppendEmpty(), dp)
}

// endHistogram keeps the bounds and that there is a sum: exporters for Prometheus derive from them which series end.
func endHistogram(m pmetric.Metric, dp pmetric.HistogramDataPoint) {
	ended := m.Histogram().DataPoints().AppendEmpty()
	end(ended, dp)
	ended.SetSum(0)
	dp.ExplicitBounds().MoveTo(ended.ExplicitBounds())
	ended.BucketCounts().FromRaw(make([]uint64, dp.BucketCounts().Len()))
}

// point is what the kinds of datapoints have in common.
type point interface {
	StartTimestamp() pcommon.Timestamp
	SetStartTimestamp(pcommon.Timestamp)
	Timestamp() pcommon.Timestamp
	SetTimestamp(pcommon.Timestamp)
	SetFlags(pmetric.DataPointFlags)
	Attributes() pcommon.Map
}

func end[P point](to, dp P) {
	to.SetStartTimestamp(dp.StartTimestamp())
	to.SetTimestamp(dp.Timestamp())
	to.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
	dp.Attributes().MoveTo(to.Attributes())
}
