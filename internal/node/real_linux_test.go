// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tool runs a program that reads the same as we do, and skips the test where it is missing.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return string(out)
}

// ourHost reads this host, between two runs of ask.
func ourHost[T any](t *testing.T, ask func() T) (before T, st Stats, after T) {
	t.Helper()
	r := open(t, everything("/"))
	before = ask()
	st = r.Read(t.Context())
	return before, st, ask()
}

func between(t *testing.T, what string, before, got, after float64) {
	t.Helper()
	if got < min(before, after) || got > max(before, after) {
		t.Errorf("%s: got %v, a tool said %v before and %v after", what, got, before, after)
	}
}

func counterBetween(t *testing.T, what string, before uint64, got Opt[uint64], after uint64) {
	t.Helper()
	if !got.OK {
		t.Errorf("%s is absent, a tool said %d", what, before)
		return
	}
	between(t, what, float64(before), float64(got.V), float64(after))
}

func TestCPUAgreesWithVmstat(t *testing.T) {
	ask := func() map[string]float64 {
		ticks := map[string]float64{}
		for line := range strings.Lines(tool(t, "vmstat", "-s")) {
			if n, what, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
				ticks[what], _ = strconv.ParseFloat(n, 64)
			}
		}
		return ticks
	}
	before, st, after := ourHost(t, ask)
	for what, got := range map[string]float64{
		"system cpu ticks":  st.CPU.V.System,
		"idle cpu ticks":    st.CPU.V.Idle,
		"IO-wait cpu ticks": st.CPU.V.IOWait,
		"softirq cpu ticks": st.CPU.V.SoftIRQ,
		"stolen cpu ticks":  st.CPU.V.Steal,
	} {
		if _, known := before[what]; !known {
			t.Fatalf("vmstat does not tell %s", what)
		}
		const slack = 2 // ticks: idle and I/O wait fall at times
		between(t, what, min(before[what], after[what])-slack, got*userHZ(), after[what]+slack)
	}
}

func TestCPUsAgreeWithNproc(t *testing.T) {
	_, st, after := ourHost(t, func() string { return strings.TrimSpace(tool(t, "getconf", "_NPROCESSORS_ONLN")) })
	if got := strconv.Itoa(st.CPU.V.LogicalCores); got != after {
		t.Errorf("got %s CPUs, getconf says %s", got, after)
	}
}

func TestMemoryAgreesWithFree(t *testing.T) {
	ask := func() map[string]float64 {
		head, rest, _ := strings.Cut(tool(t, "free", "-b", "-w"), "\n")
		mem, _, _ := strings.Cut(rest, "\n")
		values := map[string]float64{}
		for i, name := range strings.Fields(head) {
			values[name], _ = strconv.ParseFloat(strings.Fields(mem)[i+1], 64)
		}
		return values
	}
	before, st, after := ourHost(t, ask)
	for name, got := range map[string]Opt[uint64]{
		"total": st.Memory.Total, "free": st.Memory.Free, "available": st.Memory.Available,
	} {
		slack := 256e6 // others use memory meanwhile; a kB of 1000 is seen from 10 GiB on
		if name == "total" {
			slack = 0
		}
		low, high := min(before[name], after[name])-slack, max(before[name], after[name])+slack
		counterBetween(t, name, uint64(max(low, 0)), got, uint64(high))
	}
}

func TestUptimeAgreesWithCat(t *testing.T) {
	ask := func() float64 {
		s, _ := strconv.ParseFloat(strings.Fields(tool(t, "cat", "/proc/uptime"))[0], 64)
		return s
	}
	before, st, after := ourHost(t, ask)
	between(t, "uptime", before, st.Uptime.V.Seconds(), after)
}

