// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	defaultReceiveBuffer = 4 << 20
	defaultPause         = 50 * time.Millisecond
	hearingTime          = 2 * time.Second
)

// Options of a Listener.
type Options struct {
	ProcRoot string // where the host's /proc is; default /proc
	SysRoot  string // where /sys is; default /sys

	// ReceiveBuffer is how many bytes of records may wait to be received; default 4 MiB. A record takes 0.6 KiB of it, with
	// that of a thread group 1.2 KiB (measured on Linux 6.18).
	ReceiveBuffer int
	// Pause is how long Receive lets records gather after it has received all that were there, so that one waking serves
	// many; default 50 ms, none if negative.
	Pause time.Duration
	// NetNS is a descriptor of the host's network namespace; 0: this process lives in it. Taskstats sends records nowhere else.
	NetNS int
	// OnLost is called by Receive, between records, when the kernel threw records away because the receive buffer was
	// full, with how many. What was counted of those tasks is lost; that they ended shows by asking for them.
	OnLost func(records uint64)
}

// Listener receives what the kernel tells of each task that ends on this host, on whatever CPU.
type Listener struct {
	conn     *conn
	end      int // eventfd, readable from Close on
	pause    time.Duration
	onLost   func(uint64)
	counting *counting
	cpus     []byte
	buffer   int

	closed   atomic.Bool
	closing  sync.Once
	closeErr error

	lost, overflows, malformed atomic.Uint64

	receiving sync.Mutex // held by Receive, to which the rest belongs
	batch     *batch
	drops     uint32
	congested bool
	exit      Exit
}

// Listen begins to receive. The errors are ErrNotPermitted and ErrNotSupported, with what to do about them.
//
// It registers for all CPUs that the host can ever have, so that those switched on later are heard as well. That the
// kernel accepts this does not mean that it sends anything (see NetNS): Listen ends a thread and waits to be told of it.
func Listen(o Options) (*Listener, error) {
	cpus, err := os.ReadFile(filepath.Join(orDefault(o.SysRoot, "/sys"), "devices/system/cpu/possible"))
	if err != nil {
		return nil, fmt.Errorf("list the host's CPUs: %w", err)
	}
	end, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	c, err := dial(o.NetNS)
	if err != nil {
		return nil, errors.Join(err, unix.Close(end))
	}
	l := &Listener{
		conn:     c,
		end:      end,
		pause:    o.Pause,
		onLost:   o.OnLost,
		counting: &counting{procRoot: orDefault(o.ProcRoot, "/proc")},
		cpus:     append(bytes.TrimSpace(cpus), 0),
		batch:    newBatch(),
	}
	if l.pause == 0 {
		l.pause = defaultPause
	}
	if o.ReceiveBuffer == 0 {
		o.ReceiveBuffer = defaultReceiveBuffer
	}
	l.buffer, err = c.setReceiveBuffer(o.ReceiveBuffer)
	if err == nil {
		err = l.register()
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (l *Listener) register() error {
	err := l.conn.send(attrRegister, l.cpus, flagAck)
	if err == nil {
		_, err = l.conn.answer()
	}
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("listen to taskstats: %w: %w (it serves only processes of the host's own user and process namespaces: hostPID in Kubernetes, --pid=host --userns=host in Docker)", ErrNotSupported, err)
	}
	if err != nil {
		return fmt.Errorf("listen to taskstats: %w", err)
	}
	heard, err := l.hearOwnThread()
	if err != nil {
		return fmt.Errorf("listen to taskstats: %w", err)
	}
	if !heard {
		return fmt.Errorf("listen to taskstats: %w: it sends nothing here (only to sockets of the host's own network namespace: hostNetwork in Kubernetes, --network=host in Docker)", ErrNotSupported)
	}
	return nil
}

// hearOwnThread ends a thread and tells whether the kernel told of it. The first goroutine may hold the main thread of
// the process, which does not end before the process does; the second holds another.
func (l *Listener) hearOwnThread() (heard bool, err error) {
	id := uint32(os.Getpid())
	for range 2 {
		if id == uint32(os.Getpid()) {
			ended := make(chan uint32)
			go func() {
				runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
				ended <- uint32(unix.Gettid())
			}()
			id = <-ended
		}
	}
	for until := time.Now().Add(hearingTime); !heard && time.Now().Before(until); {
		if err := l.wait(time.Until(until), l.conn.fd); err != nil {
			return false, err
		}
		n, err := l.batch.receive(l.conn.fd)
		if err != nil && !isTransient(err) {
			return false, err
		}
		l.give(n, func(e *Exit) { heard = heard || e.PID == id && !e.Group })
	}
	return heard, nil
}

// isTransient tells errors of receiving after which there is something to receive, or will be.
func isTransient(err error) bool {
	return errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
}

// Receive gives fn each task that ends from Listen on, in the order in which the kernel sent them, until Close; then it
// returns nil. What fn gets is its own only until it returns. Only one Receive runs at a time.
func (l *Listener) Receive(fn func(*Exit)) error {
	l.receiving.Lock()
	defer l.receiving.Unlock()
	for !l.closed.Load() {
		n, err := l.batch.receive(l.conn.fd)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			l.overflows.Add(1)
			l.congested = true
			l.noteLost()
			continue
		case err != nil && !isTransient(err):
			return fmt.Errorf("receive from taskstats: %w", err)
		}
		l.give(n, fn)
		if n == batchSize {
			continue
		}
		// The kernel throws records away from the moment at which there is no room until all that waited are received.
		if l.congested {
			l.congested = false
			l.noteLost()
		}
		if n > 0 && l.pause > 0 {
			err = l.wait(l.pause) // for more to gather
		} else {
			err = l.wait(-1, l.conn.fd)
		}
		if err != nil {
			return fmt.Errorf("wait for taskstats: %w", err)
		}
	}
	return nil
}

