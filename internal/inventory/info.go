// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"slices"
	"strings"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/runtimes"
)

// Info is what a container runtime, or systemd, has told of a container. It is shared and not to be changed. Texts are as
// they were told: any bytes. What is not known is empty.
type Info struct {
	Runtime   string // docker, containerd, cri-o, podman; "" for services
	Namespace string // of containerd
	Name      string // of the container, that in its pod with Kubernetes
	AppID     string // what the pods of one workload have in common, such as /k8s/default/web; "" outside of Kubernetes

	PodNamespace, PodName, PodUID string

	Image     string   // as it was asked for, such as busybox or registry.example:5000/team/app:1.2
	ImageName string   // that without tag and digest
	ImageTags []string // none where it was asked for by digest

	UnitType        string // of a service, such as notify or oneshot
	UnitTriggeredBy string // the units that start it, such as backup.timer, separated by commas

	LogsDisabled bool // the container asks not to have its logs read
	Restarts     int  // how often Kubernetes has made a new container to take the place of this one's predecessor
	LogDriver    string
	LogPath      string
}

func newInfo(ref cgroups.Ref, told *runtimes.Info, now time.Time) *Info {
	info := &Info{
		AppID: appID(ref, told, now),
		Image: told.Image.Reference,

		UnitType:        told.Unit.Type,
		UnitTriggeredBy: strings.Join(slices.Sorted(slices.Values(told.Unit.TriggeredBy)), ","),

		LogsDisabled: logsDisabled(told),
		Restarts:     told.Restarts,
		LogDriver:    told.LogDriver,
		LogPath:      told.LogPath,
	}
	info.ImageName, info.ImageTags = told.Image.Split()
	if ref.Kind == cgroups.Systemd {
		return info
	}
	info.Runtime, info.Namespace, info.Name = told.Runtime, told.Namespace, told.Name
	info.PodNamespace, info.PodName, info.PodUID = told.Pod.Namespace, told.Pod.Name, told.Pod.UID
	return info
}

// sameResource tells whether a and b, which may be nil, give a container the same attributes.
func sameResource(a, b *Info) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Runtime == b.Runtime && a.Namespace == b.Namespace && a.Name == b.Name && a.AppID == b.AppID &&
		a.PodNamespace == b.PodNamespace && a.PodName == b.PodName && a.PodUID == b.PodUID &&
		a.ImageName == b.ImageName && slices.Equal(a.ImageTags, b.ImageTags)
}

// InfoLabels are the attributes of container.info.
type InfoLabels struct {
	Image, TriggeredBy, UnitType string
}

func (i *Info) labels() InfoLabels {
	if i == nil {
		return InfoLabels{}
	}
	return InfoLabels{Image: i.Image, TriggeredBy: i.UnitTriggeredBy, UnitType: i.UnitType}
}
