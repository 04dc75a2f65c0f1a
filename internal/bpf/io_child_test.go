// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioBuffer is what the child reads into and writes from at once.
const ioBuffer = 1 << 20

// runIOChild is a child that does I/O, says what the kernel has accounted to it, as ioTold, and ends.
func runIOChild(args []string) {
	began := time.Now()
	buf, err := unix.Mmap(-1, 0, ioBuffer, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		failChild(err)
	}
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	switch args[0] {
	case "write", "read": // FILE BYTES HOW
		err = transferFile(args[0], args[1], number(args[2]), args[3], buf)
	case "files": // DIR FILES BYTES HOW
		for i := range number(args[2]) {
			if err == nil {
				err = transferFile("write", filepath.Join(args[1], strconv.Itoa(i)), number(args[3]), args[4], buf)
			}
		}
	case "swap": // BYTES
		err = useSwap(number(args[1]))
	default:
		err = fmt.Errorf("no command %q", args[0])
	}
	if err != nil {
		failChild(err)
	}
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		failChild(err)
	}
	var read, written uint64
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "read_bytes: %d", &read)
		_, _ = fmt.Sscanf(line, "write_bytes: %d", &written)
	}
	fmt.Println(read, written, time.Since(began).Microseconds())
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		failChild(err)
	}
	return n
}

// transferFile reads or writes a file from its begin: "direct", "synced" before it ends, or "lazy", which leaves a write to
// whoever comes later.
func transferFile(verb, name string, size int, how string, buf []byte) error {
	flags := unix.O_CLOEXEC
	if verb == "write" {
		flags |= unix.O_WRONLY | unix.O_CREAT
	}
	if how == "direct" {
		flags |= unix.O_DIRECT
	}
	fd, err := unix.Open(name, flags, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if verb == "read" {
		if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
			return err
		}
	}
	for done := 0; done < size; {
		part := buf[:min(len(buf), size-done)]
		var n int
		if verb == "write" {
			n, err = unix.Write(fd, part)
		} else {
			n, err = unix.Read(fd, part)
		}
		if err != nil || n == 0 {
			return fmt.Errorf("%s %s: %d bytes after %d: %w", verb, name, n, done, err)
		}
		done += n
	}
	if how == "synced" {
		return unix.Fsync(fd)
	}
	return nil
}

// useSwap fills memory, tells where it is, and uses it again after the next line of input.
func useSwap(size int) error {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	for i := range mem {
		mem[i] = byte(i >> 3)
	}
	fmt.Println(uintptr(unsafe.Pointer(&mem[0])))
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	for i := 0; i < size; i += os.Getpagesize() {
		if mem[i] != byte(i>>3) {
			return fmt.Errorf("byte %d is wrong", i)
		}
	}
	return nil
}
