// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

const (
	stormNames = 20
	stormLasts = 8 * time.Second
)

// Two datapoints of one series in one collection spoil a scrape. Containers of Docker get other ids under the same names
// and other names, services begin anew at the same path, and each connects; all that is given of both identities, what has
// ended included, is looked at.
func TestEverySeriesIsUniqueInAStorm(t *testing.T) {
	s := newSeriesStorm(t)
	var checks [2]seriesCheck
	for i, identity := range []IdentityMode{IdentitySemconv, IdentityCoroot} {
		check := &checks[i]
		check.t, check.identity, check.ended = t, identity, map[string]bool{}
		cfg := createDefaultConfig().(*Config)
		cfg.Identity, cfg.CollectionInterval, cfg.InitialDelay = identity, 250*time.Millisecond, time.Millisecond
		cfg.Containers.MinAge = 0
		none := []string{}
		cfg.Runtimes.Sockets = SocketsConfig{Docker: []string{s.socket}, Podman: none, CRI: none, Containerd: none, Systemd: none}
		next, err := consumer.NewMetrics(check.consume)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewFactory().CreateMetrics(t.Context(), receivertest.NewNopSettings(metadata.Type), cfg, next)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Start(t.Context(), componenttest.NewNopHost()); err != nil {
			t.Fatal(err)
		}
		defer shutdown(t, r)
	}
	s.rage()
	for i := range checks {
		c := &checks[i]
		c.mu.Lock()
		t.Logf("%s: %d collections, %d series at most, %d seen to end", c.identity, c.collections, c.most, len(c.ended))
		if c.collections < 10 || c.most < 20*stormNames || len(c.ended) < stormNames {
			t.Errorf("%s: not much of a storm", c.identity)
		}
		c.mu.Unlock()
	}
}

// seriesCheck looks at the collections of one receiver.
type seriesCheck struct {
	t        *testing.T
	identity IdentityMode

	mu                sync.Mutex
	collections, most int
	ended             map[string]bool
}

func (c *seriesCheck) consume(_ context.Context, md pmetric.Metrics) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.collections++
	seen := map[string]bool{}
	for _, rm := range md.ResourceMetrics().All() {
		one := pmetric.NewMetrics()
		rm.CopyTo(one.ResourceMetrics().AppendEmpty())
		resource := fmt.Sprint(rm.Resource().Attributes().AsRaw())
		points(one, func(metric string, dp testPoint) {
			key := resource + series(metric, dp)
			if seen[key] {
				c.t.Errorf("%s: twice: %s", c.identity, key)
			}
			seen[key] = true
			if dp.flags.NoRecordedValue() {
				c.ended[key] = true
			}
		})
	}
	c.most = max(c.most, len(seen))
	return nil
}

// seriesStorm is containers and services that are replaced all the time.
type seriesStorm struct {
	t      *testing.T
	roots  []string // of the hierarchies
	base   string
	peer   string
	socket string // where the fake Docker answers

	mu    sync.Mutex
	names map[string]string // by id
}

func newSeriesStorm(t *testing.T) *seriesStorm {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes cgroups and loads BPF programs")
	}
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash: ", err)
	}
	s := &seriesStorm{t: t, base: fmt.Sprintf("/ebpfcontainer-series-%d", os.Getpid()), names: map[string]string{}}
	s.roots = []string{"/sys/fs/cgroup"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		s.roots = nil
		for _, h := range []string{"unified", "memory", "cpu", "cpuacct"} {
			if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", h)); err == nil {
				s.roots = append(s.roots, filepath.Join("/sys/fs/cgroup", h))
			}
		}
	}
	for _, root := range s.roots {
		dir := root + s.base
		if err := os.MkdirAll(dir+"/system.slice", 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = os.Remove(dir + "/system.slice")
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
	}
	peer, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.peer = peer.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := peer.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	})
	s.socket = filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(s.answer), ReadHeaderTimeout: time.Minute}
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = peer.Close()
		_ = server.Close()
		serving.Wait()
	})
	return s
}

// answer is Docker's part at the wire.
func (s *seriesStorm) answer(w http.ResponseWriter, r *http.Request) {
	var version, id string
	switch n, _ := fmt.Sscanf(r.URL.Path, "/v%4s/containers/%64s", &version, &id); {
	case r.URL.Path == "/_ping":
		w.Header().Set("Api-Version", "1.47")
	case n == 2:
		s.mu.Lock()
		name, ok := s.names[id]
		s.mu.Unlock()
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"No such container"}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"Id":%q,"Name":"/%s","Config":{"Image":"registry.example/%s:1"}}`, id, name, name)
	default: // events
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

// rage replaces containers in each of its names until the storm is over.
func (s *seriesStorm) rage() {
	var slots sync.WaitGroup
	defer slots.Wait()
	end := time.Now().Add(stormLasts)
	for n := range stormNames {
		slots.Go(func() {
			for life := 0; time.Now().Before(end); life++ {
				if err := s.live(n, life); err != nil {
					s.t.Error(err)
					return
				}
			}
		})
	}
}

// live is one life under the nth name.
func (s *seriesStorm) live(n, life int) error {
	path := fmt.Sprintf("%s/system.slice/storm%d.service", s.base, n)
	if n%2 == 0 {
		id := fmt.Sprintf("%016x%016x%032x", rand.Uint64(), rand.Uint64(), life)
		path = filepath.Join(s.base, id)
		s.mu.Lock()
		s.names[id] = fmt.Sprint("storm", (n+life%2*2)%stormNames) // two take turns with two names
		s.mu.Unlock()
	}
	for _, root := range s.roots {
		if err := os.Mkdir(root+path, 0o755); err != nil {
			return err
		}
	}
	cmd := exec.Command("bash", "-c", //nolint:gosec // ours
		`for c in "$@"; do echo $$ > "$c/cgroup.procs"; done; exec 3<>/dev/tcp/${PEER/://}; exec sleep 60`, "bash")
	cmd.Env = append(os.Environ(), "PEER="+s.peer)
	for _, root := range s.roots {
		cmd.Args = append(cmd.Args, root+path)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := cmd.Start(); err != nil {
		return err
	}
	time.Sleep(time.Duration(100+rand.IntN(1500)) * time.Millisecond)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for _, root := range s.roots {
		err := os.Remove(root + path)
		for end := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(end); err = os.Remove(root + path) {
			time.Sleep(time.Millisecond)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
