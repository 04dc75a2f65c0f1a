// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// firmware is what the files below /sys of each cloud's machines say.
var firmware = map[Provider]map[string]string{
	AWS:          {"class/dmi/id/sys_vendor": "Amazon EC2", "class/dmi/id/board_vendor": "Amazon EC2"},
	GCP:          {"class/dmi/id/sys_vendor": "Google", "class/dmi/id/board_vendor": "Google"},
	Azure:        {"class/dmi/id/sys_vendor": "Microsoft Corporation", "class/dmi/id/chassis_asset_tag": azureAssetTag},
	Hetzner:      {"class/dmi/id/sys_vendor": "Hetzner"},
	DigitalOcean: {"class/dmi/id/sys_vendor": "DigitalOcean", "class/dmi/id/board_vendor": "DigitalOcean"},
	Alibaba:      {"class/dmi/id/sys_vendor": "Alibaba Cloud"},
	Scaleway:     {"class/dmi/id/sys_vendor": "Scaleway"},
	IBM:          {"class/dmi/id/sys_vendor": "QEMU", "class/dmi/id/chassis_vendor": "IBM:Cloud Compute Server 1.0:bx2-2x8"},
	Oracle:       {"class/dmi/id/sys_vendor": "QEMU", "class/dmi/id/chassis_asset_tag": "OracleCloud.com"},
}

// machine makes the root file system of a host with the files below /sys.
func machine(t testing.TB, sys map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range sys {
		path := filepath.Join(root, "sys", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// quick is what tests wait for in place of seconds and hours. What should be answered may take its time, on a busy machine too.
var quick = timing{
	request: 10 * time.Second, attempt: 15 * time.Second, first: 20 * time.Millisecond, longest: 100 * time.Millisecond,
	giveUp: time.Minute, interval: time.Hour,
}

// impatient is quick where no answer is to be waited for.
func impatient() timing {
	t := quick
	t.request, t.attempt = 250*time.Millisecond, time.Second
	return t
}

// cloud is a metadata service: as root at the real addresses in a network namespace, otherwise anywhere on this host.
type cloud struct {
	root     string
	provider Provider
	requests atomic.Int64
	dial     func(context.Context, netip.AddrPort) (net.Conn, error) // nil: the real addresses
}

func newCloud(t testing.TB, p Provider, h http.Handler) *cloud {
	t.Helper()
	c := &cloud{root: machine(t, firmware[p]), provider: p}
	var listeners []net.Listener
	if lab := tryLab(t); lab != nil {
		lab.become(c.root)
		listeners = lab.listenEverywhere()
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		c.dial = func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", l.Addr().String())
		}
	}
	c.serve(t, h, nil, listeners...)
	return c
}

func (c *cloud) serve(t testing.TB, h http.Handler, secure *tls.Config, listeners ...net.Listener) {
	t.Helper()
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		if r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Proxy-Connection") != "" {
			t.Errorf("the request went through a proxy: %v", r.Header)
		}
		h.ServeHTTP(w, r)
	})
	s := &http.Server{Handler: counted, TLSConfig: secure}
	for _, l := range listeners {
		if secure != nil {
			l = tls.NewListener(l, secure)
		}
		go func() { _ = s.Serve(l) }()
	}
	t.Cleanup(func() { s.Close() })
}

func (c *cloud) options() Options { return Options{Root: c.root, timing: quick, dial: c.dial} }

// open begins to watch and ends with the test.
func open(t testing.TB, o Options) *Watcher {
	t.Helper()
	w := Open(o)
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 20 s for: %s", what)
		}
	}
}

func asked(w *Watcher) func() bool { return func() bool { return !w.Status().AskedAt.IsZero() } }

// page is an answer of a service. Of what has no page there is nothing: 404.
type page struct {
	header http.Header
	body   string
}

// readPages reads a file of testdata: pages apart by lines of "%%", each a request line, headers, an empty line, the body.
func readPages(t testing.TB, name string) map[string]page {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".http"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "\n") // the first line is a comment
	pages := map[string]page{}
	for part := range strings.SplitSeq(text, "%%\n") {
		head, body, ok := strings.Cut(part, "\n\n")
		if !ok {
			t.Fatalf("%s: page %q", name, part)
		}
		lines := strings.Split(head, "\n")
		p := page{header: http.Header{}, body: body}
		for _, line := range lines[1:] {
			key, value, _ := strings.Cut(line, ": ")
			p.header.Set(key, value)
		}
		pages[lines[0]] = p
	}
	return pages
}

func (p page) write(w http.ResponseWriter) {
	for key := range p.header {
		w.Header().Set(key, p.header.Get(key))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(p.body)))
	_, _ = io.WriteString(w, p.body)
}

func serve(pages map[string]page) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := pages[r.Method+" "+r.URL.RequestURI()]
		if !ok {
			http.NotFound(w, r)
			return
		}
		p.write(w)
	})
}

const token = "AQAEALEM_s3cr3t=="

// guard lets only what the provider's service would let through.
func guard(p Provider, next http.Handler) http.Handler {
	refuse := func(w http.ResponseWriter, code int) { http.Error(w, http.StatusText(code), code) }
	withToken := func(ttl, name string, refusal int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seconds, err := strconv.Atoi(r.Header.Get(ttl))
			switch {
			case r.Method == http.MethodPut && (r.URL.Path != "/latest/api/token" || err != nil || seconds < 1 || seconds > 21600):
				refuse(w, http.StatusBadRequest)
			case r.Method == http.MethodPut:
				page{header: http.Header{"Content-Type": {"text/plain"}}, body: token}.write(w)
			case r.Header.Get(name) != token:
				refuse(w, refusal)
			default:
				next.ServeHTTP(w, r)
			}
		})
	}
	withHeader := func(name, value string, refusal int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get(name) != value {
				refuse(w, refusal)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	switch p {
	case AWS:
		return withToken("X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token", http.StatusUnauthorized)
	case Alibaba:
		return withToken("X-aliyun-ecs-metadata-token-ttl-seconds", "X-aliyun-ecs-metadata-token", http.StatusForbidden)
	case GCP:
		inner := withHeader("Metadata-Flavor", "Google", http.StatusForbidden)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Metadata-Flavor", "Google")
			inner.ServeHTTP(w, r)
		})
	case Azure:
		return withHeader("Metadata", "true", http.StatusBadRequest)
	case Oracle:
		return withHeader("Authorization", "Bearer Oracle", http.StatusNotFound)
	case IBM:
		inner := withHeader("Authorization", "Bearer "+token, http.StatusUnauthorized)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			switch {
			case r.Host != ibmHost:
				refuse(w, http.StatusMisdirectedRequest)
			case r.Method != http.MethodPut:
				inner.ServeHTTP(w, r)
			case r.URL.Path != "/instance_identity/v1/token" || r.Header.Get("Metadata-Flavor") != "ibm" || string(body) != `{"expires_in": 300}`:
				refuse(w, http.StatusBadRequest)
			default:
				page{
					header: http.Header{"Content-Type": {"application/json"}},
					body: fmt.Sprintf(`{"access_token":%q,"created_at":"2025-05-08T15:10:16Z","expires_at":"2025-05-08T15:15:16Z",`+
						`"expires_in":300}`, token),
				}.write(w)
			}
		})
	}
	return next
}
