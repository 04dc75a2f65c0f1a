// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From include/uapi/linux/io_uring.h, which x/sys does not have.
const (
	uringSetupSQPoll  = 1 << 1
	uringEnterGet     = 1 << 0
	uringEnterWake    = 1 << 1
	uringFeatOneMap   = 1 << 0
	uringOffsetSQEs   = 0x10000000
	uringSQEAsync     = 1 << 4
	uringCQEMore      = 1 << 1
	uringOpConnect    = 16
	uringOpSend       = 26
	uringOpRecv       = 27
	uringOpSendZC     = 47 // since Linux 6.0
	uringEntries      = 4
	uringSQPollIdleMS = 50
)

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// uringSQE is struct io_uring_sqe.
type uringSQE struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off           uint64
	addr          uint64
	length        uint32
	opFlags       uint32
	userData      uint64
	_             [3]uint64
}

// uringCQE is struct io_uring_cqe.
type uringCQE struct {
	userData uint64
	res      int32
	flags    uint32
}

// uring is an io_uring that has one request on its way at a time.
type uring struct {
	fd     int
	params uringParams
	rings  []byte
	sqes   []byte
}

// openUring fails with ENOSYS or EPERM where io_uring is switched off.
func openUring(setupFlags uint32) (*uring, error) {
	r := &uring{}
	r.params.flags = setupFlags
	r.params.sqThreadIdle = uringSQPollIdleMS
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uringEntries, uintptr(unsafe.Pointer(&r.params)), 0)
	if errno != 0 {
		return nil, errno
	}
	r.fd = int(fd)
	if r.params.features&uringFeatOneMap == 0 {
		return nil, errors.Join(unix.ENOSYS, r.close())
	}
	size := max(r.params.sq.array+r.params.sqEntries*4, r.params.cq.cqes+r.params.cqEntries*uint32(unsafe.Sizeof(uringCQE{})))
	var err error
	r.rings, err = unix.Mmap(r.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	sqes := int(r.params.sqEntries) * int(unsafe.Sizeof(uringSQE{}))
	r.sqes, err = unix.Mmap(r.fd, uringOffsetSQEs, sqes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *uring) close() error {
	var errs []error
	for _, m := range [][]byte{r.rings, r.sqes} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	return errors.Join(append(errs, unix.Close(r.fd))...)
}

func (r *uring) word(offset uint32) *uint32 {
	return (*uint32)(unsafe.Pointer(&r.rings[offset]))
}

// do submits one request and waits for its result, and for the notification where one is announced.
func (r *uring) do(req uringSQE) (int, error) {
	sq := r.params.sq
	tail := atomic.LoadUint32(r.word(sq.tail))
	slot := tail & *r.word(sq.mask)
	*(*uringSQE)(unsafe.Pointer(&r.sqes[uintptr(slot)*unsafe.Sizeof(req)])) = req
	*r.word(sq.array + slot*4) = slot
	atomic.StoreUint32(r.word(sq.tail), tail+1)

	flags, submit := uintptr(uringEnterGet), uintptr(1)
	if r.params.flags&uringSetupSQPoll != 0 {
		flags |= uringEnterWake
	}
	var first *uringCQE
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, 1, flags, 0, 0)
		if errno == unix.EINTR {
			submit = 0
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		submit = 0
		for cqe := r.next(); cqe != nil; cqe = r.next() {
			if first == nil {
				first = cqe
			}
			if cqe.flags&uringCQEMore != 0 {
				continue
			}
			if first.res < 0 {
				return 0, unix.Errno(-first.res)
			}
			return int(first.res), nil
		}
	}
}

// next takes a completion, nil if there is none.
func (r *uring) next() *uringCQE {
	cq := r.params.cq
	head := *r.word(cq.head)
	if head == atomic.LoadUint32(r.word(cq.tail)) {
		return nil
	}
	slot := head & *r.word(cq.mask)
	cqe := *(*uringCQE)(unsafe.Pointer(&r.rings[uintptr(cq.cqes)+uintptr(slot)*unsafe.Sizeof(uringCQE{})]))
	atomic.StoreUint32(r.word(cq.head), head+1)
	return &cqe
}

// uringTransfer moves len(buf) bytes with as many requests of one kind as it takes.
func uringTransfer(fd int, buf []byte, op, sqeFlags uint8, setupFlags uint32) (int, error) {
	r, err := openUring(setupFlags)
	if err != nil {
		return 0, err
	}
	defer r.close()
	var pin runtime.Pinner
	pin.Pin(&buf[0])
	defer pin.Unpin()
	done := 0
	for done < len(buf) {
		n, err := r.do(uringSQE{
			opcode: op,
			flags:  sqeFlags,
			fd:     int32(fd),
			addr:   uint64(uintptr(unsafe.Pointer(&buf[done]))),
			length: uint32(len(buf) - done),
		})
		if err != nil || n == 0 {
			return done, err
		}
		done += n
	}
	return done, nil
}

// uringConnect takes a raw socket address.
func uringConnect(fd int, sa []byte, sqeFlags uint8, setupFlags uint32) error {
	r, err := openUring(setupFlags)
	if err != nil {
		return err
	}
	defer r.close()
	var pin runtime.Pinner
	pin.Pin(&sa[0])
	defer pin.Unpin()
	_, err = r.do(uringSQE{
		opcode: uringOpConnect,
		flags:  sqeFlags,
		fd:     int32(fd),
		addr:   uint64(uintptr(unsafe.Pointer(&sa[0]))),
		off:    uint64(len(sa)),
	})
	return err
}
