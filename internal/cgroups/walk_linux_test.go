// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWalkFixtures(t *testing.T) {
	for host, want := range map[string]map[string]Hierarchy{
		"unified": {"/system.slice/docker-" + id1 + ".scope": Unified, burstable: Unified, burstable + "/cri-containerd-" + id2 + ".scope": Unified},
		"legacy":  {"/docker/" + id1: Legacy, "/docker/" + id2: Legacy},
		"hybrid":  {"/docker/" + id1: Legacy, "/system.slice/cron.service": Unified},
	} {
		f := openHost(t, hostRoot(host))
		seen := map[ID]string{}
		if err := f.Walk(t.Context(), func(d Dir) {
			if d.Path != "/" {
				parent := filepath.Dir(d.Path)
				ok := false
				for id, p := range seen {
					ok = ok || p == parent && id.Hierarchy == d.ID.Hierarchy
				}
				if !ok {
					t.Errorf("%s: %s came before its parent", host, d.Path)
				}
			}
			if h, ok := want[d.Path]; ok && h == d.ID.Hierarchy {
				delete(want, d.Path)
			}
			if other, ok := seen[d.ID]; ok {
				t.Errorf("%s: %s and %s have the same id", host, d.Path, other)
			}
			seen[d.ID] = d.Path
			checkInode(t, f, d)
		}); err != nil {
			t.Error(err)
		}
		if len(want) > 0 {
			t.Errorf("%s: not found: %v", host, want)
		}
	}
}

// checkInode compares the inode that Walk gave with that of stat.
func checkInode(t *testing.T, f *FS, d Dir) {
	t.Helper()
	for _, w := range f.walks {
		if w.hierarchy != d.ID.Hierarchy {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(w.dir, d.Path), &st); err == nil && st.Ino != d.ID.Inode {
			t.Errorf("%s: got inode %d, want %d", d.Path, d.ID.Inode, st.Ino)
		}
	}
}

func TestWalkEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := openHost(t, hostRoot("unified")).Walk(ctx, func(Dir) { n++; cancel() })
	if !errors.Is(err, context.Canceled) || n > 1 {
		t.Errorf("got %d cgroups and error %v, want one and %v", n, err, context.Canceled)
	}
}

func TestRootWalkFindsWhatStatFinds(t *testing.T) {
	f := needRoot(t)
	path := testCgroup("walk") + "/a/b"
	makeCgroup(t, f, path)
	makeCgroup(t, f, filepath.Dir(path)+"/c")
	want := map[Dir]bool{}
	for _, p := range []string{"/", testCgroup("walk"), filepath.Dir(path), path, filepath.Dir(path) + "/c"} {
		for _, w := range f.walks {
			var st unix.Stat_t
			if err := unix.Stat(w.dir+p, &st); err != nil {
				t.Fatal(err)
			}
			want[Dir{ID: ID{w.hierarchy, st.Ino}, Path: p}] = true
		}
	}
	seen := map[Dir]bool{}
	if err := f.Walk(t.Context(), func(d Dir) {
		delete(want, d)
		if seen[d] {
			t.Errorf("%v came twice", d)
		}
		seen[d] = true
	}); err != nil {
		t.Fatal(err)
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
	for _, w := range f.walks { // against a walk that knows no short cuts
		n := 0
		if err := filepath.WalkDir(w.dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				n++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for d := range seen {
			if d.ID.Hierarchy == w.hierarchy {
				n--
			}
		}
		if n > 2 || n < -2 { // others make cgroups here as well
			t.Errorf("%s: %d cgroups were missed", w.dir, n)
		}
	}
}
