// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The soak: containers come and go, some stay, and all make connections, write logs, rotate them and use CPU and memory, to ever
// other destinations and in ever other words. Those that stay are counted exactly to the end, and what the collector takes does
// not grow.
const (
	soakEnv     = "EBPFCONTAINER_SOAK" // for how long
	soakShort   = 15 * time.Second     // without soakEnv, too short for growth to be seen
	soakLong    = 5 * time.Minute      // from here on what is learned is learned, and growth is growth
	soakStayers = 2
	soakAtOnce  = 6 // of those that come and go
	soakTurn    = 200 * time.Millisecond
	soakLines   = 10 // in a turn
	soakGood    = 5  // connects in a turn that are accepted
	soakRefused = 3  // and that are not, to a destination nobody else has
)

type soak struct {
	t             *testing.T
	ctx           context.Context
	dir           string // of all logs
	ids           string // how the ids of its containers begin
	load          string
	servers       []string
	closed        int // a port where nobody listens
	col           *collector
	lives         sync.WaitGroup
	mu            sync.Mutex // guards what follows
	lived, failed int
}

func TestSoak(t *testing.T) {
	requireRoot(t)
	lasts := soakShort
	if text := os.Getenv(soakEnv); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	s := &soak{t: t, ctx: testContext(t), dir: t.TempDir(), ids: containerID("soak")[:16], closed: freePort(t)}
	s.load = buildLoad(s.ctx, t)
	for i := range 4 {
		s.servers = append(s.servers, fmt.Sprintf("127.0.0.%d:%d", i+1, freePort(t)))
	}
	startServer(s.ctx, t, s.load, s.servers...)
	logs := fmt.Sprintf("roots: [%s], journal: false", s.dir)
	s.col = startCollector(s.ctx, t, collectorBinary(s.ctx, t), collectorConfig{
		identities: []string{"semconv", "coroot"}, interval: time.Second, include: []string{"^/docker/" + s.ids},
		network: "idle_timeout: 1m", logs: map[string]string{"semconv": logs, "coroot": logs},
	})

	var stayers []*stayer
	for i := range soakStayers {
		stayers = append(stayers, s.startStayer(fmt.Sprint("stayer", i)))
	}
	ctx, stop := context.WithTimeout(s.ctx, lasts)
	defer stop()
	for range soakAtOnce {
		s.lives.Go(func() { s.comeAndGo(ctx) })
	}
	t.Cleanup(func() { stop(); s.lives.Wait() })
	samples := s.watch(ctx, stayers)
	s.lives.Wait()
	for _, st := range stayers {
		st.finish()
	}
	s.checkUse(samples, lasts)
	s.checkEnd(stayers)
	s.col.wantNoLoss(s.ctx, t, "events_lost", "edges_folded", "edges_unaccounted", "listeners_folded", "tasks_unaccounted",
		"tasks_unknown", "disk_io_unaccounted", "log_lines_cut", "log_read_errors", "log_records_invalid")
	t.Logf("%d containers came and went", s.lived)
	if s.failed > 0 || s.lived == 0 {
		t.Errorf("%d containers could not be made", s.failed)
	}
}

// turn is what a container does, as a script whose $1 is the load program.
func (s *soak) turn(dir string, number int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\"$1\" connect -n %d %s\n", soakGood, s.servers[rand.IntN(len(s.servers))])
	fmt.Fprintf(&b, "\"$1\" connect -n %d 127.%d.%d.%d:%d\n", soakRefused, 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254), s.closed)
	fmt.Fprintf(&b, "\"$1\" burn -cpu 2ms -memory %d\n{\n", rand.IntN(8<<20))
	for range soakLines {
		level := []string{"INFO", "WARN", "ERROR"}[rand.IntN(3)]
		fmt.Fprintf(&b, "echo '%s request %d of %x: %s'\n", level, rand.IntN(1e6), rand.Uint64(), soakText(number))
	}
	log := filepath.Join(dir, "app.log")
	fmt.Fprintf(&b, "} >> %s\n", log)
	if number%20 == 19 {
		fmt.Fprintf(&b, "mv %s %s.1\n", log, log)
	}
	return b.String()
}

// soakText is one of four texts, which are others after some turns.
func soakText(number int) string {
	r := rand.New(rand.NewPCG(uint64(number/10), rand.Uint64N(4)))
	var words []string
	for range 3 + r.IntN(5) {
		end := []string{"ing", "ed", "able", "tion"}[r.IntN(4)]
		words = append(words, fmt.Sprintf("%c%c%c%s", 'a'+r.IntN(26), 'a'+r.IntN(26), 'a'+r.IntN(26), end))
	}
	return strings.Join(words, " ")
}

func (s *soak) container(name string) container {
	return dockerContainer(s.ids + containerID(name)[len(s.ids):])
}

// stayer is a container that stays, and that does what it is told.
type stayer struct {
	s       *soak
	who     container
	dir     string
	process *process
	in      io.WriteCloser
	turns   int
}

