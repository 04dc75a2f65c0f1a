// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// Bounds of what a daemon may answer. An inspected container has a few KiB, with all its labels and mounts.
const (
	maxAnswer = 4 << 20
	maxEvent  = 1 << 20
)

var apiVersion = regexp.MustCompile(`^[0-9]{1,4}(\.[0-9]{1,4}){1,2}$`)

// docker asks a Docker or a Podman daemon over HTTP. Its fields do not change after newDocker.
//
// Podman is asked for containers by its own API: the one that it has for Docker's clients says that each container logs
// with json-file, and does not tell which container holds the namespaces of a pod.
type docker struct {
	http       *http.Client
	podman     bool
	containers string // path of containers, with the version
	events     string // path of events
	since      time.Time
	follows    bool
	listener   atomic.Int32 // pid of who listens on the socket, 0 where it is not known
}

// newDocker connects to the daemon that listens on socket, Docker from 1.13 (API 1.25) or Podman from 3.0. It returns
// within Deadline.
func newDocker(ctx context.Context, socket string) (Runtime, error) {
	d := &docker{since: time.Now()}
	d.http = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
				if err == nil {
					d.listener.Store(listenerPID(conn))
				}
				return conn, err
			},
			DisableCompression:     true,
			MaxIdleConnsPerHost:    workers,
			IdleConnTimeout:        10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if err := d.ping(ctx); err != nil {
		d.http.CloseIdleConnections()
		return nil, err
	}
	return d, nil
}

// ping finds out who answers and which versions of the API it has. It takes the newest: old ones are dropped with time
// (Docker 29 has none below 1.44), and what is asked for here is in all of them.
func (d *docker) ping(ctx context.Context) error {
	header, body, err := d.get(ctx, "/_ping")
	if err != nil {
		return err
	}
	version, libpod := header.Get("Api-Version"), header.Get("Libpod-Api-Version")
	if !apiVersion.MatchString(version) {
		return fmt.Errorf("not the API of Docker or Podman: /_ping answers %s", quote(body))
	}
	d.containers, d.events, d.follows = "/v"+version+"/containers/", "/v"+version+"/events", true
	if apiVersion.MatchString(libpod) {
		d.podman = true
		d.containers = "/v" + libpod + "/libpod/containers/"
		// Where systemd listens and starts Podman for each request, Podman would stay for as long as its events are followed.
		d.follows = d.listener.Load() > 1
	}
	return nil
}

// Close lets go of the connections that are not in use.
func (d *docker) Close() error {
	d.http.CloseIdleConnections()
	return nil
}

// Inspect asks for a container by its whole id; others, such as names of Nomad's tasks, are not known without asking.
func (d *docker) Inspect(ctx context.Context, ref cgroups.Ref) (Info, error) {
	if !isHexID(ref.ID) {
		return Info{}, fmt.Errorf("%q: %w", ref.ID, ErrNotFound)
	}
	_, body, err := d.get(ctx, d.containers+ref.ID+"/json")
	if err != nil {
		return Info{}, err
	}
	c, err := parseDockerContainer(body)
	if err != nil {
		return Info{}, err
	}
	if c.ID != ref.ID { // a container may have another's id for a name
		return Info{}, fmt.Errorf("%s: %w", ref.ID, ErrNotFound)
	}
	info := c.info()
	info.Runtime = "docker"
	if d.podman {
		info.Runtime = "podman"
	}
	return info, nil
}

// isHexID tells whether id is one that Docker and Podman give to containers.
func isHexID(id string) bool {
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""
}

// get returns the answer to a request, ErrNotFound for status 404.
func (d *docker) get(ctx context.Context, path string) (http.Header, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	resp, err := d.do(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := readBounded(resp.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return resp.Header, body, checkStatus(path, resp.StatusCode, body)
}

func (d *docker) do(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := d.http.Do(req)
	if urlErr := (*url.Error)(nil); errors.As(err, &urlErr) { // says that it is a GET of http://localhost
		return nil, fmt.Errorf("%s: %w", strings.SplitN(path, "?", 2)[0], urlErr.Err)
	}
	return resp, err
}

func readBounded(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("answer of more than %d bytes", maxAnswer)
	}
	return body, err
}

// checkStatus turns an answer that is none into an error, with the daemon's own message.
func checkStatus(path string, status int, body []byte) error {
	if status == http.StatusOK {
		return nil
	}
	var e struct{ Message string }
	if err := json.Unmarshal(body, &e); err != nil || e.Message == "" {
		return fmt.Errorf("%s: status %d: %s", path, status, quote(body)) // not even a 404 of Docker's
	}
	message := cut(e.Message)
	if status == http.StatusNotFound {
		return fmt.Errorf("%s: %w", message, ErrNotFound)
	}
	return fmt.Errorf("%s: status %d: %s", path, status, message)
}

// quote shows the beginning of an answer that makes no sense.
func quote(body []byte) string {
	if len(bytes.TrimSpace(body)) == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%q", cut(string(bytes.TrimSpace(body))))
}

func cut(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// Follow reads the daemon's events, those since newDocker included.
func (d *docker) Follow(ctx context.Context, changed func(id string)) error {
	if !d.follows {
		<-ctx.Done()
		return nil
	}
	query := url.Values{
		"filters": {`{"type":["container"],"event":["rename"]}`},
		"since":   {fmt.Sprintf("%d.%09d", d.since.Unix(), d.since.Nanosecond())},
	}
	// Podman 4 answers not even the status before the first event, so there is no deadline here.
	resp, err := d.do(ctx, d.events+"?"+query.Encode())
	if err == nil {
		defer resp.Body.Close()
		err = readEvents(resp, d.events, changed)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func readEvents(resp *http.Response, path string, changed func(id string)) error {
	if resp.StatusCode != http.StatusOK {
		body, err := readBounded(resp.Body)
		if err == nil {
			err = checkStatus(path, resp.StatusCode, body)
		}
		return err
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		id, err := parseDockerRename(lines.Bytes())
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if id != "" {
			changed(id)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return fmt.Errorf("%s: the stream has ended: %w", path, io.EOF)
}
