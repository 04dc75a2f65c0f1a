// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
)

// BenchmarkPoll reads entries of 10 fields, two of them unlike all others.
func BenchmarkPoll(b *testing.B) {
	for _, tt := range []struct {
		name    string
		compact bool
		fields  []string
	}{
		{"regular", false, nil},
		{"compact", true, nil},
		{"compact, 3 fields wanted", true, []string{"MESSAGE", "PRIORITY", "_SYSTEMD_UNIT"}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			const entries = 100_000
			build, random := newBuilder(tt.compact, true, 0), rand.New(rand.NewPCG(5, 6))
			for i := range entries {
				unit := random.IntN(50)
				build.entry(uint64(1_700_000_000_000_000+i*10),
					fmt.Sprintf("MESSAGE=request %d of a client at 10.0.0.%d took %d ms and was answered with 200", i, i%256, random.IntN(1000)),
					fmt.Sprintf("_SOURCE_REALTIME_TIMESTAMP=%d", 1_700_000_000_000_000+i*10),
					fmt.Sprintf("_SYSTEMD_UNIT=unit%d.service", unit), fmt.Sprintf("_SYSTEMD_CGROUP=/system.slice/unit%d.service", unit),
					fmt.Sprintf("_PID=%d", 1000+random.IntN(500)), fmt.Sprintf("PRIORITY=%d", random.IntN(8)),
					"_TRANSPORT=stdout", "_HOSTNAME=node", fmt.Sprintf("SYSLOG_IDENTIFIER=unit%d", unit), "_UID=0")
			}
			dir := b.TempDir()
			writeFile(b, filepath.Join(dir, "system.journal"), build.file)
			var r *Reader
			b.ReportAllocs()
			for b.Loop() {
				if r != nil {
					r.Close()
				}
				r = openDir(b, dir, Options{Start: Beginning, Fields: tt.fields})
				n := 0
				for {
					if _, ok := r.Poll(); !ok {
						break
					}
					n++
				}
				if n != entries {
					b.Fatalf("got %d entries, want %d", n, entries)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(entries*b.N), "ns/entry")
		})
	}
}