// wait waits until there is something to receive from the sockets, until Close or for so long, forever if negative.
func (l *Listener) wait(atMost time.Duration, sockets ...int) error {
	fds := [2]unix.PollFd{{Fd: int32(l.end), Events: unix.POLLIN}}
	n := 1
	for _, s := range sockets {
		fds[n] = unix.PollFd{Fd: int32(s), Events: unix.POLLIN}
		n++
	}
	ms := -1
	if atMost >= 0 {
		ms = int(min((atMost+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
	}
	if _, err := unix.Poll(fds[:n], ms); err != nil && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("poll", err)
	}
	return nil
}

// give decodes the datagrams received last.
func (l *Listener) give(n int, fn func(*Exit)) {
	counted := l.counting.on()
	for i := range n {
		data, fromKernel, whole := l.batch.datagram(i)
		if !fromKernel {
			continue
		}
		if !whole || l.giveRecords(data, counted, fn) != nil {
			l.malformed.Add(1)
		}
	}
}

func (l *Listener) giveRecords(data []byte, counted bool, fn func(*Exit)) error {
	for len(data) > 0 {
		m, rest, err := nextMessage(data)
		if err != nil {
			return err
		}
		data = rest
		if m.typ != l.conn.family {
			continue
		}
		if err := eachRecord(m.body, counted, &l.exit, fn); err != nil {
			return err
		}
	}
	return nil
}

// noteLost counts what the kernel threw away since it was called last.
func (l *Listener) noteLost() {
	drops, err := l.conn.dropped()
	if err != nil {
		drops = l.drops + 1 // the kernel does not tell how many: at least one
	}
	n := uint64(drops - l.drops)
	l.drops = drops
	if n == 0 {
		return
	}
	l.lost.Add(n)
	if l.onLost != nil {
		l.onLost(n)
	}
}

// Lost returns how many records the kernel threw away because they were not received in time. Before Linux 4.12 it is
// how many times that happened.
func (l *Listener) Lost() uint64 { return l.lost.Load() }

// Overflows returns how many times the receive buffer was full.
func (l *Listener) Overflows() uint64 { return l.overflows.Load() }

// Malformed returns how many messages made no sense.
func (l *Listener) Malformed() uint64 { return l.malformed.Load() }

// ReceiveBuffer returns how many bytes of receive buffer the kernel gave.
func (l *Listener) ReceiveBuffer() int { return l.buffer }

// Close tells the kernel to send no more, makes Receive return and waits until it has: fn, which must not call it, is not
// called any more.
func (l *Listener) Close() error {
	l.closing.Do(func() {
		l.closed.Store(true)
		// Without this the kernel would find out only at the next task that ends on each CPU. A socket that was never
		// registered may do it too.
		err := l.conn.send(attrDeregister, l.cpus, 0)
		_, endErr := unix.Write(l.end, []byte{1, 1, 1, 1, 1, 1, 1, 1})
		l.receiving.Lock()
		defer l.receiving.Unlock()
		l.closeErr = errors.Join(err, os.NewSyscallError("write", endErr), l.conn.close(), unix.Close(l.end))
	})
	return l.closeErr
}

// counting knows whether accounting is on, as of the last second.
type counting struct {
	procRoot string
	asked    time.Time
	state    bool
}

func (c *counting) on() bool {
	if now := time.Now(); now.Sub(c.asked) > time.Second {
		c.asked = now
		b, err := os.ReadFile(filepath.Join(c.procRoot, switchFile))
		// Without a switch the kernel always counts, or does not even count how often a task got a CPU.
		c.state = errors.Is(err, fs.ErrNotExist) || strings.TrimSpace(string(b)) == "1"
	}
	return c.state
}
