// SPDX-License-Identifier: Apache-2.0

package ebpfcontainerreceiver

// NodeConfig of what is given of the host itself.
type NodeConfig struct {
	Enabled bool `mapstructure:"enabled"`
	CPU     bool `mapstructure:"cpu"`
	Memory  bool `mapstructure:"memory"`
	// Disks gives those of the host, and arrays of Linux software RAID.
	Disks bool `mapstructure:"disks"`
	// DiskHealth asks the disks themselves, every five minutes.
	DiskHealth bool `mapstructure:"disk_health"`
	// Network gives interfaces, protocols, open ports and connection tracking.
	Network  bool `mapstructure:"network"`
	Pressure bool `mapstructure:"pressure"`
	// Interfaces are given whose names match one of these; empty means the physical ones, and what is made of them.
	Interfaces []PatternConfig `mapstructure:"interfaces"`

	_ struct{}
}

func defaultNodeConfig() NodeConfig {
	return NodeConfig{
		Enabled: true, CPU: true, Memory: true, Disks: true, DiskHealth: true, Network: true, Pressure: true,
	}
}
