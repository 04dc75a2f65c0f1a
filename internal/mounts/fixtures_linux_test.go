// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// describe makes Mounts of all lines of a table that would count if they were written to.
func describe(t *testing.T, own, host string, opts Options) (all []Mount, volumes []string) {
	t.Helper()
	opts.SysRoot, opts.ProcRoot = makeTree(t, "testdata/sys.txt"), t.TempDir()
	r := openAt(opts, time.Now)
	defer r.Close()
	l := &look{r: r, table: tableOf(t, own), host: tableOf(t, host)}
	wanted := map[int]*candidate{}
	for i := range l.table.entries {
		e := &l.table.entries[i]
		if k := kindOf(e); r.counts(e, k) && l.table.visible(e) {
			wanted[e.id] = &candidate{entry: e, kind: k}
		}
	}
	r.host.table, r.host.readAt = l.host, time.Now()
	l.findVolumes(wanted)
	for i := range l.table.entries {
		c := wanted[l.table.entries[i].id]
		switch {
		case c == nil:
			continue
		case c.written:
			volumes = append(volumes, c.entry.mountPoint)
		}
		if c.kind == kindOverlay {
			all = append(all, l.mountOfOverlay(c, answer{refused: true}))
		} else {
			all = append(all, l.mountOf(c))
		}
	}
	slices.Sort(volumes)
	return all, volumes
}

