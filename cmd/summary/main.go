// SPDX-License-Identifier: Apache-2.0

// Command summary prints what a collector exports about containers as a table for people.
//
// It reads the page of the prometheus exporter, once or again and again, in both identities of the receiver. The
// collector does not need it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const requestTimeout = 5 * time.Second

func main() {
	url := flag.String("url", "http://127.0.0.1:8889/metrics", "page of the collector's prometheus exporter")
	wait := flag.Duration("wait", 15*time.Second, "how long to wait for the first container")
	every := flag.Duration("every", 0, "print again after this time, until the collector ends; 0 prints once")
	rows := flag.Int("rows", 20, "print at most this many containers")
	while := flag.Int("while", 0, "end with the process of this id")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *while != 0 {
		go func() {
			waitForEnd(ctx, *while)
			stop()
		}()
	}
	if err := run(ctx, os.Stdout, *url, *wait, *every, *rows); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(1)
	}
}

// run prints one table, or one each period until ctx ends or the collector no longer answers.
func run(ctx context.Context, out io.Writer, url string, wait, every time.Duration, rows int) error {
	now, err := waitForContainers(ctx, url, wait)
	if err != nil {
		return err
	}
	var before sample
	for {
		if err := printTable(out, before, now, rows); err != nil {
			return err
		}
		if every <= 0 {
			return nil
		}
		if err := sleep(ctx, every); err != nil {
			return err
		}
		before = now
		if now, err = fetch(ctx, url); err != nil {
			return fmt.Errorf("collector no longer answers: %w", err)
		}
	}
}

// waitForContainers returns the first page with a container, or after the deadline the last page or error.
func waitForContainers(ctx context.Context, url string, wait time.Duration) (sample, error) {
	deadline := time.Now().Add(wait)
	for {
		s, err := fetch(ctx, url)
		if err == nil && len(s.containers) > 0 {
			return s, nil
		}
		if ctx.Err() != nil || !time.Now().Before(deadline) {
			return s, err
		}
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			return s, err
		}
	}
}

// waitForEnd returns when the process is gone, or ctx ends.
func waitForEnd(ctx context.Context, pid int) {
	process, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	// A process of another user may not be signalled, but is there.
	for !errors.Is(process.Signal(syscall.Signal(0)), os.ErrProcessDone) {
		if sleep(ctx, 500*time.Millisecond) != nil {
			return
		}
	}
}

func fetch(ctx context.Context, url string) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return sample{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return sample{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return sample{}, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return parse(resp.Body, time.Now())
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
