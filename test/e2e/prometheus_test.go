// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// prometheus is a Prometheus server that scrapes once a second.
type prometheus struct {
	address string
	process *process
}

// series is one element of an instant vector.
type series struct {
	labels map[string]string // with __name__
	value  float64
}

func (s series) String() string { return fmt.Sprintf("%v %v", s.labels, s.value) }

// startPrometheus scrapes one target a job, and waits until each was scraped. The words of wrapper stand before the
// command that starts the server.
func startPrometheus(ctx context.Context, t *testing.T, targets map[string]string, wrapper ...string) *prometheus {
	t.Helper()
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal(err)
	}
	var config strings.Builder
	config.WriteString("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n")
	for _, job := range slices.Sorted(maps.Keys(targets)) {
		fmt.Fprintf(&config, "- {job_name: %s, static_configs: [{targets: [%q]}]}\n", job, targets[job])
	}
	dir := t.TempDir()
	configFile := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(configFile, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &prometheus{address: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	command := append(slices.Clone(wrapper), binary, "--config.file="+configFile,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+p.address)
	p.process = start(t, "prometheus", exec.Command(command[0], command[1:]...))
	eventually(ctx, t, 30*time.Second, "Prometheus scrapes", func() error {
		if err := p.process.running(); err != nil {
			t.Fatal(err)
		}
		up, err := p.query(ctx, "up == 1")
		if err == nil && len(up) != len(targets) {
			err = fmt.Errorf("up: %v", up)
		}
		return err
	})
	return p
}

// query evaluates a PromQL expression now.
func (p *prometheus) query(ctx context.Context, expr string) ([]series, error) {
	body, err := get(ctx, "http://"+p.address+"/api/v1/query?query="+url.QueryEscape(expr))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status, Error string
		Data          struct {
			ResultType string
			Result     []struct {
				Metric map[string]string
				Value  [2]any // seconds, value as a string
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	if answer.Status != "success" || answer.Data.ResultType != "vector" {
		return nil, fmt.Errorf("%s: %s %s %s", expr, answer.Status, answer.Data.ResultType, answer.Error)
	}
	var all []series
	for _, r := range answer.Data.Result {
		s, _ := r.Value[1].(string)
		value, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", expr, err)
		}
		all = append(all, series{labels: r.Metric, value: value})
	}
	return all, nil
}

// value evaluates an expression that has to give exactly one number.
func (p *prometheus) value(ctx context.Context, expr string) (float64, error) {
	all, err := p.query(ctx, expr)
	if err != nil {
		return 0, err
	}
	if len(all) != 1 {
		return 0, fmt.Errorf("%s: %d series: %v", expr, len(all), all)
	}
	return all[0].value, nil
}

// wantValue returns an error unless the expression gives exactly this number.
func (p *prometheus) wantValue(ctx context.Context, expr string, want float64) error {
	got, err := p.value(ctx, expr)
	if err == nil && got != want {
		err = fmt.Errorf("%s: got %v, want %v", expr, got, want)
	}
	return err
}

// checkScrapes fails the test unless Prometheus took every sample of every scrape so far.
func (p *prometheus) checkScrapes(ctx context.Context, t *testing.T) {
	t.Helper()
	eventually(ctx, t, 10*time.Second, "last scrapes are whole", func() error {
		bad, err := p.query(ctx, "up != 1 or scrape_samples_post_metric_relabeling == 0 or "+
			"scrape_samples_scraped != scrape_samples_post_metric_relabeling")
		if err == nil && len(bad) > 0 {
			err = fmt.Errorf("%v", bad)
		}
		return err
	})
	// A scrape that took its whole time says something of the host, one that failed sooner of what was served: such as
	// the exporter's refusal of two equal series.
	bad, err := p.query(ctx, "count_over_time((up == 0 and scrape_duration_seconds < 0.9)[10m:1s])")
	if err != nil || len(bad) > 0 {
		t.Errorf("scrapes went wrong: %v, %v", bad, err)
	}
	own, err := get(ctx, "http://"+p.address+"/metrics")
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(own)) {
		// Such as prometheus_target_scrapes_sample_duplicate_timestamp_total.
		if strings.HasPrefix(line, "prometheus_target_scrapes_") && !strings.HasSuffix(line, " 0\n") &&
			!strings.Contains(line, "cache_flush") {
			t.Errorf("Prometheus refused samples: %s", line)
		}
	}
}

// checkCounters fails the test if a counter of a container went backwards.
func (p *prometheus) checkCounters(ctx context.Context, t *testing.T) {
	t.Helper()
	// One by one: resets() drops the name, and series that then have equal labels are an error.
	names, err := p.query(ctx, "count by (__name__) (last_over_time({__name__=~'container_.+_total'}[10m]))")
	if err != nil || len(names) == 0 {
		t.Errorf("names of counters: %v, %v", names, err)
	}
	for _, s := range names {
		name := s.labels["__name__"]
		if back, err := p.query(ctx, "resets("+name+"[10m]) > 0"); err != nil || len(back) > 0 {
			t.Errorf("%s went backwards: %v, %v", name, back, err)
		}
	}
}

// get reads one HTTP resource.
func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // leaves no goroutine behind
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, tail(string(body), 5))
	}
	return body, err
}
