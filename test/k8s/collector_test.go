// SPDX-License-Identifier: Apache-2.0

//go:build linux

package k8s

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.yaml.in/yaml/v3"
)

// collector is an otelcol-custom with one receiver for each identity, which writes what it has into files.
type collector struct {
	process *process
	dir     string
}

var identities = [...]string{"semconv", "coroot"}

// startCollector starts the collector on the node. Its k8s_attributes processor is configured as in deploy/, and has the
// rights of the service account there.
func startCollector(t *testing.T, c *cluster, binary string, include []string) *collector {
	t.Helper()
	token, err := c.kubectl("create", "token", deployed, "-n", deployed)
	if err != nil {
		t.Fatal(err)
	}
	processor := shippedConfig(t)["processors"].(object)["k8s_attributes"].(object)
	processor["auth_type"] = "kubeConfig"
	processor["wait_for_metadata"] = true // fails the start where the role does not do
	config := object{
		"receivers": object{}, "exporters": object{}, "processors": object{"k8s_attributes": processor},
	}
	pipelines := object{}
	for _, identity := range identities {
		config["receivers"].(object)["ebpf_container/"+identity] = object{
			"identity": identity, "collection_interval": "1s", "containers": object{"include": include},
		}
		for _, signal := range []string{"metrics", "logs"} {
			exporter := "file/" + signal + "_" + identity
			config["exporters"].(object)[exporter] = object{
				"path": filepath.Join(c.dir, signal+"_"+identity+".json"), "flush_interval": "200ms",
			}
			pipeline := object{"receivers": []string{"ebpf_container/" + identity}, "exporters": []string{exporter}}
			if identity == "semconv" {
				pipeline["processors"] = []string{"k8s_attributes"}
			}
			pipelines[signal+"/"+identity] = pipeline
		}
	}
	config["service"] = object{"pipelines": pipelines, "telemetry": object{"metrics": object{"level": "none"}}}
	b, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	cmd := c.command(binary, "--config", c.write(t, "collector.yaml", string(b)))
	cmd.Env = append(os.Environ(), "K8S_NODE_NAME="+nodeName,
		"KUBECONFIG="+c.writeKubeconfig(t, "collector", strings.TrimSpace(token)))
	col := &collector{process: start(t, "collector", cmd), dir: c.dir}
	eventually(t, 20*time.Second, "collector is ready", func() error {
		if err := col.process.running(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(col.process.output(t), "Everything is ready") {
			return errNotYet
		}
		return nil
	})
	return col
}

// point is one point of a series.
type point struct {
	metric     string
	resource   map[string]any
	attributes map[string]any
	value      float64
	ended      bool // has no value
}

// points returns the last points of all series that have not ended.
func (c *collector) points(identity string) ([]point, error) {
	all, err := c.read(identity)
	if err != nil {
		return nil, err
	}
	last := map[string]point{}
	for _, p := range all {
		key := fmt.Sprint(p.metric, p.resource, p.attributes)
		if p.ended {
			delete(last, key)
		} else {
			last[key] = p
		}
	}
	return slices.Collect(maps.Values(last)), nil
}

// read returns all points so far, in order.
func (c *collector) read(identity string) ([]point, error) {
	b, err := os.ReadFile(filepath.Join(c.dir, "metrics_"+identity+".json"))
	if err != nil {
		return nil, err
	}
	var all []point
	for line := range strings.Lines(string(b)) {
		if !strings.HasSuffix(line, "\n") {
			break // still being written
		}
		metrics, err := (&pmetric.JSONUnmarshaler{}).UnmarshalMetrics([]byte(line))
		if err != nil {
			return nil, err
		}
		for _, rm := range metrics.ResourceMetrics().All() {
			resource := rm.Resource().Attributes().AsRaw()
			for _, sm := range rm.ScopeMetrics().All() {
				for _, m := range sm.Metrics().All() {
					for _, dp := range numbers(m).All() {
						p := point{metric: m.Name(), resource: resource, attributes: dp.Attributes().AsRaw(),
							value: dp.DoubleValue(), ended: dp.Flags().NoRecordedValue()}
						if dp.ValueType() == pmetric.NumberDataPointValueTypeInt {
							p.value = float64(dp.IntValue())
						}
						all = append(all, p)
					}
				}
			}
		}
	}
	return all, nil
}

func numbers(m pmetric.Metric) pmetric.NumberDataPointSlice {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		return m.Sum().DataPoints()
	case pmetric.MetricTypeGauge:
		return m.Gauge().DataPoints()
	}
	return pmetric.NewNumberDataPointSlice()
}

// one returns the only point of a metric whose resource has these attributes.
func (c *collector) one(identity, metric string, resource map[string]any) (point, error) {
	return c.oneOf(identity, metric, resource, nil)
}

// oneOf is one where the point has attributes too.
func (c *collector) oneOf(identity, metric string, resource, attributes map[string]any) (point, error) {
	all, err := c.points(identity)
	if err != nil {
		return point{}, err
	}
	var found []point
	var others []string
	for _, p := range all {
		if p.metric != metric {
			continue
		}
		if has(p.resource, resource) && has(p.attributes, attributes) {
			found = append(found, p)
		}
		others = append(others, fmt.Sprint(p.resource, p.attributes))
	}
	if len(found) != 1 {
		return point{}, fmt.Errorf("%d points of %s with %v %v; there are\n%s", len(found), metric, resource, attributes,
			strings.Join(others, "\n"))
	}
	return found[0], nil
}

// has tells whether attributes are among others.
func has(attributes, want map[string]any) bool {
	for k, v := range want {
		if fmt.Sprint(attributes[k]) != fmt.Sprint(v) {
			return false
		}
	}
	return true
}

// record is a log record.
type record struct {
	event                string
	resource, attributes map[string]any
}

// records returns the log records so far.
func (c *collector) records(identity string) ([]record, error) {
	b, err := os.ReadFile(filepath.Join(c.dir, "logs_"+identity+".json"))
	if err != nil {
		return nil, err
	}
	var list []record
	for line := range strings.Lines(string(b)) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		logs, err := (&plog.JSONUnmarshaler{}).UnmarshalLogs([]byte(line))
		if err != nil {
			return nil, err
		}
		for _, rl := range logs.ResourceLogs().All() {
			for _, sl := range rl.ScopeLogs().All() {
				for _, r := range sl.LogRecords().All() {
					list = append(list, record{r.EventName(), rl.Resource().Attributes().AsRaw(), r.Attributes().AsRaw()})
				}
			}
		}
	}
	return list, nil
}
