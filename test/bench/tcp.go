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
	"text/tabwriter"
	"time"
)

// tcpOptions of bench tcp.
type tcpOptions struct {
	binary   string
	pairs    int
	ratedN   int
	fullN    int
	rate     float64
	idle     time.Duration
	reset    bool
	programs bool
	limit    time.Duration
}

// errMissed says that something was not counted, or counted in the wrong place.
var errMissed = errors.New("not everything that was made was counted")

// interval is that of the collections: short, so that each round has some.
const interval = time.Second

// tcpBench is what all rounds share.
type tcpBench struct {
	tcpOptions
	client, server *container
	dir            string
	out            io.Writer
	missed         bool
	othersLost     bool // while others' programs were there, and none of ours
}

func benchTCP(ctx context.Context, args []string, out io.Writer) (err error) {
	b := &tcpBench{out: out}
	fs := flag.NewFlagSet("tcp", flag.ContinueOnError)
	fs.StringVar(&b.binary, "collector", "otelcol-custom/otelcol-custom", "the built collector")
	fs.IntVar(&b.pairs, "pairs", 9, "pairs of rounds with and without the collector, of each load")
	fs.IntVar(&b.ratedN, "rated", 8000, "connects in a round at the given rate")
	fs.IntVar(&b.fullN, "full", 20000, "connects in a round at full speed")
	fs.Float64Var(&b.rate, "rate", 4000, "connects a second")
	fs.DurationVar(&b.idle, "idle", 2*time.Second, "how long the idle collector is measured in each round")
	fs.BoolVar(&b.reset, "reset", false, "let the client close with a reset: fewer changes of state")
	fs.BoolVar(&b.programs, "programs", true, "measure the kernel programs one by one")
	fs.DurationVar(&b.limit, "limit", 8*time.Minute, "end after so long, whatever was measured")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: loads kernel programs and makes cgroups")
	}
	ctx, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	if b.dir, err = os.MkdirTemp("", "bench-tcp-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	for _, c := range []struct {
		name string
		to   **container
	}{{"client", &b.client}, {"server", &b.server}} {
		made, makeErr := makeContainer(c.name)
		*c.to = made
		defer func() { err = errors.Join(err, made.remove()) }()
		if makeErr != nil {
			return makeErr
		}
	}
	return b.run(ctx)
}

func (b *tcpBench) run(ctx context.Context) error {
	fmt.Fprintln(b.out, machine())
	if _, err := b.round(ctx, b.load(b.fullN, 0), false); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	var rows []tcpRow
	for _, l := range []struct {
		name string
		load load
	}{
		{fmt.Sprintf("%.0f/s", b.rate), b.load(b.ratedN, b.rate)},
		{"full speed", b.load(b.fullN, 0)},
	} {
		row := tcpRow{name: l.name}
		var err error
		if row.pairs, err = b.allPairs(ctx, l.load); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		rows = append(rows, row)
	}
	b.print(rows)
	if b.programs {
		if err := b.runPrograms(ctx); err != nil {
			return fmt.Errorf("kernel programs: %w", err)
		}
	}
	if b.missed {
		return errMissed
	}
	return nil
}

func (b *tcpBench) load(n int, rate float64) load {
	return load{
		n: n, workers: 4, payload: 128, rate: rate, refusedEvery: 20, reset: b.reset, addr: serverAddr, closed: closedAddr,
	}
}

// tcpPair is one load with and without the collector, one soon after the other.
type tcpPair struct{ off, on tcpRound }

// tcpRow is all pairs of one load.
type tcpRow struct {
	name  string
	pairs []tcpPair
}

// tcpRound is what one run of a load has cost.
type tcpRound struct {
	perSecond   float64
	workload    time.Duration // CPU of client and server, per connect
	agent       time.Duration // CPU of the collector above idle, per 100,000 connects
	idle        float64       // CPU of the idle collector, in cores
	ready       time.Duration
	made        loadTruth
	undisturbed bool // nobody else's programs were there
}

// allPairs repeats pairs into which others' kernel programs came, but not for ever.
func (b *tcpBench) allPairs(ctx context.Context, l load) ([]tcpPair, error) {
	var pairs, disturbed []tcpPair
	for i := 0; len(pairs) < b.pairs && i < 2*b.pairs; i++ {
		var p tcpPair
		order := []*tcpRound{&p.off, &p.on}
		if i%2 == 1 { // so that a drift hits both
			order[0], order[1] = order[1], order[0]
		}
		for _, r := range order {
			var err error
			if *r, err = b.round(ctx, l, r == &p.on); err != nil {
				return nil, err
			}
		}
		if p.off.undisturbed && p.on.undisturbed {
			pairs = append(pairs, p)
		} else {
			disturbed = append(disturbed, p)
		}
	}
	if len(disturbed) > 0 {
		fmt.Fprintf(b.out, "%d pairs disturbed: another collector's kernel programs were loaded meanwhile\n", len(disturbed))
	}
	if len(pairs) == 0 {
		fmt.Fprintln(b.out, "there were no others: these are given")
		pairs = disturbed
	}
	return pairs, nil
}

