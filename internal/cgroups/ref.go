// SPDX-License-Identifier: Apache-2.0

package cgroups

import "strings"

// Kind is the family that a container belongs to.
type Kind uint8

// The kinds, by the runtime or manager that owns the cgroup.
const (
	None Kind = iota // the host itself, a plain slice, a session: no container
	Docker
	Kubernetes
	Containerd
	Podman
	ECS
	LXC
	Machine // systemd-nspawn, libvirt: /machine.slice/machine-NAME.scope
	Systemd
	Talos
	Other // garden, actions_job, buildkit, nomad ...
)

// Ref is what a cgroup path tells about its container.
type Ref struct {
	Kind      Kind
	ID        string // runtime's container id, LXC or machine name, unit name
	Runtime   string // docker, containerd, cri-o, podman, ...: value for container.runtime.name, "" when the path does not tell
	PodUID    string // Kubernetes only, with dashes
	Namespace string // containerd namespace, ECS task, Talos parent, name of an Other family
	Path      string // cgroup path of the container itself: the path parsed or an ancestor, as it stands there
}

// Name returns the path form that stands until a runtime tells a better one, such as /docker/<id>, /k8s/<pod UID>/<id>
// or /system.slice/nginx.service. It is "" for None.
func (r Ref) Name() string {
	switch r.Kind {
	case None:
		return ""
	case Docker:
		return "/docker/" + r.ID
	case Kubernetes:
		return join("/k8s", r.PodUID, r.ID)
	case Containerd:
		return join("/containerd", r.Namespace, r.ID)
	case Podman:
		return "/podman/" + r.ID
	case ECS:
		return join("/ecs", r.Namespace, r.ID)
	case LXC:
		return "/lxc/" + r.ID
	case Machine:
		return "/machine/" + r.ID
	case Systemd:
		return unitName(r.Path)
	case Talos:
		return "/talos/" + r.ID
	default:
		return "/" + r.Namespace + "/" + r.ID
	}
}

// join joins what is known.
func join(head, middle, last string) string {
	if middle == "" {
		return head + "/" + last
	}
	return head + "/" + middle + "/" + last
}

// unitName shortens the path of a unit to /SLICE/UNIT.service. A manager of unit names (a user's systemd) and unknown
// parents stay in it; slices below the first do not, since no two units of one manager share a name.
func unitName(path string) string {
	var name []byte
	slice := false
	for i := 0; i < len(path); {
		var c string
		c, i = component(path, i)
		switch {
		case c == "" || c == ".":
		case c == "..": // as in ParsePath
			name, slice = name[:0], false
		case strings.HasSuffix(c, ".slice"):
			if !slice {
				name = append(append(name, '/'), unescape(c)...)
			}
			slice = true
		case strings.HasSuffix(c, ".service"):
			name = append(append(name, '/'), unitID(c)...)
		default:
			name = append(append(name, '/'), c...)
		}
	}
	return string(name)
}

// unitID returns the name of a unit as systemctl shows it, but for \x2d, which becomes a dash. systemd puts an
// underscore before names that would clash with files of the kernel (cg_escape).
func unitID(c string) string { return unescape(strings.TrimPrefix(c, "_")) }

// unescape undoes systemd's escape of the dash, the only one that is common in names of machines and units.
func unescape(s string) string { return strings.ReplaceAll(s, `\x2d`, "-") }

// component returns the path component that begins at or after path[i] and where it ends.
func component(path string, i int) (string, int) {
	for i < len(path) && path[i] == '/' {
		i++
	}
	start := i
	for i < len(path) && path[i] != '/' {
		i++
	}
	return path[start:i], i
}
