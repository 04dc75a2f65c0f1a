// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// translation is the rule that most tests use, after -A or -D.
const translation = "PREROUTING -d 10.96.0.10 -p tcp --dport 80 -j DNAT --to-destination 10.77.2.2:8080"

// kubeServices are the chains of kube-proxy for a service of two endpoints.
var kubeServices = []string{
	"iptables -t nat -N KUBE-SERVICES", "iptables -t nat -N KUBE-SVC-X", "iptables -t nat -N KUBE-MARK-MASQ",
	"iptables -t nat -N KUBE-SEP-A", "iptables -t nat -N KUBE-SEP-B", "iptables -t nat -N KUBE-POSTROUTING",
	"iptables -t nat -A PREROUTING -j KUBE-SERVICES",
	"iptables -t nat -A OUTPUT -j KUBE-SERVICES",
	"iptables -t nat -A POSTROUTING -j KUBE-POSTROUTING",
	"iptables -t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
	"iptables -t nat -A KUBE-POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully",
	"iptables -t nat -A KUBE-SERVICES -p tcp -d 10.96.0.10 --dport 80 -j KUBE-SVC-X",
	"iptables -t nat -A KUBE-SVC-X ! -s 10.77.2.0/24 -p tcp -d 10.96.0.10 --dport 80 -j KUBE-MARK-MASQ",
	"iptables -t nat -A KUBE-SVC-X -m statistic --mode random --probability 0.5 -j KUBE-SEP-A",
	"iptables -t nat -A KUBE-SVC-X -j KUBE-SEP-B",
	"iptables -t nat -A KUBE-SEP-A -s 10.77.2.2 -j KUBE-MARK-MASQ",
	"iptables -t nat -A KUBE-SEP-A -p tcp -j DNAT --to-destination 10.77.2.2:8080",
	"iptables -t nat -A KUBE-SEP-B -s 10.77.2.3 -j KUBE-MARK-MASQ",
	"iptables -t nat -A KUBE-SEP-B -p tcp -j DNAT --to-destination 10.77.2.3:8080",
}

// nftServices is the same by kube-proxy's nftables mode.
var nftServices = []string{
	"nft add table ip kube",
	"nft add chain ip kube pre { type nat hook prerouting priority dstnat ; }",
	"nft add chain ip kube service", "nft add chain ip kube a", "nft add chain ip kube b",
	"nft add rule ip kube a meta l4proto tcp dnat to 10.77.2.2:8080",
	"nft add rule ip kube b meta l4proto tcp dnat to 10.77.2.3:8080",
	"nft add rule ip kube service numgen random mod 2 vmap { 0 : goto a , 1 : goto b }",
	"nft add map ip kube ips { type ipv4_addr . inet_proto . inet_service : verdict ; }",
	"nft add element ip kube ips { 10.96.0.10 . tcp . 80 : goto service }",
	"nft add rule ip kube pre ip daddr . meta l4proto . th dport vmap @ips",
}

// natCase is rules in the namespaces of a world and where the client's connections to dial then go.
type natCase struct {
	name                   string
	tool                   string // beside iptables
	how                    string // of runAttempts, if not blocking
	client, router, server []string
	dial                   string
	on                     func(*world) *netns // where listen is, if not in the server's namespace
	listen                 []string
	actual                 string // the real destination, if not those of listen
}

