// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/ebpfcontainer/ebpfcontainer/internal/node"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// fullNode has a different value in each field, so that no two can be mixed up.
func fullNode() *nodeStats {
	n := uint64(7000)
	plain := func() uint64 { n++; return n }
	count := func() node.Opt[uint64] { return node.Some(plain()) }
	took := func() time.Duration { return time.Duration(plain()) * time.Millisecond }
	stall := func() node.Opt[time.Duration] { return node.Some(took()) }
	traffic := func() node.Traffic {
		return node.Traffic{Bytes: plain(), Packets: plain(), Errors: plain(), Drops: plain()}
	}
	return &nodeStats{At: testNow, Stats: node.Stats{
		Uptime: node.Some(90061520 * time.Millisecond),
		CPU: node.Some(node.CPU{
			LogicalCores: 4, User: 1.5, Nice: 2.5, System: 3.5, Idle: 4.5, IOWait: 5.5, IRQ: 6.5, SoftIRQ: 7.5, Steal: 8.5,
		}),
		Memory: node.Memory{Total: count(), Free: count(), Available: count(), Cached: count()},
		Disks: []node.Disk{
			{Name: "sda", Reads: plain(), Writes: plain(), Read: plain(), Written: plain(), ReadTime: took(), WriteTime: took(), IOTime: took()},
			{Name: "md0", Stacked: true, Reads: plain(), Writes: plain(), Read: plain(), Written: plain()},
		},
		Arrays: []node.Array{
			{Name: "md0", Level: "raid5", State: "recovering", Active: 2, Total: 3, Failed: 4, Spare: 5, Down: 1, Synced: node.Some(0.25)},
		},
		Health: []node.Health{
			{
				Disk: "nvme0n1", Passed: node.Some(true), Temperature: node.Some(41), PercentageUsed: node.Some(uint8(103)), MediaErrors: count(),
				PowerOn: node.Some(17 * time.Hour),
			},
			{Disk: "sda", Passed: node.Some(false)},
		},
		Interfaces: []node.Interface{
			{
				Name: "eth0", Up: node.Some(true), Receive: traffic(), Transmit: traffic(),
				Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
			},
			{Name: "eth1", Up: node.Some(false)},
		},
		TCP: node.TCP{
			Retransmits: count(), ResetsSent: count(), EstablishedResets: count(), ListenDrops: count(), ListenOverflows: count(),
		},
		UDP: node.UDP{
			ReceiveErrors: count(), ReceiveBufferErrors: count(), ChecksumErrors: count(), SendBufferErrors: count(), NoPort: count(),
		},
		Listening: node.Listening{TCP: node.Some(22), UDP: node.Some(53)},
		Conntrack: node.Conntrack{Entries: count(), Limit: count()},
		Pressure: node.Pressure{
			CPU: node.Stall{Some: stall()}, Memory: node.Stall{Some: stall(), Full: stall()}, IO: node.Stall{Some: stall(), Full: stall()},
		},
	}}
}

func testNodeWriter(cfg *Config) *nodeWriter {
	set := receivertest.NewNopSettings(metadata.Type)
	set.BuildInfo.Version = "1.2.3"
	return newNodeWriter(cfg, set, testHost, newResourceWriter(cfg, testHost))
}

func nodeMetrics(resources pmetric.ResourceMetricsSlice) pmetric.Metrics {
	md := pmetric.NewMetrics()
	resources.CopyTo(md.ResourceMetrics())
	return md
}

func TestNodeMetricsSemconv(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Cloud = CloudConfig{
		Provider: "aws", Region: "eu-central-1", AvailabilityZone: "eu-central-1a", AccountID: "123456789012",
		InstanceID: "i-0123456789abcdef0", InstanceType: "m7g.large",
	}
	compareGolden(t, "node.yaml", nodeMetrics(testNodeWriter(cfg).write(fullNode())))
}

