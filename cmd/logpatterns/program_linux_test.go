// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// program is the test binary as the program.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

func exitCode(err error) int {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

func TestInterruptPrintsWhatThereIs(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.json")
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, file string }{{"standard input", "-"}, {"fifo", fifo}} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := program(t, "-state", state, "-format", "tsv", "-online", tt.file)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var in io.WriteCloser = stdin
			if tt.file != "-" {
				if in, err = os.OpenFile(fifo, os.O_WRONLY, 0); err != nil {
					t.Fatal(err)
				}
			}
			defer in.Close()
			if _, err := io.WriteString(in, shop); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(stdout, make([]byte, 10)); err != nil { // it has begun
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, stdout)
			if code := exitCode(cmd.Wait()); code != exitInterrupted {
				t.Errorf("got exit code %d, want %d", code, exitInterrupted)
			}
			if _, err := os.Stat(state); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBrokenPipeIsQuietAndTheStateSaved(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.json")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd := program(t, "-state", state)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(shop), w, &stderr
	if err := cmd.Run(); err != nil || stderr.String() != "" {
		t.Errorf("got %v, %q", err, stderr.String())
	}
	if _, err := os.Stat(state); err != nil {
		t.Error(err)
	}
}

// pseudoTerminal returns both sides of a terminal of some columns.
func pseudoTerminal(t *testing.T, columns uint16) (far, near *os.File) {
	t.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudo terminals:", err)
	}
	t.Cleanup(func() { far.Close() })
	if err := unix.IoctlSetPointerInt(int(far.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(far.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	near, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminals:", err)
	}
	t.Cleanup(func() { near.Close() })
	if err := unix.IoctlSetWinsize(int(near.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	return far, near
}

func TestTerminalHasColorsAndItsWidth(t *testing.T) {
	const head = "1 line, 1 pattern\r\nCOUNT   SHARE  LEVEL  PATTERN\r\n    1  100.0%  "
	for _, tt := range []struct {
		name, noColor string
		args          []string
		want          string
	}{
		{"colors", "", nil, "\x1b[31merror\x1b[0m  the file \x1b[2m<*>\x1b[0m could no…\r\n"},
		{"NO_COLOR", "1", nil, "error  the file <*> could no…\r\n"},
		{"never", "", []string{"-color", "never"}, "error  the file <*> could no…\r\n"},
		{"wide", "1", []string{"-wide"}, "error  the file <*> could not be opened\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NO_COLOR", tt.noColor)
			t.Setenv("TERM", "xterm")
			far, near := pseudoTerminal(t, 44)
			code := run(t.Context(), tt.args, strings.NewReader("ERROR the file /tmp/x could not be opened\n"), near, io.Discard)
			got := make([]byte, 4096)
			n, err := far.Read(got)
			if err != nil || code != exitOK {
				t.Fatal(code, err)
			}
			if diff := cmp.Diff(head+tt.want, string(got[:n])); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestProgressGoesAgain(t *testing.T) {
	far, near := pseudoTerminal(t, 40)
	p := newProgress(near, false)
	p.next = time.Time{}
	p.step("access.log", progressLines, 3<<20, 12<<20)
	p.clear()
	want := "\r\x1b[K512 lines, access.log: 3 MiB (25%)\r\x1b[K"
	got := make([]byte, len(want))
	if n, err := io.ReadFull(far, got); err != nil || string(got) != want {
		t.Errorf("got %q (%v), want %q", got[:n], err, want)
	}
}