var natCases = []natCase{
	{
		name:   "DNAT in a router",
		router: []string{"iptables -t nat -A " + translation},
		dial:   addrService, listen: []string{addrBackendA},
	}, {
		name: "DNAT and MASQUERADE in a router",
		router: []string{
			"iptables -t nat -A " + translation,
			"iptables -t nat -A POSTROUTING -j MASQUERADE",
		},
		dial: addrService, listen: []string{addrBackendA},
	}, {
		name: "an IPv6 socket", how: "mapped",
		router: []string{"iptables -t nat -A " + translation},
		dial:   addrService, listen: []string{addrBackendA},
	}, {
		name: "fast open", how: "fastopen",
		router: []string{"iptables -t nat -A " + translation},
		dial:   addrService, listen: []string{addrBackendA},
	}, {
		name: "kube-proxy's chains", router: kubeServices,
		dial: addrService, listen: []string{addrBackendA, addrBackendB},
	}, {
		name: "kube-proxy's chains for local processes", client: kubeServices,
		dial: addrService, listen: []string{addrBackendA, addrBackendB},
	}, {
		name: "kube-proxy's nftables", tool: "nft", router: nftServices,
		dial: addrService, listen: []string{addrBackendA, addrBackendB},
	}, {
		name: "nftables map in turn", tool: "nft",
		router: []string{
			"nft add table ip lb",
			"nft add chain ip lb pre { type nat hook prerouting priority dstnat ; }",
			"nft add rule ip lb pre ip daddr 10.96.0.10 tcp dport 80 dnat ip to numgen inc mod 2 map { 0 : 10.77.2.2 . 8080 , 1 : 10.77.2.3 . 8080 }",
		},
		dial: addrService, listen: []string{addrBackendA, addrBackendB},
	}, {
		name:   "address alone is translated",
		router: []string{"iptables -t nat -A PREROUTING -d 10.96.0.10 -j DNAT --to-destination 10.77.2.2"},
		dial:   addrService, listen: []string{"10.77.2.2:80"},
	}, {
		name:   "port alone is translated",
		router: []string{"iptables -t nat -A PREROUTING -d 10.77.2.2 -p tcp --dport 80 -j DNAT --to-destination 10.77.2.2:8080"},
		dial:   "10.77.2.2:80", listen: []string{addrBackendA},
	}, {
		name:   "IPv6",
		router: []string{"ip6tables -t nat -A PREROUTING -d fd96::10 -p tcp --dport 80 -j DNAT --to-destination [fd77:2::2]:8080"},
		dial:   addrService6, listen: []string{addrBackend6},
	}, {
		name:   "two in a row",
		client: []string{"iptables -t nat -A OUTPUT -d 10.96.0.10 -p tcp --dport 80 -j DNAT --to-destination 10.96.0.11:81"},
		router: []string{"iptables -t nat -A PREROUTING -d 10.96.0.11 -p tcp --dport 81 -j DNAT --to-destination 10.77.2.2:8080"},
		dial:   addrService, listen: []string{addrBackendA},
	}, {
		name:   "local process to an own listener",
		client: []string{"iptables -t nat -A OUTPUT -d 10.96.0.10 -p tcp --dport 80 -j DNAT --to-destination 10.77.1.2:8080"},
		dial:   addrService, listen: []string{"10.77.1.2:8080"}, on: (*world).ofClient,
	}, {
		name:   "redirect to a proxy beside the process",
		client: []string{"iptables -t nat -A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 15001"},
		dial:   addrService, listen: []string{"127.0.0.1:15001"}, on: (*world).ofClient,
	}, {
		// Such as a service of Kubernetes whose endpoint is in the node's own namespace: the API server.
		name:   "to a listener of the router itself",
		router: []string{"iptables -t nat -A PREROUTING -d 10.96.0.10 -p tcp --dport 80 -j DNAT --to-destination 10.77.1.1:6443"},
		dial:   addrService, listen: []string{"10.77.1.1:6443"}, on: (*world).ofRouter,
	}, {
		name: "no rules", dial: addrBackendA, listen: []string{addrBackendA},
	}, {
		name: "tracked, not translated",
		router: []string{
			"iptables -t nat -A PREROUTING -d 10.96.0.10 -p tcp --dport 80 -j DNAT --to-destination 10.77.2.3:8080",
			"iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP",
		},
		dial: addrBackendA, listen: []string{addrBackendA},
	}, {
		name:   "source alone is translated",
		router: []string{"iptables -t nat -A POSTROUTING -j MASQUERADE --random-fully"},
		dial:   addrBackendA, listen: []string{addrBackendA},
	}, {
		// A sidecar takes what is meant for its neighbour: still the peer that was dialled, and from another host nobody
		// could tell.
		name:   "redirected on arrival",
		server: []string{"iptables -t nat -A PREROUTING -d 10.77.2.2 -p tcp --dport 80 -j REDIRECT --to-ports 8080"},
		dial:   "10.77.2.2:80", listen: []string{addrBackendA}, actual: "10.77.2.2:80",
	},
}

// TestActualDestination makes connections through every kind of translation; the listeners know where they went.
func TestActualDestination(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	for _, tt := range natCases {
		t.Run(tt.name, func(t *testing.T) {
			if tt.tool != "" {
				needTools(t, tt.tool)
			}
			w := makeWorld(t)
			w.apply(tt)
			where := w.server
			if tt.on != nil {
				where = tt.on(w)
			}
			var backends []*backend
			for _, addr := range tt.listen {
				backends = append(backends, where.serve(t, addr))
			}
			c := h.makeCgroup(t, "nat")
			const n = 2000
			how := cmp.Or(tt.how, "blocking")
			if got, want := w.client.startChild(t, c).do("attempt %s %d 0 %s", how, n, tt.dial), fmt.Sprint(n, 0); got != want {
				t.Fatalf("connected and failed: got %q, want %q", got, want)
			}
			wantAccepted(t, n, backends...)

			want := map[path]tally{}
			for _, b := range backends {
				if b.accepted.Load() == 0 {
					t.Errorf("no connection reached %v: the rules do not share out", b.addr)
				}
				want[via(tt.dial, cmp.Or(tt.actual, b.addr.String()))] = tally{Connects: b.accepted.Load()}
			}
			wantTallies(t, tr, c, want)
		})
	}
}

