// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)

func recorded(t *testing.T, file string) sample {
	t.Helper()
	page, err := os.Open(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	s, err := parse(page, noon)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTableOfBothIdentities(t *testing.T) {
	for _, tt := range []struct {
		file, want string
	}{
		{"semconv.txt", `
12:00:00  5 containers and services
CONTAINER                    TYPE       CORES  CPU TIME  CPU DELAY  WORKING SET  RSS      RESTARTS  EXITS             CONNECTS  FAILED                    ACCEPTED  ACTIVE  LOGGED          MOST CONNECTS TO
containerd/fedcba987654      -          -      40.0 s    -          -            -        -         -                 -         -                         -         -       -               -
docker/shop                  nginx php  -      12.5 s    1.2 s      2.0 GiB      5.0 MiB  3         3 (2 oom killed)  1001      37 (30 host unreachable)  506       7       908 (8 errors)  10.0.0.2:5432
/web/front-7d-x/app          -          -      7.0 s     -          -            -        -         -                 -         -                         -         -       -               -
/system.slice/nginx.service  -          -      1.0 s     -          -            -        -         -                 -         -                         -         -       -               -
lxc/vm1                      -          -      0.5 s     -          -            -        -         -                 -         -                         -         -       -               -

`},
		{"coroot.txt", `
12:00:00  2 containers and services
CONTAINER                    TYPE  CORES  CPU TIME  CPU DELAY  WORKING SET  RSS  RESTARTS  EXITS  CONNECTS  FAILED  ACCEPTED  ACTIVE  LOGGED  MOST CONNECTS TO
/docker/shop                 -     -      12.5 s    -          -            -    -         -      1000      -       -         -       -       10.0.0.2:5432
/system.slice/nginx.service  -     -      1.0 s     -          -            -    -         -      -         -       -         -       -       -

`},
	} {
		t.Run(tt.file, func(t *testing.T) {
			var out bytes.Buffer
			if err := printTable(&out, sample{}, recorded(t, tt.file), 20); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestNumbersNameTheirReason(t *testing.T) {
	for _, tt := range []struct {
		failed float64
		by     map[string]float64
		want   string
	}{
		{0, nil, "0"},
		{3, nil, "3"}, // the metric of reasons is switched off
		{3, map[string]float64{"timeout": 3}, "3 timeout"},
		{3, map[string]float64{"timeout": 1, "host_unreachable": 2}, "3 (2 host unreachable)"},
	} {
		if got := withReason(&tt.failed, tt.by); got != tt.want {
			t.Errorf("%v by %v: got %q, want %q", tt.failed, tt.by, got, tt.want)
		}
	}
}

func TestCoresAreTheDifferenceOfTwoSamplesAndSortTheTable(t *testing.T) {
	before, now := recorded(t, "coroot.txt"), recorded(t, "coroot.txt")
	now.at = now.at.Add(10 * time.Second)
	*now.containers["/system.slice/nginx.service"].cpuSeconds += 5
	*now.containers["/docker/shop"].cpuSeconds = 1 // another container with this name

	var out bytes.Buffer
	if err := printTable(&out, before, now, 1); err != nil {
		t.Fatal(err)
	}
	want := `
12:00:10  2 containers and services
CONTAINER                    TYPE  CORES  CPU TIME  CPU DELAY  WORKING SET  RSS  RESTARTS  EXITS  CONNECTS  FAILED  ACCEPTED  ACTIVE  LOGGED  MOST CONNECTS TO
/system.slice/nginx.service  -     0.500  6.0 s     -          -            -    -         -      -         -       -         -       -       -
and 1 more

`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestWaitsForTheFirstCollectionAndEndsWithTheCollector(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("testdata", "coroot.txt"))
	if err != nil {
		t.Fatal(err)
	}
	requests := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests++
		switch requests {
		case 1: // the exporter is up before the first collection
		case 2, 3:
			_, _ = w.Write(page)
		default:
			http.Error(w, "gone", http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()

	var out bytes.Buffer
	err = run(context.Background(), &out, srv.URL, 10*time.Second, time.Millisecond, 20)
	if err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("got %v, want the answer that ended it", err)
	}
	if got := strings.Count(out.String(), "CONTAINER"); got != 2 {
		t.Errorf("got %d tables, want 2", got)
	}
}

func TestWaitForEndSeesTheProcessGo(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	child := exec.CommandContext(ctx, "sleep", "0.2")
	if err := child.Start(); err != nil {
		t.Skip("no sleep command:", err)
	}
	reaped := make(chan struct{})
	go func() {
		_ = child.Wait()
		close(reaped)
	}()
	waitForEnd(ctx, child.Process.Pid)
	if ctx.Err() != nil {
		t.Error("not seen")
	}
	<-reaped
}

func TestLongNamesKeepTheirEnd(t *testing.T) {
	name := "/kubepods/" + strings.Repeat("x", 100) + "/app"
	if got := shorten(name); len(got) != maxNameWidth || !strings.HasSuffix(got, "x/app") {
		t.Errorf("got %q", got)
	}
}

func TestBadPageIsAnError(t *testing.T) {
	if _, err := parse(strings.NewReader("<html>"), noon); err == nil {
		t.Error("no error")
	}
}
