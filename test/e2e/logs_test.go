// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// message is one that a test has written to a log, or several that are equal.
type message struct{ source, level, text string }

const (
	onOutput  = "stdout/stderr"
	onJournal = "journald"
)

// writer is a container or unit that logs, and what it logs while it is watched.
type writer struct {
	name     string // of its files below texts
	who      container
	messages []message
	shared   *writer // writes to the same file: all of both is counted once, of either
	unknown  bool    // nothing is to be said of its messages
}

// numbered are messages of all levels, each another one.
func numbered(name, source string, n int) []message {
	levels := [...]struct{ word, level string }{
		{"INFO", "info"}, {"WARN", "warning"}, {"DEBUG", "debug"}, {"ERROR", "error"}, {"INFO", "info"}, {"FATAL", "critical"},
	}
	var all []message
	for i := range n {
		l := levels[i%len(levels)]
		text := fmt.Sprintf("2026-11-21T10:00:%02d.%03dZ %s %s has done step %d of its work", i/1000%60, i%1000, l.word, name, i+1)
		all = append(all, message{source, l.level, text})
	}
	return all
}

func text(messages []message) string {
	var b strings.Builder
	for _, m := range messages {
		b.WriteString(m.text + "\n")
	}
	return b.String()
}

// logScene is a collector that follows the logs of some containers, in both identities. In semconv it tells all messages as
// records; in coroot, as it does by itself, the first of each pattern.
type logScene struct {
	docker    *docker
	ns        netns
	load      string
	texts     string // what there is to write; the /texts of containers
	writers   []*writer
	collector *collector
	sink      sink
	seen      *logWatch
}

const logInterval = 500 * time.Millisecond

func makeLogScene(ctx context.Context, t *testing.T) *logScene {
	t.Helper()
	s := &logScene{load: buildLoad(ctx, t), ns: makeNetns(ctx, t), texts: publicDir(t)}
	if err := os.Chmod(s.texts, 0o777); err != nil {
		t.Fatal(err)
	}
	return s
}

// startDocker also makes the image.
func (s *logScene) startDocker(ctx context.Context, t *testing.T) {
	t.Helper()
	s.docker = startDocker(ctx, t, s.ns)
	s.docker.importImage(ctx, t, makeRootfs(t, s.load))
}

// write makes a file for containers to read from, and returns its name there.
func (s *logScene) write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.texts, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return "/texts/" + name
}

// add notes a writer.
func (s *logScene) add(name string, who container, messages ...message) *writer {
	w := &writer{name: name, who: who, messages: messages}
	s.writers = append(s.writers, w)
	return w
}

// createDocker makes a container that runs a shell script, not yet started. Busybox is its shell and all of its programs.
func (s *logScene) createDocker(ctx context.Context, t *testing.T, name, shell string, options ...string) *writer {
	t.Helper()
	args := append([]string{"create", "--name", name, "--net=none", "-v", s.texts + ":/texts"}, options...)
	id := s.docker.run(ctx, t, append(append(args, testImage), script(inBusybox+shell)...)...)
	return s.add(name, container{path: "/docker/" + name, id: id, semconv: namedAs("docker", id, name, testImage)})
}

// inBusybox lets a script name programs as usual. Sleeping for the rest of the test is left by a signal.
const inBusybox = `cat() { /busybox cat "$@"; }; mkdir() { /busybox mkdir "$@"; }; mv() { /busybox mv "$@"; }
sleep() { /busybox sleep "$@"; }; rest() { exec /busybox sleep 600; }
each() { while IFS= read -r line; do echo "$line"; done < "$1"; }
`

// start starts the collector for all writers that there are. It asks the runtimes with these sockets.
func (s *logScene) start(ctx context.Context, t *testing.T, sockets map[string]string, settings ...string) {
	t.Helper()
	binary := collectorBinary(ctx, t)
	s.sink = startSink(ctx, t, binary)
	config := collectorConfig{interval: logInterval, sockets: sockets, otlp: s.sink.address, logs: map[string]string{}}
	for _, id := range identities(t) {
		config.identities = append(config.identities, id.name)
		config.logs[id.name] = strings.Join(settings, ", ")
	}
	config.logs["semconv"] = strings.Join(append(settings, "forward: all, new_patterns: false"), ", ")
	for _, w := range s.writers {
		config.containers = append(config.containers, w.who.path)
	}
	s.collector = startCollector(ctx, t, binary, config)
	s.seen = s.startWatch(t)
}

// levels are numbers of messages by source and level.
type levels map[string]map[string]float64

func (l levels) add(source, level string, n float64) {
	if l[source] == nil {
		l[source] = map[string]float64{}
	}
	l[source][level] += n
}

// logWatch reads the pages of a collector all the time, so that it knows the last of a container that is gone.
type logWatch struct {
	mu    sync.Mutex // guards what follows
	seen  map[string]map[*writer]levels
	pages map[string]bool // each text that was shown, of all pages
}

