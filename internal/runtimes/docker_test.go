// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

var anID = strings.Repeat("ab", 32)

// serveHTTP serves on a socket until the test ends.
func serveHTTP(t *testing.T, handler http.Handler) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go server.Serve(listener) // until it is closed
	t.Cleanup(func() { server.Close() })
	return socket
}

// fakeDocker answers as Docker 20.10 does, or as Podman 4.3 where libpod is its version.
type fakeDocker struct {
	version, libpod string
	answer          http.HandlerFunc // to all but /_ping
	asked           atomic.Pointer[string]
}

func (f *fakeDocker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/_ping" {
		w.Header().Set("Api-Version", f.version)
		if f.libpod != "" {
			w.Header().Set("Libpod-Api-Version", f.libpod)
		}
		fmt.Fprint(w, "OK")
		return
	}
	path := r.URL.Path
	f.asked.Store(&path)
	f.answer(w, r)
}

func say(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func (f *fakeDocker) connect(t *testing.T) Runtime {
	t.Helper()
	return connect(t, newDocker, serveHTTP(t, f))
}

func readTestdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/docker", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Where drivers write of whose files Docker does not tell.
func TestDockerLogPath(t *testing.T) {
	body := string(readTestdata(t, "docker-20.10.json"))
	c, err := parseDockerContainer([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	dir := "/var/lib/docker/containers/" + c.ID
	for _, tt := range []struct{ driver, hostname, want string }{
		{"local", dir + "/hostname", dir + "/local-logs/container.log"},
		{"local", "/var/lib/docker/containers/another/hostname", dir + "/local-logs/container.log"},
		{"local", "", ""},
		{"fluentd", dir + "/hostname", dir + "/container-cached.log"},
		{"journald", dir + "/hostname", ""},
		{"none", dir + "/hostname", ""},
	} {
		c.LogPath, c.HostConfig.LogConfig.Type, c.HostnamePath = "", tt.driver, tt.hostname
		if got := c.info(); got.LogPath != tt.want || got.LogDriver != tt.driver {
			t.Errorf("%s, %q: got %q", tt.driver, tt.hostname, got.LogPath)
		}
	}
}

func TestDockerReadsWhatDaemonsTell(t *testing.T) {
	const (
		dockerID = "6a7c28f8b12071712c66c9fdededb9090dee2ed14ba0366a0f069220e1955321"
		podmanID = "560b9484697214d791f596978bee5277026cc06af9f7e877cee2dba246fec275"
		infraID  = "0f73416853d7e989b56b10e4d7a1c101b4a20fb75cd69dd899ee0ef521b71732"
	)
	mounts := func(volume string) []Mount {
		return []Mount{
			{Source: volume, Destination: "/data", Volume: "data"},
			{Source: "/tmp", Destination: "/hosttmp"},
		}
	}
	for _, tt := range []struct {
		file, libpod, path string
		want               Info
	}{
		{
			file: "docker-20.10.json", path: "/v1.41/containers/" + dockerID + "/json",
			want: Info{
				Runtime: "docker", ID: dockerID, Name: "web",
				Image: Image{
					Reference: "registry.example:5000/team/busybox:1",
					ID:        "sha256:7c9852ce4b4a6ee0958dea7b606d3f8ad2e2fe3a5ad8d23b255230b375109ffe",
				},
				Labels: map[string]string{"a": "b"}, Env: map[string]string{"NOMAD_JOB_NAME": "j"},
				LogDriver: "json-file", LogPath: "/var/lib/docker/containers/" + dockerID + "/" + dockerID + "-json.log",
				Mounts: mounts("/var/lib/docker/volumes/data/_data"),
			},
		},
		{
			file: "podman-4.3.json", libpod: "4.3.1", path: "/v4.3.1/libpod/containers/" + podmanID + "/json",
			want: Info{
				Runtime: "podman", ID: podmanID, Name: "plain",
				Image: Image{
					Reference: "localhost/team/busybox:1",
					ID:        "sha256:6336054381a6d2c77691f6190bf6b972cc3aad1cf00eb6dcd62c8a800dfdc612",
				},
				Labels: map[string]string{"a": "b"}, Env: map[string]string{"NOMAD_JOB_NAME": "j"},
				LogDriver: "k8s-file", LogPath: "/var/lib/containers/storage/overlay-containers/" + podmanID + "/userdata/ctr.log",
				Mounts: mounts("/var/lib/containers/storage/volumes/data/_data"),
			},
		},
		{
			file: "podman-4.3-infra.json", libpod: "4.3.1", path: "/v4.3.1/libpod/containers/" + infraID + "/json",
			want: Info{
				Runtime: "podman", ID: infraID, Name: "1da38ef32c4b-infra", Sandbox: true,
				Image: Image{
					Reference: "localhost/pause:1",
					ID:        "sha256:4f395249f33e3f7a97ec34651d24cb7d6c5ad4d2b8ec22013f831bd2f9ffdc7d",
				},
				LogDriver: "k8s-file", LogPath: "/var/lib/containers/storage/overlay-containers/" + infraID + "/userdata/ctr.log",
			},
		},
	} {
		t.Run(tt.file, func(t *testing.T) {
			daemon := &fakeDocker{version: "1.41", libpod: tt.libpod, answer: say(http.StatusOK, string(readTestdata(t, tt.file)))}
			got := inspect(t, daemon.connect(t), cgroups.Ref{ID: tt.want.ID})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if path := *daemon.asked.Load(); path != tt.path {
				t.Errorf("asked for %s, want %s", path, tt.path)
			}
		})
	}
}

func TestDockerSortsMounts(t *testing.T) {
	c, err := parseDockerContainer([]byte(`{"Id":"x","Mounts":[{"Destination":"/b"},{"Destination":"/a"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Mount{{Destination: "/a"}, {Destination: "/b"}}, c.info().Mounts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDockerReadsLabelsOfOrchestrators(t *testing.T) {
	kubernetes := func(more ...string) map[string]string {
		labels := map[string]string{
			"io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "u-1",
			"io.kubernetes.container.name": "web", "io.kubernetes.docker.type": "container",
		}
		for i := 0; i < len(more); i += 2 {
			labels[more[i]] = more[i+1]
		}
		return labels
	}
	pod := Pod{Namespace: "shop", Name: "web-0", UID: "u-1"}
	for _, tt := range []struct {
		name, docker string // Docker's name of the container
		labels       map[string]string
		env          []string
		want         Info // but labels
	}{
		{
			name: "swarm", docker: "/shop_web.1.k3jd",
			labels: map[string]string{
				"com.docker.swarm.task.name": "shop_web.1.k3jd", "com.docker.stack.namespace": "shop", "com.docker.swarm.service.name": "shop_web",
			},
			want: Info{Name: "shop_web.1.k3jd"},
		},
		{
			name: "nomad", docker: "/server-6cf9",
			env: []string{
				"NOMAD_TASK_NAME=server", "NOMAD_ALLOC_ID=6cf9", "NOMAD_META_SECRET=s", "NOMAD_GROUP_NAME=g=1", "NOMAD_NAMESPACE=", "NOMAD_JOB_NAME",
				"XNOMAD_JOB_NAME=x",
			},
			want: Info{Name: "server-6cf9", Env: map[string]string{
				"NOMAD_TASK_NAME": "server", "NOMAD_ALLOC_ID": "6cf9", "NOMAD_GROUP_NAME": "g=1", "NOMAD_NAMESPACE": "",
			}},
		},
		{
			name: "cri-dockerd", docker: "/k8s_web_web-0_shop_u-1_2", labels: kubernetes("annotation.a", "1", "annotation.io.kubernetes.container.restartCount", "3"),
			want: Info{Name: "web", Pod: pod, Restarts: 3, Annotations: map[string]string{"a": "1", "io.kubernetes.container.restartCount": "3"}},
		},
		{name: "attempt in the name", docker: "/k8s_web_web-0_shop_u-1_2", labels: kubernetes(), want: Info{Name: "web", Pod: pod, Restarts: 2}},
		{name: "no attempt", docker: "/web", labels: kubernetes(), want: Info{Name: "web", Pod: pod}},
		{
			name: "sandbox", docker: "/k8s_POD_web-0_shop_u-1_0",
			labels: kubernetes("io.kubernetes.docker.type", "podsandbox", "io.kubernetes.container.name", "POD", "app", "web"),
			want:   Info{Pod: pod, Sandbox: true},
		},
		{
			name: "sandbox by its name", docker: "/x", labels: kubernetes("io.kubernetes.docker.type", "", "io.kubernetes.container.name", "POD"),
			want: Info{Pod: pod, Sandbox: true},
		},
		{name: "no name", docker: "/x", labels: kubernetes("io.kubernetes.container.name", ""), want: Info{Pod: pod, Sandbox: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body, err := json.Marshal(map[string]any{
				"Id": anID, "Name": tt.docker, "Config": map[string]any{"Labels": tt.labels, "Env": tt.env},
			})
			if err != nil {
				t.Fatal(err)
			}
			daemon := &fakeDocker{version: "1.41", answer: say(http.StatusOK, string(body))}
			want := tt.want
			want.Runtime, want.ID = "docker", anID
			for name, value := range tt.labels {
				if !strings.HasPrefix(name, "annotation.") {
					put(&want.Labels, name, value)
				}
			}
			if diff := cmp.Diff(want, inspect(t, daemon.connect(t), cgroups.Ref{ID: anID})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDockerDoesNotBelieveEverything(t *testing.T) {
	long := strings.Repeat("x", maxAnswer+10)
	for _, tt := range []struct {
		name     string
		id       string
		answer   http.HandlerFunc
		notFound bool
		want     string // in the error
	}{
		{name: "unknown", answer: say(404, `{"message":"No such container: x"}`), notFound: true, want: "No such container: x: no such container"},
		{name: "a name", id: "web", notFound: true},
		{name: "a path", id: "../../info", notFound: true},
		{name: "a short id", id: anID[:12], notFound: true},
		{name: "another container of that name", answer: say(200, `{"Id":"`+strings.Repeat("cd", 32)+`"}`), notFound: true},
		{name: "web page", answer: say(200, "<html>Sign in</html>"), want: `not a container: invalid character '<' looking for beginning of value: "<html>Sign in</html>"`},
		{name: "web page for what is missing", answer: say(404, "<html>"), want: `status 404: "<html>"`},
		{name: "proxy that forbids", answer: say(403, "Request forbidden"), want: `status 403: "Request forbidden"`},
		{name: "trouble", answer: say(500, `{"message":"no space left"}`), want: "status 500: no space left"},
		{name: "elsewhere", answer: http.RedirectHandler("http://example.com/", http.StatusFound).ServeHTTP, want: "status 302"},
		{name: "nothing", answer: say(200, ""), want: "nothing"},
		{name: "something else", answer: say(200, "{}"), want: `not a container: "{}"`},
		{name: "wrong type", answer: say(200, `{"Id":"`+anID+`","Config":{"Labels":["a"]}}`), want: "not a container"},
		{name: "too much", answer: say(200, `{"Id":"`+long+`"}`), want: "answer of more than 4194304 bytes"},
		{name: "too long a message", answer: say(500, `{"message":"`+long+`"}`), want: "answer of more than"},
		{name: "long garbage", answer: say(500, long[:10000]), want: `xxx..."`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := tt.id
			if id == "" {
				id = anID
			}
			r := (&fakeDocker{version: "1.41", answer: tt.answer}).connect(t)
			info, err := r.Inspect(t.Context(), cgroups.Ref{ID: id})
			if err == nil || errors.Is(err, ErrNotFound) != tt.notFound || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 500 {
				t.Errorf("got %+v, %v, want an error with %q, not found: %v", info, err, tt.want, tt.notFound)
			}
		})
	}
}

func TestDockerKeepsItsDeadline(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	trickle := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			fmt.Fprint(w, " ")
			w.(http.Flusher).Flush()
			sleep(r.Context(), 10*time.Millisecond)
		}
	}
	silent := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", silent) // connections are never accepted
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() }) // after the parallel ones
	for name, call := range map[string]func() error{
		"connects to one that is silent": func() error { _, err := newDocker(t.Context(), silent); return err },
		"connects to one that hangs": func() error {
			_, err := newDocker(t.Context(), serveHTTP(t, http.HandlerFunc(hang)))
			return err
		},
		"asks one that hangs": func() error {
			_, err := (&fakeDocker{version: "1.41", answer: hang}).connect(t).Inspect(t.Context(), cgroups.Ref{ID: anID})
			return err
		},
		"asks one that is slow": func() error {
			_, err := (&fakeDocker{version: "1.41", answer: trickle}).connect(t).Inspect(t.Context(), cgroups.Ref{ID: anID})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			err := call()
			if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > Deadline+Deadline/2 {
				t.Errorf("%v after %v", err, took)
			}
		})
	}
}

