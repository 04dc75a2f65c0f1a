// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// dockerContainer is the part of an inspected container that is of use here: GET /containers/ID/json of Docker, and
// /libpod/containers/ID/json of Podman, which has the same fields and some more.
type dockerContainer struct {
	ID      string `json:"Id"`
	Name    string // Docker: with a slash
	Image   string // its id; Podman: without sha256:
	LogPath string // Docker only
	IsInfra bool   // Podman only: holds the namespaces of one of its pods

	HostnamePath string // a file of its own on the host

	Config struct {
		Image  string
		Env    []string
		Labels map[string]string
	}
	HostConfig struct {
		LogConfig struct {
			Type string
			Path string // Podman only
		}
	}
	Mounts []struct {
		Type, Name, Source, Destination string
	}
}

func parseDockerContainer(body []byte) (*dockerContainer, error) {
	c := &dockerContainer{}
	if err := json.Unmarshal(body, c); err != nil {
		return nil, fmt.Errorf("not a container: %w: %s", err, quote(body))
	}
	if c.ID == "" {
		return nil, fmt.Errorf("not a container: %s", quote(body))
	}
	return c, nil
}

// Labels that the kubelet has its containers get by way of dockershim and cri-dockerd.
const (
	labelPodName      = "io.kubernetes.pod.name"
	labelPodNamespace = "io.kubernetes.pod.namespace"
	labelPodUID       = "io.kubernetes.pod.uid"
	labelContainer    = "io.kubernetes.container.name"
	labelDockerType   = "io.kubernetes.docker.type"
	// Docker has no annotations: these two put them among the labels.
	labelAnnotation   = "annotation."
	annotationRestart = "io.kubernetes.container.restartCount"
)

// info has everything but Runtime.
func (c *dockerContainer) info() Info {
	info := Info{
		ID:        c.ID,
		Name:      strings.TrimPrefix(c.Name, "/"),
		Sandbox:   c.IsInfra,
		Image:     Image{Reference: c.Config.Image, ID: imageID(c.Image)},
		Env:       wantedEnv(c.Config.Env),
		LogDriver: c.HostConfig.LogConfig.Type,
		LogPath:   c.LogPath,
	}
	if info.LogPath == "" {
		info.LogPath = c.HostConfig.LogConfig.Path
	}
	if info.LogPath == "" {
		info.LogPath = c.localLogPath()
	}
	for _, m := range c.Mounts {
		mount := Mount{Source: m.Source, Destination: m.Destination}
		if m.Type == "volume" {
			mount.Volume = m.Name
		}
		info.Mounts = append(info.Mounts, mount)
	}
	// Docker gives them in another order each time.
	slices.SortStableFunc(info.Mounts, func(a, b Mount) int { return strings.Compare(a.Destination, b.Destination) })
	for name, value := range c.Config.Labels {
		if annotation, ok := strings.CutPrefix(name, labelAnnotation); ok {
			put(&info.Annotations, annotation, value)
		} else {
			put(&info.Labels, name, value)
		}
	}
	info.setPod()
	return info
}

// localLogPath is where the local driver writes, or keeps what other drivers of Docker send elsewhere since 20.10. Docker does not
// tell, but it is beside the container's other files; they may be those of the container whose network it has.
func (c *dockerContainer) localLogPath() string {
	name := "container-cached.log"
	switch c.HostConfig.LogConfig.Type {
	case "", "none", "json-file", "journald", "k8s-file", "passthrough":
		return ""
	case "local":
		name = "local-logs/container.log"
	}
	if c.HostnamePath == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(filepath.Dir(c.HostnamePath)), c.ID, name)
}

func put(m *map[string]string, name, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[name] = value
}

// setPod fills what the labels of the kubelet tell. Its names of containers, such as k8s_web_web-0_default_UID_1, end in
// the attempt.
func (info *Info) setPod() {
	if info.Labels[labelPodName] == "" {
		return
	}
	info.Pod = Pod{Namespace: info.Labels[labelPodNamespace], Name: info.Labels[labelPodName], UID: info.Labels[labelPodUID]}
	attempt, ok := info.Annotations[annotationRestart]
	if i := strings.LastIndexByte(info.Name, '_'); !ok && i >= 0 {
		attempt = info.Name[i+1:]
	}
	info.Name = info.Labels[labelContainer]
	info.Sandbox = info.Sandbox || info.Name == "" || info.Name == "POD" || info.Labels[labelDockerType] == "podsandbox"
	if info.Sandbox {
		info.Name = ""
		return
	}
	if n, err := strconv.Atoi(attempt); err == nil && n > 0 {
		info.Restarts = n
	}
}

// imageID puts the algorithm before ids of Podman.
func imageID(id string) string {
	if isHexID(id) {
		return "sha256:" + id
	}
	return id
}

// parseDockerRename returns the id of the container that an event says has a new name, "" for other events.
func parseDockerRename(event []byte) (string, error) {
	var e struct {
		Type, Action string
		Actor        struct{ ID string }
	}
	if err := json.Unmarshal(event, &e); err != nil {
		return "", fmt.Errorf("not an event: %w: %s", err, quote(event))
	}
	if e.Type != "container" || e.Action != "rename" {
		return "", nil
	}
	return e.Actor.ID, nil
}
