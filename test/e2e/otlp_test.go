// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// sink is a second collector that receives OTLP and appends it to files.
type sink struct {
	address string
	file    string // metrics
	logs    string
}

func startSink(ctx context.Context, t *testing.T, binary string) sink {
	t.Helper()
	dir := t.TempDir()
	s := sink{
		address: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		file:    filepath.Join(dir, "metrics.json"), logs: filepath.Join(dir, "logs.json"),
	}
	config := fmt.Sprintf(`
receivers: {otlp: {protocols: {grpc: {endpoint: %q}}}}
exporters: {file: {path: %s, flush_interval: 200ms}, file/logs: {path: %s, flush_interval: 200ms}}
service:
  telemetry: %s
  pipelines: {metrics: {receivers: [otlp], exporters: [file]}, logs: {receivers: [otlp], exporters: [file/logs]}}
`, s.address, s.file, s.logs, ownTelemetry(0))
	p := startOtelcol(t, binary, writePublic(t, "sink.yaml", config), 0)
	eventually(ctx, t, 20*time.Second, "OTLP receiver is ready", func() error {
		if err := p.running(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(p.output(t), "Everything is ready") {
			return fmt.Errorf("not ready yet")
		}
		return nil
	})
	return s
}

// pushed is one time series as it came over OTLP.
type pushed struct {
	resource []string  // keys of its attributes, sorted
	values   []float64 // in order of arrival
	ended    bool      // the last datapoint carried no recorded value
}

// series reads all that has arrived, keyed as Prometheus names the series.
func (s sink) series() (map[string]*pushed, error) {
	b, err := os.ReadFile(s.file)
	if err != nil {
		return nil, err
	}
	all := map[string]*pushed{}
	for line := range strings.Lines(string(b)) {
		if !strings.HasSuffix(line, "\n") {
			break // still being written
		}
		metrics, err := (&pmetric.JSONUnmarshaler{}).UnmarshalMetrics([]byte(line))
		if err != nil {
			return nil, err
		}
		for _, rm := range metrics.ResourceMetrics().All() {
			for _, sm := range rm.ScopeMetrics().All() {
				for _, m := range sm.Metrics().All() {
					addPoints(all, rm.Resource().Attributes(), m)
				}
			}
		}
	}
	return all, nil
}

func addPoints(all map[string]*pushed, resource pcommon.Map, m pmetric.Metric) {
	var points pmetric.NumberDataPointSlice
	monotonic := false
	switch m.Type() {
	case pmetric.MetricTypeSum:
		points = m.Sum().DataPoints()
		monotonic = m.Sum().IsMonotonic() && m.Sum().AggregationTemporality() == pmetric.AggregationTemporalityCumulative
	case pmetric.MetricTypeGauge:
		points = m.Gauge().DataPoints()
	default:
		return
	}
	for _, dp := range points.All() {
		both := labels(resource)
		maps.Copy(both, labels(dp.Attributes()))
		key := seriesKey(prometheusName(m.Name(), m.Unit(), monotonic), both)
		p := all[key]
		if p == nil {
			p = &pushed{resource: slices.Sorted(maps.Keys(resource.AsRaw()))}
			all[key] = p
		}
		p.ended = dp.Flags().NoRecordedValue()
		switch {
		case p.ended:
		case dp.ValueType() == pmetric.NumberDataPointValueTypeInt:
			p.values = append(p.values, float64(dp.IntValue()))
		default:
			p.values = append(p.values, dp.DoubleValue())
		}
	}
}

// labels converts attributes to what they are called and look like in Prometheus, which does not have empty ones.
func labels(attributes pcommon.Map) map[string]string {
	all := map[string]string{}
	for k, v := range attributes.All() {
		if s := v.AsString(); s != "" {
			all[strings.ReplaceAll(k, ".", "_")] = s
		}
	}
	return all
}

// prometheusName translates a metric's name as the contract of metrics and the Prometheus exporter do.
func prometheusName(name, unit string, monotonic bool) string {
	words := strings.FieldsFunc(name, func(r rune) bool { return r == '.' || r == '_' })
	if word := map[string]string{"s": "seconds", "By": "bytes"}[unit]; word != "" && !slices.Contains(words, word) {
		words = append(words, word)
	}
	if monotonic {
		words = append(words, "total")
	}
	return strings.Join(words, "_")
}

// seriesKey writes a series as PromQL does, without the labels that the scrape adds.
func seriesKey(name string, labels map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		switch k {
		case "__name__", "job", "instance":
		default:
			fmt.Fprintf(&b, "%s=%q,", k, labels[k])
		}
	}
	return name + "{" + strings.TrimSuffix(b.String(), ",") + "}"
}

// comparePushedWithScraped returns an error unless the series that live are the same on both ways, and each value that
// Prometheus shows is one that was pushed too. A collection may lie between the two readings, so any pushed value of
// the series will do, but a counter that has come to rest has just one last value.
func comparePushedWithScraped(pushed map[string]*pushed, scraped []series) error {
	live := map[string]bool{}
	for _, s := range scraped {
		// What was pushed is a histogram, what is scraped its parts.
		if strings.HasPrefix(s.labels["__name__"], "container_net_tcp_rtt_seconds") {
			continue
		}
		key := seriesKey(s.labels["__name__"], s.labels)
		live[key] = true
		p := pushed[key]
		if p == nil {
			return fmt.Errorf("scraped but not pushed: %s", key)
		}
		if !slices.Contains(p.values[max(0, len(p.values)-5):], s.value) {
			return fmt.Errorf("%s: scraped %v, pushed %v", key, s.value, p.values[max(0, len(p.values)-5):])
		}
	}
	for key, p := range pushed {
		if !p.ended && !live[key] {
			return fmt.Errorf("pushed but not scraped: %s", key)
		}
	}
	if len(live) == 0 {
		return fmt.Errorf("nothing to compare")
	}
	return nil
}
