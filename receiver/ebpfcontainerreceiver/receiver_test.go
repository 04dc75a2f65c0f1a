// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"errors"
	"net/netip"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// fakeHost stands for the inventory: it counts how often it is opened and closed.
type fakeHost struct {
	status   inventory.Status
	snapshot func(context.Context) (inventory.Snapshot, error)
	events   chan inventory.Event
	openErr  error
	closeErr error

	mu             sync.Mutex
	opened, closed int
	following      int
	options        inventory.Options
}

func (f *fakeHost) open(_ context.Context, o inventory.Options) (containers, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.openErr != nil {
		return nil, f.openErr
	}
	f.opened++
	f.options = o
	return f, nil
}

func (f *fakeHost) Snapshot(ctx context.Context) (inventory.Snapshot, error) {
	if f.snapshot == nil {
		return inventory.Snapshot{At: testNow}, nil
	}
	return f.snapshot(ctx)
}

func (f *fakeHost) FollowEvents(ctx context.Context, fn func(inventory.Event)) {
	f.follow(1)
	defer f.follow(-1)
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-f.events:
			fn(e)
		}
	}
}

func (f *fakeHost) follow(by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.following += by
}

func (f *fakeHost) Status() inventory.Status { return f.status }

func (*fakeHost) EndLogs() error { return nil }

func (f *fakeHost) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	if f.following > 0 && f.closed == f.opened {
		return errors.New("closed while it is followed")
	}
	return f.closeErr
}

func (f *fakeHost) expect(t *testing.T, opened, closed int) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened != opened || f.closed != closed {
		t.Errorf("opened %d times and closed %d times, want %d and %d", f.opened, f.closed, opened, closed)
	}
}

func newTestConfig() *Config {
	cfg := createDefaultConfig().(*Config)
	cfg.CollectionInterval = time.Hour // only the collection at the start
	cfg.Node.Enabled = false           // the host of the test is not to be told
	return cfg
}

