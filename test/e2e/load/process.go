// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// readTruth is what read prints.
type readTruth struct {
	Bytes       int     `json:"bytes"`
	WaitSeconds float64 `json:"wait_seconds"` // for block I/O, 0 while the kernel does not account it
	Seconds     float64 `json:"seconds"`      // that it took
}

func read(file string, out io.Writer) error {
	const size = 4096
	began := time.Now()
	runtime.LockOSThread() // or a thread that is over has a part of the truth
	fd, err := syscall.Open(file, syscall.O_RDONLY|syscall.O_DIRECT|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	defer func() { _ = syscall.Close(fd) }()
	// Past the page cache only what is aligned to a block of the disk can be read.
	space := make([]byte, 2*size)
	offset := size - int(uintptr(unsafe.Pointer(&space[0])))%size
	truth := readTruth{}
	for {
		n, err := syscall.Read(fd, space[offset:offset+size])
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if n == 0 {
			break
		}
		truth.Bytes += n
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Go runs
	// delayacct_blkio_ticks, the 42nd field of all; the first two are cut off.
	wait, err := sumOfThreads("stat", 39, tick)
	if err != nil {
		return err
	}
	truth.WaitSeconds, truth.Seconds = wait.Seconds(), time.Since(began).Seconds()
	return json.NewEncoder(out).Encode(truth)
}

// sumOfThreads sums up one field, counted from 0 behind the name of the thread if there is one, of a file that each
// thread of this process has in /proc.
func sumOfThreads(file string, field int, unit time.Duration) (sum time.Duration, err error) {
	paths, err := filepath.Glob("/proc/self/task/*/" + file)
	if err != nil {
		return 0, err
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		text := string(b)
		if _, behind, ok := strings.Cut(text, ") "); ok {
			text = behind
		}
		fields := strings.Fields(text)
		if field >= len(fields) {
			return 0, fmt.Errorf("%s has %d fields", path, len(fields))
		}
		n, err := strconv.ParseInt(fields[field], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += time.Duration(n) * unit
	}
	if len(paths) == 0 {
		return 0, errors.New("/proc shows no threads of this process")
	}
	return sum, nil
}

// leaderless does what pthread_exit in main does: the process goes on without the thread that gave it its id. SIGTERM
// ends it.
func leaderless(code string) error {
	runtime.LockOSThread()
	if syscall.Gettid() != os.Getpid() { // Go begins in the main thread, but promises nothing
		return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	status, err := strconv.Atoi(code)
	if err != nil {
		return err
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	go func() {
		<-asked
		os.Exit(status)
	}()
	// Not RawSyscall: the runtime must know that this thread does not run Go code.
	_, _, errno := syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
	return errno
}
