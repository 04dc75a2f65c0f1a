// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkRead reads a file of 1,000,000 lines, of 83 bytes if they are plain.
func BenchmarkRead(b *testing.B) {
	const lines = 1_000_000
	text := strings.Repeat("a line of a log, ", 4) + "%014d"
	for _, tt := range []struct {
		name   string
		format Format
		line   func(int) string
	}{
		{"plain", Plain, func(n int) string { return fmt.Sprintf(text+"\n", n) }},
		{"docker", DockerJSON, func(n int) string { return dockerLine(fmt.Sprintf(text+"\n", n), "stdout") }},
		{"docker-escapes", DockerJSON, func(n int) string { return dockerLine(fmt.Sprintf("\t<\"%s\">\n", fmt.Sprintf(text, n)), "stdout") }},
		{"cri", CRI, func(n int) string { return fmt.Sprintf("2026-11-21T01:33:43.204430901Z stdout F "+text+"\n", n) }},
	} {
		b.Run(tt.name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "app.log")
			var all bytes.Buffer
			for n := range 1000 {
				all.WriteString(tt.line(n))
			}
			f, err := os.Create(path)
			if err != nil {
				b.Fatal(err)
			}
			for range lines / 1000 {
				f.Write(all.Bytes())
			}
			f.Close()
			b.SetBytes(int64(all.Len()) * lines / 1000)
			b.ReportAllocs()
			for b.Loop() {
				ctx, cancel := context.WithCancel(b.Context())
				w := New(Options{})
				w.Follow(Source{Key: "a", Path: path, Format: tt.format, Start: Beginning()})
				got := 0
				w.Run(ctx, func(_ string, batch []Line) {
					if got += len(batch); got == lines {
						cancel()
					}
				})
				cancel()
				if got != lines {
					b.Fatalf("%d lines", got)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/lines, "ns/line")
		})
	}
}

// BenchmarkIdle looks at 10,000 files that nobody writes to, of which 500 may be open.
func BenchmarkIdle(b *testing.B) {
	const files = 10_000
	dir := b.TempDir()
	w := New(Options{MaxOpen: 500, Poll: time.Nanosecond})
	for n := range files {
		path := filepath.Join(dir, fmt.Sprint(n, ".log"))
		if err := os.WriteFile(path, []byte("one\n"), 0o600); err != nil {
			b.Fatal(err)
		}
		w.Follow(Source{Key: path, Path: path})
	}
	r := newRun(b.Context(), w, w.laneOf(0), func(string, []Line) {})
	defer r.closeAll()
	time.Sleep(60 * time.Millisecond)
	r.round()
	time.Sleep(60 * time.Millisecond) // what has just changed is looked at twice
	r.round()
	if w.Stats().OpenFiles != 500 {
		b.Fatalf("%+v", w.Stats())
	}
	b.ReportAllocs()
	for b.Loop() {
		r.round()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/files, "ns/file")
}