// startWatch watches until the test ends, and fails it if a page is not as it should be: something is there twice, or fewer
// messages than before.
func (s *logScene) startWatch(t *testing.T) *logWatch {
	t.Helper()
	w := &logWatch{seen: map[string]map[*writer]levels{}, pages: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	for _, id := range identities(t) {
		seen := map[*writer]levels{}
		w.seen[id.name] = seen
		readers.Go(func() {
			tick := time.NewTicker(2 * watchEvery)
			defer tick.Stop()
			for ctx.Err() == nil {
				p, err := readPage(ctx, s.collector.targets[id.name])
				if err == nil {
					err = w.take(id, seen, s.writers, p)
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("page of identity %s: %v", id.name, err)
					return
				}
				select {
				case <-ctx.Done():
				case <-tick.C:
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		readers.Wait()
	})
	return w
}

// take notes the page in seen.
func (w *logWatch) take(id identity, seen map[*writer]levels, writers []*writer, p page) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range p {
		for name, value := range one.labels {
			w.pages[name+"="+value] = true
		}
	}
	var errs []error
	for _, who := range writers {
		now := levels{}
		for _, one := range p.of(id, who.who).named("container_log_messages_total") {
			now.add(one.labels["source"], one.labels["level"], one.value)
		}
		if len(now) == 0 {
			continue // not there yet, or not any more
		}
		for source, before := range seen[who] {
			for level, n := range before {
				if now[source][level] < n {
					errs = append(errs, fmt.Errorf("%s has fewer messages of level %s on %s: %v, before %v", who.name, level, source, now[source][level], n))
				}
			}
		}
		seen[who] = now
	}
	return errors.Join(errs...)
}

// of returns the last numbers of a writer.
func (w *logWatch) of(identity string, who *writer) levels {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.seen[identity][who])
}

// want returns an error unless so many messages of a writer are counted.
func (w *logWatch) want(id identity, who *writer, n int) error {
	got := 0.0
	for _, levels := range w.of(id.name, who) {
		for _, more := range levels {
			got += more
		}
	}
	if got != float64(n) {
		return fmt.Errorf("%v messages of %s in identity %s, want %d", got, who.name, id.name, n)
	}
	return nil
}

// shown returns what stands on all pages so far, each label once.
func (w *logWatch) shown() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.pages))
}

// wantCounts returns an error unless exactly what was written is counted.
func (s *logScene) wantCounts(id identity, w *writer) error {
	want, got := levels{}, levels{}
	for _, one := range []*writer{w, w.shared} {
		if one == nil {
			continue
		}
		for _, m := range s.messagesOf(id, one) {
			want.add(m.source, m.level, 1)
		}
		for source, seen := range s.seen.of(id.name, one) {
			for level, n := range seen {
				got.add(source, level, n)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("messages of %s in identity %s (-want +got):\n%s", w.name, id.name, diff)
	}
	return nil
}

// messagesOf returns what a writer has written, and all those that are the same container in an identity.
func (s *logScene) messagesOf(id identity, w *writer) (all []message) {
	for _, other := range s.writers {
		if resourceKey(id.labels(other.who)) == resourceKey(id.labels(w.who)) {
			all = append(all, other.messages...)
		}
	}
	return all
}

// wantRecords returns an error unless each message has one record, all with their pattern, of the same level.
func (s *logScene) wantRecords(t *testing.T, w *writer) error {
	t.Helper()
	var want, got []string
	for _, one := range []*writer{w, w.shared} {
		if one == nil {
			continue
		}
		for _, m := range one.messages {
			want = append(want, m.level+" "+m.text)
		}
		of, err := s.sink.recordsOf(identities(t)[0], one.who)
		if err != nil {
			return err
		}
		for _, r := range of["container.log.message"] {
			got = append(got, recordLevels[r.severity]+" "+r.body)
			hash, _ := r.attributes["pattern.hash"].(string)
			template, _ := r.attributes["log.record.template"].(string)
			if len(hash) != 16 || template == "" {
				return fmt.Errorf("record of %s without pattern: %+v", one.name, r)
			}
		}
	}
	if diff := cmp.Diff(more(want, got), more(got, want)); diff != "" {
		return fmt.Errorf("%d records of %s, want %d (-missing +too many):\n%s", len(got), w.name, len(want), diff[:min(len(diff), 2000)])
	}
	return nil
}

// more returns how often something is in a more than in b, without what is not.
func more(a, b []string) map[string]int {
	all := map[string]int{}
	for _, s := range a {
		all[s]++
	}
	for _, s := range b {
		all[s]--
	}
	maps.DeleteFunc(all, func(_ string, n int) bool { return n <= 0 })
	return all
}

var recordLevels = map[string]string{
	"": "unknown", "DEBUG": "debug", "INFO": "info", "WARN": "warning", "ERROR": "error", "FATAL": "critical",
}

// check waits until all that was written is counted and told, and that no more follows.
func (s *logScene) check(ctx context.Context, t *testing.T) {
	t.Helper()
	all := func() error {
		var errs []error
		for _, w := range s.writers {
			if w.unknown {
				continue
			}
			for _, id := range identities(t) {
				errs = append(errs, s.wantCounts(id, w))
			}
			errs = append(errs, s.wantRecords(t, w))
		}
		return errors.Join(errs...)
	}
	deadline := time.Now().Add(15 * time.Second)
	for err := all(); err != nil; err = all() {
		if time.Now().After(deadline) || ctx.Err() != nil {
			t.Error(err)
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(3 * logInterval)
	if err := all(); err != nil && !t.Failed() {
		t.Errorf("later: %v", err)
	}
	s.collector.wantNoLoss(ctx, t, "log_records_dropped", "log_records_invalid", "log_read_errors", "log_lines_cut")
}
