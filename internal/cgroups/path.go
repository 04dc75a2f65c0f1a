// SPDX-License-Identifier: Apache-2.0

package cgroups

import "strings"

// deleted is what the kernel adds in /proc/PID/cgroup to the path of a cgroup that was removed.
const deleted = " (deleted)"

// ParsePath tells which container the cgroup with this path belongs to. Kind is None when there is none.
//
// The path is that of a line of /proc/PID/cgroup, or one below the root of a hierarchy. It may begin with /../.. when
// the reader sits in a cgroup namespace. What counts is the innermost container on the path: plain cgroups inside a
// container are its own, a container inside a container or inside a systemd unit is one of its own, and a unit inside a
// container is part of it. A unit's sub cgroups belong to it, apart from the units of a user's manager.
//
// A directory named by 64 hex digits is a container wherever it stands, Docker's unless its parents say otherwise,
// because --cgroup-parent is free. The same with a prefix (libpod-, crio-, docker- ... and .scope) is the container of
// that runtime. Containerd's plain form /<namespace>/<id>, whose id is any name, is believed for the namespaces that
// are well known (see containerdNamespaces) and only at the root or directly inside a container, never below a slice.
// Talos names its services at the root only.
//
// Cgroups of monitors (conmon, lxc.monitor), of whole pods, slices, sessions and deleted cgroups have no container.
func ParsePath(path string) Ref {
	if !strings.HasPrefix(path, "/") {
		return Ref{}
	}
	var p pathParser
	for i := 0; i < len(path); {
		var c string
		c, i = component(path, i)
		if c == "" || c == "." {
			continue
		}
		switch {
		case strings.HasSuffix(c, deleted):
			return Ref{}
		case c == "..":
			p = pathParser{} // what stood before is not on the way from here
		case isMonitor(c):
			if !p.inContainer() {
				return Ref{}
			}
		default:
			if p.step(c) {
				p.best.Path = path[:i]
			}
		}
	}
	return p.best
}

// pathParser is what the components so far have told. A container clears it, since what is inside begins anew.
type pathParser struct {
	best        Ref
	prev, prev2 string // components before this one, "" at the root and directly inside a container
	kube        bool   // below kubepods
	podUID      string
	ecs         bool // below ecs or ecstasks.slice
	nomad       bool // below nomad or nomad.slice
}

// inContainer tells whether the path has entered a container that is not a unit.
func (p *pathParser) inContainer() bool { return p.best.Kind != None && p.best.Kind != Systemd }

// step looks at the next component and reports whether it is a container, which is then in p.best.
func (p *pathParser) step(c string) bool {
	r, ok := p.container(c)
	if ok {
		*p = pathParser{best: r}
		return true
	}
	switch {
	case c == "kubepods" || c == "kubepods.slice":
		p.kube = true
	case c == "ecs" || c == "ecstasks.slice":
		p.ecs = true
	case c == "nomad" || c == "nomad.slice":
		p.nomad = true
	}
	if uid := p.pod(c); uid != "" {
		p.podUID = uid
	}
	unit := p.isUnit(c)
	if unit {
		p.best = Ref{Kind: Systemd, ID: unitID(c)}
	}
	p.prev2, p.prev = p.prev, c
	return unit
}

// container tells which container the component names, if any, units not counted.
func (p *pathParser) container(c string) (Ref, bool) {
	if r, ok := namedContainer(c); ok {
		return r, true
	}
	if prefix, id, ok := cutHexID(c); ok {
		return p.hexContainer(prefix, id)
	}
	if p.ecs && isFargateID(c) {
		return Ref{Kind: ECS, ID: c, Namespace: ecsTask(p.prev)}, true
	}
	return p.childContainer(c)
}

// hexContainer tells the container of a component that ends in the 64 hex digits id. The prefix, its separator removed,
// is the runtime's own, as in docker-ID.scope, or a slice and that, as in SLICE:cri-containerd:ID, which is what comes of
// a runtime that has the systemd notation without the systemd driver.
func (p *pathParser) hexContainer(prefix, id string) (Ref, bool) {
	slice, name, ok := strings.Cut(prefix, ":")
	if ok {
		if uid := podOfSlice(slice); uid != "" {
			p.podUID = uid
		}
	} else {
		name = prefix
	}
	runtime := runtimeOfPrefix(name)
	switch {
	case p.podUID != "":
		return Ref{Kind: Kubernetes, ID: id, Runtime: runtime, PodUID: p.podUID}, true
	case p.ecs:
		return Ref{Kind: ECS, ID: id, Runtime: "docker", Namespace: ecsTask(p.prev)}, true
	}
	switch name {
	case "":
		return p.bareContainer(id)
	case "docker":
		return Ref{Kind: Docker, ID: id, Runtime: runtime}, true
	case "cri-containerd", "crio":
		return Ref{Kind: Kubernetes, ID: id, Runtime: runtime}, true
	case "libpod", "libpod-payload":
		return Ref{Kind: Podman, ID: id, Runtime: runtime}, true
	case "nerdctl":
		return Ref{Kind: Containerd, ID: id, Runtime: runtime}, true
	}
	return Ref{Kind: Other, ID: id, Namespace: name}, true
}

