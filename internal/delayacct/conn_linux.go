// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// conn is a socket to taskstats, in no poller: Go's would be woken by each record that comes, even while nobody waits for one.
type conn struct {
	fd     int // -1 when closed
	family uint16
	seq    uint32
	out    []byte
	in     []byte
}

// maxMessage has room for two records of four times the size that they have grown to in twenty years.
const maxMessage = 4 << 10

// dial makes a conn in a network namespace, in that of this process if netns is 0. The library makes the socket and finds
// the family. It does no more, because it allocates for each message, and takes any message between a request and its
// answer, such as the record of a task that ends, for an error.
func dial(netns int) (*conn, error) {
	g, err := genetlink.Dial(&netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("generic netlink socket: %w", explain(err))
	}
	defer func() { _ = g.Close() }()
	family, err := g.GetFamily(familyName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("taskstats: %w: the kernel is built without CONFIG_TASKSTATS, or this is not the host's network namespace", ErrNotSupported)
	}
	if err != nil {
		return nil, fmt.Errorf("find taskstats: %w", explain(err))
	}
	fd, err := duplicate(g)
	if err != nil {
		return nil, fmt.Errorf("generic netlink socket: %w", err)
	}
	return &conn{fd: fd, family: family.ID, seq: 1 << 31, in: make([]byte, maxMessage)}, nil
}

// duplicate gives another descriptor of the library's socket. Closing the library's takes the socket out of the poller.
func duplicate(g *genetlink.Conn) (fd int, err error) {
	raw, err := g.SyscallConn()
	if err != nil {
		return -1, err
	}
	if cerr := raw.Control(func(of uintptr) {
		fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0)
	}); cerr != nil {
		return -1, cerr
	}
	return fd, os.NewSyscallError("fcntl", err)
}

func (c *conn) close() error {
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// send asks taskstats for something. What there is to answer has been put into the socket's queue when it returns.
func (c *conn) send(attr uint16, value []byte, flags uint16) error {
	c.seq++
	ne := binary.NativeEndian
	size := nlHeaderLen + genlHeaderLen + nlaHeaderLen + align4(len(value))
	b := ne.AppendUint32(c.out[:0], uint32(size))
	b = ne.AppendUint16(b, c.family)
	b = ne.AppendUint16(b, flags|flagReq)
	b = ne.AppendUint32(b, c.seq)
	b = ne.AppendUint32(b, 0) // the kernel knows whose socket it is
	b = append(b, cmdGet, familyVersion, 0, 0)
	b = ne.AppendUint16(b, uint16(nlaHeaderLen+len(value)))
	b = ne.AppendUint16(b, attr)
	b = append(b, value...)
	for len(b) < size {
		b = append(b, 0)
	}
	c.out = b
	_, err := unix.Write(c.fd, b) // to the kernel, as the socket is not connected
	return os.NewSyscallError("write", err)
}

// answer takes messages from the queue up to the answer to the last request. An error that the kernel answers with is a
// syscall.Errno, explained.
func (c *conn) answer() (message, error) {
	for {
		n, err := c.receiveNow()
		switch {
		case errors.Is(err, unix.ENOBUFS): // others were too many, of which a Listener keeps count
			continue
		case err != nil:
			return message{}, err
		}
		for b := c.in[:n]; len(b) > 0; {
			m, rest, err := nextMessage(b)
			if err != nil {
				return m, err
			}
			b = rest
			switch {
			case m.seq != c.seq || m.typ != c.family && m.typ != nlmsgError: // the record of a task that ended
			case m.typ == nlmsgError && len(m.body) < 4:
				return m, fmt.Errorf("answer of %d bytes: %w", len(m.body), errMalformed)
			case m.typ == nlmsgError && u32(m.body) != 0:
				return m, explain(syscall.Errno(-int32(u32(m.body))))
			default:
				return m, nil
			}
		}
	}
}

// receiveNow takes a datagram that is there. Only the kernel can have sent it: others need CAP_NET_ADMIN to send to a
// socket of generic netlink.
func (c *conn) receiveNow() (n int, err error) {
	n, err = unix.Read(c.fd, c.in)
	return n, os.NewSyscallError("read", err)
}

// explain says what to do about an error of the kernel.
func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w (needs CAP_NET_ADMIN in the host's user namespace)", ErrNotPermitted, err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: %w (the kernel has no generic netlink)", ErrNotSupported, err)
	default:
		return err
	}
}

// dropped is how many messages the kernel threw away because the queue of the socket was full; since Linux 4.12.
func (c *conn) dropped() (uint32, error) {
	var info [9]uint32 // SK_MEMINFO_*, the last of which is SK_MEMINFO_DROPS
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(c.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, os.NewSyscallError("getsockopt", errno)
	}
	return info[8], nil
}

// setReceiveBuffer asks for n bytes beyond the host's limit, which takes CAP_NET_ADMIN, and else for as many as it allows.
func (c *conn) setReceiveBuffer(n int) (got int, err error) {
	if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, n) != nil {
		err = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, n)
	}
	if err == nil {
		got, err = unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	}
	if err != nil {
		return 0, fmt.Errorf("receive buffer of %d bytes: %w", n, err)
	}
	return got / 2, nil // the kernel keeps twice of what it is asked for
}
