// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// silent and silent6 are hosts that never answer.
const (
	silent  = "192.0.2.1:80"
	silent6 = "[2001:db8::1]:80"
)

// routerRules make 192.0.2.0/24 and 2001:db8::/64 hosts each of which fails in its own way.
var routerRules = []string{
	"iptables -A FORWARD -d 192.0.2.1 -j DROP",
	"iptables -A FORWARD -d 192.0.2.2 -j REJECT --reject-with icmp-host-unreachable",
	"iptables -A FORWARD -d 192.0.2.3 -j REJECT --reject-with icmp-net-unreachable",
	"iptables -A FORWARD -d 192.0.2.4 -j REJECT --reject-with icmp-port-unreachable",
	"iptables -A FORWARD -d 192.0.2.5 -j REJECT --reject-with icmp-proto-unreachable",
	"iptables -A FORWARD -d 192.0.2.6 -j REJECT --reject-with icmp-admin-prohibited",
	"iptables -A FORWARD -d 192.0.2.7 -p tcp -j REJECT --reject-with tcp-reset",
	"ip route add default via 10.77.2.2", // without it the firewall would never see them
	"ip route add unreachable 192.0.2.11",
	"ip route add prohibit 192.0.2.12",
	"ip route add blackhole 192.0.2.13",
	"ip route add throw 192.0.2.14", // as if there were no route at all
	"ip6tables -A FORWARD -d 2001:db8::1 -j DROP",
	"ip6tables -A FORWARD -d 2001:db8::2 -j REJECT --reject-with icmp6-addr-unreachable",
	"ip6tables -A FORWARD -d 2001:db8::3 -j REJECT --reject-with icmp6-no-route",
	"ip6tables -A FORWARD -d 2001:db8::4 -j REJECT --reject-with icmp6-port-unreachable",
	"ip6tables -A FORWARD -d 2001:db8::5 -j REJECT --reject-with icmp6-adm-prohibited",
	"ip6tables -A FORWARD -d 2001:db8::7 -p tcp -j REJECT --reject-with tcp-reset",
	"ip -6 route add default via fd77:2::2",
}

// clientRules make some more fail on the client's own host.
var clientRules = []string{
	"ip route add unreachable 192.0.2.31",
	"ip route add prohibit 192.0.2.32",
	"ip route add blackhole 192.0.2.33",
	"ip route add throw 192.0.2.34",
	"ip -6 route add unreachable 2001:db8::31",
	"ip -6 route add prohibit 2001:db8::32",
	"ip -6 route add blackhole 2001:db8::33",
	"ip -6 route add throw 2001:db8::34",
	"iptables -A OUTPUT -d 192.0.2.41 -p tcp -j REJECT --reject-with tcp-reset",
	"iptables -A OUTPUT -d 192.0.2.42 -j DROP",
}

// makeFailingWorld is a world with a server that listens and these hosts.
func makeFailingWorld(t *testing.T) *world {
	t.Helper()
	w := makeWorld(t)
	for ns, rules := range map[*netns][]string{w.router: routerRules, w.client: clientRules} {
		for _, rule := range rules {
			ns.run("%s", rule)
		}
	}
	w.client.sysctl("ipv4/neigh/to1a/retrans_time_ms", "100") // sooner than in a second
	w.client.sysctl("ipv6/neigh/to1a/retrans_time_ms", "100")
	w.router.sysctl("ipv4/icmp_ratelimit", "0")
	w.router.sysctl("ipv6/icmp/ratelimit", "0")
	return w
}

