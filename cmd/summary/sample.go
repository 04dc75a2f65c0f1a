// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// sample is one reading of the exporter's page.
type sample struct {
	at         time.Time
	containers map[string]*container
}

// container is what one container had used up when the page was read. A pointer is nil where the page has no such series.
type container struct {
	name        string
	types       map[string]bool
	cpuSeconds  *float64
	cpuDelay    *float64
	rss         *float64
	workingSet  *float64
	restarts    *float64
	exits       *float64
	exitsBy     map[string]float64 // reason -> exits
	connects    *float64
	failed      *float64
	accepted    *float64
	active      *float64           // in both directions
	connectedTo map[string]float64 // destination -> connects
	failedBy    map[string]float64 // error.type -> failed connects

	logged       *float64 // messages
	loggedErrors float64  // those of level error and critical
}

// parse reads the Prometheus text format.
func parse(page io.Reader, at time.Time) (sample, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(page)
	if err != nil {
		return sample{}, fmt.Errorf("metrics page: %w", err)
	}
	s := sample{at: at, containers: map[string]*container{}}
	each := func(family string, add func(c *container, labels map[string]string, value float64)) {
		for _, m := range families[family].GetMetric() {
			labels := labelsOf(m)
			id, name := identify(labels)
			if id == "" {
				continue
			}
			c := s.containers[id]
			if c == nil {
				c = &container{
					name: name, types: map[string]bool{},
					connectedTo: map[string]float64{}, failedBy: map[string]float64{}, exitsBy: map[string]float64{},
				}
				s.containers[id] = c
			}
			add(c, labels, valueOf(m))
		}
	}
	each("container_resources_cpu_usage_seconds_total", func(c *container, _ map[string]string, v float64) { c.cpuSeconds = &v })
	each("container_application_type", func(c *container, labels map[string]string, _ float64) { c.types[labels["application_type"]] = true })
	each("container_resources_cpu_delay_seconds_total", func(c *container, _ map[string]string, v float64) { c.cpuDelay = &v })
	each("container_restarts_total", func(c *container, _ map[string]string, v float64) { c.restarts = &v })
	each("container_exits_total", func(c *container, labels map[string]string, v float64) {
		c.exits = sum(c.exits, v)
		c.exitsBy[labels["reason"]] += v
	})
	each("container_resources_memory_rss_bytes", func(c *container, _ map[string]string, v float64) { c.rss = &v })
	each("container_resources_memory_working_set_bytes", func(c *container, _ map[string]string, v float64) { c.workingSet = &v })
	each("container_net_tcp_successful_connects_total", func(c *container, labels map[string]string, v float64) {
		c.connects = sum(c.connects, v)
		c.connectedTo[labels["destination"]] += v
	})
	each("container_net_tcp_failed_connects_total", func(c *container, _ map[string]string, v float64) { c.failed = sum(c.failed, v) })
	each("container_net_tcp_connect_errors_total", func(c *container, labels map[string]string, v float64) {
		c.failedBy[labels["error_type"]] += v
	})
	each("container_net_tcp_inbound_connections_total", func(c *container, _ map[string]string, v float64) { c.accepted = sum(c.accepted, v) })
	each("container_log_messages_total", func(c *container, labels map[string]string, v float64) {
		c.logged = sum(c.logged, v)
		if level := labels["level"]; level == "error" || level == "critical" {
			c.loggedErrors += v
		}
	})
	each("container_net_tcp_active_connections", func(c *container, _ map[string]string, v float64) { c.active = sum(c.active, v) })
	each("container_net_tcp_inbound_active", func(c *container, _ map[string]string, v float64) { c.active = sum(c.active, v) })
	return s, nil
}

// sum adds v to what may not be there yet.
func sum(total *float64, v float64) *float64 {
	if total != nil {
		v += *total
	}
	return &v
}

// identify returns what tells the container of a series from all others, and a name to read. Both are "" for a series
// that is no container's.
func identify(labels map[string]string) (id, name string) {
	id = labels["container_id"]
	if strings.HasPrefix(id, "/") { // identity: coroot
		return id, id
	}
	runtime, given, unit := labels["container_runtime_name"], labels["container_name"], labels["systemd_unit_name"]
	switch {
	case unit != "":
		name = strings.TrimSuffix("/"+labels["systemd_slice"], "/") + "/" + unit
		return name, name
	case id == "" && given == "":
		return "", ""
	case labels["k8s_pod_name"] != "":
		name = "/" + labels["k8s_namespace_name"] + "/" + labels["k8s_pod_name"] + "/" + labels["k8s_container_name"]
	case given != "":
		name = runtime + "/" + given
	case labels["k8s_pod_uid"] != "":
		name = "pod " + labels["k8s_pod_uid"] + "/" + shortID(id)
	default:
		name = runtime + "/" + shortID(id)
	}
	return strings.Join([]string{runtime, labels["containerd_namespace"], id, given}, "/"), name
}

// shortID is the form that docker ps shows. Only hex ids are cut, others were chosen by people.
func shortID(id string) string {
	if len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" {
		return id[:12]
	}
	return id
}

func labelsOf(m *dto.Metric) map[string]string {
	labels := make(map[string]string, len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	return labels
}

func valueOf(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.GetCounter().GetValue()
	case m.Gauge != nil:
		return m.GetGauge().GetValue()
	default:
		return m.GetUntyped().GetValue()
	}
}
