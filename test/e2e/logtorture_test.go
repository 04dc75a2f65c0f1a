// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/plog"
)

// The torture: 8 writers in a container number their lines, each file is rotated every 100 ms by renaming, by copying and
// truncating or by deleting, and the collector is stopped and started five times, or killed, meanwhile. Each number is counted
// once.
//
// Only what nobody could read is kept from happening. Writers do not write between copy and truncation. A file is deleted when
// the collector has it open, and the collector ends when it has read the deleted ones; while it is down, none is deleted.
const (
	tortureWriters = 8
	rotateEvery    = 100 * time.Millisecond
	tortureEnv     = "EBPFCONTAINER_LOG_TORTURE"
	writerEnv      = "EBPFCONTAINER_LOG_WRITER"
	// rotatedQuiet is how long the collector keeps a rotated file open that nobody writes to, and then some.
	rotatedQuiet = 6 * time.Second
)

// tortureSize is how many lines are written, over how long. EBPFCONTAINER_LOG_TORTURE=full has them written for a minute.
func tortureSize() (lines int, during time.Duration) {
	if isFull() {
		return 2_000_000, 80 * time.Second
	}
	return 200_000, 20 * time.Second
}

func isFull() bool { return os.Getenv(tortureEnv) == "full" }

func TestLogTortureWithRestarts(t *testing.T) {
	torture := newLogTorture(t)
	torture.start(true)
	for round := range 5 {
		torture.sleep(12)
		if torture.deleteFor.Load() != 0 {
			torture.deletedAreRead()
		}
		torture.stop()
		time.Sleep(500 * time.Millisecond)
		torture.start(isFull() && round%2 == 1)
	}
	torture.finish()
	torture.checkCounts()
	torture.stop()
	torture.checkRecords()
}

func TestLogTortureWithAKill(t *testing.T) {
	torture := newLogTorture(t)
	torture.start(true)
	torture.sleep(3)
	torture.deletedAreRead()
	torture.col.kill(t)
	time.Sleep(time.Second)
	torture.start(true)
	torture.sleep(3)
	torture.finish()
	torture.checkCounts()
	if own := torture.own("log_unclean_starts"); !strings.HasSuffix(own, " 1\n") {
		t.Errorf("%q, want one unclean start", own)
	}
	torture.stop()
}

type logTorture struct {
	t           *testing.T
	ctx         context.Context
	binary      string
	dir         string // what the writers are told, and in it logs
	data        string // of the collector
	who         container
	writers     *process
	rotators    []*rotator
	rotating    sync.WaitGroup
	endRotation context.CancelFunc
	deleteFor   atomic.Int64 // process id of the collector that may have its files deleted
	col         *tortureCollector
	starts      int
}

type tortureCollector struct {
	*process
	target, own, records string
}

// kill ends the collector as the kernel does when memory runs out.
func (c *tortureCollector) kill(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.done
}

func newLogTorture(t *testing.T) *logTorture {
	t.Helper()
	requireRoot(t)
	ctx := testContext(t)
	torture := &logTorture{t: t, ctx: ctx, binary: collectorBinary(ctx, t), dir: t.TempDir(), data: t.TempDir()}
	torture.who = dockerContainer(containerID("torture"))
	if err := os.Mkdir(filepath.Join(torture.dir, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := makeCgroup(t, torture.who.cgroup.path).inside(buildLoad(ctx, t), self, "-test.run=^TestLogWriters$", "-test.v")
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), writerEnv+"="+torture.dir)
	torture.writers = start(t, "writers", cmd)
	return torture
}

