// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// podSandbox is what the sandbox of a pod tells of all its containers. It does not change.
type podSandbox struct {
	pod                 Pod
	labels, annotations map[string]string
	vm                  bool
}

// sandbox tells of the sandbox of a pod.
func (c *cri) sandbox(ctx context.Context, id string) (Info, error) {
	sandbox, err := c.askSandbox(ctx, id)
	if err != nil {
		return Info{}, err
	}
	return Info{
		Runtime:     c.runtime,
		ID:          id,
		Pod:         sandbox.pod,
		Sandbox:     true,
		VM:          sandbox.vm,
		Labels:      overlay(nil, sandbox.labels),
		Annotations: overlay(nil, sandbox.annotations),
	}, nil
}

// pod tells of the pod of a container. That a runtime does not tell of it is no reason to do without the container's own
// names.
func (c *cri) pod(ctx context.Context, sandboxID string) (podSandbox, error) {
	if sandboxID == "" {
		return podSandbox{}, nil
	}
	sandbox, err := c.askSandbox(ctx, sandboxID)
	if errors.Is(err, ErrNotFound) || isRefusal(err) {
		return podSandbox{}, nil
	}
	return sandbox, err
}

func (c *cri) askSandbox(ctx context.Context, id string) (podSandbox, error) {
	if sandbox, ok := c.pods.get(id); ok {
		return sandbox, nil
	}
	request := &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true}
	answer, err := c.client.PodSandboxStatus(ctx, request)
	if isRefusal(err) {
		request.Verbose = false
		answer, err = c.client.PodSandboxStatus(ctx, request)
	}
	if err != nil {
		return podSandbox{}, fmt.Errorf("status of pod sandbox %s: %w", id, notFound(err))
	}
	st := answer.GetStatus()
	extra := parseCRIInfo(answer.GetInfo()[verboseInfo])
	handler := firstOf(st.GetRuntimeHandler(), extra.RuntimeHandler, extra.RuntimeSpec.Annotations[crioRuntimeHandler])
	meta := st.GetMetadata()
	sandbox := podSandbox{
		pod:         podOf(st.GetLabels(), Pod{Namespace: meta.GetNamespace(), Name: meta.GetName(), UID: meta.GetUid()}),
		labels:      st.GetLabels(),
		annotations: st.GetAnnotations(),
		vm:          isVM(extra.RuntimeType, handler),
	}
	c.pods.put(id, sandbox)
	return sandbox, nil
}

// isVM tells whether a runtime runs all containers of a pod in the sandbox's cgroup. runtimeType is containerd's, as in
// io.containerd.runsc.v1, and decides if it is known; a handler may have any name, so that usual ones are looked for.
//
// gVisor puts its kernel (runsc-sandbox) and its file servers there and makes empty cgroups for the containers, see
// setupCgroupForSubcontainer in runsc/container. On cgroup v1 they sit in the pod's own cgroup, which is above the sandbox's.
// Kata does the same with its shim and its virtual machine, see sandbox_cgroup_only in docs/design/host-cgroups.md; without
// that, the threads of the virtual CPUs only.
func isVM(runtimeType, handler string) bool {
	words := strings.FieldsFunc(firstOf(runtimeType, handler), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	for _, word := range words {
		switch word {
		case "runsc", "gvisor", "kata":
			return true
		}
	}
	return false
}

// maxPods is how many pods a podCache remembers: the containers of a pod are asked for at about the same time.
const maxPods = 64

// podCache remembers the sandboxes that were asked for last. It is safe for concurrent use; mu guards all.
type podCache struct {
	mu    sync.Mutex
	size  int
	items map[string]*list.Element // of *podItem
	order *list.List               // last used first
}

type podItem struct {
	id      string
	sandbox podSandbox
}

func newPodCache(size int) *podCache {
	return &podCache{size: size, items: make(map[string]*list.Element, size), order: list.New()}
}

func (p *podCache) get(id string) (podSandbox, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.items[id]
	if !ok {
		return podSandbox{}, false
	}
	p.order.MoveToFront(e)
	return e.Value.(*podItem).sandbox, true
}

func (p *podCache) put(id string, sandbox podSandbox) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.items[id]; ok { // by another who asked meanwhile
		return
	}
	p.items[id] = p.order.PushFront(&podItem{id: id, sandbox: sandbox})
	if p.order.Len() > p.size {
		oldest := p.order.Back()
		delete(p.items, p.order.Remove(oldest).(*podItem).id)
	}
}
