// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	icmpEcho       = 8 // of RFC 792
	icmpEchoReply  = 0
	icmp6Echo      = 128 // of RFC 4443
	icmp6EchoReply = 129

	icmpHeader = 8
	maxPacket  = 1500

	icmpFilter = 1 // ICMP_FILTER of include/uapi/linux/icmp.h, at level unix.SOL_RAW
)

// token is what an echo request carries, and its reply brings back. It names the request to us and to nobody else.
type token [16]byte

// echoSocket sends echo requests of one family and receives the replies.
type echoSocket struct {
	file *os.File
	raw  syscall.RawConn
	v6   bool
	ping bool // of type SOCK_DGRAM: the kernel chooses the identifier and filters the replies
}

// echoSocket makes a raw socket or, where that is refused, one of those that the sysctl net.ipv4.ping_group_range allows.
func (n *Namespace) echoSocket(v6 bool) (*echoSocket, error) {
	s, err := n.echoSocketOf(v6, false)
	if errors.Is(err, fs.ErrPermission) {
		if ping, pingErr := n.echoSocketOf(v6, true); pingErr == nil {
			return ping, nil
		}
	}
	return s, err
}

func (n *Namespace) echoSocketOf(v6, ping bool) (*echoSocket, error) {
	domain, proto, typ := unix.AF_INET, unix.IPPROTO_ICMP, unix.SOCK_RAW
	if v6 {
		domain, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	if ping {
		typ = unix.SOCK_DGRAM
	}
	f, err := n.socket(domain, typ, proto)
	if err != nil {
		return nil, err
	}
	s := &echoSocket{file: f, v6: v6, ping: ping}
	if err = control(f, s.setOptions); err == nil {
		s.raw, err = f.SyscallConn()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

// setOptions has the kernel stamp what leaves and what arrives, and leave out what is no echo reply. A packet that has left
// comes back whole on the error queue, so that its token tells which it was.
func (s *echoSocket) setOptions(fd int) error {
	const stamps = unix.SOF_TIMESTAMPING_TX_SOFTWARE | unix.SOF_TIMESTAMPING_RX_SOFTWARE | unix.SOF_TIMESTAMPING_SOFTWARE
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stamps); err != nil {
		return os.NewSyscallError("setsockopt SO_TIMESTAMPING", err)
	}
	switch {
	case s.ping:
		return nil
	case s.v6:
		var f unix.ICMPv6Filter // a bit that is set keeps a type away
		for i := range f.Data {
			f.Data[i] = 0xffffffff
		}
		f.Data[icmp6EchoReply/32] &^= 1 << (icmp6EchoReply % 32)
		return os.NewSyscallError("setsockopt ICMP6_FILTER",
			unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &f))
	default:
		return os.NewSyscallError("setsockopt ICMP_FILTER", unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1<<icmpEchoReply)))
	}
}

// send sends one echo request.
func (s *echoSocket) send(to netip.Addr, id, seq uint16, t token) error {
	msg := appendEcho(make([]byte, 0, icmpHeader+len(t)), s.v6, id, seq, t)
	var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: to.As16()}
	if !s.v6 {
		sa = &unix.SockaddrInet4{Addr: to.As4()}
	}
	return control(s.file, func(fd int) error { return os.NewSyscallError("sendto", unix.Sendto(fd, msg, 0, sa)) })
}

// appendEcho makes an echo request. For ICMPv6 the kernel computes the checksum.
func appendEcho(b []byte, v6 bool, id, seq uint16, t token) []byte {
	start := len(b)
	typ := byte(icmpEcho)
	if v6 {
		typ = icmp6Echo
	}
	b = append(b, typ, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, id)
	b = binary.BigEndian.AppendUint16(b, seq)
	b = append(b, t[:]...)
	if !v6 {
		binary.BigEndian.PutUint16(b[start+2:], checksum(b[start:]))
	}
	return b
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// echoEvent is a request that the kernel says has left, or a reply.
type echoEvent struct {
	token token
	left  bool
	stamp time.Time // of the kernel, wall clock alone; zero if it gave none
	at    time.Time // when we saw it
}

// receive gives what happens to fn until the deadline of the file has passed.
func (s *echoSocket) receive(fn func(echoEvent)) error {
	buf, oob := make([]byte, maxPacket), make([]byte, 512)
	var err error
	waitErr := s.raw.Read(func(fd uintptr) bool {
		// What has left is read first: its reply may be there already.
		for _, flags := range []int{unix.MSG_ERRQUEUE, 0} {
			for err == nil {
				err = s.receiveOne(int(fd), flags, buf, oob, fn)
			}
			if !errors.Is(err, unix.EAGAIN) {
				return true
			}
			err = nil
		}
		return false // wait for more
	})
	if err == nil && !errors.Is(waitErr, os.ErrDeadlineExceeded) {
		err = waitErr
	}
	return err
}

// receiveOne gives one thing that happened to fn. The error matches EAGAIN when there was none.
func (s *echoSocket) receiveOne(fd, flags int, buf, oob []byte, fn func(echoEvent)) error {
	n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, flags)
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("recvmsg", err)
	}
	e := echoEvent{at: time.Now(), left: flags == unix.MSG_ERRQUEUE, stamp: parseStamp(oob[:oobn])}
	var ok bool
	if e.left {
		e.token, ok = tokenAtEnd(buf[:n])
	} else {
		e.token, ok = parseReply(buf[:n], s.v6, !s.v6 && !s.ping)
	}
	if ok {
		fn(e)
	}
	return nil
}

// tokenAtEnd finds the token in a packet that comes back from the error queue with some or all of its headers.
func tokenAtEnd(b []byte) (t token, ok bool) {
	if len(b) < icmpHeader+len(t) {
		return t, false
	}
	return token(b[len(b)-len(t):]), true
}

// parseReply reads an echo reply, which a raw socket of IPv4 gives with the IP header.
func parseReply(b []byte, v6, withHeader bool) (t token, ok bool) {
	if withHeader {
		if len(b) == 0 || len(b) < int(b[0]&0x0f)*4 {
			return t, false
		}
		b = b[int(b[0]&0x0f)*4:]
	}
	typ := byte(icmpEchoReply)
	if v6 {
		typ = icmp6EchoReply
	}
	if len(b) != icmpHeader+len(t) || b[0] != typ || b[1] != 0 {
		return t, false
	}
	return token(b[icmpHeader:]), true
}

// parseStamp finds the software timestamp among the control messages: the first of three struct timespec. Where those
// have 32-bit fields there is none.
func parseStamp(oob []byte) time.Time {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}
	}
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SO_TIMESTAMPING || len(m.Data) < 48 {
			continue
		}
		sec, nsec := int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:]))
		if sec > 0 && nsec >= 0 && nsec < int64(time.Second) {
			return time.Unix(sec, nsec)
		}
	}
	return time.Time{}
}
