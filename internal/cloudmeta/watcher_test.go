// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// changing is a service whose answers a test changes.
type changing struct{ h atomic.Pointer[http.Handler] }

func (c *changing) set(h http.Handler) { c.h.Store(&h) }

func (c *changing) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*c.h.Load()).ServeHTTP(w, r) }

func change(pages map[string]page, replace ...string) map[string]page {
	changed := map[string]page{}
	for key, p := range pages {
		p.body = strings.NewReplacer(replace...).Replace(p.body)
		changed[key] = p
	}
	return changed
}

func TestNobodyIsAsked(t *testing.T) {
	all := Instance{
		Provider: "aws", AccountID: "1", InstanceID: "i-1", InstanceType: "m5.large", LifeCycle: Spot, Region: "r", AvailabilityZone: "z",
	}
	canonical := all
	canonical.Provider = AWS
	for _, tt := range []struct {
		name     string
		sys      map[string]string
		override Instance
		want     Instance
		known    bool
	}{
		{name: "on a machine of no cloud"},
		{name: "on Hyper-V", sys: map[string]string{"class/dmi/id/sys_vendor": "Microsoft Corporation"}},
		{
			name: "on a machine of no cloud with a place", override: Instance{Region: "home", AvailabilityZone: "cellar"},
			want: Instance{Region: "home", AvailabilityZone: "cellar"}, known: true,
		},
		{name: "when all is configured", sys: firmware[AWS], override: all, want: canonical, known: true},
		{name: "when all is configured, on a machine of another cloud", sys: firmware[GCP], override: all, want: canonical, known: true},
		{
			name: "of an unknown provider", sys: firmware[AWS], override: Instance{Provider: "OpenStack"},
			want: Instance{Provider: "OpenStack"}, known: true,
		},
		{name: "with values that are no labels", override: Instance{Region: "a\xff", AccountID: "\x00"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCloud(t, AWS, guard(AWS, serve(readPages(t, "aws-spot"))))
			o := c.options()
			sys := machine(t, tt.sys)
			o.Root, o.Override = sys, tt.override
			w := open(t, o)
			got, known := w.Instance()
			if diff := cmp.Diff(tt.want, got, cmpAddr); diff != "" || known != tt.known {
				t.Errorf("%v (-want +got):\n%s", known, diff)
			}
			time.Sleep(3 * quick.first) // nothing tells when nothing happens
			if s := w.Status(); s.Asking || s.Requests > 0 || c.requests.Load() > 0 {
				t.Errorf("%+v, %d requests", s, c.requests.Load())
			}
		})
	}
}

func TestConfiguredValuesWin(t *testing.T) {
	c := newCloud(t, AWS, guard(AWS, serve(readPages(t, "aws-spot"))))
	o := c.options()
	o.Override = Instance{AccountID: "mine", Region: "here", LifeCycle: OnDemand}
	w := open(t, o)
	until(t, "an attempt", asked(w))
	want := Instance{
		Provider: AWS, AccountID: "mine", InstanceID: "i-0123abcd", InstanceType: "c6gn.16xlarge", LifeCycle: OnDemand,
		Region: "here", AvailabilityZone: "us-west-2-lax-1a", AvailabilityZoneID: "usw2-lax1-az1",
		LocalIPv4: addr("10.0.1.7"), PublicIPv6: addr("2001:db8:8:4::2"),
	}
	if got, ok := w.Instance(); !ok || got != want {
		t.Errorf("%v (-want +got):\n%s", ok, cmp.Diff(want, got, cmpAddr))
	}
}

// TestConfiguredProviderIsAsked has a machine whose firmware says nothing.
func TestConfiguredProviderIsAsked(t *testing.T) {
	c := newCloud(t, "", guard(Scaleway, serve(readPages(t, "scaleway"))))
	o := c.options()
	o.Override.Provider = "scaleway"
	w := open(t, o)
	until(t, "an attempt", asked(w))
	if got, _ := w.Instance(); got != firstOf(Scaleway).want {
		t.Errorf("(-want +got):\n%s", cmp.Diff(firstOf(Scaleway).want, got, cmpAddr))
	}
}

