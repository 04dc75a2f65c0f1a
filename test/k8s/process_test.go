// SPDX-License-Identifier: Apache-2.0

//go:build linux

package k8s

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// start runs cmd in the background. The child does not outlive this process. What it wrote last is shown if the test
// fails.
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
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
	}()
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
	case <-time.After(30 * time.Second):
		t.Errorf("%s does not end 30s after SIGTERM", p.name)
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

func (p *process) output(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(p.outputPath)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// tail returns the last lines, long ones shortened.
func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	all = all[max(0, len(all)-lines):]
	for i, line := range all {
		all[i] = line[:min(len(line), 500)]
	}
	return strings.Join(all, "\n")
}

// run runs a command to its end and returns what it printed on stdout.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := output(exec.CommandContext(t.Context(), name, args...))
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

// eventually calls check until it returns nil. It fails the test with check's last error when that takes too long.
func eventually(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; <-tick.C {
		err := check()
		took := time.Since(start)
		if err == nil {
			t.Logf("%s: after %v", what, took.Round(time.Millisecond))
			return
		}
		if took > limit {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
	}
}
