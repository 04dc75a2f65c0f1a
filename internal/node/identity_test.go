// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	machineID = "0123456789abcdef0123456789abcdef"
	dbusID    = "fedcba9876543210fedcba9876543210"
	dmiUUID   = "EC2F1A34-0001-0002-0003-A0B0C0D0E0F0"
)

// fakeHost makes a root file system of files, and of links for the names that end in an @.
func fakeHost(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		link := name[len(name)-1] == '@'
		if link {
			name = name[:len(name)-1]
		}
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if link {
			err = os.Symlink(content, file)
		} else {
			err = os.WriteFile(file, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestReadIdentity(t *testing.T) {
	for _, tt := range []struct {
		name    string
		files   map[string]string
		want    Identity
		noID    bool
		because error // one of the reasons
	}{
		{
			name: "all known",
			files: map[string]string{
				"etc/machine-id":                   machineID + "\n",
				"var/lib/dbus/machine-id":          dbusID + "\n",
				"sys/class/dmi/id/product_uuid":    dmiUUID + "\n",
				"proc/sys/kernel/hostname":         "node-1\n",
				"proc/sys/kernel/osrelease":        "6.1.0-18-amd64\n",
				"proc/self/ns/uts@":                initialUTS,
				"etc/hostname":                     "not-this-one\n",
				"proc/sys/kernel/random/boot_id":   "not read",
				"sys/class/dmi/id/chassis_vendor":  "not read",
				"sys/class/dmi/id/product_version": "not read",
			},
			want: Identity{
				MachineID: machineID, SystemUUID: dmiUUID, HostName: "node-1", KernelVersion: "6.1.0-18-amd64",
			},
		},
		{
			name: "image that was never booted",
			files: map[string]string{
				"etc/machine-id":          "uninitialized\n",
				"var/lib/dbus/machine-id": dbusID,
			},
			want: Identity{MachineID: dbusID},
		},
		{
			name: "empty machine-id, as in many container images",
			files: map[string]string{
				"etc/machine-id":                "",
				"sys/class/dmi/id/product_uuid": dmiUUID,
			},
			want: Identity{MachineID: "EC2F1A34000100020003A0B0C0D0E0F0", SystemUUID: dmiUUID},
		},
		{
			name:  "dashes are removed",
			files: map[string]string{"etc/machine-id": "01234567-89ab-cdef-0123-456789abcdef\n"},
			want:  Identity{MachineID: machineID},
		},
		{
			name: "firmware that was never set up",
			files: map[string]string{
				"etc/machine-id":                "00000000000000000000000000000000\n",
				"sys/class/dmi/id/product_uuid": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n",
			},
			noID:    true,
			because: fs.ErrNotExist, // of the D-Bus one
		},
		{
			name:  "garbage",
			files: map[string]string{"etc/machine-id": "<html>" + machineID},
			noID:  true,
		},
		{
			name:  "nothing",
			files: map[string]string{},
			noID:  true,
		},
		{
			name: "in a container: the kernel tells our own name",
			files: map[string]string{
				"etc/machine-id":           machineID,
				"proc/sys/kernel/hostname": "f3a9c1d2e4b5\n",
				"proc/self/ns/uts@":        "uts:[4026532999]",
				"etc/hostname":             "node-1.example\n",
			},
			want: Identity{MachineID: machineID, HostName: "node-1.example"},
		},
		{
			name: "in a container, no /etc/hostname",
			files: map[string]string{
				"etc/machine-id":           machineID,
				"proc/sys/kernel/hostname": "f3a9c1d2e4b5\n",
			},
			want: Identity{MachineID: machineID, HostName: "f3a9c1d2e4b5"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadIdentity(fakeHost(t, tt.files))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("identity (-want +got):\n%s", diff)
			}
			if errors.Is(err, ErrNoMachineID) != tt.noID {
				t.Errorf("got error %v, want ErrNoMachineID: %v", err, tt.noID)
			}
			if !tt.noID && err != nil {
				t.Errorf("got error %v, want none", err)
			}
			if tt.because != nil && !errors.Is(err, tt.because) {
				t.Errorf("got error %v, want %v in it", err, tt.because)
			}
		})
	}
}

func TestReadIdentityOfThisHost(t *testing.T) {
	id, err := ReadIdentity("/")
	if err != nil && !errors.Is(err, ErrNoMachineID) {
		t.Errorf("got error %v, want none or ErrNoMachineID", err)
	}
	if (id.MachineID == "") != (err != nil) {
		t.Errorf("got machine id %q with error %v", id.MachineID, err)
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if id.HostName != name {
		t.Errorf("got host name %q, want %q", id.HostName, name)
	}
}
