// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// nodeSeries are the names and labels that coroot-node-agent gives of a node whatever it is made of; those of its disks and
// interfaces are nodeDevices. A dashboard would miss each that is called otherwise.
var (
	nodeSeries = map[string]string{
		"node_info":                              "hostname kernel_version",
		"node_agent_info":                        "version",
		"node_uptime_seconds":                    "",
		"node_resources_cpu_logical_cores":       "",
		"node_resources_cpu_usage_seconds_total": "mode",
		"node_resources_memory_total_bytes":      "",
		"node_resources_memory_free_bytes":       "",
		"node_resources_memory_available_bytes":  "",
		"node_resources_memory_cached_bytes":     "",
	}
	nodeDevices = map[string]string{
		"node_resources_disk_reads_total":              "device",
		"node_resources_disk_writes_total":             "device",
		"node_resources_disk_read_bytes_total":         "device",
		"node_resources_disk_written_bytes_total":      "device",
		"node_resources_disk_read_time_seconds_total":  "device",
		"node_resources_disk_write_time_seconds_total": "device",
		"node_resources_disk_io_time_seconds_total":    "device",
		"node_net_received_bytes_total":                "interface",
		"node_net_transmitted_bytes_total":             "interface",
		"node_net_received_packets_total":              "interface",
		"node_net_transmitted_packets_total":           "interface",
		"node_net_interface_up":                        "interface",
		"node_net_interface_ip":                        "interface ip",
	}
)

// TestNode looks at what Prometheus is given of the host itself.
func TestNode(t *testing.T) {
	requireRoot(t)
	ctx := testContext(t)
	ids := identities(t)
	col := startCollector(ctx, t, collectorBinary(ctx, t), collectorConfig{
		identities: []string{"semconv", "coroot"}, interval: time.Second, include: []string{"^/no/such/container$"},
	})
	for _, id := range ids {
		eventually(ctx, t, 20*time.Second, "the node in identity "+id.name, func() error {
			body, err := get(ctx, "http://"+col.targets[id.name]+"/metrics")
			if err != nil {
				return err
			}
			p, err := parseMetrics(string(body), "node_")
			if err != nil {
				return err
			}
			var host []string // labels of all series
			for _, label := range slices.Sorted(maps.Keys(id.labels(container{}))) {
				if label != "container_id" && label != "app_id" {
					host = append(host, label)
				}
			}
			return checkNode(p, host)
		})
	}
}

// checkNode returns an error unless all series that each node has are there, and all have exactly these labels and their own.
func checkNode(p page, host []string) error {
	modes := map[string]bool{}
	for _, s := range p {
		name := s.labels["__name__"]
		own, ok := nodeSeries[name]
		if !ok {
			own, ok = nodeDevices[name]
		}
		if !ok {
			continue // what coroot-node-agent does not have
		}
		modes[s.labels["mode"]] = true
		want := slices.Sorted(slices.Values(slices.Concat(host, strings.Fields(own), []string{"__name__"})))
		if got := slices.Sorted(maps.Keys(withoutEmpty(s.labels))); !slices.Equal(got, want) {
			return fmt.Errorf("labels of %v:\n got %v\nwant %v", s, got, want)
		}
	}
	for name := range nodeSeries {
		if len(p.named(name)) == 0 {
			return fmt.Errorf("no %s", name)
		}
	}
	for _, mode := range []string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"} {
		if !modes[mode] {
			return fmt.Errorf("no CPU mode %s", mode)
		}
	}
	// A host without a disk or a physical interface has none of these, otherwise all but those that not every device has.
	for name := range nodeDevices {
		like := "node_net_received_bytes_total"
		if strings.HasPrefix(name, "node_resources_disk_") {
			like = "node_resources_disk_reads_total"
		}
		if have, want := len(p.named(name)), len(p.named(like)); have != want && name != "node_net_interface_ip" {
			return fmt.Errorf("%d series of %s, %d of %s", have, name, want, like)
		}
	}
	return nil
}
