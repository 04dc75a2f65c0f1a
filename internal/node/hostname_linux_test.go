// SPDX-License-Identifier: Apache-2.0

package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// In a container that is told another name, /proc/sys/kernel/hostname of the host shows that one.
func TestHostNameIsThatOfPID1(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a UTS namespace")
	}
	cmd := exec.Command("/bin/sh", "-c", "echo the-host > /proc/sys/kernel/hostname && exec sleep 60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	root := t.TempDir()
	for file, content := range map[string]string{"proc/sys/kernel/hostname": "the-container\n", "etc/hostname": "static\n"} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := hostName(root); got != "static" {
		t.Errorf("without PID 1: got %q", got)
	}
	if err := os.MkdirAll(filepath.Join(root, "proc/1/ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "ns/uts")
	if err := os.Symlink(target, filepath.Join(root, "proc/1/ns/uts")); err != nil {
		t.Fatal(err)
	}
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	var got string
	for end := time.Now().Add(10 * time.Second); got != "the-host" && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		got = hostName(root)
	}
	if got != "the-host" {
		t.Errorf("got %q", got)
	}
	if after, _ := os.Hostname(); after != own {
		t.Errorf("our own name was %q and is %q", own, after)
	}
}
