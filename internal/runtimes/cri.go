// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// cri asks a runtime over the Container Runtime Interface of Kubernetes, runtime.v1.
//
// A pod has a sandbox, which the interface does not count among the containers; both have ids of the same form, so that
// an id is first asked for as a container. A container that the kubelet starts again is a new one with another id and the
// next attempt; nothing is ever renamed.
type cri struct {
	socket  string
	runtime string
	conn    *grpc.ClientConn
	client  runtimeapi.RuntimeServiceClient
	pods    *podCache
}

// newCRI connects to the runtime that serves CRI on a unix socket. errors.ErrUnsupported means that who listens there has
// no runtime.v1: containerd without its CRI plugin or before 1.6, or something else.
func newCRI(ctx context.Context, socket string) (Runtime, error) {
	conn, err := dialGRPC(socket)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", socket, err)
	}
	ctx, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	c := &cri{socket: socket, conn: conn, client: runtimeapi.NewRuntimeServiceClient(conn), pods: newPodCache(maxPods)}
	version, err := c.client.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		err = fmt.Errorf("%s: %w", socket, c.versionError(ctx, err))
		_ = conn.Close() // it was of no use
		return nil, err
	}
	c.runtime = version.GetRuntimeName()
	return c, nil
}

// versionError says why there is no runtime.v1.
func (c *cri) versionError(ctx context.Context, err error) error {
	if status.Code(err) == codes.Unimplemented {
		const old = "/runtime.v1alpha2.RuntimeService/Version" // its messages are those of v1
		if c.conn.Invoke(ctx, old, &runtimeapi.VersionRequest{}, &runtimeapi.VersionResponse{}) == nil {
			return fmt.Errorf("has CRI v1alpha2 only, v1 is needed: %w", errors.ErrUnsupported)
		}
	}
	return unsupported(err, "CRI v1")
}

// Close ends the connection.
func (c *cri) Close() error { return c.conn.Close() }

// Follow returns when ctx ends, or an error when the connection broke and a new one was refused: CRI does not rename.
func (c *cri) Follow(ctx context.Context, _ func(id string)) error {
	if err := watchConnection(ctx, c.conn); err != nil {
		return fmt.Errorf("%s: %w", c.socket, err)
	}
	return nil
}

// Inspect tells of a container or of the sandbox of a pod. While the daemon is away it fails; it works again when the
// daemon is back.
func (c *cri) Inspect(ctx context.Context, ref cgroups.Ref) (Info, error) {
	if !askable(ref.ID) {
		return Info{}, ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	info, err := c.inspect(ctx, ref.ID)
	if err != nil {
		return Info{}, fmt.Errorf("%s: %w", c.socket, err)
	}
	return info, nil
}

// inspect first looks what the id is. To ask for the status of what is not there, or is a sandbox, would be an error in
// the log of the runtime each time.
func (c *cri) inspect(ctx context.Context, id string) (Info, error) {
	containers, err := c.client.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{Id: id}})
	if err != nil {
		return Info{}, fmt.Errorf("container %s: %w", id, err)
	}
	for _, container := range containers.GetContainers() {
		if container.GetId() == id { // they also take the beginning of an id
			return c.container(ctx, container)
		}
	}
	sandboxes, err := c.client.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{Id: id}})
	if err != nil {
		return Info{}, fmt.Errorf("pod sandbox %s: %w", id, err)
	}
	for _, sandbox := range sandboxes.GetItems() {
		if sandbox.GetId() == id {
			return c.sandbox(ctx, id)
		}
	}
	return Info{}, ErrNotFound
}

// container tells of a container that is not the sandbox of a pod.
func (c *cri) container(ctx context.Context, container *runtimeapi.Container) (Info, error) {
	pod, err := c.pod(ctx, container.GetPodSandboxId())
	if err != nil {
		return Info{}, err
	}
	st, extra, err := c.containerStatus(ctx, container.GetId())
	if err != nil {
		return Info{}, err
	}
	labels := st.GetLabels()
	return Info{
		Runtime:     c.runtime,
		ID:          container.GetId(),
		Name:        firstOf(labels[labelContainer], st.GetMetadata().GetName()),
		Pod:         podOf(labels, pod.pod),
		Restarts:    restarts(st.GetMetadata().GetAttempt(), st.GetAnnotations()[annotationRestart]),
		Image:       imageOf(st, extra),
		Labels:      labels,
		Annotations: overlay(pod.annotations, st.GetAnnotations()),
		Env:         extra.env(),
		LogPath:     st.GetLogPath(),
		Mounts:      mountsOf(st.GetMounts()),
	}, nil
}

// containerStatus asks for the status of a container, and for what only the verbose one has.
func (c *cri) containerStatus(ctx context.Context, id string) (*runtimeapi.ContainerStatus, criInfo, error) {
	request := &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true}
	answer, err := c.client.ContainerStatus(ctx, request)
	if isRefusal(err) { // to read the specification of a container that ends may fail, and it may be too long
		request.Verbose = false
		answer, err = c.client.ContainerStatus(ctx, request)
	}
	if err != nil {
		return nil, criInfo{}, fmt.Errorf("status of container %s: %w", id, notFound(err))
	}
	return answer.GetStatus(), parseCRIInfo(answer.GetInfo()[verboseInfo]), nil
}

// restarts takes the larger number, should a client of CRI set only one of them. The kubelet sets both to the same: one
// more than the container before had or, after that one is gone, than the newest log file says.
func restarts(attempt uint32, annotation string) int {
	n := min(attempt, math.MaxInt32)
	if count, err := strconv.ParseUint(annotation, 10, 31); err == nil {
		n = max(n, uint32(count))
	}
	return int(n)
}

// podOf reads the kubelet's labels; other clients of CRI (crictl) may not set them.
func podOf(labels map[string]string, otherwise Pod) Pod {
	return Pod{
		Namespace: firstOf(labels[labelPodNamespace], otherwise.Namespace),
		Name:      firstOf(labels[labelPodName], otherwise.Name),
		UID:       firstOf(labels[labelPodUID], otherwise.UID),
	}
}

func mountsOf(list []*runtimeapi.Mount) []Mount {
	var mounts []Mount
	for _, m := range list {
		if m.GetHostPath() != "" { // "" is an image
			mounts = append(mounts, Mount{Source: m.GetHostPath(), Destination: m.GetContainerPath()})
		}
	}
	return mounts
}

// overlay returns what is in one of the maps, the second before the first.
func overlay(below, above map[string]string) map[string]string {
	if len(below)+len(above) == 0 {
		return nil
	}
	all := make(map[string]string, len(below)+len(above))
	maps.Copy(all, below)
	maps.Copy(all, above)
	return all
}

// firstOf returns the first text that is not empty.
func firstOf(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
