// SPDX-License-Identifier: Apache-2.0

// Package node reads facts of the host itself, as opposed to those of its containers.
//
// It reads files below a root path, so that it can run in a container that sees the host's file system elsewhere. A fact
// that cannot be read is absent; nothing is made up in its place. ReadIdentity reads what stays the same, a Reader what
// changes: CPUs, memory, disks and their health, interfaces, sockets, pressure.
package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrNoMachineID reports that no file names the machine.
var ErrNoMachineID = errors.New("no machine id")

// Identity is what tells one host from another. What is not known is empty.
type Identity struct {
	MachineID     string // 32 hexadecimal digits, stays the same for the life of the installation
	SystemUUID    string // DMI product UUID as the firmware gives it; only root may read it, virtual machines may lack it
	HostName      string
	KernelVersion string // release, such as 6.1.0-18-amd64
}

// initialUTS is what /proc/self/ns/uts of a process in the host's UTS namespace links to. The number is part of the
// kernel's interface: PROC_UTS_INIT_INO, include/linux/proc_ns.h.
const initialUTS = "uts:[4026531838]"

// ReadIdentity reads the Identity of the host whose root file system is at root. The error is ErrNoMachineID with the
// reasons; all else is valid even then.
func ReadIdentity(root string) (Identity, error) {
	id := Identity{
		HostName:      hostName(root),
		KernelVersion: readLine(root, "proc/sys/kernel/osrelease"),
	}
	uuid, uuidErr := readValid(root, "sys/class/dmi/id/product_uuid")
	if uuidErr == nil {
		id.SystemUUID = uuid
	}

	errs := []error{ErrNoMachineID}
	for _, name := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		s, err := readValid(root, name)
		if err == nil {
			id.MachineID = undashed(s)
			return id, nil
		}
		errs = append(errs, err)
	}
	if uuidErr == nil {
		id.MachineID = undashed(uuid)
		return id, nil
	}
	return id, errors.Join(append(errs, uuidErr)...)
}

// hostName prefers the kernel's name. /proc/sys/kernel/hostname shows that of the reader's own UTS namespace, wherever
// /proc is mounted, so that in a container PID 1 has to be asked; the host's /etc/hostname is the next best source.
func hostName(root string) string {
	link, _ := os.Readlink(filepath.Join(root, "proc/self/ns/uts"))
	name := readLine(root, "proc/sys/kernel/hostname")
	if link == initialUTS && name != "" {
		return name
	}
	if host, err := hostNameOfInit(root); err == nil && host != "" && host != "(none)" {
		return host
	}
	if static := readLine(root, "etc/hostname"); static != "" && filepath.Clean(root) != "/" {
		return static
	}
	if name == "" && filepath.Clean(root) == "/" {
		name, _ = os.Hostname() // no /proc: not Linux
	}
	return name
}

func readLine(root, name string) string {
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return ""
	}
	return firstLine(string(b))
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(line)
}

func readValid(root, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return "", err
	}
	s := firstLine(string(b))
	if err := validID(s); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// validID wants 32 hexadecimal digits, dashes aside. It refuses what firmware and image builders put where an id should
// be: all zeros, all ones, and the word "uninitialized" of machine-id(5).
func validID(s string) error {
	digits := undashed(s)
	switch {
	case len(digits) != 32 || strings.Trim(digits, "0123456789abcdefABCDEF") != "":
		return fmt.Errorf("%.64q is not 32 hexadecimal digits", s)
	case strings.Trim(digits, "0") == "", strings.Trim(digits, "fF") == "":
		return fmt.Errorf("%q is no id", s)
	}
	return nil
}

func undashed(s string) string { return strings.ReplaceAll(s, "-", "") }
