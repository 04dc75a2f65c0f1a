// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"fmt"
	"testing"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
)

func crowd(containers, edges int, histogram bool) inventory.Snapshot {
	s := inventory.Snapshot{At: testNow}
	for i := range containers {
		c := full(at("/docker/" + fmt.Sprintf("%064x", i)))
		e := c.Edges[0]
		c.Edges, c.Destinations = nil, nil
		for j := range edges {
			e.Destination = fmt.Sprintf("10.%d.%d.%d:%d", i%256, j/256%256, j%256, 1024+j)
			e.Actual = e.Destination
			if !histogram {
				e.RTT = inventory.RTT{}
			}
			c.Edges = append(c.Edges, e)
			c.Destinations = append(c.Destinations, inventory.Destination{Destination: e.Destination})
		}
		s.Containers = append(s.Containers, c)
	}
	return s
}

func BenchmarkMetrics(b *testing.B) {
	for _, bb := range []struct{ containers, edges int }{{200, 0}, {200, 20}, {1, 500}, {1, 5000}} {
		b.Run(fmt.Sprintf("containers=%d/edges=%d", bb.containers, bb.edges), func(b *testing.B) {
			w := testWriter(createDefaultConfig().(*Config))
			snapshot := crowd(bb.containers, bb.edges, true)
			n := w.write(snapshot).DataPointCount()
			b.ReportAllocs()
			for b.Loop() {
				w.write(snapshot)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/point")
		})
	}
}

// BenchmarkWriteEdges is a large host: 100,000 edges, of which a part may have been idle and have come back, or be over.
func BenchmarkWriteEdges(b *testing.B) {
	const containers, edges = 50, 2000
	for _, bb := range []struct {
		name      string
		histogram bool
		change    func(i int, c *inventory.Container)
	}{
		{name: "plain"},
		{name: "rtt", histogram: true},
		{name: "restarted", change: func(i int, c *inventory.Container) {
			c.Edges[i].Start = testStart.Add(time.Duration(i) * time.Second)
			c.Destinations[i].Start = c.Edges[i].Start
		}},
		{name: "tenth ended", change: func(i int, c *inventory.Container) {
			c.Edges[i].Ended, c.Destinations[i].Ended = i%10 == 0, i%10 == 0
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			w := testWriter(createDefaultConfig().(*Config))
			snapshot := crowd(containers, edges, bb.histogram)
			for i := range snapshot.Containers {
				for j := 0; bb.change != nil && j < edges; j++ {
					bb.change(j, &snapshot.Containers[i])
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				w.write(snapshot)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*containers*edges), "ns/edge")
		})
	}
}

// Ten times the edges must not take much more than ten times as long: mdatagen has a recorder that compares each
// datapoint with all others, which is generated as soon as one attribute is not required.
func TestMetricsOfManyEdgesAreLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("measures time")
	}
	cost := func(edges int) time.Duration {
		w := testWriter(createDefaultConfig().(*Config))
		snapshot := crowd(1, edges, true)
		best := time.Hour
		for range 5 {
			begin := time.Now()
			w.write(snapshot)
			best = min(best, time.Since(begin))
		}
		return best
	}
	small, large := cost(500), cost(5000)
	if ratio := float64(large) / float64(small); ratio > 40 { // quadratic would be 100
		t.Errorf("500 edges take %v, 5000 take %v, %.0f times as long", small, large, ratio)
	}
}