// start starts the collector, and has files deleted from the time on when it has found them.
func (x *logTorture) start(deleting bool) {
	x.t.Helper()
	x.starts++
	own := freePort(x.t)
	c := &tortureCollector{
		target: fmt.Sprintf("127.0.0.1:%d", freePort(x.t)), own: fmt.Sprintf("127.0.0.1:%d", own),
		records: filepath.Join(x.data, fmt.Sprintf("records-%d.json", x.starts)),
	}
	config := fmt.Sprintf(`
extensions: {file_storage: {directory: %s}}
receivers:
  ebpf_container:
    collection_interval: 1s
    containers: {include: ['^%s$']}
    runtimes: {enabled: false}
    network: {enabled: false}
    logs: {roots: [%s], journal: false, new_patterns: false, forward: all, storage: file_storage, checkpoint_interval: 1s}
exporters:
  prometheus: {endpoint: %q, resource_to_telemetry_conversion: {enabled: true}, without_scope_info: true}
  file: {path: %s}
service:
  extensions: [file_storage]
  telemetry: %s
  pipelines:
    metrics: {receivers: [ebpf_container], exporters: [prometheus]}
    logs: {receivers: [ebpf_container], exporters: [file]}
`, x.data, x.who.path, filepath.Join(x.dir, "logs"), c.target, c.records, ownTelemetry(own))
	c.process = startOtelcol(x.t, x.binary, writePublic(x.t, "torture.yaml", config), 0)
	x.col = c
	eventually(x.ctx, x.t, 20*time.Second, "the receiver runs", func() error {
		if err := c.running(); err != nil {
			x.t.Fatal(err)
		}
		if !strings.Contains(c.output(x.t), "Everything is ready") {
			return errors.New("the collector has not said so")
		}
		return nil
	})
	// What was written before the first start does not count, so it begins now.
	if err := os.WriteFile(filepath.Join(x.dir, "go"), nil, 0o600); err != nil {
		x.t.Fatal(err)
	}
	eventually(x.ctx, x.t, 20*time.Second, "all logs are followed", func() error {
		if err := c.running(); err != nil {
			x.t.Fatal(err)
		}
		open := openIn(c.cmd.Process.Pid)
		for i := range tortureWriters {
			if !slices.ContainsFunc(open, func(name string) bool { return strings.HasPrefix(name, logOf(x.dir, i)) }) {
				return fmt.Errorf("%s is not", logOf(x.dir, i))
			}
		}
		return nil
	})
	if deleting {
		x.deleteFor.Store(int64(c.cmd.Process.Pid))
	}
	if x.endRotation == nil {
		var ctx context.Context
		ctx, x.endRotation = context.WithCancel(x.ctx)
		x.t.Cleanup(func() { x.endRotation(); x.rotating.Wait() })
		for i := range tortureWriters {
			r := &rotator{x: x, number: i}
			x.rotators = append(x.rotators, r)
			x.rotating.Go(func() { r.run(ctx) })
		}
	}
}

// sleep lets a part of the time pass.
func (x *logTorture) sleep(parts time.Duration) {
	_, during := tortureSize()
	time.Sleep(during / parts)
}

// deletedAreRead has no more files deleted, and waits until the collector has closed those that were.
func (x *logTorture) deletedAreRead() {
	x.t.Helper()
	x.deleteFor.Store(0)
	time.Sleep(2 * rotateEvery) // one may be just about to be
	eventually(x.ctx, x.t, 3*rotatedQuiet, "deleted files are read", func() error {
		for _, name := range openIn(x.col.cmd.Process.Pid) {
			if strings.HasPrefix(name, x.dir) && strings.HasSuffix(name, " (deleted)") {
				return errors.New(name)
			}
		}
		return nil
	})
	time.Sleep(2500 * time.Millisecond) // two checkpoints
}

func (x *logTorture) stop() {
	x.t.Helper()
	for _, metric := range []string{"log_records_dropped", "events_dropped", "log_lines_cut", "log_records_invalid", "log_bytes_lost"} {
		for line := range strings.Lines(x.own(metric)) {
			if !strings.HasSuffix(line, " 0\n") {
				x.t.Errorf("start %d: %s", x.starts, line)
			}
		}
	}
	x.col.process.stop(x.t)
}

// own returns the lines of one of the collector's own metrics.
func (x *logTorture) own(metric string) string {
	x.t.Helper()
	b, err := get(x.ctx, "http://"+x.col.own+"/metrics")
	if err != nil {
		x.t.Fatal(err)
	}
	return grep(string(b), "otelcol_ebpf_container_"+metric+"{")
}