// TestServiceThatComesUpLater has one that is 12 s late, 20 times as fast.
func TestServiceThatComesUpLater(t *testing.T) {
	up := time.Now().Add(600 * time.Millisecond)
	good := guard(AWS, serve(readPages(t, "aws-on-demand")))
	c := newCloud(t, AWS, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if time.Now().Before(up) {
			pause(r, 10*time.Second)
			return
		}
		good.ServeHTTP(w, r)
	}))
	o := c.options()
	o.timing = impatient()
	w := open(t, o)
	until(t, "the instance", func() bool { _, ok := w.Instance(); return ok })
	if late := time.Since(up); late > 5*time.Second {
		t.Errorf("found %v after it was up", late)
	}
	if s := w.Status(); s.Failures[FailureTimeout] == 0 {
		t.Errorf("%v", s.Failures)
	}
}

func TestWhatIsKnownStaysKnown(t *testing.T) {
	pages := readPages(t, "aws-on-demand")
	var service changing
	service.set(guard(AWS, serve(pages)))
	c := newCloud(t, AWS, &service)
	o := c.options()
	o.timing.interval = 30 * time.Millisecond
	w := open(t, o)
	want := firstOf(AWS).want
	is := func(want Instance) func() bool { return func() bool { got, _ := w.Instance(); return got == want } }
	until(t, "the instance", is(want))

	resized := want
	resized.InstanceType, resized.LifeCycle = "m7i.2xlarge", Spot
	pages = change(pages, "t2.micro", "m7i.2xlarge", "on-demand", "spot")
	service.set(guard(AWS, serve(pages)))
	until(t, "the new type", is(resized))

	service.set(always("text/html", portal)(nil))
	until(t, "a refusal", func() bool { return w.Status().Failures[FailureRefused] > 2 })
	if !is(resized)() {
		t.Errorf("a portal took away what was known")
	}

	// The address has gone, and the life cycle is not told at the moment.
	missing := change(pages)
	delete(missing, "GET /latest/meta-data/public-ipv4")
	service.set(guard(AWS, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "life-cycle") {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		serve(missing).ServeHTTP(w, r)
	})))
	before := w.Status().Failures[FailureStatus]
	until(t, "a part", func() bool { return w.Status().Failures[FailureStatus] > before+2 })
	if !is(resized)() {
		t.Errorf("a part of the answer took away what was known")
	}
	service.set(guard(AWS, serve(missing)))
	resized.PublicIPv4 = Instance{}.PublicIPv4
	until(t, "the address to go", is(resized))
}

// TestPartsOfAnotherInstanceAreNotMixed has an image of a machine that becomes another instance.
func TestPartsOfAnotherInstanceAreNotMixed(t *testing.T) {
	var service changing
	service.set(guard(AWS, serve(readPages(t, "aws-on-demand"))))
	c := newCloud(t, AWS, &service)
	o := c.options()
	o.timing.interval = 30 * time.Millisecond
	w := open(t, o)
	until(t, "the instance", func() bool { _, ok := w.Instance(); return ok })
	other := serve(change(readPages(t, "aws-on-demand"), "i-1234567890abcdef0", "i-0fedcba987654321"))
	service.set(guard(AWS, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "public-ipv4") {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		other.ServeHTTP(w, r)
	})))
	until(t, "the other", func() bool { i, _ := w.Instance(); return i.InstanceID == "i-0fedcba987654321" })
	if i, _ := w.Instance(); i.PublicIPv4.IsValid() {
		t.Errorf("%s is the address of the other instance", i.PublicIPv4)
	}
}

