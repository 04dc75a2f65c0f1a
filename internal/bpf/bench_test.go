// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// openForBench skips without root and where the kernel refuses a part.
func openForBench(b *testing.B, o Options) *Tracer {
	b.Helper()
	if os.Getuid() != 0 {
		b.Skip("needs root: loads BPF programs and makes cgroups")
	}
	o.Network = true
	tr := Open(o)
	b.Cleanup(func() {
		if err := tr.Close(); err != nil {
			b.Error(err)
		}
	})
	for _, f := range tr.Features() {
		if (f.Name == FeatureNetwork || f.Name == FeatureNetworkLive) && f.Err != nil {
			b.Skipf("%s: %v", f.Name, f.Err)
		}
	}
	return tr
}

// fillEdges puts n edges of 50 pairs of cgroups into the kernel's table.
func fillEdges(b *testing.B, tr *Tracer, n int) {
	b.Helper()
	keys, values := make([]tcpEdgeKey, n), make([]tcpEdge, n)
	for i := range keys {
		k := &keys[i]
		k.Owner.CgroupV2, k.Owner.CgroupV1 = uint64(1<<40+i%50), uint64(1<<41+i%50)
		k.Kind, k.Netns, k.Port = tcpEdgeKindEDGE_OUTBOUND, 1, 8080
		k.Addr = [16]byte{10: 0xff, 11: 0xff, 12: 10}
		binary.BigEndian.PutUint16(k.Addr[14:], uint16(i/50))
		values[i] = tcpEdge{Connects: 1, Active: 1, BytesSent: uint64(i)}
	}
	if _, err := tr.tcp.objs.Edges.BatchUpdate(keys, values, nil); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReadEdges reads tables without any open connection.
func BenchmarkReadEdges(b *testing.B) {
	for _, n := range []int{1000, 32768, 100_000} {
		b.Run(fmt.Sprint("edges=", n), func(b *testing.B) {
			tr := openForBench(b, Options{MaxEdges: uint32(n + 4096)}) // others have some, too
			fillEdges(b, tr, n)
			seen := 0
			b.ReportAllocs()
			for b.Loop() {
				seen = 0
				if err := tr.EachEdge(func(*Edge) { seen++ }); err != nil {
					b.Fatal(err)
				}
			}
			if seen < n {
				b.Errorf("%d edges of %d", seen, n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*seen), "ns/edge")
		})
	}
}

// BenchmarkTakeEdge is what it costs to clear one edge away.
func BenchmarkTakeEdge(b *testing.B) {
	const n = 20_000
	tr := openForBench(b, Options{MaxEdges: n + 4096})
	var all []Edge
	for b.Loop() {
		if len(all) == 0 {
			b.StopTimer()
			fillEdges(b, tr, n)
			if err := tr.EachEdge(func(e *Edge) { all = append(all, *e) }); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		if err := tr.Take(&all[len(all)-1]); err != nil {
			b.Fatal(err)
		}
		all = all[:len(all)-1]
	}
}

// holdForBench opens n connections and keeps them until the benchmark ends. Nobody accepts them, so that this process needs
// no descriptor for each.
func holdForBench(b *testing.B, n int) {
	b.Helper()
	const perListener, perChild = 4000, 12_000
	b.Cleanup(func() { time.Sleep(100 * time.Millisecond) }) // the kernel lets go of them
	for left := n; left > 0; left -= perChild {
		in, out := startHolder(b)
		for mine := min(left, perChild); mine > 0; mine -= perListener {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = l.Close() }) // before the child: a reset leaves nothing behind
			want := min(mine, perListener)
			fmt.Fprintf(in, "hold %d %s\n", want, l.Addr())
			var done, failed int
			if _, err := fmt.Fscan(out, &done, &failed); err != nil || done != want {
				b.Skipf("%d connections open, %d of %d more: %v", n-left, done, want, err)
			}
		}
	}
}

// startHolder starts a child in cgroups of its own and gives its ends.
func startHolder(b *testing.B) (in *os.File, out *bufio.Reader) {
	b.Helper()
	r, in, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close() })
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=commands")
	cmd.Stdin, cmd.Stderr = r, os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	err = cmd.Start()
	_ = r.Close()
	if err != nil {
		b.Fatal(err)
	}
	var dirs []string
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for _, dir := range dirs {
			for end := time.Now().Add(5 * time.Second); os.Remove(dir) != nil && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
		}
	})
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue // not a hierarchy here
		}
		dir := filepath.Join(root, fmt.Sprintf("bpf-bench-%d", cmd.Process.Pid))
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		dirs = append(dirs, dir)
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			b.Fatal(err)
		}
	}
	return in, bufio.NewReader(stdout)
}

// BenchmarkReadLive reads few edges of many open connections: as it is done to clear up, and as for a collection.
func BenchmarkReadLive(b *testing.B) {
	for _, n := range []int{10_000, 50_000, 100_000} {
		b.Run(fmt.Sprint("connections=", n), func(b *testing.B) {
			tr := openForBench(b, Options{})
			holdForBench(b, n)
			for _, bb := range []struct {
				name string
				pass Pass
			}{
				{"fold", Pass{Edge: func(*Edge) {}}},
				{"sample", Pass{Edge: func(*Edge) {}, Listener: func(*Listener) {}, LiveRTT: func(*LiveRTT) {}}},
			} {
				b.Run(bb.name, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if err := tr.Read(bb.pass); err != nil {
							b.Fatal(err)
						}
					}
					var active int64
					if err := tr.EachEdge(func(e *Edge) { active += e.Active }); err != nil {
						b.Fatal(err)
					}
					if active < int64(n) {
						b.Errorf("%d connections of %d", active, n)
					}
					b.ReportMetric(float64(active), "sockets")
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(int64(b.N)*active), "ns/socket")
				})
			}
		})
	}
}

// BenchmarkOpen is what a start costs: mostly the kernel's verifier.
func BenchmarkOpen(b *testing.B) {
	openForBench(b, Options{}) // or skip
	for b.Loop() {
		if err := Open(Options{Network: true}).Close(); err != nil {
			b.Fatal(err)
		}
	}
}