func (s *soak) startStayer(name string) *stayer {
	s.t.Helper()
	st := &stayer{s: s, who: s.container(name), dir: filepath.Join(s.dir, name)}
	if err := os.Mkdir(st.dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	command := makeCgroup(s.t, st.who.cgroup.path).inside(s.load, "/bin/sh", "-es", s.load)
	cmd := exec.Command(command[0], command[1:]...)
	var err error
	if st.in, err = cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	st.process = start(s.t, name, cmd)
	st.tell("exec > /dev/null\n")
	return st
}

func (st *stayer) tell(script string) {
	st.s.t.Helper()
	if _, err := io.WriteString(st.in, script); err != nil {
		st.s.t.Fatalf("%v: %s", err, st.process.output(st.s.t))
	}
}

// finish waits until the stayer has done all.
func (st *stayer) finish() {
	st.s.t.Helper()
	done := filepath.Join(st.s.t.TempDir(), "done") // what is below st.dir counts
	st.tell("echo > " + done + "\nexec sleep 3600\n")
	eventually(st.s.ctx, st.s.t, 5*time.Minute, "all is done", func() error {
		if err := st.process.running(); err != nil {
			st.s.t.Fatal(err)
		}
		_, err := os.Stat(done)
		return err
	})
}

// comeAndGo runs one container after the other.
func (s *soak) comeAndGo(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		err := s.live(ctx)
		s.mu.Lock()
		s.lived++
		if err != nil {
			s.failed++
			s.t.Log(err)
		}
		s.mu.Unlock()
	}
}

// live runs a container to its end: it completes, fails or is killed.
func (s *soak) live(ctx context.Context) (err error) {
	who := s.container("comes and goes")
	dir := filepath.Join(s.dir, who.id)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, d := range who.cgroup.dirs() {
		defer func() { err = errors.Join(err, removeCgroupDir(d)) }()
		if err := makeCgroupDir(d, new([]string)); err != nil {
			return err
		}
	}
	var script strings.Builder
	for number := range 2 + rand.IntN(8) {
		script.WriteString(s.turn(dir, number+rand.IntN(1e6)))
		script.WriteString("sleep 0.2\n")
	}
	script.WriteString([]string{"exit 0", "exit 3", "kill -9 $$"}[rand.IntN(3)])
	command := who.cgroup.inside(s.load, "/bin/sh", "-ec", script.String(), "sh", s.load)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the signal comes when the thread ends that started it
	defer runtime.UnlockOSThread()
	var ended *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &ended) && ctx.Err() == nil {
		return err
	}
	return nil
}

// soakUse is what the collector has at one moment.
type soakUse struct{ rss, files, threads, series int }

// watch has the stayers do their turns until ctx ends, and looks at the collector meanwhile.
func (s *soak) watch(ctx context.Context, stayers []*stayer) (samples []soakUse) {
	s.t.Helper()
	tick := time.NewTicker(soakTurn)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return samples
		case <-tick.C:
		}
		for _, st := range stayers {
			st.tell(s.turn(st.dir, st.turns))
			st.turns++
		}
		if n%10 != 0 {
			continue
		}
		use, err := s.use()
		if err != nil {
			s.t.Fatalf("%v: %v", err, s.col.process.running())
		}
		samples = append(samples, use)
	}
}

func (s *soak) use() (use soakUse, err error) {
	proc := fmt.Sprintf("/proc/%d/", s.col.process.cmd.Process.Pid)
	b, err := os.ReadFile(proc + "status")
	if err != nil {
		return use, err
	}
	for line := range bytes.Lines(b) {
		name, value, _ := strings.Cut(string(line), ":")
		switch name {
		case "VmRSS":
			_, err = fmt.Sscan(value, &use.rss) // kB
		case "Threads":
			_, err = fmt.Sscan(value, &use.threads)
		}
		if err != nil {
			return use, fmt.Errorf("%q: %w", line, err)
		}
	}
	files, err := os.ReadDir(proc + "fd")
	if err != nil {
		return use, err
	}
	use.files = len(files)
	for _, target := range s.col.targets {
		p, err := readPage(s.ctx, target)
		if err != nil {
			return use, err
		}
		use.series += len(p)
	}
	return use, nil
}

// checkUse compares the most of the second quarter with the most of the last.
func (s *soak) checkUse(samples []soakUse, lasts time.Duration) {
	s.t.Helper()
	var quarters [4]soakUse
	for i, use := range samples {
		q := &quarters[i*4/len(samples)]
		*q = soakUse{max(q.rss, use.rss), max(q.files, use.files), max(q.threads, use.threads), max(q.series, use.series)}
	}
	for i, q := range quarters {
		s.t.Logf("quarter %d: at most %.1f MiB resident, %d files open, %d threads, %d series", i+1, float64(q.rss)/1024, q.files, q.threads, q.series)
	}
	if lasts < soakLong {
		return
	}
	for _, x := range []struct {
		what          string
		before, after int
		slack         int
	}{
		{"kB resident", quarters[1].rss, quarters[3].rss, 8 << 10},
		{"files open", quarters[1].files, quarters[3].files, 16},
		{"threads", quarters[1].threads, quarters[3].threads, 4},
		{"series", quarters[1].series, quarters[3].series, 100},
	} {
		if most := x.before + x.before/10 + x.slack; x.after > most {
			s.t.Errorf("%s: %d at most in the second quarter, %d in the last", x.what, x.before, x.after)
		}
	}
}

// checkEnd waits until only those are given that stay, with exactly what they did.
func (s *soak) checkEnd(stayers []*stayer) {
	s.t.Helper()
	for identity, target := range s.col.targets {
		eventually(s.ctx, s.t, time.Minute, "what stays, and nothing else, in identity "+identity, func() error {
			p, err := readPage(s.ctx, target)
			if err != nil {
				return err
			}
			for _, st := range stayers {
				var own page
				own, p = p.split(func(labels map[string]string) bool { return strings.HasSuffix(labels["container_id"], st.who.id) })
				for metric, want := range map[string]int{
					"container_net_tcp_successful_connects_total": soakGood * st.turns,
					"container_log_messages_total":                soakLines * st.turns,
				} {
					if got := own.sum(metric); got != float64(want) {
						return fmt.Errorf("%s: %s is %v, want %d", st.who.id, metric, got, want)
					}
				}
			}
			if len(p) > 0 {
				return fmt.Errorf("%d series of others, such as %v", len(p), p[0])
			}
			return nil
		})
	}
}
