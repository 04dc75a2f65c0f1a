// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseMountInfoLine(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     entry
		wantErr  bool
	}{
		{
			name: "block device",
			in:   `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:3 propagate_from:2 - ext3 /dev/root rw,errors=continue`,
			want: entry{id: 36, parent: 35, number: DeviceNumber{98, 0}, root: "/mnt1", mountPoint: "/mnt2", fsType: "ext3", source: "/dev/root"},
		},
		{
			name: "no optional fields, read-only mount",
			in:   `36 35 0:40 / / ro - tmpfs tmpfs rw`,
			want: entry{id: 36, parent: 35, number: DeviceNumber{0, 40}, root: "/", mountPoint: "/", fsType: "tmpfs", source: "tmpfs", readOnly: true},
		},
		{
			name: "read-only file system",
			in:   `36 35 0:40 / / rw,relatime - ext4 /dev/sda1 ro`,
			want: entry{id: 36, parent: 35, number: DeviceNumber{0, 40}, root: "/", mountPoint: "/", fsType: "ext4", source: "/dev/sda1", readOnly: true},
		},
		{
			name: "an option that begins like read-only",
			in:   `36 35 8:1 / / rw,relatime - ext4 /dev/sda1 rw,rootcontext=x,x=ro`,
			want: entry{id: 36, parent: 35, number: DeviceNumber{8, 1}, root: "/", mountPoint: "/", fsType: "ext4", source: "/dev/sda1"},
		},
		{
			name: "empty source",
			in:   `36 35 0:40 / /t rw -  tmpfs  rw`,
			want: entry{id: 36, parent: 35, number: DeviceNumber{0, 40}, root: "/", mountPoint: "/t", fsType: "", source: "tmpfs"},
		},
		{
			name: "no source",
			in:   `36 35 0:40 / /t rw - tmpfs  rw`,
			want: entry{id: 36, parent: 35, number: DeviceNumber{0, 40}, root: "/", mountPoint: "/t", fsType: "tmpfs"},
		},
		{
			name: "escapes",
			in:   `36 35 0:40 /a\040b\134c /t\011\012x\043 rw - fuse.s\040x a\040b rw`,
			want: entry{id: 36, parent: 35, number: DeviceNumber{0, 40}, root: `/a b\c`, mountPoint: "/t\t\nx#", fsType: "fuse.s x", source: "a b"},
		},
		{
			name: "broken escapes",
			in:   `36 35 0:40 /\04 /\999\400\ rw - ext4 \0 rw`,
			want: entry{id: 36, parent: 35, number: DeviceNumber{0, 40}, root: `/\04`, mountPoint: `/\999\400\`, fsType: "ext4", source: `\0`},
		},
		{
			name: "removed directory",
			in:   `36 35 8:1 /data/old//deleted /data rw - ext4 /dev/sda1 rw`,
			want: entry{id: 36, parent: 35, number: DeviceNumber{8, 1}, root: "/data/old", mountPoint: "/data", fsType: "ext4", source: "/dev/sda1"},
		},
		{
			name: "overlay",
			in:   `36 35 0:40 / / rw - overlay overlay rw,lowerdir=/l/1:/l/2:/l/with\134:colon,upperdir=/u/a\054b\040c\134072d,workdir=/w`,
			want: entry{
				id: 36, parent: 35, number: DeviceNumber{0, 40}, root: "/", mountPoint: "/", fsType: "overlay", source: "overlay",
				upper: `/u/a,b c\072d`,
			},
		},
		{
			name: "overlay without an upper directory",
			in:   `36 35 0:40 / / ro - overlay overlay ro,lowerdir=/l/upperdir=x:/l/2`,
			want: entry{
				id: 36, parent: 35, number: DeviceNumber{0, 40}, root: "/", mountPoint: "/", fsType: "overlay", source: "overlay",
				readOnly: true,
			},
		},
		{
			name: "project quota",
			in:   `36 35 8:1 / / rw - xfs /dev/sda1 rw,attr2,inode64,prjquota`,
			want: entry{
				id: 36, parent: 35, number: DeviceNumber{8, 1}, root: "/", mountPoint: "/", fsType: "xfs", source: "/dev/sda1",
				projectQuota: true,
			},
		},
		{
			name: "nsfs",
			in:   `36 35 0:4 net:[4026532417] /run/netns/x rw shared:9 - nsfs nsfs rw`,
			want: entry{
				id: 36, parent: 35, number: DeviceNumber{0, 4}, root: "net:[4026532417]", mountPoint: "/run/netns/x", fsType: "nsfs",
				source: "nsfs",
			},
		},
		{name: "empty", in: "", wantErr: true},
		{name: "no hyphen", in: "36 35 98:0 / / rw master:1 shared:2", wantErr: true},
		{name: "ends after the hyphen", in: "36 35 98:0 / / rw - ", wantErr: true},
		{name: "ends after the type", in: "36 35 98:0 / / rw - ext4 ", wantErr: true},
		{name: "no number", in: "36 35 98 / / rw - ext4 x rw", wantErr: true},
		{name: "bad major", in: "36 35 x:1 / / rw - ext4 x rw", wantErr: true},
		{name: "bad minor", in: "36 35 1:99999999999 / / rw - ext4 x rw", wantErr: true},
		{name: "bad id", in: "x 35 98:0 / / rw - ext4 x rw", wantErr: true},
		{name: "bad parent", in: "36 - 98:0 / / rw - ext4 x rw", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseMountInfoLine([]byte(tt.in))
			if (err != nil) != tt.wantErr {
				t.Fatalf("error %v, want one: %v", err, tt.wantErr)
			}
			if err == nil {
				if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(entry{})); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

func TestUpperDirs(t *testing.T) {
	for in, want := range map[string][]string{
		"/a/b":     {"/a/b"},
		`/a\:b\\c`: {`/a\:b\\c`, `/a:b\c`},
		`/a\,b\`:   {`/a\,b\`, `/a,b\`},
		"":         {""},
	} {
		if d := cmp.Diff(want, upperDirs(in)); d != "" {
			t.Errorf("%q: %s", in, d)
		}
	}
}

func tableOf(t testing.TB, text string) *table {
	t.Helper()
	table, _, err := readTable(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestOnlyWhatPathsLeadToIsVisible(t *testing.T) {
	table := tableOf(t, `
10 9 8:1 / / rw - ext4 /dev/sda1 rw
11 10 8:2 / /data rw - ext4 /dev/sda2 rw
12 11 8:3 / /data rw - ext4 /dev/sda3 rw
13 11 8:4 / /data/hidden rw - ext4 /dev/sda4 rw
14 12 8:5 / /data/seen rw - ext4 /dev/sda5 rw
15 10 8:6 / /srv/a/b rw - ext4 /dev/sda6 rw
16 10 8:7 / /srv rw - ext4 /dev/sda7 rw
17 16 8:8 / /srv/a/b rw - ext4 /dev/sda8 rw
18 10 8:9 / /srvx rw - ext4 /dev/sda9 rw
garbage
19 19 8:10 / /loop rw - ext4 /dev/sda10 rw
`)
	var got []int
	for i := range table.entries {
		if table.visible(&table.entries[i]) {
			got = append(got, table.entries[i].id)
		}
	}
	if d := cmp.Diff([]int{10, 12, 14, 16, 17, 18}, got); d != "" {
		t.Error(d)
	}
	for dir, want := range map[string]int{"/": 10, "/etc": 10, "/data": 12, "/data/hidden/x": 12, "/data/seen/x": 14, "/srvxy": 10, "/srv/a/b/c": 17} {
		if e := table.at(dir); e == nil || e.id != want {
			t.Errorf("%s is on %+v, want %d", dir, e, want)
		}
	}
}

func TestRootOfAChangedRootMayBeNoMount(t *testing.T) {
	table := tableOf(t, "11 10 8:2 / /data rw - ext4 /dev/sda2 rw\n12 11 8:3 / /data/x rw - ext4 /dev/sda3 rw\n")
	if table.at("/") != nil || table.at("/etc") != nil {
		t.Error("a mount where there is none")
	}
	for i := range table.entries {
		if e := &table.entries[i]; !table.visible(e) {
			t.Errorf("%s is not visible", e.mountPoint)
		}
	}
}

func TestRootMountedOverTheRoot(t *testing.T) {
	table := tableOf(t, "1 1 0:1 / / rw - rootfs rootfs rw\n2 1 8:1 / / rw - ext4 /dev/sda1 rw\n3 2 8:2 / / rw - ext4 /dev/sda2 rw\n")
	if e := table.at("/x"); e == nil || e.id != 3 {
		t.Errorf("got %+v, want 3", e)
	}
}

func TestReadTableBounds(t *testing.T) {
	long := "20 1 0:50 / / rw - overlay overlay rw,lowerdir=" + strings.Repeat("/var/lib/layer:", 20000) + "/end,upperdir=/u,workdir=/w\n"
	endless := "21 1 0:51 / /x rw - overlay overlay rw,lowerdir=" + strings.Repeat("x", 3<<20) + ",upperdir=/u\n"
	last := "22 1 8:1 / /y rw - ext4 /dev/sda1 rw" // without a newline
	table, whole, err := readTable(strings.NewReader(long + endless + last))
	if err != nil || !whole || len(table.entries) != 3 {
		t.Fatalf("%d entries, whole %v, %v", len(table.entries), whole, err)
	}
	if got := table.entries[0].upper; got != "/u" {
		t.Errorf("upper directory after many lower ones: %q", got)
	}
	if got := table.entries[1]; got.mountPoint != "/x" || got.upper != "" {
		t.Errorf("line that is too long: %+v", got)
	}
	if got := table.entries[2].mountPoint; got != "/y" {
		t.Errorf("last line: %q", got)
	}
	var many strings.Builder
	for i := range maxMounts + 1 {
		many.WriteString(strconv.Itoa(i+10) + " 1 8:1 / /m rw - ext4 /dev/sda1 rw\n")
	}
	if table, whole, err := readTable(strings.NewReader(many.String())); err != nil || whole || len(table.entries) != maxMounts {
		t.Errorf("%d entries, whole %v, %v", len(table.entries), whole, err)
	}
}

// A container may do this with a few lines of shell.
func TestManyMountsOnEachOtherTakeNoTime(t *testing.T) {
	const n = maxMounts
	var piled, deep strings.Builder
	path := ""
	for i := range n {
		id, parent := strconv.Itoa(i+10), strconv.Itoa(i+9)
		piled.WriteString(id + " " + parent + " 8:1 / /data rw - ext4 /dev/sda1 rw\n")
		if i < 1000 {
			path += "/dir"
		}
		deep.WriteString(id + " 9 8:1 / " + path + "/" + id + " rw - ext4 /dev/sda1 rw\n")
	}
	begin := time.Now()
	if e := tableOf(t, piled.String()).at("/data/x"); e == nil || e.id != n+9 {
		t.Errorf("got %+v, want the last one", e)
	}
	if table := tableOf(t, deep.String()); len(table.byPoint) != n || table.at(path+"/"+strconv.Itoa(n+9)).id != n+9 {
		t.Errorf("%d are visible, want %d", len(table.byPoint), n)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
}

func FuzzReadTable(f *testing.F) {
	f.Add([]byte(`36 35 0:40 / /\040 rw master:1 - overlay overlay rw,lowerdir=/l:/m,upperdir=/u\054,workdir=/w`))
	f.Add([]byte("1 2 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 / / rw - ext4 /dev/sda1 rw\n"))
	f.Add([]byte("1 9 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 / / rw - ext4 x rw\n1 2 8:1 / / rw - ext4 x rw\n"))
	if b, err := os.ReadFile("testdata/kubernetes.txt"); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			t.Skip()
		}
		table, _, err := readTable(strings.NewReader(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		points := map[string]bool{}
		for i := range table.entries {
			e := &table.entries[i]
			if !table.visible(e) {
				continue
			}
			if points[e.mountPoint] {
				t.Errorf("two visible mounts at %q", e.mountPoint)
			}
			points[e.mountPoint] = true
			kindOf(e)
			volumeOf(e, table, table)
			for _, dir := range upperDirs(e.upper) {
				table.at(dir)
			}
			table.under(e)
		}
	})
}
