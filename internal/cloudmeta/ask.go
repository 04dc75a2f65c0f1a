// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxAnswer = 64 << 10
	maxHeader = 16 << 10
)

// contentTypes are what metadata services call their answers; an answer may also have none. Nothing else is read.
var contentTypes = map[string]bool{
	"text/plain": true, "application/text": true, "application/octet-stream": true, "binary/octet-stream": true,
	"application/json": true, "text/json": true,
	"application/yaml": true, "application/x-yaml": true, "text/yaml": true, "text/x-yaml": true, "text/vnd.yaml": true,
}

// endpoint is where a metadata service is. The host of the URL is for the service alone: the address is dialled, and no name is
// ever looked up.
type endpoint struct {
	url     string
	address netip.AddrPort
}

// linkLocal is where most metadata services are.
var linkLocal = []endpoint{{"http://169.254.169.254", netip.MustParseAddrPort("169.254.169.254:80")}}

// asker is one attempt to learn all about the instance. It belongs to one goroutine.
type asker struct {
	ctx       context.Context // of the attempt: 5 s
	timeout   time.Duration   // of a request with its answer
	dial      func(context.Context, netip.AddrPort) (net.Conn, error)
	roots     *x509.CertPool         // nil for those of the system
	endpoints []endpoint             // the first is asked
	another   func(error) bool       // whether to try the next endpoint after this error of the first request
	header    map[string]string      // of each request
	proof     func(http.Header) bool // of an answer, nil for none
	client    *http.Client           // for the first endpoint
	connected atomic.Bool            // set by the transport's goroutine
	answered  bool

	requests uint64
	failures []error // each matches one kind
}

// at sets where to ask, and what to say with each request: names and values in turn.
func (a *asker) at(endpoints []endpoint, header ...string) {
	a.endpoints, a.another = endpoints, isNoRoute
	a.header = map[string]string{}
	for i := 0; i+1 < len(header); i += 2 {
		a.header[header[i]] = header[i+1]
	}
}

func (a *asker) close() {
	if a.client != nil {
		a.client.CloseIdleConnections()
		a.client = nil
	}
}

// fail takes note of an error; nil is none.
func (a *asker) fail(err error) {
	if err != nil {
		a.failures = append(a.failures, err)
	}
}

// get asks for what may be missing. All errors but errAbsent are taken note of.
func (a *asker) get(path string) ([]byte, error) {
	b, err := a.do(http.MethodGet, path, "")
	if err != nil && !errors.Is(err, errAbsent) {
		a.fail(err)
	}
	return b, err
}

// must is get for what has to be there.
func (a *asker) must(path string) ([]byte, error) {
	b, err := a.get(path)
	if errors.Is(err, errAbsent) {
		a.fail(err)
	}
	return b, err
}

// text asks for one value of a shape. It is "" when there is none, and when it is bad.
func (a *asker) text(path string, shape *regexp.Regexp) string {
	b, err := a.get(path)
	if err != nil {
		return ""
	}
	var c shapes
	s := c.text(path, strings.TrimSpace(string(b)), shape)
	a.fail(c.err())
	return s
}

// ipv4 asks for an address, which is not valid when there is none.
func (a *asker) ipv4(path string) netip.Addr {
	b, err := a.get(path)
	if err != nil {
		return netip.Addr{}
	}
	var c shapes
	addr := c.ipv4(path, strings.TrimSpace(string(b)))
	a.fail(c.err())
	return addr
}

// getToken gets the token of a session as IMDSv2 has it, to be said with each request from then on. A service that does not know
// tokens is asked without. Anybody else's answer is no reason to do without.
func (a *asker) getToken(header string) error {
	const path = "/latest/api/token"
	b, err := a.do(http.MethodPut, path, "", header+"-ttl-seconds", "60")
	if errors.Is(err, errAbsent) || hasStatus(err, http.StatusMethodNotAllowed) {
		return nil
	}
	if err != nil {
		return err
	}
	token := strings.TrimSpace(string(b))
	if err := checkToken(token); err != nil {
		return fmt.Errorf("PUT %s: %w", path, err)
	}
	a.header[header] = token
	return nil
}

// do sends one request, to the next endpoint if the first one turns out to be out of reach.
func (a *asker) do(method, path, body string, header ...string) ([]byte, error) {
	var before error
	for {
		b, err := a.once(method, path, body, header)
		if err == nil || a.answered {
			return b, err
		}
		err = errors.Join(before, err)
		if len(a.endpoints) < 2 || !a.another(err) || a.ctx.Err() != nil {
			return nil, err
		}
		before = err
		a.close()
		a.endpoints = a.endpoints[1:]
	}
}

func (a *asker) once(method, path, body string, header []string) ([]byte, error) {
	if a.client == nil {
		a.client = a.newClient(a.endpoints[0].address)
	}
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	url := a.endpoints[0].url + path
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return nil, err
	}
	for name, value := range a.header {
		req.Header.Set(name, value)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	a.requests++
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err // has method and URL
	}
	defer resp.Body.Close()
	a.answered = true
	b, err := a.read(resp)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	return b, nil
}

// read takes the body of an answer that may be believed.
func (a *asker) read(resp *http.Response) ([]byte, error) {
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound:
		return nil, errAbsent
	case code >= 300 && code < 400:
		return nil, fmt.Errorf("redirect: %w", errRefused)
	case code != http.StatusOK:
		return nil, statusError(code)
	}
	if a.proof != nil && !a.proof(resp.Header) {
		return nil, fmt.Errorf("without the header of the provider: %w", errRefused)
	}
	if given := resp.Header.Get("Content-Type"); given != "" {
		if kind, _, err := mime.ParseMediaType(given); err != nil || !contentTypes[kind] {
			return nil, fmt.Errorf("content type %.60q: %w", given, errRefused)
		}
	}
	if resp.ContentLength > maxAnswer {
		return nil, errTooLarge
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > maxAnswer:
		return nil, errTooLarge
	case !utf8.Valid(b) || bytes.ContainsFunc(b, isControl):
		return nil, fmt.Errorf("no text: %w", errMalformed)
	}
	return b, nil
}

func isControl(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' }

// newClient makes a client that speaks to one address alone, whatever the URL or the environment say.
func (a *asker) newClient(address netip.AddrPort) *http.Client {
	return &http.Client{
		// Proxy is nil: none, also not from the environment.
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := a.dial(ctx, address)
				if err == nil {
					a.connected.Store(true)
				}
				return conn, err
			},
			TLSClientConfig:        &tls.Config{RootCAs: a.roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    a.timeout,
			DisableCompression:     true,
			MaxIdleConns:           1,
			IdleConnTimeout:        a.timeout,
			MaxResponseHeaderBytes: maxHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
