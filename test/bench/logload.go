// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// failures of the load. Each has two numbers in it that are never the same.
var failures = [...]string{
	"cannot reach inventory shard %d: no answer in %d ms", "order %d was rejected by the gateway with code %d",
	"queue %d is full, dropped %d jobs", "tenant %d has used %d requests of its quota",
	"disk of replica %d is late by %d us", "certificate %d expires in %d hours", "checksum of segment %d differs at offset %d",
	"lease %d was lost after %d renewals", "cannot parse message %d at byte %d", "session %d was closed by its peer after %d s",
	"lock %d is held for %d ms", "upstream %d answered with status %d", "snapshot %d has %d records too few",
	"cache %d is cold, %d misses", "job %d failed in attempt %d", "volume %d has %d MB left", "leader %d was not seen for %d ms",
	"partition %d is behind by %d records", "probe %d gave up after %d tries", "batch %d has %d bad rows",
}

// logWords are of the mix: what a service logs (80 % info, 10 % warnings, 8 % errors, 2 % stack traces of four lines), or one
// level alone.
func logMessage(mix string, i int) (level, text string) {
	level = "INFO"
	switch k := i % 50; {
	case mix == "error":
		level = "ERROR"
	case mix != "mixed" || k < 40:
	case k < 45:
		level = "WARN"
	case k < 49:
		level = "ERROR"
	default:
		return "TRACE", fmt.Sprintf("ERROR [pool-%d] job %d ended unexpectedly\n    at com.example.Work.run(Work.java:17)\n"+
			"    at com.example.Pool.next(Pool.java:93)\n    at java.lang.Thread.run(Thread.java:750)\n", i%16, i)
	}
	if level == "INFO" {
		return level, fmt.Sprintf("INFO [pool-%d] served request id=%08x status=200 in %d ms\n", i%16, uint32(i)*2654435761, i%300)
	}
	return level, fmt.Sprintf(level+" [pool-%d] "+failures[i%len(failures)]+"\n", i%16, i, i%1000)
}

// writeLog writes a log as args say, FILE LINES MIX RATE, and then tells what it was. The file is held open until the input ends.
func writeLog(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 4 {
		return errors.New("usage: bench log FILE LINES MIX RATE")
	}
	lines, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	rate, err := strconv.ParseFloat(args[3], 64)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(args[0], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	begin := time.Now()
	said := wrote{Counts: map[string]int{}}
	for said.Lines < lines {
		i := said.Messages
		level, text := logMessage(args[2], i)
		n, err := w.WriteString(begin.Add(time.Duration(i)*time.Millisecond).UTC().Format("2006-01-02T15:04:05.000Z ") + text)
		if err != nil {
			return err
		}
		said.Lines++
		if level == "TRACE" {
			said.Lines += 3
		}
		said.Messages++
		said.Bytes += n
		said.Counts[level]++
		if said.Messages%64 != 0 {
			continue
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if rate > 0 {
			time.Sleep(time.Until(begin.Add(time.Duration(float64(said.Lines) / rate * float64(time.Second)))))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	said.Seconds = time.Since(begin).Seconds()
	if err := json.NewEncoder(out).Encode(said); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// runProgram becomes another program.
func runProgram(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: bench run PROGRAM ARGS")
	}
	return unix.Exec(args[0], args, os.Environ())
}
