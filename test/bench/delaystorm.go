// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// stormRow is one storm of exits.
type stormRow struct {
	exits     int
	forks     float64 // of the whole host meanwhile
	perSecond float64
	lost      float64 // by the collector's own counter
	told      float64 // seconds of delay, by the processes themselves
	counted   delays
	idle      float64       // CPU of the collector before and after, in cores
	busy      float64       // the same meanwhile
	agent     time.Duration // CPU of the collector above idle, per 1,000 exits
	looked    time.Duration // CPU of the collector for answering this bench meanwhile
	entries   float64       // in the kernel's table, half way through
	programs  map[string]use
}

// stormShells make the exits together.
const stormShells = 2

// orderEvery is how far apart the orders to a shell are: what is asked for with one is made as fast as it goes.
const orderEvery = 50 * time.Millisecond

func (b *delayBench) runStorms(ctx context.Context) error {
	if b.storms == 0 {
		return nil
	}
	col, err := b.startCollector(ctx, interval)
	if err != nil {
		return err
	}
	defer col.stop()
	if err := sleep(ctx, 2*interval); err != nil { // what comes after a start
		return err
	}
	switch _, ok, err := col.ownOf(ctx, ownTasksLost); {
	case err != nil:
		return err
	case !ok:
		b.wrong("the collector does not serve %s: its losses are not counted", ownTasksLost)
	}
	m, err := openExitMeters(col)
	if err != nil {
		fmt.Fprintln(b.out, "kernel programs: not measured:", err)
	} else {
		defer func() { _ = m.Close() }()
	}
	var shells []*child
	for range stormShells {
		sh, err := startShell(ctx, cgroupDirs(b.starving.path()), anyCPU)
		if err != nil {
			return err
		}
		defer sh.stop()
		shells = append(shells, sh)
	}
	var rows []stormRow
	for range b.storms {
		row, stormErr := b.storm(ctx, col, m, shells)
		if err = stormErr; err != nil {
			break
		}
		rows = append(rows, row)
	}
	b.printStorms(rows)
	return err
}

// storm measures the storm with the collection of all that it was, and the idle collector on both sides of it.
func (b *delayBench) storm(ctx context.Context, col *collector, m *meters, shells []*child) (r stormRow, err error) {
	if err := b.nextCollection(ctx, col, interval); err != nil {
		return r, err
	}
	before, err := col.delaysOf(ctx, b.starving)
	if err != nil {
		return r, err
	}
	lostBefore, _, err := col.ownOf(ctx, ownTasksLost)
	if err != nil {
		return r, err
	}
	waited, err := delayOfAll(shells)
	if err != nil {
		return r, err
	}
	idle := func() (float64, error) { return coresOf(col, func() error { return sleep(ctx, b.over/2) }) }
	idleBefore, err := idle()
	if err != nil {
		return r, err
	}
	cpu, wall, err := b.meteredStorm(ctx, col, m, shells, &r)
	if err != nil {
		return r, err
	}
	idleAfter, err := idle()
	if err != nil {
		return r, err
	}
	r.idle = (idleBefore + idleAfter) / 2
	r.busy = float64(cpu-r.looked) / float64(wall)
	r.agent = time.Duration((r.busy - r.idle) * float64(wall) / float64(r.exits) * 1000)
	// The collection that had all of it is over.
	after, err := col.delaysOf(ctx, b.starving)
	if err != nil {
		return r, err
	}
	r.counted = after[0].sub(before[0])
	now, err := delayOfAll(shells)
	if err != nil {
		return r, err
	}
	r.told += (now - waited).Seconds()
	lost, _, err := col.ownOf(ctx, ownTasksLost)
	r.lost = lost - lostBefore
	return r, err
}

// meteredStorm gives the CPU of the collector for the storm and its collection, and how long both took.
func (b *delayBench) meteredStorm(ctx context.Context, col *collector, m *meters, shells []*child, r *stormRow) (
	cpu, wall time.Duration, err error,
) {
	fn := func() error {
		forks, err := hostForks()
		if err != nil {
			return err
		}
		began := time.Now()
		cores, err := coresOf(col, func() error {
			if err := b.blow(ctx, col, shells, r); err != nil {
				return err
			}
			r.perSecond = float64(r.exits) / time.Since(began).Seconds()
			return sleep(ctx, interval+interval/2)
		})
		wall = time.Since(began)
		cpu = time.Duration(cores * float64(wall))
		now, forksErr := hostForks()
		r.forks = now - forks
		return errors.Join(err, forksErr)
	}
	if m == nil {
		err = fn()
		return cpu, wall, err
	}
	r.programs, err = m.during(ctx, fn)
	return cpu, wall, err
}

