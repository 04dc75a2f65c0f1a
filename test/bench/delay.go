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
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// delayOptions of bench delay.
type delayOptions struct {
	binary    string
	interval  time.Duration
	starved   int
	throttled int
	processes int
	life      time.Duration
	idle      time.Duration
	storms    int
	exits     int
	over      time.Duration
	pairs     int
	forks     int
	limit     time.Duration
}

// delayBench is what all parts share.
type delayBench struct {
	delayOptions
	starving, rival *container
	cpu             int // where they meet
	dir             string
	out             io.Writer
	missed          bool
}

// The collector's own counter of exits whose sums it lost, and the table in which it keeps the sums.
const (
	ownTasksLost = "otelcol_ebpf_container_tasks_unaccounted"
	ownUsages    = `otelcol_ebpf_container_map_entries{map="usages"}`
)

// delayTolerance is how far the counted delay may be from what the processes told of theirs: each tells just before its
// end, and what it waits after that is counted only.
const delayTolerance = 0.05

func benchDelay(ctx context.Context, args []string, out io.Writer) (err error) {
	b := &delayBench{out: out}
	fs := flag.NewFlagSet("delay", flag.ContinueOnError)
	fs.StringVar(&b.binary, "collector", "otelcol-custom/otelcol-custom", "the built collector")
	fs.DurationVar(&b.interval, "interval", 15*time.Second, "between two collections, while processes starve and while idle")
	fs.IntVar(&b.starved, "starved", 3, "rounds of processes that wait for a CPU, 0 for none")
	fs.IntVar(&b.throttled, "throttled", 2, "rounds of processes that wait for their quota, 0 for none")
	fs.IntVar(&b.processes, "processes", 200, "processes in such a round, one after the other")
	fs.DurationVar(&b.life, "life", 50*time.Millisecond, "how long each of them lives")
	fs.DurationVar(&b.idle, "idle", time.Minute, "how long the idle collector is measured, 0 for not at all")
	fs.IntVar(&b.storms, "storms", 2, "storms of exits, 0 for none")
	fs.IntVar(&b.exits, "exits", 20000, "exits in a storm")
	fs.DurationVar(&b.over, "over", 10*time.Second, "how long a storm lasts")
	fs.IntVar(&b.pairs, "pairs", 9, "pairs of rounds of forks with and without the collector, 0 for none")
	fs.IntVar(&b.forks, "forks", 6000, "forks in such a round")
	fs.DurationVar(&b.limit, "limit", 6*time.Minute, "end after so long, whatever was measured")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: loads kernel programs and makes cgroups")
	}
	ctx, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	if b.cpu, err = lastCPU(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "bench-delay-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	for _, c := range []struct {
		name string
		to   **container
	}{{"starving", &b.starving}, {"rival", &b.rival}} {
		made, makeErr := makeContainer(c.name)
		*c.to = made
		defer func() { err = errors.Join(err, made.remove()) }()
		if makeErr != nil {
			return makeErr
		}
	}
	return b.run(ctx)
}

