// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// runc is a container that no daemon knows of.
type runc struct {
	id, state string
	process   *process
}

// startRunc runs a command in a container in the given cgroup and network namespace; "" is the namespace of this
// process.
func startRunc(t *testing.T, id, rootfs, cgroupsPath, netnsPath string, command ...string) *runc {
	t.Helper()
	bundle := t.TempDir()
	config, err := json.Marshal(runcConfig(rootfs, cgroupsPath, netnsPath, command))
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	removeNewParents(t, cgroupsPath)
	c := &runc{id: id, state: t.TempDir()}
	c.process = start(t, "runc", exec.Command("runc", "--root", c.state, "run", "--bundle", bundle, id))
	t.Cleanup(func() { c.remove(t) })
	return c
}

// remove kills the container and removes its cgroup. It may be gone already.
func (c *runc) remove(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(c.state, c.id)); err != nil {
		return
	}
	if _, err := output(exec.Command("runc", "--root", c.state, "delete", "--force", c.id)); err != nil {
		t.Error(err)
	}
}

type object = map[string]any

// runcConfig is the least that runc takes; see the runtime specification of the Open Container Initiative.
func runcConfig(rootfs, cgroupsPath, netnsPath string, command []string) object {
	namespaces := []object{{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}}
	if netnsPath != "" {
		namespaces = append(namespaces, object{"type": "network", "path": netnsPath})
	}
	return object{
		"ociVersion": "1.0.2",
		"process":    object{"args": command, "cwd": "/", "user": object{"uid": 0, "gid": 0}, "env": []string{"PATH=/"}},
		"root":       object{"path": rootfs, "readonly": true},
		"mounts": []object{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}, // runc makes devices, not in the shared rootfs
		},
		"linux": object{"cgroupsPath": cgroupsPath, "namespaces": namespaces},
	}
}
