// SPDX-License-Identifier: Apache-2.0

package ebpfcontainerreceiver

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/scraper/scraperhelper"

	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// load does what the collector does with the YAML of one receiver: unmarshal over the defaults, then validate.
func load(t *testing.T, yaml string) (*Config, error) {
	t.Helper()
	retrieved, err := confmap.NewRetrievedFromYAML([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	conf, err := retrieved.AsConf()
	if err != nil {
		t.Fatal(err)
	}
	cfg := createDefaultConfig().(*Config)
	if err := conf.Unmarshal(cfg); err != nil {
		return nil, err
	}
	// As below receivers::ebpf_container, so that the paths are those that users see.
	return cfg, confmap.Validate(map[string]map[string]any{"receivers": {"ebpf_container": cfg}})
}

func diffConfigs(want, got *Config) string {
	return cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{}, ContainersConfig{}, NetworkConfig{}, ZoneConfig{}, CloudConfig{},
		LogsConfig{}, LatencyConfig{}, DelaysConfig{}, NodeConfig{}, scraperhelper.ControllerConfig{}), cmp.Comparer(equalMetrics), cmpopts.EquateComparable(component.ID{}))
}

func equalMetrics(a, b metadata.MetricsBuilderConfig) bool { return a == b }

func TestDefaultConfigIsDocumented(t *testing.T) {
	got, err := load(t, `{}`)
	if err != nil {
		t.Fatal(err)
	}
	documented, err := load(t, `
collection_interval: 15s
initial_delay: 0s
timeout: 10s
root_path: /
cgroup_root: ""
identity: semconv
containers:
  include: []
  exclude: []
  min_age: 0s
  skip_system_units: true
runtimes:
  enabled: true
disks:
  enabled: true
  tmpfs: false
network:
  enabled: true
  max_edges: 32768
  max_destinations_per_container: 1000
  max_listeners_per_container: 200
  ephemeral_port_range: ""
  idle_timeout: 10m
  track_public: ["0.0.0.0/0", "::/0"]
  zones: []
  zones_file: ""
  zone_attribute: false
cloud:
  enabled: true
  provider: ""
  account_id: ""
  instance_id: ""
  instance_type: ""
  instance_life_cycle: ""
  region: ""
  availability_zone: ""
logs:
  enabled: true
  roots: [/var/log]
  journal: true
  journal_dirs: []
  max_patterns_per_container: 512
  max_patterns_per_level: 256
  count_only_levels: []
  max_messages_per_second: 0
  new_patterns: true
  forward: none
  checkpoint_interval: 5s
latency:
  icmp: false
delays:
  enable_accounting: false
node:
  enabled: true
  cpu: true
  memory: true
  disks: true
  disk_health: true
  network: true
  pressure: true
  interfaces: []
`)
	if err != nil {
		t.Fatal(err)
	}
	documented.Containers.Include, documented.Containers.Exclude = nil, nil // from empty
	documented.Logs.JournalDirs, documented.Logs.CountOnlyLevels = nil, nil // likewise
	documented.Network.Zones = nil
	documented.Node.Interfaces = nil
	if diff := diffConfigs(documented, got); diff != "" {
		t.Errorf("defaults (-documented +got):\n%s", diff)
	}
}