// Of what coroot-node-agent tells of a node each metric has its attributes, and no others.
func TestNodeMetricsCoroot(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Identity = IdentityCoroot
	cfg.Cloud.Region, cfg.Cloud.AvailabilityZone = "eu-central-1", "eu-central-1a" // of containers alone
	md := nodeMetrics(testNodeWriter(cfg).write(fullNode()))
	compareGolden(t, "node_coroot.yaml", md)

	want := map[string]string{
		"node.info":                        "hostname kernel_version",
		"node.agent.info":                  "version",
		"node.uptime":                      "",
		"node.cloud.info":                  "provider account_id instance_id instance_type instance_life_cycle region availability_zone availability_zone_id local_ipv4 public_ipv4",
		"node.resources.cpu.logical_cores": "",
		"node.resources.cpu.usage":         "mode",
		"node.resources.memory.total":      "",
		"node.resources.memory.free":       "",
		"node.resources.memory.available":  "",
		"node.resources.memory.cached":     "",
		"node.resources.disk.reads":        "device",
		"node.resources.disk.writes":       "device",
		"node.resources.disk.read":         "device",
		"node.resources.disk.written":      "device",
		"node.resources.disk.read_time":    "device",
		"node.resources.disk.write_time":   "device",
		"node.resources.disk.io_time":      "device",
		"node.net.received":                "interface",
		"node.net.transmitted":             "interface",
		"node.net.received_packets":        "interface",
		"node.net.transmitted_packets":     "interface",
		"node.net.interface.up":            "interface",
		"node.net.interface.ip":            "interface ip",
	}
	got := map[string]string{}
	points(md, func(name string, dp testPoint) {
		var keys []string
		for k := range dp.Attributes().All() {
			keys = append(keys, k)
		}
		if _, ok := want[name]; ok {
			got[name] = strings.Join(keys, " ")
		}
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

func TestNodeMetricsOfAHostThatTellsNothing(t *testing.T) {
	w := testNodeWriter(createDefaultConfig().(*Config))
	w.host = node.Identity{}
	var got []string
	points(nodeMetrics(w.write(&nodeStats{At: testNow})), func(name string, dp testPoint) {
		got = append(got, name)
		if dp.StartTimestamp() != 0 {
			t.Errorf("%s: got the start %v of a host that does not tell when it was booted", name, dp.StartTimestamp())
		}
	})
	if diff := cmp.Diff([]string{"node.agent.info"}, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	if n := w.write(nil).Len(); n != 0 {
		t.Errorf("got %d resources of no reading", n)
	}
}

// The uptime and the clock are not read at the same moment.
func TestNodeCountersKeepTheirStart(t *testing.T) {
	w := testNodeWriter(createDefaultConfig().(*Config))
	boot := testNow.Add(-90061520 * time.Millisecond).Round(time.Second)
	for _, late := range []time.Duration{0, 20 * time.Millisecond, time.Second} {
		st := fullNode()
		st.At = st.At.Add(late)
		points(nodeMetrics(w.write(st)), func(name string, dp testPoint) {
			want := boot
			if strings.HasPrefix(name, "node.disk.health.") {
				want = time.Unix(0, 0) // not known
			}
			if got := dp.StartTimestamp().AsTime(); !got.Equal(want) {
				t.Errorf("%v late: %s begins at %v, want %v", late, name, got, want)
			}
		})
	}
}

// ended lists the series that end, and the others.
func ended(t *testing.T, resources pmetric.ResourceMetricsSlice, at time.Time) (over, live []string) {
	t.Helper()
	if n := resources.Len(); n > 1 {
		t.Errorf("got %d resources of one node", n)
	}
	points(nodeMetrics(resources), func(name string, dp testPoint) {
		key := name
		for _, v := range dp.Attributes().All() {
			key += " " + v.Str()
		}
		if got := dp.Timestamp().AsTime(); !got.Equal(at) {
			t.Errorf("%s: got the time %v", key, got)
		}
		if dp.flags.NoRecordedValue() != dp.empty {
			t.Errorf("%s: got flags %v with a value: %v", key, dp.flags, !dp.empty)
		}
		if dp.empty {
			over = append(over, key)
		} else {
			live = append(live, key)
		}
	})
	slices.Sort(over)
	slices.Sort(live)
	return over, live
}

func TestSeriesOfTheNodeEndOnce(t *testing.T) {
	w := testNodeWriter(createDefaultConfig().(*Config))
	over, all := ended(t, w.write(fullNode()), testNow)
	if len(over) != 0 {
		t.Errorf("ended at first: %q", over)
	}

	less := fullNode()
	less.At = testNow.Add(time.Minute)
	less.Health = less.Health[1:]
	less.Arrays[0].State, less.Arrays[0].Synced = "active", node.Opt[float64]{}
	less.Interfaces = less.Interfaces[:1]
	less.Interfaces[0].Addresses = less.Interfaces[0].Addresses[1:]
	less.Disks = less.Disks[1:]
	over, live := ended(t, w.write(less), less.At)
	want := []string{
		"node.disk.array.info md0 raid5 recovering", "node.disk.array.synced md0",
		"node.disk.health.media_errors nvme0n1", "node.disk.health.percentage_used nvme0n1", "node.disk.health.power_on nvme0n1",
		"node.disk.health.status nvme0n1", "node.disk.health.temperature nvme0n1",
		"node.net.interface.ip eth0 192.0.2.1", "node.net.interface.up eth1",
		"node.net.receive_drops eth1", "node.net.receive_errors eth1", "node.net.received eth1", "node.net.received_packets eth1",
		"node.net.transmit_drops eth1", "node.net.transmit_errors eth1", "node.net.transmitted eth1", "node.net.transmitted_packets eth1",
		"node.resources.disk.io_time sda", "node.resources.disk.read sda", "node.resources.disk.read_time sda",
		"node.resources.disk.reads sda", "node.resources.disk.write_time sda", "node.resources.disk.writes sda",
		"node.resources.disk.written sda",
	}
	if diff := cmp.Diff(want, over); diff != "" {
		t.Errorf("ended (-want +got):\n%s", diff)
	}
	if len(live) != len(all)-len(over)+1 { // the array is active
		t.Errorf("got %d live series and %d ended ones of %d", len(live), len(over), len(all))
	}
	if over, _ := ended(t, w.write(less), less.At); len(over) != 0 {
		t.Errorf("ended twice: %q", over)
	}
	w.write(nil)
	if over, live := ended(t, w.write(fullNode()), testNow); len(live) != len(all) || len(over) != 1 {
		t.Errorf("came back: %d of %d, ended: %q", len(live), len(all), over)
	}
}

func TestSeriesOfTheNodeEndWithItsName(t *testing.T) {
	w := testNodeWriter(createDefaultConfig().(*Config))
	_, all := ended(t, w.write(fullNode()), testNow)
	w.resources.common.PutStr("host.id", "i-0123456789abcdef0") // the cloud has answered late
	got := w.write(fullNode())
	if got.Len() != 2 {
		t.Fatalf("got %d resources, want the old one and the new one", got.Len())
	}
	// In this order: for the prometheus exporter both are the same series, and the last datapoint counts.
	for i, want := range []string{testHost.MachineID, "i-0123456789abcdef0"} {
		one := pmetric.NewResourceMetricsSlice()
		got.At(i).CopyTo(one.AppendEmpty())
		id, _ := got.At(i).Resource().Attributes().Get("host.id")
		over, live := ended(t, one, testNow)
		if id.Str() != want || len(over) != (1-i)*len(all) || len(live) != i*len(all) {
			t.Errorf("resource %d: %s with %d live and %d ended series of %d", i, id.Str(), len(live), len(over), len(all))
		}
	}
}

// A host with many disks and interfaces.
func BenchmarkNodeMetrics(b *testing.B) {
	w := testNodeWriter(createDefaultConfig().(*Config))
	st := fullNode()
	for len(st.Disks) < 30 {
		st.Disks = append(st.Disks, node.Disk{Name: "sd" + strings.Repeat("a", len(st.Disks))})
	}
	b.ReportAllocs()
	for b.Loop() {
		w.write(st)
	}
}