// finish waits until all is written.
func (x *logTorture) finish() {
	x.t.Helper()
	_, during := tortureSize()
	eventually(x.ctx, x.t, 4*during+time.Minute, "all is written", func() error {
		if err := x.writers.running(); err != nil {
			x.t.Fatal(err)
		}
		_, err := os.Stat(filepath.Join(x.dir, "done"))
		return err
	})
	x.deleteFor.Store(0)
	x.endRotation()
	x.rotating.Wait()
	var all [3]int
	for _, r := range x.rotators {
		for kind, n := range r.counts {
			all[kind] += n
		}
	}
	x.t.Logf("files were renamed %d times, copied and truncated %d times, deleted %d times", all[0], all[1], all[2])
}

// checkCounts waits until the metrics have come to what was written, and to rest.
func (x *logTorture) checkCounts() {
	x.t.Helper()
	lines, _ := tortureSize()
	want := map[string][2]float64{} // messages and bytes by log, whatever the name of the file was when it was found
	for i := range tortureWriters {
		n := lines / tortureWriters
		want[logOf(x.dir, i)] = [2]float64{float64(n), float64(n * len(tortureLine(i, 0)))}
	}
	var got map[string][2]float64
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && !maps.Equal(want, got); time.Sleep(time.Second) {
		got = x.counted()
	}
	time.Sleep(4 * time.Second) // for what should not come
	if diff := cmp.Diff(want, x.counted()); diff != "" {
		x.t.Errorf("messages and bytes by source (-want +got):\n%s", diff)
	}
}

// counted returns how many messages and bytes each source has.
func (x *logTorture) counted() map[string][2]float64 {
	x.t.Helper()
	body, err := get(x.ctx, "http://"+x.col.target+"/metrics")
	if err != nil {
		x.t.Fatal(err)
	}
	all := map[string][2]float64{}
	for line := range strings.Lines(string(body)) {
		field := slices.IndexFunc([]string{"container_log_messages_total{", "container_log_bytes_total{"}, func(name string) bool {
			return strings.HasPrefix(line, name)
		})
		if field < 0 || !strings.Contains(line, x.who.id) {
			continue
		}
		_, source, _ := strings.Cut(line, `,source="`)
		source, rest, _ := strings.Cut(source, `"`)
		source = source[:strings.LastIndex(source, ".log")+len(".log")]
		v, err := strconv.ParseFloat(strings.Fields(rest[strings.LastIndexByte(rest, '}')+1:])[0], 64)
		if err != nil {
			x.t.Fatal(err)
		}
		sums := all[source]
		sums[field] += v
		all[source] = sums
	}
	return all
}

// checkRecords looks for each line in what all processes have given.
func (x *logTorture) checkRecords() {
	x.t.Helper()
	lines, _ := tortureSize()
	times := make([][]uint8, tortureWriters)
	for i := range times {
		times[i] = make([]uint8, lines/tortureWriters)
	}
	for n := range x.starts {
		x.readRecords(filepath.Join(x.data, fmt.Sprintf("records-%d.json", n+1)), times)
	}
	for i, all := range times {
		lost, twice, first := 0, 0, -1
		for n, k := range all {
			if k == 0 {
				lost++
			} else if k > 1 {
				twice++
			}
			if k != 1 && first < 0 {
				first = n
			}
		}
		if first >= 0 {
			x.t.Errorf("writer %d: of %d lines %d were not given and %d more than once, the first is %d", i, len(all), lost, twice, first)
		}
	}
}

func (x *logTorture) readRecords(name string, times [][]uint8) {
	x.t.Helper()
	f, err := os.Open(name)
	if err != nil {
		x.t.Fatal(err)
	}
	defer f.Close()
	for in := bufio.NewReader(f); ; {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return
		}
		logs, err := (&plog.JSONUnmarshaler{}).UnmarshalLogs(line)
		if err != nil {
			x.t.Fatalf("%s: %v", name, err)
		}
		for _, rl := range logs.ResourceLogs().All() {
			for _, lr := range rl.ScopeLogs().At(0).LogRecords().All() {
				var writer, n int
				text := lr.Body().Str()
				if _, err := fmt.Sscanf(text, "INFO line %d of writer %d", &n, &writer); err != nil || text+"\n" != tortureLine(writer, n) {
					x.t.Errorf("%q: %v", text, err)
					continue
				}
				times[writer][n]++
			}
		}
	}
}

