// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openReader(t testing.TB) *Reader {
	t.Helper()
	needTaskstats(t)
	r, err := OpenReader()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestReader(t *testing.T) {
	r := openReader(t)
	self, err := r.Thread(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if self.PID != uint32(os.Getpid()) || self.Group || int(self.PPID) != os.Getppid() || !self.Delays.CPU.OK || self.Elapsed <= 0 {
		t.Errorf("thread: %+v", self)
	}
	group, err := r.Group(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if group.PID != uint32(os.Getpid()) || group.TGID != group.PID || !group.Group || group.Delays.CPU.Time < self.Delays.CPU.Time {
		t.Errorf("group: %+v, first thread: %+v", group, self)
	}
}

func TestReaderOfTheGone(t *testing.T) {
	r := openReader(t)
	needShell(t)
	cmd := exec.Command("sh", "-c", ":")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func(int) (Stats, error){"thread": r.Thread, "group": r.Group} {
		for _, id := range []int{cmd.Process.Pid, 0, -1} {
			if _, err := ask(id); !errors.Is(err, ErrGone) {
				t.Errorf("%s %d: %v", name, id, err)
			}
		}
	}
	if _, err := r.Thread(os.Getpid()); err != nil { // the answers before have all been taken
		t.Error(err)
	}
}

func TestReaderByMany(t *testing.T) {
	r := openReader(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				s, err := r.Thread(unix.Gettid())
				if err != nil || s.PID == 0 {
					t.Errorf("%+v, %v", s, err)
				}
			}
		})
	}
	wg.Wait()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Thread(os.Getpid()); err == nil {
		t.Error("answers after Close")
	}
}

func BenchmarkReader(b *testing.B) {
	r := openReader(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Thread(os.Getpid()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReceive is what 2,000 processes that end each second cost the receiver.
func BenchmarkReceive(b *testing.B) {
	needTaskstats(b)
	needShell(b)
	l, err := Listen(Options{})
	if err != nil {
		b.Fatal(err)
	}
	const atOnce = 40
	rounds := b.N/atOnce + 1
	cmd := exec.Command("sh", "-c", fmt.Sprintf(
		"r=0; while [ $r -lt %d ]; do i=0; while [ $i -lt %d ]; do (exit 7); i=$((i+1)); done; r=$((r+1)); sleep 0.0125; done", rounds, atOnce))
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	shell := uint32(cmd.Process.Pid)
	n := 0
	done := make(chan error)
	go func() {
		done <- l.Receive(func(e *Exit) {
			if e.PPID == shell && e.Status == 7<<8 {
				n++
			}
		})
	}()
	before := cpuTime()
	err = cmd.Wait()
	time.Sleep(50 * time.Millisecond)
	used := cpuTime() - before
	if err := errors.Join(err, l.Close(), <-done); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(used)/float64(n), "cpu-ns/record")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(rounds*atOnce-n), "missed")
	b.ReportMetric(float64(l.Lost()), "lost")
}

func cpuTime() time.Duration {
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
