// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/collector/scraper/scrapererror"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

const metal = "../../testdata/hosts/metal"

// newNodeConfig is that of the node alone, below root.
func newNodeConfig(root string) *Config {
	cfg := newTestConfig()
	cfg.RootPath = root
	cfg.Node = defaultNodeConfig()
	return cfg
}

// newNodeScraper returns a started scraper without its controller.
func newNodeScraper(t *testing.T, open openFunc, cfg *Config, set receiver.Settings) *metricsScraper {
	t.Helper()
	shared := &instances{open: open, byKey: map[instanceKey]*instance{}}
	s := newMetricsScraper(shared.newSignal(set, cfg), cfg, set)
	start(t, s)
	t.Cleanup(func() { shutdown(t, s) })
	return s
}

func scrape(t *testing.T, s *metricsScraper) pmetric.Metrics {
	t.Helper()
	md, err := s.ScrapeMetrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return md
}

// nodeValues are those of all series of the node, by name and attributes.
func nodeValues(md pmetric.Metrics) map[string]float64 {
	nodes := pmetric.NewResourceMetricsSlice()
	for _, rm := range md.ResourceMetrics().All() {
		if strings.HasPrefix(rm.ScopeMetrics().At(0).Metrics().At(0).Name(), "node.") {
			rm.CopyTo(nodes.AppendEmpty())
		}
	}
	all := map[string]float64{}
	for m, dp := range nodePoints(nodes) {
		key := strings.ReplaceAll(seriesKey(m, dp), "\x00", " ")
		if all[key] = dp.DoubleValue(); dp.ValueType() == pmetric.NumberDataPointValueTypeInt {
			all[key] = float64(dp.IntValue())
		}
	}
	return all
}

func TestNodeOfAFakeHost(t *testing.T) {
	host := &fakeHost{snapshot: func(context.Context) (inventory.Snapshot, error) {
		s := testSnapshot()
		s.Containers = s.Containers[:1]
		return s, nil
	}}
	s := newNodeScraper(t, host.open, newNodeConfig(metal), receivertest.NewNopSettings(metadata.Type))
	md := scrape(t, s)
	if n := md.ResourceMetrics().Len(); n != 2 {
		t.Fatalf("got %d resources, want a container and the node", n)
	}
	got := nodeValues(md)
	for key, want := range map[string]float64{
		"node.uptime":                                90061.52,
		"node.resources.cpu.logical_cores":           4,
		"node.resources.cpu.usage iowait":            35.52,
		"node.resources.memory.total":                65536000 * 1024,
		"node.resources.disk.written sda":            160000 * 512,
		"node.resources.disk.io_time nvme0n1":        973.368,
		"node.resources.pressure_waiting io full":    270.677716,
		"node.net.received bond0":                    2001,
		"node.net.transmit_drops bond0":              4,
		"node.net.interface.up eno2":                 0,
		"node.net.tcp.listen_drops":                  27,
		"node.net.udp.no_port":                       121,
		"node.net.listening_ports tcp":               4,
		"node.net.conntrack.limit":                   262144,
		"node.disk.array.info md0 raid5 recovering":  1,
		"node.disk.array.disks md0 down":             2,
		"node.agent.info " + s.set.BuildInfo.Version: 1,
	} {
		if v, ok := got[key]; !ok || v-want > 1e-6 || want-v > 1e-6 {
			t.Errorf("%s: got %v, %v, want %v", key, v, ok, want)
		}
	}
}