func logOf(dir string, writer int) string {
	return filepath.Join(dir, "logs", fmt.Sprintf("app%d.log", writer))
}

func tortureLine(writer, n int) string {
	return fmt.Sprintf("INFO line %08d of writer %d, which has more to say than its number alone\n", n, writer)
}

// openIn lists what a process has open.
func openIn(pid int) (names []string) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// isOpenIn tells whether a process has the file open that is at path now.
func isOpenIn(pid int, path string) bool {
	return slices.Contains(openIn(pid), path)
}

// TestLogWriters is no test: it is what the container runs.
func TestLogWriters(t *testing.T) {
	dir := os.Getenv(writerEnv)
	if dir == "" {
		t.Skip("runs in the container of another test")
	}
	lines, during := tortureSize()
	for !exists(filepath.Join(dir, "go")) {
		time.Sleep(10 * time.Millisecond)
	}
	mark := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writers := make([]*logWriter, tortureWriters)
	var wg sync.WaitGroup
	for i := range writers {
		w := &logWriter{path: logOf(dir, i), number: i, lines: lines / tortureWriters}
		writers[i] = w
		perTurn := max(1, int(float64(w.lines)*float64(2*time.Millisecond)/float64(during)))
		wg.Go(func() {
			for w.written < w.lines {
				if err := locked(lockOf(dir, i), func() error { return w.write(perTurn) }); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	mark("written")
	for i, w := range writers { // or a collector that starts after this would not know of the log
		if err := locked(lockOf(dir, i), w.reopen); err != nil {
			t.Fatal(err)
		}
	}
	mark("done")
	time.Sleep(time.Hour) // until it is killed: a container that has ended has no metrics
}

// logWriter writes numbered lines to a file, and to another one when that is rotated.
type logWriter struct {
	path           string
	number         int
	f              *os.File
	lines, written int
}

func (w *logWriter) write(lines int) error {
	if err := w.reopen(); err != nil {
		return err
	}
	var b strings.Builder
	for range min(lines, w.lines-w.written) {
		b.WriteString(tortureLine(w.number, w.written))
		w.written++
	}
	_, err := w.f.WriteString(b.String())
	return err
}

func (w *logWriter) reopen() error {
	if w.f != nil {
		mine, err := w.f.Stat()
		if err != nil {
			return err
		}
		if there, err := os.Stat(w.path); err == nil && os.SameFile(mine, there) {
			return nil
		}
		_ = w.f.Close()
	}
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	w.f = f
	return err
}

// rotator rotates the file of a writer, which it is not: what a container writes is a log.
type rotator struct {
	x      *logTorture
	number int
	moved  int
	counts [3]int
}

func (r *rotator) run(ctx context.Context) {
	for round := r.number; ctx.Err() == nil; round++ {
		time.Sleep(rotateEvery)
		err := locked(lockOf(r.x.dir, r.number), func() error { return r.rotate(round % 3) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // not written anew yet
			r.x.t.Error(err)
		}
	}
}

func (r *rotator) rotate(kind int) error {
	if exists(filepath.Join(r.x.dir, "written")) {
		return nil // nobody would write a new file
	}
	path := logOf(r.x.dir, r.number)
	if pid := r.x.deleteFor.Load(); kind == 2 && (pid == 0 || !isOpenIn(int(pid), path)) {
		kind = 0
	}
	to := fmt.Sprintf("%s.%d", path, r.moved+1)
	var err error
	switch kind {
	case 0:
		err = os.Rename(path, to)
	case 1:
		var b []byte
		if b, err = os.ReadFile(path); err == nil {
			err = errors.Join(os.WriteFile(to, b, 0o600), os.Truncate(path, 0))
		}
	default:
		err = os.Remove(path)
	}
	if err == nil {
		r.moved++
		r.counts[kind]++
	}
	return err
}

func lockOf(dir string, writer int) string { return filepath.Join(dir, fmt.Sprintf("lock%d", writer)) }

// locked calls do while no other process does.
func locked(path string, do func() error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	return do()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
