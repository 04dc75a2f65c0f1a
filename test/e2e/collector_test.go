// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const nobody = 65534

// collectorConfig describes a run of the collector: one receiver and one Prometheus exporter for each identity.
type collectorConfig struct {
	identities []string
	interval   time.Duration
	containers []string          // path forms, nothing else is observed
	include    []string          // the same as regular expressions
	sockets    map[string]string // of runtimes to ask for names, by family; no others are asked
	otlp       string            // address of another collector to push the same data and log records to, "" for none
	delays     bool              // switch the kernel's delay accounting on
	network    string            // settings of network
	logs       map[string]string // settings of logs, by identity
	user       uint32            // 0 is root
}

// collector is a running otelcol-custom.
type collector struct {
	process *process
	targets map[string]string // where each identity's metrics are served
	own     string            // where the collector's own metrics are served
}

// collectorBinary returns the path of the built collector: OTELCOL_BIN, or the one in otelcol-custom, which is built
// when it is not there.
func collectorBinary(ctx context.Context, t *testing.T) string {
	t.Helper()
	if path := os.Getenv("OTELCOL_BIN"); path != "" {
		return path
	}
	dir, err := filepath.Abs("../../otelcol-custom")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "otelcol-custom")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	path = filepath.Join(t.TempDir(), "otelcol-custom")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(cmd); err != nil {
		t.Fatal(err)
	}
	return path
}

// startCollector starts the collector and waits until it serves metrics and all its receivers count.
func startCollector(ctx context.Context, t *testing.T, binary string, c collectorConfig) *collector {
	t.Helper()
	col := &collector{targets: map[string]string{}}
	ownPort := freePort(t)
	col.own = fmt.Sprintf("127.0.0.1:%d", ownPort)
	for _, identity := range c.identities {
		col.targets[identity] = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	}
	file := writePublic(t, "config.yaml", c.yaml(col.targets, ownPort))
	began := time.Now()
	col.process = startOtelcol(t, binary, file, c.user)
	for identity, target := range col.targets {
		eventually(ctx, t, 20*time.Second, "collector serves identity "+identity, func() error {
			if err := col.process.running(); err != nil {
				t.Fatal(err)
			}
			_, err := get(ctx, "http://"+target+"/metrics")
			return err
		})
	}
	// Exporters start before receivers, and these one after the other.
	eventually(ctx, t, 20*time.Second, "receivers run", func() error {
		if err := col.process.running(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(col.process.output(t), "Everything is ready") {
			return errors.New("the collector has not said so")
		}
		return nil
	})
	t.Logf("collector: %v from start to ready", time.Since(began).Round(time.Millisecond))
	return col
}

func startOtelcol(t *testing.T, binary, config string, user uint32) *process {
	t.Helper()
	cmd := exec.Command(binary, "--config", config)
	if user != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	}
	return start(t, "collector", cmd)
}

func (c collectorConfig) yaml(targets map[string]string, ownPort int) string {
	var receivers, exporters, pipelines, include, sockets strings.Builder
	for _, name := range c.containers {
		fmt.Fprintf(&include, "'^%s$', ", strings.ReplaceAll(name, ".", `\.`))
	}
	for _, pattern := range c.include {
		fmt.Fprintf(&include, "'%s', ", pattern)
	}
	for _, family := range []string{"docker", "podman", "cri", "containerd", "systemd"} {
		fmt.Fprintf(&sockets, "%s: [%s], ", family, c.sockets[family])
	}
	for _, identity := range c.identities {
		fmt.Fprintf(&receivers, `
  ebpf_container/%s:
    identity: %s
    collection_interval: %v
    delays: {enable_accounting: %t}
    runtimes: {sockets: {%s}}
    containers: {include: [%s]}
    network: {%s}
    logs: {%s}`, identity, identity, c.interval, c.delays, sockets.String(), include.String(), c.network, c.logs[identity])
		fmt.Fprintf(&exporters, `
  prometheus/%s:
    endpoint: %s
    resource_to_telemetry_conversion: {enabled: true}
    without_scope_info: true`, identity, targets[identity])
		to := "prometheus/" + identity
		if c.otlp != "" {
			to += ", otlp_grpc"
			fmt.Fprintf(&pipelines, `
    logs/%s: {receivers: [ebpf_container/%s], exporters: [otlp_grpc]}`, identity, identity)
		}
		fmt.Fprintf(&pipelines, `
    metrics/%s: {receivers: [ebpf_container/%s], exporters: [%s]}`, identity, identity, to)
	}
	if c.otlp != "" {
		fmt.Fprintf(&exporters, "\n  otlp_grpc: {endpoint: %q, tls: {insecure: true}}", c.otlp)
	}
	return fmt.Sprintf("receivers:%s\nexporters:%s\nservice:\n  telemetry: %s\n  pipelines:%s\n",
		receivers.String(), exporters.String(), ownTelemetry(ownPort), pipelines.String())
}

// wantNoLoss fails the test unless these of the collector's own metrics are 0 for each of its receivers.
func (c *collector) wantNoLoss(ctx context.Context, t *testing.T, metrics ...string) {
	t.Helper()
	own, err := get(ctx, "http://"+c.own+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, metric := range metrics {
		zeros := 0
		lines := grep(string(own), "otelcol_ebpf_container_"+metric+"{")
		for line := range strings.Lines(lines) {
			if strings.HasSuffix(line, " 0\n") {
				zeros++
			}
		}
		if zeros != len(c.targets) {
			t.Errorf("the collector's own metrics of %s: %q, want 0 for each receiver", metric, lines)
		}
	}
}

// ownTelemetry is the collector's part of a configuration about itself: log lines in JSON and, unless port is 0, its
// own metrics.
func ownTelemetry(port int) string {
	metrics := "{level: none}"
	if port != 0 {
		metrics = fmt.Sprintf("{readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: %d}}}}]}", port)
	}
	return "{logs: {encoding: json}, metrics: " + metrics + "}"
}

// writePublic writes a file that every user can read, unlike those in t.TempDir.
func writePublic(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(publicDir(t), name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ebpfcontainer-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
