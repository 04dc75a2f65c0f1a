// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"path"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cloudmeta"
	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/internal/node"
)

// resourceWriter makes the resource of a container. No two containers of one snapshot get the same attributes, and
// the two identities share none: container.id and container_id are one label in Prometheus, and the series of a
// resource that has both are lost without an error.
type resourceWriter struct {
	identity IdentityMode
	host     node.Identity
	instance cloudmeta.Instance // that the host is
	common   pcommon.Map        // what all containers of the host have
}

func newResourceWriter(cfg *Config, host node.Identity) *resourceWriter {
	return resourcesOf(cfg.Identity, host, cfg.Cloud.instance())
}

// at returns a writer for the same host when it is known to be another instance, w itself if it is the same.
func (w *resourceWriter) at(instance cloudmeta.Instance) *resourceWriter {
	if instance == w.instance {
		return w
	}
	return resourcesOf(w.identity, w.host, instance)
}

func resourcesOf(identity IdentityMode, host node.Identity, cloud cloudmeta.Instance) *resourceWriter {
	w := &resourceWriter{identity: identity, host: host, instance: cloud, common: pcommon.NewMap()}
	if identity == IdentityCoroot {
		w.common.PutStr("machine_id", valid(host.MachineID))
		w.common.PutStr("system_uuid", valid(host.SystemUUID))
		if cloud.AvailabilityZone != "" && cloud.Region != "" {
			w.common.PutStr("az", valid(cloud.AvailabilityZone))
			w.common.PutStr("region", valid(cloud.Region))
		}
		return w
	}
	hostID := cloud.InstanceID // the conventions want the provider's id where there is a provider
	if hostID == "" {
		hostID = host.MachineID
	}
	putKnown(w.common, "host.id", hostID)
	putKnown(w.common, "host.name", host.HostName)
	putKnown(w.common, "host.type", cloud.InstanceType)
	if cloud.Provider != "" {
		putKnown(w.common, "cloud.provider", cloud.Provider.CloudProvider())
		putKnown(w.common, "cloud.platform", cloud.Provider.CloudPlatform())
	}
	putKnown(w.common, "cloud.region", cloud.Region)
	putKnown(w.common, "cloud.availability_zone", cloud.AvailabilityZone)
	putKnown(w.common, "cloud.account.id", cloud.AccountID)
	return w
}

// resource returns the resource of c.
func (w *resourceWriter) resource(c *inventory.Container) pcommon.Resource {
	res := pcommon.NewResource()
	attrs := res.Attributes()
	attrs.EnsureCapacity(w.common.Len() + 10)
	w.common.CopyTo(attrs)
	if w.identity == IdentityCoroot {
		attrs.PutStr("container_id", valid(c.Name))
		appID := ""
		if c.Info != nil {
			appID = c.Info.AppID
		}
		attrs.PutStr("app_id", valid(appID))
		return res
	}
	putContainer(attrs, c)
	return res
}

// putContainer names the container by what its cgroup tells, and adds what a runtime has told. Each branch gives all that
// the path form with the id is made of, so that different containers have different attributes whatever they are called.
func putContainer(attrs pcommon.Map, c *inventory.Container) {
	ref, form := &c.Ref, c.Name // another than Ref.Name() where two containers have that
	if c.Info != nil {
		form = ref.Name() // and not the name that the runtime has told
	}
	if isUnit(c) {
		attrs.PutStr("systemd.unit.name", valid(path.Base(form)))
		putKnown(attrs, "systemd.slice", strings.TrimPrefix(path.Dir(form), "/"))
		return
	}
	family, _, _ := strings.Cut(strings.TrimPrefix(form, "/"), "/")
	runtime := ref.Runtime
	switch family {
	case "k8s":
		attrs.PutStr("container.id", valid(ref.ID))
		putKnown(attrs, "k8s.pod.uid", ref.PodUID)
	case "ecs":
		attrs.PutStr("container.id", valid(ref.ID))
		putKnown(attrs, "aws.ecs.task.id", ref.Namespace)
	case "containerd":
		attrs.PutStr("container.id", valid(ref.ID))
		putKnown(attrs, "containerd.namespace", ref.Namespace)
	case "docker", "podman":
		attrs.PutStr("container.id", valid(ref.ID))
	default: // lxc, machine, talos and others: people gave the names, unless it is the id that most runtimes give
		switch {
		case isHexID(ref.ID):
			attrs.PutStr("container.id", ref.ID)
		case form != ref.Name():
			attrs.PutStr("container.name", valid(form))
		default:
			attrs.PutStr("container.name", valid(ref.ID))
		}
		if runtime == "" {
			runtime = family
		}
	}
	putKnown(attrs, "container.runtime.name", runtime)
	if c.Info != nil {
		putInfo(attrs, c.Info)
	}
}

// putInfo adds what a runtime has told.
func putInfo(attrs pcommon.Map, info *inventory.Info) {
	putKnown(attrs, "container.runtime.name", info.Runtime)
	putKnown(attrs, "container.name", info.Name)
	putKnown(attrs, "containerd.namespace", info.Namespace)
	putKnown(attrs, "container.image.name", info.ImageName)
	if len(info.ImageTags) > 0 {
		tags := attrs.PutEmptySlice("container.image.tags")
		for _, tag := range info.ImageTags {
			tags.AppendEmpty().SetStr(valid(tag))
		}
	}
	if info.PodName == "" {
		return
	}
	putKnown(attrs, "k8s.namespace.name", info.PodNamespace)
	putKnown(attrs, "k8s.pod.name", info.PodName)
	putKnown(attrs, "k8s.pod.uid", info.PodUID)
	putKnown(attrs, "k8s.container.name", info.Name)
}

// isUnit tells whether c is a systemd service. Only machines may have such a name too.
func isUnit(c *inventory.Container) bool {
	ref := &c.Ref
	return strings.HasSuffix(ref.ID, ".service") && ref.Runtime == "" && ref.Namespace == "" &&
		ref.Name() != "/machine/"+ref.ID
}

func isHexID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

func putKnown(attrs pcommon.Map, key, value string) {
	if value != "" {
		attrs.PutStr(key, valid(value))
	}
}

// valid makes s UTF-8, since one bad byte in a label spoils a whole Prometheus scrape. Bad bytes become \xNN, so that
// different names stay different.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b.WriteString(`\x`)
			b.WriteByte(hex[s[i]>>4])
			b.WriteByte(hex[s[i]&0xf])
		} else {
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}
