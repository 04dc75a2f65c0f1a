// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxDump is the most that the kernel puts into one datagram of a dump: it gives as much as the reader has room for, up to
// this (32 KiB less overhead since Linux 4.6, 16 KiB before).
const maxDump = 32 << 10

var errTruncated = errors.New("truncated")

// netlink is a socket to the kernel with one request under way. Its deadline and its end are those of a context.
type netlink struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte
	seq  uint32
	ctx  context.Context
	stop func() bool
}

// dial makes a netlink socket of the namespace. Whoever calls it closes it before ctx is of no more use.
func (n *Namespace) dial(ctx context.Context, proto, room int) (*netlink, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := n.socket(unix.AF_NETLINK, unix.SOCK_RAW, proto)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) })
	return &netlink{file: f, raw: raw, buf: make([]byte, room), ctx: ctx, stop: stop}, nil
}

func (c *netlink) close() {
	c.stop()
	c.file.Close()
}

// request sends one message and gives the answers to each until the last of them. An error that the kernel answers with is
// a syscall.Errno.
func (c *netlink) request(typ, flags uint16, body []byte, each func(body []byte) error) error {
	c.seq++
	msg := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	ne := binary.NativeEndian
	ne.PutUint32(msg[0:], uint32(unix.SizeofNlMsghdr+len(body)))
	ne.PutUint16(msg[4:], typ)
	ne.PutUint16(msg[6:], flags|unix.NLM_F_REQUEST)
	ne.PutUint32(msg[8:], c.seq)
	if err := c.send(append(msg, body...)); err != nil {
		return err
	}
	for more := true; more; {
		b, err := c.receive()
		if err != nil {
			return err
		}
		if more, err = eachAnswer(b, c.seq, each); err != nil {
			return err
		}
	}
	return nil
}

func (c *netlink) send(msg []byte) error {
	return control(c.file, func(fd int) error {
		return os.NewSyscallError("sendto", unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	})
}

// receive waits for the next datagram of the kernel. It is good until the next call.
func (c *netlink) receive() ([]byte, error) {
	for {
		var n, flags int
		var from unix.Sockaddr
		var err error
		waitErr := c.raw.Read(func(fd uintptr) bool {
			n, _, flags, from, err = unix.Recvmsg(int(fd), c.buf, nil, 0)
			return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
		})
		switch {
		case c.ctx.Err() != nil:
			return nil, c.ctx.Err()
		case waitErr != nil:
			return nil, waitErr
		case err != nil:
			return nil, os.NewSyscallError("recvmsg", err)
		case flags&unix.MSG_TRUNC != 0:
			return nil, fmt.Errorf("netlink datagram: %w", errTruncated)
		}
		// Processes can send to a netlink socket too.
		if kernel, ok := from.(*unix.SockaddrNetlink); ok && kernel.Pid == 0 {
			return c.buf[:n], nil
		}
	}
}

// eachAnswer gives the bodies of the messages of a datagram that belong to the request to fn, and tells whether more
// datagrams will come.
func eachAnswer(b []byte, seq uint32, fn func(body []byte) error) (more bool, err error) {
	ne := binary.NativeEndian
	more = true
	for len(b) > 0 {
		if len(b) < unix.SizeofNlMsghdr {
			return false, fmt.Errorf("netlink message of %d bytes: %w", len(b), errTruncated)
		}
		size := int64(ne.Uint32(b[0:]))
		if size < unix.SizeofNlMsghdr || size > int64(len(b)) {
			return false, fmt.Errorf("netlink message of %d bytes says it has %d: %w", len(b), size, errTruncated)
		}
		typ, flags, body := ne.Uint16(b[4:]), ne.Uint16(b[6:]), b[unix.SizeofNlMsghdr:size]
		ours := ne.Uint32(b[8:]) == seq
		b = b[min(align4(int(size)), len(b)):]
		switch {
		case !ours || typ == unix.NLMSG_NOOP:
		case typ == unix.NLMSG_ERROR || typ == unix.NLMSG_DONE:
			return false, answerError(typ, body)
		default:
			if err := fn(body); err != nil {
				return false, err
			}
			more = flags&unix.NLM_F_MULTI != 0
		}
	}
	return more, nil
}

// answerError reads the number that NLMSG_ERROR and, since Linux 4.15, NLMSG_DONE begin with: 0, or an error made negative.
func answerError(typ uint16, body []byte) error {
	if len(body) < 4 {
		if typ == unix.NLMSG_DONE {
			return nil
		}
		return fmt.Errorf("netlink error of %d bytes: %w", len(body), errTruncated)
	}
	switch code := int32(binary.NativeEndian.Uint32(body)); {
	case code < 0 && code > -4096: // MAX_ERRNO of the kernel
		return syscall.Errno(-code)
	case code != 0 && typ == unix.NLMSG_ERROR:
		return fmt.Errorf("netlink error %d", code)
	}
	return nil
}

// nextAttr cuts one attribute off b. It returns false at the end of b and where b makes no sense.
func nextAttr(b []byte) (typ uint16, value, rest []byte, ok bool) {
	if len(b) < unix.SizeofRtAttr {
		return 0, nil, nil, false
	}
	size := int(binary.NativeEndian.Uint16(b[0:]))
	if size < unix.SizeofRtAttr || size > len(b) {
		return 0, nil, nil, false
	}
	typ = binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	return typ, b[unix.SizeofRtAttr:size], b[min(align4(size), len(b)):], true
}

// appendAttr adds an attribute whose length is a multiple of 4.
func appendAttr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return append(b, value...)
}

func align4(n int) int { return (n + 3) &^ 3 }