func TestDockerIsNotSomethingElse(t *testing.T) {
	for _, tt := range []struct {
		name   string
		daemon http.HandlerFunc
		want   string
	}{
		{"web server", say(200, "<html>hello</html>"), `not the API of Docker or Podman: /_ping answers "<html>hello</html>"`},
		{"web server without the page", http.NotFound, `/_ping: status 404: "404 page not found"`},
		{"starting", say(503, `{"message":"starting"}`), "/_ping: status 503: starting"},
		{"odd version", (&fakeDocker{version: "1.41/../x"}).ServeHTTP, "not the API of Docker or Podman"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := newDocker(t.Context(), serveHTTP(t, tt.daemon))
			if r != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v, want %q", r, err, tt.want)
			}
		})
	}
	if _, err := newDocker(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
}

func TestDockerFollowsNames(t *testing.T) {
	const rename = `{"Type":"container","Action":"rename","Actor":{"ID":"%s"}}` + "\n"
	events := make(chan string)
	daemon := &fakeDocker{version: "1.41"}
	daemon.answer = func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		since, filters := query.Get("since"), query.Get("filters")
		if began, err := time.ParseDuration(strings.Replace(since, ".", "s", 1) + "ns"); err != nil || time.Since(time.Unix(0, int64(began))) > time.Minute ||
			filters != `{"type":["container"],"event":["rename"]}` || r.URL.Path != "/v1.41/events" {
			t.Errorf("asked for %s, since %q: %v, filters %s", r.URL.Path, since, err, filters)
		}
		for event := range events {
			fmt.Fprint(w, event)
			w.(http.Flusher).Flush()
		}
	}
	r := daemon.connect(t)
	changed, done := make(chan string), make(chan error)
	go func() { done <- r.Follow(t.Context(), func(id string) { changed <- id }) }()
	for _, id := range []string{"a", "b"} {
		events <- `{"Type":"container","Action":"start","Actor":{"ID":"x"}}` + "\n"
		events <- fmt.Sprintf(rename, id)
		if got := <-changed; got != id {
			t.Errorf("got %q, want %q", got, id)
		}
	}
	close(events)
	if err := <-done; err == nil {
		t.Error("no error when the stream ended")
	}

	for name, answer := range map[string]http.HandlerFunc{
		"refused": say(500, `{"message":"no events"}`),
		"garbage": say(200, "<html>\n"),
		"long":    say(200, strings.Repeat("x", maxEvent+1)),
	} {
		err := (&fakeDocker{version: "1.41", answer: answer}).connect(t).Follow(t.Context(), func(string) { t.Error("changed") })
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		t.Log(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	hung := (&fakeDocker{version: "1.41", answer: func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }}).connect(t)
	if err := hung.Follow(ctx, nil); err != nil {
		t.Errorf("%v at the end of the context", err)
	}
}

