// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// realUnits are those that the systemd of the test runs, by the name of their files.
var realUnits = map[string]string{
	"default.target": "[Unit]\nWants=plain.service report.service report.timer echo.socket echo.service pg@14-main.service pg@15-main.service " +
		`dash\x2ded.service _odd.service dbus.socket dbus.service`,
	"plain.service":       "[Service]\nExecStart=/bin/sleep 1000\n",
	"report.service":      "[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\n",
	"report.timer":        "[Timer]\nOnActiveSec=1h\n",
	"echo.service":        "[Service]\nType=exec\nExecStart=/bin/sleep 1000\n",
	"echo.socket":         "[Socket]\nListenStream=%t/echo\n",
	"pg@.service":         "[Service]\nType=exec\nExecStart=/bin/sleep 1000\n",
	`dash\x2ded.service`:  "[Service]\nExecStart=/bin/sleep 1000\n",
	"_odd.service":        "[Service]\nExecStart=/bin/sleep 1000\n",
	"not-loaded.service":  "[Service]\nExecStart=/bin/sleep 1000\n",
	"dbus.socket":         "[Socket]\nListenStream=%t/bus\n",
	"dbus.service":        "[Service]\nExecStart=/usr/bin/dbus-daemon --config-file=%t/bus.conf --address=systemd: --nofork --nopidfile\n",
	"../runtime/bus.conf": busConfig,
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:tmpdir=/tmp</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
`

// startRealSystemd starts a systemd for a user, which has the API of the one for the system. It has a cgroup of its own, and
// neither sees nor changes what the host has mounted. It returns the directory of its sockets and its cgroup.
func startRealSystemd(t *testing.T) (runtime, cgroup string) {
	t.Helper()
	const program = "/usr/lib/systemd/systemd"
	mount := "/sys/fs/cgroup"
	if _, err := os.Stat(mount + "/cgroup.controllers"); err != nil {
		mount += "/unified"
	}
	_, noSystemd := os.Stat(program)
	_, noCgroups := os.Stat(mount + "/cgroup.controllers")
	switch {
	case os.Geteuid() != 0:
		t.Skip("needs root: runs systemd in a cgroup of its own")
	case noSystemd != nil:
		t.Skip(noSystemd)
	case noCgroups != nil:
		t.Skip("needs cgroup v2: ", noCgroups)
	}
	dir := socketDir(t)
	for _, name := range []string{"units", "runtime"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range realUnits {
		if err := os.WriteFile(filepath.Join(dir, "units", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cgroup = fmt.Sprintf("%s/runtimes-systemd-%d", mount, os.Getpid())
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroups(t, cgroup) })
	f, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("/bin/sh", "-ec", `mount -t cgroup2 cgroup2 /sys/fs/cgroup
		mount -t tmpfs tmpfs /run
		mkdir -p /run/systemd/system
		exec `+program+` --user --log-target=console --unit=default.target`)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Env = []string{
		"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir + "/runtime", "SYSTEMD_UNIT_PATH=" + dir + "/units",
		"SYSTEMD_GENERATOR_PATH=" + dir + "/none", "SYSTEMD_ENVIRONMENT_GENERATOR_PATH=" + dir + "/none",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd()), Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(cgroup+"/cgroup.kill", []byte("1"), 0); err != nil { // since 5.14
			t.Error(err)
			cmd.Process.Kill()
		}
		cmd.Wait() // it was killed
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return dir + "/runtime", cgroup
}

// removeCgroups removes a cgroup and those below it, whose processes are about to be gone.
func removeCgroups(t *testing.T, root string) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var dirs []string
		filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, p)
			}
			return nil
		})
		slices.Reverse(dirs)
		for _, dir := range dirs {
			os.Remove(dir)
		}
		if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s stays", root)
			return
		}
	}
}

// unitsIn returns the units that the cgroups below root are of, as seen by whom root is the root.
func unitsIn(root string) map[string]cgroups.Ref {
	refs := map[string]cgroups.Ref{}
	filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			if ref := cgroups.ParsePath("/" + strings.TrimPrefix(p[len(root):], "/")); ref.Kind == cgroups.Systemd {
				refs[ref.ID] = ref
			}
		}
		return nil
	})
	return refs
}

// TestRealSystemd asks a real systemd, at its private socket and on a real bus, for the units whose cgroups it has made.
func TestRealSystemd(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	runtime, cgroup := startRealSystemd(t)
	want := map[string]Info{
		"plain.service":      {ID: "plain.service", Name: "plain.service", Unit: Unit{Type: "simple"}},
		"report.service":     {ID: "report.service", Name: "report.service", Unit: Unit{Type: "oneshot", TriggeredBy: []string{"report.timer"}}},
		"echo.service":       {ID: "echo.service", Name: "echo.service", Unit: Unit{Type: "exec", TriggeredBy: []string{"echo.socket"}}},
		"pg@14-main.service": {ID: "pg@14-main.service", Name: "pg@14-main.service", Unit: Unit{Type: "exec"}},
		"pg@15-main.service": {ID: "pg@15-main.service", Name: "pg@15-main.service", Unit: Unit{Type: "exec"}},
		"dash-ed.service":    {ID: "dash-ed.service", Name: `dash\x2ded.service`, Unit: Unit{Type: "simple"}},
		"_odd.service":       {ID: "_odd.service", Name: "_odd.service", Unit: Unit{Type: "simple"}},
	}
	names := []string{"systemd/private"}
	if _, err := os.Stat("/usr/bin/dbus-daemon"); err == nil {
		names = append(names, "bus")
		want["dbus.service"] = Info{ID: "dbus.service", Name: "dbus.service", Unit: Unit{Type: "simple", TriggeredBy: []string{"dbus.socket"}}}
	} else {
		t.Logf("not on a bus: %v", err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			socket := filepath.Join(runtime, name)
			var rt Runtime
			var err error
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				if rt, err = newSystemd(t.Context(), socket); err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			defer rt.Close()
			var refs map[string]cgroups.Ref
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				if refs = unitsIn(cgroup); len(refs) >= len(want) || time.Now().After(deadline) {
					break
				}
			}
			got := map[string]Info{}
			began := time.Now()
			for id, ref := range refs {
				info, err := rt.Inspect(t.Context(), ref)
				if err != nil {
					t.Error(err)
				}
				got[id] = info
			}
			t.Logf("%d units in %s", len(refs), time.Since(began))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			for _, name := range []string{"not-loaded.service", "not-there.service", "a@b@c.service", "@.service"} {
				for range 2 { // the first question must not load it
					if info, err := rt.Inspect(t.Context(), unitRef("/app.slice/"+name)); !errors.Is(err, ErrNotFound) {
						t.Errorf("%s: got %+v, %v", name, info, err)
					}
				}
			}
			for i := range 100 { // see authenticate
				again, err := newSystemd(t.Context(), socket)
				if err != nil {
					t.Fatalf("connection %d: %v", i, err)
				}
				again.Close()
			}
		})
	}
}
