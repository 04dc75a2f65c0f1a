// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// hammerOrder says who ends a connection of the hammer first.
type hammerOrder uint8

const (
	clientEndsFirst hammerOrder = iota // the peer writes after it has read the end
	peerEndsFirst                      // the client writes after it has read the end
	bothEnd                            // at the same time
	clientCloses                       // when it has read all; there was no end before
	hammerOrders
)

// hammerPlan is the head of each connection of the hammer: what the client is about to send after it, what the peer shall
// send, and in which order they end.
type hammerPlan struct {
	up, down uint32
	order    hammerOrder
}

const hammerPlanSize = 9

func (p hammerPlan) encode() []byte {
	b := binary.NativeEndian.AppendUint32(nil, p.up)
	b = binary.NativeEndian.AppendUint32(b, p.down)
	return append(b, byte(p.order))
}

func decodeHammerPlan(b []byte) hammerPlan {
	return hammerPlan{up: binary.NativeEndian.Uint32(b), down: binary.NativeEndian.Uint32(b[4:]), order: hammerOrder(b[8])}
}

// hammerThreads is more than the host has CPUs: connections are to be in many states at a time.
const hammerThreads = 6

// hammer makes connections for some time and returns how many.
func hammer(how time.Duration, seed uint64, addrs string) (int, error) {
	var dst []netip.AddrPort
	for addr := range strings.SplitSeq(addrs, ",") {
		dst = append(dst, netip.MustParseAddrPort(addr))
	}
	end := time.Now().Add(how)
	var made atomic.Int64
	errs := make([]error, hammerThreads)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			for time.Now().Before(end) && errs[i] == nil {
				errs[i] = hammerOnce(rng, dst[rng.IntN(len(dst))])
				made.Add(1)
			}
		})
	}
	wg.Wait()
	return int(made.Load()), errors.Join(errs...)
}

func hammerOnce(rng *rand.Rand, dst netip.AddrPort) error {
	fd, err := openTraffic(dst, "plain")
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	plan := hammerPlan{up: hammerSize(rng), down: hammerSize(rng), order: hammerOrder(rng.IntN(int(hammerOrders)))}
	payload := make([]byte, plan.up)
	if plan.order != peerEndsFirst {
		if _, err := sendTraffic(fd, append(plan.encode(), payload...), "write"); err != nil {
			return err
		}
	}
	switch plan.order {
	case clientEndsFirst, bothEnd:
		if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
			return err
		}
		_, err = readToEOF(fd)
	case peerEndsFirst:
		if _, err := sendTraffic(fd, plan.encode(), "write"); err != nil {
			return err
		}
		if _, err := readToEOF(fd); err != nil {
			return err
		}
		_, err = sendTraffic(fd, payload, "write")
	case clientCloses:
		_, err = receiveTraffic(fd, make([]byte, plan.down), "read")
	}
	return err
}

// hammerSize is often nothing, mostly little, seldom more than a segment.
func hammerSize(rng *rand.Rand) uint32 {
	switch n := rng.IntN(20); {
	case n < 4:
		return 0
	case n < 19:
		return rng.Uint32N(2000)
	default:
		return rng.Uint32N(200_000)
	}
}
