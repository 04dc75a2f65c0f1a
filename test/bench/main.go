// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command bench measures what it costs to watch TCP connections, processes and logs, and whether all is counted. It needs
// root, an otherwise quiet machine, and the built collector.
//
//	bench tcp [FLAGS]     the same load with and without the collector in turn, and the cost of each kernel program
//	bench delay [FLAGS]   delays of processes that end between two collections, storms of exits, and what they cost
//	bench scale [FLAGS]   many open connections and many destinations
//	bench logs [FLAGS]    a million lines of a log, from its file to the page
//
// It makes containers for itself: cgroups that look like Docker's, and a network namespace without a way out. Both are
// gone when it ends. docs/performance.md has what it said. The other words are its own children:
//
//	bench enter CGROUPS NETNS WORD...   move there and become the word
//	bench serve ADDR                    echo
//	bench connect [FLAGS] ADDR CLOSED   short connections
//	bench accept PORT                   accept and keep
//	bench hold                          open and keep
//	bench log FILE LINES MIX RATE       write a log
//	bench run PROGRAM ARGS...           become another program
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("usage: bench tcp|delay|scale|logs [-help]")
	}
	switch word, args := args[0], args[1:]; word {
	case "tcp":
		return benchTCP(ctx, args, out)
	case "delay":
		return benchDelay(ctx, args, out)
	case "scale":
		return benchScale(ctx, args, out)
	case "logs":
		return benchLogs(ctx, args, out)
	case "enter":
		return enter(args)
	case "serve":
		return serve(args, in, out)
	case "connect":
		return connect(args, out)
	case "accept":
		return accept(args, in, out)
	case "log":
		return writeLog(args, in, out)
	case "run":
		return runProgram(args)
	case "hold":
		return hold(in, out)
	default:
		return fmt.Errorf("unknown word %q", word)
	}
}
