// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func metalStats() Stats {
	const kB = 1024
	return Stats{
		Uptime: Some(90061*time.Second + 520*time.Millisecond),
		CPU: Some(CPU{
			LogicalCores: 4,
			User:         3018.54, Nice: 6.12, System: 1119.22, Idle: 89790.04, IOWait: 35.52, IRQ: 0.02, SoftIRQ: 39.44, Steal: 7,
		}),
		Memory: Memory{
			Total: Some(uint64(65536000 * kB)), Free: Some(uint64(1024000 * kB)), Available: Some(uint64(32768000 * kB)),
			Cached: Some(uint64(20480000 * kB)),
		},
		Disks: []Disk{
			{
				Name: "sda", Reads: 1000, Writes: 2000, Read: 80000 * 512, Written: 160000 * 512,
				ReadTime: 4 * time.Second, WriteTime: 9 * time.Second, IOTime: 7 * time.Second,
			},
			{
				Name: "sdb", Reads: 1001, Writes: 2001, Read: 80008 * 512, Written: 160008 * 512,
				ReadTime: 4001 * time.Millisecond, WriteTime: 9001 * time.Millisecond, IOTime: 7001 * time.Millisecond,
			},
			{Name: "md127", Stacked: true, Reads: 1900, Writes: 3800, Read: 150000 * 512, Written: 300000 * 512},
			{
				Name: "dm-0", Stacked: true, Reads: 1899, Writes: 3799, Read: 149992 * 512, Written: 299992 * 512,
				ReadTime: 7999 * time.Millisecond, WriteTime: 17999 * time.Millisecond, IOTime: 6999 * time.Millisecond,
			},
			{
				Name: "nvme0n1", Reads: 14033097, Writes: 1203309, Read: 764312418 * 512, Written: 168714320 * 512,
				ReadTime: 4294967290 * time.Millisecond, WriteTime: 1129426 * time.Millisecond, IOTime: 973368 * time.Millisecond,
			},
			{
				Name: "cciss/c0d0", Reads: 7, Writes: 7, Read: 56 * 512, Written: 56 * 512,
				ReadTime: time.Millisecond, WriteTime: time.Millisecond, IOTime: 2 * time.Millisecond,
			},
		},
		Arrays: []Array{
			{Name: "md127", Level: "raid1", State: "active", Active: 2, Total: 2},
			{Name: "md0", Level: "raid5", State: "recovering", Active: 1, Total: 3, Failed: 1, Down: 2, Synced: Some(366283680.0 / 2930269440)},
			{Name: "md5", Level: "unknown", State: "inactive", Spare: 2},
		},
		Interfaces: []Interface{
			{Name: "bond0", Up: Some(true), Receive: Traffic{2001, 21, 1, 2}, Transmit: Traffic{4001, 41, 3, 4}},
			{Name: "bond0.100", Up: Some(true), Receive: Traffic{501, 5, 0, 0}, Transmit: Traffic{601, 6, 0, 0}},
			{Name: "eno1", Up: Some(true), Receive: Traffic{1000, 10, 1, 2}, Transmit: Traffic{2000, 20, 3, 4}},
			{Name: "eno2", Up: Some(false), Receive: Traffic{1001, 11, 0, 0}, Transmit: Traffic{2001, 21, 0, 0}},
			{Name: "wlp3s0", Up: Some(true), Receive: Traffic{18446744073709551615, 1, 0, 0}, Transmit: Traffic{3, 1, 0, 0}},
		},
		TCP: TCP{
			Retransmits: Some(uint64(17)), ResetsSent: Some(uint64(19)), EstablishedResets: Some(uint64(13)),
			ListenDrops: Some(uint64(27)), ListenOverflows: Some(uint64(26)),
		},
		UDP: UDP{
			ReceiveErrors: Some(uint64(222)), ReceiveBufferErrors: Some(uint64(323)), ChecksumErrors: Some(uint64(525)),
			SendBufferErrors: Some(uint64(424)), NoPort: Some(uint64(121)),
		},
		Listening: Listening{TCP: Some(4), UDP: Some(3)},
		Conntrack: Conntrack{Entries: Some(uint64(1234)), Limit: Some(uint64(262144))},
		Pressure: Pressure{
			CPU:    Stall{Some: Some(9458399098 * time.Microsecond)},
			Memory: Stall{Some: Some(2694670 * time.Microsecond), Full: Some(495674 * time.Microsecond)},
			IO:     Stall{Some: Some(456323036 * time.Microsecond), Full: Some(270677716 * time.Microsecond)},
		},
	}
}