// blow lets the shells make the exits, and looks at the kernel's table when half of them are made.
func (b *delayBench) blow(ctx context.Context, col *collector, shells []*child, r *stormRow) error {
	orders := max(1, int(b.over/orderEvery))
	type heard struct {
		told time.Duration
		n    int
		err  error
	}
	all := make(chan heard, len(shells))
	for i, sh := range shells {
		sizes := shares(shares(b.exits, len(shells))[i], orders)
		go func() {
			told, n, err := hearDelays(sh, orders)
			all <- heard{told, n, err}
		}()
		go func() {
			t := time.NewTicker(orderEvery)
			defer t.Stop()
			for _, n := range sizes {
				if sh.say(fmt.Sprintf("tell %d", n)) != nil {
					return // hearDelays sees that it has ended
				}
				select {
				case <-ctx.Done():
					return
				case <-t.C:
				}
			}
		}()
	}
	err := errors.Join(sleep(ctx, b.over/2), b.lookAtTable(ctx, col, r))
	for range shells {
		h := <-all // ctx kills the shells
		r.exits += h.n
		r.told += h.told.Seconds()
		err = errors.Join(err, h.err)
	}
	return err
}

func (b *delayBench) lookAtTable(ctx context.Context, col *collector, r *stormRow) error {
	before, err := col.cpu()
	if err != nil {
		return err
	}
	if r.entries, _, err = col.ownOf(ctx, ownUsages); err != nil {
		return err
	}
	after, err := col.cpu()
	r.looked = after - before
	return err
}

// shares divides n into parts that are as equal as can be.
func shares(n, parts int) []int {
	all := make([]int, parts)
	for i := range all {
		all[i] = n*(i+1)/parts - n*i/parts
	}
	return all
}

func delayOfAll(shells []*child) (sum time.Duration, err error) {
	for _, sh := range shells {
		d, err := delayOf(sh.cmd.Process.Pid)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// coresOf is how many CPUs the collector needs while fn runs.
func coresOf(col *collector, fn func() error) (float64, error) {
	before, err := col.cpu()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := fn(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	after, err := col.cpu()
	return float64(after-before) / float64(took), err
}

// ownOf is one of the collector's own metrics, by the name that sumOwn gives it.
func (c *collector) ownOf(ctx context.Context, name string) (value float64, ok bool, err error) {
	own, err := c.sumOwn(ctx)
	value, ok = own[name]
	return value, ok, err
}

// hostForks is how many processes and threads the host has made since it started.
func hostForks() (n float64, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "processes "); ok {
			_, err = fmt.Sscan(value, &n)
			return n, err
		}
	}
	return 0, errors.New("/proc/stat: no processes")
}

// openExitMeters is openMeters with the program that does nothing on exits.
func openExitMeters(col *collector) (*meters, error) {
	m, err := openMeters(col)
	if err != nil {
		return nil, err
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: progEmpty, Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sched_process_exit",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}, License: "GPL",
	})
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	m.closers = append(m.closers, p)
	m.programs[progEmpty] = p
	l, err := link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceRawTp})
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	m.closers = append(m.closers, l)
	return m, nil
}

func (b *delayBench) printStorms(rows []stormRow) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(b.out)
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "storm\texits\tper s\tforks of the host\tlost\tdelay told\tcounted\tcounted/told\tidle cores\tstorm\tagent CPU above idle, per 1,000\tkernel programs\ttable\t")
	for i, r := range rows {
		var programs time.Duration
		for name, u := range r.programs {
			if name != progEmpty {
				programs += u.took
			}
		}
		fmt.Fprintf(w, "%d\t%d\t%.0f\t%.0f\t%.0f\t%.3f s\t%.3f s\t%.4f\t%.4f\t%.4f\t%.3f ms\t%.3f ms\t%.0f\t\n", i+1, r.exits, r.perSecond,
			r.forks, r.lost, r.told, r.counted.delay, r.counted.delay/r.told, r.idle, r.busy, r.agent.Seconds()*1e3,
			programs.Seconds()*1e3/float64(r.exits)*1000, r.entries)
	}
	_ = w.Flush()
	fmt.Fprintln(b.out, "a collection costs less CPU on a machine that is awake: below zero is nothing that can be measured")
	b.printExitPrograms(rows[len(rows)-1])
	for i, r := range rows {
		// Each waits a little after it has told, so there is no upper limit.
		if r.lost == 0 && r.counted.delay < (1-delayTolerance)*r.told {
			b.wrong("storm %d: told %.3f s, counted %.3f s, and nothing is said to be lost", i+1, r.told, r.counted.delay)
		}
	}
}

// printExitPrograms shows what ran because of the exits.
func (b *delayBench) printExitPrograms(r stormRow) {
	var rows []programRow
	for _, name := range slices.Sorted(maps.Keys(r.programs)) {
		if u := r.programs[name]; u.runs > float64(r.exits)/20 {
			rows = append(rows, programRow{program: name, under: fmt.Sprintf("%d exits", r.exits), per: "exit", n: r.exits, use: u})
		}
	}
	if len(rows) > 0 {
		(&tcpBench{out: b.out}).printPrograms(rows)
	}
}
