// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// recorded is a runtime that answers as another did, from a file of testdata/cri. An answer of the file is the protobuf
// JSON of the item in the list, of the status, and the JSON that a verbose status has as text.
type recorded struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	version    *runtimeapi.VersionResponse
	list       []*runtimeapi.Container
	pods       []*runtimeapi.PodSandbox
	containers map[string]*runtimeapi.ContainerStatusResponse
	sandboxes  map[string]*runtimeapi.PodSandboxStatusResponse
	// before is asked before each answer but the version; it may be nil. An error is the answer.
	before func(ctx context.Context, request any) error
}

func readRecorded(t testing.TB, name string) *recorded {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "cri", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	type answer struct{ List, Status, Info json.RawMessage }
	var file struct {
		Version               json.RawMessage
		Containers, Sandboxes []answer
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	r := &recorded{
		version:    &runtimeapi.VersionResponse{},
		containers: map[string]*runtimeapi.ContainerStatusResponse{},
		sandboxes:  map[string]*runtimeapi.PodSandboxStatusResponse{},
	}
	unmarshal(t, file.Version, r.version)
	for _, a := range file.Containers {
		container, st := &runtimeapi.Container{}, &runtimeapi.ContainerStatus{}
		unmarshal(t, a.List, container)
		unmarshal(t, a.Status, st)
		r.list = append(r.list, container)
		r.containers[st.GetId()] = &runtimeapi.ContainerStatusResponse{Status: st, Info: compact(t, a.Info)}
	}
	for _, a := range file.Sandboxes {
		pod, st := &runtimeapi.PodSandbox{}, &runtimeapi.PodSandboxStatus{}
		unmarshal(t, a.List, pod)
		unmarshal(t, a.Status, st)
		r.pods = append(r.pods, pod)
		r.sandboxes[st.GetId()] = &runtimeapi.PodSandboxStatusResponse{Status: st, Info: compact(t, a.Info)}
	}
	return r
}

func unmarshal(t testing.TB, text []byte, m proto.Message) {
	t.Helper()
	if err := protojson.Unmarshal(text, m); err != nil {
		t.Fatal(err)
	}
}

func compact(t testing.TB, text []byte) map[string]string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		t.Fatal(err)
	}
	return map[string]string{verboseInfo: b.String()}
}

func (r *recorded) ask(ctx context.Context, request any) error {
	if r.before == nil {
		return nil
	}
	return r.before(ctx, request)
}

func (r *recorded) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return r.version, nil
}

func (r *recorded) ListContainers(
	ctx context.Context, request *runtimeapi.ListContainersRequest,
) (*runtimeapi.ListContainersResponse, error) {
	answer := &runtimeapi.ListContainersResponse{}
	for _, c := range r.list {
		if strings.HasPrefix(c.GetId(), request.GetFilter().GetId()) {
			answer.Containers = append(answer.Containers, c)
		}
	}
	return answer, r.ask(ctx, request)
}

func (r *recorded) ListPodSandbox(
	ctx context.Context, request *runtimeapi.ListPodSandboxRequest,
) (*runtimeapi.ListPodSandboxResponse, error) {
	answer := &runtimeapi.ListPodSandboxResponse{}
	for _, p := range r.pods {
		if strings.HasPrefix(p.GetId(), request.GetFilter().GetId()) {
			answer.Items = append(answer.Items, p)
		}
	}
	return answer, r.ask(ctx, request)
}

func (r *recorded) ContainerStatus(
	ctx context.Context, request *runtimeapi.ContainerStatusRequest,
) (*runtimeapi.ContainerStatusResponse, error) {
	id := request.GetContainerId()
	answer, ok := r.containers[id]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "could not find container %q: container with ID starting with %s not found: ID does not exist", id, id)
	}
	if !request.GetVerbose() {
		answer = &runtimeapi.ContainerStatusResponse{Status: answer.Status}
	}
	return answer, r.ask(ctx, request)
}

func (r *recorded) PodSandboxStatus(
	ctx context.Context, request *runtimeapi.PodSandboxStatusRequest,
) (*runtimeapi.PodSandboxStatusResponse, error) {
	id := request.GetPodSandboxId()
	answer, ok := r.sandboxes[id]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "could not find pod %q: PodSandbox with ID starting with %s not found: ID does not exist", id, id)
	}
	if !request.GetVerbose() {
		answer = &runtimeapi.PodSandboxStatusResponse{Status: answer.Status}
	}
	return answer, r.ask(ctx, request)
}

// serve serves on a unix socket until the test ends.
func serve(t testing.TB, register func(*grpc.Server)) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cri") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	register(server)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return socket
}

func (r *recorded) serve(t testing.TB) (socket string) {
	t.Helper()
	return serve(t, func(s *grpc.Server) { runtimeapi.RegisterRuntimeServiceServer(s, r) })
}
