// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// echoPace is the time between two requests, less where the timeout is short.
const echoPace = time.Millisecond

// Echo sends one ICMP echo request from the namespace to each of at most MaxEchoes addresses and returns the round-trip times
// of those that answered. An address that did not answer, cannot be reached or cannot be asked (multicast, unspecified,
// link-local IPv6 or any with a zone) is not in the result. Keys are addresses as given, IPv4-mapped ones as IPv4.
//
// It returns when all have answered and at the latest after timeout. The requests are sent in the first half of it, a
// millisecond apart or less. When ctx ends first, its error is returned with what has answered until then.
//
// The times are those between the kernel's timestamps, so that a busy CPU adds little to them. It takes CAP_NET_RAW in
// the user namespace that owns the namespace, or a net.ipv4.ping_group_range there that has our group.
func (n *Namespace) Echo(ctx context.Context, addrs []netip.Addr, timeout time.Duration) (map[netip.Addr]time.Duration, error) {
	if len(addrs) > MaxEchoes {
		return nil, fmt.Errorf("echo to %d addresses: more than %d", len(addrs), MaxEchoes)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errEchoTimeout)
	defer cancel()
	r, err := n.newRound(addrs)
	if err != nil {
		return nil, fmt.Errorf("echo: %w", err)
	}
	defer r.close()
	if err := r.run(ctx, timeout); err != nil {
		return r.times(), fmt.Errorf("echo: %w", err)
	}
	return r.times(), nil
}

var errEchoTimeout = errors.New("timeout of echo") // how a round ends that not all have answered

// round is one call of Echo. The goroutine that calls run owns it; those that receive know byToken, which does not change,
// and events.
type round struct {
	sockets map[bool]*echoSocket // by whether they are of IPv6
	id      uint16
	asked   []asked
	byToken map[token]int // index of asked
	events  chan echoEvent
}

// asked is what became of one address.
type asked struct {
	addr     netip.Addr
	token    token
	sent     time.Time // when we began to send; zero before
	left     time.Time // when the kernel says that the request left; zero if it does not say
	answered bool
	answer   echoEvent
}

// newRound makes the sockets and the tokens for those addresses that can be asked.
func (n *Namespace) newRound(addrs []netip.Addr) (*round, error) {
	r := &round{
		sockets: map[bool]*echoSocket{},
		byToken: make(map[token]int, len(addrs)),
		events:  make(chan echoEvent, 64),
	}
	r.id = binary.NativeEndian.Uint16(random(2))
	known := make(map[netip.Addr]bool, len(addrs))
	for _, addr := range addrs {
		addr = addr.Unmap()
		if !canBeAsked(addr) || known[addr] {
			continue
		}
		known[addr] = true
		a := asked{addr: addr, token: token(random(len(token{})))}
		r.byToken[a.token] = len(r.asked)
		r.asked = append(r.asked, a)
	}
	for _, a := range r.asked {
		v6 := a.addr.Is6()
		if _, ok := r.sockets[v6]; ok {
			continue
		}
		s, err := n.echoSocket(v6)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			s, err = nil, nil // nobody can be reached this way
		}
		if err != nil {
			r.close()
			return nil, err
		}
		r.sockets[v6] = s
	}
	return r, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func canBeAsked(addr netip.Addr) bool {
	linkLocal6 := addr.Is6() && addr.IsLinkLocalUnicast()
	return addr.IsValid() && addr.Zone() == "" && !addr.IsUnspecified() && !addr.IsMulticast() && !linkLocal6
}

func (r *round) close() {
	for _, s := range r.sockets {
		if s != nil {
			s.file.Close()
		}
	}
}

// run asks everybody and waits for the answers.
func (r *round) run(ctx context.Context, timeout time.Duration) error {
	if len(r.asked) == 0 {
		return nil
	}
	var receivers sync.WaitGroup
	ended := make(chan error, len(r.sockets))
	over := make(chan struct{})
	for _, s := range r.sockets {
		if s == nil {
			continue
		}
		receivers.Go(func() { ended <- s.receive(func(e echoEvent) { r.offer(e, over) }) })
	}
	err := r.follow(ctx, timeout, ended)
	close(over)
	for _, s := range r.sockets {
		if s != nil {
			_ = s.file.SetReadDeadline(time.Unix(1, 0))
		}
	}
	receivers.Wait()
	return err
}

// offer passes an event on if it is ours. It runs in the goroutines that receive.
func (r *round) offer(e echoEvent, over <-chan struct{}) {
	if _, ours := r.byToken[e.token]; !ours {
		return
	}
	select {
	case r.events <- e:
	case <-over:
	}
}

// follow is the round itself: send at each tick, note what happens, stop when all is known. The first tick is waited for
// too: where nobody else has packets stamped, the kernel begins with that a little after the sockets ask for it.
func (r *round) follow(ctx context.Context, timeout time.Duration, ended <-chan error) error {
	tick := time.NewTicker(max(1, min(echoPace, timeout/time.Duration(2*len(r.asked)))))
	defer tick.Stop()
	next, open := 0, len(r.asked)
	for open > 0 {
		ticks := tick.C
		if next == len(r.asked) {
			ticks = nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errEchoTimeout) {
				return nil
			}
			return ctx.Err()
		case err := <-ended:
			return err
		case <-ticks:
			r.send(next)
			next++
		case e := <-r.events:
			if r.note(e) {
				open--
			}
		}
	}
	return nil
}

// send sends the request number i. One that cannot be sent is one that is not answered.
func (r *round) send(i int) {
	a := &r.asked[i]
	if s := r.sockets[a.addr.Is6()]; s != nil {
		a.sent = time.Now()
		_ = s.send(a.addr, r.id, uint16(i), a.token)
	}
}

// note writes down what an event says and returns whether it is the first answer of its address.
func (r *round) note(e echoEvent) bool {
	a := &r.asked[r.byToken[e.token]]
	switch {
	case e.left:
		a.left = e.stamp
	case !a.answered && !a.sent.IsZero():
		a.answered, a.answer = true, e
		return true
	}
	return false
}

func (r *round) times() map[netip.Addr]time.Duration {
	times := make(map[netip.Addr]time.Duration, len(r.asked))
	for _, a := range r.asked {
		if a.answered {
			times[a.addr] = roundTrip(a.sent, a.left, a.answer.stamp, a.answer.at)
		}
	}
	return times
}

// roundTrip is the time between the kernel's stamps or, for one that is missing, our own. What we saw ourselves, on a clock
// that nobody sets, is never less: a difference outside of it comes from a wall clock that was set meanwhile.
func roundTrip(sent, left, stamp, at time.Time) time.Duration {
	most := at.Sub(sent)
	begin, end := left, stamp
	if begin.IsZero() {
		begin = sent
	}
	if end.IsZero() {
		end = at
	}
	// Round drops the monotonic reading, which the kernel's stamps do not have.
	if d := end.Round(0).Sub(begin.Round(0)); d > 0 && d <= most {
		return d
	}
	return most
}
