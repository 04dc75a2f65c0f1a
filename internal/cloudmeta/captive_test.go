// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const portal = "<!DOCTYPE html>\n<html><head><title>Welcome to the airport</title></head><body>Please log in</body></html>\n"

// always answers everything alike.
func always(kind, body string) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			page{header: http.Header{"Content-Type": {kind}}, body: body}.write(w)
		})
	}
}

func status(code int) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
}

// spoil gives what change makes of the right answers.
func spoil(change func(w http.ResponseWriter, r *http.Request, body string)) func(http.Handler) http.Handler {
	return func(good http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer := httptest.NewRecorder()
			good.ServeHTTP(answer, r)
			maps.Copy(w.Header(), answer.Header())
			w.Header().Del("Content-Length")
			if answer.Code != http.StatusOK {
				w.WriteHeader(answer.Code)
				return
			}
			change(w, r, answer.Body.String())
		})
	}
}

// drop ends the connection.
func drop(w http.ResponseWriter) {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		conn.Close()
	}
}

func pause(r *http.Request, d time.Duration) {
	select {
	case <-r.Context().Done():
	case <-time.After(d):
	}
}

// captive is what may answer in place of a metadata service, and what may become of right answers.
func captive(written *atomic.Int64) []struct {
	name   string
	answer func(good http.Handler) http.Handler
	want   Failure
} {
	flood := func(w http.ResponseWriter, _ *http.Request, body string) {
		n, err := io.WriteString(w, body)
		written.Store(int64(n))
		blanks := strings.Repeat(" ", 1<<16)
		for total := 0; total < 24<<20 && err == nil; total += n {
			n, err = io.WriteString(w, blanks)
			written.Add(int64(n))
		}
	}
	kind := func(name string) func(w http.ResponseWriter, _ *http.Request, body string) {
		return func(w http.ResponseWriter, _ *http.Request, body string) {
			w.Header().Set("Content-Type", name)
			_, _ = io.WriteString(w, body)
		}
	}
	return []struct {
		name   string
		answer func(good http.Handler) http.Handler
		want   Failure
	}{
		{"portal", always("text/html; charset=utf-8", portal), FailureRefused},
		{"portal that says it is text", always("text/plain", portal), FailureMalformed},
		{"ok for everything", always("text/plain", "ok"), FailureMalformed},
		{"nothing for everything", always("text/plain", ""), FailureMalformed},
		{"JSON for everything", always("application/json", "{}"), FailureMalformed},
		{"null for everything", always("application/json", "null"), FailureMalformed},
		{"deep JSON", always("application/json", strings.Repeat("[", 60_000)), FailureMalformed},
		{"a long line", always("text/plain", strings.Repeat("i-0", 20_000)), FailureMalformed},
		{"404 for everything", status(http.StatusNotFound), FailureStatus},
		{"204 for everything", status(http.StatusNoContent), FailureStatus},
		{"500 for everything", status(http.StatusInternalServerError), FailureStatus},
		{"403 for everything", status(http.StatusForbidden), FailureStatus},
		{"redirect", func(http.Handler) http.Handler { return http.RedirectHandler("/portal", http.StatusFound) }, FailureRefused},
		{"right answers as HTML", spoil(kind("text/html")), FailureRefused},
		{"right answers as a picture", spoil(kind("image/png")), FailureRefused},
		{"right answers as nonsense", spoil(kind("text/plain; charset")), FailureRefused},
		{"24 MiB", spoil(flood), FailureRefused},
		{"24 MiB with their length", spoil(func(w http.ResponseWriter, r *http.Request, body string) {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)+24<<20))
			flood(w, r, body)
		}), FailureRefused},
		{"drop by drop", spoil(func(w http.ResponseWriter, r *http.Request, body string) {
			for i := 0; i < len(body) && r.Context().Err() == nil; i++ {
				_, _ = io.WriteString(w, body[i:i+1])
				_ = http.NewResponseController(w).Flush()
				pause(r, 100*time.Millisecond)
			}
		}), FailureTimeout},
		{"never", spoil(func(_ http.ResponseWriter, r *http.Request, _ string) { pause(r, 10*time.Second) }), FailureTimeout},
		{"too late", spoil(func(w http.ResponseWriter, r *http.Request, body string) {
			pause(r, 600*time.Millisecond)
			_, _ = io.WriteString(w, body)
		}), FailureTimeout},
		{"cut off", spoil(func(w http.ResponseWriter, _ *http.Request, body string) {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = io.WriteString(w, body[:len(body)/2])
			_ = http.NewResponseController(w).Flush()
			drop(w)
		}), FailureUnreachable},
		{"closed", spoil(func(w http.ResponseWriter, _ *http.Request, _ string) { drop(w) }), FailureUnreachable},
		{"the first byte", spoil(func(w http.ResponseWriter, r *http.Request, body string) {
			if r.Method == http.MethodGet { // of a token it would be a token
				body = body[:1]
			}
			_, _ = io.WriteString(w, body)
		}), FailureMalformed},
		{"not UTF-8", spoil(func(w http.ResponseWriter, _ *http.Request, body string) {
			_, _ = io.WriteString(w, body[:len(body)/2]+"\xff"+body[len(body)/2:])
		}), FailureMalformed},
		{"control characters", spoil(func(w http.ResponseWriter, _ *http.Request, body string) {
			_, _ = io.WriteString(w, body[:len(body)/2]+"\x07"+body[len(body)/2:])
		}), FailureMalformed},
		{"compressed", spoil(func(w http.ResponseWriter, _ *http.Request, body string) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, body)
			_ = z.Close()
		}), FailureMalformed},
		{"a header of 1 MiB", spoil(func(w http.ResponseWriter, _ *http.Request, body string) {
			w.Header().Set("X-Long", strings.Repeat("x", 1<<20))
			_, _ = io.WriteString(w, body)
		}), FailureUnreachable},
	}
}

