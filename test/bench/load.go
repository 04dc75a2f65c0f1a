// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serverTruth is what a server has done so far.
type serverTruth struct {
	Accepted, Ended, Sent, Received int64
	CPU                             time.Duration
}

type server struct{ accepted, ended, sent, received atomic.Int64 }

// serve echoes, as an ordinary Go program does. It says once that it listens, and for each line that it reads what it has
// done.
func serve(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("serve: want one address")
	}
	lc := net.ListenConfig{KeepAlive: -1}
	l, err := lc.Listen(context.Background(), "tcp4", args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	s := &server{}
	go s.accept(l)
	if err := json.NewEncoder(out).Encode(serverTruth{}); err != nil {
		return err
	}
	for sc := bufio.NewScanner(in); sc.Scan(); {
		cpu, err := cpuOf(os.Getpid())
		if err != nil {
			return err
		}
		truth := serverTruth{
			Accepted: s.accepted.Load(), Ended: s.ended.Load(), Sent: s.sent.Load(), Received: s.received.Load(), CPU: cpu,
		}
		if err := json.NewEncoder(out).Encode(truth); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.accepted.Add(1)
		go s.echo(c)
	}
}

func (s *server) echo(c net.Conn) {
	defer s.ended.Add(1)
	defer c.Close()
	buf := make([]byte, 512)
	for {
		n, err := c.Read(buf)
		s.received.Add(int64(n))
		if err != nil {
			return
		}
		n, err = c.Write(buf[:n])
		s.sent.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// load is what a client is to do.
type load struct {
	n, workers, payload int
	rate                float64 // connects a second over all workers, 0 for as fast as they can
	refusedEvery        int     // each so many goes to a port where nobody listens
	reset               bool    // close with a reset
	addr, closed        string
}

func (l load) words() []string {
	return []string{
		"connect", "-n", fmt.Sprint(l.n), "-workers", fmt.Sprint(l.workers), "-payload", fmt.Sprint(l.payload),
		"-rate", fmt.Sprint(l.rate), "-refused-every", fmt.Sprint(l.refusedEvery), fmt.Sprintf("-reset=%v", l.reset), l.addr, l.closed,
	}
}

// loadTruth is what a client has done.
type loadTruth struct {
	Connected, Refused, Sent, Received int64
	Took, CPU                          time.Duration
}

// connect makes exactly n connections: each is established, sends the payload, reads it back and closes first, or is
// refused. Anything else is an error, for then nobody could say what there is to count.
func connect(args []string, out io.Writer) error {
	var l load
	fs := flag.NewFlagSet("connect", flag.ContinueOnError)
	fs.IntVar(&l.n, "n", 1, "connects")
	fs.IntVar(&l.workers, "workers", 4, "connects under way at the same time")
	fs.IntVar(&l.payload, "payload", 128, "bytes each way")
	fs.Float64Var(&l.rate, "rate", 0, "connects a second, 0 for as many as possible")
	fs.IntVar(&l.refusedEvery, "refused-every", 0, "each so many connects goes to the closed address, 0 for none")
	fs.BoolVar(&l.reset, "reset", false, "close with a reset")
	if err := fs.Parse(args); err != nil {
		return err
	}
	l.addr, l.closed = fs.Arg(0), fs.Arg(1)

	before, err := cpuOf(os.Getpid())
	if err != nil {
		return err
	}
	truth, err := l.run()
	if err != nil {
		return err
	}
	after, err := cpuOf(os.Getpid())
	if err != nil {
		return err
	}
	truth.CPU = after - before
	return json.NewEncoder(out).Encode(truth)
}

func (l load) run() (loadTruth, error) {
	began := time.Now()
	var next atomic.Int64
	truths, errs := make([]loadTruth, l.workers), make([]error, l.workers)
	var wg sync.WaitGroup
	for w := range l.workers {
		wg.Go(func() {
			buf := make([]byte, l.payload)
			for i := int(next.Add(1)) - 1; i < l.n && errs[w] == nil; i = int(next.Add(1)) - 1 {
				if l.rate > 0 {
					time.Sleep(time.Until(began.Add(time.Duration(float64(i) / l.rate * float64(time.Second)))))
				}
				errs[w] = truths[w].add(l.one(i, buf))
			}
		})
	}
	wg.Wait()
	sum := loadTruth{Took: time.Since(began)}
	for _, t := range truths {
		sum.Connected, sum.Refused = sum.Connected+t.Connected, sum.Refused+t.Refused
		sum.Sent, sum.Received = sum.Sent+t.Sent, sum.Received+t.Received
	}
	return sum, errors.Join(errs...)
}

func (t *loadTruth) add(sent, received int, err error) error {
	t.Sent, t.Received = t.Sent+int64(sent), t.Received+int64(received)
	switch {
	case err == nil:
		t.Connected++
	case errors.Is(err, unix.ECONNREFUSED):
		t.Refused++
	default:
		return err
	}
	return nil
}

// one takes turns with eight source addresses: closed connections keep their ports for a minute.
func (l load) one(i int, buf []byte) (sent, received int, err error) {
	addr := l.addr
	if l.refusedEvery > 0 && i%l.refusedEvery == 0 {
		addr = l.closed
	}
	d := net.Dialer{
		Timeout:   10 * time.Second,
		KeepAlive: -1,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 77, 1, byte(1+i%8))},
		Control: func(_, _ string, c syscall.RawConn) error {
			// The port is to be chosen when the whole tuple is known.
			return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) })
		},
	}
	c, err := d.Dial("tcp4", addr)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	if sent, err = c.Write(buf); err != nil {
		return sent, 0, err
	}
	received, err = io.ReadFull(c, buf)
	if l.reset && err == nil {
		err = c.(*net.TCPConn).SetLinger(0)
	}
	return sent, received, err
}
