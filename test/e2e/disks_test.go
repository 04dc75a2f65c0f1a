// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const (
	mib = 1 << 20
	// What the containers of TestDisks write and read.
	buffered, synced, toSecond, shortLived = 24 * mib, 16 * mib, 8 * mib, 12 * mib

	disksInterval, longInterval = time.Second, 6 * time.Second
	usedMetric                  = "container_resources_disk_used_bytes"
	writtenMetric               = "container_resources_disk_written_bytes_total"
	readMetric                  = "container_resources_disk_read_bytes_total"
)

// diskScene is a container that writes to two disks.
type diskScene struct {
	docker       *docker
	dataRoot     string
	disk, second string // kernel names of the disks
	side         string // directory on the first disk that is mounted into the container
	writer       container
	brief        container // which is gone before the next collection of rare
	collector    *collector
	rare         *collector
	rareBegan    time.Time // before its first collection
}

// TestDisks compares what is shown of a container's file systems with what it has written, and with what it sees itself.
func TestDisks(t *testing.T) {
	requireRoot(t, "ip", "nsenter", "iptables", "dockerd", "containerd", "docker", "runc", "busybox", "mkfs.ext4", "mount")
	keepDelayAccounting(t)
	ctx := testContext(t)
	s := playDisks(ctx, t)
	ids := identities(t)
	for _, id := range ids {
		t.Run(id.name, func(t *testing.T) {
			s.checkIO(ctx, t, id)
			s.checkSizes(ctx, t, id)
		})
	}
	s.checkMountAndUnmount(ctx, t)
	s.checkBrief(ctx, t, ids[0])
	s.checkEnd(ctx, t)
	s.collector.wantNoLoss(ctx, t, "disk_io_unaccounted", "mounts_skipped", "read_errors")
}

// playDisks starts everything and returns when the writer has done its work.
func playDisks(ctx context.Context, t *testing.T) *diskScene {
	t.Helper()
	binary := collectorBinary(ctx, t)
	rootfs := makeRootfs(t, buildLoad(ctx, t))
	second := mountDisk(ctx, t, 64*mib) // before dockerd has mounts of its own
	s := &diskScene{docker: startDocker(ctx, t, makeNetns(ctx, t)), side: t.TempDir()}
	s.dataRoot = filepath.Join(s.docker.dir, "data")
	s.disk, s.second = diskOf(t, s.dataRoot), diskOf(t, second)
	if s.disk == "" || diskOf(t, s.side) != s.disk {
		t.Skip("the files of this test are on no disk, or on several")
	}
	s.docker.importImage(ctx, t, rootfs)

	const writer = `
exec 3>>/root.log 4>>/data/log 5>>/in/side/log 6>>/scratch/log 7>>/second/log
/busybox mkdir /mnt
/busybox dd if=/dev/zero of=/buffered bs=1M count=%d 2>/dev/null
/busybox dd if=/dev/zero of=/data/synced bs=1M count=%d conv=fsync 2>/dev/null
/busybox dd if=/dev/zero of=/second/synced bs=1M count=%d conv=fsync 2>/dev/null
/load read /data/synced
exec /busybox sleep 600`
	id := s.create(ctx, t, "e2e-writer", fmt.Sprintf(writer, buffered/mib, synced/mib, toSecond/mib),
		"-v", "e2e-data:/data", "-v", s.side+":/in/side", "--tmpfs", "/scratch", "-v", second+":/second", "--cap-add", "SYS_ADMIN")
	s.writer = container{path: "/docker/e2e-writer", id: id, semconv: namedAs("docker", id, "e2e-writer", testImage)}
	id = s.create(ctx, t, "e2e-brief", fmt.Sprintf(
		"exec 3>>/log; /busybox dd if=/dev/zero of=/synced bs=1M count=%d conv=fsync 2>/dev/null; /busybox sleep 2", shortLived/mib))
	s.brief = container{path: "/docker/e2e-brief", id: id, semconv: namedAs("docker", id, "e2e-brief", testImage)}

	config := collectorConfig{sockets: map[string]string{"docker": s.docker.socket}, interval: longInterval}
	config.identities, config.containers = []string{"semconv"}, []string{s.brief.path}
	s.rareBegan = time.Now()
	s.rare = startCollector(ctx, t, binary, config)
	s.docker.run(ctx, t, "start", s.brief.id)
	startWatch(t, s.rare)
	config.interval, config.identities, config.containers = disksInterval, []string{"semconv", "coroot"}, []string{s.writer.path}
	s.collector = startCollector(ctx, t, binary, config)
	startWatch(t, s.collector)
	s.docker.run(ctx, t, "start", s.writer.id)
	eventually(ctx, t, 30*time.Second, "all is written", func() error {
		read := truths[readTruth](t, s.docker.run(ctx, t, "logs", s.writer.id))
		if len(read) != 1 || read[0].Bytes != synced {
			return fmt.Errorf("read: %+v", read)
		}
		return nil
	})
	syncFS(t, s.dataRoot) // what was not synced may else take half a minute
	return s
}

