// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// benchKernel gives its table at once.
type benchKernel struct {
	*fakeKernel
	table []bpf.Edge
}

func (k *benchKernel) Read(p bpf.Pass) error {
	for i := range k.table {
		p.Edge(&k.table[i])
	}
	return nil
}

func (k *benchKernel) Take(*bpf.Edge) error { return nil }

// crowdedHost is containers with so many destinations each, all of which have an open connection.
func crowdedHost(b *testing.B, containers, destinations int) (*Inventory, *benchKernel) {
	b.Helper()
	root := b.TempDir()
	write := func(name, content string) string {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			b.Fatal(err)
		}
		return file
	}
	write("cgroup.controllers", "cpu memory io pids\n")
	k := &benchKernel{fakeKernel: &fakeKernel{done: make(chan struct{})}}
	for i := range containers {
		file := write(fmt.Sprintf("docker/%064x/cpu.stat", i), "usage_usec 1\n")
		write(fmt.Sprintf("docker/%064x/cgroup.events", i), "populated 1\nfrozen 0\n")
		var st unix.Stat_t
		if err := unix.Stat(filepath.Dir(file), &st); err != nil {
			b.Fatal(err)
		}
		for j := range destinations {
			to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i), byte(j >> 8), byte(j)}), 8080)
			k.table = append(k.table, bpf.Edge{CgroupV2: st.Ino, Destination: to, Actual: to, Connects: 1, Active: 1, Touched: bpf.Now()})
		}
	}
	fs, err := cgroups.Open(root)
	if err != nil {
		b.Fatal(err)
	}
	opts := Options{CgroupRoot: root, Keep: time.Minute, Network: NetworkOptions{IdleTimeout: time.Hour}}
	inv, err := open(b.Context(), opts, fs, k, openRuntimes, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := inv.Close(); err != nil {
			b.Error(err)
		}
	})
	return inv, k
}

// BenchmarkManyEdges is the inventory's part of a collection, and of clearing up, on a large host.
func BenchmarkManyEdges(b *testing.B) {
	const containers = 50
	for _, edges := range []int{1000, 32_000, 100_000} {
		b.Run(fmt.Sprint("edges=", edges), func(b *testing.B) {
			inv, k := crowdedHost(b, containers, edges/containers)
			perEdge := func(b *testing.B) {
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*edges), "ns/edge")
			}
			snapshot := func(b *testing.B) {
				b.ReportAllocs()
				given := 0
				for b.Loop() {
					s, err := inv.Snapshot(context.Background())
					if err != nil {
						b.Fatal(err)
					}
					given = 0
					for i := range s.Containers {
						given += len(s.Containers[i].Edges)
					}
				}
				if given != edges {
					b.Errorf("%d edges of %d", given, edges)
				}
				perEdge(b)
			}
			clean := func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := inv.clean(context.Background(), inv.now()); err != nil {
						b.Fatal(err)
					}
				}
				perEdge(b)
			}
			b.Run("snapshot", snapshot)
			b.Run("clean", clean)
			// The totals have gone over to the containers.
			inv.edgesMu.Lock()
			k.table = nil
			inv.edgesMu.Unlock()
			b.Run("idle snapshot", snapshot)
			b.Run("idle clean", clean)
		})
	}
}