func newMetrics(t *testing.T, f receiver.Factory, set receiver.Settings, cfg *Config) component.Component {
	t.Helper()
	r, err := f.CreateMetrics(context.Background(), set, cfg, consumertest.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newLogs(t *testing.T, f receiver.Factory, set receiver.Settings, cfg *Config) component.Component {
	t.Helper()
	r, err := f.CreateLogs(context.Background(), set, cfg, consumertest.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func start(t *testing.T, c component.Component) {
	t.Helper()
	if err := c.Start(context.Background(), componenttest.NewNopHost()); err != nil {
		t.Fatal(err)
	}
}

func shutdown(t *testing.T, c component.Component) {
	t.Helper()
	if err := c.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestSignalsOfOneIDShareOneInstance(t *testing.T) {
	for _, metricsFirst := range []bool{true, false} {
		host := &fakeHost{}
		f, set, cfg := newFactory(host.open), receivertest.NewNopSettings(metadata.Type), newTestConfig()
		first, second := newMetrics(t, f, set, cfg), newLogs(t, f, set, cfg)
		if !metricsFirst {
			first, second = second, first
		}
		host.expect(t, 0, 0) // creating touches nothing
		start(t, first)
		start(t, second)
		host.expect(t, 1, 0)
		shutdown(t, first)
		host.expect(t, 1, 0)
		shutdown(t, second)
		host.expect(t, 1, 1)
	}
}

func TestTwoReceiversInOneProcess(t *testing.T) {
	host := &fakeHost{}
	f, cfg := newFactory(host.open), newTestConfig()
	one := newMetrics(t, f, receivertest.NewNopSettings(metadata.Type), cfg)
	other := newMetrics(t, f, receivertest.NewNopSettings(metadata.Type), cfg)
	start(t, one)
	start(t, other)
	host.expect(t, 2, 0)
	shutdown(t, one)
	host.expect(t, 2, 1)
	shutdown(t, other)
	host.expect(t, 2, 2)
}

func TestReloadOfOneID(t *testing.T) {
	host := &fakeHost{}
	f, set := newFactory(host.open), receivertest.NewNopSettings(metadata.Type)
	before := newMetrics(t, f, set, newTestConfig())
	start(t, before)
	after := newMetrics(t, f, set, newTestConfig()) // made before the old one is gone
	shutdown(t, before)
	host.expect(t, 1, 1)
	start(t, after)
	host.expect(t, 2, 1)
	shutdown(t, after)
	host.expect(t, 2, 2)
}

func TestStartThatFails(t *testing.T) {
	host := &fakeHost{openErr: errors.New("no cgroup file system")}
	f, set, cfg := newFactory(host.open), receivertest.NewNopSettings(metadata.Type), newTestConfig()
	m, l := newMetrics(t, f, set, cfg), newLogs(t, f, set, cfg)
	for _, c := range []component.Component{m, l} {
		if err := c.Start(context.Background(), componenttest.NewNopHost()); !errors.Is(err, host.openErr) {
			t.Errorf("got %v, want %v", err, host.openErr)
		}
		shutdown(t, c)
	}
	host.expect(t, 0, 0)
}

func TestFactoryKeepsNoInstanceThatIsShutDown(t *testing.T) {
	host := &fakeHost{}
	shared := &instances{open: host.open, byKey: map[instanceKey]*instance{}}
	set, cfg := receivertest.NewNopSettings(metadata.Type), newTestConfig()
	a, b := shared.newSignal(set, cfg), shared.newSignal(set, cfg)
	start(t, a)
	shutdown(t, a)
	shutdown(t, a) // the second time is nothing
	if len(shared.byKey) != 1 {
		t.Errorf("got %d instances, want that of b", len(shared.byKey))
	}
	shutdown(t, b) // never started
	if len(shared.byKey) != 0 {
		t.Errorf("got %d instances, want none", len(shared.byKey))
	}
	host.expect(t, 1, 1)
}

func TestShutdownGivesTheErrorOfClose(t *testing.T) {
	host := &fakeHost{closeErr: errors.New("busy")}
	l := newLogs(t, newFactory(host.open), receivertest.NewNopSettings(metadata.Type), newTestConfig())
	start(t, l)
	if err := l.Shutdown(context.Background()); !errors.Is(err, host.closeErr) {
		t.Errorf("got %v, want %v", err, host.closeErr)
	}
}

func TestOptionsComeFromTheConfig(t *testing.T) {
	cfg := newTestConfig()
	cfg.CollectionInterval = 15 * time.Second
	cfg.RootPath = "/host"
	cfg.Containers = ContainersConfig{
		Include: []PatternConfig{"^/docker/"}, Exclude: []PatternConfig{"x"}, MinAge: time.Second, SkipSystemUnits: true,
	}
	cfg.Network = NetworkConfig{
		Enabled: true, MaxEdges: 100, MaxDestinationsPerContainer: 10, TrackPublic: []PrefixConfig{"203.0.113.7/24"},
		MaxListenersPerContainer: 20, EphemeralPortRange: "40000-50000", IdleTimeout: time.Hour,
	}
	cfg.Latency.ICMP = true
	cfg.Delays.EnableAccounting = true
	cfg.Identity = IdentityCoroot
	cfg.Runtimes.Sockets = SocketsConfig{Docker: []string{"/run/other.sock"}, Podman: []string{}}
	cfg.Disks.Tmpfs = true
	cfg.Logs.Forward, cfg.Logs.CountOnlyLevels = ForwardErrors, []LevelName{"debug"}
	got := (&instance{cfg: cfg, records: true}).options(nil)
	want := inventory.Options{
		CgroupRoot:      "/host/sys/fs/cgroup",
		ProcRoot:        "/host/proc",
		BPFFSRoot:       "/host/sys/fs/bpf",
		Include:         []*regexp.Regexp{regexp.MustCompile("^/docker/")},
		Exclude:         []*regexp.Regexp{regexp.MustCompile("x")},
		MinAge:          time.Second,
		SkipSystemUnits: true,
		Keep:            35 * time.Second,
		Network: inventory.NetworkOptions{
			Enabled: true, MaxEdges: 100, MaxDestinations: 10,
			TrackPublic:  []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
			MaxListeners: 20, EphemeralPorts: inventory.PortRange{First: 40000, Last: 50000, Set: true},
			IdleTimeout: time.Hour,
		},
		Latency: inventory.LatencyOptions{ICMP: true},

		EnableDelayAccounting: true,

		NameIsIdentity: true,
		Runtimes: inventory.RuntimesOptions{
			Enabled: true, Root: "/host", Sockets: map[string][]string{"docker": {"/run/other.sock"}, "podman": {}},
		},
		Disks: inventory.DisksOptions{Enabled: true, Tmpfs: true, Root: "/host", SysRoot: "/host/sys"},
		Logs: inventory.LogsOptions{
			Enabled: true, Root: "/host", Roots: []string{"/var/log"}, Journal: true, MaxPatterns: 512, MaxPatternsPerLevel: 256,
			CountOnly: []inventory.LogLevel{inventory.LogDebug}, NewPatterns: true, Forward: inventory.ForwardErrors,
			CheckpointEvery: 5 * time.Second,
		},
	}
	opts := []cmp.Option{
		cmpopts.EquateComparable(netip.Prefix{}),
		cmp.Comparer(func(a, b *regexp.Regexp) bool { return a.String() == b.String() }),
	}
	if diff := cmp.Diff(want, got, opts...); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	cfg.CgroupRoot = "/cgroups"
	if got := (&instance{cfg: cfg}).options(nil).CgroupRoot; got != "/cgroups" {
		t.Errorf("got cgroup root %s", got)
	}
	if got := (&instance{cfg: cfg}).options(nil).Logs; got.NewPatterns || got.Forward != inventory.ForwardNone {
		t.Errorf("messages are asked for that nobody follows: %+v", got)
	}
}

func TestEphemeralPortsFromTheConfig(t *testing.T) {
	for _, tt := range []struct {
		in   PortRangeConfig
		want inventory.PortRange
	}{
		{"", inventory.PortRange{}}, // the host's
		{"off", inventory.PortRange{First: 1, Last: 0, Set: true}},
		{"1-65535", inventory.PortRange{First: 1, Last: 65535, Set: true}},
		{"9-9", inventory.PortRange{First: 9, Last: 9, Set: true}},
	} {
		if got := portRange(tt.in); got != tt.want {
			t.Errorf("%q: got %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

func TestStartSaysOnceWhatIsOnAndOff(t *testing.T) {
	host := &fakeHost{status: inventory.Status{
		CgroupMode: "hybrid",
		Containers: 3,
		Features: []inventory.Feature{
			{Name: "cgroup_events"},
			{Name: "network", Err: errors.New("not permitted: needs root")},
			{Name: "network_live", Err: errors.New("not permitted: needs root")},
			{Name: "host_network_namespace", Err: errors.ErrUnsupported},
			{Name: "delay_accounting", Err: errors.New("kernel.task_delayacct is 0")},
		},
	}}
	core, logs := observer.New(zapcore.DebugLevel)
	set := receivertest.NewNopSettings(metadata.Type)
	set.Logger = zap.New(core)
	f, cfg := newFactory(host.open), newTestConfig()
	cfg.RootPath = t.TempDir() // a host that tells nothing of itself
	l := newLogs(t, f, set, cfg)
	start(t, l)
	defer shutdown(t, l)

	infos := logs.FilterLevelExact(zapcore.InfoLevel).All()
	if len(infos) != 2 {
		t.Fatalf("got %d info lines, want 2", len(infos))
	}
	wantDelays := map[string]any{"reason": "kernel.task_delayacct is 0"} // no warning: most hosts have it off
	if diff := cmp.Diff(wantDelays, infos[0].ContextMap()); diff != "" {
		t.Errorf("info of delays (-want +got):\n%s", diff)
	}
	want := map[string]any{
		"features": []any{"cgroup_events"}, "cgroups": "hybrid", "containers": int64(3), "identity": "semconv",
		"kernel": "",
	}
	if diff := cmp.Diff(want, infos[1].ContextMap()); diff != "" {
		t.Errorf("info (-want +got):\n%s", diff)
	}
	off := logs.FilterMessageSnippet("some parts are off").All()
	if len(off) != 1 {
		t.Fatalf("got %d warnings of parts that are off, want 1", len(off))
	}
	wantOff := map[string]any{"off": []any{
		"network, network_live: not permitted: needs root", "host_network_namespace: unsupported operation",
	}}
	if diff := cmp.Diff(wantOff, off[0].ContextMap()); diff != "" {
		t.Errorf("warning (-want +got):\n%s", diff)
	}
	if n := logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 2 { // and no machine id
		t.Errorf("got %d warnings, want 2", n)
	}
}
