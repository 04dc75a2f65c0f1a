// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// makeRootfs makes the smallest root file system that runs the load and a shell: /busybox and /load, both static.
func makeRootfs(t *testing.T, load string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"dev", "proc", "sys", "tmp"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	copyProgram(t, busybox, filepath.Join(root, "busybox"))
	copyProgram(t, load, filepath.Join(root, "load"))
	return root
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// script returns the command that runs a shell script in the root file system.
func script(text string) []string { return []string{"/busybox", "sh", "-ec", text} }