func ancientStats() Stats {
	const kB = 1024
	return Stats{
		Uptime: Some(11540 * time.Millisecond),
		CPU:    Some(CPU{LogicalCores: 1, User: 1, System: 0.5, Idle: 10, IOWait: 0.03, SoftIRQ: 0.01}),
		Memory: Memory{Total: Some(uint64(1012812 * kB)), Free: Some(uint64(512000 * kB)), Cached: Some(uint64(100000 * kB))},
		Disks: []Disk{{
			Name: "sda", Reads: 10, Writes: 20, Read: 80 * 512, Written: 160 * 512,
			ReadTime: 40 * time.Millisecond, WriteTime: 90 * time.Millisecond, IOTime: 70 * time.Millisecond,
		}},
		Interfaces: []Interface{{Name: "eth0", Up: Some(true), Receive: Traffic{1, 1, 0, 0}, Transmit: Traffic{2, 1, 0, 0}}},
		TCP: TCP{
			Retransmits: Some(uint64(2)), ResetsSent: Some(uint64(3)), EstablishedResets: Some(uint64(1)),
			ListenDrops: Some(uint64(9)), ListenOverflows: Some(uint64(8)),
		},
		UDP: UDP{
			ReceiveErrors: Some(uint64(5)), ReceiveBufferErrors: Some(uint64(6)), SendBufferErrors: Some(uint64(7)), NoPort: Some(uint64(4)),
		},
		Listening: Listening{TCP: Some(0), UDP: Some(0)},
	}
}

func TestReadFakeHosts(t *testing.T) {
	for _, tt := range []struct {
		host string
		want Stats
		off  []Part // without the part, the rest is well
	}{
		{host: "metal", want: metalStats(), off: []Part{PartDiskHealth, PartAddresses}},
		{host: "ancient", want: ancientStats(), off: []Part{PartAddresses, PartPressure}},
	} {
		t.Run(tt.host, func(t *testing.T) {
			r := open(t, everything(filepath.Join(hosts, tt.host)))
			r.userHZ = 100
			got := r.Read(t.Context())
			if diff := cmp.Diff(tt.want, got, closeFloats); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			r.waitForDisks()
			r.Read(t.Context())
			for _, p := range r.Status().Parts {
				if off := slices.Contains(tt.off, p.Part); off != (p.Err != nil) || p.Errors != 0 {
					t.Errorf("%s: off %v, %d errors, want off: %v", p.Part, p.Err, p.Errors, off)
				} else if off && !errors.Is(p.Err, fs.ErrNotExist) {
					t.Errorf("%s: %v, want %v", p.Part, p.Err, fs.ErrNotExist)
				}
			}
		})
	}
}

// closeFloats makes 3018.54 equal to 301854 / 100.
var closeFloats = cmp.Comparer(func(a, b float64) bool { return a-b < 1e-6 && b-a < 1e-6 })

func (r *Reader) waitForDisks() {
	if r.health != nil {
		r.health.wg.Wait()
	}
}

// copyHost makes a host of another one, with some files changed; nil ones are left out, with what is below them.
func copyHost(t *testing.T, host string, change map[string]any) string {
	t.Helper()
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(filepath.Join(hosts, host))); err != nil {
		t.Fatal(err)
	}
	for name, content := range change {
		file := filepath.Join(root, name)
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
		if s, ok := content.(string); ok {
			if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

// What is broken or missing takes nothing else with it.
func TestPartsFailAlone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change map[string]any
		part   Part
		lost   func(st *Stats)
		answer bool // that there is nothing, which is no error
	}{
		{"uptime", map[string]any{"proc/uptime": "soon\n"}, PartUptime, func(st *Stats) { st.Uptime = Opt[time.Duration]{} }, false},
		{"stat", map[string]any{"proc/stat": "cpu  1 x\n"}, PartCPU, func(st *Stats) { st.CPU = Opt[CPU]{} }, false},
		{"no CPU", map[string]any{"proc/stat": "btime 1\n"}, PartCPU, func(st *Stats) { st.CPU = Opt[CPU]{} }, false},
		{"meminfo", map[string]any{"proc/meminfo": "MemTotal: 1 MB\n"}, PartMemory, func(st *Stats) { st.Memory = Memory{} }, false},
		{"diskstats", map[string]any{"proc/diskstats": "8 0 sda x\n"}, PartDisks, func(st *Stats) { st.Disks = nil }, false},
		{"no sysfs", map[string]any{"sys/block": nil}, PartDisks, func(st *Stats) { st.Disks = nil }, true},
		{"mdstat that makes the library panic", map[string]any{"proc/mdstat": "Personalities : [\n"}, PartArrays, func(st *Stats) { st.Arrays = nil }, false},
		{"net/dev that makes the library panic", map[string]any{"proc/1/net/dev": "\n\neth0: 1\n"}, PartInterfaces, func(st *Stats) { st.Interfaces = nil }, false},
		{"snmp", map[string]any{"proc/1/net/snmp": "Tcp: A\nTcp: 1 2\n"}, PartProtocols, func(st *Stats) {
			st.UDP, st.TCP = UDP{}, TCP{ListenDrops: st.TCP.ListenDrops, ListenOverflows: st.TCP.ListenOverflows}
		}, false},
		{"snmp6", map[string]any{"proc/1/net/snmp6": "Udp6InErrors x\n"}, PartProtocols, func(st *Stats) { st.UDP = UDP{} }, false},
		{"tcp", map[string]any{"proc/1/net/tcp": "\nx\n"}, PartListening, func(st *Stats) { st.Listening.TCP = Opt[int]{} }, false},
		{"udp6", map[string]any{"proc/1/net/udp6": "\nx\n"}, PartListening, func(st *Stats) { st.Listening.UDP = Opt[int]{} }, false},
		{"conntrack", map[string]any{"proc/sys/net/netfilter/nf_conntrack_max": "-\n"}, PartConntrack, func(st *Stats) { st.Conntrack = Conntrack{} }, false},
		{"no statistics of conntrack", map[string]any{"proc/1/net/stat": nil}, PartConntrack, func(st *Stats) { st.Conntrack = Conntrack{} }, true},
		{"one of the pressure files", map[string]any{"proc/pressure/memory": nil}, PartPressure, func(st *Stats) { st.Pressure.Memory = Stall{} }, true},
		{"pressure", map[string]any{"proc/pressure/io": "some total=x\n"}, PartPressure, func(st *Stats) { st.Pressure.IO = Stall{} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := everything(copyHost(t, "metal", tt.change))
			o.DiskHealth = false
			r := open(t, o)
			r.userHZ = 100
			got, want := r.Read(t.Context()), metalStats()
			tt.lost(&want)
			if diff := cmp.Diff(want, got, closeFloats); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, p := range r.Status().Parts {
				switch {
				case p.Part == tt.part && p.Err == nil:
					t.Errorf("%s: no error", p.Part)
				case p.Part == tt.part && tt.answer == (p.Errors != 0): // Open read, too
					t.Errorf("%s: %d errors, %v", p.Part, p.Errors, p.Err)
				case p.Part != tt.part && p.Errors > 0:
					t.Errorf("%s: %d errors, %v", p.Part, p.Errors, p.Err)
				}
			}
		})
	}
}

