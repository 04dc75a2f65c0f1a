// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"
)

// forkRound is what a fork and its exit have cost, each in the mean.
type forkRound struct{ wall, cpu time.Duration }

// forkPair is the same with and without the collector, one soon after the other.
type forkPair struct{ off, on forkRound }

// runForks leaves it open whether a pair was disturbed by other collectors: it says how many were.
func (b *delayBench) runForks(ctx context.Context) error {
	if b.pairs == 0 {
		return nil
	}
	sh, err := startShell(ctx, cgroupDirs(b.starving.path()), b.cpu)
	if err != nil {
		return err
	}
	defer sh.stop()
	if _, err := b.forkRound(sh); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	var pairs []forkPair
	disturbed := 0
	for i := range b.pairs {
		var p forkPair
		order := []*forkRound{&p.off, &p.on}
		if i%2 == 1 { // so that a drift hits both
			order[0], order[1] = order[1], order[0]
		}
		others := 0
		for _, r := range order {
			n, err := b.maybeWatched(ctx, r == &p.on, func() (err error) {
				*r, err = b.forkRound(sh)
				return err
			})
			if err != nil {
				return err
			}
			others += n
		}
		if others > 0 {
			disturbed++
		}
		pairs = append(pairs, p)
	}
	b.printForks(pairs, disturbed)
	return nil
}

// maybeWatched runs fn, with a collector if that is asked for, and gives how many programs of others were loaded meanwhile.
func (b *delayBench) maybeWatched(ctx context.Context, on bool, fn func() error) (others int, err error) {
	var col *collector
	if on {
		if col, err = b.startCollector(ctx, interval); err != nil {
			return 0, err
		}
		defer col.stop()
	}
	if err := sleep(ctx, interval/2); err != nil {
		return 0, err
	}
	before, err := othersPrograms(col)
	if err != nil {
		return 0, err
	}
	if err := fn(); err != nil {
		return 0, err
	}
	after, err := othersPrograms(col)
	return before + after, err
}

func (b *delayBench) forkRound(sh *child) (r forkRound, err error) {
	before, err := b.starving.cpuTime()
	if err != nil {
		return r, err
	}
	began := time.Now()
	if err := sh.say(fmt.Sprintf("fork %d", b.forks)); err != nil {
		return r, err
	}
	if _, err := sh.hear(); err != nil {
		return r, err
	}
	r.wall = time.Since(began) / time.Duration(b.forks)
	after, err := b.starving.cpuTime()
	r.cpu = (after - before) / time.Duration(b.forks)
	return r, err
}

func (b *delayBench) printForks(pairs []forkPair, disturbed int) {
	fmt.Fprintln(b.out)
	if disturbed > 0 {
		fmt.Fprintf(b.out, "%d pairs disturbed: another collector's kernel programs were loaded meanwhile\n", disturbed)
	}
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "fork and exit\tpairs\toff\ton\tmore\ton/off, median\tlow\thigh\t")
	for _, of := range []struct {
		name string
		get  func(forkRound) time.Duration
	}{
		{"wall", func(r forkRound) time.Duration { return r.wall }},
		{"CPU", func(r forkRound) time.Duration { return r.cpu }},
	} {
		us := func(f func(forkPair) time.Duration) float64 {
			return spreadBy(pairs, func(p forkPair) float64 { return float64(f(p)) / 1e3 }).median
		}
		ratio := spreadBy(pairs, func(p forkPair) float64 { return float64(of.get(p.on)) / float64(of.get(p.off)) })
		fmt.Fprintf(w, "%s\t%d\t%.1f µs\t%.1f µs\t%.1f µs\t%.3f\t%.3f\t%.3f\t\n", of.name, len(pairs),
			us(func(p forkPair) time.Duration { return of.get(p.off) }), us(func(p forkPair) time.Duration { return of.get(p.on) }),
			us(func(p forkPair) time.Duration { return of.get(p.on) - of.get(p.off) }), ratio.median, ratio.low, ratio.high)
	}
	_ = w.Flush()
}
