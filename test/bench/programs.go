// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// The programs whose cost is told.
const (
	progState   = "on_tcp_state"
	progConnect = "on_connect4"
	progDestroy = "on_tcp_destroy"
	progReset   = "on_send_reset"
	progQueue   = "on_net_dev_queue"
	progFold    = "fold_live"
	progEmpty   = "empty"
)

// othersPrograms counts the loaded programs on changes of TCP state that are ours, but not of this collector.
func othersPrograms(col *collector) (int, error) {
	own := map[ebpf.ProgramID]bool{}
	if col != nil {
		var err error
		if own, err = programsOf(col.pid()); err != nil {
			return 0, err
		}
	}
	n := 0
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		id = next
		if own[id] {
			continue
		}
		if name, err := programName(id); err == nil && name == progState { // else it is gone
			n++
		}
	}
}

func programName(id ebpf.ProgramID) (string, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return "", err
	}
	return info.Name, nil
}

// programsOf lists the kernel programs that a process has descriptors of.
func programsOf(pid int) (map[ebpf.ProgramID]bool, error) {
	dir := fmt.Sprintf("/proc/%d/fdinfo", pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	ids := map[ebpf.ProgramID]bool{}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(b)) {
			if value, ok := strings.CutPrefix(line, "prog_id:"); ok {
				if id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32); err == nil {
					ids[ebpf.ProgramID(id)] = true
				}
			}
		}
	}
	return ids, nil
}

// meters are the counters of programs by name, as the kernel keeps them while its statistics are on.
type meters struct {
	programs map[string]*ebpf.Program
	closers  []io.Closer
}

// openMeters turns the statistics on and takes hold of the programs of a collector, and of one that does nothing: what
// that costs is the measuring and the way in.
func openMeters(col *collector) (*meters, error) {
	m := &meters{programs: map[string]*ebpf.Program{}}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, fmt.Errorf("turn the statistics of kernel programs on: %w", err)
	}
	m.closers = append(m.closers, stats)
	ids, err := programsOf(col.pid())
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	for id := range ids {
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			return nil, errors.Join(err, m.Close())
		}
		m.closers = append(m.closers, p)
		info, err := p.Info()
		if err != nil {
			return nil, errors.Join(err, m.Close())
		}
		m.programs[info.Name] = p
	}
	if err := m.addEmpty(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *meters) addEmpty() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: progEmpty, Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "inet_sock_set_state",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}, License: "GPL",
	})
	if err != nil {
		return err
	}
	m.closers = append(m.closers, p)
	m.programs[progEmpty] = p
	l, err := link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceRawTp})
	if err != nil {
		return err
	}
	m.closers = append(m.closers, l)
	return nil
}

