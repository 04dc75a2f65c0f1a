// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// delayRow is one round of waiting in one container.
type delayRow struct {
	what        string
	told        float64 // seconds, by the processes themselves
	counted     delays
	throttled   float64 // seconds, by the container's cgroup
	processes   int
	took        time.Duration
	collections int
}

func (r *delayRow) good() bool {
	within := func(counted float64) bool {
		return r.told > 0 && counted >= (1-delayTolerance)*r.told && counted <= (1+delayTolerance)*r.told
	}
	// The second series may be off.
	return within(r.counted.delay) && (r.counted.kind == 0 || within(r.counted.kind))
}

// starveAll does all rounds. It gives those that were done, after an error too.
func (b *delayBench) starveAll(ctx context.Context, col *collector) (rows []delayRow, err error) {
	if b.starved+b.throttled == 0 {
		return nil, nil
	}
	starving, err := startShell(ctx, cgroupDirs(b.starving.path()), b.cpu)
	if err != nil {
		return nil, err
	}
	defer starving.stop()
	rival, err := startShell(ctx, cgroupDirs(b.rival.path()), b.cpu)
	if err != nil {
		return nil, err
	}
	defer rival.stop()
	for i := range b.starved {
		both, err := b.starve(ctx, col, starving, rival)
		if err != nil {
			return rows, err
		}
		both[0].what, both[1].what = fmt.Sprintf("for a CPU, %d", i+1), fmt.Sprintf("the rival, %d", i+1)
		rows = append(rows, both...)
	}
	if b.throttled == 0 {
		return rows, nil
	}
	lift, err := b.starving.setQuota(5*time.Millisecond, 10*time.Millisecond)
	if err != nil {
		fmt.Fprintln(b.out, "waiting for a quota: not measured:", err)
		return rows, nil
	}
	defer lift()
	for i := range b.throttled {
		one, err := b.starve(ctx, col, starving, nil)
		if err != nil {
			return rows, err
		}
		one[0].what = fmt.Sprintf("for quota, %d", i+1)
		rows = append(rows, one...)
	}
	return rows, nil
}

// starve lets one shell make processes that wait, between two collections if they are far enough apart. The rival, if there
// is one, keeps the CPU busy meanwhile; it lives on, the others are gone when they are counted.
func (b *delayBench) starve(ctx context.Context, col *collector, starving, rival *child) ([]delayRow, error) {
	shells, of := []*child{starving}, []*container{b.starving}
	if rival != nil {
		shells, of = append(shells, rival), append(of, b.rival)
	}
	before, err := b.collected(ctx, col, shells, of)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	told, err := b.starveBeside(starving, rival)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	rows, err := b.collected(ctx, col, shells, of)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		r := &rows[i]
		r.took, r.told, r.throttled = took, r.told-before[i].told, r.throttled-before[i].throttled
		r.counted, r.collections = r.counted.sub(before[i].counted), r.collections-before[i].collections
	}
	rows[0].told += told.Seconds()
	rows[0].processes = b.processes
	return rows, nil
}

// collected is what there is of each container after the next collection. Its shell sleeps, and is all that it has.
func (b *delayBench) collected(ctx context.Context, col *collector, shells []*child, of []*container) ([]delayRow, error) {
	if err := b.nextCollection(ctx, col, b.interval); err != nil {
		return nil, err
	}
	counted, err := col.delaysOf(ctx, of...)
	if err != nil {
		return nil, err
	}
	collections, err := col.collections(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]delayRow, len(of))
	for i := range of {
		waited, err := delayOf(shells[i].cmd.Process.Pid)
		if err != nil {
			return nil, err
		}
		rows[i] = delayRow{told: waited.Seconds(), counted: counted[i], throttled: of[i].throttled(), collections: collections}
	}
	return rows, nil
}

// starveBeside gives what the processes told, without the two shells.
func (b *delayBench) starveBeside(starving, rival *child) (told time.Duration, err error) {
	if rival != nil {
		if err := rival.say("spin"); err != nil {
			return 0, err
		}
		if _, err := rival.hear(); err != nil { // it spins
			return 0, err
		}
		defer func() {
			if sigErr := rival.cmd.Process.Signal(unix.SIGUSR1); err == nil {
				err = sigErr
			}
			if err == nil {
				_, err = rival.hear() // it sleeps
			}
		}()
	}
	if err := starving.say(fmt.Sprintf("starve %d %d", b.processes, b.life.Nanoseconds())); err != nil {
		return 0, err
	}
	told, n, err := hearDelays(starving, 1)
	if err == nil && n != b.processes {
		err = fmt.Errorf("%d of %d processes told", n, b.processes)
	}
	return told, err
}

// hearDelays adds up what processes of a shell tell until it has done so many orders.
func hearDelays(sh *child, orders int) (told time.Duration, n int, err error) {
	for orders > 0 {
		line, err := sh.hear()
		if err != nil {
			return told, n, err
		}
		if line == doneWord {
			orders--
			continue
		}
		ns, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			return told, n, fmt.Errorf("what a process told: %w", err)
		}
		told += time.Duration(ns)
		n++
	}
	return told, n, nil
}
