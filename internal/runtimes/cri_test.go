// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

const (
	crioContainer   = "49ecc282021562c567a8159ef424a06cdd8637efdca5953de9794eafe29adcad"
	crioSandbox     = "1f04600dc6949359da68eee5fe7c4069706a567c07d1ef89fe3bbfdeac7a6dca"
	crioKata        = "134b58ab2e0cfd7432a9db818b1b4ec52fdc747333f0ba2c9342860dc2ea7c50"
	gvisorContainer = "8d5d7bb9b9bd15cc4c0c264abdffabcb64e258d919d7e18773d5b2517dc474ab"
	gvisorSandbox   = "e7b82bbf3ee2901aaec811ec59d807edaf6c6967884103ac418cfa3b032481da"
)

func connectCRI(t testing.TB, socket string) *cri {
	t.Helper()
	r, err := newCRI(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r.(*cri)
}

func TestCRIReadsOtherRuntimes(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	cache := Pod{Namespace: "shop", Name: "cache-0", UID: "aaaa2b4a-f398-41c0-928b-049e1cc4ec40"}
	nginx := Pod{Namespace: "default", Name: "nginx-7d4f9c7b5d-x2x4k", UID: "308d8927-7e25-443c-8dad-d390f7023b0e"}
	for _, tt := range []struct {
		file, id string
		want     Info // without labels
	}{
		{file: "crio-1.30", id: crioContainer, want: Info{
			Runtime: "cri-o", Name: "redis", Pod: cache, Restarts: 5,
			Image: Image{
				Reference: "quay.io/crio/redis:alpine",
				ID:        "sha256:98bd7cfc43b8ef0ff130465e3d5427c0771002c2f35a6a9b62cb2d04602bed0a",
			},
			Annotations: map[string]string{
				"EBPF_CONTAINER_LOGS":                            "enabled",
				"kubernetes.io/config.source":                    "api",
				"io.kubernetes.container.hash":                   "4689db3",
				"io.kubernetes.container.restartCount":           "5",
				"io.kubernetes.container.terminationMessagePath": "/dev/termination-log",
				"io.kubernetes.pod.terminationGracePeriod":       "30",
			},
			Env:     map[string]string{"COROOT_LOG_MONITORING": "disabled"},
			LogPath: "/var/log/pods/shop_cache-0_aaaa2b4a-f398-41c0-928b-049e1cc4ec40/redis/5.log",
			Mounts: []Mount{{
				Source:      "/var/lib/kubelet/pods/aaaa2b4a-f398-41c0-928b-049e1cc4ec40/volumes/kubernetes.io~csi/pvc-6a9ff04b-0e5a-4d3d-8ee1-3a23de42bd04/mount",
				Destination: "/data",
			}},
		}},
		{file: "crio-1.30", id: crioSandbox, want: Info{
			Runtime: "cri-o", Pod: cache, Sandbox: true,
			Annotations: map[string]string{"EBPF_CONTAINER_LOGS": "enabled", "kubernetes.io/config.source": "api"},
		}},
		{file: "crio-1.30", id: crioKata, want: Info{
			Runtime: "cri-o", Sandbox: true, VM: true,
			Pod: Pod{Namespace: "default", Name: "segfaulter", UID: "bbbb2b4a-f398-41c0-928b-049e1cc4ec40"},
		}},
		{file: "containerd-1.7-gvisor", id: gvisorContainer, want: Info{
			Runtime: "containerd", Name: "nginx", Pod: nginx,
			Image: Image{
				Reference: "nginx:1.27",
				ID:        "sha256:5ef79149e0ec84a7a9f9284c3f91aa3c20608f8391f5445eabe92ef07dbda03c",
			},
			Annotations: map[string]string{
				"kubernetes.io/config.seen": "2023-12-12T04:10:21.9Z", "kubernetes.io/config.source": "api",
				"io.kubernetes.container.hash": "a4ab2a7b", "io.kubernetes.container.restartCount": "0",
			},
			Env:     map[string]string{"EBPF_CONTAINER_LOGS": "enabled"},
			LogPath: "/var/log/pods/default_nginx-7d4f9c7b5d-x2x4k_308d8927-7e25-443c-8dad-d390f7023b0e/nginx/0.log",
		}},
		{file: "containerd-1.7-gvisor", id: gvisorSandbox, want: Info{
			Runtime: "containerd", Pod: nginx, Sandbox: true, VM: true,
			Annotations: map[string]string{"kubernetes.io/config.seen": "2023-12-12T04:10:21.9Z", "kubernetes.io/config.source": "api"},
		}},
	} {
		t.Run(tt.file+" "+tt.id[:8], func(t *testing.T) {
			r := connectCRI(t, readRecorded(t, tt.file).serve(t))
			got, err := r.Inspect(t.Context(), cgroups.Ref{ID: tt.id})
			if err != nil {
				t.Fatal(err)
			}
			got.Labels, tt.want.ID = nil, tt.id
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	r := connectCRI(t, readRecorded(t, "crio-1.30").serve(t))
	for _, id := range []string{crioContainer[:12], crioSandbox[:12], strings.Repeat("0", 64), "", "\xff"} {
		if _, err := r.Inspect(t.Context(), cgroups.Ref{ID: id}); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: got %v, want %v", id, err, ErrNotFound)
		}
	}
}

// What a runtime refuses to tell is left out; what it cannot tell now is an error, so that it is asked again.
func TestCRITellsWhatItIsTold(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	for _, tt := range []struct {
		name    string
		id      string
		before  func(ctx context.Context, request any) error
		want    string // name of the container, or of the pod of a sandbox
		wantPod string // of a container's annotation
		wantErr error  // that it is, or errAny
	}{
		{name: "all", id: crioContainer, want: "redis", wantPod: "enabled"},
		{name: "no verbose status", id: crioContainer, want: "redis", wantPod: "enabled", before: func(_ context.Context, request any) error {
			if r, ok := request.(*runtimeapi.ContainerStatusRequest); ok && r.GetVerbose() {
				return errors.New("creating container info: getting container metadata") // codes.Unknown
			}
			return nil
		}},
		{name: "no verbose sandbox", id: crioSandbox, want: "cache-0", before: func(_ context.Context, request any) error {
			if r, ok := request.(*runtimeapi.PodSandboxStatusRequest); ok && r.GetVerbose() {
				return status.Error(codes.ResourceExhausted, "too long")
			}
			return nil
		}},
		{name: "no sandbox", id: crioContainer, want: "redis", before: func(_ context.Context, request any) error {
			if _, ok := request.(*runtimeapi.PodSandboxStatusRequest); ok {
				return status.Error(codes.NotFound, "could not find pod")
			}
			return nil
		}},
		{name: "sandbox refused", id: crioContainer, want: "redis", before: func(_ context.Context, request any) error {
			if _, ok := request.(*runtimeapi.PodSandboxStatusRequest); ok {
				return status.Error(codes.Internal, "no network status")
			}
			return nil
		}},
		{name: "sandbox later", id: crioContainer, wantErr: errAny, before: func(_ context.Context, request any) error {
			if _, ok := request.(*runtimeapi.PodSandboxStatusRequest); ok {
				return status.Error(codes.Unavailable, "not yet")
			}
			return nil
		}},
		{name: "gone meanwhile", id: crioContainer, wantErr: ErrNotFound, before: func(_ context.Context, request any) error {
			if _, ok := request.(*runtimeapi.ContainerStatusRequest); ok {
				return status.Error(codes.NotFound, "could not find container")
			}
			return nil
		}},
		{name: "nothing", id: crioContainer, wantErr: errAny, before: func(context.Context, any) error {
			return errors.New("out of order")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := readRecorded(t, "crio-1.30")
			server.before = tt.before
			r := connectCRI(t, server.serve(t))
			info, err := r.Inspect(t.Context(), cgroups.Ref{ID: tt.id})
			if err != nil && !errors.Is(err, ErrNotFound) {
				err = fmt.Errorf("%w: %w", errAny, err)
			}
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("got error %v, want %v", err, tt.wantErr)
			}
			if err != nil {
				return
			}
			if got := firstOf(info.Name, info.Pod.Name); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got := info.Annotations["EBPF_CONTAINER_LOGS"]; !info.Sandbox && got != tt.wantPod {
				t.Errorf("got %q of the pod, want %q", got, tt.wantPod)
			}
		})
	}
}

var errAny = errors.New("any error that is not ErrNotFound")

func TestCRIWithoutVerboseWhenTooLong(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	server := readRecorded(t, "crio-1.30")
	server.containers[crioContainer].Info[verboseInfo] += strings.Repeat(" ", maxMessage)
	r := connectCRI(t, server.serve(t))
	info, err := r.Inspect(t.Context(), cgroups.Ref{ID: crioContainer})
	if err != nil {
		t.Fatal(err)
	}
	if info.Name != "redis" || info.Env != nil {
		t.Errorf("got %+v", info)
	}
}

func TestCRIKeepsItsDeadline(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	server := readRecorded(t, "crio-1.30")
	server.before = func(ctx context.Context, _ any) error {
		<-ctx.Done()
		return ctx.Err()
	}
	r := connectCRI(t, server.serve(t))
	start := time.Now()
	if _, err := r.Inspect(t.Context(), cgroups.Ref{ID: crioContainer}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > Deadline+time.Second {
		t.Errorf("took %s", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start = time.Now()
	if _, err := r.Inspect(ctx, cgroups.Ref{ID: crioContainer}); err == nil {
		t.Error("no error")
	}
	if took := time.Since(start); took > Deadline/2 {
		t.Errorf("took %s after ctx had ended", took)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	r := connectCRI(t, readRecorded(t, "crio-1.30").serve(t))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Follow(ctx, nil); err != nil {
		t.Error(err)
	}
}

func TestCRIAsksForAPodOnce(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	server := readRecorded(t, "crio-1.30")
	asked := make(chan string, 10)
	server.before = func(_ context.Context, request any) error {
		if r, ok := request.(*runtimeapi.PodSandboxStatusRequest); ok {
			asked <- r.GetPodSandboxId()
		}
		return nil
	}
	r := connectCRI(t, server.serve(t))
	for _, id := range []string{crioContainer, crioContainer, crioSandbox} {
		info, err := r.Inspect(t.Context(), cgroups.Ref{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		info.Annotations["EBPF_CONTAINER_LOGS"] = "changed" // by whoever asked, for itself only
	}
	if len(asked) != 1 {
		t.Errorf("asked %d times", len(asked))
	}
}

func TestPodCacheKeepsTheLastUsed(t *testing.T) {
	c := newPodCache(2)
	for _, id := range []string{"a", "b", "b"} {
		c.put(id, podSandbox{pod: Pod{UID: id}})
	}
	c.get("a")
	c.put("c", podSandbox{})
	var got []string
	for _, id := range []string{"a", "b", "c"} {
		if _, ok := c.get(id); ok {
			got = append(got, id)
		}
	}
	if diff := cmp.Diff([]string{"a", "c"}, got); diff != "" || len(c.items) != 2 || c.order.Len() != 2 {
		t.Errorf("(-want +got)\n%s%d %d", diff, len(c.items), c.order.Len())
	}
}

func TestNewRuntimesRefuseOthers(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	silent := filepath.Join(t.TempDir(), "silent")
	listener, err := net.Listen("unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	web := filepath.Join(t.TempDir(), "web")
	webListener, err := net.Listen("unix", web)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	go server.Serve(webListener) // until it is closed
	defer server.Close()
	for _, tt := range []struct {
		name, socket string
		unsupported  bool
		text         string // that the error of CRI has
		limit        time.Duration
	}{
		{name: "another service", socket: serve(t, func(*grpc.Server) {}), unsupported: true, text: "CRI v1", limit: Deadline / 2},
		{name: "old CRI", socket: serve(t, registerOldCRI), unsupported: true, text: "v1alpha2 only", limit: Deadline / 2},
		{name: "nobody", socket: filepath.Join(t.TempDir(), "none"), text: "no such file", limit: Deadline / 2},
		{name: "a web server", socket: web, text: "", limit: Deadline + time.Second},
		{name: "somebody who says nothing", socket: silent, text: "", limit: Deadline + time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, connectTo := range map[string]func(context.Context, string) (Runtime, error){"CRI": newCRI, "own": newContainerd} {
				start := time.Now()
				_, err := connectTo(t.Context(), tt.socket)
				took := time.Since(start)
				t.Logf("%s: %v after %s", name, err, took)
				if err == nil || errors.Is(err, errors.ErrUnsupported) != tt.unsupported || took > tt.limit {
					t.Errorf("%s: got %v after %s, want unsupported=%v in %s", name, err, took, tt.unsupported, tt.limit)
				}
				if name == "CRI" && !strings.Contains(fmt.Sprint(err), tt.text) {
					t.Errorf("got %v, want %q", err, tt.text)
				}
			}
		})
	}
}

// registerOldCRI is what containerd before 1.6 has.
func registerOldCRI(s *grpc.Server) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "runtime.v1alpha2.RuntimeService",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Version",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return &runtimeapi.VersionResponse{RuntimeName: "containerd"}, decode(&runtimeapi.VersionRequest{})
			},
		}},
	}, io.Discard)
}