func TestNodePartsCanBeSwitchedOff(t *testing.T) {
	for part, off := range map[string]func(*NodeConfig){
		"node.resources.cpu.":             func(c *NodeConfig) { c.CPU = false },
		"node.resources.memory.":          func(c *NodeConfig) { c.Memory = false },
		"node.resources.disk.":            func(c *NodeConfig) { c.Disks = false },
		"node.disk.array.":                func(c *NodeConfig) { c.Disks = false },
		"node.net.":                       func(c *NodeConfig) { c.Network = false },
		"node.resources.pressure_waiting": func(c *NodeConfig) { c.Pressure = false },
		"node.net.received bond0":         func(c *NodeConfig) { c.Interfaces = []PatternConfig{"^eno"} },
		"node.":                           func(c *NodeConfig) { c.Enabled = false },
	} {
		t.Run(part, func(t *testing.T) {
			has := func(cfg *Config) bool {
				s := newNodeScraper(t, (&fakeHost{}).open, cfg, receivertest.NewNopSettings(metadata.Type))
				for key := range nodeValues(scrape(t, s)) {
					if strings.HasPrefix(key, part) {
						return true
					}
				}
				return false
			}
			cfg := newNodeConfig(metal)
			if !has(cfg) {
				t.Error("not given when it is on")
			}
			off(&cfg.Node)
			if has(cfg) {
				t.Error("given when it is off")
			}
		})
	}
}

func TestNodeThatMissesTheDeadline(t *testing.T) {
	for _, containers := range []bool{true, false} {
		host := &fakeHost{snapshot: func(context.Context) (inventory.Snapshot, error) { return testSnapshot(), nil }}
		if !containers {
			host.snapshot = nil
		}
		s := newNodeScraper(t, host.open, newNodeConfig(metal), receivertest.NewNopSettings(metadata.Type))
		before := len(nodeValues(scrape(t, s)))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		md, err := s.ScrapeMetrics(ctx)
		if err == nil || err.Error() != "the node was not read in time" || scrapererror.IsPartialScrapeError(err) != containers {
			t.Errorf("containers %v: got %v", containers, err)
		}
		if got := nodeValues(md); len(got) > 0 {
			t.Errorf("given or ended without a reading: %v", got)
		}
		if again := len(nodeValues(scrape(t, s))); again != before {
			t.Errorf("got %d series, and then %d", before, again)
		}
	}
}

