// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestWithoutPrivileges starts the collector as nobody: it says what is off, and delivers the rest.
func TestWithoutPrivileges(t *testing.T) {
	requireRoot(t, "prometheus") // to make a cgroup, and to become nobody
	ctx := testContext(t)
	load := buildLoad(ctx, t)
	who := dockerContainer(containerID("unprivileged"))
	command := makeCgroup(t, who.path).inside(load, "/bin/sh", "-ec", load+" burn -cpu 500ms; exec sleep 600")
	p := start(t, "burn", exec.Command(command[0], command[1:]...))

	binary := filepath.Join(publicDir(t), "otelcol-custom")
	copyProgram(t, collectorBinary(ctx, t), binary)
	col := startCollector(ctx, t, binary, collectorConfig{
		identities: []string{"semconv"}, interval: time.Second, containers: []string{who.path}, user: nobody,
	})
	prom := startPrometheus(ctx, t, col.targets)
	eventually(ctx, t, 10*time.Second, "load is done", func() error {
		if len(truths[burnTruth](t, p.output(t))) == 0 {
			return errors.New("nothing printed")
		}
		return nil
	})

	sel := identities(t)[0].selector(who)
	eventually(ctx, t, 10*time.Second, "CPU time", func() error {
		got, err := prom.value(ctx, fmt.Sprintf("container_resources_cpu_usage_seconds_total{%s}", sel))
		if err == nil && got < 0.5 {
			err = fmt.Errorf("%v CPU seconds", got)
		}
		return err
	})
	if err := prom.wantValue(ctx, fmt.Sprintf("container_resources_memory_rss_bytes{%s} > bool 0", sel), 1); err != nil {
		t.Error(err)
	}
	// No numbers at all rather than zeros.
	if all, err := prom.query(ctx, "{__name__=~'container_net_.+'}"); err != nil || len(all) > 0 {
		t.Errorf("network metrics without the network part: %v %v", all, err)
	}
	checkOneWarning(t, col.process.output(t))
	own, err := get(ctx, "http://"+col.own+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	const off = `otelcol_ebpf_container_feature_enabled{feature="network",reason="permission",receiver="ebpf_container/semconv"} 0`
	if !strings.Contains(string(own), off) {
		t.Errorf("no %s in the collector's own metrics:\n%s", off, grep(string(own), "feature_enabled"))
	}
}

// checkOneWarning fails the test unless there is exactly one log line of level warn or above, and it says that the
// network part is off and that privileges are the reason.
func checkOneWarning(t *testing.T, log string) {
	t.Helper()
	var troubles []string
	for line := range strings.Lines(log) {
		var record struct{ Level string }
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Errorf("not a log line: %s", line)
		}
		if record.Level != "info" && record.Level != "debug" {
			troubles = append(troubles, line)
		}
	}
	if len(troubles) != 1 {
		t.Errorf("got %d warnings and errors, want one:\n%s", len(troubles), strings.Join(troubles, ""))
	}
	all := strings.ToLower(strings.Join(troubles, ""))
	for _, word := range []string{"network", "permi"} {
		if !strings.Contains(all, word) {
			t.Errorf("no %q in %s", word, all)
		}
	}
	if strings.Contains(all, "memlock") {
		t.Errorf("misleading advice: %s", all)
	}
}

// TestValidateAsNobody needs no privileges: errors in a configuration are told by name before anything is started.
func TestValidateAsNobody(t *testing.T) {
	requireRoot(t) // to become nobody
	ctx := testContext(t)
	binary := filepath.Join(publicDir(t), "otelcol-custom")
	copyProgram(t, collectorBinary(ctx, t), binary)
	for _, tt := range []struct {
		name, receiver string
		wantInError    []string // none: valid
	}{
		{name: "good", receiver: "{containers: {include: ['^/docker/']}}"},
		{name: "unknown key", receiver: "{contaniers: {}}", wantInError: []string{"ebpf_container", "contaniers"}},
		{name: "unknown nested key", receiver: "{network: {enabeld: true}}", wantInError: []string{"network", "enabeld"}},
		{name: "bad identity", receiver: "{identity: kubernetes}", wantInError: []string{"identity", "kubernetes", "coroot"}},
		{name: "bad expression", receiver: "{containers: {include: ['(']}}", wantInError: []string{"containers", "include"}},
		{name: "bad duration", receiver: "{containers: {min_age: soon}}", wantInError: []string{"min_age", "duration"}},
		{name: "bad network", receiver: "{network: {track_public: [example.com]}}", wantInError: []string{"track_public", "example.com"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := fmt.Sprintf("receivers: {ebpf_container: %s}\nexporters: {debug: {}}\n"+
				"service: {pipelines: {metrics: {receivers: [ebpf_container], exporters: [debug]}}}\n", tt.receiver)
			cmd := exec.CommandContext(ctx, binary, "validate", "--config", writePublic(t, "config.yaml", config))
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			_, err := output(cmd)
			if (err == nil) != (tt.wantInError == nil) {
				t.Fatalf("error: %v", err)
			}
			if err != nil {
				t.Log(err)
			}
			for _, word := range tt.wantInError {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("no %q in the error: %v", word, err)
				}
			}
		})
	}
}
