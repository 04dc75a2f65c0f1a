// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"testing"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
)

func fullNetwork(c *inventory.Container) {
	other := inventory.OtherDestination
	c.Edges = []inventory.Edge{
		{
			Destination: "10.96.0.10:53", Actual: "10.244.0.7:53", Connects: 1000,
			Zone: "eu-central-1b", ConnectTime: 1500 * time.Millisecond, Active: 2, BytesSent: 1 << 20, BytesReceived: 1 << 40, Retransmits: 3,
			RTT: inventory.RTT{
				Counts: [...]uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}, Sum: 2500 * time.Millisecond,
			},
		},
		{Destination: "10.96.0.11:81", Actual: "10.96.0.11:81"},                                         // nothing but failures
		{Destination: "[2001:db8::1]:443", Actual: "[2001:db8::1]:443", Active: 1},                      // was there before us
		{Destination: "10.96.0.12:80", Actual: "10.244.0.8:80", Connects: 1, Lifetime: lifetime(false)}, // came back
		{Destination: other, Actual: other, Connects: 1},
	}
	c.Destinations = []inventory.Destination{
		{Destination: "10.96.0.10:53", Failed: [...]uint64{31, 32, 33, 34, 35, 36, 37}},
		{Destination: "10.96.0.11:81", Failed: [inventory.NumConnectErrors]uint64{inventory.ConnectTimeout: 5}},
		{Destination: "10.96.0.12:80", Lifetime: lifetime(false)},
		{Destination: "[2001:db8::1]:443"},
		{Destination: other},
	}
	c.Inbound = []inventory.Inbound{
		{ListenAddr: "10.244.0.9:8080", Accepted: 2001, Active: 2002, BytesSent: 2003, BytesReceived: 2004},
		{ListenAddr: other, Accepted: 2005, Lifetime: lifetime(false)},
	}
	c.Listeners = []inventory.Listener{
		{ListenAddr: "10.244.0.9:8080", Open: true},
		{ListenAddr: "192.0.2.1:80", Proxy: "dockerd", Open: true},
		{ListenAddr: "192.0.2.1:81"}, // closed
		{ListenAddr: other, Open: true, Lifetime: lifetime(false)},
	}
	c.Queues = []inventory.ListenQueue{
		{ListenAddr: "0.0.0.0:8080", Open: true, Overflows: 3001, Queue: 3002, Limit: 4096},
		{ListenAddr: "192.0.2.1:81", Overflows: 3003, Limit: 128}, // closed
		{ListenAddr: other, Open: true, Lifetime: lifetime(false)},
	}
	c.Latencies = []inventory.Latency{
		{DestinationIP: "10.244.0.7", RTT: 250 * time.Microsecond}, {DestinationIP: "2001:db8::1", RTT: 30 * time.Millisecond},
	}
	c.Zones = []inventory.ZoneTraffic{{Zone: "eu-central-1a", Sent: 4101, Received: 4102}, {Zone: "eu-central-1b", Sent: 4103, Received: 4104}}
	c.ResetsSent, c.ResetsReceived = cgroups.Some[uint64](4001), cgroups.Some[uint64](4002)
}

// lifetime is that of what came back after its first series had ended.
func lifetime(ended bool) inventory.Lifetime {
	return inventory.Lifetime{Start: testBack, Ended: ended}
}

// endPeers ends the first peer of each kind of c.
func endPeers(c *inventory.Container) {
	c.Edges[0].Lifetime = inventory.Lifetime{Start: testStart, Ended: true}
	c.Destinations[0].Lifetime = lifetime(true)
	c.Inbound[0].Ended = true
	c.Listeners[0].Ended = true
	c.Queues[0].Ended = true
	endLogs(c)
}

// startOf tells when the series of dp began in a container of full, with or without endPeers.
func startOf(dp testPoint) time.Time {
	attrs := dp.Attributes().AsRaw()
	peer := attrs["destination"]
	if peer == nil {
		peer = attrs["listen_addr"]
	}
	if peer == "10.96.0.12:80" || attrs["listen_addr"] == inventory.OtherDestination {
		return testBack
	}
	if peer == "10.96.0.10:53" && dp.empty && attrs["actual_destination"] == nil {
		return testBack
	}
	return testStart
}

func TestMetricsTimes(t *testing.T) {
	n := 0
	snapshot := testSnapshot()
	snapshot.Containers = snapshot.Containers[:2]
	points(testWriter(createDefaultConfig().(*Config)).write(snapshot), func(name string, dp testPoint) {
		n++
		if got := dp.Timestamp().AsTime(); !got.Equal(testNow) {
			t.Errorf("%s: timestamp %v, want %v", series(name, dp), got, testNow)
		}
		if got, want := dp.StartTimestamp().AsTime(), startOf(dp); !got.Equal(want) {
			t.Errorf("%s: start %v, want %v", series(name, dp), got, want)
		}
	})
	if n == 0 {
		t.Error("no datapoints")
	}
}

// The start of a peer that was there before the container's totals began is that of the totals.
func TestMetricsStartNotBeforeTheContainer(t *testing.T) {
	snapshot := testSnapshot()
	snapshot.Containers = snapshot.Containers[:1]
	for i := range snapshot.Containers[0].Edges {
		snapshot.Containers[0].Edges[i].Start = testStart.Add(-time.Hour)
	}
	cfg := createDefaultConfig().(*Config)
	points(testWriter(cfg).write(snapshot), func(name string, dp testPoint) {
		if dp.StartTimestamp().AsTime().Before(testStart) {
			t.Errorf("%s: start %v, want %v", series(name, dp), dp.StartTimestamp(), testStart)
		}
	})
}
