// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"encoding/json"
	"errors"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// verboseInfo is the key under which containerd, CRI-O and cri-dockerd put all that they tell in a verbose answer, as JSON.
const verboseInfo = "info"

// Annotations that the runtimes add to the specification of a container, not to its status.
const (
	containerdImageName = "io.kubernetes.cri.image-name" // since 1.5
	crioImage           = "io.kubernetes.cri-o.Image"    // as the kubelet asked for it: a name or, since Kubernetes 1.30, an id
	crioImageName       = "io.kubernetes.cri-o.ImageName"
	crioImageRef        = "io.kubernetes.cri-o.ImageRef" // the id
	crioRuntimeHandler  = "io.kubernetes.cri-o.RuntimeHandler"
)

// criInfo is what we read of the JSON of a verbose answer. No standard says what is in it. Of a container: containerd has
// all but RuntimeHandler, CRI-O has SandboxID and RuntimeSpec, cri-dockerd has SandboxID. Of a sandbox: containerd has
// RuntimeType, RuntimeHandler and RuntimeSpec; CRI-O has RuntimeSpec, if the sandbox has a process.
type criInfo struct {
	SandboxID      string `json:"sandboxID"`
	RuntimeType    string `json:"runtimeType"`
	RuntimeHandler string `json:"runtimeHandler"`
	Config         struct {
		Image struct {
			Image              string `json:"image"`
			UserSpecifiedImage string `json:"user_specified_image"`
		} `json:"image"`
		Envs []struct {
			Key   string `json:"key"`
			Value string `json:"value"`
		} `json:"envs"`
	} `json:"config"`
	RuntimeSpec ociSpec `json:"runtimeSpec"`
}

// parseCRIInfo reads what it can.
func parseCRIInfo(text string) criInfo {
	var info criInfo
	readJSON([]byte(text), &info)
	return info
}

// env returns the wanted variables. The specification has all of them, those of the image too.
func (i *criInfo) env() map[string]string {
	if env := i.RuntimeSpec.Process.Env; len(env) > 0 {
		return wantedEnv(env)
	}
	environ := make([]string, len(i.Config.Envs))
	for n, e := range i.Config.Envs {
		environ[n] = e.Key + "=" + e.Value
	}
	return wantedEnv(environ)
}

// ociSpec is what we read of the specification of a container, see config.md of the runtime specification of the Open
// Container Initiative.
type ociSpec struct {
	Process struct {
		Env []string `json:"env"`
	} `json:"process"`
	Annotations map[string]string `json:"annotations"`
	Mounts      []struct {
		Destination string `json:"destination"`
		Type        string `json:"type"`
		Source      string `json:"source"`
	} `json:"mounts"`
}

// maxJSON bounds the JSON of a runtime that is read, in bytes.
const maxJSON = 4 << 20

// readJSON reads an object into v. A member that has another type than v wants is left out; of what is no JSON or too
// long nothing is read, and false returned.
func readJSON(text []byte, v any) bool {
	if len(text) == 0 || len(text) > maxJSON {
		return false
	}
	err := json.Unmarshal(text, v)
	var other *json.UnmarshalTypeError
	return err == nil || errors.As(err, &other)
}

// imageOf tells the image of a container. The kubelet replaces the name by the id that it stands for before it asks for
// the container; runtimes then find some name of that id, which need not be the one in the pod.
func imageOf(st *runtimeapi.ContainerStatus, extra criInfo) Image {
	asked := st.GetImage()
	own := extra.RuntimeSpec.Annotations
	config := extra.Config.Image
	return image(
		[]string{
			asked.GetUserSpecifiedImage(), config.UserSpecifiedImage, own[crioImage], asked.GetImage(),
			own[containerdImageName], own[crioImageName], config.Image, st.GetImageRef(),
		},
		[]string{st.GetImageId(), st.GetImageRef(), config.Image, own[crioImageRef], asked.GetImage(), own[crioImage]},
	)
}

// image takes the first reference that is a name and the first id that is one. Where there is no name the id is given.
func image(references, ids []string) Image {
	var i Image
	for _, id := range ids {
		if i.ID = digestOf(id); i.ID != "" {
			break
		}
	}
	for _, reference := range references {
		if reference != "" && digestOf(reference) == "" {
			i.Reference = strings.TrimPrefix(reference, "docker-pullable://") // cri-dockerd
			return i
		}
	}
	i.Reference = i.ID
	return i
}

// digestOf returns sha256:HEX for the id of an image, however it is written, and "" for a name.
func digestOf(s string) string {
	hex := strings.TrimPrefix(strings.TrimPrefix(s, "docker://"), "sha256:")
	if len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return ""
	}
	return "sha256:" + hex
}