// A file that does not answer holds up neither a collection nor the next one.
func TestNodeThatHangs(t *testing.T) {
	root := copyMetal(t)
	r := openNode(newNodeConfig(root))
	uptime := filepath.Join(root, "proc/uptime")
	if err := errors.Join(os.Remove(uptime), syscall.Mkfifo(uptime, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if st := r.read(ctx)(); st != nil {
			t.Errorf("got %+v", st)
		}
		cancel()
	}
	f, err := os.OpenFile(uptime, os.O_WRONLY, 0) // waits for its reader
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(uptime), f.Close()); err != nil {
		t.Fatal(err)
	}
	if st := r.read(t.Context())(); st == nil || !st.CPU.OK {
		t.Errorf("got %+v of a host that answers again", st)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

// What came late is given the next time, and those who get the metrics still have time left.
func TestNodeThatHangsCostsNoContainers(t *testing.T) {
	root := copyMetal(t)
	host := &fakeHost{snapshot: func(context.Context) (inventory.Snapshot, error) { return testSnapshot(), nil }}
	s := newNodeScraper(t, host.open, newNodeConfig(root), receivertest.NewNopSettings(metadata.Type))
	uptime := filepath.Join(root, "proc/uptime")
	if err := errors.Join(os.Remove(uptime), syscall.Mkfifo(uptime, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	md, err := s.ScrapeMetrics(ctx)
	if ctx.Err() != nil {
		t.Error("no time is left to give the containers")
	}
	if err == nil || err.Error() != "the node was not read in time" || !scrapererror.IsPartialScrapeError(err) {
		t.Errorf("got error %v", err)
	}
	if n := md.ResourceMetrics().Len(); n == 0 || len(nodeValues(md)) > 0 {
		t.Errorf("got %d resources, and of the node %v", n, nodeValues(md))
	}
	f, err := os.OpenFile(uptime, os.O_WRONLY, 0) // waits for its reader
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("777.00 1.00\n")
	if err := errors.Join(err, os.Remove(uptime), f.Close()); err != nil {
		t.Fatal(err)
	}
	if got := nodeValues(scrape(t, s))["node.uptime"]; got != 777 {
		t.Errorf("got the uptime %v, want that of the late reading", got)
	}
}

func TestStartAndShutdownDoNotWaitForTheNode(t *testing.T) {
	for _, atStart := range []bool{true, false} {
		root := copyMetal(t)
		uptime := filepath.Join(root, "proc/uptime")
		hang := func() {
			if err := errors.Join(os.Remove(uptime), syscall.Mkfifo(uptime, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		if atStart {
			hang()
		}
		r := openNode(newNodeConfig(root))
		if on := r.features()[0].Err == nil; on == atStart {
			t.Errorf("hangs at start %v: said to be on %v", atStart, on)
		}
		if !atStart {
			hang()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if st := r.read(ctx)(); st != nil {
			t.Errorf("got %+v", st)
		}
		cancel()
		if err := r.close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("waited for %v", took)
		}
		f, err := os.OpenFile(uptime, os.O_WRONLY, 0) // waits for its reader
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(uptime), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func copyMetal(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(metal)); err != nil {
		t.Fatal(err)
	}
	return root
}

func startWithLogs(t *testing.T, host *fakeHost, cfg *Config) *observer.ObservedLogs {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	set := receivertest.NewNopSettings(metadata.Type)
	set.Logger = zap.New(core)
	newNodeScraper(t, host.open, cfg, set)
	return logs
}

func TestStartTellsOfTheNode(t *testing.T) {
	on := []any{"node_uptime", "node_cpu", "node_memory", "node_disks", "node_arrays", "node_interfaces", "node_protocols",
		"node_listening_ports", "node_conntrack", "node_pressure"}
	noHost := t.TempDir()
	sandbox := copyMetal(t) // where there is no PID 1
	if err := os.RemoveAll(filepath.Join(sandbox, "proc/1")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, root string
		on         []any
		off        string // how the warning begins
	}{
		{"fake host", metal, on, ""}, // whose disks do not answer, and which has no addresses
		{"no host", noHost, nil, "node: host at "},
		{"not the host's network", sandbox, []any{"node_uptime", "node_cpu", "node_memory", "node_disks", "node_arrays", "node_pressure"},
			"node_protocols"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			logs := startWithLogs(t, &fakeHost{}, newNodeConfig(tt.root))
			runs := logs.FilterMessage("ebpf_container runs").All()
			if len(runs) != 1 {
				t.Fatalf("got %d lines", len(runs))
			}
			got, _ := runs[0].ContextMap()["features"].([]any)
			for _, name := range tt.on {
				if !slices.Contains(got, name) {
					t.Errorf("%v is not on: %v", name, got)
				}
			}
			if slices.Contains(got, any("node_disk_health")) {
				t.Error("disks that have not answered are said to")
			}
			var off []any
			for _, line := range logs.FilterMessageSnippet("some parts are off").All() {
				off = append(off, line.ContextMap()["off"].([]any)...)
			}
			if tt.off == "" && len(off) > 0 {
				t.Errorf("warned of %q", off)
			}
			if tt.off != "" && !slices.ContainsFunc(off, func(s any) bool { return strings.Contains(s.(string), tt.off) }) {
				t.Errorf("warned of %q, want %s", off, tt.off)
			}
		})
	}
}

func TestOwnMetricsOfTheNode(t *testing.T) {
	root := copyMetal(t)
	for file, content := range map[string]string{"proc/uptime": "soon\n", "proc/pressure/io": ""} {
		if err := os.WriteFile(filepath.Join(root, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(root, "proc/meminfo")); err != nil {
		t.Fatal(err)
	}
	tel := newTelemetry(t)
	set := receivertest.NewNopSettings(metadata.Type)
	set.TelemetrySettings = tel.NewTelemetrySettings()
	s := newNodeScraper(t, (&fakeHost{}).open, newNodeConfig(root), set)
	scrape(t, s)

	m, err := tel.GetMetric("otelcol_ebpf_container_feature_enabled")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, dp := range m.Data.(metricdata.Gauge[int64]).DataPoints {
		name, _ := dp.Attributes.Value("feature")
		why, _ := dp.Attributes.Value("reason")
		if got[name.AsString()] = why.AsString(); (dp.Value == 1) != (why.AsString() == "") {
			t.Errorf("%s: %d because of %q", name.AsString(), dp.Value, why.AsString())
		}
	}
	for name, want := range map[string]string{
		"node_uptime": "error", "node_memory": "unsupported", "node_cpu": "", "node_addresses": "unsupported",
	} {
		if why, ok := got[name]; !ok || why != want {
			t.Errorf("%s: got %q, %v, want %q", name, why, ok, want)
		}
	}
	errs, err := tel.GetMetric("otelcol_ebpf_container_node_read_errors")
	if err != nil {
		t.Fatal(err)
	}
	if n := errs.Data.(metricdata.Sum[int64]).DataPoints[0].Value; n < 2 { // Open reads as well
		t.Errorf("got %d errors", n)
	}
}

func TestReasonsOfTheNode(t *testing.T) {
	r := openNode(newNodeConfig(t.TempDir()))
	want := []inventory.Feature{{Name: "node", Err: r.err}}
	if diff := cmp.Diff(want, r.features(), cmp.Comparer(func(a, b error) bool { return a == b })); diff != "" { //nolint:errorlint // the same
		t.Errorf("features (-want +got):\n%s", diff)
	}
	if st := r.read(t.Context())(); st == nil || st.Uptime.OK {
		t.Errorf("got %+v of no host", st)
	}
	if r.readErrors() != 0 || r.close() != nil {
		t.Error("what is not there cannot fail")
	}
}

// The real host through the whole receiver, with no container.
func TestNodeOfThisHost(t *testing.T) {
	cfg := newNodeConfig("/")
	cfg.Containers.Include = []PatternConfig{"^/no/such/container$"}
	cfg.Network.Enabled, cfg.Logs.Enabled, cfg.Runtimes.Enabled = false, false, false
	cfg.CollectionInterval, cfg.Timeout = 300*time.Millisecond, 5*time.Second
	sink := new(consumertest.MetricsSink)
	r, err := NewFactory().CreateMetrics(t.Context(), receivertest.NewNopSettings(metadata.Type), cfg, sink)
	if err != nil {
		t.Fatal(err)
	}
	start(t, r)
	for end := time.Now().Add(20 * time.Second); len(sink.AllMetrics()) < 3 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	shutdown(t, r)
	all := sink.AllMetrics()
	if len(all) < 3 {
		t.Fatalf("got %d collections", len(all))
	}
	first, last := nodeValues(all[0]), nodeValues(all[len(all)-1])
	if n := last["node.resources.cpu.logical_cores"]; n < float64(runtime.NumCPU()) {
		t.Errorf("got %v CPUs of at least %d", n, runtime.NumCPU())
	}
	passed := last["node.uptime"] - first["node.uptime"]
	if passed < 0.5 || passed > 60 {
		t.Errorf("the uptime grew by %v s in three collections", passed)
	}
	var used float64
	for key, v := range last {
		if strings.HasPrefix(key, "node.resources.cpu.usage ") {
			if v < first[key] {
				t.Errorf("%s fell from %v to %v", key, first[key], v)
			}
			used += v - first[key]
		}
	}
	if most := (passed + 1) * last["node.resources.cpu.logical_cores"]; used <= 0 || used > most {
		t.Errorf("CPUs were %v s in all modes, in %v s", used, passed)
	}
	if total, free := last["node.resources.memory.total"], last["node.resources.memory.free"]; free <= 0 || total <= free {
		t.Errorf("got %v bytes of memory, %v free", total, free)
	}
	if _, ok := last["node.net.listening_ports tcp"]; !ok {
		t.Error("no listening ports")
	}
}
