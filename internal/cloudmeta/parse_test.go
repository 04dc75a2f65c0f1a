// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// parsers has the parser of each document.
var parsers = map[string]func([]byte) (Instance, error){
	"aws":           parseAWSDocument,
	"azure":         parseAzure,
	"hetzner":       parseHetzner,
	"digitalocean":  parseDigitalOcean,
	"scaleway":      parseScaleway,
	"ibm":           parseIBM,
	"oracle":        parseOracle,
	"gcp interface": onto(parseGCPInterface),
	"oracle vnics":  onto(parseOracleInterfaces),
	"alibaba ipv6s": onto(parseAlibabaIPv6s),
	"aws account": func(b []byte) (Instance, error) {
		account, err := parseAWSAccount(b)
		return Instance{AccountID: account}, err
	},
	"hetzner networks": func(b []byte) (Instance, error) {
		address, err := parseHetznerNetworks(b)
		return Instance{LocalIPv4: address}, err
	},
}

// onto is for the parsers that add to an instance.
func onto(parse func([]byte, *Instance) error) func([]byte) (Instance, error) {
	return func(b []byte) (Instance, error) {
		var i Instance
		err := parse(b, &i)
		return i, err
	}
}

func TestParsersRefuse(t *testing.T) {
	for _, tt := range []struct{ name, parser, in string }{
		{"no id", "aws", `{"region":"us-west-2"}`},
		{"id of another kind", "aws", `{"instanceId":"ok"}`},
		{"a number for a text", "aws", `{"instanceId":7}`},
		{"two documents", "aws", `{"instanceId":"i-12345678"}{}`},
		{"text behind the id", "aws", `{"instanceId":"i-12345678\n<html>"}`},
		{"no UUID", "azure", `{"compute":{"vmId":"02aab8a4"}}`},
		{"list", "azure", `[]`},
		{"word", "hetzner", "ok"},
		{"list", "hetzner", "- instance-id: 1"},
		{"id of something else", "hetzner", "network-config:\n  instance-id: 1\n"},
		{"id in a text", "hetzner", "vendor_data: |\n  instance-id: 1\n"},
		{"no number", "hetzner", "instance-id: i-1\n"},
		{"HTML", "hetzner", portal},
		{"one key many times", "hetzner", strings.Repeat("a: 1\n", 12_000)},
		{"no number", "digitalocean", `{"droplet_id":"x"}`},
		{"a fraction", "digitalocean", `{"droplet_id":1.5}`},
		{"nothing", "scaleway", `{}`},
		{"no account", "ibm", `{"id":"0717_1","crn":"crn"}`},
		{"no id", "ibm", `{"crn":"crn:v1:bluemix:public:is:us-south-1:a/1::instance:0717_1"}`},
		{"id of a volume", "oracle", `{"id":"ocid1.volume.oc1.phx.a"}`},
		{"number in place of an address", "oracle vnics", `[{"privateIp":"10.0.0.1","ipv6Addresses":[7]}]`},
		{"a name for an address", "gcp interface", `{"ip":"localhost"}`},
		{"not addresses", "alibaba ipv6s", "[a,b]"},
		{"an account of letters", "aws account", `{"AccountId":"123456789abc"}`},
		{"no address", "hetzner networks", "- ip: 10.0.0\n"},
	} {
		t.Run(tt.parser+": "+tt.name, func(t *testing.T) {
			start := time.Now()
			i, err := parsers[tt.parser]([]byte(tt.in))
			if !errors.Is(err, errMalformed) || i.InstanceID != "" {
				t.Errorf("got %+v, %v", i, err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestAbsentIsNoError(t *testing.T) {
	for parser, in := range map[string]string{
		"gcp interface": "{}", "oracle vnics": "[]", "alibaba ipv6s": "", "aws account": "{}", "hetzner networks": "[]",
	} {
		if i, err := parsers[parser]([]byte(in)); i != (Instance{}) || err != nil {
			t.Errorf("%s: %+v, %v", parser, i, err)
		}
	}
}

func TestGCPLifeCycle(t *testing.T) {
	for _, tt := range []struct{ model, preemptible, want string }{
		{"", "", ""},
		{"SPOT", "TRUE", Spot},
		{"SPOT", "", Spot},
		{"STANDARD", "TRUE", Preemptible},
		{"", "true", Preemptible},
		{"STANDARD", "FALSE", OnDemand},
		{"RESERVATION_BOUND", "FALSE", OnDemand},
		{"", "FALSE", OnDemand},
	} {
		if got := gcpLifeCycle(tt.model, tt.preemptible); got != tt.want {
			t.Errorf("%q %q: got %q, want %q", tt.model, tt.preemptible, got, tt.want)
		}
	}
}

// check says what every instance is that has been read.
func check(t *testing.T, i Instance) {
	t.Helper()
	if err := i.Validate(); err != nil {
		t.Errorf("%+v: %v", i, err)
	}
	for _, text := range i.texts() {
		if strings.ContainsAny(*text, "<>\" \n") || !utf8.ValidString(*text) {
			t.Errorf("%q", *text)
		}
	}
	for n, a := range i.addresses() {
		if a.IsValid() && (a.Is4() != (n < 2) || a.IsLoopback() || a.Zone() != "") {
			t.Errorf("address %d is %s", n, a)
		}
	}
}

// seed adds the documented answers.
func seed(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.http"))
	if err != nil || len(files) == 0 {
		f.Fatalf("%v: %v", files, err)
	}
	for _, file := range files {
		for _, p := range readPages(f, strings.TrimSuffix(filepath.Base(file), ".http")) {
			f.Add([]byte(p.body))
		}
	}
}

// FuzzParse gives each text to all parsers.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxAnswer || !utf8.Valid(b) {
			return // is not read
		}
		for _, parse := range parsers {
			i, _ := parse(b)
			check(t, i)
		}
		_, _ = parseIBMToken(b)
	})
}

// FuzzAsk lets every provider's service answer everything alike, with any content type.
func FuzzAsk(f *testing.F) {
	f.Add("text/plain", []byte("ok"))
	f.Add("application/json; charset=utf-8", []byte(`{"id":"daa2ea5a-0ee6-4cdc-9f1a-e0d1cb4e6d86"}`))
	f.Add("", []byte("i-1234567890abcdef0"))
	f.Fuzz(func(t *testing.T, kind string, b []byte) {
		for _, p := range providers {
			a := &asker{ctx: t.Context(), timeout: time.Second}
			i := p.ask(a.answeredBy(func(*http.Request) *http.Response {
				w := httptest.NewRecorder()
				w.Header().Set("Content-Type", kind)
				w.Header().Set("Metadata-Flavor", "Google")
				_, _ = w.Write(b)
				return w.Result()
			}))
			check(t, i)
		}
	})
}

type roundTripper func(*http.Request) *http.Response

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	return f(r), nil
}

// answeredBy takes the network away from an asker.
func (a *asker) answeredBy(f roundTripper) *asker {
	a.client = &http.Client{Transport: f}
	return a
}

// firstLine is read of files that may be anything.
func FuzzFirmware(f *testing.F) {
	f.Add("Amazon EC2")
	f.Add("EC2E1916\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "uuid")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := firstLine(path); len(got) > 256 || strings.Contains(got, "\n") {
			t.Errorf("%q", got)
		}
	})
}
