// SPDX-License-Identifier: Apache-2.0

// Command logpatterns prints the patterns of logs: the lines that differ only in their values, as one, with how many there are.
//
// It reads files or its standard input, and finds in them what the receiver finds in the logs of containers. The collector does
// not need it.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ebpfcontainer/ebpfcontainer/internal/logpatterns"
)

// Exit codes.
const (
	exitOK          = 0
	exitTrouble     = 1 // an input, the output or the state; what could be read is printed
	exitUsage       = 2
	exitInterrupted = 130 // as shells have it; what was read until then is printed
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)   // a second signal ends it at once
	signal.Ignore(syscall.SIGPIPE) // it shows as an error of a write, so that the state is saved nevertheless
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// options are what the command line says.
type options struct {
	format      string
	color       string
	minLevel    logpatterns.Level
	state       string
	top         int
	maxPatterns int
	online      bool
	content     bool
	wide        bool
	files       []string
}

const usage = `usage: logpatterns [flags] [file...]

Prints the patterns of the lines of files ("-" or none: of the standard input), the most frequent first. A stack trace is one
message with the line before it, and has the pattern of the line that tells what it is. What gzip has packed is unpacked. Ends
with 1 if a file could not be read, with 2 for a wrong flag, with 130 after an interrupt.

`

// errUsage is the error of a command line about which the user was told.
var errUsage = errors.New("usage")

// parseFlags reads the command line. Its error is flag.ErrHelp, or errUsage.
func parseFlags(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("logpatterns", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.format, "format", "table", "`table`, json, or tsv: for each line its number and the id of its pattern, - for none")
	fs.StringVar(&o.color, "color", "auto", "colour by level: `auto` (on a terminal, unless NO_COLOR is set), always or never")
	fs.StringVar(&o.state, "state", "", "go on from what this `file` has, if it is there, and save to it")
	fs.IntVar(&o.top, "n", 0, "give only this many patterns in table and json; 0 gives all")
	fs.IntVar(&o.maxPatterns, "max-patterns", 20000, "keep at most this many patterns; lines of others are counted by level alone")
	fs.BoolVar(&o.online, "online", false, "with tsv: give each line the pattern that its message has when it is read, not the one that it has at the end")
	fs.BoolVar(&o.content, "content", false, "each line is a message, without time, level or anything else of a logger around it")
	fs.BoolVar(&o.wide, "wide", false, "do not cut patterns to the width of the terminal")
	fs.Func("min-level", "count, and with tsv give, only lines of this `level` and above: debug, info, warning, error, critical", func(s string) (err error) {
		o.minLevel, err = parseLevel(s)
		return err
	})
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, errUsage
	}
	o.files = fs.Args()
	if len(o.files) == 0 {
		o.files = []string{stdinName}
	}
	wrong := ""
	switch {
	case o.format != "table" && o.format != "json" && o.format != "tsv":
		wrong = fmt.Sprintf("-format %q: want table, json or tsv", o.format)
	case o.color != "auto" && o.color != "always" && o.color != "never":
		wrong = fmt.Sprintf("-color %q: want auto, always or never", o.color)
	case o.online && o.format != "tsv":
		wrong = "-online needs -format tsv"
	case o.maxPatterns < 1:
		wrong = "-max-patterns must be 1 or more"
	case o.top < 0:
		wrong = "-n must be 0 or more"
	}
	if wrong != "" {
		fmt.Fprintln(stderr, "logpatterns:", wrong)
		return o, errUsage
	}
	return o, nil
}

func parseLevel(s string) (logpatterns.Level, error) {
	s = strings.ToLower(s)
	switch s {
	case "warn":
		return logpatterns.LevelWarning, nil
	case "fatal":
		return logpatterns.LevelCritical, nil
	}
	for level := range logpatterns.NumLevels {
		if s == level.String() {
			return level, nil
		}
	}
	return 0, errors.New("no such level")
}

// run is the program; it returns the exit code. When ctx ends, the input does.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	}
	miner := logpatterns.New(logpatterns.Options{MaxPatterns: o.maxPatterns, MaxPatternsPerLevel: o.maxPatterns, MaxSkeletons: o.maxPatterns})
	if o.state != "" {
		if err := restore(miner, o.state); err != nil {
			fmt.Fprintln(stderr, "logpatterns:", err)
			return exitTrouble
		}
	}
	code := exitOK
	trouble := func(err error) {
		if err != nil && !errors.Is(err, syscall.EPIPE) { // nobody wants to read more: no trouble
			fmt.Fprintln(stderr, "logpatterns:", err)
			code = exitTrouble
		}
	}
	out := bufio.NewWriterSize(stdout, 64<<10)
	t := &tally{miner: miner, content: o.content, firsts: newFirsts(4 * o.maxPatterns)}
	var messages spool
	defer messages.close()
	switch {
	case o.online:
		t.each = func(m message, p logpatterns.Pattern) error { return printLines(out, m, o.minLevel, p) }
	case o.format == "tsv":
		t.each = func(m message, _ logpatterns.Pattern) error { return messages.add(m) }
	}
	err = t.readAll(ctx, o, stdin, out, stderr, trouble)
	miner.Learn()
	if o.state != "" {
		trouble(save(miner, o.state))
	}
	if err == nil {
		err = printAll(out, stdout, o, t, &messages, ctx.Err() != nil)
	}
	trouble(err)
	if code == exitOK && ctx.Err() != nil {
		code = exitInterrupted
	}
	return code
}

// printAll writes what was found in the form that was asked for.
func printAll(out *bufio.Writer, stdout io.Writer, o options, t *tally, messages *spool, interrupted bool) error {
	var err error
	switch {
	case o.online:
	case o.format == "tsv":
		err = printSpool(out, t.miner, messages, o.minLevel)
	case o.format == "json":
		err = printJSON(out, newReport(t, o.minLevel, interrupted), o.top)
	default:
		err = printTable(out, newReport(t, o.minLevel, interrupted), o.top, styleOf(stdout, o))
	}
	if err != nil {
		return err
	}
	return asOutput(out.Flush())
}
