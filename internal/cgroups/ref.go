// SPDX-License-Identifier: Apache-2.0

package cgroups

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
	Namespace string // containerd namespace, ECS task, name of an Other family
	Path      string // cgroup path of the container itself, an ancestor of the path parsed or that path
}
