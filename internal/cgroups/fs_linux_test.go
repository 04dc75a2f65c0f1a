// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hostRoot is the cgroup file system of a host in testdata.
func hostRoot(host string) string {
	return filepath.Join("..", "..", "testdata", "hosts", host, "sys", "fs", "cgroup")
}

func openHost(t testing.TB, root string) *FS {
	t.Helper()
	f, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func readCgroup(t testing.TB, f *FS, path string) Stats {
	t.Helper()
	c := f.Cgroup(path)
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	var s Stats
	if err := c.Read(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// writeTree makes files, names ending in a slash being directories, and returns their root.
func writeTree(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if strings.HasSuffix(name, "/") {
			text, path = "", filepath.Join(path, "cgroup.procs")
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestOpenTellsModes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		links map[string]string
		mode  Mode
		find  string
	}{
		{name: "unified", files: map[string]string{"cgroup.controllers": ""}},
		{name: "unified in its place of a hybrid host", files: map[string]string{"unified/cgroup.controllers": ""}},
		{name: "hybrid", files: map[string]string{"unified/cgroup.controllers": "", "memory/": "", "cpu/": ""}, mode: ModeHybrid, find: "memory"},
		{name: "hybrid without memory", files: map[string]string{"unified/cgroup.controllers": "", "cpu/": "", "pids/": ""}, mode: ModeHybrid, find: "pids"},
		{name: "hybrid with systemd alone", files: map[string]string{"unified/cgroup.controllers": "", "systemd/": ""}, mode: ModeHybrid},
		{name: "legacy, mounted together", files: map[string]string{"cpu,cpuacct/": ""}, mode: ModeLegacy, find: "cpu"},
		{name: "legacy, accounting alone", files: map[string]string{"cpuacct/": "", "net_cls,net_prio/": ""}, mode: ModeLegacy, find: "cpuacct"},
		{
			name: "legacy with links", files: map[string]string{"cpuacct,cpu/": "", "blkio/": ""},
			links: map[string]string{"cpu": "cpuacct,cpu", "cpuacct": "cpuacct,cpu"}, mode: ModeLegacy, find: "cpu",
		},
		{name: "legacy without any that is read", files: map[string]string{"freezer/": ""}, mode: ModeLegacy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := writeTree(t, tt.files)
			for name, to := range tt.links {
				if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
					t.Fatal(err)
				}
			}
			f := openHost(t, root)
			if f.Mode() != tt.mode || f.LegacyController() != tt.find {
				t.Errorf("got %v and %q, want %v and %q", f.Mode(), f.LegacyController(), tt.mode, tt.find)
			}
			if err := f.Walk(t.Context(), func(Dir) {}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpenNamesTheRootWithoutCgroups(t *testing.T) {
	for _, root := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing"), writeTree(t, map[string]string{"memory/x": "", "docker/": ""})} {
		if _, err := Open(root); err == nil || !strings.Contains(err.Error(), root) {
			t.Errorf("got error %v, want one that names %s", err, root)
		}
	}
}

func TestModeString(t *testing.T) {
	got := []string{ModeUnified.String(), ModeHybrid.String(), ModeLegacy.String()}
	if diff := cmp.Diff([]string{"unified", "hybrid", "legacy"}, got); diff != "" {
		t.Error(diff)
	}
}

// fullMemory is the memory that the fixtures give to the container id1, for either version.
func fullMemory() Memory {
	return Memory{
		Usage: Some[uint64](104857600), WorkingSet: Some[uint64](104857600 - 31457280), RSS: Some[uint64](52428800 + 20971520),
		Cache: Some[uint64](41943040), Swap: Some[uint64](8192), Kernel: Some[uint64](2527232), Peak: Some[uint64](157286400),
		Limit: Some[uint64](268435456), MinorFaults: Some[uint64](81234 - 56), MajorFaults: Some[uint64](56),
		Events: MemoryEvents{OOMKill: Some[uint64](5)},
	}
}

// legacyStats are those of the fixtures that the v1 controllers give to id1.
func legacyStats() Stats {
	return Stats{
		CPU: CPU{
			Usage: Some(63012345678 * time.Nanosecond), User: Some(41 * time.Second), System: Some(22010 * time.Millisecond),
			Throttled: Some(2750000001 * time.Nanosecond), Periods: Some[uint64](1200), ThrottledPeriods: Some[uint64](34),
		},
		Memory:  fullMemory(),
		Devices: []Device{{Major: 8, ReadBytes: 1474560, WriteBytes: 3145728, Reads: 118, Writes: 241}},
		PIDs:    PIDs{Current: Some[uint64](23)},
	}
}

func fixturePressure() Pressure {
	return Pressure{
		CPU:    Stall{Some: Some(1234567 * time.Microsecond), Full: Some(7654 * time.Microsecond)},
		Memory: Stall{Some: Some(2000 * time.Microsecond), Full: Some(1000 * time.Microsecond)},
		IO:     Stall{Some: Some(345678 * time.Microsecond), Full: Some(340000 * time.Microsecond)},
	}
}

func TestReadUnified(t *testing.T) {
	f := openHost(t, hostRoot("unified"))
	full := fullMemory()
	full.Events = MemoryEvents{
		Low: Some[uint64](1), High: Some[uint64](2), Max: Some[uint64](3), OOM: Some[uint64](4), OOMKill: Some[uint64](5),
	}
	for path, want := range map[string]Stats{
		"/system.slice/docker-" + id1 + ".scope": {
			CPU: CPU{
				Usage: Some(63012345 * time.Microsecond), User: Some(41000111 * time.Microsecond), System: Some(22012234 * time.Microsecond),
				Throttled: Some(2750 * time.Millisecond), Periods: Some[uint64](1200), ThrottledPeriods: Some[uint64](34), LimitCores: Some(1.5),
			},
			Memory: full,
			Devices: []Device{
				{Major: 8, ReadBytes: 1474560, WriteBytes: 3145728, Reads: 118, Writes: 241},
				{Major: 253, ReadBytes: 1474560, WriteBytes: 3145728, Reads: 120, Writes: 260},
			},
			PIDs:     PIDs{Current: Some[uint64](23), Limit: Some[uint64](4096)},
			Pressure: fixturePressure(),
		},
		// Linux 5.10, no limits
		burstable + "/cri-containerd-" + id2 + ".scope": {
			CPU: CPU{
				Usage: Some(2 * time.Millisecond), User: Some(1500 * time.Microsecond), System: Some(500 * time.Microsecond),
				Throttled: Some[time.Duration](0), Periods: Some[uint64](0), ThrottledPeriods: Some[uint64](0),
			},
			Memory: Memory{
				Usage: Some[uint64](4096), WorkingSet: Some[uint64](0), RSS: Some[uint64](1200), Cache: Some[uint64](5000),
				Swap: Some[uint64](0), Kernel: Some[uint64](16384 + 480 + 20000), MinorFaults: Some[uint64](0), MajorFaults: Some[uint64](9),
				Events: MemoryEvents{
					Low: Some[uint64](0), High: Some[uint64](0), Max: Some[uint64](0), OOM: Some[uint64](0), OOMKill: Some[uint64](0),
				},
			},
			PIDs:     PIDs{Current: Some[uint64](1)},
			Pressure: Pressure{CPU: Stall{Some: Some(42 * time.Microsecond)}},
		},
		// no controllers
		"/init.scope": {CPU: CPU{Usage: Some(5 * time.Second), User: Some(2 * time.Second), System: Some(3 * time.Second)}},
	} {
		if diff := cmp.Diff(want, readCgroup(t, f, path)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", path, diff)
		}
	}
}

func TestReadLegacy(t *testing.T) {
	f := openHost(t, hostRoot("legacy"))
	limited := legacyStats()
	limited.CPU.LimitCores = Some(1.5)
	for path, want := range map[string]Stats{
		"/docker/" + id1: limited,
		"/docker/" + id2: { // Linux 4.4
			CPU: CPU{
				Usage: Some(2 * time.Microsecond), User: Some[time.Duration](0), System: Some[time.Duration](0),
				Throttled: Some[time.Duration](0), Periods: Some[uint64](0), ThrottledPeriods: Some[uint64](0),
			},
			Memory: Memory{
				Usage: Some[uint64](4096), WorkingSet: Some[uint64](0), RSS: Some[uint64](1200), Cache: Some[uint64](5000),
				Peak: Some[uint64](8192), MinorFaults: Some[uint64](0), MajorFaults: Some[uint64](9),
			},
			Devices: []Device{{Major: 253, Minor: 1, ReadBytes: 4096, Reads: 1}},
		},
	} {
		if diff := cmp.Diff(want, readCgroup(t, f, path)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", path, diff)
		}
	}
}

func TestReadHybrid(t *testing.T) {
	f := openHost(t, hostRoot("hybrid"))
	inhabited := legacyStats()
	inhabited.CPU.LimitCores = Some(0.5)
	inhabited.Devices = []Device{{Major: 8, Minor: 16, ReadBytes: 8192, WriteBytes: 4096, Reads: 2, Writes: 1}} // BFQ's
	inhabited.Pressure = fixturePressure()
	for path, want := range map[string]Stats{
		"/docker/" + id1:              legacyStats(), // its mirror in v2 is empty and tells zeros
		"/system.slice/nginx.service": inhabited,
		"/system.slice/cron.service": { // in v2 alone
			CPU: CPU{Usage: Some(777 * time.Millisecond), User: Some(700 * time.Millisecond), System: Some(77 * time.Millisecond)},
			Pressure: Pressure{
				CPU:    Stall{Some: Some(9 * time.Microsecond), Full: Some(8 * time.Microsecond)},
				Memory: Stall{Some: Some(7 * time.Microsecond), Full: Some(6 * time.Microsecond)},
				IO:     Stall{Some: Some(5 * time.Microsecond), Full: Some(4 * time.Microsecond)},
			},
		},
		"/system.slice/idle.service": {}, // in v2 alone, without processes
	} {
		if diff := cmp.Diff(want, readCgroup(t, f, path)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", path, diff)
		}
	}
}

func TestReadOfNothing(t *testing.T) {
	for _, host := range []string{"unified", "hybrid", "legacy"} {
		c := openHost(t, hostRoot(host)).Cgroup("/docker/" + id3)
		s := Stats{Devices: []Device{{Major: 1}}, PIDs: PIDs{Current: Some[uint64](1)}}
		for range 3 {
			if err := c.Read(&s); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: got error %v, want %v", host, err, fs.ErrNotExist)
			}
		}
		if len(s.Devices) != 0 || s.PIDs.Current.OK {
			t.Errorf("%s: values of an earlier read were left: %+v", host, s)
		}
	}
}

func TestReadStaysBelowTheRoot(t *testing.T) {
	f := openHost(t, writeTree(t, map[string]string{"cgroup.controllers": "", "cpu.stat": "usage_usec 1\n"}))
	if got := readCgroup(t, f, "/../.."); got.CPU.Usage != Some(time.Microsecond) {
		t.Errorf("got %v, want that of the root", got.CPU.Usage)
	}
}

func TestReadGivesTheRestOfBadFiles(t *testing.T) {
	f := openHost(t, writeTree(t, map[string]string{
		"cgroup.controllers": "", "a/cpu.stat": "usage_usec many\n", "a/memory.current": "7\n", "a/memory.max": "-3\n",
	}))
	c := f.Cgroup("/a")
	defer c.Close()
	var got Stats
	err := c.Read(&got)
	if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "/a/cpu.stat") || !strings.Contains(err.Error(), "/a/memory.max") {
		t.Errorf("got error %v, want one that names both files", err)
	}
	if diff := cmp.Diff(Stats{Memory: Memory{Usage: Some[uint64](7)}}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestReadLongFiles(t *testing.T) {
	var text strings.Builder
	var want []Device
	for i := range uint32(2000) {
		n := strconv.Itoa(int(i))
		text.WriteString("8:" + n + " rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n")
		want = append(want, Device{Major: 8, Minor: i, ReadBytes: 1, WriteBytes: 2, Reads: 3, Writes: 4})
	}
	f := openHost(t, writeTree(t, map[string]string{"cgroup.controllers": "", "a/io.stat": text.String()}))
	if diff := cmp.Diff(want, readCgroup(t, f, "/a").Devices); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestReadFindsFilesThatAppearLater(t *testing.T) {
	root := writeTree(t, map[string]string{"cgroup.controllers": "", "a/cpu.stat": "usage_usec 1\n"})
	c := openHost(t, root).Cgroup("/a")
	defer c.Close()
	var s Stats
	for range 20 {
		if err := c.Read(&s); err != nil || s.PIDs.Current.OK {
			t.Fatalf("got %v and error %v, want neither", s.PIDs.Current, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "a", "pids.current"), []byte("5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	reads := 0
	for ; !s.PIDs.Current.OK && reads <= retryEvery; reads++ {
		if err := c.Read(&s); err != nil {
			t.Fatal(err)
		}
	}
	if s.PIDs.Current != Some[uint64](5) {
		t.Errorf("after %d reads: got %v, want 5", reads, s.PIDs.Current)
	}
}

func TestReadKeepsNoMoreDescriptorsThanAllowed(t *testing.T) {
	f := openHost(t, hostRoot("unified"))
	path := "/system.slice/docker-" + id1 + ".scope"
	want := readCgroup(t, f, path)
	before := openDescriptors(t)
	f.maxOpen = 5
	var cs []*Cgroup
	for range 3 {
		c := f.Cgroup(path)
		cs = append(cs, c)
		for range 2 {
			var got Stats
			if err := c.Read(&got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("(-want +got)\n%s", diff)
			}
		}
	}
	if n := openDescriptors(t) - before; n != 5 {
		t.Errorf("%d descriptors are open, want 5", n)
	}
	for _, c := range cs {
		c.Close()
	}
	if n := openDescriptors(t) - before; n != 0 || f.open.Load() != 0 {
		t.Errorf("after Close %d descriptors are open, %d by our count, want none", n, f.open.Load())
	}
}

// A container that is started again has its cgroup at the same path.
func TestReadStaysWithItsCgroupWithoutDescriptors(t *testing.T) {
	root := writeTree(t, map[string]string{"cgroup.controllers": "", "a/cpu.stat": "usage_usec 5\n"})
	f := openHost(t, root)
	f.maxOpen = 0
	c := f.Cgroup("/a")
	defer c.Close()
	var s Stats
	if err := c.Read(&s); err != nil || s.CPU.Usage != Some(5*time.Microsecond) {
		t.Fatalf("got %v, %v", s.CPU.Usage, err)
	}
	if err := os.Rename(filepath.Join(root, "a"), filepath.Join(root, "was")); err != nil { // keeps the inode number in use
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(root, "a"), os.DirFS(filepath.Join(root, "was"))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Read(&s); !errors.Is(err, fs.ErrNotExist) || s.CPU.Usage.OK {
			t.Errorf("got %v, %v of another cgroup", s.CPU.Usage, err)
		}
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestFSIsSafeForConcurrentUse(t *testing.T) {
	f := openHost(t, hostRoot("hybrid"))
	f.maxOpen = 20 // both ways of opening are taken
	want := readCgroup(t, f, "/docker/"+id1)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c := f.Cgroup("/docker/" + id1)
			defer c.Close()
			for range 50 {
				var got Stats
				if err := c.Read(&got); err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
				if err := f.Walk(t.Context(), func(Dir) {}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := f.open.Load(); n != 0 {
		t.Errorf("%d descriptors are kept after all were closed", n)
	}
}
