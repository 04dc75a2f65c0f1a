// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// connect makes a link between two namespaces.
func connect(a, b *lab, name, addrA, addrB string) {
	a.run(fmt.Sprintf("ip link add %s type veth peer name %s netns %d", name, name, b.pid))
	a.run("ip addr add " + addrA + "/30 dev " + name)
	b.run("ip addr add " + addrB + "/30 dev " + name)
	a.run("ip link set " + name + " up")
	b.run("ip link set " + name + " up")
}

// TestHopLimit has a collector in a container, behind the host, and a service whose answers to PUT have a TTL of 1.
func TestHopLimit(t *testing.T) {
	pod, node, service := newLab(t), newLab(t), newLab(t)
	connect(pod, node, "eth0", "10.1.0.1", "10.1.0.2")
	connect(node, service, "eth1", "10.2.0.1", "10.2.0.2")
	pod.run("ip route add default via 10.1.0.2")
	node.run("ip route add 169.254.169.254/32 via 10.2.0.2")
	node.inside(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) })
	service.run("ip addr add 169.254.169.254/32 dev eth1")
	service.run("ip route add default via 10.2.0.1")

	type connKey struct{}
	good := guard(AWS, serve(readPages(t, "aws-on-demand")))
	s := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				raw, err := r.Context().Value(connKey{}).(syscall.Conn).SyscallConn()
				if err == nil {
					err = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, 1) })
				}
				if err != nil {
					t.Error(err)
				}
			}
			good.ServeHTTP(w, r)
		}),
	}
	l := service.listen("169.254.169.254:80")
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })

	fromPod := Options{Root: machine(t, firmware[AWS]), timing: impatient()}
	fromPod.timing.request = time.Second
	pod.become(fromPod.Root)
	w := open(t, fromPod)
	until(t, "an attempt", asked(w))
	if _, ok := w.Instance(); ok {
		t.Error("the answer arrived")
	}
	if err := w.Status().LastErr; err == nil || !strings.Contains(err.Error(), "hop limit") || w.Status().Failures[FailureTimeout] == 0 {
		t.Errorf("got %v", err)
	}

	fromNode := Options{Root: machine(t, firmware[AWS]), timing: quick}
	node.become(fromNode.Root)
	w = open(t, fromNode)
	until(t, "an attempt", asked(w))
	if got, _ := w.Instance(); got != firstOf(AWS).want {
		t.Errorf("from the host's namespace: %+v, %v", got, w.Status().LastErr)
	}
}

// TestWithoutIPv4 has an instance of a network that has IPv6 alone.
func TestWithoutIPv4(t *testing.T) {
	for p, at := range map[Provider]string{
		AWS: "fd00:ec2::254", GCP: "fd20:ce::254", Scaleway: "fd00:42::42", Oracle: "fd00:c1::a9fe:a9fe",
	} {
		t.Run(string(p), func(t *testing.T) {
			l := newLab(t)
			l.run("ip link set lo up\nip -6 addr add " + at + "/128 dev lo nodad")
			c := &cloud{root: machine(t, firmware[p]), provider: p}
			l.become(c.root)
			c.serve(t, guard(p, serve(readPages(t, firstOf(p).name))), nil, l.listen("["+at+"]:80"))
			w := open(t, c.options())
			until(t, "the instance", func() bool { _, ok := w.Instance(); return ok }) // the kernel may add the address's route later
			if got, _ := w.Instance(); got != firstOf(p).want || w.Status().LastErr != nil {
				t.Errorf("got %+v, %v", got, w.Status().LastErr)
			}
		})
	}
}

// TestIBMOverTLS has an instance whose service speaks HTTPS.
func TestIBMOverTLS(t *testing.T) {
	l := newLab(t)
	l.run("ip link set lo up\nip addr add 169.254.169.254/32 dev lo")
	for _, tt := range []struct {
		name, host string
		known      bool
	}{
		{"the right certificate", ibmHost, true},
		{"the certificate of another", "example.com", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			certificate, roots := certify(t, tt.host)
			c := &cloud{root: machine(t, firmware[IBM]), provider: IBM}
			l.become(c.root)
			listener := l.listen("169.254.169.254:443")
			defer listener.Close()
			c.serve(t, guard(IBM, serve(readPages(t, "ibm"))), &tls.Config{Certificates: []tls.Certificate{certificate}}, listener)
			o := c.options()
			o.roots = roots
			w := open(t, o)
			until(t, "an attempt", asked(w))
			got, known := w.Instance()
			if known != tt.known || known && got != firstOf(IBM).want {
				t.Errorf("%v %+v, %v", known, got, w.Status().LastErr)
			}
		})
	}
}