func (w *world) ofClient() *netns { return w.client }
func (w *world) ofRouter() *netns { return w.router }

func (w *world) apply(tt natCase) {
	for ns, rules := range map[*netns][]string{w.client: tt.client, w.router: tt.router, w.server: tt.server} {
		for _, rule := range rules {
			ns.run("%s", rule)
		}
	}
}

// wantTallies waits until what a cgroup did is this and nothing else.
func wantTallies(t *testing.T, tr *Tracer, c cgroup, want map[path]tally) {
	t.Helper()
	var got map[path]tally
	if !within(3*time.Second, func() bool { got = tallies(t, tr, c); return gocmp.Equal(want, got) }) {
		t.Errorf("paths (-want +got):\n%s", gocmp.Diff(want, got))
	}
}

// TestActualDestinationsOfManyAtOnce has processes race for one service behind two translations of addresses.
func TestActualDestinationsOfManyAtOnce(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	w := makeWorld(t)
	w.apply(natCase{router: kubeServices})
	a, b := w.server.serve(t, addrBackendA), w.server.serve(t, addrBackendB)
	c := h.makeCgroup(t, "many")
	const processes, n = 6, 2000
	var answers []func() (int, unix.Errno)
	for range processes {
		answers = append(answers, w.client.startChild(t, c).ask("attempt blocking %d 0 %s", n, addrService))
	}
	for _, answer := range answers {
		if done, failed := answer(); done != n || failed != 0 {
			t.Fatalf("connected %d", done)
		}
	}
	wantAccepted(t, processes*n, a, b)
	wantTallies(t, tr, c, map[path]tally{
		via(addrService, addrBackendA): {Connects: a.accepted.Load()},
		via(addrService, addrBackendB): {Connects: b.accepted.Load()},
	})
}

// TestTranslationEndsWithItsRule uses the same ports again after the rule has gone and its destination is a host.
func TestTranslationEndsWithItsRule(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	for _, tt := range []struct {
		name   string
		first  bool // the translated connection is the cgroup's own; else of the host
		listen bool // there is somebody to accept it
	}{
		{name: "after a success", first: true, listen: true},
		{name: "after a failure", first: true},
		{name: "after a connection of the host", listen: true},
		{name: "after a failure of the host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := makeWorld(t)
			w.router.run("iptables -t nat -A %s", translation)
			w.router.sysctl("netfilter/nf_conntrack_tcp_timeout_close", "1")
			c := h.makeCgroup(t, "ends")
			ch, first := w.client.startChild(t, c), w.client.startChild(t, h.root())
			if tt.first {
				first = ch
			}
			want := map[path]tally{}
			before := tally{Failed: failures{FailedRefused: 1}}
			answer, p := "0 1", plain(addrService)
			if tt.listen {
				w.server.serve(t, addrBackendA)
				before, answer, p = tally{Connects: 1}, "1 0", via(addrService, addrBackendA)
			}
			if tt.first {
				want[p] = before
			}
			const from = "attempt from 1 %d %s 10.77.1.2:31000"
			if got := first.do(from, unix.ECONNREFUSED, addrService); got != answer {
				t.Fatalf("translated: got %q, want %q", got, answer)
			}
			w.router.run("iptables -t nat -D %s", translation)
			w.router.forgetFlows(t)
			w.router.run("ip route add 10.96.0.10 via 10.77.2.2")
			w.server.run("ip addr add 10.96.0.10/32 dev lo")
			direct := w.server.serve(t, addrService)
			if got := ch.do(from, unix.ECONNREFUSED, addrService); got != "1 0" {
				t.Fatalf("not translated: got %q", got)
			}
			wantAccepted(t, 1, direct)
			want[plain(addrService)] = tally{Connects: 1, Failed: want[plain(addrService)].Failed}
			wantTallies(t, tr, c, want)
		})
	}
}

// root is where processes of the host itself are.
func (h host) root() cgroup {
	c := cgroup{dirs: []string{h.unified}}
	if h.legacy != "" {
		c.dirs = append(c.dirs, h.legacy)
	}
	return c
}

// forgetFlows waits until connection tracking has no live entry left. Reading the list, not the count, ends dead ones.
func (n *netns) forgetFlows(t *testing.T) {
	t.Helper()
	eventually(t, "no tracked flow", func() (none bool) {
		n.do(func() {
			b, err := os.ReadFile("/proc/thread-self/net/nf_conntrack")
			none = err == nil && !strings.Contains(string(b), "tcp")
		})
		return none
	})
}

