// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a child that runs until it is stopped, at the latest when the test ends.
type process struct {
	name       string
	cmd        *exec.Cmd
	outputPath string        // stdout and stderr
	done       chan struct{} // closed once it has ended
}

// start runs cmd in the background; it must not be bound to the test's context, which ends before the cleanup begins. The
// child does not outlive this process. What it wrote is shown if the test fails.
func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, outputPath: filepath.Join(t.TempDir(), name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.outputPath)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }() // the child has its own
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	go func() {
		defer close(p.done)
		// The signal comes when the thread ends that started the child. Those of other goroutines may.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("%s wrote:\n%s", name, tail(p.output(t), 20))
		}
	})
	return p
}

// stop asks the process to end, then makes it.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return
	case <-time.After(10 * time.Second):
		t.Errorf("%s does not end 10s after SIGTERM", p.name)
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// running returns an error that tells how the process ended, or nil while it runs.
func (p *process) running() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %v", p.name, p.cmd.ProcessState)
	default:
		return nil
	}
}

// wait returns when the process has ended by itself.
func (p *process) wait(ctx context.Context, t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
	case <-ctx.Done():
		t.Fatalf("%s: %v", p.name, ctx.Err())
	}
}

func (p *process) output(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(p.outputPath)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// grep returns the lines that contain word.
func grep(s, word string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if strings.Contains(line, word) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// run runs a command to its end and returns what it printed on stdout.
func run(ctx context.Context, t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := output(exec.CommandContext(ctx, name, args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// output is cmd.Output with the command and its stderr in the error.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// freePort returns a TCP port of 127.0.0.1 and ::1 on which nobody listens, outside the ephemeral range, which the
// collector does not take for a service.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(10000)
		if free("127.0.0.1", port) && free("::1", port) {
			return port
		}
	}
	t.Fatal("no free port found")
	return 0
}

func free(host string, port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
		return true // a host without IPv6
	}
	return err == nil && l.Close() == nil
}

// connectTruth, burnTruth and readTruth are what the load prints.
type connectTruth struct {
	Destination string `json:"destination"`
	Connected   int64  `json:"connected"`
	Refused     int64  `json:"refused"`
}

type burnTruth struct {
	CPUSeconds   float64 `json:"cpu_seconds"`
	DelaySeconds float64 `json:"delay_seconds"` // waited for a CPU
	Memory       float64 `json:"memory"`
}

type readTruth struct {
	Bytes       int     `json:"bytes"`
	WaitSeconds float64 `json:"wait_seconds"` // for block I/O
	Seconds     float64 `json:"seconds"`      // that it took
}

// buildLoad builds the load program and returns its path.
func buildLoad(ctx context.Context, t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "load")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", out, "./load")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(cmd); err != nil {
		t.Fatal(err)
	}
	return out
}

// truths decodes the lines of JSON that the load printed, in order.
func truths[T any](t *testing.T, out string) []T {
	t.Helper()
	var all []T
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var one T
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("load printed %q: %v", line, err)
		}
		all = append(all, one)
	}
	return all
}
