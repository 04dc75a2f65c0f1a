// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// instanceDocument is what AWS tells of an instance, after its documentation.
const instanceDocument = `{"accountId": "123456789012", "architecture": "x86_64", "availabilityZone": "eu-central-1b",
"imageId": "ami-5fb8c835", "instanceId": "i-0123456789abcdef0", "instanceType": "m7g.large", "privateIp": "10.0.0.7",
"region": "eu-central-1", "version": "2017-09-30"}`

// TestCloud has a metadata service at its real address, in a network namespace that the collector is told to be the host's. It
// begins to answer when the first metrics are out.
func TestCloud(t *testing.T) {
	requireRoot(t, "ip", "nsenter")
	ctx := testContext(t)
	ns := makeNetns(ctx, t)
	run(ctx, t, "ip", "-n", ns.name, "addr", "add", "169.254.169.254/32", "dev", "lo")
	const machineID = "0123456789abcdef0123456789abcdef"
	root := fakeRoot(t, machineID, ns.path())
	load := buildLoad(ctx, t)
	unit := makeCgroup(t, "/system.slice/e2e-cloud.service")
	sleeper := unit.inside(load, "/bin/sleep", "600")
	start(t, "service", exec.Command(sleeper[0], sleeper[1:]...))

	page, own := fmt.Sprintf("127.0.0.1:%d", freePort(t)), freePort(t)
	began := time.Now()
	process := startOtelcol(t, collectorBinary(ctx, t), writePublic(t, "cloud.yaml", fmt.Sprintf(`
receivers:
  ebpf_container:
    collection_interval: 500ms
    root_path: %s
    cgroup_root: /sys/fs/cgroup
    containers: {include: ['^/system.slice/e2e-cloud.service$']}
    network: {enabled: false}
    runtimes: {enabled: false}
    disks: {enabled: false}
    logs: {enabled: false}
exporters:
  prometheus:
    endpoint: %s
    resource_to_telemetry_conversion: {enabled: true}
    without_scope_info: true
service:
  telemetry: %s
  pipelines:
    metrics: {receivers: [ebpf_container], exporters: [prometheus]}
`, root, page, ownTelemetry(own))), 0)
	hosts := func() map[string]map[string]string {
		found := map[string]map[string]string{}
		series, err := readPage(ctx, page)
		if err != nil {
			return nil
		}
		for _, s := range series.named("container_resources_cpu_usage_seconds_total") {
			found[s.labels["host_id"]] = s.labels
		}
		return found
	}
	eventually(ctx, t, 20*time.Second, "metrics before the cloud answers", func() error {
		if err := process.running(); err != nil {
			t.Fatal(err)
		}
		if hosts()[machineID] == nil {
			return errors.New("no series with the machine id")
		}
		return nil
	})
	t.Logf("first metrics after %v, nothing having answered", time.Since(began).Round(time.Millisecond))

	serveInstance(ctx, t, ns.path())
	eventually(ctx, t, 30*time.Second, "series of the instance, and no others", func() error {
		if err := process.running(); err != nil {
			t.Fatal(err)
		}
		found := hosts()
		got := found["i-0123456789abcdef0"]
		if got == nil || len(found) != 1 {
			return fmt.Errorf("hosts: %v", found)
		}
		for label, want := range map[string]string{
			"cloud_provider": "aws", "cloud_platform": "aws_ec2", "cloud_account_id": "123456789012", "cloud_region": "eu-central-1",
			"cloud_availability_zone": "eu-central-1b", "host_type": "m7g.large",
		} {
			if got[label] != want {
				return fmt.Errorf("%s: got %q, want %q", label, got[label], want)
			}
		}
		return nil
	})
	t.Logf("all series under the instance %v after the start", time.Since(began).Round(time.Millisecond))
	body, err := get(ctx, "http://127.0.0.1:"+strconv.Itoa(own)+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if grep(string(body), "otelcol_ebpf_container_cloud_requests") == "" || grep(string(body), `failure="unreachable"`) == "" {
		t.Error("the collector's own metrics say nothing of requests that failed")
	}
}

// fakeRoot is a host of AWS whose network namespace is the one at netns. Else its /proc is the real one, without processes.
func fakeRoot(t *testing.T, machineID, netns string) string {
	t.Helper()
	root := publicDir(t)
	write := func(name, text string) {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/machine-id", machineID)
	for _, name := range []string{"board_vendor", "sys_vendor", "chassis_vendor"} {
		write("sys/class/dmi/id/"+name, "Amazon EC2")
	}
	if err := os.MkdirAll(filepath.Join(root, "proc/1/ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(netns, filepath.Join(root, "proc/1/ns/net")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			if err := os.Symlink("/proc/"+e.Name(), filepath.Join(root, "proc", e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

// serveInstance answers as AWS does, to those that have a token, until the test ends.
func serveInstance(ctx context.Context, t *testing.T, netns string) {
	t.Helper()
	const token = "AQAEAGLZ5LZ8Q3oXexampletoken=="
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
		fmt.Fprint(w, token)
	})
	mux.HandleFunc("GET /latest/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		values := map[string]string{
			"/latest/dynamic/instance-identity/document": instanceDocument, "/latest/meta-data/instance-life-cycle": "spot",
			"/latest/meta-data/placement/availability-zone-id": "euc1-az3",
		}
		text, ok := values[r.URL.Path]
		switch {
		case r.Header.Get("X-Aws-Ec2-Metadata-Token") != token:
			w.WriteHeader(http.StatusUnauthorized)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			fmt.Fprint(w, text)
		}
	})
	l, err := listenIn(ctx, netns, "169.254.169.254:80")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
}

// listenIn listens in a network namespace. Its thread is not used for anything else.
func listenIn(ctx context.Context, netns, addr string) (l net.Listener, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var fd int
		if fd, err = unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		if err = unix.Setns(fd, unix.CLONE_NEWNET); err == nil {
			l, err = new(net.ListenConfig).Listen(ctx, "tcp4", addr)
		}
	}()
	<-done
	return l, err
}
