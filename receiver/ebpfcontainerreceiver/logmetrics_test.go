// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"slices"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
)

func fullLogs(c *inventory.Container) {
	c.Logs = &inventory.LogCounts{
		Patterns: []inventory.LogPattern{
			{Source: "/var/log/app\xff.log", Level: inventory.LogInfo, Hash: "00000000000000aa", Template: "ready", Start: testStart, Messages: 5001},
			{Source: "stdout/stderr", Level: inventory.LogUnknown, Start: testStart, Messages: 5002}, // by level alone
			{
				Source: "stdout/stderr", Level: inventory.LogError, Hash: "0123456789abcdef", Template: "it broke <*>",
				Start: testStart, Messages: 5003,
			},
		},
		Sources: []inventory.LogSource{
			{Source: "/var/log/app\xff.log", Start: testStart, Bytes: 6001},
			{Source: "stdout/stderr", Start: testStart, Bytes: 6002, Dropped: [...]uint64{6003}},
		},
	}
}

// endLogs ends the last pattern of fullLogs.
func endLogs(c *inventory.Container) {
	counts := *c.Logs
	counts.Patterns = slices.Clone(counts.Patterns)
	counts.Patterns[2].Ended = true
	c.Logs = &counts
}