func (b *delayBench) run(ctx context.Context) error {
	fmt.Fprintln(b.out, machine())
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{{"delays", b.runDelays}, {"storms", b.runStorms}, {"forks", b.runForks}} {
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if b.missed {
		return errMissed
	}
	return nil
}

// wrong says what was missed and lets the bench go on.
func (b *delayBench) wrong(format string, args ...any) {
	b.missed = true
	fmt.Fprintf(b.out, "WRONG: "+format+"\n", args...)
}

func (b *delayBench) startCollector(ctx context.Context, every time.Duration) (*collector, error) {
	return startCollector(ctx, collectorConfig{
		binary: b.binary, dir: b.dir, interval: every, containers: []*container{b.starving, b.rival},
	})
}

// nextCollection returns when all that happened before has been collected and is served.
func (b *delayBench) nextCollection(ctx context.Context, col *collector, every time.Duration) error {
	const most = 150 * time.Millisecond // that a collection takes
	if err := sleep(ctx, most); err != nil {
		return err
	}
	before, err := col.collections(ctx)
	if err != nil {
		return err
	}
	err = eventually(ctx, 2*every+10*time.Second, 50*time.Millisecond, func() error {
		now, err := col.collections(ctx)
		if err == nil && now == before {
			err = errors.New("no further collection")
		}
		return err
	})
	return errors.Join(err, sleep(ctx, most)) // it is counted before the exporter has it
}

// delays are what the collector serves of one container: the delay for want of a CPU in two series.
type delays struct{ delay, kind float64 }

func (a delays) sub(b delays) delays { return delays{a.delay - b.delay, a.kind - b.kind} }

func (c *collector) delaysOf(ctx context.Context, of ...*container) ([]delays, error) {
	var all []series
	for _, one := range of {
		all = append(all, series{of: one, name: "container_resources_cpu_delay_seconds_total"},
			series{one, "container_resources_delay_seconds_total", "kind", "cpu"})
	}
	sums, err := c.sumPage(ctx, all)
	if err != nil {
		return nil, err
	}
	found := make([]delays, len(of))
	for i := range of {
		found[i] = delays{sums[2*i], sums[2*i+1]}
	}
	return found, nil
}

// featuresOff lists the optional parts that the collector has not.
func (c *collector) featuresOff(ctx context.Context) (string, error) {
	page, err := get(ctx, c.own, "/metrics", "")
	if err != nil {
		return "", err
	}
	var off []string
	eachSample(page, func(name, labels string, value float64) {
		if name == "otelcol_ebpf_container_feature_enabled" && value == 0 {
			feature, _ := labelOf(labels, "feature")
			reason, _ := labelOf(labels, "reason")
			off = append(off, fmt.Sprintf("%s (%s)", feature, reason))
		}
	})
	slices.Sort(off)
	return strings.Join(off, ", "), nil
}

// runDelays starves processes between two collections, and watches the collector do nothing.
func (b *delayBench) runDelays(ctx context.Context) error {
	if b.starved+b.throttled == 0 && b.idle == 0 {
		return nil
	}
	col, err := b.startCollector(ctx, b.interval)
	if err != nil {
		return err
	}
	defer col.stop()
	switch off, err := col.featuresOff(ctx); {
	case err != nil:
		return err
	case off != "":
		fmt.Fprintln(b.out, "off in the collector:", off)
	}
	if b.idle > 0 {
		if err := b.runIdle(ctx, col); err != nil {
			return fmt.Errorf("idle: %w", err)
		}
	}
	rows, err := b.starveAll(ctx, col)
	b.printDelays(rows)
	return err
}

func (b *delayBench) printDelays(rows []delayRow) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(b.out)
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "waits\ttold\tcounted\tcounted/told\tkind=cpu\tof told\tthrottled\tprocesses\ttook\tcollections\t")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%.3f s\t%.3f s\t%.4f\t%.3f s\t%.4f\t%.3f s\t%d\t%.1f s\t%d\t\n", r.what, r.told, r.counted.delay,
			r.counted.delay/r.told, r.counted.kind, r.counted.kind/r.told, r.throttled, r.processes, r.took.Seconds(), r.collections)
	}
	_ = w.Flush()
	for _, r := range rows {
		if !r.good() {
			b.wrong("%s: told %.3f s, counted %.3f s", r.what, r.told, r.counted.delay)
		}
	}
}

// runIdle has the load average of the start of the bench only: nothing runs in the containers.
func (b *delayBench) runIdle(ctx context.Context, col *collector) error {
	if err := b.nextCollection(ctx, col, b.interval); err != nil {
		return err
	}
	before, err := col.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := sleep(ctx, b.idle); err != nil {
		return err
	}
	after, err := col.cpu()
	took := time.Since(began)
	if err != nil {
		return err
	}
	rss, _, err := col.rss()
	fmt.Fprintf(b.out, "idle: CPU of the collector %.1f ms a minute, measured for %.0f s with a collection every %v; RSS %d MiB\n",
		(after-before).Seconds()*1e3/took.Minutes(), took.Seconds(), b.interval, rss>>20)
	return err
}