// TestEqualAddressesInTwoNamespaces has two clients of one address and two routers that translate one service each in its
// own way.
func TestEqualAddressesInTwoNamespaces(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	type side struct {
		w  *world
		c  cgroup
		ch *child
		b  *backend
	}
	var sides []side
	for role, addr := range map[string]string{"left": addrBackendA, "right": addrBackendB} {
		s := side{w: makeWorld(t), c: h.makeCgroup(t, role)}
		s.w.router.run("iptables -t nat -A PREROUTING -d 10.96.0.10 -p tcp --dport 80 -j DNAT --to-destination %s", addr)
		s.b = s.w.server.serve(t, addr)
		s.ch = s.w.client.startChild(t, s.c)
		sides = append(sides, s)
	}
	const rounds = 200
	for i := range rounds { // the same four numbers on both sides, one after the other
		for _, s := range sides {
			s.ch.do("attempt from 1 0 %s 10.77.1.2:%d", addrService, 31000+i)
		}
	}
	for _, s := range sides {
		wantAccepted(t, rounds, s.b)
		wantTallies(t, tr, s.c, map[path]tally{via(addrService, s.b.addr.String()): {Connects: rounds}})
		if err := tr.EachEdge(func(e *Edge) {
			if e.CgroupV2 == s.c.v2 && e.CgroupV1 == s.c.v1 && e.NetNS != s.w.client.inode() {
				t.Errorf("edge of another namespace: %+v", e)
			}
		}); err != nil {
			t.Error(err)
		}
	}
}

// TestFailuresHaveNoActualDestination: nobody has answered, so nobody can be named.
func TestFailuresHaveNoActualDestination(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	w := makeWorld(t)
	w.router.run("iptables -t nat -A %s", translation)
	c := h.makeCgroup(t, "natfail")
	ch := w.client.startChild(t, c)
	if got := ch.do("attempt blocking 20 %d %s", unix.ECONNREFUSED, addrService); got != "0 20" {
		t.Fatalf("nobody listens: got %q", got)
	}
	b := w.server.serve(t, addrBackendA)
	if got := ch.do("attempt blocking 30 0 %s", addrService); got != "30 0" {
		t.Fatalf("a server: got %q", got)
	}
	wantAccepted(t, 30, b)
	wantTallies(t, tr, c, map[path]tally{
		plain(addrService):             {Failed: failures{FailedRefused: 20}},
		via(addrService, addrBackendA): {Connects: 30},
	})
}

// TestTranslationOlderThanTheTracer takes in open connections with what a dump of connection tracking says of them.
func TestTranslationOlderThanTheTracer(t *testing.T) {
	h := findHost(t)
	w := makeWorld(t)
	w.router.run("iptables -t nat -A %s", translation)
	b := w.server.serve(t, addrBackendA)
	c := h.makeCgroup(t, "older")
	ch := w.client.startChild(t, c)
	if got := ch.do("attempt from 1 0 %s 10.77.1.2:31000", addrService); got != "1 0" {
		t.Fatalf("got %q", got)
	}
	ch.do("hold 3 %s", addrService)
	wantAccepted(t, 4, b)

	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	for _, source := range b.sources() {
		if err := tr.AddTranslation(source, netip.MustParseAddrPort(addrService), b.addr); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Adopt(); err != nil {
		t.Fatal(err)
	}
	wantTallies(t, tr, c, map[path]tally{via(addrService, addrBackendA): {Active: 3}})
	ch.do("close")
	ch.do("connect 5 %s", addrService)
	wantTallies(t, tr, c, map[path]tally{via(addrService, addrBackendA): {Connects: 5}})
}

// TestIPVS needs a kernel with CONFIG_IP_VS.
func TestIPVS(t *testing.T) {
	h := findHost(t)
	needTools(t, "ipvsadm")
	if _, err := os.Stat("/proc/net/ip_vs"); err != nil {
		t.Skip("no ip_vs in this kernel")
	}
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	w := makeWorld(t)
	w.router.run("ip addr add 10.96.0.10/32 dev lo")
	w.router.sysctl("ipv4/vs/conntrack", "1") // as kube-proxy sets it
	w.router.run("ipvsadm -A -t %s -s rr", addrService)
	w.router.run("ipvsadm -a -t %s -r %s -m", addrService, addrBackendA)
	b := w.server.serve(t, addrBackendA)
	c := h.makeCgroup(t, "ipvs")
	w.client.startChild(t, c).do("connect 200 %s", addrService)
	wantAccepted(t, 200, b)
	wantTallies(t, tr, c, map[path]tally{via(addrService, addrBackendA): {Connects: 200}})
}