func TestNamesAreValidUTF8(t *testing.T) {
	dev, err := os.ReadFile(filepath.Join(hosts, "metal/proc/1/net/dev"))
	if err != nil {
		t.Fatal(err)
	}
	root := copyHost(t, "metal", map[string]any{
		"proc/1/net/dev":             strings.ReplaceAll(string(dev), "eno1:", "en\xff1:"),
		"sys/class/net/en\xff1":      nil,
		"sys/class/net/lo/operstate": "up\n",
	})
	if err := os.CopyFS(filepath.Join(root, "sys/class/net/en\xff1"), os.DirFS(filepath.Join(root, "sys/class/net/eno1"))); err != nil {
		t.Fatal(err)
	}
	for _, in := range open(t, Options{Root: root, Network: true}).Read(t.Context()).Interfaces {
		if in.Name == `en\xff1` && in.Up == Some(true) {
			return
		}
	}
	t.Error(`no interface en\xff1 that is up`)
}

// In a container that sees neither the host's PID namespace nor its sysfs.
func TestWhatIsNotOfTheHostIsSaid(t *testing.T) {
	notHost := func(t *testing.T, change map[string]any, parts ...Part) Stats {
		t.Helper()
		r := open(t, Options{Root: copyHost(t, "metal", change), Network: true})
		st := r.Read(t.Context())
		for _, p := range r.Status().Parts {
			if want := slices.Contains(parts, p.Part); errors.Is(p.Err, ErrNotHost) != want {
				t.Errorf("%s: %v, want %v: %v", p.Part, p.Err, ErrNotHost, want)
			}
			if p.Errors != 0 {
				t.Errorf("%s: %d errors", p.Part, p.Errors)
			}
		}
		return st
	}
	t.Run("PID namespace of a container", func(t *testing.T) {
		st := notHost(t, map[string]any{"proc/2/stat": "2 (sh) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 1 1 1 1 1 1 1 1 1 0 0 0 0 0 0 0 17 0 0 0 0 0 0\n"},
			PartInterfaces, PartProtocols, PartListening, PartConntrack)
		if diff := cmp.Diff(metalStats().TCP, st.TCP); diff != "" {
			t.Errorf("it is the best there is (-want +got):\n%s", diff)
		}
	})
	t.Run("no PID 1: our own", func(t *testing.T) {
		st := notHost(t, map[string]any{"proc/1": nil}, PartInterfaces, PartProtocols, PartListening, PartConntrack)
		if !st.TCP.Retransmits.OK {
			t.Error("nothing of our own network namespace")
		}
	})
	t.Run("sysfs of a container", func(t *testing.T) {
		change := map[string]any{}
		for _, name := range []string{"eno1", "eno2", "bond0", "bond0.100", "docker0", "veth1a2b3c4", "flannel.1", "wlp3s0"} {
			change["sys/class/net/"+name] = nil
		}
		if st := notHost(t, change, PartInterfaces); len(st.Interfaces) != 0 {
			t.Errorf("got %+v", st.Interfaces)
		}
	})
	t.Run("no physical interface", func(t *testing.T) {
		change := map[string]any{}
		for _, name := range []string{"eno1", "eno2", "wlp3s0"} {
			change["sys/class/net/"+name+"/device"] = nil
		}
		r := open(t, Options{Root: copyHost(t, "metal", change), Network: true})
		if err := r.Status().errOf(PartInterfaces); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
}