func (s *diskScene) create(ctx context.Context, t *testing.T, name, text string, options ...string) string {
	t.Helper()
	return s.docker.run(ctx, t, append(append([]string{"create", "--name", name}, options...), append([]string{testImage}, script(text)...)...)...)
}

// mountDisk makes a disk with a file system, whose bytes are in memory, and returns where it is mounted.
func mountDisk(ctx context.Context, t *testing.T, size int64) string {
	t.Helper()
	f, err := os.CreateTemp("/dev/shm", "e2e-disk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(f.Name()) })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	run(ctx, t, "mkfs.ext4", "-q", "-F", "-m", "10", f.Name())
	dir := t.TempDir()
	run(ctx, t, "mount", "-o", "loop", f.Name(), dir) // the loop device goes with the mount
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// diskOf returns the kernel's name of the block device on which a directory is, "" for none.
func diskOf(t *testing.T, dir string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	name, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return ""
	}
	return filepath.Base(name)
}

// syncFS writes back all of a file system.
func syncFS(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
}

// byMount returns the values of a metric by mount point and device.
func byMount(p page, metric string) map[string]float64 {
	values := map[string]float64{}
	for _, s := range p.named(metric) {
		values[s.labels["mount_point"]+" "+s.labels["device"]] = s.value
	}
	return values
}

// diskIO is what a container has done on one disk, and where that may be given.
type diskIO struct {
	device string
	mounts []string
	bytes  float64
}

// writerIO is what the writer has done. It is at /data if a collection came before any file on / was seen open: a named
// volume counts without that.
func (s *diskScene) writerIO(onDisk, onSecond float64) []diskIO {
	return []diskIO{{s.disk, []string{"/", "/data"}, onDisk}, {s.second, []string{"/second"}, onSecond}}
}

// wantIO returns an error unless the I/O of each disk is given once, at one of its mounts, and is at least this and a little
// more at most: for what file systems note of themselves and, where it is read, for programs that are not in memory any more.
func wantIO(p page, metric string, want []diskIO) error {
	more := 1.0 * mib
	if metric == readMetric {
		more = 8 * mib
	}
	p = p.named(metric)
	if len(p) != len(want) {
		return fmt.Errorf("%d series of %s, want one for each of %d disks: %v", len(p), metric, len(want), p)
	}
	for _, w := range want {
		i := slices.IndexFunc(p, func(s series) bool { return s.labels["device"] == w.device })
		if i < 0 || !slices.Contains(w.mounts, p[i].labels["mount_point"]) {
			return fmt.Errorf("%s of %s: %v, want it at one of %v", metric, w.device, p, w.mounts)
		}
		if v := p[i].value; v < w.bytes || v > 1.02*w.bytes+more {
			return fmt.Errorf("%s of %s: got %v, want %v and no more than 2 %% and %v bytes on top", metric, w.device, v, w.bytes, more)
		}
	}
	return nil
}

func keys(m map[string]float64) map[string]bool {
	all := map[string]bool{}
	for k := range m {
		all[k] = true
	}
	return all
}

// checkIO wants all I/O of a disk at one of its mounts.
func (s *diskScene) checkIO(ctx context.Context, t *testing.T, id identity) {
	t.Helper()
	eventually(ctx, t, 20*time.Second, "I/O in identity "+id.name, func() error {
		p, err := readPage(ctx, s.collector.targets[id.name])
		if err != nil {
			return err
		}
		p = p.of(id, s.writer)
		for metric, want := range map[string][]diskIO{
			writtenMetric: s.writerIO(buffered+synced, toSecond),
			readMetric:    s.writerIO(synced, 0),
		} {
			if err := wantIO(p, metric, want); err != nil {
				return err
			}
		}
		where := keys(byMount(p, writtenMetric))
		for _, metric := range []string{readMetric, "container_resources_disk_writes_total", "container_resources_disk_reads_total"} {
			if diff := cmp.Diff(where, keys(byMount(p, metric))); diff != "" || p.sum(metric) == 0 {
				return fmt.Errorf("%s: %v, not at the mounts where that of %s is:\n%s", metric, p.named(metric), writtenMetric, diff)
			}
		}
		t.Logf("written %v, want %d and %d; read %v, want %d; operations %v and %v",
			byMount(p, writtenMetric), buffered+synced, toSecond, byMount(p, readMetric), synced,
			byMount(p, "container_resources_disk_writes_total"), byMount(p, "container_resources_disk_reads_total"))
		return nil
	})
}

// checkSizes compares with what the container itself is told. Others may write to the same disk meanwhile.
func (s *diskScene) checkSizes(ctx context.Context, t *testing.T, id identity) {
	t.Helper()
	devices := map[string]string{"/": s.disk, "/data": s.disk, "/in/side": s.disk, "/second": s.second}
	eventually(ctx, t, 20*time.Second, "sizes in identity "+id.name, func() error {
		p, err := readPage(ctx, s.collector.targets[id.name])
		if err != nil {
			return err
		}
		p = p.of(id, s.writer)
		want := map[string]float64{}
		for mount, device := range devices {
			want[mount+" "+device] = 0
		}
		size, used, reserved := byMount(p, "container_resources_disk_size_bytes"), byMount(p, usedMetric), byMount(p, "container_resources_disk_reserved_bytes")
		for _, got := range []map[string]float64{size, used, reserved} {
			if diff := cmp.Diff(keys(want), keys(got)); diff != "" {
				return fmt.Errorf("mounts (-want +got):\n%s", diff)
			}
		}
		if n := len(p.named(usedMetric)); n != len(want) {
			return fmt.Errorf("%d series of %s, want %d", n, usedMetric, len(want))
		}
		for mount, device := range devices {
			key := mount + " " + device
			fs := s.statfs(ctx, t, mount)
			tolerance := 32.0 * mib
			if device == s.second {
				tolerance = 0
			}
			if size[key] != fs.size || math.Abs(used[key]-fs.used) > tolerance || math.Abs(reserved[key]-fs.reserved) > tolerance {
				return fmt.Errorf("%s: size %v, used %v, reserved %v; the container sees %+v", key, size[key], used[key], reserved[key], fs)
			}
			t.Logf("%s: size %v, used %v, reserved %v; the container sees %+v", key, size[key], used[key], reserved[key], fs)
		}
		return nil
	})
}

// fsStat is how full a file system is, in bytes.
type fsStat struct{ size, used, reserved float64 }

// statfs asks inside of the writer.
func (s *diskScene) statfs(ctx context.Context, t *testing.T, mount string) fsStat {
	t.Helper()
	out := s.docker.run(ctx, t, "exec", s.writer.id, "/busybox", "stat", "-f", "-c", "%S %b %f %a", mount)
	var n [4]float64
	for i, field := range strings.Fields(out) {
		var err error
		if n[i], err = strconv.ParseFloat(field, 64); err != nil {
			t.Fatalf("statfs of %s: %s", mount, out)
		}
	}
	return fsStat{size: n[0] * n[1], used: n[0] * (n[1] - n[2]), reserved: n[0] * (n[2] - n[3])}
}

// checkMountAndUnmount mounts one directory more in the container, and unmounts it.
func (s *diskScene) checkMountAndUnmount(ctx context.Context, t *testing.T) {
	t.Helper()
	where := map[string]map[string]bool{} // I/O of disks, by identity
	wait := func(what string, mounts int) {
		t.Helper()
		for _, id := range identities(t) {
			eventually(ctx, t, 10*time.Second, what+" in identity "+id.name, func() error {
				p, err := readPage(ctx, s.collector.targets[id.name])
				if err != nil {
					return err
				}
				p = p.of(id, s.writer)
				got := byMount(p, usedMetric)
				if _, ok := got["/mnt "+s.second]; len(got) != mounts || ok != (mounts == 5) {
					return fmt.Errorf("%v", got)
				}
				at := keys(byMount(p, writtenMetric))
				if was, ok := where[id.name]; ok && !maps.Equal(was, at) {
					t.Fatalf("I/O was at %v, is at %v", was, at)
				}
				where[id.name] = at
				return wantIO(p, writtenMetric, s.writerIO(buffered+synced, toSecond))
			})
		}
	}
	wait("before", 4)
	s.docker.run(ctx, t, "exec", s.writer.id, "/busybox", "mount", "-o", "bind", "/second", "/mnt")
	input, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.docker.command(context.Background(), "exec", "-i", s.writer.id, "/busybox", "sh", "-c", "exec 3>>/mnt/log; read x")
	cmd.Stdin = input
	opener := start(t, "opener", cmd)
	t.Cleanup(func() { _ = errors.Join(input.Close(), end.Close()) })
	wait("what was mounted", 5)
	if err := end.Close(); err != nil {
		t.Fatal(err)
	}
	opener.wait(ctx, t)
	s.docker.run(ctx, t, "exec", s.writer.id, "/busybox", "umount", "/mnt")
	wait("what was unmounted", 4)
}

// checkBrief wants the I/O of a container that had gone before the next collection.
func (s *diskScene) checkBrief(ctx context.Context, t *testing.T, id identity) {
	t.Helper()
	eventually(ctx, t, 2*longInterval, "I/O of a container between two collections", func() error {
		p, err := readPage(ctx, s.rare.targets[id.name])
		if err == nil {
			err = wantIO(p.of(id, s.brief), writtenMetric, []diskIO{{s.disk, []string{"/"}, shortLived}})
		}
		return err
	})
	// On a busy host it may meet a collection after all.
	text := s.docker.run(ctx, t, "inspect", "-f", "{{.State.StartedAt}} {{.State.FinishedAt}}", s.brief.id)
	began, ended, _ := strings.Cut(text, " ")
	from, err := time.Parse(time.RFC3339Nano, began)
	if err != nil {
		t.Fatal(err)
	}
	to, err := time.Parse(time.RFC3339Nano, ended)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("it lived from %v to %v after the start of a collector that collects every %v", from.Sub(s.rareBegan).Round(time.Millisecond),
		to.Sub(s.rareBegan).Round(time.Millisecond), longInterval)
}

// checkEnd removes the container: its series end.
func (s *diskScene) checkEnd(ctx context.Context, t *testing.T) {
	t.Helper()
	s.docker.run(ctx, t, "rm", "-f", s.writer.id)
	for _, id := range identities(t) {
		eventually(ctx, t, 20*time.Second, "series end in identity "+id.name, func() error {
			p, err := readPage(ctx, s.collector.targets[id.name])
			if err != nil {
				return err
			}
			if left := p.of(id, s.writer); len(left) > 0 {
				if got := left.sum(writtenMetric); len(left.named(writtenMetric)) > 0 && got < buffered+synced+toSecond {
					t.Fatalf("written fell to %v", got)
				}
				return fmt.Errorf("still %d series, such as %v", len(left), left[0])
			}
			return nil
		})
	}
}