func certify(t *testing.T, host string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// TestGivingUp measures how long one attempt takes where nobody answers.
func TestGivingUp(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		want         Failure
		longest      time.Duration
	}{
		{name: "no route", want: FailureUnreachable, longest: 4 * time.Second},
		{name: "refused", script: `ip link set lo up
			ip route add local 0.0.0.0/0 dev lo`, want: FailureUnreachable, longest: 4 * time.Second},
		{name: "black hole", script: `ip link add eth0 type veth peer name nobody
			ip addr add 10.1.0.1/24 dev eth0
			ip link set eth0 arp off
			ip link set eth0 up
			ip link set nobody up
			ip route add default dev eth0`, want: FailureTimeout, longest: 5 * time.Second},
	} {
		l := newLab(t)
		l.run(tt.script)
		t.Run(tt.name, func(t *testing.T) {
			for _, p := range providers {
				t.Run(string(p.name), func(t *testing.T) {
					t.Parallel()
					root := machine(t, firmware[p.name])
					l.become(root)
					start := time.Now()
					w := open(t, Options{Root: root})
					until(t, "an attempt", asked(w))
					s := w.Status()
					took := s.AskedAt.Sub(start)
					if took > tt.longest || s.Failures[tt.want] == 0 {
						t.Errorf("took %v: %v", took, s.LastErr)
					}
					t.Logf("%-12s %-10s %6d ms, %d requests: %v", p.name, tt.name, took.Milliseconds(), s.Requests, s.LastErr)
				})
			}
		})
	}
}

// TestThreadsStayAtHome asks from another namespace and looks for threads that are left there.
func TestThreadsStayAtHome(t *testing.T) {
	c := newCloud(t, AWS, guard(AWS, serve(readPages(t, "aws-on-demand"))))
	if c.dial != nil {
		t.Skip("needs root: makes network namespaces")
	}
	home, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		w := Open(c.options())
		until(t, "an attempt", asked(w))
		if _, ok := w.Instance(); !ok {
			t.Error(w.Status().LastErr)
		}
		w.Close()
	}
	until(t, "the threads to end", func() bool {
		tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			if at, err := os.Readlink(task); err == nil && at != home {
				return false
			}
		}
		return true
	})
	if at, _ := os.Readlink("/proc/self/ns/net"); at != home {
		t.Errorf("the main thread is in %s", at)
	}
}

// TestHostNamespaceThatIsClosedToUs stays in our own, and says so.
func TestHostNamespaceThatIsClosedToUs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	root := t.TempDir()
	for _, tt := range []struct {
		name, path    string
		opens, enters bool
	}{
		{"our own", "/proc/self/ns/net", true, true},
		{"not there", filepath.Join(root, "proc/1/ns/net"), false, true},
		{"opens, but is no network namespace that we may enter", "/proc/self/ns/uts", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			space, err := openNamespace(tt.path)
			defer space.close()
			if (err == nil) != tt.opens {
				t.Errorf("open: %v", err)
			}
			for range 2 {
				conn, err := space.dial(t.Context(), netip.MustParseAddrPort(l.Addr().String()))
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
			}
			if err := space.refusal(); (err == nil) != tt.enters {
				t.Errorf("enter: %v", err)
			}
		})
	}
}

// TestStatusOfAClosedNamespace has a host whose namespace we may look at but not enter.
func TestStatusOfAClosedNamespace(t *testing.T) {
	space, err := openNamespace("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	w := &Watcher{log: zap.NewNop(), space: space}
	defer space.close()
	w.status.HostNetwork = true
	w.checkNamespace()
	if s := w.Status(); !s.HostNetwork || s.NamespaceErr != nil {
		t.Errorf("before the first attempt: %+v", s)
	}
	_, _ = space.dial(t.Context(), netip.MustParseAddrPort("127.0.0.1:1"))
	w.checkNamespace()
	if s := w.Status(); s.HostNetwork || s.NamespaceErr == nil {
		t.Errorf("%+v", s)
	}
}
