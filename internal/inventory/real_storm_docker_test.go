// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// stormDocker answers on a socket as Docker does, as slowly as it does when it has much to do.
type stormDocker struct {
	socket string
	server *http.Server
	served sync.WaitGroup

	mu        sync.Mutex
	known     map[string]*stormKnown // by id
	followers map[chan string]bool   // of events
	answers   []time.Duration        // from when it was told of a container until it first told of that
	unknown   int                    // questions for containers that it did not know
}

// stormKnown is what it knows of a container.
type stormKnown struct {
	name, image string
	told, from  time.Time // when it was told, and from when on it answers
	asked       bool
}

const stormAPI = "1.47"

func newStormDocker(t *testing.T) *stormDocker {
	t.Helper()
	d := &stormDocker{
		socket: filepath.Join(t.TempDir(), "docker.sock"),
		known:  map[string]*stormKnown{}, followers: map[chan string]bool{},
	}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", stormAPI)
		fmt.Fprint(w, "OK")
	})
	mux.HandleFunc("GET /v"+stormAPI+"/containers/{id}/json", d.inspect)
	mux.HandleFunc("GET /v"+stormAPI+"/events", d.events)
	d.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	d.served.Go(func() { _ = d.server.Serve(l) })
	return d
}

func (d *stormDocker) close() {
	_ = d.server.Close()
	d.served.Wait()
}

// run makes it know a container, each fifth only after a while.
func (d *stormDocker) run(id, name, image string) {
	now := time.Now()
	k := &stormKnown{name: name, image: image, told: now, from: now}
	if rand.IntN(5) == 0 {
		k.from = now.Add(50 * time.Millisecond)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[id] = k
}

func (d *stormDocker) remove(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.known, id)
}

func (d *stormDocker) rename(id, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[id].name = name
	for f := range d.followers {
		f <- id
	}
}

// find returns a copy of what it knows of a container, nil for nothing.
func (d *stormDocker) find(id string) *stormKnown {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.known[id]
	if k == nil || time.Now().Before(k.from) {
		d.unknown++
		return nil
	}
	if !k.asked {
		k.asked = true
		d.answers = append(d.answers, time.Since(k.told))
	}
	found := *k
	return &found
}

func (d *stormDocker) inspect(w http.ResponseWriter, r *http.Request) {
	delay := time.Duration(1+rand.IntN(8)) * time.Millisecond
	if rand.IntN(100) == 0 {
		delay = 300 * time.Millisecond
	}
	time.Sleep(delay / 2)
	id := r.PathValue("id")
	k := d.find(id)
	time.Sleep(delay / 2) // what it tells may be old by then
	w.Header().Set("Content-Type", "application/json")
	if k == nil {
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(map[string]any{"message": "No such container: " + id})
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"Id":         id,
		"Name":       "/" + k.name,
		"Config":     map[string]any{"Image": k.image, "Labels": map[string]string{"storm": "yes"}},
		"HostConfig": map[string]any{"LogConfig": map[string]any{"Type": "none"}},
	})
}

func (d *stormDocker) events(w http.ResponseWriter, r *http.Request) {
	ids := make(chan string, 10000) // more than a storm has, as rename does not wait
	d.mu.Lock()
	d.followers[ids] = true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.followers, ids)
	}()
	flush := http.NewResponseController(w).Flush
	_ = flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case id := <-ids:
			event := map[string]any{"Type": "container", "Action": "rename", "Actor": map[string]any{"ID": id}}
			if json.NewEncoder(w).Encode(event) != nil || flush() != nil {
				return
			}
		}
	}
}
