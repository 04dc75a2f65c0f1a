// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// container is one that a test made, by what the identities call it.
type container struct {
	path    string            // path form
	appID   string            // of Kubernetes
	id      string            // the runtime's, "" for a systemd unit
	semconv map[string]string // resource attributes in the semantic conventions, as labels
	cgroup  cgroup
}

func dockerContainer(id string) container {
	return container{
		path: "/docker/" + id, id: id, cgroup: cgroup{"/docker/" + id},
		semconv: map[string]string{"container_id": id, "container_runtime_name": "docker"},
	}
}

func containerdContainer(namespace, id string) container {
	return container{
		path: "/containerd/" + namespace + "/" + id, id: id, cgroup: cgroup{"/" + namespace + "/" + id},
		semconv: map[string]string{
			"container_id": id, "container_runtime_name": "containerd", "containerd_namespace": namespace,
		},
	}
}

func systemdUnit(cg cgroup) container {
	slice, unit := path.Split(cg.path)
	return container{
		path: cg.path, cgroup: cg,
		semconv: map[string]string{"systemd_unit_name": unit, "systemd_slice": strings.Trim(slice, "/")},
	}
}

// identity is one of the receiver's ways to tell containers apart.
type identity struct {
	name   string
	labels func(container) map[string]string // exactly those of the resource
}

func identities(t *testing.T) []identity {
	t.Helper()
	machineID := strings.ReplaceAll(hostFile(t, "/etc/machine-id"), "-", "")
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	uuid := hostFile(t, "/sys/class/dmi/id/product_uuid")
	return []identity{
		{name: "semconv", labels: func(c container) map[string]string {
			all := withoutEmpty(map[string]string{"host_id": machineID, "host_name": hostname})
			maps.Copy(all, c.semconv)
			return all
		}},
		{name: "coroot", labels: func(c container) map[string]string {
			return withoutEmpty(map[string]string{
				"container_id": c.path, "app_id": c.appID, "machine_id": machineID, "system_uuid": uuid,
			})
		}},
	}
}

// selector returns the label matchers, without braces, that select the series of one container.
func (i identity) selector(c container) string {
	all := i.labels(c)
	matchers := []string{fmt.Sprintf("job=%q", i.name)}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		matchers = append(matchers, fmt.Sprintf("%s=%q", k, all[k]))
	}
	return strings.Join(matchers, ",")
}

// withoutEmpty leaves out what Prometheus would: a label without value is no label.
func withoutEmpty(labels map[string]string) map[string]string {
	maps.DeleteFunc(labels, func(_, v string) bool { return v == "" })
	return labels
}

// hostFile reads a one-line file that not every host has.
func hostFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// pointLabels are the attributes that the contract gives to the datapoints of a metric.
func pointLabels(metric string) []string {
	switch {
	case metric == "container_info":
		return []string{"image", "systemd_triggered_by", "systemd_type"}
	case metric == "container_application_type":
		return []string{"application_type"}
	case metric == "container_exits_total":
		return []string{"reason"}
	case metric == "container_resources_delay_seconds_total":
		return []string{"kind"}
	case metric == "container_resources_disk_delay_seconds_total":
		return nil
	case metric == "container_log_messages_total":
		return []string{"level", "pattern_hash", "sample", "source"}
	case metric == "container_log_bytes_total":
		return []string{"source"}
	case metric == "container_log_lines_dropped_total":
		return []string{"reason", "source"}
	case metric == "container_net_latency_seconds":
		return []string{"destination_ip"}
	case metric == "container_net_tcp_failed_connects_total":
		return []string{"destination"}
	case metric == "container_net_tcp_connect_errors_total":
		return []string{"destination", "error_type"}
	case metric == "container_net_tcp_resets_total":
		return []string{"direction"}
	case metric == "container_net_tcp_listen_info":
		return []string{"listen_addr", "proxy"}
	case strings.HasPrefix(metric, "container_net_tcp_inbound_"), metric == "container_net_tcp_listen_overflows_total",
		strings.HasPrefix(metric, "container_net_tcp_accept_queue"):
		return []string{"listen_addr"}
	case metric == "container_net_tcp_rtt_seconds_bucket":
		return []string{"actual_destination", "destination", "le"}
	case strings.HasPrefix(metric, "container_net_tcp_"):
		return []string{"actual_destination", "destination"}
	case strings.HasSuffix(metric, "_pressure_waiting_seconds_total"):
		return []string{"kind"}
	case metric == "container_resources_memory_faults_total", metric == "container_resources_memory_events_total":
		return []string{"type"}
	case strings.HasPrefix(metric, "container_resources_disk_"):
		return []string{"device", "mount_point", "volume"}
	}
	return nil
}

// mayBeEmpty tells of an attribute whether it has no value at times; it is no label then.
func mayBeEmpty(label string) bool {
	switch label {
	case "proxy", "image", "systemd_triggered_by", "systemd_type", "mount_point", "volume":
		return true
	}
	return false
}

// checkLabels returns an error unless the series have exactly the labels of their container's resource, those of their
// datapoint and those of the scrape.
func (i identity) checkLabels(c container, all []series) error {
	for _, s := range all {
		want := slices.Sorted(maps.Keys(i.labels(c)))
		for _, label := range pointLabels(s.labels["__name__"]) {
			if s.labels[label] != "" || !mayBeEmpty(label) {
				want = append(want, label)
			}
		}
		want = append(want, "__name__", "instance", "job")
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(s.labels)); !slices.Equal(got, want) {
			return fmt.Errorf("labels of %v:\n got %v\nwant %v", s, got, want)
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("no series of %s", c.path)
	}
	return nil
}
