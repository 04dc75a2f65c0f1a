// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"net/url"
	"path"
	"strings"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/protobuf/types/known/anypb"
)

// Labels of clients of containerd.
const (
	labelNerdctlName      = "nerdctl/name"
	labelNerdctlMounts    = "nerdctl/mounts"     // JSON, as Docker shows mounts
	labelNerdctlLogURI    = "nerdctl/log-uri"    // binary:///usr/bin/nerdctl?_NERDCTL_INTERNAL_LOGGING=DATA
	labelNerdctlLogConfig = "nerdctl/log-config" // JSON, since nerdctl 1.7
	labelComposeProject   = "com.docker.compose.project"
	labelComposeService   = "com.docker.compose.service"
	labelComposeNumber    = "com.docker.compose.container-number"
	labelCRIKind          = "io.cri-containerd.kind" // sandbox or container
)

// extensionCRI is where the CRI plugin keeps what the kubelet told it of a container, as JSON.
const extensionCRI = "io.cri-containerd.container.metadata"

// containerdInfo tells what containerd's record of a container says.
func containerdInfo(c *containersapi.Container, namespace string) Info {
	labels := c.GetLabels()
	var spec ociSpec
	readAny(c.GetSpec(), "opencontainers/runtime-spec/1/Spec", &spec)
	var cri criMetadata
	readAny(c.GetExtensions()[extensionCRI], "/cri/pkg/store/container/Metadata", &cri)
	info := Info{
		Runtime:     "containerd",
		Namespace:   namespace,
		ID:          c.GetID(),
		Pod:         podOf(labels, Pod{}),
		Sandbox:     labels[labelCRIKind] == "sandbox",
		Restarts:    restarts(cri.Metadata.Config.Metadata.Attempt, cri.Metadata.Config.Annotations[annotationRestart]),
		Image:       image([]string{cri.Metadata.Config.Image.UserSpecifiedImage, c.GetImage()}, []string{c.GetImage(), cri.Metadata.ImageRef}),
		Labels:      labels,
		Annotations: overlay(spec.Annotations, cri.Metadata.Config.Annotations),
		Env:         wantedEnv(spec.Process.Env),
		LogPath:     cri.Metadata.LogPath,
		Mounts:      bindMounts(spec, labels[labelNerdctlMounts]),
	}
	if _, ok := c.GetExtensions()[extensionCRI]; ok { // the specification also has what the plugin mounts by itself
		info.Mounts = cri.mounts()
	}
	if info.LogPath == "" {
		info.LogDriver, info.LogPath = nerdctlLog(labels, namespace, c.GetID())
	}
	switch {
	case info.Sandbox:
		info.VM = isVM(c.GetRuntime().GetName(), "")
	case namespace == namespaceDocker: // only Docker knows the name
		info.Runtime = "docker"
	default:
		info.Name = firstOf(labels[labelContainer], labels[labelNerdctlName], composeName(labels), c.GetID())
	}
	return info
}

// composeName is the name that a compose project gives to a container of a service.
func composeName(labels map[string]string) string {
	project, service := labels[labelComposeProject], labels[labelComposeService]
	if project == "" || service == "" {
		return ""
	}
	name := project + "-" + service
	if number := labels[labelComposeNumber]; number != "" {
		name += "-" + number
	}
	return name
}

// criMetadata is what we read of extensionCRI.
type criMetadata struct {
	Metadata struct {
		Config struct {
			Metadata struct {
				Attempt uint32 `json:"attempt"`
			} `json:"metadata"`
			Image struct {
				UserSpecifiedImage string `json:"user_specified_image"`
			} `json:"image"`
			Annotations map[string]string `json:"annotations"`
			Mounts      []struct {
				ContainerPath string `json:"container_path"`
				HostPath      string `json:"host_path"`
			} `json:"mounts"`
		} `json:"Config"`
		ImageRef string `json:"ImageRef"`
		LogPath  string `json:"LogPath"`
	} `json:"Metadata"`
}

func (m *criMetadata) mounts() []Mount {
	var mounts []Mount
	for _, mount := range m.Metadata.Config.Mounts {
		if mount.HostPath != "" { // "" is an image
			mounts = append(mounts, Mount{Source: mount.HostPath, Destination: mount.ContainerPath})
		}
	}
	return mounts
}

// readAny reads JSON of a type whose URL ends as given.
func readAny(value *anypb.Any, typeSuffix string, v any) {
	if strings.HasSuffix(value.GetTypeUrl(), typeSuffix) {
		readJSON(value.GetValue(), v)
	}
}

// bindMounts tells the directories and files of the host that a specification mounts. nerdctl, which is Docker's way of
// using containerd, knows which of them are volumes.
func bindMounts(spec ociSpec, nerdctlMounts string) []Mount {
	var known []struct{ Type, Name, Destination string }
	readJSON([]byte(nerdctlMounts), &known)
	volumes := map[string]string{}
	for _, m := range known {
		if m.Type == "volume" {
			volumes[m.Destination] = m.Name
		}
	}
	var mounts []Mount
	for _, m := range spec.Mounts {
		if m.Type == "bind" && path.IsAbs(m.Source) {
			mounts = append(mounts, Mount{Source: m.Source, Destination: m.Destination, Volume: volumes[m.Destination]})
		}
	}
	return mounts
}

// nerdctlLog tells where nerdctl logs to. Its json-file driver writes what Docker's does, see pkg/logging of nerdctl.
func nerdctlLog(labels map[string]string, namespace, id string) (driver, file string) {
	var config struct {
		Driver string            `json:"driver"`
		Opts   map[string]string `json:"opts"`
	}
	readJSON([]byte(labels[labelNerdctlLogConfig]), &config)
	if config.Driver != "json-file" {
		return config.Driver, ""
	}
	if file = config.Opts["log-path"]; file != "" {
		return config.Driver, file
	}
	uri, err := url.Parse(labels[labelNerdctlLogURI])
	if err != nil {
		return config.Driver, ""
	}
	if data := uri.Query().Get("_NERDCTL_INTERNAL_LOGGING"); path.IsAbs(data) {
		file = path.Join(data, "containers", namespace, id, id+"-json.log")
	}
	return config.Driver, file
}
