// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"
	"golang.org/x/sys/unix"
)

// Reader reads the Stats of a host. Its methods may be called by any number of goroutines.
//
// All but addresses and disk health comes from files that anybody may read. What is of a network namespace is read through
// /proc/1/net, which is the host's as long as PID 1 is, and which asks for no privilege; where that cannot be read it is
// our own. IP addresses come over netlink: CAP_SYS_PTRACE and CAP_SYS_ADMIN, unless our namespace is the host's.
//
// Disk health needs CAP_SYS_ADMIN for NVMe and CAP_SYS_RAWIO for ATA, and the device nodes; in a container, also leave
// to use them. Disks are asked every five minutes at most and nobody waits for them. A disk that sleeps is left
// asleep, and what it said before is given again, without its temperature.
type Reader struct {
	root       string
	interfaces []*regexp.Regexp
	userHZ     float64
	proc       procfs.FS
	disks      blockdevice.FS
	hostNet    namespace
	route      netlinkSocket
	diag       netlinkSocket
	health     *healthMonitor
	parts      []part
	closing    context.Context // ends all readings
	cancel     func()

	turn  chan struct{} // holds a token while somebody reads: the owner of what follows
	cpu   CPU
	times map[string]*diskTimes
	walk  portWalk
	names []string // of the interfaces in the Stats, as the kernel has them

	mu     sync.Mutex // owner of what follows
	status []PartStatus
}

// part reads what belongs together into Stats. What it has written by the time of an error is right.
type part struct {
	name Part
	read func(ctx context.Context, st *Stats) error
}

// openWait is how long Open waits for what it reads.
const openWait = time.Second

var errNotYet = errors.New("has not answered yet")

// Open finds out what can be read, which Status then tells, and reads it for a first time; that goes on by itself when it takes
// longer than a second. It fails if there is no host at Root at all: no folder proc.
func Open(o Options) (*Reader, error) {
	procDir, sysDir := filepath.Join(o.Root, "proc"), filepath.Join(o.Root, "sys")
	proc, err := procfs.NewFS(procDir)
	if err != nil {
		return nil, fmt.Errorf("host at %q: %w", o.Root, err)
	}
	r := &Reader{
		root:       o.Root,
		interfaces: slices.Clone(o.Interfaces),
		userHZ:     userHZ(),
		proc:       proc,
		turn:       make(chan struct{}, 1),
		times:      map[string]*diskTimes{},
	}
	r.closing, r.cancel = context.WithCancel(context.Background())
	r.add(PartUptime, r.readUptime)
	if o.CPU {
		r.add(PartCPU, r.readCPU)
	}
	if o.Memory {
		r.add(PartMemory, r.readMemory)
	}
	if o.Disks {
		if r.disks, err = blockdevice.NewFS(procDir, sysDir); err != nil {
			r.add(PartDisks, func(context.Context, *Stats) error { return fmt.Errorf("disks are not told from partitions: %w", err) })
		} else {
			r.add(PartDisks, r.readDisks)
		}
		r.add(PartArrays, r.readArrays)
	}
	if o.DiskHealth {
		r.health = newHealthMonitor(o.Root)
		r.add(PartDiskHealth, r.readHealth)
	}
	if o.Network {
		r.hostNet = findNamespace(procDir, "/proc")
		r.route = netlinkSocket{ns: &r.hostNet, protocol: unix.NETLINK_ROUTE}
		r.diag = netlinkSocket{ns: &r.hostNet, protocol: unix.NETLINK_SOCK_DIAG}
		r.add(PartInterfaces, r.readInterfaces)
		r.add(PartAddresses, r.readAddresses)
		r.add(PartProtocols, r.readProtocols)
		r.add(PartListening, r.readListening)
		r.add(PartConntrack, r.readConntrack)
	}
	if o.Pressure {
		r.add(PartPressure, r.readPressure)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Read(r.closing)
	}()
	select {
	case <-done:
	case <-time.After(openWait):
	}
	return r, nil
}

func (r *Reader) add(name Part, read func(context.Context, *Stats) error) {
	r.parts = append(r.parts, part{name, read})
	r.status = append(r.status, PartStatus{Part: name, Err: errNotYet})
}

// Read reads all that is switched on. When ctx ends, what was not read by then is absent, and so it is when it cannot be
// read: Status knows why.
func (r *Reader) Read(ctx context.Context) Stats {
	var st Stats
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.closing, cancel)()
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return st
	}
	for i := range r.parts {
		err := ctx.Err()
		if err == nil {
			err = r.parts[i].guarded(ctx, &st)
		}
		r.note(i, err)
	}
	return st
}

// guarded reads the part. The library takes for granted that a line has as many fields as it should; where one has not,
// that is an error as any other.
func (p *part) guarded(ctx context.Context, st *Stats) (err error) {
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("read %s: malformed: %v", p.name, what)
		}
	}()
	return p.read(ctx, st)
}

func (r *Reader) note(i int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status[i].Err = err
	if !isAnswer(err) {
		r.status[i].Errors++
	}
}

// troubles are several reasons why parts of a part are missing.
type troubles []error

func (t troubles) Error() string {
	texts := make([]string, len(t))
	for i, err := range t {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (t troubles) Unwrap() []error { return t }

// join leaves out what is nil.
func join(errs ...error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return troubles(errs)
}

// repeatedError has been counted before.
type repeatedError struct{ error }

func (e repeatedError) Unwrap() error { return e.error }

// isAnswer reports whether err says no more than that something is not there, or not for us.
func isAnswer(err error) bool {
	switch e := err.(type) { //nolint:errorlint // the outermost one only
	case nil, repeatedError:
		return true
	case troubles:
		return !slices.ContainsFunc(e, func(err error) bool { return !isAnswer(err) })
	}
	return errors.Is(err, ErrNotHost) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) ||
		errors.Is(err, unix.EOPNOTSUPP)
}

// Status tells how the last Read went.
func (r *Reader) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Status{Parts: slices.Clone(r.status)}
}

// Close lets go of what is open; what is read from then on is empty. A disk or a file that does not answer is waited for no
// longer than a second each: what a reading uses that has not ended by then is closed when it ends.
func (r *Reader) Close() error {
	r.cancel()
	if r.health != nil {
		r.health.close()
	}
	select {
	case r.turn <- struct{}{}:
		return r.release()
	case <-time.After(closeWait):
	}
	go func() {
		r.turn <- struct{}{}
		_ = r.release()
	}()
	return nil
}

// release closes what is open, and gives the turn away.
func (r *Reader) release() error {
	defer func() { <-r.turn }()
	r.parts = nil
	return join(r.route.close(), r.diag.close(), r.hostNet.close())
}
