// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendTraffic sends buf over a connected socket by one kind of system call.
func sendTraffic(fd int, buf []byte, how string) (int, error) {
	switch how {
	case "write":
		return whole(buf, func(b []byte) (int, error) { return unix.Write(fd, b) })
	case "more": // whole segments only, but for the last
		n, err := whole(buf[1:], func(b []byte) (int, error) { return unix.SendmsgN(fd, b[:min(len(b), 777)], nil, nil, unix.MSG_MORE) })
		if err != nil {
			return n, err
		}
		m, err := unix.Write(fd, buf[:1])
		return n + m, err
	case "pieces": // each in a packet of its own, if there is room
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return 0, err
		}
		return whole(buf, func(b []byte) (int, error) { return unix.Write(fd, b[:min(len(b), 777)]) })
	case "writev":
		return whole(buf, func(b []byte) (int, error) { return unix.Writev(fd, iovecs(b)) })
	case "sendmmsg":
		return whole(buf, func(b []byte) (int, error) { return multiMessage(unix.SYS_SENDMMSG, fd, b, 0) })
	case "sendfile":
		return sendFile(fd, len(buf))
	case "splice":
		return spliceOut(fd, buf)
	case "zerocopy":
		return sendZerocopy(fd, buf)
	case "short":
		return sendShort(fd, buf)
	case "oob": // the last byte is urgent
		n, err := sendTraffic(fd, buf[1:], "write")
		if err != nil {
			return n, err
		}
		m, err := unix.SendmsgN(fd, buf[:1], nil, nil, unix.MSG_OOB)
		return n + m, err
	case "uring":
		return uringTransfer(fd, buf, uringOpSend, 0, 0)
	case "uring-worker":
		return uringTransfer(fd, buf, uringOpSend, uringSQEAsync, 0)
	case "uring-sqpoll":
		return uringTransfer(fd, buf, uringOpSend, 0, uringSetupSQPoll)
	case "uring-zerocopy":
		return uringTransfer(fd, buf, uringOpSendZC, 0, 0)
	}
	return 0, unix.ENOSYS
}

// receiveTraffic fills buf from a connected socket by one kind of system call.
func receiveTraffic(fd int, buf []byte, how string) (int, error) {
	flagged := func(flags int) func([]byte) (int, error) {
		return func(b []byte) (int, error) {
			n, _, err := unix.Recvfrom(fd, b, flags)
			return n, err
		}
	}
	switch how {
	case "read":
		return whole(buf, func(b []byte) (int, error) { return unix.Read(fd, b) })
	case "readv":
		return whole(buf, func(b []byte) (int, error) { return unix.Readv(fd, iovecs(b)) })
	case "recvmmsg":
		// MSG_WAITFORONE: it does not wait for more than has come.
		return whole(buf, func(b []byte) (int, error) { return multiMessage(unix.SYS_RECVMMSG, fd, b, unix.MSG_WAITFORONE) })
	case "peek": // all of it three times before it is read
		for seen := 0; seen < 3; {
			switch n, err := retry(func() (int, error) { return flagged(unix.MSG_PEEK | unix.MSG_WAITALL)(buf) }); {
			case err != nil:
				return n, err
			case n == len(buf):
				seen++
			}
		}
		return receiveTraffic(fd, buf, "read")
	case "truncate": // thrown away by the kernel
		return whole(buf, flagged(unix.MSG_TRUNC))
	case "splice":
		return spliceIn(fd, buf)
	case "oob":
		if err := awaitPoll(fd, unix.POLLPRI); err != nil {
			return 0, err
		}
		n, err := flagged(unix.MSG_OOB)(buf[:1])
		if err != nil {
			return n, err
		}
		m, err := receiveTraffic(fd, buf[n:], "read")
		return n + m, err
	case "uring":
		return uringTransfer(fd, buf, uringOpRecv, 0, 0)
	case "uring-worker":
		return uringTransfer(fd, buf, uringOpRecv, uringSQEAsync, 0)
	case "uring-sqpoll":
		return uringTransfer(fd, buf, uringOpRecv, 0, uringSetupSQPoll)
	}
	return 0, unix.ENOSYS
}

// iovecs cuts buf into as many pieces as one call takes, none of them of the same size as its neighbours.
func iovecs(buf []byte) [][]byte {
	const most = 1024 // UIO_MAXIOV
	var pieces [][]byte
	for i := 0; len(buf) > 0 && len(pieces) < most; i++ {
		n := min(1+i%97, len(buf))
		pieces = append(pieces, buf[:n])
		buf = buf[n:]
	}
	return pieces
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   uint32
}

