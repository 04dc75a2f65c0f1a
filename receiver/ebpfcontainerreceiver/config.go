// SPDX-License-Identifier: Apache-2.0

package ebpfcontainerreceiver

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/scraper/scraperhelper"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cloudmeta"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// Config of the receiver. README.md describes each key.
type Config struct {
	scraperhelper.ControllerConfig `mapstructure:",squash"`
	metadata.MetricsBuilderConfig  `mapstructure:",squash"`

	// RootPath is where the host's root file system is seen from here.
	RootPath string `mapstructure:"root_path"`
	// CgroupRoot is where the host's cgroup file systems are mounted. Empty means sys/fs/cgroup below RootPath.
	CgroupRoot string `mapstructure:"cgroup_root"`
	// Identity chooses the resource attributes.
	Identity IdentityMode `mapstructure:"identity"`

	Containers ContainersConfig `mapstructure:"containers"`
	Runtimes   RuntimesConfig   `mapstructure:"runtimes"`
	Disks      DisksConfig      `mapstructure:"disks"`
	Network    NetworkConfig    `mapstructure:"network"`
	Cloud      CloudConfig      `mapstructure:"cloud"`
	Logs       LogsConfig       `mapstructure:"logs"`
	Latency    LatencyConfig    `mapstructure:"latency"`
	Delays     DelaysConfig     `mapstructure:"delays"`
	Node       NodeConfig       `mapstructure:"node"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// ContainersConfig tells which containers are given.
type ContainersConfig struct {
	// Include takes the containers whose path form matches one of these; empty takes all.
	Include []PatternConfig `mapstructure:"include"`
	// Exclude leaves out what it matches, whatever Include says.
	Exclude []PatternConfig `mapstructure:"exclude"`
	// MinAge leaves out containers that are younger.
	MinAge time.Duration `mapstructure:"min_age"`
	// SkipSystemUnits leaves out the housekeeping services that every host has.
	SkipSystemUnits bool `mapstructure:"skip_system_units"`

	_ struct{}
}

// RuntimesConfig of the container runtimes, and systemd, that are asked for names.
type RuntimesConfig struct {
	// Enabled asks them. Without it containers have the ids and names that their cgroups tell.
	Enabled bool `mapstructure:"enabled"`
	// Sockets are asked instead of those where runtimes usually listen; an empty list asks none of a kind.
	Sockets SocketsConfig `mapstructure:"sockets"`

	_ struct{}
}

// SocketsConfig has paths of sockets on the host, by what answers there.
type SocketsConfig struct {
	Docker     []string `mapstructure:"docker"`
	Podman     []string `mapstructure:"podman"`
	CRI        []string `mapstructure:"cri"`
	Containerd []string `mapstructure:"containerd"`
	Systemd    []string `mapstructure:"systemd"`

	_ struct{}
}

// DisksConfig of the file systems that containers write to.
type DisksConfig struct {
	Enabled bool `mapstructure:"enabled"`
	// Tmpfs gives those in memory as well.
	Tmpfs bool `mapstructure:"tmpfs"`

	_ struct{}
}

// NetworkConfig of the TCP connections that containers begin and accept.
type NetworkConfig struct {
	Enabled bool `mapstructure:"enabled"`
	// MaxEdges is the capacity of the kernel's table of pairs of container and destination.
	MaxEdges int `mapstructure:"max_edges"`
	// MaxDestinationsPerContainer bounds the destinations given one by one; the rest is summed up in one.
	MaxDestinationsPerContainer int `mapstructure:"max_destinations_per_container"`
	// MaxListenersPerContainer bounds the listening addresses given one by one; the rest is summed up in one.
	MaxListenersPerContainer int `mapstructure:"max_listeners_per_container"`
	// EphemeralPortRange has the ports that are no destinations of their own, unless something on the host was seen
	// listening there, and no listeners. Empty means the host's net.ipv4.ip_local_port_range, "off" means none.
	EphemeralPortRange PortRangeConfig `mapstructure:"ephemeral_port_range"`
	// IdleTimeout ends the series of destinations and listeners that were without a connection or change for so long.
	IdleTimeout time.Duration `mapstructure:"idle_timeout"`
	// Zones tell in which zone the peers of a network are, ZonesFile has more of them: a line for each, 10.1.0.0/16 eu-central-1a.
	// It is read again when it changes.
	Zones     []ZoneConfig `mapstructure:"zones"`
	ZonesFile string       `mapstructure:"zones_file"`
	// ZoneAttribute adds the attribute actual_destination_zone to the metrics that have actual_destination.
	ZoneAttribute bool `mapstructure:"zone_attribute"`
	// TrackPublic are the public networks whose addresses are given one by one; the rest is summed up in one.
	TrackPublic []PrefixConfig `mapstructure:"track_public"`

	_ struct{}
}

// ZoneConfig is a network and the zone that it is in.
type ZoneConfig struct {
	CIDR string `mapstructure:"cidr"`
	Zone string `mapstructure:"zone"`

	_ struct{}
}

// CloudConfig of the cloud that the host runs in. What is set wins over what the cloud tells; if all is, nothing is asked.
type CloudConfig struct {
	// Enabled asks the metadata service of the provider that the firmware tells, if there is one.
	Enabled bool `mapstructure:"enabled"`

	Provider          string `mapstructure:"provider"`
	AccountID         string `mapstructure:"account_id"`
	InstanceID        string `mapstructure:"instance_id"`
	InstanceType      string `mapstructure:"instance_type"`
	InstanceLifeCycle string `mapstructure:"instance_life_cycle"`
	Region            string `mapstructure:"region"`
	AvailabilityZone  string `mapstructure:"availability_zone"`

	_ struct{}
}

// LogsConfig of what containers and services log. Records of exits and OOM kills do not depend on it.
type LogsConfig struct {
	Enabled bool `mapstructure:"enabled"`
	// Roots are directories, as containers see them. What their processes write to below them are log files.
	Roots []string `mapstructure:"roots"`
	// Journal reads the journal of systemd, for services and for containers that log there.
	Journal bool `mapstructure:"journal"`
	// JournalDirs on the host have the files of the journal; empty means where systemd has them.
	JournalDirs []string `mapstructure:"journal_dirs"`
	// MaxPatternsPerContainer bounds the patterns of a container, MaxPatternsPerLevel those of each level. What is beyond is
	// counted by its level alone.
	MaxPatternsPerContainer int `mapstructure:"max_patterns_per_container"`
	MaxPatternsPerLevel     int `mapstructure:"max_patterns_per_level"`
	// CountOnlyLevels are counted without looking for patterns.
	CountOnlyLevels []LevelName `mapstructure:"count_only_levels"`
	// MaxMessagesPerSecond of a container are counted, the others are dropped and counted as such. 0 is no limit.
	MaxMessagesPerSecond float64 `mapstructure:"max_messages_per_second"`
	// NewPatterns gives a log record of each new pattern.
	NewPatterns bool `mapstructure:"new_patterns"`
	// Forward chooses the messages that are given as log records.
	Forward ForwardMode `mapstructure:"forward"`
	// Storage is the id of a storage extension, in which places and counts outlast the collector.
	Storage *component.ID `mapstructure:"storage"`
	// CheckpointInterval is how often they are saved.
	CheckpointInterval time.Duration `mapstructure:"checkpoint_interval"`

	_ struct{}
}

// LevelName is a level of messages: unknown, debug, info, warning, error or critical.
type LevelName string

// ForwardMode chooses the messages that are given as log records.
type ForwardMode string

const (
	// ForwardNone gives none, beside those of new patterns.
	ForwardNone ForwardMode = "none"
	// ForwardErrors gives those of the levels error and critical.
	ForwardErrors ForwardMode = "errors"
	// ForwardAll gives all.
	ForwardAll ForwardMode = "all"
)

// levelNames are those of inventory.LogLevel, in its order.
var levelNames = [...]LevelName{"unknown", "debug", "info", "warning", "error", "critical"}

const (
	// maxPatternsLimit keeps one container below some 30 MB.
	maxPatternsLimit = 1 << 14
	// minCheckpoint keeps saving from being all that is done.
	minCheckpoint = 100 * time.Millisecond
)

// LatencyConfig of the round-trip times to destinations.
type LatencyConfig struct {
	// ICMP sends echo requests to destinations without an open connection, whose round-trip time the kernel knows.
	ICMP bool `mapstructure:"icmp"`

	_ struct{}
}

// DelaysConfig of the times that tasks wait.
type DelaysConfig struct {
	// EnableAccounting switches the kernel's delay accounting on where it is off: for the whole host, and for good.
	EnableAccounting bool `mapstructure:"enable_accounting"`

	_ struct{}
}

// IdentityMode chooses the resource attributes by which a container is told apart.
type IdentityMode string

const (
	// IdentitySemconv gives the attributes of the OpenTelemetry semantic conventions.
	IdentitySemconv IdentityMode = "semconv"
	// IdentityCoroot gives those of coroot-node-agent, and no others.
	IdentityCoroot IdentityMode = "coroot"
)

// PatternConfig is a regular expression, such as one on the path form of a container.
type PatternConfig string

// PrefixConfig is a network in CIDR form.
type PrefixConfig string

// PortRangeConfig is a range of ports such as 32768-60999, both ends included.
type PortRangeConfig string

// portRangeOff is the empty range; the empty string leaves the choice to the host.
const portRangeOff PortRangeConfig = "off"

// maxEdgesLimit keeps the kernel's table below some 200 MB.
const maxEdgesLimit = 1 << 20

// maxListenersLimit is how many ports there are.
const maxListenersLimit = 1 << 16

// minIdleTimeout is some collections long: a peer that comes back so soon is better one series than two.
const minIdleTimeout = time.Minute

// minDuration finds numbers without a unit, which the collector takes for nanoseconds.
const minDuration = 100 * time.Millisecond

func createDefaultConfig() component.Config {
	controller := scraperhelper.NewDefaultControllerConfig()
	controller.CollectionInterval = 15 * time.Second
	controller.InitialDelay = 0 // Start has found all containers, there is nothing to wait for
	controller.Timeout = 10 * time.Second
	return &Config{
		ControllerConfig:     controller,
		MetricsBuilderConfig: metadata.NewDefaultMetricsBuilderConfig(),
		RootPath:             "/",
		Identity:             IdentitySemconv,
		Containers:           ContainersConfig{SkipSystemUnits: true},
		Runtimes:             RuntimesConfig{Enabled: true},
		Cloud:                CloudConfig{Enabled: true},
		Disks:                DisksConfig{Enabled: true},
		Logs: LogsConfig{
			Enabled:                 true,
			Roots:                   []string{"/var/log"},
			Journal:                 true,
			MaxPatternsPerContainer: 512,
			MaxPatternsPerLevel:     256,
			NewPatterns:             true,
			Forward:                 ForwardNone,
			CheckpointInterval:      5 * time.Second,
		},
		Network: NetworkConfig{
			Enabled:                     true,
			MaxEdges:                    32768,
			MaxDestinationsPerContainer: 1000,
			MaxListenersPerContainer:    200,
			IdleTimeout:                 10 * time.Minute,
			TrackPublic:                 []PrefixConfig{"0.0.0.0/0", "::/0"},
		},
		Node: defaultNodeConfig(),
	}
}

// Validate checks paths, durations and what does not go together; the collector calls the Validate of each part by itself.
func (c *Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.RootPath) {
		errs = append(errs, fmt.Errorf("root_path: %q is not an absolute path", c.RootPath))
	}
	if c.CgroupRoot != "" && !filepath.IsAbs(c.CgroupRoot) {
		errs = append(errs, fmt.Errorf("cgroup_root: %q is not an absolute path", c.CgroupRoot))
	}
	// The collector itself refuses what is negative, and an interval of zero.
	if c.CollectionInterval > 0 && c.CollectionInterval < minDuration {
		errs = append(errs, fmt.Errorf("collection_interval: %v is less than %v; is the unit missing?",
			c.CollectionInterval, minDuration))
	}
	if c.Timeout >= 0 && c.Timeout < minDuration {
		errs = append(errs, fmt.Errorf("timeout: %v is less than %v; is the unit missing?", c.Timeout, minDuration))
	}
	if c.Network.ZoneAttribute && c.Identity == IdentityCoroot {
		errs = append(errs, errors.New("network::zone_attribute: not together with identity: coroot, where it would split series"))
	}
	return oneLine(errs)
}

// oneLine joins errs. The collector puts the path of the section before the text, but not before each line of it.
func oneLine(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}

// Validate refuses unknown modes.
func (m IdentityMode) Validate() error {
	switch m {
	case IdentitySemconv, IdentityCoroot:
		return nil
	}
	return fmt.Errorf("%q is neither %q nor %q", string(m), IdentitySemconv, IdentityCoroot)
}

// Validate refuses ages below zero.
func (c *ContainersConfig) Validate() error {
	if c.MinAge < 0 {
		return fmt.Errorf("min_age: %v is negative", c.MinAge)
	}
	return nil
}

// Validate refuses sockets that could not be found.
func (c *SocketsConfig) Validate() error {
	var errs []error
	for _, sockets := range [...][]string{c.Docker, c.Podman, c.CRI, c.Containerd, c.Systemd} {
		for _, s := range sockets {
			if !filepath.IsAbs(s) {
				errs = append(errs, fmt.Errorf("%q is not an absolute path", s))
			}
		}
	}
	return oneLine(errs)
}

// Validate refuses limits that hold nothing or more than memory, and series that would end between two connections.
func (c *NetworkConfig) Validate() error {
	var errs []error
	if c.MaxEdges < 1 || c.MaxEdges > maxEdgesLimit {
		errs = append(errs, fmt.Errorf("max_edges: %d is not between 1 and %d", c.MaxEdges, maxEdgesLimit))
	}
	if c.MaxDestinationsPerContainer < 1 || c.MaxDestinationsPerContainer > maxEdgesLimit {
		errs = append(errs, fmt.Errorf("max_destinations_per_container: %d is not between 1 and %d",
			c.MaxDestinationsPerContainer, maxEdgesLimit))
	}
	if c.MaxListenersPerContainer < 1 || c.MaxListenersPerContainer > maxListenersLimit {
		errs = append(errs, fmt.Errorf("max_listeners_per_container: %d is not between 1 and %d",
			c.MaxListenersPerContainer, maxListenersLimit))
	}
	if c.ZonesFile != "" && !filepath.IsAbs(c.ZonesFile) {
		errs = append(errs, fmt.Errorf("zones_file: %q is not an absolute path", c.ZonesFile))
	}
	if c.IdleTimeout < minIdleTimeout {
		errs = append(errs, fmt.Errorf("idle_timeout: %v is less than %v", c.IdleTimeout, minIdleTimeout))
	}
	return oneLine(errs)
}

// Validate refuses what is not a network, and what is no label.
func (c *ZoneConfig) Validate() error {
	if _, err := PrefixConfig(c.CIDR).parse(); err != nil {
		return fmt.Errorf("cidr: %w", err)
	}
	if c.Zone == "" || len(c.Zone) > maxLabel || !utf8.ValidString(c.Zone) {
		return fmt.Errorf("zone: %q is empty, longer than %d bytes or not UTF-8", c.Zone, maxLabel)
	}
	return nil
}

// maxLabel is how long a text may be that becomes a label.
const maxLabel = 128

// Validate refuses what cannot be a label.
func (c *CloudConfig) Validate() error {
	if err := c.instance().Validate(); err != nil {
		return err
	}
	return nil
}

// instance is what the user says of it.
func (c *CloudConfig) instance() cloudmeta.Instance {
	i := cloudmeta.Instance{
		AccountID: c.AccountID, InstanceID: c.InstanceID, InstanceType: c.InstanceType, LifeCycle: c.InstanceLifeCycle,
		Region: c.Region, AvailabilityZone: c.AvailabilityZone,
	}
	if c.Provider != "" {
		i.Provider, _ = cloudmeta.ParseProvider(c.Provider)
	}
	return i
}

// Validate refuses paths that could not be found, and limits that hold nothing.
func (c *LogsConfig) Validate() error {
	var errs []error
	for _, dir := range c.Roots {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
			errs = append(errs, fmt.Errorf("roots: %q is not an absolute path of a directory of logs", dir))
		}
	}
	for _, dir := range c.JournalDirs {
		if !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("journal_dirs: %q is not an absolute path", dir))
		}
	}
	if c.MaxPatternsPerContainer < 1 || c.MaxPatternsPerContainer > maxPatternsLimit {
		errs = append(errs, fmt.Errorf("max_patterns_per_container: %d is not between 1 and %d",
			c.MaxPatternsPerContainer, maxPatternsLimit))
	}
	if c.MaxPatternsPerLevel < 1 || c.MaxPatternsPerLevel > maxPatternsLimit {
		errs = append(errs, fmt.Errorf("max_patterns_per_level: %d is not between 1 and %d", c.MaxPatternsPerLevel, maxPatternsLimit))
	}
	if c.MaxMessagesPerSecond < 0 {
		errs = append(errs, fmt.Errorf("max_messages_per_second: %v is negative", c.MaxMessagesPerSecond))
	}
	if c.CheckpointInterval < minCheckpoint {
		errs = append(errs, fmt.Errorf("checkpoint_interval: %v is less than %v; is the unit missing?", c.CheckpointInterval, minCheckpoint))
	}
	return oneLine(errs)
}

// Validate refuses what is no level.
func (l LevelName) Validate() error {
	if slices.Contains(levelNames[:], l) {
		return nil
	}
	return fmt.Errorf("%q is not a level: unknown, debug, info, warning, error or critical", string(l))
}

// Validate refuses unknown modes.
func (m ForwardMode) Validate() error {
	switch m {
	case ForwardNone, ForwardErrors, ForwardAll:
		return nil
	}
	return fmt.Errorf("%q is neither %q, %q nor %q", string(m), ForwardNone, ForwardErrors, ForwardAll)
}

// Validate refuses what is not a regular expression, and the empty one, which matches everything.
func (p PatternConfig) Validate() error {
	if p == "" {
		return errors.New("the regular expression is empty")
	}
	_, err := regexp.Compile(string(p))
	return err
}

// Validate refuses what is not a network.
func (p PrefixConfig) Validate() error {
	_, err := p.parse()
	return err
}

func (p PrefixConfig) parse() (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(string(p))
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is not a network such as 203.0.113.0/24", string(p))
	case prefix.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q: write IPv4 networks as IPv4", string(p))
	}
	return prefix.Masked(), nil
}

// Validate refuses what is not a range of ports.
func (p PortRangeConfig) Validate() error {
	_, _, err := p.parse()
	return err
}

// parse gives the range, an empty one with first after last for "off", and zeros for the host's.
func (p PortRangeConfig) parse() (first, last uint16, err error) {
	switch p {
	case "":
		return 0, 0, nil
	case portRangeOff:
		return 1, 0, nil
	}
	from, to, _ := strings.Cut(string(p), "-")
	lo, errLo := strconv.ParseUint(from, 10, 16)
	hi, errHi := strconv.ParseUint(to, 10, 16)
	if errLo != nil || errHi != nil || lo == 0 || lo > hi {
		return 0, 0, fmt.Errorf("%q is neither %q nor a range of ports such as 32768-60999", string(p), portRangeOff)
	}
	return uint16(lo), uint16(hi), nil
}
