// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// collectorConfig is what differs between the benches; what is zero is as by default.
type collectorConfig struct {
	binary          string
	dir             string // for its files
	interval        time.Duration
	containers      []*container // nothing else is observed
	maxEdges        int
	maxDestinations int
	noRTT           bool
	logs            string // directory of log files
}

// collector is a running otelcol-custom.
type collector struct {
	cmd              *exec.Cmd
	page, own, pprof string // addresses
}

// startCollector waits until the collector serves a first collection. stop must be called unless there is an error.
func startCollector(ctx context.Context, c collectorConfig) (*collector, error) {
	col := &collector{}
	for _, addr := range []*string{&col.page, &col.own, &col.pprof} {
		var err error
		if *addr, err = freeAddr(); err != nil {
			return nil, err
		}
	}
	file, log := filepath.Join(c.dir, "collector.yaml"), filepath.Join(c.dir, "collector.log")
	if err := os.WriteFile(file, []byte(c.yaml(col)), 0o600); err != nil {
		return nil, err
	}
	w, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	col.cmd = exec.CommandContext(ctx, c.binary, "--config", file)
	col.cmd.Stdout, col.cmd.Stderr = w, w
	bound(col.cmd)
	if err := col.cmd.Start(); err != nil {
		return nil, err
	}
	err = eventually(ctx, time.Minute, 20*time.Millisecond, func() error {
		n, err := col.collections(ctx)
		if err == nil && n == 0 {
			err = errors.New("no collection yet")
		}
		return err
	})
	if err != nil {
		col.stop()
		said, _ := os.ReadFile(log)
		return nil, fmt.Errorf("start the collector: %w; it said:\n%s", err, said)
	}
	return col, nil
}

func (c *collectorConfig) yaml(col *collector) string {
	var b strings.Builder
	fmt.Fprintf(&b, "receivers:\n  ebpf_container:\n    collection_interval: %v\n    timeout: 1m\n", c.interval)
	if c.maxEdges > 0 {
		fmt.Fprintf(&b, "    network: {max_edges: %d, max_destinations_per_container: %d}\n", c.maxEdges, c.maxDestinations)
	}
	if c.noRTT {
		fmt.Fprintf(&b, "    metrics: {container.net.tcp.rtt: {enabled: false}}\n")
	}
	if c.logs == "" {
		fmt.Fprintf(&b, "    logs: {enabled: false}\n")
	} else {
		fmt.Fprintf(&b, "    logs: {roots: [%s], journal: false}\n", c.logs)
	}
	fmt.Fprintf(&b, "    containers:\n      include:\n")
	for _, one := range c.containers {
		fmt.Fprintf(&b, "        - '^%s$'\n", one.path())
	}
	host, port, _ := net.SplitHostPort(col.own)
	fmt.Fprintf(&b, `extensions:
  pprof: {endpoint: %s}
exporters:
  prometheus:
    endpoint: %s
    resource_to_telemetry_conversion: {enabled: true}
    without_scope_info: true
    write_timeout: 5m # a page of all that some benches make takes longer than the usual 30 s
service:
  extensions: [pprof]
  telemetry:
    metrics: {readers: [{pull: {exporter: {prometheus: {host: %s, port: %s}}}}]}
  pipelines:
    metrics: {receivers: [ebpf_container], exporters: [prometheus]}
`, col.pprof, col.page, host, port)
	return b.String()
}

// freeAddr is an address of this host on which nobody listens, outside the range of the kernel's own choice.
func freeAddr() (string, error) {
	for range 100 {
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", errors.New("no free port found")
}

func (c *collector) pid() int { return c.cmd.Process.Pid }

func (c *collector) cpu() (time.Duration, error) { return cpuOf(c.pid()) }

// stop lets the collector end by itself: its programs are then detached when it is gone.
func (c *collector) stop() {
	_ = c.cmd.Process.Signal(os.Interrupt)
	end := time.AfterFunc(10*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer end.Stop()
	_ = c.cmd.Wait()
}

// rss gives the resident memory in bytes, and the most that it ever was.
func (c *collector) rss() (now, most int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		name, value, _ := strings.Cut(line, ":")
		_, _ = fmt.Sscan(value, &kb)
		switch name {
		case "VmRSS":
			now = kb << 10
		case "VmHWM":
			most = kb << 10
		}
	}
	return now, most, nil
}

// collections is how many collections were made.
func (c *collector) collections(ctx context.Context) (int, error) {
	sums, err := c.sumOwn(ctx)
	return int(sums[ownDuration+`_count{phase="build"}`]), err
}

const ownDuration = "otelcol_ebpf_container_scrape_duration"

// losses are the collector's own counters that must stay zero.
var losses = []string{
	"otelcol_ebpf_container_edges_folded", "otelcol_ebpf_container_edges_unaccounted",
	"otelcol_ebpf_container_listeners_folded", "otelcol_ebpf_container_events_lost",
}

// sumOwn reads the collector's own metrics by name, those with a phase or a map by that as well.
func (c *collector) sumOwn(ctx context.Context) (map[string]float64, error) {
	sums := map[string]float64{}
	page, err := get(ctx, c.own, "/metrics", "")
	if err != nil {
		return sums, err
	}
	eachSample(page, func(name, labels string, value float64) {
		if !strings.HasPrefix(name, "otelcol_ebpf_container_") {
			return
		}
		name = strings.TrimSuffix(name, "_total")
		for _, by := range []string{"phase", "map"} {
			if v, ok := labelOf(labels, by); ok {
				name += fmt.Sprintf("{%s=%q}", by, v)
			}
		}
		sums[name] += value
	})
	return sums, nil
}

// series are some samples of a container: those with a label of this value.
type series struct {
	of                *container
	name, label, with string
}

// sumPage adds up what is served of some series.
func (c *collector) sumPage(ctx context.Context, all []series) ([]float64, error) {
	page, err := get(ctx, c.page, "/metrics", "")
	if err != nil {
		return nil, err
	}
	sums := make([]float64, len(all))
	eachSample(page, func(name, labels string, value float64) {
		for i, s := range all {
			if name != s.name || !strings.Contains(labels, s.of.id) {
				continue
			}
			if with, _ := labelOf(labels, s.label); with == s.with {
				sums[i] += value
			}
		}
	})
	return sums, nil
}

// get reads one resource as it comes, in an encoding.
func get(ctx context.Context, addr, path, encoding string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return nil, err
	}
	if encoding != "" {
		req.Header.Set("Accept-Encoding", encoding)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s%s: %s: %.500s", addr, path, resp.Status, body)
	}
	return body, err
}
