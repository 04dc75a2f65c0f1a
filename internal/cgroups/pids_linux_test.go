// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPIDs(t *testing.T) {
	root := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("cgroup.controllers", "")
	write("full/cgroup.procs", "7\n0\n9\n")
	write("full/child/cgroup.procs", "11\n")
	write("outer/cgroup.procs", "")
	write("outer/empty/cgroup.procs", "")
	write("outer/inner/cgroup.procs", "")
	write("outer/inner/leaf/cgroup.procs", "13\n")
	f, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]int{"/full": {7, 9}, "/outer": {13}, "/none": nil, "/outer/empty": nil} {
		got, err := f.PIDs(Unified, path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	if _, err := f.PIDs(Legacy, "/full"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a hierarchy that is not there: %v", err)
	}
}

func FuzzParsePIDs(f *testing.F) {
	f.Add("1\n2\n", false)
	f.Add("1\n2", true)
	f.Fuzz(func(t *testing.T, s string, cut bool) {
		for _, pid := range parsePIDs(s, cut, maxPIDs) {
			if pid <= 0 {
				t.Errorf("%d", pid)
			}
		}
	})
}