// oneByteIsRight has who tells by single values: the first digit of a number is a number.
func oneByteIsRight(p Provider, name string) bool { return p == GCP && name == "the first byte" }

func TestNothingElseIsBelieved(t *testing.T) {
	for _, p := range providers {
		t.Run(string(p.name), func(t *testing.T) {
			good := guard(p.name, serve(readPages(t, firstOf(p.name).name)))
			var handler atomic.Pointer[http.Handler]
			c := newCloud(t, p.name, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/portal" {
					t.Error("the redirect was followed")
				}
				if p.name == GCP { // lest it be refused for that
					w.Header().Set("Metadata-Flavor", "Google")
				}
				(*handler.Load()).ServeHTTP(w, r)
			}))
			var written atomic.Int64
			for _, tt := range captive(&written) {
				if oneByteIsRight(p.name, tt.name) {
					continue
				}
				t.Run(tt.name, func(t *testing.T) {
					h := tt.answer(good)
					handler.Store(&h)
					before := time.Now()
					o := c.options()
					if tt.want == FailureTimeout {
						o.timing = impatient()
					}
					w := Open(o)
					until(t, "an attempt", asked(w))
					if took := time.Since(before); took > 5*time.Second {
						t.Errorf("took %v", took)
					}
					if err := w.Close(); err != nil {
						t.Error(err)
					}
					if i, ok := w.Instance(); ok {
						t.Errorf("believed %+v", i)
					}
					s := w.Status()
					if s.LastErr == nil || s.Failures[tt.want] == 0 || len(s.Failures) != 1 {
						t.Errorf("%v: %v, want %s", s.Failures, s.LastErr, tt.want)
					}
					if n := written.Swap(0); n > 12<<20 {
						t.Errorf("%d bytes were read", n)
					}
				})
			}
		})
	}
}

func TestGoogleSaysThatItIsGoogle(t *testing.T) {
	good := guard(GCP, serve(readPages(t, "gcp-on-demand")))
	c := newCloud(t, GCP, spoil(func(w http.ResponseWriter, _ *http.Request, body string) {
		w.Header().Del("Metadata-Flavor")
		_, _ = io.WriteString(w, body)
	})(good))
	w := open(t, c.options())
	until(t, "an attempt", asked(w))
	if i, ok := w.Instance(); ok || w.Status().Failures[FailureRefused] == 0 {
		t.Errorf("believed %+v: %v", i, w.Status().LastErr)
	}
}

// TestOneBadValue has an answer that is right but for one value.
func TestOneBadValue(t *testing.T) {
	for _, tt := range []struct {
		name, old, bad string
		provider       Provider
		empty          func(*Instance)
	}{
		{"zone of another region", `"us-west-2b"`, `"eu-west-2b"`, AWS, func(i *Instance) { i.AvailabilityZone = "" }},
		{"account with a line feed", "123456789012", `123456789012\n`, AWS, func(i *Instance) { i.AccountID = "" }},
		{"IPv6 in place of IPv4", "203.0.113.25", "2001:db8::1", AWS, func(i *Instance) { i.PublicIPv4 = netip.Addr{} }},
		{"unknown priority", `"Regular"`, `"Bargain"`, Azure, func(i *Instance) { i.LifeCycle = "" }},
		{"address of nobody", `"203.0.113.42"`, `"0.0.0.0"`, Scaleway, func(i *Instance) { i.PublicIPv4 = netip.Addr{} }},
		{"shape of 200 letters", "VM.Standard.E4.Flex", strings.Repeat("V", 200), Oracle, func(i *Instance) { i.InstanceType = "" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pages := readPages(t, firstOf(tt.provider).name)
			for key, p := range pages {
				p.body = strings.ReplaceAll(p.body, tt.old, tt.bad)
				pages[key] = p
			}
			c := newCloud(t, tt.provider, guard(tt.provider, serve(pages)))
			w := open(t, c.options())
			until(t, "an attempt", asked(w))
			want := firstOf(tt.provider).want
			tt.empty(&want)
			got, _ := w.Instance()
			if diff := cmp.Diff(want, got, cmpAddr); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if s := w.Status(); s.Failures[FailureMalformed] == 0 {
				t.Errorf("%v: %v", s.Failures, s.LastErr)
			}
		})
	}
}
