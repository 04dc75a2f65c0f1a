// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// writer is a process inside a cgroup that writes to files.
type writer struct{ *program }

func startWriter(t testing.TB, c cgroup) writer {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", c.dirs...)
	cmd.Env = append(os.Environ(), childEnv+"=files")
	w := writer{startProgram(t, cmd)}
	w.line()
	return w
}

// do has the writer do something, and gives how long it took.
func (w writer) do(args ...any) time.Duration {
	w.t.Helper()
	words := strings.TrimSuffix(fmt.Sprintln(args...), "\n")
	if _, err := io.WriteString(w.in, words+"\n"); err != nil {
		w.t.Fatal(err)
	}
	answer := w.line()
	took, err := strconv.ParseInt(answer, 10, 64)
	if err != nil {
		w.t.Fatalf("%s: %s", words, answer)
	}
	return time.Duration(took)
}

// runFileChild is the child's side: it enters the cgroups and answers each command with the nanoseconds that it took, or an error.
func runFileChild(cgroups []string, in io.Reader, out io.Writer) {
	for _, dir := range cgroups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			failChild(err)
		}
	}
	fmt.Fprintln(out, "ready")
	for sc := bufio.NewScanner(in); sc.Scan(); {
		words := strings.Fields(sc.Text())
		began := time.Now()
		if err := useFile(words[0], words[1], words[2:]); err != nil {
			fmt.Fprintln(out, err)
			continue
		}
		fmt.Fprintln(out, time.Since(began).Nanoseconds())
	}
}

func useFile(verb, name string, args []string) error {
	switch verb {
	case "append": // BYTES, at once
		return appendTo(name, make([]byte, number(args[0])))
	case "read":
		_, err := os.ReadFile(name)
		return err
	case "chmod":
		return os.Chmod(name, 0o600)
	case "rename": // NEW
		return os.Rename(name, args[0])
	case "map":
		return writeMapped(name)
	case "unnamed":
		return writeUnnamed(name)
	case "many": // FILES SUFFIX EVERY: in a directory, each EVERYth of which has the suffix; few of them stay
		return writeMany(name, number(args[0]), args[1], number(args[2]))
	case "small": // WRITES BYTES, one after the other
		return writeSmall(name, number(args[0]), number(args[1]))
	}
	return fmt.Errorf("no command %q", verb)
}

func appendTo(name string, b []byte) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, b)
	return errors.Join(err, unix.Close(fd))
}

func writeMapped(name string) error {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	m, err := unix.Mmap(fd, 0, 1, unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m[0]++
	return unix.Munmap(m)
}

func writeUnnamed(name string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := os.Remove(name); err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte("gone"))
	return err
}

// writeMany removes a file when staying others have been made after it: the inode that comes free is taken again, and of 20,000 files
// with one inode two have the same generation in every twentieth run, as it is a random number of 32 bits.
func writeMany(dir string, n int, suffix string, every int) error {
	const staying = 200
	nameOf := func(i int) string {
		name := filepath.Join(dir, strconv.Itoa(i))
		if i%every == 0 {
			name += suffix
		}
		return name
	}
	for i := range n {
		if err := appendTo(nameOf(i), []byte("line\n")); err != nil {
			return err
		}
		if i < staying {
			continue
		}
		if err := unix.Unlink(nameOf(i - staying)); err != nil {
			return err
		}
	}
	return nil
}

func writeSmall(name string, n, size int) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_TRUNC|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b := make([]byte, size)
	for range n {
		if _, err := unix.Write(fd, b); err != nil {
			return err
		}
	}
	return nil
}
