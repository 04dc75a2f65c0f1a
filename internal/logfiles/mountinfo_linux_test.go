// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func rootsOf(dirs ...string) (roots []root) {
	for _, d := range dirs {
		roots = append(roots, root{given: d, dir: d})
	}
	return roots
}

func TestParseMount(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     mount
		bad      bool
	}{
		{
			name: "block device",
			in:   `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:3 propagate_from:2 - ext3 /dev/root rw,errors=continue`,
			want: mount{id: 36, device: unix.Mkdev(98, 0), root: "/mnt1", point: "/mnt2"},
		},
		{
			name: "no optional fields, no source",
			in:   `36 35 0:1048575 / / ro - tmpfs  rw`,
			want: mount{id: 36, device: unix.Mkdev(0, 1048575)},
		},
		{
			name: "escapes",
			in:   `36 35 0:40 /a\040b\134c /t\011\012x\043\04 rw - fuse.s\040x a\040b rw`,
			want: mount{id: 36, device: unix.Mkdev(0, 40), root: `/a b\c`, point: "/t\t\nx#\\04"},
		},
		{
			name: "removed directory",
			in:   `36 35 8:1 /data/old//deleted /data rw - ext4 /dev/sda1 rw`,
			want: mount{id: 36, device: unix.Mkdev(8, 1), root: "/data/old", point: "/data"},
		},
		{
			name: "overlay",
			in:   `36 35 0:40 / / rw - overlay overlay rw,lowerdir=/l/1:/l/upperdir=x,upperdir=/u/a\054b\040c\134072d,workdir=/w`,
			want: mount{id: 36, device: unix.Mkdev(0, 40), upper: `/u/a,b c\072d`, overlay: true},
		},
		{
			name: "overlay that is cut off",
			in:   `36 35 0:40 /x / ro - overlay overlay ro,lowerdir=/l/1:/l/2,upp`,
			want: mount{id: 36, device: unix.Mkdev(0, 40), root: "/x", overlay: true},
		},
		{name: "no path", in: `36 35 0:4 net:[4026532417] /run/netns/x rw shared:9 - nsfs nsfs rw`, bad: true},
		{name: "empty", in: "", bad: true},
		{name: "no hyphen", in: "36 35 98:0 / / rw master:1 shared:2", bad: true},
		{name: "ends after the hyphen", in: "36 35 98:0 / / rw - ", bad: true},
		{name: "ends after the type", in: "36 35 98:0 / / rw - ext4 ", bad: true},
		{name: "no number", in: "36 35 98 / / rw - ext4 x rw", bad: true},
		{name: "bad major", in: "36 35 x:1 / / rw - ext4 x rw", bad: true},
		{name: "bad minor", in: "36 35 1:99999999999 / / rw - ext4 x rw", bad: true},
		{name: "bad id", in: "x 35 98:0 / / rw - ext4 x rw", bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fields, ok := splitMount([]byte(tt.in))
			var got mount
			if ok {
				got, ok = fields.mount()
			}
			if ok == tt.bad {
				t.Fatalf("ok %v", ok)
			}
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(mount{})); d != "" && ok {
				t.Error(d)
			}
		})
	}
}

func TestOnlyMountsAroundTheRootsAreKept(t *testing.T) {
	const table = `
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 8:2 / /va rw - ext4 /dev/sda2 rw
3 1 8:2 / /var rw - ext4 /dev/sda2 rw
4 3 8:3 / /var/lo rw - ext4 /dev/sda3 rw
garbage
5 3 8:3 / /var/log rw - ext4 /dev/sda3 rw
6 3 8:4 / /var/logs rw - ext4 /dev/sda4 rw
7 5 8:5 / /var/log/a/b rw - ext4 /dev/sda5 rw
8 1 8:6 / /a\040b rw - ext4 /dev/sda6 rw
9 1 8:7 / /a\040c rw - ext4 /dev/sda7 rw
10 1 8:8 / /proc rw - proc proc rw`
	mounts, left, err := selectMounts(strings.NewReader(table), rootsOf("/var/log", "/a b/c"))
	if err != nil || left != 0 {
		t.Fatal(left, err)
	}
	var got []uint64
	for _, m := range mounts {
		got = append(got, m.id)
	}
	if d := cmp.Diff([]uint64{1, 3, 5, 7, 8}, got); d != "" {
		t.Error(d)
	}
}

func TestMountTableIsBounded(t *testing.T) {
	const (
		begin = "20 1 0:50 / / rw - overlay overlay rw,lowerdir="
		last  = "22 1 8:1 / /var/log rw - ext4 x rw"
	)
	long := begin + strings.Repeat("/var/lib/layer:", 9000) + "/end,upperdir=/u,workdir=/w\n"
	endless := begin + strings.Repeat("x", 3<<20) + ",upperdir=/u\n"
	mounts, left, err := selectMounts(strings.NewReader(long+endless+last), rootsOf("/var/log"))
	if err != nil || left != 0 || len(mounts) != 3 {
		t.Fatalf("%d mounts, %d, %v", len(mounts), left, err)
	}
	if mounts[0].upper != "/u" || mounts[1].upper != "" || mounts[2].point != "/var/log" {
		t.Errorf("%q, %q, %q", mounts[0].upper, mounts[1].upper, mounts[2].point)
	}
	var many strings.Builder
	for i := range maxLines + 1 {
		fmt.Fprintf(&many, "%d 1 8:1 / /var/log/%d rw - ext4 /dev/sda1 rw\n", i, i)
	}
	mounts, left, err = selectMounts(strings.NewReader(many.String()), rootsOf("/var/log"))
	if err != nil || len(mounts) != maxMounts || left != maxLines-maxMounts {
		t.Errorf("%d mounts, %d, %v", len(mounts), left, err)
	}
}

func FuzzMountTable(f *testing.F) {
	sda := unix.Mkdev(8, 1)
	overlay := `36 35 0:40 / / rw master:1 - overlay overlay rw,lowerdir=/l:/m,upperdir=/u\054\134\134x,workdir=/w`
	f.Add([]byte(overlay), "/a/u,/var/log/x", uint64(40))
	f.Add([]byte("1 2 8:1 /a /var/log rw - ext4 /dev/sda1 rw\n2 1 8:1 / /data rw - ext4 /dev/sda1 rw\n"), "/a/x.log", sda)
	f.Add([]byte("1 9 8:1 /x//deleted /var/log/\\040 rw - ext4 /dev/sda1 rw\n"), "/x/y/../z", sda)
	f.Fuzz(func(t *testing.T, table []byte, path string, device uint64) {
		roots := append(rootsOf("/var/log", ""), root{given: "/a", dir: "/data/b"})
		mounts, _, err := selectMounts(strings.NewReader(string(table)), roots)
		if err != nil {
			t.Fatal(err)
		}
		ts := newTargets(mounts, roots, viewKey{})
		for _, w := range []Write{{Device: device, Path: path}, {Device: device, Path: path, Cut: true}} {
			for _, c := range ts.candidates(&w) {
				rest, ok := cutDir(c.path, c.root.dir)
				if !ok || len(rest) < 2 || !isClean(c.path) || !mayBeLog(c.path) {
					t.Errorf("%q is %q, below %q", path, c.path, c.root.dir)
				}
			}
		}
	})
}

func FuzzParseFileInfo(f *testing.F) {
	f.Add([]byte("pos:\t0\nflags:\t0102001\nmnt_id:\t29\nino:\t3\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { parseFileInfo(b) })
}