// multiMessage moves buf in up to eight messages with one call. A message may move less than it was given, even when others
// follow it: the bytes are counted, which they are does not matter.
func multiMessage(call uintptr, fd int, buf []byte, flags uintptr) (int, error) {
	const messages = 8
	size := (len(buf) + messages - 1) / messages
	var hdrs []mmsghdr
	var pin runtime.Pinner
	defer pin.Unpin()
	for len(buf) > 0 {
		n := min(size, len(buf))
		iov := &unix.Iovec{Base: &buf[0]}
		iov.SetLen(n)
		pin.Pin(iov)
		pin.Pin(iov.Base)
		m := mmsghdr{hdr: unix.Msghdr{Iov: iov}}
		m.hdr.SetIovlen(1)
		hdrs = append(hdrs, m)
		buf = buf[n:]
	}
	n, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&hdrs[0])), uintptr(len(hdrs)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	done := 0
	for _, h := range hdrs[:n] {
		done += int(h.len)
	}
	return done, nil
}

func sendFile(fd, size int) (int, error) {
	file, err := unix.MemfdCreate("traffic", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(file)
	if err := unix.Ftruncate(file, int64(size)); err != nil {
		return 0, err
	}
	for done := 0; done < size; {
		n, err := retry(func() (int, error) { return unix.Sendfile(fd, file, nil, size-done) })
		if err != nil || n == 0 {
			return done, err
		}
		done += n
	}
	return size, nil
}

// pipeCapacity is what a pipe takes without blocking.
const pipeCapacity = 64 << 10

func spliceOut(fd int, buf []byte) (int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	return whole(buf, func(b []byte) (int, error) {
		n, err := unix.Write(p[1], b[:min(len(b), pipeCapacity)])
		if err != nil {
			return n, err
		}
		return whole(b[:n], func(b []byte) (int, error) {
			n, err := unix.Splice(p[0], nil, fd, nil, len(b), unix.SPLICE_F_MOVE)
			return int(n), err
		})
	})
}

func spliceIn(fd int, buf []byte) (int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	return whole(buf, func(b []byte) (int, error) {
		n, err := unix.Splice(fd, nil, p[1], nil, min(len(b), pipeCapacity), unix.SPLICE_F_MOVE)
		if err != nil {
			return int(n), err
		}
		return whole(b[:n], func(b []byte) (int, error) { return unix.Read(p[0], b) })
	})
}

// sendZerocopy returns when the kernel has given back every page.
func sendZerocopy(fd int, buf []byte) (int, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1); err != nil {
		return 0, err
	}
	calls := 0
	n, err := whole(buf, func(b []byte) (int, error) {
		n, err := unix.SendmsgN(fd, b[:min(len(b), 10_000)], nil, nil, unix.MSG_ZEROCOPY)
		if err == nil {
			calls++
		}
		return n, err
	})
	if err != nil {
		return n, err
	}
	for calls > 0 {
		if err := awaitPoll(fd, 0); err != nil { // POLLERR always wakes
			return n, err
		}
		oob := make([]byte, 128)
		_, m, _, _, err := unix.Recvmsg(fd, nil, oob, unix.MSG_ERRQUEUE)
		if err != nil {
			return n, err
		}
		completed, err := completions(oob[:m])
		if err != nil {
			return n, err
		}
		calls -= completed
	}
	runtime.KeepAlive(buf)
	return n, nil
}

// completions tells how many calls a message from the error queue completes.
func completions(oob []byte) (int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, m := range msgs {
		if len(m.Data) < int(unsafe.Sizeof(unix.SockExtendedErr{})) {
			return n, unix.EBADMSG
		}
		e := (*unix.SockExtendedErr)(unsafe.Pointer(&m.Data[0]))
		if e.Origin != unix.SO_EE_ORIGIN_ZEROCOPY || e.Errno != 0 {
			return n, unix.EBADMSG
		}
		n += int(e.Data-e.Info) + 1
	}
	return n, nil
}

// sendShort writes all that is left again and again into a small send buffer that does not take it all. It is an error if the
// buffer was never full, though there was more than it holds.
func sendShort(fd int, buf []byte) (int, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
		return 0, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return 0, err
	}
	refused, short := 0, 0
	n, err := whole(buf, func(b []byte) (int, error) {
		for {
			n, err := unix.Write(fd, b)
			if n > 0 && n < len(b) {
				short++
			}
			if !errors.Is(err, unix.EAGAIN) {
				return n, err
			}
			refused++
			if err := awaitPoll(fd, unix.POLLOUT); err != nil {
				return 0, err
			}
		}
	})
	if err == nil && len(buf) > 50_000 && (refused == 0 || short == 0) {
		err = unix.EPROTO
	}
	return n, errors.Join(err, unix.SetNonblock(fd, false))
}
