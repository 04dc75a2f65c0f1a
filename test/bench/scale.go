// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// scaleOptions of bench scale.
type scaleOptions struct {
	binary      string
	crowd       int
	live, edges []int
	interval    time.Duration
	collections int
	scrapes     int
	noRTT       bool
	profiles    string
	limit       time.Duration
}

// scaleBench is containers that hold connections, and who accepts those.
type scaleBench struct {
	scaleOptions
	dir        string
	out        io.Writer
	containers []*container
	acceptors  []*child // outside of any container: only one end of a connection is watched
	holders    []*child // one in each container
	held       int      // connections that are open
}

func benchScale(ctx context.Context, args []string, out io.Writer) (err error) {
	b := &scaleBench{out: out}
	o := &b.scaleOptions
	fs := flag.NewFlagSet("scale", flag.ContinueOnError)
	live := fs.String("live", "10000,50000,100000", "open connections, all of 20 destinations a container")
	edges := fs.String("edges", "32000,100000", "pairs of container and destination, with one open connection each, then none")
	fs.StringVar(&o.binary, "collector", "otelcol-custom/otelcol-custom", "the built collector")
	fs.IntVar(&o.crowd, "containers", 50, "how many share the connections")
	fs.DurationVar(&o.interval, "interval", 15*time.Second, "between two collections")
	fs.IntVar(&o.collections, "collections", 2, "how many to measure in each state")
	fs.IntVar(&o.scrapes, "scrapes", 3, "how many to measure in each state")
	fs.BoolVar(&o.noRTT, "no-rtt", false, "turn the histogram container.net.tcp.rtt off")
	fs.StringVar(&o.profiles, "profiles", "", "write CPU and heap profiles of each state to this directory")
	fs.DurationVar(&o.limit, "limit", 20*time.Minute, "end after so long, whatever was measured")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.live, err = numbers(*live); err != nil {
		return err
	}
	if o.edges, err = numbers(*edges); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: loads kernel programs and makes cgroups")
	}
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	if b.dir, err = os.MkdirTemp("", "bench-scale-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.open(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, machine())
	return errors.Join(b.runLive(ctx), b.runEdges(ctx))
}

func numbers(list string) (all []int, err error) {
	for word := range strings.SplitSeq(list, ",") {
		if word == "" {
			continue
		}
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// scalePort is that of the first acceptor.
const scalePort = 8080

// open starts an acceptor and a holder for each container: a process has few descriptors on many hosts.
func (b *scaleBench) open(ctx context.Context) error {
	for i := range b.crowd {
		c, err := makeContainer(fmt.Sprint("scale", i))
		b.containers = append(b.containers, c)
		if err != nil {
			return err
		}
		var netns *child
		if i > 0 {
			netns = b.acceptors[0]
		}
		peer, err := startPeer(ctx, outside(netns, "accept", fmt.Sprint(scalePort+i)))
		if err != nil {
			return err
		}
		b.acceptors = append(b.acceptors, peer)
		holder, err := startBench(ctx, c.inside(b.acceptors[0], "hold")...)
		if err != nil {
			return err
		}
		b.holders = append(b.holders, holder)
	}
	return nil
}

func (b *scaleBench) close() error {
	for _, c := range append(b.holders, b.acceptors...) {
		c.stop()
	}
	var errs []error
	for _, c := range b.containers {
		errs = append(errs, c.remove())
	}
	return errors.Join(errs...)
}

// grow opens connections until there are total, those of each container to so many destinations.
func (b *scaleBench) grow(total, destinations int) error {
	each := (total - b.held) / len(b.holders)
	for i, h := range b.holders {
		first := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 100 + byte(i), 0, 1}), uint16(scalePort+i)) //nolint:gosec // few
		if err := h.say(fmt.Sprintf("open %s %d %d", first, destinations, each)); err != nil {
			return err
		}
	}
	return b.hear()
}

func (b *scaleBench) drop() error {
	for _, h := range b.holders {
		if err := h.say("close"); err != nil {
			return err
		}
	}
	return b.hear()
}

func (b *scaleBench) hear() error {
	var errs []error
	b.held = 0
	for i, h := range b.holders {
		var truth heldTruth
		if err := h.ask("", &truth); err != nil {
			return err
		}
		if b.held += truth.Open; truth.Error != "" {
			errs = append(errs, fmt.Errorf("container %d: %s", i, truth.Error))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("stopped at %d connections: %w", b.held, errs[0])
	}
	return nil
}

func (b *scaleBench) collectorConfig() collectorConfig {
	return collectorConfig{
		binary: b.binary, dir: b.dir, interval: b.interval, containers: b.containers, noRTT: b.noRTT,
		maxEdges: 131072, maxDestinations: 5000,
	}
}

// runLive measures many connections of few destinations.
func (b *scaleBench) runLive(ctx context.Context) error {
	if len(b.live) == 0 {
		return nil
	}
	const destinations = 20
	col, err := startCollector(ctx, b.collectorConfig())
	if err != nil {
		return err
	}
	defer col.stop()
	rows := []scaleRow{}
	row, err := b.measure(ctx, col, "idle")
	if err != nil {
		return err
	}
	rows = append(rows, row)
	for _, n := range b.live {
		began := time.Now()
		if err := b.grow(n, destinations); err != nil {
			fmt.Fprintf(b.out, "%d open connections: not made: %v\n", n, err)
			break
		}
		fmt.Fprintf(b.out, "%d connections open after %.1f s\n", n, time.Since(began).Seconds())
		if row, err = b.measure(ctx, col, fmt.Sprintf("%d open", b.held)); err != nil {
			return err
		}
		rows = append(rows, row)
	}
	printScale(b.out, rows)
	if err := b.measureStart(ctx, col); err != nil {
		return err
	}
	return b.drop()
}

// measureStart tells how long a collector takes that finds the connections there.
func (b *scaleBench) measureStart(ctx context.Context, old *collector) error {
	old.stop()
	began := time.Now()
	col, err := startCollector(ctx, b.collectorConfig())
	if err != nil {
		return err
	}
	defer col.stop()
	ready := time.Since(began)
	own, err := col.sumOwn(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "a collector that starts with %d connections open: first collection done after %.2f s, %.0f sockets adopted\n",
		b.held, ready.Seconds(), own["otelcol_ebpf_container_sockets_adopted"])
	return nil
}

// runEdges measures many destinations.
func (b *scaleBench) runEdges(ctx context.Context) error {
	if len(b.edges) == 0 {
		return nil
	}
	col, err := startCollector(ctx, b.collectorConfig())
	if err != nil {
		return err
	}
	defer col.stop()
	var rows []scaleRow
	for _, n := range b.edges {
		// To all destinations from the first on: those that are open already are done again.
		if err := b.drop(); err != nil {
			return err
		}
		if err := b.grow(n, n/len(b.holders)); err != nil {
			fmt.Fprintf(b.out, "%d destinations: not made: %v\n", n, err)
			break
		}
		row, err := b.measure(ctx, col, fmt.Sprintf("%d edges, in use", n))
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	if err := b.drop(); err != nil {
		return err
	}
	if err := sleep(ctx, 2*b.interval); err != nil { // they leave the kernel's table
		return err
	}
	row, err := b.measure(ctx, col, "the same, idle")
	if err != nil {
		return err
	}
	printScale(b.out, append(rows, row))
	return nil
}