var failureCases = []struct {
	name  string
	how   string // of runAttempts
	n     int
	to    string
	errno unix.Errno // what the process is told, each time
	why   Failure    // what is counted, n times
}{
	{"refused", "blocking", 37, addrClosed, unix.ECONNREFUSED, FailedRefused},
	{"refused over IPv6", "blocking", 5, addrClosed6, unix.ECONNREFUSED, FailedRefused},
	{"refused by the own host", "blocking", 5, "127.0.0.1:9", unix.ECONNREFUSED, FailedRefused},
	{"refused without waiting", "soerror", 5, addrClosed, unix.ECONNREFUSED, FailedRefused},
	{"refused, connect is asked why", "poll", 5, addrClosed, unix.ECONNREFUSED, FailedRefused},
	{"refused one socket", "same", 5, addrClosed, unix.ECONNREFUSED, FailedRefused},
	{"refused an IPv6 socket", "mapped", 5, addrClosed, unix.ECONNREFUSED, FailedRefused},
	{"refused fast open", "fastopen", 5, addrClosed, unix.ECONNREFUSED, FailedRefused},
	{"refused io_uring", "uring", 5, addrClosed, unix.ECONNREFUSED, FailedRefused},
	{"reset by a firewall", "blocking", 3, "192.0.2.7:80", unix.ECONNREFUSED, FailedRefused},
	{"reset by a firewall over IPv6", "blocking", 3, "[2001:db8::7]:80", unix.ECONNREFUSED, FailedRefused},
	{"reset by the own firewall", "blocking", 1, "192.0.2.41:80", unix.ECONNREFUSED, FailedRefused},
	{"port unreachable", "blocking", 1, "192.0.2.4:80", unix.ECONNREFUSED, FailedRefused},
	// As kube-proxy says that a service has no endpoints: on the same host the answer comes before connect() returns, and
	// the process learns it from poll() and SO_ERROR while the kernel would still go on.
	{"port unreachable without waiting", "soerror", 3, "192.0.2.4:80", unix.ECONNREFUSED, FailedRefused},
	{"port unreachable without waiting over IPv6", "soerror", 3, "[2001:db8::4]:80", unix.ECONNREFUSED, FailedRefused},
	{"port unreachable over IPv6", "blocking", 1, "[2001:db8::4]:80", unix.ECONNREFUSED, FailedRefused},

	{"host unreachable", "blocking", 1, "192.0.2.2:80", unix.EHOSTUNREACH, FailedHostUnreachable},
	{"host unreachable over IPv6", "blocking", 1, "[2001:db8::2]:80", unix.EHOSTUNREACH, FailedHostUnreachable},
	{"host unreachable by a route", "blocking", 1, "192.0.2.11:80", unix.EHOSTUNREACH, FailedHostUnreachable},
	{"host unreachable without waiting", "soerror", 3, "192.0.2.2:80", unix.EHOSTUNREACH, FailedHostUnreachable},
	{"prohibited by a route", "blocking", 1, "192.0.2.12:80", unix.EHOSTUNREACH, FailedHostUnreachable},
	{"prohibited by a firewall", "blocking", 1, "192.0.2.6:80", unix.EHOSTUNREACH, FailedHostUnreachable},
	{"no such neighbour", "blocking", 1, "10.77.1.77:80", unix.EHOSTUNREACH, FailedHostUnreachable},
	{"no such neighbour over IPv6", "blocking", 1, "[fd77:1::77]:80", unix.EHOSTUNREACH, FailedHostUnreachable},

	{"network unreachable", "blocking", 1, "192.0.2.3:80", unix.ENETUNREACH, FailedNetworkUnreachable},
	{"network unreachable over IPv6", "blocking", 1, "[2001:db8::3]:80", unix.ENETUNREACH, FailedNetworkUnreachable},
	{"router without a route", "blocking", 1, "192.0.2.14:80", unix.ENETUNREACH, FailedNetworkUnreachable},

	{"timeout", "syncnt", 1, silent, unix.ETIMEDOUT, FailedTimeout},
	{"timeout over IPv6", "syncnt", 1, silent6, unix.ETIMEDOUT, FailedTimeout},
	{"timeout of the socket's own", "usertimeout", 1, silent, unix.ETIMEDOUT, FailedTimeout},
	{"timeout in a black hole", "usertimeout", 1, "192.0.2.13:80", unix.ETIMEDOUT, FailedTimeout},
	{"timeout by the own firewall", "usertimeout", 1, "192.0.2.42:80", unix.ETIMEDOUT, FailedTimeout},

	{"closed", "giveup", 3, silent, unix.EINPROGRESS, FailedAborted},
	{"closed over IPv6", "giveup", 3, silent6, unix.EINPROGRESS, FailedAborted},
	{"shut down", "shutdown", 3, silent, unix.EINPROGRESS, FailedAborted},
	{"disconnected", "disconnect", 3, silent, unix.EINPROGRESS, FailedAborted},
	{"waited no longer", "sndtimeo", 2, silent, unix.EINPROGRESS, FailedAborted},
	{"waited no longer with fast open", "fastopentimeo", 2, silent, unix.EINPROGRESS, FailedAborted},

	{"protocol unreachable", "blocking", 1, "192.0.2.5:80", unix.ENOPROTOOPT, FailedOther},
	{"prohibited by a firewall over IPv6", "blocking", 1, "[2001:db8::5]:80", unix.EACCES, FailedOther},

	{"no route", "blocking", 3, "192.0.2.34:80", unix.ENETUNREACH, FailedUnrouted},
	{"no route over IPv6", "blocking", 3, "[2001:db8::34]:80", unix.ENETUNREACH, FailedUnrouted},
	{"no route for one socket", "same", 5, "192.0.2.34:80", unix.ENETUNREACH, FailedUnrouted},
	{"no route for one IPv6 socket", "same", 5, "[2001:db8::34]:80", unix.ENETUNREACH, FailedUnrouted},
	{"no route without waiting", "soerror", 3, "192.0.2.34:80", unix.ENETUNREACH, FailedUnrouted},
	{"no route for an IPv6 socket", "mapped", 3, "192.0.2.34:80", unix.ENETUNREACH, FailedUnrouted},
	{"no route for fast open", "fastopen", 3, "192.0.2.34:80", unix.ENETUNREACH, FailedUnrouted},
	{"no route for io_uring", "uring", 3, "192.0.2.34:80", unix.ENETUNREACH, FailedUnrouted},
	{"route unreachable", "blocking", 3, "192.0.2.31:80", unix.EHOSTUNREACH, FailedUnrouted},
	{"route unreachable over IPv6", "blocking", 3, "[2001:db8::31]:80", unix.EHOSTUNREACH, FailedUnrouted},
	{"route prohibited", "blocking", 3, "192.0.2.32:80", unix.EACCES, FailedUnrouted},
	{"route prohibited over IPv6", "blocking", 3, "[2001:db8::32]:80", unix.EACCES, FailedUnrouted},
	{"route blackhole", "blocking", 3, "192.0.2.33:80", unix.EINVAL, FailedUnrouted},
	{"route blackhole over IPv6", "blocking", 3, "[2001:db8::33]:80", unix.EINVAL, FailedUnrouted},
}