func TestConfigTakesAllKeys(t *testing.T) {
	got, err := load(t, `
collection_interval: 1m
timeout: 30s
root_path: /host
cgroup_root: /host/sys/fs/cgroup
identity: coroot
containers:
  include: ["^/docker/", "^/k8s/"]
  exclude: ["^/system.slice/"]
  min_age: 5s
  skip_system_units: false
runtimes:
  enabled: false
  sockets:
    docker: [/run/d.sock]
    podman: []
    cri: [/run/a.sock, /run/b.sock]
    containerd: [/run/c.sock]
    systemd: [/run/s.sock]
disks:
  enabled: false
  tmpfs: true
network:
  enabled: false
  max_edges: 1024
  max_destinations_per_container: 10
  max_listeners_per_container: 20
  ephemeral_port_range: 40000-50000
  idle_timeout: 1m
  track_public: ["203.0.113.0/24"]
  zones: [{cidr: 10.1.0.0/16, zone: eu-central-1a}, {cidr: "2001:db8::/32", zone: eu-central-1b}]
  zones_file: /etc/zones
cloud:
  enabled: false
  provider: aws
  region: eu-central-1
  availability_zone: eu-central-1a
  account_id: "123456789012"
  instance_id: i-0123456789abcdef0
  instance_type: m7g.large
  instance_life_cycle: spot
logs:
  enabled: false
  roots: [/data/logs]
  journal: false
  journal_dirs: [/data/journal]
  max_patterns_per_container: 100
  max_patterns_per_level: 50
  count_only_levels: [debug, info]
  max_messages_per_second: 1.5
  new_patterns: false
  forward: all
  storage: file_storage/logs
  checkpoint_interval: 1m
latency:
  icmp: true
delays:
  enable_accounting: true
node:
  enabled: false
  cpu: false
  memory: false
  disks: false
  disk_health: false
  network: false
  pressure: false
  interfaces: ["^eth", "^wg0$"]
metrics:
  container.net.tcp.rtt:
    enabled: false
  container.uptime:
    enabled: true
`)
	if err != nil {
		t.Fatal(err)
	}
	want := createDefaultConfig().(*Config)
	want.CollectionInterval = time.Minute
	want.Timeout = 30 * time.Second
	want.RootPath = "/host"
	want.CgroupRoot = "/host/sys/fs/cgroup"
	want.Identity = IdentityCoroot
	want.Containers = ContainersConfig{
		Include: []PatternConfig{"^/docker/", "^/k8s/"},
		Exclude: []PatternConfig{"^/system.slice/"},
		MinAge:  5 * time.Second,
	}
	want.Runtimes = RuntimesConfig{Sockets: SocketsConfig{
		Docker: []string{"/run/d.sock"}, Podman: []string{}, CRI: []string{"/run/a.sock", "/run/b.sock"},
		Containerd: []string{"/run/c.sock"}, Systemd: []string{"/run/s.sock"},
	}}
	want.Disks = DisksConfig{Tmpfs: true}
	storage := component.MustNewIDWithName("file_storage", "logs")
	want.Logs = LogsConfig{
		Roots: []string{"/data/logs"}, JournalDirs: []string{"/data/journal"}, MaxPatternsPerContainer: 100, MaxPatternsPerLevel: 50,
		CountOnlyLevels: []LevelName{"debug", "info"}, MaxMessagesPerSecond: 1.5, Forward: ForwardAll, Storage: &storage,
		CheckpointInterval: time.Minute,
	}
	want.Network = NetworkConfig{
		MaxEdges: 1024, MaxDestinationsPerContainer: 10, TrackPublic: []PrefixConfig{"203.0.113.0/24"},
		MaxListenersPerContainer: 20, EphemeralPortRange: "40000-50000", IdleTimeout: time.Minute,
		Zones:     []ZoneConfig{{CIDR: "10.1.0.0/16", Zone: "eu-central-1a"}, {CIDR: "2001:db8::/32", Zone: "eu-central-1b"}},
		ZonesFile: "/etc/zones",
	}
	want.Latency.ICMP = true
	want.Delays.EnableAccounting = true
	want.Node = NodeConfig{Interfaces: []PatternConfig{"^eth", "^wg0$"}}
	want.Cloud = CloudConfig{
		Provider: "aws", Region: "eu-central-1", AvailabilityZone: "eu-central-1a", AccountID: "123456789012",
		InstanceID: "i-0123456789abcdef0", InstanceType: "m7g.large", InstanceLifeCycle: "spot",
	}
	if !got.Metrics.ContainerUptime.Enabled {
		t.Error("metrics::container.uptime::enabled had no effect")
	}
	if got.Metrics.ContainerNetTCPRtt.Enabled {
		t.Error("metrics::container.net.tcp.rtt::enabled had no effect")
	}
	want.Metrics = got.Metrics
	if diff := diffConfigs(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestConfigEmptyTrackPublicTracksNone(t *testing.T) {
	got, err := load(t, "network: {track_public: []}")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Network.TrackPublic) != 0 {
		t.Errorf("got %v, want none", got.Network.TrackPublic)
	}
}

func TestConfigTakesZoneAttribute(t *testing.T) { // not among all keys: identity: coroot has no such thing
	got, err := load(t, "network: {zone_attribute: true}")
	if err != nil {
		t.Fatal(err)
	}
	if !got.Network.ZoneAttribute {
		t.Error("network::zone_attribute had no effect")
	}
}

func TestConfigTakesOffForPorts(t *testing.T) {
	got, err := load(t, "network: {ephemeral_port_range: off}") // YAML must not make a false of it
	if err != nil {
		t.Fatal(err)
	}
	if got.Network.EphemeralPortRange != portRangeOff {
		t.Errorf("got %q", got.Network.EphemeralPortRange)
	}
}

func TestConfigErrorsNameTheKey(t *testing.T) {
	const at = "receivers::ebpf_container"
	for _, tt := range []struct {
		name, yaml string
		want       []string // parts of the message
	}{
		{"unknown key", "colection_interval: 1s", []string{"colection_interval", "invalid keys"}},
		{"unknown key inside", "network: {max_edgs: 1}", []string{"network", "max_edgs", "invalid keys"}},
		{"unknown metric", "metrics: {container.nope: {enabled: true}}", []string{"container.nope"}},
		{"interval zero", "collection_interval: 0s", []string{"collection_interval"}},
		{"interval negative", "collection_interval: -1s", []string{"collection_interval"}},
		{"interval without unit", "collection_interval: 15", []string{at + ": collection_interval: 15ns is less than 100ms"}},
		{"deadline without unit", "timeout: 10", []string{at + ": timeout: 10ns is less than 100ms"}},
		{"no deadline", "timeout: 0s", []string{at + ": timeout"}},
		{"negative deadline", "timeout: -1s", []string{"timeout"}},
		{"root relative", "root_path: host", []string{at + `: root_path: "host" is not an absolute path`}},
		{"root empty", `root_path: ""`, []string{at + ": root_path"}},
		{"cgroup root relative", "cgroup_root: sys/fs/cgroup", []string{at + ": cgroup_root"}},
		{"identity", "identity: otel", []string{at + `::identity: "otel" is neither "semconv" nor "coroot"`}},
		{"bad regexp", `containers: {include: ["^/docker/", "("]}`, []string{at + "::containers::include::1: "}},
		{"empty regexp", `containers: {exclude: [""]}`, []string{at + "::containers::exclude::0: "}},
		{"negative age", "containers: {min_age: -5s}", []string{at + "::containers: min_age"}},
		{"relative socket", `runtimes: {sockets: {cri: [/run/a.sock, run/b.sock]}}`,
			[]string{at + `::runtimes::sockets: "run/b.sock" is not an absolute path`}},
		{"unknown runtime", "runtimes: {sockets: {rkt: [/run/a.sock]}}", []string{"rkt", "invalid keys"}},
		{"no edges", "network: {max_edges: 0}", []string{at + "::network: max_edges: 0"}},
		{"negative edges", "network: {max_edges: -1}", []string{at + "::network: max_edges: -1"}},
		{"too many edges", "network: {max_edges: 2000000}", []string{at + "::network: max_edges: 2000000"}},
		{"no destinations", "network: {max_destinations_per_container: 0}",
			[]string{at + "::network: max_destinations_per_container"}},
		{"bad network", `network: {track_public: ["0.0.0.0/0", "8.8.8.8"]}`,
			[]string{at + `::network::track_public::1: "8.8.8.8" is not a network`}},
		{"mapped network", `network: {track_public: ["::ffff:1.2.3.0/120"]}`,
			[]string{at + "::network::track_public::0: "}},
		{"root of logs", "logs: {roots: [/]}", []string{at + `::logs: roots: "/"`}},
		{"relative root of logs", "logs: {roots: [var/log]}", []string{at + `::logs: roots: "var/log" is not an absolute path`}},
		{"relative journal", "logs: {journal_dirs: [journal]}", []string{at + `::logs: journal_dirs: "journal"`}},
		{"no patterns", "logs: {max_patterns_per_container: 0}", []string{at + "::logs: max_patterns_per_container: 0"}},
		{"no patterns of a level", "logs: {max_patterns_per_level: 20000}", []string{at + "::logs: max_patterns_per_level: 20000"}},
		{"unknown level", "logs: {count_only_levels: [debug, trace]}", []string{at + `::logs::count_only_levels::1: "trace" is not a level`}},
		{"negative rate", "logs: {max_messages_per_second: -1}", []string{at + "::logs: max_messages_per_second: -1"}},
		{"unknown forward", "logs: {forward: warnings}", []string{at + `::logs::forward: "warnings" is neither`}},
		{"checkpoints without unit", "logs: {checkpoint_interval: 5}", []string{at + "::logs: checkpoint_interval: 5ns"}},
		{"bad interface", `node: {interfaces: ["^eth", "["]}`, []string{at + "::node::interfaces::1: "}},
		{"empty interface", `node: {interfaces: [""]}`, []string{at + "::node::interfaces::0: the regular expression is empty"}},
		{"unknown part of the node", "node: {gpus: true}", []string{"gpus", "invalid keys"}},
		{"no listeners", "network: {max_listeners_per_container: 0}",
			[]string{at + "::network: max_listeners_per_container: 0"}},
		{"more listeners than ports", "network: {max_listeners_per_container: 65537}",
			[]string{at + "::network: max_listeners_per_container: 65537"}},
		{"zone without network", "network: {zones: [{cidr: 10.1.0.0, zone: a}]}", []string{at + `::network::zones::0: cidr: "10.1.0.0" is not a network`}},
		{"network without zone", "network: {zones: [{cidr: 10.1.0.0/16}]}", []string{at + `::network::zones::0: zone: "" is empty`}},
		{"relative file of zones", "network: {zones_file: zones}", []string{at + `::network: zones_file: "zones" is not an absolute path`}},
		{"cloud with a line break", `cloud: {region: "a\nb"}`, []string{at + "::cloud: "}},
		{"short idle timeout", "network: {idle_timeout: 59s}", []string{at + "::network: idle_timeout: 59s is less than 1m0s"}},
		{"idle timeout without unit", "network: {idle_timeout: 600}", []string{at + "::network: idle_timeout: 600ns"}},
		{"one port", "network: {ephemeral_port_range: 40000}", []string{"ephemeral_port_range"}},
		{"ports by word", "network: {ephemeral_port_range: none}",
			[]string{at + `::network::ephemeral_port_range: "none" is neither "off" nor a range of ports`}},
		{"ports backwards", "network: {ephemeral_port_range: 2-1}", []string{at + "::network::ephemeral_port_range: "}},
		{"port zero", "network: {ephemeral_port_range: 0-9}", []string{at + "::network::ephemeral_port_range: "}},
		{"port too large", "network: {ephemeral_port_range: 1-65536}", []string{at + "::network::ephemeral_port_range: "}},
		{"three ports", "network: {ephemeral_port_range: 1-2-3}", []string{at + "::network::ephemeral_port_range: "}},
		{"two of one section", "{root_path: x, timeout: 1}", []string{at + ": root_path: ", "; timeout: "}},
		{"zones with the identity of coroot", "{identity: coroot, network: {zone_attribute: true}}",
			[]string{at + ": network::zone_attribute: not together with identity: coroot"}},
		{"all at once", "{root_path: x, identity: y, logs: {roots: [x]}}",
			[]string{"root_path", at + "::identity", at + "::logs"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.yaml)
			if err == nil {
				t.Fatal("got no error")
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, want %q in it", err, part)
				}
			}
		})
	}
}
