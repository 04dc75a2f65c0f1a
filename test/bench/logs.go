// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// logsBench is a container that logs.
type logsBench struct {
	binary   string
	load     string // another program to write with
	dir      string
	out      io.Writer
	lines    int
	rate     float64
	rounds   int
	interval time.Duration
	c        *container
}

// logsRow is what one load has cost.
type logsRow struct {
	mix       string
	wrote     wrote
	counted   float64
	levels    map[string]float64
	series    int
	cpu, idle time.Duration // of the collector, and what of that it takes without a load
	drain     time.Duration // from the end of the load until all is counted
	rss       int64
}

// wrote is what a load says it has written.
type wrote struct {
	Lines    int            `json:"lines"`
	Messages int            `json:"messages"`
	Bytes    int            `json:"bytes"`
	Seconds  float64        `json:"seconds"`
	Counts   map[string]int `json:"counts"`
}

func benchLogs(ctx context.Context, args []string, out io.Writer) (err error) {
	b := &logsBench{out: out}
	fs := flag.NewFlagSet("logs", flag.ContinueOnError)
	fs.StringVar(&b.binary, "collector", "otelcol-custom/otelcol-custom", "the built collector")
	fs.StringVar(&b.load, "load", "", "a program that writes the log, with flags -file, -n, -mix, -rate and -wait, in place of our own")
	fs.IntVar(&b.lines, "lines", 1_000_000, "lines of each load")
	fs.Float64Var(&b.rate, "rate", 0, "lines a second, 0 for as fast as possible")
	fs.IntVar(&b.rounds, "rounds", 3, "how often each load is measured")
	fs.DurationVar(&b.interval, "interval", 5*time.Second, "between two collections")
	mixes := fs.String("mixes", "mixed,info,error", "loads: what a service logs, info lines alone, errors alone")
	limit := fs.Duration("limit", 20*time.Minute, "end after so long, whatever was measured")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: loads kernel programs and makes cgroups")
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if b.dir, err = os.MkdirTemp("", "bench-logs-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	fmt.Fprintln(out, machine())
	var rows []*logsRow
	for range b.rounds {
		for mix := range strings.SplitSeq(*mixes, ",") {
			row, err := b.measure(ctx, mix)
			if err != nil {
				return fmt.Errorf("%s: %w", mix, err)
			}
			rows = append(rows, row)
		}
	}
	return b.print(rows)
}

// measure has a container write a new log while the collector runs.
func (b *logsBench) measure(ctx context.Context, mix string) (row *logsRow, err error) {
	b.c, err = makeContainer("logs")
	defer func() { err = errors.Join(err, b.c.remove()) }()
	if err != nil {
		return nil, err
	}
	// Below a directory that the collector knows as one of logs; it finds the file by itself.
	file := filepath.Join(b.dir, mix+".log")
	defer os.Remove(file)
	col, err := startCollector(ctx, collectorConfig{
		binary: b.binary, dir: b.dir, interval: b.interval, containers: []*container{b.c}, logs: b.dir,
	})
	if err != nil {
		return nil, err
	}
	defer col.stop()
	row = &logsRow{mix: mix, levels: map[string]float64{}}
	before, err := col.cpu()
	if err != nil {
		return nil, err
	}
	const rest = 5 * time.Second
	if err := sleep(ctx, rest); err != nil {
		return nil, err
	}
	begin, err := col.cpu()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := b.write(ctx, file, mix, &row.wrote); err != nil {
		return nil, err
	}
	ended := time.Now()
	if err := b.await(ctx, col, row.wrote.Messages); err != nil {
		return nil, err
	}
	row.drain = time.Since(ended)
	end, err := col.cpu()
	if err != nil {
		return nil, err
	}
	row.cpu = end - begin
	row.idle = time.Duration(float64(begin-before) * float64(time.Since(began)) / float64(rest))
	if row.rss, _, err = col.rss(); err != nil {
		return nil, err
	}
	return row, b.read(ctx, col, row)
}

func (b *logsBench) write(ctx context.Context, file, mix string, said *wrote) error {
	words := []string{"log", file, fmt.Sprint(b.lines), mix, fmt.Sprint(b.rate)}
	if b.load != "" {
		words = []string{
			"run", b.load, "-file", file, "-n", fmt.Sprint(b.lines), "-mix", mix, "-rate", fmt.Sprint(b.rate), "-wait", "0s",
		}
	}
	load, err := startBench(ctx, b.c.inside(nil, words...)...)
	if err != nil {
		return err
	}
	defer load.stop()
	return load.ask("", said)
}

// await waits until all is counted, or nothing more comes.
func (b *logsBench) await(ctx context.Context, col *collector, want int) error {
	var last float64
	since := time.Now()
	for ctx.Err() == nil {
		own, err := col.sumOwn(ctx)
		if err != nil {
			return err
		}
		n := own["otelcol_ebpf_container_log_messages"]
		if n >= float64(want) {
			return nil
		}
		if n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) > 15*time.Second {
			return nil // less: the table tells
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// read waits for a collection that has all and adds up what is served.
func (b *logsBench) read(ctx context.Context, col *collector, row *logsRow) error {
	n, err := col.collections(ctx)
	if err != nil {
		return err
	}
	err = eventually(ctx, time.Minute, 100*time.Millisecond, func() error {
		now, err := col.collections(ctx)
		if err == nil && now < n+2 {
			err = errors.New("no collection since")
		}
		return err
	})
	if err != nil {
		return err
	}
	page, err := get(ctx, col.page, "/metrics", "")
	if err != nil {
		return err
	}
	eachSample(page, func(name, labels string, value float64) {
		if name != "container_log_messages_total" || !strings.Contains(labels, b.c.id) {
			return
		}
		level, _ := labelOf(labels, "level")
		row.levels[level] += value
		row.counted += value
		row.series++
	})
	return nil
}

func (b *logsBench) print(rows []*logsRow) error {
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MIX\tLINES\tMB\tMESSAGES\tCOUNTED\tMISSING\tSERIES\tCPU s/1M LINES\tLESS IDLE\tWRITTEN IN\tCOUNTED AFTER\tRSS\tBY LEVEL")
	for _, r := range rows {
		million := float64(r.wrote.Lines) / 1e6
		var levels []string
		for level, n := range r.levels {
			levels = append(levels, fmt.Sprintf("%s %.0f", level, n))
		}
		slices.Sort(levels)
		fmt.Fprintf(w, "%s\t%d\t%.1f\t%d\t%.0f\t%.0f\t%d\t%.2f\t%.2f\t%.1f s\t%.1f s\t%d MB\t%s\n",
			r.mix, r.wrote.Lines, float64(r.wrote.Bytes)/1e6, r.wrote.Messages, r.counted, float64(r.wrote.Messages)-r.counted, r.series,
			r.cpu.Seconds()/million, (r.cpu-r.idle).Seconds()/million, r.wrote.Seconds, r.drain.Seconds(), r.rss>>20, strings.Join(levels, ", "))
	}
	return w.Flush()
}
