// SPDX-License-Identifier: Apache-2.0

package ebpfcontainerreceiver

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/scraper/scraperhelper"

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
	// TrackPublic are the public networks whose addresses are given one by one; the rest is summed up in one.
	TrackPublic []PrefixConfig `mapstructure:"track_public"`

	_ struct{}
}

// CloudConfig says where the host runs. What is empty is not given.
type CloudConfig struct {
	Provider         string `mapstructure:"provider"`
	Region           string `mapstructure:"region"`
	AvailabilityZone string `mapstructure:"availability_zone"`
	AccountID        string `mapstructure:"account_id"`
	InstanceID       string `mapstructure:"instance_id"`
	InstanceType     string `mapstructure:"instance_type"`

	_ struct{}
}

// LogsConfig is reserved: this version reads no logs of containers. Records of exits and OOM kills do not depend on it.
type LogsConfig struct {
	Enabled bool `mapstructure:"enabled"`

	_ struct{}
}

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

// PatternConfig is a regular expression on the path form of a container.
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
		Disks:                DisksConfig{Enabled: true},
		Network: NetworkConfig{
			Enabled:                     true,
			MaxEdges:                    32768,
			MaxDestinationsPerContainer: 1000,
			MaxListenersPerContainer:    200,
			IdleTimeout:                 10 * time.Minute,
			TrackPublic:                 []PrefixConfig{"0.0.0.0/0", "::/0"},
		},
	}
}

// Validate checks paths and durations; the collector calls the Validate of each part by itself.
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
	if c.IdleTimeout < minIdleTimeout {
		errs = append(errs, fmt.Errorf("idle_timeout: %v is less than %v", c.IdleTimeout, minIdleTimeout))
	}
	return oneLine(errs)
}

// Validate refuses what does not exist yet, so that nobody waits for it.
func (c *LogsConfig) Validate() error {
	if c.Enabled {
		return errors.New("enabled: this version does not read the logs of containers yet")
	}
	return nil
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
