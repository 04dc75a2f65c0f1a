// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command load is the known load of the end-to-end tests. What it did, it prints as one line of JSON: the truth that
// the collector's numbers are compared with. It is linked statically and runs in containers that have nothing else.
//
//	load serve ADDR...                         accept on each address, read until the client closes
//	load connect -n N [-c C] ADDR              exactly N calls of connect(2), each connection closed at once
//	load connect -n N -hold -send BYTES ADDR   the same, but send BYTES over each connection and keep it open
//	load burn [-cpu D] [-memory BYTES]         use D of CPU time with BYTES of memory resident
//	load read FILE                             read the file from its disk, past the page cache
//	load leaderless N                          the main thread exits at once, another one with status N at SIGTERM
//	load journal SOCKET FILE                   send the entries in the file, with an empty line between two, to journald
//	load enter DIR[:DIR...] COMMAND [ARG...]   move into the cgroups and become COMMAND
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) < 2 {
		return errors.New("usage: load serve|connect|burn|read|leaderless|journal|enter and its arguments")
	}
	switch args[0] {
	case "serve":
		return serve(args[1:], out)
	case "connect":
		return connectCommand(args[1:], out)
	case "burn":
		return burn(args[1:], out)
	case "read":
		return read(args[1], out)
	case "leaderless":
		return leaderless(args[1])
	case "journal":
		return journal(args[1:])
	case "enter":
		return enter(args[1], args[2:])
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// serve says that it listens once all addresses are bound, then runs until it is killed.
func serve(addrs []string, out io.Writer) error {
	errs := make(chan error)
	for _, addr := range addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					errs <- err
					return
				}
				go func() {
					_, _ = io.Copy(io.Discard, conn)
					_ = conn.Close()
				}()
			}
		}()
	}
	fmt.Fprintln(out, "listening on", strings.Join(addrs, " "))
	return <-errs
}

func connectCommand(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("connect", flag.ContinueOnError)
	n := fs.Int("n", 1, "number of connects")
	workers := fs.Int("c", 1, "connects under way at the same time")
	rotate := fs.Bool("rotate", false, "IPv4 loopback only: take the sources 127.0.1.1 to 127.0.1.8 in turn, to spare ports")
	hold := fs.Bool("hold", false, "keep the connections open until killed")
	send := fs.Int("send", 0, "bytes to send over each connection")
	mapped := fs.Bool("mapped", false, "dial the IPv4 address from IPv6 sockets, as ::ffff:a.b.c.d")
	if err := fs.Parse(args); err != nil {
		return err
	}
	d, err := newDialler(fs.Arg(0), *rotate, *mapped)
	if err != nil {
		return err
	}
	d.hold, d.payload = *hold, make([]byte, *send)
	truth, err := d.connectAll(*n, *workers)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(truth); err != nil || !*hold {
		return err
	}
	for {
		time.Sleep(time.Hour)
	}
}

// burnTruth is what burn prints.
type burnTruth struct {
	CPUSeconds   float64 `json:"cpu_seconds"`
	DelaySeconds float64 `json:"delay_seconds"` // waited for a CPU
	Memory       int     `json:"memory"`
}

func burn(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("burn", flag.ContinueOnError)
	want := fs.Duration("cpu", time.Second, "CPU time to use")
	memory := fs.Int("memory", 0, "bytes to keep resident meanwhile")
	if err := fs.Parse(args); err != nil {
		return err
	}
	block := make([]byte, *memory)
	for used := time.Duration(0); used < *want; used = cpuTime() {
		for i := 0; i < len(block); i += 4096 {
			block[i]++
		}
		for i := range 1 << 16 {
			_ = i * i
		}
	}
	delay, err := sumOfThreads("schedstat", 1, time.Nanosecond)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(burnTruth{
		CPUSeconds: cpuTime().Seconds(), DelaySeconds: delay.Seconds(), Memory: len(block),
	})
}

func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func enter(dirs string, command []string) error {
	if len(command) == 0 {
		return errors.New("enter: no command")
	}
	for dir := range strings.SplitSeq(dirs, ":") {
		// "0" is the writer itself.
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
	}
	return syscall.Exec(command[0], command, os.Environ())
}
