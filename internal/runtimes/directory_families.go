// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// Families are the kinds of runtimes that a Directory can ask, the keys of Options.Sockets. cri is the API that
// containerd, CRI-O and cri-dockerd have for Kubernetes, containerd is its own.
var Families = [...]string{"docker", "podman", "cri", "containerd", "systemd"}

// family is one of Families.
type family struct {
	name string
	// api is the same where two families speak to one daemon if they have the same socket: package podman-docker makes
	// /run/docker.sock a link to Podman's.
	api     string
	sockets []string
	connect func(ctx context.Context, socket string) (Runtime, error)
}

// families returns the table of families. Of two with the same api, the first one has a socket that both name.
func families() []family {
	return []family{
		{"podman", "docker", []string{"/run/podman/podman.sock"}, newDocker},
		{"docker", "docker", []string{"/run/docker.sock", "/var/run/docker.sock"}, newDocker},
		{"cri", "cri", append(containerdSockets(),
			"/run/crio/crio.sock", "/var/run/crio/crio.sock", "/run/cri-dockerd.sock", "/var/run/cri-dockerd.sock"), newCRI},
		{"containerd", "containerd", containerdSockets(), newContainerd},
		{"systemd", "systemd", []string{"/run/systemd/private", "/run/dbus/system_bus_socket"}, newSystemd},
	}
}

func containerdSockets() []string {
	return []string{
		"/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock",
		"/var/snap/microk8s/common/run/containerd.sock", "/run/k0s/containerd.sock",
	}
}

// familiesOf returns who may know a container of the kind, in the order in which they are asked.
func familiesOf(kind cgroups.Kind) []string {
	switch kind {
	case cgroups.Docker: // any runtime can name a cgroup like this
		return []string{"docker", "podman", "cri", "containerd"}
	case cgroups.Kubernetes:
		return []string{"cri", "docker", "containerd"}
	case cgroups.Containerd:
		return []string{"containerd", "cri"}
	case cgroups.Podman:
		return []string{"podman"}
	case cgroups.ECS:
		return []string{"docker"}
	case cgroups.Other:
		return []string{"docker", "containerd", "podman"}
	case cgroups.Systemd:
		return []string{"systemd"}
	}
	return nil // LXC, Machine, Talos, None
}

// maxLinks is how many symbolic links a path may have, as in the kernel.
const maxLinks = 40

var errTooManyLinks = errors.New("too many symbolic links")

// resolve returns where a path of the host is seen below root. Symbolic links are followed as the host would: /var/run
// is one to /run, which is another directory for whoever sees the host's root elsewhere.
func resolve(root, path string) (string, error) {
	done := "/"
	left := strings.Split(path, "/")
	for links := 0; len(left) > 0; {
		c := left[0]
		left = left[1:]
		if c == "" {
			continue
		}
		next := filepath.Join(done, c) // .. stays below /
		if c == "." || c == ".." {
			done = next
			continue
		}
		target, err := os.Readlink(filepath.Join(root, next))
		if err != nil { // no link, or not there, which whoever uses it will see
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: path, Err: errTooManyLinks}
		}
		if filepath.IsAbs(target) {
			done = "/"
		}
		left = append(strings.Split(target, "/"), left...)
	}
	return filepath.Join(root, done), nil
}

// findSocket returns where a socket of the host is and what it is now, nil where there is none.
func findSocket(root, path string) (string, fs.FileInfo) {
	where := path
	if root != "" && root != "/" {
		var err error
		if where, err = resolve(root, path); err != nil {
			return "", nil
		}
	}
	info, err := os.Stat(where)
	// Docker makes a directory of a socket that is missing when it is mounted into a container.
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return "", nil
	}
	return where, info
}
