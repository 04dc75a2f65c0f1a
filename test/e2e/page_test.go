// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// page is what a Prometheus exporter serves of containers.
type page []series

// readPage reads the page of an exporter. A series that is there twice is an error, as Prometheus would have it.
func readPage(ctx context.Context, target string) (page, error) {
	body, err := get(ctx, "http://"+target+"/metrics")
	if err != nil {
		return nil, err
	}
	return parsePage(string(body))
}

// readOwn reads what the collector tells of itself.
func (c *collector) readOwn(ctx context.Context) (page, error) {
	body, err := get(ctx, "http://"+c.own+"/metrics")
	if err != nil {
		return nil, err
	}
	return parseMetrics(string(body), "otelcol_ebpf_container_")
}

// wantRuntime returns an error unless each receiver says whether a runtime is connected, and that questions to it failed at
// least and at most so often.
func (c *collector) wantRuntime(ctx context.Context, runtime string, connected bool, least, most float64) error {
	own, err := c.readOwn(ctx)
	if err != nil {
		return err
	}
	var up, errors []float64
	for _, s := range own {
		if s.labels["runtime"] != runtime {
			continue
		}
		switch s.labels["__name__"] {
		case "otelcol_ebpf_container_runtime_connected":
			if (s.value == 1) == connected {
				up = append(up, s.value)
			}
		case "otelcol_ebpf_container_runtime_errors":
			if s.value >= least && s.value <= most {
				errors = append(errors, s.value)
			}
		}
	}
	if len(up) != len(c.targets) || len(errors) != len(c.targets) {
		return fmt.Errorf("want %s connected %t, errors %v to %v in each receiver: %v", runtime, connected, least, most,
			slices.DeleteFunc(own, func(s series) bool { return s.labels["runtime"] == "" }))
	}
	return nil
}

func parsePage(text string) (page, error) { return parseMetrics(text, "container_") }

// parseMetrics takes the metrics whose names begin so, but looks at all for what is there twice.
func parseMetrics(text, names string) (page, error) {
	var p page
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s, err := parseSample(line)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		name := s.labels["__name__"]
		key := seriesKey(name, s.labels)
		if seen[key] {
			return nil, fmt.Errorf("twice on one page: %s", key)
		}
		seen[key] = true
		if strings.HasPrefix(name, names) {
			p = append(p, s)
		}
	}
	return p, nil
}

// parseSample reads one line of the text format of Prometheus.
func parseSample(line string) (series, error) {
	i := strings.IndexAny(line, "{ ")
	if i < 0 {
		return series{}, fmt.Errorf("no value")
	}
	s := series{labels: map[string]string{"__name__": line[:i]}}
	rest := line[i:]
	if rest[0] == '{' {
		rest = rest[1:]
		for !strings.HasPrefix(rest, "}") {
			label, quoted, _ := strings.Cut(strings.TrimPrefix(rest, ","), "=")
			prefix, err := strconv.QuotedPrefix(quoted)
			if err != nil {
				return series{}, err
			}
			if s.labels[label], err = strconv.Unquote(prefix); err != nil {
				return series{}, err
			}
			rest = quoted[len(prefix):]
		}
		rest = rest[1:]
	}
	value, _, _ := strings.Cut(strings.TrimSpace(rest), " ") // a time may follow
	var err error
	s.value, err = strconv.ParseFloat(value, 64)
	return s, err
}

// TestParsePage makes sure that what is there twice is found, in whatever order its labels are.
func TestParsePage(t *testing.T) {
	const some = "# HELP x\ncontainer_a{b=\"1\",c=\"\\\"2\\\"\"} 3 1700000000000\ncontainer_a{b=\"2\",c=\"\"} 4\nother 5\n"
	p, err := parsePage(some)
	if err != nil || len(p) != 2 || p[0].labels["c"] != `"2"` || p[0].value != 3 || p[1].value != 4 {
		t.Errorf("got %v, %v", p, err)
	}
	for _, twice := range []string{"other 6\n", "container_a{c=\"\\\"2\\\"\",b=\"1\"} 4\n", "container_a{b=\"2\",c=\"\"} 4\n"} {
		if _, err := parsePage(some + twice); err == nil {
			t.Errorf("%q: no error", twice)
		}
	}
}

// of returns the series of one container, as an identity shows them.
func (p page) of(id identity, c container) page {
	key := resourceKey(id.labels(c))
	var own page
	for _, s := range p {
		if resourceKey(resourceOf(s)) == key {
			own = append(own, s)
		}
	}
	return own
}

// named returns the series of one metric.
func (p page) named(metric string) page {
	return slices.DeleteFunc(slices.Clone(p), func(s series) bool { return s.labels["__name__"] != metric })
}

// split returns the series whose labels are such, and the others.
func (p page) split(is func(labels map[string]string) bool) (such, others page) {
	for _, s := range p {
		if is(s.labels) {
			such = append(such, s)
		} else {
			others = append(others, s)
		}
	}
	return such, others
}

// sum adds up the series of one metric; without any it is 0.
func (p page) sum(metric string) float64 {
	total := 0.0
	for _, s := range p.named(metric) {
		total += s.value
	}
	return total
}

// resourceOf returns the labels that a series has from its container's resource.
func resourceOf(s series) map[string]string {
	labels := withoutEmpty(maps.Clone(s.labels))
	for _, label := range append(pointLabels(s.labels["__name__"]), "__name__", "instance", "job") {
		delete(labels, label)
	}
	return labels
}

func resourceKey(labels map[string]string) string { return seriesKey("", labels) }

// resourcesOf returns the resources of some series, each once.
func resourcesOf(all []series) []string {
	keys := map[string]bool{}
	for _, s := range all {
		keys[resourceKey(resourceOf(s))] = true
	}
	return slices.Sorted(maps.Keys(keys))
}

// resources returns what resourcesOf has to be where exactly these containers are shown.
func (i identity) resources(all ...container) []string {
	var keys []string
	for _, c := range all {
		keys = append(keys, resourceKey(i.labels(c)))
	}
	return slices.Sorted(slices.Values(keys))
}

// watch reads the pages of a collector all the time, much more often than they change.
type watch struct {
	mu    sync.Mutex                 // guards what follows
	seen  map[string]map[string]bool // resources that were ever shown, by identity
	reads int
}

const watchEvery = 100 * time.Millisecond

// startWatch watches until the test ends, and fails it if something is there twice on one page.
func startWatch(t *testing.T, c *collector) *watch {
	t.Helper()
	w := &watch{seen: map[string]map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	for identity := range c.targets {
		w.seen[identity] = map[string]bool{}
	}
	for identity, target := range c.targets {
		readers.Go(func() {
			tick := time.NewTicker(watchEvery)
			defer tick.Stop()
			for ctx.Err() == nil {
				p, err := readPage(ctx, target)
				if err != nil && ctx.Err() == nil {
					t.Errorf("page of identity %s: %v", identity, err)
					return
				}
				w.mu.Lock()
				w.reads++
				for _, key := range resourcesOf(p) {
					w.seen[identity][key] = true
				}
				w.mu.Unlock()
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

// resources returns what was ever shown in an identity, and how many pages of all were read.
func (w *watch) resources(identity string) (all []string, reads int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.seen[identity])), w.reads
}