// round runs a load once.
func (b *tcpBench) round(ctx context.Context, l load, on bool) (r tcpRound, err error) {
	var col *collector
	if on {
		began := time.Now()
		col, err = startCollector(ctx, b.collectorConfig())
		if err != nil {
			return r, err
		}
		defer col.stop()
		r.ready = time.Since(began)
	}
	server, err := b.startServer(ctx)
	if err != nil {
		return r, err
	}
	defer server.stop()
	if col != nil {
		if r.idle, err = b.measureIdle(ctx, col); err != nil {
			return r, err
		}
	}
	before, err := othersPrograms(col)
	if err != nil {
		return r, err
	}
	meter, err := startMeter(col, server)
	if err != nil {
		return r, err
	}
	if r.made, err = b.runLoad(ctx, server, l); err != nil {
		return r, err
	}
	r.perSecond = float64(l.n) / r.made.Took.Seconds()
	after, err := othersPrograms(col)
	if err != nil {
		return r, err
	}
	r.undisturbed = before+after == 0
	if col != nil { // its collection of what was made belongs to the price
		if err := sleep(ctx, interval+interval/5); err != nil {
			return r, err
		}
	}
	agent, wall, truth, err := meter.stop(col, server)
	if err != nil {
		return r, err
	}
	r.workload = (r.made.CPU + truth.CPU) / time.Duration(l.n)
	if col == nil {
		return r, nil
	}
	above := agent - time.Duration(r.idle*float64(wall))
	r.agent = time.Duration(float64(above) / float64(l.n) * 1e5)
	return r, b.compare(ctx, col, &r, l, truth)
}

func (b *tcpBench) collectorConfig() collectorConfig {
	return collectorConfig{binary: b.binary, dir: b.dir, interval: interval, containers: []*container{b.client, b.server}}
}

// startServer starts a server in a network namespace of its own: what the load leaves behind goes with it.
func (b *tcpBench) startServer(ctx context.Context) (*child, error) {
	server, err := startBench(ctx, b.server.inside(nil, "serve", serverAddr)...)
	if err != nil {
		return nil, err
	}
	var truth serverTruth
	if err := server.ask("", &truth); err != nil {
		server.stop()
		return nil, fmt.Errorf("start the server: %w", err)
	}
	return server, nil
}

func (b *tcpBench) runLoad(ctx context.Context, server *child, l load) (made loadTruth, err error) {
	client, err := startBench(ctx, b.client.inside(server, l.words()...)...)
	if err != nil {
		return made, err
	}
	defer client.stop()
	if err := client.ask("", &made); err != nil {
		return made, fmt.Errorf("the load: %w", err)
	}
	return made, eventually(ctx, 10*time.Second, 5*time.Millisecond, func() error {
		var truth serverTruth
		if err := server.ask("truth", &truth); err != nil {
			return err
		}
		if truth.Accepted != made.Connected || truth.Ended != made.Connected {
			return fmt.Errorf("%d connected, %d accepted, %d ended", made.Connected, truth.Accepted, truth.Ended)
		}
		return nil
	})
}

func (b *tcpBench) measureIdle(ctx context.Context, col *collector) (cores float64, err error) {
	if err := sleep(ctx, interval/2); err != nil { // after its start
		return 0, err
	}
	began := time.Now()
	before, err := col.cpu()
	if err != nil {
		return 0, err
	}
	if err := sleep(ctx, b.idle); err != nil {
		return 0, err
	}
	after, err := col.cpu()
	return (after - before).Seconds() / time.Since(began).Seconds(), err
}

// meter measures the CPU of the collector, if there is one, and of the server.
type meter struct {
	began  time.Time
	agent  time.Duration
	server serverTruth
}

func startMeter(col *collector, server *child) (m meter, err error) {
	if err = server.ask("truth", &m.server); err != nil {
		return m, err
	}
	if col != nil {
		m.agent, err = col.cpu()
	}
	m.began = time.Now()
	return m, err
}