// TestFailuresByReason lets connects fail; the process itself says how.
func TestFailuresByReason(t *testing.T) {
	h := findHost(t)
	w := makeFailingWorld(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	for i, tt := range failureCases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // some wait for seconds
			c := h.makeCgroup(t, fmt.Sprintf("failure%d", i))
			ch := w.client.startChild(t, c)
			if got, want := ch.do("attempt %s %d %d %s", tt.how, tt.n, tt.errno, tt.to), fmt.Sprint(0, tt.n); got != want {
				t.Fatalf("connected and failed: got %q, want %q", got, want)
			}
			wantTallies(t, tr, c, map[path]tally{plain(tt.to): {Failed: failures{tt.why: uint64(tt.n)}}})
		})
	}
}

// TestFailuresOfKilledProcesses: nobody closes their sockets but the kernel.
func TestFailuresOfKilledProcesses(t *testing.T) {
	h := findHost(t)
	w := makeFailingWorld(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	for _, tt := range []struct {
		name, do, answer string
		want             map[path]tally
	}{
		{
			name: "connecting", do: fmt.Sprintf("attempt pending 7 %d %s", unix.EINPROGRESS, silent), answer: "0 7",
			want: map[path]tally{plain(silent): {Failed: failures{FailedAborted: 7}}},
		}, {
			name: "without a route", do: fmt.Sprintf("attempt left 5 %d 192.0.2.34:80", unix.ENETUNREACH), answer: "0 5",
			want: map[path]tally{plain("192.0.2.34:80"): {Failed: failures{FailedUnrouted: 5}}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := h.makeCgroup(t, "killed")
			ch := w.client.startChild(t, c)
			if got := ch.do(tt.do); got != tt.answer {
				t.Fatalf("connected and failed: got %q, want %q", got, tt.answer)
			}
			ch.kill()
			wantTallies(t, tr, c, tt.want)
		})
	}
	t.Run("waiting in connect", func(t *testing.T) {
		c := h.makeCgroup(t, "killed")
		ch := w.client.startChild(t, c)
		if _, err := fmt.Fprintf(ch.in, "attempt blocking 1 0 %s\n", silent); err != nil {
			t.Fatal(err)
		}
		ch.awaitSynSent()
		ch.kill()
		wantTallies(t, tr, c, map[path]tally{plain(silent): {Failed: failures{FailedAborted: 1}}})
	})
}

// mixedCases are more than one kind of outcome, or none at all.
var mixedCases = []struct {
	name, do string
	errno    unix.Errno
	answer   string // connected, and failed with errno; "" for 100 in all, as the kernel has it
	want     map[path]tally
}{
	{
		name: "happy eyeballs", do: "eyeballs 10 %d " + silent6 + " " + addrBackendA, answer: "10 0",
		want: map[path]tally{plain(silent6): {Failed: failures{FailedAborted: 10}}, plain(addrBackendA): {Connects: 10}},
	}, {
		name: "EALREADY is no other attempt", do: "again 20 %d " + silent, errno: unix.EALREADY, answer: "0 20",
		want: map[path]tally{plain(silent): {Failed: failures{FailedAborted: 1}}},
	}, {
		name: "EISCONN is no other attempt", do: "isconn 20 %d " + addrBackendA, errno: unix.EISCONN, answer: "1 20",
		want: map[path]tally{plain(addrBackendA): {Connects: 1}},
	}, {
		name: "refused, then not", do: "after 1000 %d " + addrClosed + " " + addrBackendA, errno: unix.ECONNREFUSED, answer: "1000 1000",
		want: map[path]tally{plain(addrClosed): {Failed: failures{FailedRefused: 1000}}, plain(addrBackendA): {Connects: 1000}},
	}, {
		name: "no route, then one", do: "after 100 %d 192.0.2.34:80 " + addrBackendA, errno: unix.ENETUNREACH, answer: "100 100",
		want: map[path]tally{plain("192.0.2.34:80"): {Failed: failures{FailedUnrouted: 100}}, plain(addrBackendA): {Connects: 100}},
	}, {
		name: "no route to two places", do: "after 10 %d 192.0.2.34:80 192.0.2.34:81", errno: unix.ENETUNREACH, answer: "0 20",
		want: map[path]tally{plain("192.0.2.34:80"): {Failed: failures{FailedUnrouted: 10}}, plain("192.0.2.34:81"): {Failed: failures{FailedUnrouted: 10}}},
	}, {
		name: "UDP is not counted", do: "udp 5 %d 192.0.2.34:80", errno: unix.ENETUNREACH, answer: "0 5",
		want: map[path]tally{},
	}, {
		name: "a socket to itself", do: "self 1 %d 127.0.0.1:8081", answer: "1 0",
		want: map[path]tally{plain("127.0.0.1:8081"): {Connects: 1}},
	},
	{name: "blocking", do: "blocking 1000 %d " + addrBackendA, answer: "1000 0", want: map[path]tally{plain(addrBackendA): {Connects: 1000}}},
	{name: "blocking over IPv6", do: "blocking 1000 %d " + addrBackend6, answer: "1000 0", want: map[path]tally{plain(addrBackend6): {Connects: 1000}}},
	{name: "not waiting", do: "soerror 1000 %d " + addrBackendA, answer: "1000 0", want: map[path]tally{plain(addrBackendA): {Connects: 1000}}},
	{name: "not waiting, then EISCONN", do: "poll 1000 %d " + addrBackendA, answer: "1000 0", want: map[path]tally{plain(addrBackendA): {Connects: 1000}}},
	{name: "mapped", do: "mapped 1000 %d " + addrBackendA, answer: "1000 0", want: map[path]tally{plain(addrBackendA): {Connects: 1000}}},
	{name: "fast open", do: "fastopen 1000 %d " + addrBackendA, answer: "1000 0", want: map[path]tally{plain(addrBackendA): {Connects: 1000}}},
	{name: "io_uring", do: "uring 200 %d " + addrBackendA, answer: "200 0", want: map[path]tally{plain(addrBackendA): {Connects: 200}}},
	{name: "a reset afterwards", do: "blocking 100 %d 10.77.2.2:8082", errno: unix.ECONNRESET, want: map[path]tally{plain("10.77.2.2:8082"): {Connects: 100}}},
}

// TestSuccessIsNoFailure counts each outcome once, and nothing else.
func TestSuccessIsNoFailure(t *testing.T) {
	h := findHost(t)
	w := makeFailingWorld(t)
	w.server.serve(t, addrBackendA)
	w.server.serve(t, addrBackend6)
	w.server.serveResets(t, "10.77.2.2:8082")
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	for i, tt := range mixedCases {
		t.Run(tt.name, func(t *testing.T) {
			c := h.makeCgroup(t, fmt.Sprintf("mixed%d", i))
			got := w.client.startChild(t, c).do("attempt "+tt.do, tt.errno)
			if tt.answer == "" { // the reset may come before connect has returned, and is then what it returns
				var connected, failed int
				if _, err := fmt.Sscan(got, &connected, &failed); err != nil || connected+failed != 100 {
					t.Fatalf("connected and failed: got %q: %v", got, err)
				}
			} else if got != tt.answer {
				t.Fatalf("connected and failed: got %q, want %q", got, tt.answer)
			}
			wantTallies(t, tr, c, tt.want)
		})
	}
}

// TestFullAcceptQueueIsATimeout: the kernel drops the SYN, as a host that is down would.
func TestFullAcceptQueueIsATimeout(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "queue")
	full := fullListener(t)
	if got := startChild(t, c).do("attempt syncnt 1 %d %s", unix.ETIMEDOUT, full); got != "0 1" {
		t.Fatalf("connected and failed: got %q", got)
	}
	wantTallies(t, tr, c, map[path]tally{{full, full}: {Failed: failures{FailedTimeout: 1}}})
}

