// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
)

func fullTasks(c *inventory.Container) {
	for i := range c.Tasks.Delays {
		c.Tasks.Delays[i] = cgroups.Some(time.Duration(5000+i) * time.Millisecond)
	}
	c.Tasks.OOMKills = cgroups.Some[uint64](5100)
	c.Tasks.Exits = cgroups.Some([inventory.NumExitReasons]uint64{5200, 5201, 5202, 5203})
	c.Tasks.Restarts = cgroups.Some[uint64](5300)
	c.ApplicationTypes = []string{"nginx", "php-fpm"}
}

// values gives the values of the metrics of tasks, by series.
func values(t *testing.T, c inventory.Container) map[string]float64 {
	t.Helper()
	got := map[string]float64{}
	md := testWriter(createDefaultConfig().(*Config)).write(inventory.Snapshot{At: testNow, Containers: []inventory.Container{c}})
	for _, rm := range md.ResourceMetrics().All() {
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			for _, dp := range pointsOf(m).All() {
				name := series(strings.TrimPrefix(m.Name(), "container."), testPoint{point: dp})
				got[name] = dp.DoubleValue() + float64(dp.IntValue())
			}
		}
	}
	return got
}

// noInfo is container.info of a container of which no runtime tells.
const noInfo = "infomap[image: systemd_triggered_by: systemd_type:]"

func TestMetricsOfTasks(t *testing.T) {
	var none inventory.Tasks
	fromFiles := inventory.Tasks{OOMKills: cgroups.Some[uint64](3)} // without the kernel program
	noAccounting := inventory.Tasks{
		OOMKills: cgroups.Some[uint64](0), Exits: cgroups.Some([inventory.NumExitReasons]uint64{}),
		Restarts: cgroups.Some[uint64](0),
	}
	noAccounting.Delays[inventory.DelayCPU] = cgroups.Some(1500 * time.Millisecond)
	var all inventory.Container
	fullTasks(&all)
	for _, tt := range []struct {
		name  string
		tasks inventory.Tasks
		want  map[string]float64
	}{
		{"nothing known", none, map[string]float64{}},
		{"files only", fromFiles, map[string]float64{"oom_killsmap[]": 3}},
		{"zeros are given", noAccounting, map[string]float64{
			"resources.cpu.delaymap[]":     1.5,
			"resources.delaymap[kind:cpu]": 1.5,
			"oom_killsmap[]":               0,
			"exitsmap[reason:completed]":   0,
			"exitsmap[reason:error]":       0,
			"exitsmap[reason:signal]":      0,
			"exitsmap[reason:oom_killed]":  0,
			"restartsmap[]":                0,
		}},
		{"all", all.Tasks, map[string]float64{
			"resources.cpu.delaymap[]":           5,
			"resources.disk.delaymap[]":          5.001,
			"resources.delaymap[kind:cpu]":       5,
			"resources.delaymap[kind:blkio]":     5.001,
			"resources.delaymap[kind:swapin]":    5.002,
			"resources.delaymap[kind:reclaim]":   5.003,
			"resources.delaymap[kind:thrashing]": 5.004,
			"resources.delaymap[kind:compact]":   5.005,
			"resources.delaymap[kind:wpcopy]":    5.006,
			"resources.delaymap[kind:irq]":       5.007,
			"oom_killsmap[]":                     5100,
			"exitsmap[reason:completed]":         5200,
			"exitsmap[reason:error]":             5201,
			"exitsmap[reason:signal]":            5202,
			"exitsmap[reason:oom_killed]":        5203,
			"restartsmap[]":                      5300,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := at("/docker/" + idA)
			c.Tasks = tt.tasks
			tt.want[noInfo] = 1
			if diff := cmp.Diff(tt.want, values(t, c)); diff != "" {
				t.Errorf("values (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMetricsOfApplicationTypes(t *testing.T) {
	c := at("/docker/" + idA)
	c.ApplicationTypes = []string{"java", "odd\xff"}
	want := map[string]float64{
		"application_typemap[application_type:java]": 1, `application_typemap[application_type:odd\xff]`: 1,
		noInfo: 1,
	}
	if diff := cmp.Diff(want, values(t, c)); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}
