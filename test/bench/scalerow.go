// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// scaleRow is what a state costs the collector.
type scaleRow struct {
	state       string
	open        int // as the collector counts them
	table       int // entries of the kernel's table
	read, build time.Duration
	cpu         time.Duration // for one interval, without scrapes
	scrapes     []scrape
	rss, most   int64
}

// scrape is one as Prometheus does it.
type scrape struct {
	took, cpu   time.Duration
	wire, plain int
	samples     int
}

// measure waits for the next collection, measures some, and then some scrapes.
func (b *scaleBench) measure(ctx context.Context, col *collector, state string) (row scaleRow, err error) {
	row.state = state
	if err := b.nextCollection(ctx, col); err != nil { // may have begun before all was open
		return row, err
	}
	if err := b.nextCollection(ctx, col); err != nil {
		return row, err
	}
	profiles := b.profile(ctx, col, state+", collections", time.Duration(b.collections)*b.interval)
	before, err := col.sumOwn(ctx)
	if err != nil {
		return row, err
	}
	cpu, err := col.cpu()
	if err != nil {
		return row, err
	}
	for range b.collections {
		if err := b.nextCollection(ctx, col); err != nil {
			return row, err
		}
	}
	now, err := col.cpu()
	if err != nil {
		return row, err
	}
	after, err := col.sumOwn(ctx)
	if err != nil {
		return row, err
	}
	row.table = int(after[`otelcol_ebpf_container_map_entries{map="edges"}`])
	row.cpu = (now - cpu) / time.Duration(b.collections)
	mean := func(phase string) time.Duration {
		sum, count := fmt.Sprintf("%s_sum{phase=%q}", ownDuration, phase), fmt.Sprintf("%s_count{phase=%q}", ownDuration, phase)
		return time.Duration((after[sum] - before[sum]) / (after[count] - before[count]) * float64(time.Second))
	}
	row.read, row.build = mean("read"), mean("build")
	if err := <-profiles; err != nil {
		return row, err
	}
	if err := b.measureScrapes(ctx, col, &row); err != nil {
		return row, err
	}
	row.rss, row.most, err = col.rss()
	return row, err
}

func (b *scaleBench) measureScrapes(ctx context.Context, col *collector, row *scaleRow) error {
	profiles := b.profile(ctx, col, row.state+", scrapes", 5*time.Second)
	for range b.scrapes {
		one, open, err := scrapeOnce(ctx, col)
		if err != nil {
			return err
		}
		row.scrapes, row.open = append(row.scrapes, one), open
	}
	if row.open != b.held {
		fmt.Fprintf(b.out, "WRONG: %s: %d connections are open, %d counted\n", row.state, b.held, row.open)
	}
	return <-profiles
}

func scrapeOnce(ctx context.Context, col *collector) (s scrape, open int, err error) {
	cpu, err := col.cpu()
	if err != nil {
		return s, 0, err
	}
	began := time.Now()
	packed, err := get(ctx, col.page, "/metrics", "gzip")
	if err != nil {
		return s, 0, err
	}
	s.took, s.wire = time.Since(began), len(packed)
	now, err := col.cpu()
	if err != nil {
		return s, 0, err
	}
	s.cpu = now - cpu
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return s, 0, err
	}
	page, err := io.ReadAll(z)
	if err != nil {
		return s, 0, err
	}
	s.plain = len(page)
	eachSample(page, func(name, _ string, value float64) {
		s.samples++
		if name == "container_net_tcp_active_connections" {
			open += int(value)
		}
	})
	return s, open, nil
}

// nextCollection asks seldom before one can be there: answers cost the collector CPU, too.
func (b *scaleBench) nextCollection(ctx context.Context, col *collector) error {
	last, err := col.collections(ctx)
	if err != nil {
		return err
	}
	if err := sleep(ctx, b.interval/2); err != nil {
		return err
	}
	return eventually(ctx, b.interval+time.Minute, 100*time.Millisecond, func() error {
		n, err := col.collections(ctx)
		if err == nil && n == last {
			err = errors.New("no collection")
		}
		return err
	})
}

// profile takes a CPU profile in the background, and a heap profile after it, if profiles are wanted.
func (b *scaleBench) profile(ctx context.Context, col *collector, what string, d time.Duration) <-chan error {
	done := make(chan error, 1)
	if b.profiles == "" {
		done <- nil
		return done
	}
	name := filepath.Join(b.profiles, strings.NewReplacer(", ", "-", " ", "-").Replace(what))
	go func() {
		cpu, err := get(ctx, col.pprof, fmt.Sprintf("/debug/pprof/profile?seconds=%.0f", d.Seconds()), "")
		if err != nil {
			done <- err
			return
		}
		heap, err := get(ctx, col.pprof, "/debug/pprof/heap", "")
		done <- errors.Join(err, os.WriteFile(name+".cpu.prof", cpu, 0o600), os.WriteFile(name+".heap.prof", heap, 0o600))
	}()
	return done
}

func printScale(out io.Writer, rows []scaleRow) {
	const mb = 1e6
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "state\topen\ttable\tread\tbuild\tCPU an interval\tscrape\tits CPU\tgzip MB\tplain MB\tsamples\tRSS MB\tmost\t")
	for _, r := range rows {
		ms := func(d func(scrape) time.Duration) float64 {
			return spreadBy(r.scrapes, func(s scrape) float64 { return d(s).Seconds() * 1e3 }).median
		}
		last := r.scrapes[len(r.scrapes)-1]
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f ms\t%.1f ms\t%.0f ms\t%.0f ms\t%.0f ms\t%.2f\t%.1f\t%d\t%.0f\t%.0f\t\n", r.state, r.open, r.table,
			r.read.Seconds()*1e3, r.build.Seconds()*1e3, r.cpu.Seconds()*1e3,
			ms(func(s scrape) time.Duration { return s.took }), ms(func(s scrape) time.Duration { return s.cpu }),
			float64(last.wire)/mb, float64(last.plain)/mb, last.samples, float64(r.rss)/mb, float64(r.most)/mb)
	}
	_ = w.Flush()
}