func readFixture(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestContainerOfKubernetes(t *testing.T) {
	got, volumes := describe(t, readFixture(t, "kubernetes.txt"), readFixture(t, "host.txt"), Options{})
	const pvc1, pvc2 = "pvc-11111111-1111-1111-1111-111111111111", "pvc-22222222-2222-2222-2222-222222222222"
	const pvc3, pvc4 = "pvc-33333333-3333-3333-3333-333333333333", "pvc-44444444-4444-4444-4444-444444444444"
	sda, rbd, dm1, md0 := DeviceNumber{8, 0}, DeviceNumber{251, 0}, DeviceNumber{253, 1}, DeviceNumber{9, 0}
	disk := func(point, device, volume, sizedBy string, disk DeviceNumber) Mount {
		return Mount{MountPoint: point, Device: device, Volume: volume, SizedBy: sizedBy, IODevice: disk, HasIO: true}
	}
	want := []Mount{
		disk("/", "dm-1", "", "0:300", dm1), // by its path only: its size is asked for itself
		disk("/data/rbd", "rbd0", pvc1, "251:0", rbd),
		disk("/data/subpath", "rbd0", pvc1, "251:0", rbd),
		disk("/data/local-path", "sda1", pvc2, "8:1", sda),
		{MountPoint: "/data/nfs", Device: "10.0.0.1:/export/default-db-" + pvc3, Volume: pvc3, SizedBy: "0:306 /"},
		{MountPoint: "/data/cephfs", Device: "10.0.0.2:6789:/", Volume: pvc4, SizedBy: "0:307 /volumes/csi/csi-vol-1/x"},
		disk("/cache", "sda1", "", "8:1", sda),
		disk("/conf-rw", "sda1", "", "8:1", sda),
		disk("/data/lvm", "dm-1", "", "253:1", dm1),
		disk("/data/raid", "md0p1", "", "259:9", md0),
		{MountPoint: "/data/zfs", Device: "tank/pg", SizedBy: "0:309"},
		disk("/data/btrfs", "dm-1", "", "0:310", dm1),
		{MountPoint: "/data/sshfs", Device: "me@far:/home", SizedBy: "0:311 /"},
		disk("/logs", "sda1", "", "8:1", sda),
		{MountPoint: "/data/static", Device: "//far/share", SizedBy: "0:312 /"},
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(Mount{}, "FSType", "ID", "Number", "Root", "Source")); d != "" {
		t.Error(d)
	}
	wantVolumes := []string{
		"/cache", "/data/cephfs", "/data/local-path", "/data/nfs", "/data/rbd", "/data/static", "/data/subpath",
	}
	if d := cmp.Diff(wantVolumes, volumes); d != "" {
		t.Errorf("volumes: %s", d)
	}
}

func TestHostAndWhoSeesAllOfItHaveNoVolumesOfTheirOwn(t *testing.T) {
	host := readFixture(t, "host.txt") + "40 20 251:0 / /mnt/rbd rw shared:10 - ext4 /dev/rbd0 rw,stripe=16\n"
	below := "1 0 0:900 / / rw - overlay overlay rw\n"
	for line := range strings.Lines(host) {
		fields := strings.SplitN(line, " ", 6)
		fields[4] = "/host" + strings.TrimSuffix(fields[4], "/")
		below += strings.Join(fields, " ")
	}
	for name, own := range map[string]string{
		"the host, or a service with a copy": host,
		"a container":                        below,
	} {
		t.Run(name, func(t *testing.T) {
			if _, volumes := describe(t, own, host, Options{}); len(volumes) > 0 {
				t.Errorf("volumes %q", volumes)
			}
		})
	}
}

func TestOverlayWithRelativePathsIsBesideItsMergedDirectory(t *testing.T) {
	own := "700 1 0:400 / / rw - overlay overlay rw,lowerdir=l/A:l/B,upperdir=ab/diff,workdir=ab/work\n"
	got, _ := describe(t, own, readFixture(t, "host.txt"), Options{})
	want := []Mount{{
		MountPoint: "/", Device: "sda1", FSType: "overlay", ID: 700, Number: DeviceNumber{0, 400}, Root: "/", Source: "overlay",
		SizedBy: "0:400", IODevice: DeviceNumber{8, 0}, HasIO: true,
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	got, _ = describe(t, own, "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n", Options{})
	want[0].Device, want[0].IODevice, want[0].HasIO = "overlay", DeviceNumber{}, false
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("nobody knows it: %s", d)
	}
}

func TestMemoryCountsIfAskedFor(t *testing.T) {
	const own = "700 1 8:1 / / rw - ext4 /dev/sda1 rw\n701 700 0:9 / /run rw - tmpfs none rw\n"
	for _, tmpfs := range []bool{false, true} {
		got, _ := describe(t, own, "", Options{Tmpfs: tmpfs})
		if tmpfs != (len(got) == 2) {
			t.Errorf("asked for: %v; got %+v", tmpfs, got)
		}
	}
}

func TestLocalQuotasKeepSizesApart(t *testing.T) {
	const own = "700 1 8:1 /a /a rw - xfs /dev/sda1 rw,prjquota\n701 1 8:1 /b /b rw - xfs /dev/sda1 rw,prjquota\n"
	got, _ := describe(t, own, "", Options{})
	if got[0].SizedBy == got[1].SizedBy {
		t.Errorf("both are sized by %q", got[0].SizedBy)
	}
}

func TestParseFileInfo(t *testing.T) {
	for _, tt := range []struct {
		name, in    string
		written, ok bool
		id          int
	}{
		{"read", "pos:\t0\nflags:\t0100000\nmnt_id:\t29\nino:\t3\n", false, true, 29},
		{"write", "pos:\t0\nflags:\t0102001\nmnt_id:\t29\n", true, true, 29},
		{"both", "pos:\t0\nflags:\t02\nmnt_id:\t29\n", true, true, 29},
		{"no id", "pos:\t0\nflags:\t02\n", false, false, 0},
		{"cut off", "pos:\t0\nflags:\t02\nmnt_id:\t2", false, false, 0},
		{"not octal", "pos:\t0\nflags:\t09\nmnt_id:\t2\n", false, false, 0},
		{"no flags", "mnt_id:\t2\n", false, false, 2},
		{"empty", "", false, false, 0},
	} {
		if written, id, ok := parseFileInfo([]byte(tt.in)); written != tt.written || id != tt.id || ok != tt.ok {
			t.Errorf("%s: got %v, %d, %v", tt.name, written, id, ok)
		}
	}
}

func FuzzParseFileInfo(f *testing.F) {
	f.Add([]byte("pos:\t0\nflags:\t0102001\nmnt_id:\t29\nino:\t3\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { parseFileInfo(b) })
}
