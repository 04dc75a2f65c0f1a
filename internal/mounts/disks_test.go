// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// makeTree makes the files that a fixture lists; see testdata/sys.txt.
func makeTree(t *testing.T, fixture string) string {
	t.Helper()
	b, err := os.ReadFile(fixture)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		name, target, isLink := strings.Cut(line, " -> ")
		name, content, isFile := strings.Cut(name, " = ")
		path := filepath.Join(root, name)
		switch {
		case line == "" || line[0] == '#':
			continue
		case strings.HasSuffix(line, "/"):
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.MkdirAll(filepath.Dir(path), 0o755)
		}
		if err == nil && isLink {
			err = os.Symlink(target, path)
		}
		if err == nil && isFile {
			err = os.WriteFile(path, []byte(content+"\n"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func fakeDisks(t *testing.T) *disks {
	host := t.TempDir()
	if err := os.MkdirAll(filepath.Join(host, "dev/vg"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../dm-1", filepath.Join(host, "dev/vg/data")); err != nil {
		t.Fatal(err)
	}
	return &disks{sysRoot: makeTree(t, "testdata/sys.txt"), hostRoot: host, now: time.Now}
}

func TestDisks(t *testing.T) {
	d := fakeDisks(t)
	sda, nvme0, nvme1 := DeviceNumber{8, 0}, DeviceNumber{259, 0}, DeviceNumber{259, 4}
	md0, dm0 := DeviceNumber{9, 0}, DeviceNumber{253, 0}
	for n, want := range map[DeviceNumber]Disk{
		sda:      {Name: "sda", Whole: sda},
		{8, 1}:   {Name: "sda1", Whole: sda},
		dm0:      {Name: "dm-0", Whole: dm0, Below: []DeviceNumber{sda}},
		{253, 1}: {Name: "dm-1", Whole: DeviceNumber{253, 1}, Below: []DeviceNumber{sda, dm0}},
		{259, 1}: {Name: "nvme0n1p1", Whole: nvme0},
		md0:      {Name: "md0", Whole: md0, Below: []DeviceNumber{nvme0, nvme1}},
		{259, 9}: {Name: "md0p1", Whole: md0, Below: []DeviceNumber{nvme0, nvme1}},
		{104, 0}: {Name: "cciss/c0d0", Whole: DeviceNumber{104, 0}},
		{252, 0}: {Name: "broken", Whole: DeviceNumber{252, 0}},
		{1, 2}:   {Name: "1:2", Whole: DeviceNumber{1, 2}},
		{253, 8}: {Name: "dm-8", Whole: DeviceNumber{253, 8}, Below: []DeviceNumber{{253, 8}, {253, 9}}},
	} {
		if diff := cmp.Diff(want, d.get(n), cmpopts.IgnoreUnexported(Disk{})); diff != "" {
			t.Errorf("%s: %s", n, diff)
		}
	}
}

func TestDisksAreReadAgain(t *testing.T) {
	d := fakeDisks(t)
	now := time.Unix(1000, 0)
	d.now = func() time.Time { return now }
	if got := d.get(DeviceNumber{8, 16}).Name; got != "8:16" {
		t.Fatalf("got %q before there is such a disk", got)
	}
	if err := os.Symlink("../../devices/pci0000:00/ata1/block/sdb", filepath.Join(d.sysRoot, "dev/block/8:16")); err != nil {
		t.Fatal(err)
	}
	if got := d.get(DeviceNumber{8, 16}).Name; got != "8:16" {
		t.Errorf("got %q at once", got)
	}
	now = now.Add(keepDisks)
	if got := d.get(DeviceNumber{8, 16}).Name; got != "sdb" {
		t.Errorf("got %q later, want sdb", got)
	}
}

func TestNumberOfSource(t *testing.T) {
	d := fakeDisks(t)
	for source, want := range map[string]DeviceNumber{
		"/dev/sda1":           {8, 1},
		"/dev/../dev/sda1":    {8, 1},
		"/dev/mapper/vg-data": {253, 1},
		"/dev/vg/data":        {253, 1},
		"/dev/cciss/c0d0":     {104, 0},
		"/dev/sda1:/dev/sda2": {8, 1},
		"/dev/mapper/none":    {},
		"/dev/../etc/passwd":  {},
		"/dev/sda/../../x":    {},
		"tank/data":           {},
		"":                    {},
	} {
		got, ok := d.numberOf(source)
		if got != want || ok != (want != DeviceNumber{}) {
			t.Errorf("%q: got %v, %v; want %v", source, got, ok, want)
		}
	}
}
