// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

const hosts = "../../testdata/hosts"

func everything(root string) Options {
	return Options{Root: root, CPU: true, Memory: true, Disks: true, DiskHealth: true, Network: true, Pressure: true}
}

func open(t *testing.T, o Options) *Reader {
	t.Helper()
	r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// errOf is why a part is not complete.
func (s Status) errOf(p Part) error {
	for _, st := range s.Parts {
		if st.Part == p {
			return st.Err
		}
	}
	return nil
}

func TestGroupsCanBeSwitchedOff(t *testing.T) {
	root := filepath.Join(hosts, "metal")
	full := metalStats()
	for _, tt := range []struct {
		name string
		o    Options
		want func(st *Stats)
	}{
		{"nothing", Options{}, func(*Stats) {}},
		{"CPU", Options{CPU: true}, func(st *Stats) { st.CPU = full.CPU }},
		{"memory", Options{Memory: true}, func(st *Stats) { st.Memory = full.Memory }},
		{"disks", Options{Disks: true}, func(st *Stats) { st.Disks, st.Arrays = full.Disks, full.Arrays }},
		{"disk health", Options{DiskHealth: true}, func(*Stats) {}},
		{"network", Options{Network: true}, func(st *Stats) {
			st.Interfaces, st.TCP, st.UDP, st.Listening, st.Conntrack = full.Interfaces, full.TCP, full.UDP, full.Listening, full.Conntrack
		}},
		{"pressure", Options{Pressure: true}, func(st *Stats) { st.Pressure = full.Pressure }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Root = root
			r := open(t, tt.o)
			r.userHZ = 100
			want := Stats{Uptime: full.Uptime}
			tt.want(&want)
			if diff := cmp.Diff(want, r.Read(t.Context()), closeFloats); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestInterfacesByName(t *testing.T) {
	o := Options{Root: filepath.Join(hosts, "metal"), Network: true}
	o.Interfaces = []*regexp.Regexp{regexp.MustCompile(`^lo$`), regexp.MustCompile(`^(veth|flannel)`)}
	var got []string
	for _, in := range open(t, o).Read(t.Context()).Interfaces {
		got = append(got, in.Name)
	}
	if diff := cmp.Diff([]string{"flannel.1", "lo", "veth1a2b3c4"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	r := open(t, everything(filepath.Join(hosts, "metal")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if diff := cmp.Diff(Stats{}, r.Read(ctx)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	r.turn <- struct{}{} // somebody else is reading
	r.Read(ctx)
	<-r.turn
}

func TestOpenWithoutHost(t *testing.T) {
	if r, err := Open(everything(t.TempDir())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestReadAfterClose(t *testing.T) {
	r, err := Open(everything("/"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(Stats{}, r.Read(t.Context())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// hang makes a file keep those who read it until what release returns is called; release waits for a first one.
func hang(t *testing.T, file string) (release func() func()) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(file), unix.Mkfifo(file, 0o600)); err != nil {
		t.Fatal(err)
	}
	return func() func() {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := errors.Join(os.Remove(file), f.Close()); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestOpenAndCloseDoNotWaitForAHangingFile(t *testing.T) {
	root := copyHost(t, "metal", nil)
	release := hang(t, filepath.Join(root, "proc/uptime"))
	defer func() { release()() }()
	begin := time.Now()
	r, err := Open(everything(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range r.Status().Parts {
		if st.Err == nil {
			t.Errorf("%s is said to be read", st.Part)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 5*closeWait {
		t.Errorf("waited for %v", took)
	}
}

// What the last reading uses is closed when that ends.
func TestCloseWhileAFileHangs(t *testing.T) {
	root := copyHost(t, "metal", nil)
	for _, dir := range []string{"proc/1", "proc/2", "sys"} { // those of this host: with sockets to the kernel
		if err := errors.Join(os.RemoveAll(filepath.Join(root, dir)), os.Symlink("/"+dir, filepath.Join(root, dir))); err != nil {
			t.Fatal(err)
		}
	}
	before := descriptors(t)
	r, err := Open(Options{Root: root, Network: true, Pressure: true, Interfaces: []*regexp.Regexp{regexp.MustCompile("^lo$")}})
	if err != nil {
		t.Fatal(err)
	}
	if r.route.conn == nil {
		t.Fatalf("no socket to the kernel: %+v", r.Status())
	}
	hanging := hang(t, filepath.Join(root, "proc/pressure/cpu"))
	var reading sync.WaitGroup
	reading.Go(func() { r.Read(t.Context()) })
	release := hanging()
	inUse := descriptors(t)
	begin := time.Now()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 5*closeWait {
		t.Errorf("waited for %v", took)
	}
	if n := descriptors(t); n != inUse {
		t.Errorf("%d descriptors of %d that are in use", n, inUse)
	}
	release()
	reading.Wait()
	for end := time.Now().Add(10 * time.Second); descriptors(t) != before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors of %d are left", descriptors(t), before)
		}
	}
	if diff := cmp.Diff(Stats{}, r.Read(t.Context())); diff != "" {
		t.Errorf("after that (-want +got):\n%s", diff)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestReadAtOnce(t *testing.T) {
	r := open(t, everything("/"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				if st := r.Read(t.Context()); !st.CPU.OK {
					t.Error("no CPU")
				}
				r.Status()
			}
		})
	}
	wg.Wait()
}

func TestCPUNeverFalls(t *testing.T) {
	stat := func(idle, iowait float64) *procfs.Stat {
		return &procfs.Stat{CPUTotal: procfs.CPUStat{Idle: idle, Iowait: iowait}, CPU: map[int64]procfs.CPUStat{0: {}}}
	}
	last := newCPU(stat(100, 50), 100, CPU{})
	if got := newCPU(stat(99.98, 50.01), 100, last); got.Idle != 100 || got.IOWait != 50.01 {
		t.Errorf("got idle %v, I/O wait %v, want 100 and 50.01", got.Idle, got.IOWait)
	}
	if got := newCPU(stat(1, 50), 100, last); got.Idle != 1 {
		t.Errorf("another count: got idle %v, want 1", got.Idle)
	}
	if got := newCPU(stat(100, 50), 1024, CPU{}); got.Idle != 100*100/1024. {
		t.Errorf("USER_HZ 1024: got idle %v, want %v", got.Idle, 100*100/1024.)
	}
}

func TestUserHZ(t *testing.T) {
	if got := userHZ(); got != 100 { // of all architectures that Go runs on
		t.Errorf("got %v, want 100", got)
	}
}

func TestDiskTimesWrap(t *testing.T) {
	line := "   8       0 sda %d 0 0 4294967000 0 0 0 10 0 20 30\n"
	root := copyHost(t, "ancient", map[string]any{"proc/diskstats": strings.Replace(line, "%d", "10", 1)})
	r := open(t, Options{Root: root, Disks: true})
	read := func(line string) Disk {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, "proc/diskstats"), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		st := r.Read(t.Context())
		if len(st.Disks) != 1 {
			t.Fatalf("got %+v", st.Disks)
		}
		return st.Disks[0]
	}
	if got := read("8 0 sda 11 0 0 704 0 0 0 10 0 20 30\n"); got.ReadTime != (1<<32+704)*time.Millisecond || got.WriteTime != 10*time.Millisecond {
		t.Errorf("wrapped: got %+v", got)
	}
	if got := read("8 0 sda 12 0 0 705 0 0 0 10 0 20 30\n"); got.ReadTime != (1<<32+705)*time.Millisecond {
		t.Errorf("after that: got %+v", got)
	}
	if got := read("8 0 sda 2 0 0 7 0 0 0 1 0 2 3\n"); got.ReadTime != 7*time.Millisecond {
		t.Errorf("another disk: got %+v", got)
	}
}

func FuzzParseUptime(f *testing.F) {
	f.Add("90061.52 359790.16\n")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseUptime(s); d < 0 || err != nil && d != 0 {
			t.Errorf("%q: %v, %v", s, d, err)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	for _, root := range []string{"/", filepath.Join(hosts, "metal")} {
		b.Run(filepath.Base(root), func(b *testing.B) {
			r, err := Open(everything(root))
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			for b.Loop() {
				r.Read(b.Context())
			}
		})
	}
}