// bareContainer tells the container of a component that is 64 hex digits and nothing else.
func (p *pathParser) bareContainer(id string) (Ref, bool) {
	switch p.prev {
	case "libpod_parent", "kata_overhead": // a Podman pod; what a virtual machine costs beside its container
		return Ref{}, false
	case "actions_job":
		return Ref{Kind: Other, ID: id, Runtime: "docker", Namespace: p.prev}, true
	}
	if r, ok := p.childContainer(id); ok && r.Kind != Talos {
		return r, true
	}
	return Ref{Kind: Docker, ID: id, Runtime: "docker"}, true
}

// namedContainer tells the containers whose own directory says all.
func namedContainer(c string) (Ref, bool) {
	if name, ok := strings.CutPrefix(c, "lxc.payload."); ok && name != "" {
		return Ref{Kind: LXC, ID: name, Runtime: "lxc"}, true
	}
	if name, ok := cut(c, "machine-", ".scope"); ok {
		return Ref{Kind: Machine, ID: unescape(name)}, true
	}
	if name, ok := cut(c, "systemd-nspawn@", ".service"); ok { // the unit is the machine, see --keep-unit
		return Ref{Kind: Machine, ID: unescape(name), Runtime: "systemd-nspawn"}, true
	}
	for _, suffix := range [...]string{".libvirt-qemu", ".libvirt-lxc"} { // libvirt without systemd
		if name, ok := cut(c, "", suffix); ok {
			return Ref{Kind: Machine, ID: name, Runtime: "libvirt"}, true
		}
	}
	return Ref{}, false
}

// containerdNamespaces are the namespaces for which /<namespace>/<id> is believed whatever the id.
var containerdNamespaces = map[string]bool{
	"default":           true, // ctr, nerdctl
	"k8s.io":            true, // CRI without a cgroup parent
	"moby":              true, // containers of dockerd, when started through ctr
	"finch":             true,
	"services.linuxkit": true,
}

// childContainer tells the containers whose parent directory says what they are.
func (p *pathParser) childContainer(c string) (Ref, bool) {
	switch p.prev {
	case "lxc", "lxc.payload":
		return Ref{Kind: LXC, ID: c, Runtime: "lxc"}, true
	case "garden":
		if c == "good" || c == "bad" { // garden sorts containers by their use of CPU
			return Ref{}, false
		}
		return Ref{Kind: Other, ID: c, Namespace: p.prev}, true
	case "good", "bad":
		if p.prev2 == "garden" {
			return Ref{Kind: Other, ID: c, Namespace: p.prev2}, true
		}
	case "buildkit":
		return Ref{Kind: Other, ID: c, Runtime: "buildkit", Namespace: p.prev}, true
	}
	if p.nomad && p.podUID == "" {
		if task := strings.TrimSuffix(c, ".scope"); isNomadTask(task) {
			return Ref{Kind: Other, ID: task, Namespace: "nomad"}, true
		}
	}
	if p.prev2 != "" {
		return Ref{}, false
	}
	// From here on c is the second component below the root or a container, or the first.
	if containerdNamespaces[p.prev] {
		return Ref{Kind: Containerd, ID: c, Runtime: "containerd", Namespace: p.prev}, true
	}
	if p.best.Kind != None {
		return Ref{}, false
	}
	switch {
	case p.prev == "" && c == "init":
		return Ref{Kind: Talos, ID: c}, true
	case p.prev == "system" || p.prev == "podruntime":
		return Ref{Kind: Talos, ID: c, Namespace: p.prev}, true
	}
	return Ref{}, false
}

// isUnit tells whether the component is a systemd service that counts.
func (p *pathParser) isUnit(c string) bool {
	if _, ok := cut(c, "", ".service"); !ok || p.inContainer() {
		return false
	}
	user := false
	if p.best.Kind == Systemd {
		if user = isUserManager(p.best.ID); !user {
			return false // delegated to the outer unit
		}
	}
	return strings.HasSuffix(p.prev, ".slice") || p.prev == "" || user && p.prev == p.best.ID
}