func TestDockerDoesNotKeepPodmanRunning(t *testing.T) {
	daemon := &fakeDocker{version: "1.41", libpod: "4.3.1", answer: func(http.ResponseWriter, *http.Request) { t.Error("asked") }}
	r := daemon.connect(t).(*docker)
	if !r.follows {
		t.Error("Podman that runs by itself is not followed")
	}
	r.listener.Store(1) // systemd
	if err := r.ping(t.Context()); err != nil || r.follows {
		t.Errorf("Podman that was started for us is followed: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Follow(ctx, nil); err != nil || ctx.Err() == nil {
		t.Errorf("returned %v, context %v", err, ctx.Err())
	}
}

func FuzzDockerContainer(f *testing.F) {
	for _, name := range []string{"docker-20.10.json", "podman-4.3.json", "podman-4.3-infra.json"} {
		f.Add(readTestdata(f, name))
	}
	f.Add([]byte(`{"Id":"x","Name":"k8s_1","Config":{"Labels":{"io.kubernetes.pod.name":"p","annotation.":"x"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parseDockerContainer(body)
		if err != nil {
			return
		}
		info := c.info()
		if info.ID == "" || info.Restarts < 0 || info.Pod.Name == "" && info.Restarts > 0 {
			t.Errorf("%+v", info)
		}
		for name := range maps.Keys(info.Env) {
			if wantedEnv([]string{name + "="}) == nil {
				t.Errorf("took %s", name)
			}
		}
	})
}

func FuzzDockerRename(f *testing.F) {
	f.Add([]byte(`{"Type":"container","Action":"rename","Actor":{"ID":"a"}}`))
	f.Fuzz(func(t *testing.T, event []byte) {
		if id, err := parseDockerRename(event); err != nil && id != "" {
			t.Errorf("%q, %v", id, err)
		}
	})
}
