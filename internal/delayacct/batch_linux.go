// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is the kernel's struct of that name, which golang.org/x/sys lacks.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// batch is room for as many datagrams as one system call takes.
type batch struct {
	hdrs []mmsghdr
	iovs []unix.Iovec
	from []unix.RawSockaddrNetlink
	bufs []byte
}

const batchSize = 64

func newBatch() *batch {
	b := &batch{
		hdrs: make([]mmsghdr, batchSize),
		iovs: make([]unix.Iovec, batchSize),
		from: make([]unix.RawSockaddrNetlink, batchSize),
		bufs: make([]byte, batchSize*maxMessage),
	}
	for i := range b.hdrs {
		b.iovs[i].Base = &b.bufs[i*maxMessage]
		b.iovs[i].SetLen(maxMessage)
		h := &b.hdrs[i].hdr
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.from[i]))
	}
	return b
}

// receive takes what is there, EAGAIN when that is nothing.
func (b *batch) receive(fd int) (int, error) {
	for i := range b.hdrs { // the kernel has written what it used
		b.hdrs[i].hdr.Namelen = unix.SizeofSockaddrNetlink
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.hdrs[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", errno)
	}
	return int(n), nil
}

// datagram is the i-th of those received last; whole is false if it was longer than there was room.
func (b *batch) datagram(i int) (data []byte, fromKernel, whole bool) {
	h := &b.hdrs[i]
	data = b.bufs[i*maxMessage:][:min(h.len, maxMessage)]
	return data, b.from[i].Pid == 0, h.hdr.Flags&unix.MSG_TRUNC == 0
}