// TestNoFreePortIsAnotherFailure: connect() changes the state of the socket and takes that back.
func TestNoFreePortIsAnotherFailure(t *testing.T) {
	h := findHost(t)
	ns := makeNetns(t)
	ns.sysctl("ipv4/ip_local_port_range", "40000 40001")
	b := ns.serve(t, "127.0.0.1:8080")
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "ports")
	ch := ns.startChild(t, c)
	if got := ch.do("attempt hold 7 %d %s", unix.EADDRNOTAVAIL, b.addr); got != "2 5" {
		t.Fatalf("connected and failed: got %q", got)
	}
	want := map[path]tally{{b.addr, b.addr}: {Connects: 2, Active: 2, Failed: failures{FailedOther: 5}}}
	wantTallies(t, tr, c, want)
}

// TestNamespaceWithoutRoutes has no interface but the loopback.
func TestNamespaceWithoutRoutes(t *testing.T) {
	h := findHost(t)
	ns := makeNetns(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "island")
	ch := ns.startChild(t, c)
	want := map[path]tally{}
	for _, addr := range []string{"192.0.2.1:80", "[2001:db8::1]:80", "255.255.255.255:80"} {
		if got := ch.do("attempt blocking 4 %d %s", unix.ENETUNREACH, addr); got != "0 4" {
			t.Fatalf("%s: connected and failed: got %q", addr, got)
		}
		want[plain(addr)] = tally{Failed: failures{FailedUnrouted: 4}}
	}
	wantTallies(t, tr, c, want)
}