func TestAttemptsGrowRare(t *testing.T) {
	var service changing
	service.set(status(http.StatusServiceUnavailable)(nil))
	c := newCloud(t, Hetzner, &service)
	o := c.options()
	o.timing.first, o.timing.longest = 10*time.Millisecond, 40*time.Millisecond
	o.timing.giveUp, o.timing.interval = 300*time.Millisecond, 800*time.Millisecond
	start := time.Now()
	w := open(t, o)
	until(t, "the end of the round", func() bool { return time.Until(w.Status().Next) > 100*time.Millisecond })
	// 10, 20, 40, 40 ... ms until 300 ms are over, less on a busy machine.
	if n := c.requests.Load(); n < 2 || n > 11 {
		t.Errorf("%d attempts", n)
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("gave up after %v", took)
	}
	service.set(serve(readPages(t, "hetzner")))
	until(t, "the instance, in the next round", func() bool { _, ok := w.Instance(); return ok })
	if took := time.Since(start); took < 700*time.Millisecond {
		t.Errorf("asked again after %v", took)
	}
}

func TestNobodyWaits(t *testing.T) {
	c := newCloud(t, Azure, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { pause(r, time.Minute) }))
	o := c.options()
	o.timing = timing{} // as in real life
	start := time.Now()
	w := Open(o)
	if took := time.Since(start); took > 900*time.Millisecond {
		t.Errorf("Open took %v", took)
	}
	until(t, "a request", func() bool { return c.requests.Load() > 0 })
	start = time.Now()
	for range 1000 {
		w.Instance()
		w.Status()
	}
	if took := time.Since(start); took > 900*time.Millisecond {
		t.Errorf("waited for %v", took)
	}
	closing := time.Now()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(closing); took > 900*time.Millisecond {
		t.Errorf("Close took %v", took)
	}
	if s := w.Status(); len(s.Failures) > 0 {
		t.Errorf("%v: closing is no failure", s.Failures)
	}
	if err := w.Close(); err != nil { // once more
		t.Error(err)
	}
}

// TestSlowService has one of which every answer comes in time, but not all of them.
func TestSlowService(t *testing.T) {
	good := guard(AWS, serve(readPages(t, "aws-on-demand")))
	c := newCloud(t, AWS, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pause(r, 700*time.Millisecond)
		good.ServeHTTP(w, r)
	}))
	o := c.options()
	o.timing.attempt = 2 * time.Second
	start := time.Now()
	w := open(t, o)
	until(t, "an attempt", asked(w))
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	got, ok := w.Instance()
	if !ok || got.InstanceID == "" || got.Region == "" {
		t.Errorf("got %+v", got)
	}
	if s := w.Status(); s.Failures[FailureTimeout] == 0 || s.LastErr == nil {
		t.Errorf("%v: %v", s.Failures, s.LastErr)
	}
}

func TestEachCauseIsLoggedOnce(t *testing.T) {
	var service changing
	service.set(status(http.StatusServiceUnavailable)(nil))
	c := newCloud(t, Oracle, &service)
	core, logs := observer.New(zap.DebugLevel)
	o := c.options()
	o.Logger = zap.New(core)
	o.timing.interval = 20 * time.Millisecond
	w := open(t, o)
	failures := func(kind Failure, n uint64) func() bool { return func() bool { return w.Status().Failures[kind] >= n } }
	known := func() bool { _, ok := w.Instance(); return ok && w.Status().LastErr == nil }
	until(t, "failures", failures(FailureStatus, 5))
	service.set(always("text/html", portal)(nil))
	until(t, "refusals", failures(FailureRefused, 5))
	service.set(guard(Oracle, serve(readPages(t, "oracle"))))
	until(t, "the instance", known)
	at := c.requests.Load()
	until(t, "some more", func() bool { return c.requests.Load() > at+10 })
	service.set(status(http.StatusServiceUnavailable)(nil))
	until(t, "failures", failures(FailureStatus, w.Status().Failures[FailureStatus]+5))
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	var got []string
	for _, entry := range logs.All() {
		kind, _ := entry.ContextMap()["kind"].(string)
		got = append(got, entry.Level.String()+" "+kind)
	}
	want := []string{"warn status", "warn refused", "info ", "warn status"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// BenchmarkInstance is what a collection pays.
func BenchmarkInstance(b *testing.B) {
	w := Open(Options{Root: b.TempDir(), Override: Instance{Region: "here"}})
	defer w.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := w.Instance(); !ok {
			b.Fatal("not known")
		}
	}
}

var _ io.Closer = (*Watcher)(nil)
