// SPDX-License-Identifier: Apache-2.0

// Package runtimes asks the container runtimes and systemd of a host what they know of a container that was found by its
// cgroup: its names, its image, its labels, where it logs.
//
// No runtime is needed for anything: they come and go, may hang, and may not know a container yet that runs already.
// Directory knows which of them are there and asks the right ones, again where that helps; each of them is a Runtime.
package runtimes

import (
	"context"
	"errors"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// ErrNotFound reports that a runtime answers but does not know the container, or not yet.
var ErrNotFound = errors.New("no such container")

// Deadline is how long a runtime has for each answer.
const Deadline = 2 * time.Second

// Runtime is one runtime that answers on one socket. Its methods are safe for concurrent use. An error other than
// ErrNotFound means that this runtime cannot be asked now.
type Runtime interface {
	// Inspect tells what the runtime knows of a container. It returns within Deadline, or when ctx ends.
	Inspect(ctx context.Context, ref cgroups.Ref) (Info, error)
	// Follow calls changed with the id of each container whose name has changed since Follow began. It returns nil when ctx
	// ends, else why the runtime cannot be followed any more; one that never renames a container, or does not tell,
	// returns when ctx ends or the connection is lost for good.
	Follow(ctx context.Context, changed func(id string)) error
	Close() error
}

// Info is what a runtime tells of one container, as it tells it: text may be any bytes. What is not known is empty.
type Info struct {
	Runtime   string // as in container.runtime.name: docker, containerd, cri-o, podman, systemd
	Namespace string // of containerd
	ID        string
	Name      string // as people or orchestrators gave it, without a leading slash; Kubernetes: that of the container in its pod

	Pod     Pod  // Kubernetes only
	Sandbox bool // holds the namespaces of a pod and is not one of its containers
	// VM tells that the processes of a whole pod run in its sandbox, as with gVisor; its containers have none of their own.
	VM       bool
	Restarts int // how often Kubernetes has started this container of the pod before, by making a new one

	Image  Image
	Labels map[string]string
	// Annotations are those of the pod and of the container, which win.
	Annotations map[string]string
	// Env has only the variables in WantedEnv, since others may be secrets.
	Env map[string]string

	LogDriver string // of Docker and Podman: json-file, journald, k8s-file ...
	LogPath   string // on the host, "" where it logs to no file
	Mounts    []Mount

	Unit Unit // systemd only
}

// Pod is the pod of a container.
type Pod struct {
	Namespace, Name, UID string
}

// Image is what a container was made from.
type Image struct {
	Reference string // as it was asked for: busybox, registry.example:5000/team/app:1.2, or a digest where nobody named it
	ID        string // sha256:...
}

// Mount is a volume or a directory of the host that a container sees.
type Mount struct {
	Source      string // path on the host
	Destination string // path in the container
	Volume      string // name of the volume, "" for directories
}

// Unit is what systemd knows of a service.
type Unit struct {
	Type        string   // simple, forking, oneshot, dbus, notify ...
	TriggeredBy []string // units such as x.timer, x.socket
}

// WantedEnv are the environment variables that Info has.
var WantedEnv = [...]string{
	"COROOT_LOG_MONITORING", "EBPF_CONTAINER_LOGS",
	"NOMAD_ALLOC_ID", "NOMAD_GROUP_NAME", "NOMAD_JOB_NAME", "NOMAD_NAMESPACE", "NOMAD_TASK_NAME",
}

// wantedEnv picks the wanted ones out of an environment of NAME=VALUE.
func wantedEnv(environ []string) map[string]string {
	var env map[string]string
	for _, pair := range environ {
		for _, name := range WantedEnv {
			if len(pair) > len(name) && pair[len(name)] == '=' && pair[:len(name)] == name {
				if env == nil {
					env = map[string]string{}
				}
				env[name] = pair[len(name)+1:]
			}
		}
	}
	return env
}