// stop gives what was used since the start; the truth is the server's, with its CPU likewise.
func (m meter) stop(col *collector, server *child) (agent, wall time.Duration, truth serverTruth, err error) {
	wall = time.Since(m.began)
	if col != nil {
		if agent, err = col.cpu(); err != nil {
			return 0, 0, truth, err
		}
	}
	err = server.ask("truth", &truth)
	truth.CPU -= m.server.CPU
	return agent - m.agent, wall, truth, err
}

// compare wants the collector to have counted exactly what was made, and where it was made.
func (b *tcpBench) compare(ctx context.Context, col *collector, r *tcpRound, l load, server serverTruth) error {
	to := func(name, addr string) series {
		return series{b.client, "container_net_tcp_" + name, "destination", addr}
	}
	at := func(name string) series {
		return series{b.server, "container_net_tcp_inbound_" + name, "listen_addr", serverAddr}
	}
	all := []series{
		to("successful_connects_total", l.addr), to("failed_connects_total", l.closed), to("failed_connects_total", l.addr),
		to("bytes_sent_total", l.addr), to("bytes_received_total", l.addr), to("active_connections", l.addr),
		at("connections_total"), at("bytes_sent_total"), at("bytes_received_total"), at("active"),
	}
	made := []int64{
		r.made.Connected, r.made.Refused, 0, r.made.Sent, r.made.Received, 0,
		server.Accepted, server.Sent, server.Received, 0,
	}
	err := eventually(ctx, 10*interval, interval/4, func() error {
		counted, err := col.sumPage(ctx, all)
		if err != nil {
			return err
		}
		var wrong []error
		for i, s := range all {
			if counted[i] != float64(made[i]) {
				wrong = append(wrong, fmt.Errorf("%w: %s of %s: made %d, counted %.0f", errMissed, s.name, s.with, made[i], counted[i]))
			}
		}
		return errors.Join(wrong...)
	})
	if err != nil && !errors.Is(err, errMissed) {
		return err
	}
	own, ownErr := col.sumOwn(ctx)
	if ownErr != nil {
		return ownErr
	}
	for _, name := range losses {
		switch n, ok := own[name]; {
		case ok && n == 0:
		case ok && !r.undisturbed: // the kernel's tables are those of the whole host
			b.othersLost = true
		default:
			err = errors.Join(err, fmt.Errorf("%w: %s is %.0f", errMissed, name, n))
		}
	}
	if err != nil {
		b.missed = true
		fmt.Fprintln(b.out, "WRONG:", err)
	}
	return nil
}

func (b *tcpBench) print(rows []tcpRow) {
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "load\tpairs\tconnects\tper s\tCPU per connect off\ton\tmore\ton/off, median\tlow\thigh\tagent CPU per 100k\tlow\thigh\tidle cores\tready\t")
	for _, r := range rows {
		var connects int64
		for _, p := range r.pairs {
			connects += p.on.made.Connected + p.on.made.Refused
		}
		us := func(f func(tcpPair) time.Duration) float64 {
			return spreadBy(r.pairs, func(p tcpPair) float64 { return float64(f(p)) / 1e3 }).median
		}
		ratio := spreadBy(r.pairs, func(p tcpPair) float64 { return float64(p.on.workload) / float64(p.off.workload) })
		agent := spreadBy(r.pairs, func(p tcpPair) float64 { return p.on.agent.Seconds() })
		fmt.Fprintf(w, "%s\t%d\t%d\t%.0f\t%.2f µs\t%.2f µs\t%.2f µs\t%.3f\t%.3f\t%.3f\t%.3f s\t%.3f\t%.3f\t%.4f\t%.2f s\t\n",
			r.name, len(r.pairs), connects, spreadBy(r.pairs, func(p tcpPair) float64 { return p.on.perSecond }).median,
			us(func(p tcpPair) time.Duration { return p.off.workload }), us(func(p tcpPair) time.Duration { return p.on.workload }),
			us(func(p tcpPair) time.Duration { return p.on.workload - p.off.workload }),
			ratio.median, ratio.low, ratio.high, agent.median, agent.low, agent.high,
			spreadBy(r.pairs, func(p tcpPair) float64 { return p.on.idle }).median,
			spreadBy(r.pairs, func(p tcpPair) float64 { return p.on.ready.Seconds() }).median)
	}
	_ = w.Flush()
	switch {
	case b.missed:
	case b.othersLost:
		fmt.Fprintln(b.out, "counted = made in every round: connects, accepted, refused, bytes both ways; others' tests filled the kernel's tables in disturbed rounds")
	default:
		fmt.Fprintln(b.out, "counted = made in every round: connects, accepted, refused, bytes both ways; nothing folded or lost")
	}
}