func TestDisksAgreeWithLsblk(t *testing.T) {
	// loop, ram, optical and floppy drives and zram left out; -d: no partitions.
	ask := func() []string {
		var names []string
		for name := range strings.FieldsSeq(tool(t, "lsblk", "-d", "-n", "-o", "NAME", "-e", "1,2,7,11")) {
			if !strings.HasPrefix(name, "zram") {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	_, st, after := ourHost(t, ask)
	var got []string
	for _, d := range st.Disks {
		if !strings.HasPrefix(d.Name, "dm-") && !strings.HasPrefix(d.Name, "md") { // lsblk lists them below the disks
			got = append(got, d.Name)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(after, got); diff != "" {
		t.Errorf("(-lsblk +got):\n%s", diff)
	}
}

func TestDisksAgreeWithSysfs(t *testing.T) {
	ask := func() map[string][]float64 {
		stats := map[string][]float64{}
		files, _ := filepath.Glob("/sys/block/*/stat")
		for _, file := range files {
			for field := range strings.FieldsSeq(tool(t, "cat", file)) {
				n, _ := strconv.ParseFloat(field, 64)
				name := filepath.Base(filepath.Dir(file))
				stats[name] = append(stats[name], n)
			}
		}
		return stats
	}
	before, st, after := ourHost(t, ask)
	if len(st.Disks) == 0 {
		t.Skip("this host has no disk")
	}
	for _, d := range st.Disks {
		b, a := before[d.Name], after[d.Name]
		between(t, d.Name+" reads", b[0], float64(d.Reads), a[0])
		between(t, d.Name+" bytes read", b[2]*512, float64(d.Read), a[2]*512)
		between(t, d.Name+" read time", b[3]/1000, d.ReadTime.Seconds(), a[3]/1000)
		between(t, d.Name+" writes", b[4], float64(d.Writes), a[4])
		between(t, d.Name+" bytes written", b[6]*512, float64(d.Written), a[6]*512)
		between(t, d.Name+" write time", b[7]/1000, d.WriteTime.Seconds(), a[7]/1000)
		between(t, d.Name+" I/O time", b[9]/1000, d.IOTime.Seconds(), a[9]/1000)
	}
}

// ipLink is what ip says of an interface.
type ipLink struct {
	Name      string `json:"ifname"`
	State     string `json:"operstate"`
	Addresses []struct {
		Local netip.Addr
		Scope string
	} `json:"addr_info"`
	Stats struct {
		RX, TX struct{ Bytes, Packets, Errors, Dropped uint64 }
	} `json:"stats64"`
}

func ipLinks(t *testing.T, out string) map[string]ipLink {
	t.Helper()
	var links []ipLink
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		t.Fatal(err)
	}
	byName := map[string]ipLink{}
	for _, l := range links {
		byName[l.Name] = l
	}
	return byName
}

func TestInterfacesAgreeWithIP(t *testing.T) {
	before, st, after := ourHost(t, func() map[string]ipLink { return ipLinks(t, tool(t, "ip", "-s", "-j", "addr", "show")) })
	if len(st.Interfaces) == 0 {
		t.Skip("this host has no physical interface")
	}
	for _, in := range st.Interfaces {
		b, a := before[in.Name], after[in.Name]
		for what, v := range map[string][3]uint64{
			"received":              {b.Stats.RX.Bytes, in.Receive.Bytes, a.Stats.RX.Bytes},
			"received packets":      {b.Stats.RX.Packets, in.Receive.Packets, a.Stats.RX.Packets},
			"receive errors":        {b.Stats.RX.Errors, in.Receive.Errors, a.Stats.RX.Errors},
			"transmitted":           {b.Stats.TX.Bytes, in.Transmit.Bytes, a.Stats.TX.Bytes},
			"transmitted packets":   {b.Stats.TX.Packets, in.Transmit.Packets, a.Stats.TX.Packets},
			"transmit errors":       {b.Stats.TX.Errors, in.Transmit.Errors, a.Stats.TX.Errors},
			"dropped on their way":  {b.Stats.TX.Dropped, in.Transmit.Drops, a.Stats.TX.Dropped},
			"dropped when received": {b.Stats.RX.Dropped, max(in.Receive.Drops, b.Stats.RX.Dropped), max(in.Receive.Drops, a.Stats.RX.Dropped)},
		} {
			counterBetween(t, in.Name+" "+what, v[0], Some(v[1]), v[2])
		}
		if up := a.State == "UP"; in.Up != Some(up) && a.State != "UNKNOWN" {
			t.Errorf("%s: up %v, ip says %s", in.Name, in.Up, a.State)
		}
		var want []netip.Addr
		for _, addr := range a.Addresses {
			if addr.Scope != "link" {
				want = append(want, addr.Local)
			}
		}
		slices.SortFunc(want, netip.Addr.Compare)
		if diff := cmp.Diff(want, in.Addresses, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: addresses (-ip +got):\n%s", in.Name, diff)
		}
	}
}

func TestProtocolsAgreeWithNstat(t *testing.T) {
	ask := func() map[string]uint64 {
		var all struct{ Kernel map[string]uint64 }
		if err := json.Unmarshal([]byte(tool(t, "nstat", "-a", "-s", "-z", "-j")), &all); err != nil {
			t.Fatal(err)
		}
		return all.Kernel
	}
	before, st, after := ourHost(t, ask)
	for _, tt := range []struct {
		names string
		got   Opt[uint64]
	}{
		{"TcpRetransSegs", st.TCP.Retransmits},
		{"TcpOutRsts", st.TCP.ResetsSent},
		{"TcpEstabResets", st.TCP.EstablishedResets},
		{"TcpExtListenDrops", st.TCP.ListenDrops},
		{"TcpExtListenOverflows", st.TCP.ListenOverflows},
		{"UdpInErrors Udp6InErrors", st.UDP.ReceiveErrors},
		{"UdpRcvbufErrors Udp6RcvbufErrors", st.UDP.ReceiveBufferErrors},
		{"UdpSndbufErrors Udp6SndbufErrors", st.UDP.SendBufferErrors},
		{"UdpInCsumErrors Udp6InCsumErrors", st.UDP.ChecksumErrors},
		{"UdpNoPorts Udp6NoPorts", st.UDP.NoPort},
	} {
		var b, a uint64
		for name := range strings.FieldsSeq(tt.names) {
			b, a = b+before[name], a+after[name]
		}
		counterBetween(t, tt.names, b, tt.got, a)
	}
}

func TestListeningAgreesWithSS(t *testing.T) {
	count := func(args ...string) int {
		ports := map[string]bool{}
		for line := range strings.Lines(tool(t, "ss", args...)) {
			local := strings.Fields(line)[3]
			ports[local[strings.LastIndex(local, ":"):]] = true
		}
		return len(ports)
	}
	ask := func() [2]int { return [2]int{count("-H", "-n", "-t", "-l"), count("-H", "-n", "-u", "-l")} }
	for range 10 {
		before, st, after := ourHost(t, ask)
		if before != after {
			continue // somebody opened or closed one
		}
		if got := [2]int{st.Listening.TCP.V, st.Listening.UDP.V}; got != before || !st.Listening.TCP.OK || !st.Listening.UDP.OK {
			t.Errorf("got %v TCP and UDP ports, ss says %v", st.Listening, before)
		}
		return
	}
	t.Skip("sockets are opened and closed all the time")
}

func TestPressureAgreesWithCat(t *testing.T) {
	if _, err := os.ReadFile("/proc/pressure/cpu"); err != nil {
		t.Skip(err)
	}
	ask := func() map[string]uint64 {
		totals := map[string]uint64{}
		for _, resource := range []string{"cpu", "memory", "io"} {
			for line := range strings.Lines(tool(t, "cat", "/proc/pressure/"+resource)) {
				fields := strings.Fields(line)
				totals[resource+" "+fields[0]], _ = strconv.ParseUint(strings.TrimPrefix(fields[4], "total="), 10, 64)
			}
		}
		return totals
	}
	before, st, after := ourHost(t, ask)
	for what, got := range map[string]Opt[time.Duration]{
		"cpu some": st.Pressure.CPU.Some, "memory some": st.Pressure.Memory.Some, "memory full": st.Pressure.Memory.Full,
		"io some": st.Pressure.IO.Some, "io full": st.Pressure.IO.Full,
	} {
		counterBetween(t, what, before[what], Opt[uint64]{V: uint64(got.V / time.Microsecond), OK: got.OK}, after[what])
	}
}

func TestConntrackAgreesWithCat(t *testing.T) {
	const dir = "/proc/sys/net/netfilter/nf_conntrack_"
	if _, err := os.Stat(dir + "count"); err != nil {
		t.Skip("nothing tracks connections: ", err)
	}
	ask := func() map[string]uint64 {
		values := map[string]uint64{}
		for _, name := range []string{"count", "max"} {
			values[name], _ = strconv.ParseUint(strings.TrimSpace(tool(t, "cat", dir+name)), 10, 64)
		}
		return values
	}
	before, st, after := ourHost(t, ask)
	if maps.Equal(before, after) {
		counterBetween(t, "entries", before["count"], st.Conntrack.Entries, after["count"])
	}
	counterBetween(t, "limit", before["max"], st.Conntrack.Limit, after["max"])
}

// Whatever is missing here, nothing goes wrong.
func TestStatusOfThisHost(t *testing.T) {
	r := open(t, everything("/"))
	for range 3 {
		r.Read(t.Context())
		r.waitForDisks()
	}
	for _, p := range r.Status().Parts {
		if p.Errors > 0 {
			t.Errorf("%s: %d errors, %v", p.Part, p.Errors, p.Err)
		} else if p.Err != nil {
			t.Logf("%s: %v", p.Part, p.Err)
		}
	}
}