func (m *meters) Close() error {
	var errs []error
	for _, c := range slices.Backward(m.closers) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// use is how often a program ran and how long in all.
type use struct {
	runs float64
	took time.Duration
}

func (m *meters) read() (map[string]use, error) {
	now := map[string]use{}
	for name, p := range m.programs {
		s, err := p.Stats()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		now[name] = use{runs: float64(s.RunCount), took: s.Runtime}
	}
	return now, nil
}

// during tells what fn made the programs do; what others make them do is measured before and taken off.
func (m *meters) during(ctx context.Context, fn func() error) (map[string]use, error) {
	measure := func(fn func() error) (map[string]use, time.Duration, error) {
		before, err := m.read()
		if err != nil {
			return nil, 0, err
		}
		began := time.Now()
		if err := fn(); err != nil {
			return nil, 0, err
		}
		took := time.Since(began)
		after, err := m.read()
		for name := range after {
			after[name] = use{runs: after[name].runs - before[name].runs, took: after[name].took - before[name].took}
		}
		return after, took, err
	}
	idle, idleTook, err := measure(func() error { return sleep(ctx, 2*time.Second) })
	if err != nil {
		return nil, err
	}
	all, took, err := measure(fn)
	part := float64(took) / float64(idleTook)
	for name, u := range all {
		if name != progFold { // it runs only when it is told to
			all[name] = use{runs: u.runs - part*idle[name].runs, took: u.took - time.Duration(part*float64(idle[name].took))}
		}
	}
	return all, err
}

// programRow is the cost of one program under one load.
type programRow struct {
	program, under string
	per            string // what the runs are divided by
	n              int
	use
}

func (b *tcpBench) runPrograms(ctx context.Context) error {
	col, err := startCollector(ctx, b.collectorConfig())
	if err != nil {
		return err
	}
	defer col.stop()
	m, err := openMeters(col)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	var rows []programRow
	for _, p := range packetCases {
		used, err := b.runPackets(ctx, m, p)
		if err != nil {
			fmt.Fprintf(b.out, "%s: not measured: %v\n", p.name, err)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(used)) {
			// The rest is the same in all cases.
			if name == progQueue || p.rules == nil && slices.Contains([]string{progState, progConnect, progDestroy, progReset, progEmpty}, name) {
				rows = append(rows, programRow{program: name, under: p.name, per: "connect", n: b.fullN, use: used[name]})
			}
		}
	}
	live, err := b.runLive(ctx, col, m)
	if err != nil {
		return err
	}
	b.printPrograms(append(rows, live...))
	return nil
}

// packetCase is a load and what its network namespace does with packets.
type packetCase struct {
	name  string
	rules []string // of iptables
	reset bool     // close with a reset
	addr  string
}

const serviceAddr = "10.96.0.10:80"

var packetCases = []packetCase{
	{name: "no connection tracking", addr: serverAddr},
	{name: "closed with a reset", addr: serverAddr, reset: true},
	{name: "tracked", addr: serverAddr, rules: []string{"-A OUTPUT -m conntrack --ctstate INVALID -j DROP"}},
	{name: "translated", addr: serviceAddr, rules: []string{
		"-t nat -A OUTPUT -p tcp -d 10.96.0.10 --dport 80 -j DNAT --to-destination " + serverAddr,
	}},
}

func (b *tcpBench) runPackets(ctx context.Context, m *meters, p packetCase) (map[string]use, error) {
	server, err := b.startServer(ctx)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	for _, rule := range p.rules {
		line := append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", server.cmd.Process.Pid), "iptables", "-w"}, strings.Fields(rule)...)
		if out, err := exec.CommandContext(ctx, "nsenter", line...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("iptables %s: %w: %s", rule, err, out)
		}
	}
	l := b.load(b.fullN, 0)
	l.addr, l.refusedEvery, l.reset = p.addr, 0, p.reset
	return m.during(ctx, func() error {
		_, err := b.runLoad(ctx, server, l)
		return err
	})
}

// liveConnections are held open for the iterator.
const liveConnections = 10000

func (b *tcpBench) runLive(ctx context.Context, col *collector, m *meters) ([]programRow, error) {
	_, port, _ := net.SplitHostPort(serverAddr)
	peer, err := startPeer(ctx, outside(nil, "accept", port))
	if err != nil {
		return nil, err
	}
	defer peer.stop()
	holder, err := startBench(ctx, b.client.inside(peer, "hold")...)
	if err != nil {
		return nil, err
	}
	defer holder.stop()
	if err := openHeld(holder, serverAddr, 1, liveConnections); err != nil {
		return nil, err
	}
	var collections int
	used, err := m.during(ctx, func() error {
		before, err := col.collections(ctx)
		if err != nil {
			return err
		}
		if err := sleep(ctx, 3*interval); err != nil {
			return err
		}
		after, err := col.collections(ctx)
		collections = after - before
		return err
	})
	if err != nil {
		return nil, err
	}
	return []programRow{{
		program: progFold, under: fmt.Sprintf("%d open, %d collections", liveConnections, collections), per: "connection and collection",
		n: liveConnections * max(collections, 1), use: used[progFold],
	}}, nil
}

func (b *tcpBench) printPrograms(rows []programRow) {
	fmt.Fprintln(b.out)
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "program\tunder\truns\tns a run\truns per\t\tns per")
	for _, r := range rows {
		perRun := 0.0
		if r.runs >= 1 {
			perRun = float64(r.took) / r.runs
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%.2f\t%s\t%.0f\n", r.program, r.under, r.runs, perRun,
			r.runs/float64(r.n), r.per, float64(r.took)/float64(r.n))
	}
	_ = w.Flush()
}
