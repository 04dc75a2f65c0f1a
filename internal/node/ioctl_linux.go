// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctlFunc is ioctl(2).
type ioctlFunc func(fd int, request uintptr, arg unsafe.Pointer) (result int, err error)

func ioctl(fd int, request uintptr, arg unsafe.Pointer) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)) //nolint:gosec // a descriptor
	if errno != 0 {
		return int(r), errno
	}
	return int(r), nil
}

// answerTimeout is how long the kernel waits for a disk.
const answerTimeout = 10 * time.Second

// device is a disk that is open.
type device struct {
	fd    int
	ioctl ioctlFunc
}

// openDevice does not wait for the disk to be ready.
func openDevice(path string, call ioctlFunc) (*device, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("open %s: %w: the container may not use this device", path, err)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open %s: %w: is the host's /dev to be seen there?", path, err)
	case err != nil:
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &device{fd: fd, ioctl: call}, nil
}

func (d *device) close() { _ = unix.Close(d.fd) }

// explained turns what an ioctl fails with into what it means: a privilege is missing, or the device cannot do that.
func explained(call, capability string, err error) error {
	switch {
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		return errNoAnswer
	}
	return withPrivilege(os.NewSyscallError(call, err), capability)
}

// nvmePassthruCmd is struct nvme_passthru_cmd, include/uapi/linux/nvme_ioctl.h.
type nvmePassthruCmd struct {
	opcode    uint8
	_         [3]uint8
	nsid      uint32
	_         [2]uint32 // cdw2, cdw3
	_         uint64    // metadata
	addr      uint64
	_         uint32 // length of metadata
	dataLen   uint32
	cdw10     uint32
	_         [5]uint32 // cdw11 to cdw15
	timeoutMS uint32
	_         uint32 // result
}

const nvmeAdminIoctl = 0xc0484e41 // NVME_IOCTL_ADMIN_CMD

// nvmeSMART asks for the SMART / Health Information log page of the controller.
func (d *device) nvmeSMART() (Health, error) {
	const getLogPage, smartLog, allNamespaces = 0x02, 0x02, 0xffffffff
	data := make([]byte, smartSize)
	var pinned runtime.Pinner
	pinned.Pin(&data[0])
	defer pinned.Unpin()
	cmd := nvmePassthruCmd{
		opcode:    getLogPage,
		nsid:      allNamespaces,
		addr:      uint64(uintptr(unsafe.Pointer(&data[0]))),
		dataLen:   smartSize,
		cdw10:     (smartSize/4-1)<<16 | smartLog,
		timeoutMS: uint32(answerTimeout.Milliseconds()),
	}
	status, err := d.ioctl(d.fd, nvmeAdminIoctl, unsafe.Pointer(&cmd))
	if err != nil {
		return Health{}, explained("NVME_IOCTL_ADMIN_CMD", "CAP_SYS_ADMIN", err)
	}
	if status != 0 { // of the controller: no such log page, in most cases
		return Health{}, errNoAnswer
	}
	return parseNVMeSMART(data)
}

// sgIOHeader is struct sg_io_hdr, include/scsi/sg.h.
type sgIOHeader struct {
	interfaceID      int32
	direction        int32
	cmdLen, maxSense uint8
	_                uint16
	dataLen          uint32
	data, cmd, sense unsafe.Pointer
	timeoutMS        uint32
	_, _             uint32 // flags, pack_id
	_                unsafe.Pointer
	status           uint8 // of SCSI
	_, _             uint8
	senseLen         uint8
	hostStatus       uint16 // of the adapter
	_                uint16
	resid            int32
	_, _             uint32 // duration, info
}

const (
	sgIoctl          = 0x2285 // SG_IO
	sgInterface      = 'S'
	sgNoData         = -1
	sgFromDevice     = -3
	ataPassThrough16 = 0x85
)

// ataCommand is an ATA command without data or with one sector of it from the device.
type ataCommand struct {
	command, features, lbaMid, lbaHigh byte
	read                               bool
}

// The commands that are sent. None changes anything, and the first wakes no disk.
var (
	checkPowerMode    = ataCommand{command: 0xe5}
	smartReturnStatus = ataCommand{command: 0xb0, features: 0xda, lbaMid: 0x4f, lbaHigh: 0xc2}
	smartReadData     = ataCommand{command: 0xb0, features: 0xd0, lbaMid: 0x4f, lbaHigh: 0xc2, read: true}
)

// cdb packs the command, see SAT-3, "ATA PASS-THROUGH (16)". Without data the registers are asked for.
func (c *ataCommand) cdb() [16]byte {
	const noData, pioIn = 3 << 1, 4 << 1 // protocols
	const registers, fromDevice, blocks, lengthInCount = 1 << 5, 1 << 3, 1 << 2, 2
	cdb := [16]byte{0: ataPassThrough16, 1: noData, 2: registers, 4: c.features, 10: c.lbaMid, 12: c.lbaHigh, 14: c.command}
	if c.read {
		cdb[1], cdb[2], cdb[6] = pioIn, fromDevice|blocks|lengthInCount, 1
	}
	return cdb
}

// ata sends a command and returns the registers, or the data of a command that reads.
func (d *device) ata(c ataCommand) (ataRegisters, []byte, error) {
	cdb, sense, data := c.cdb(), make([]byte, 64), make([]byte, smartSize)
	var pinned runtime.Pinner // what the header points to
	defer pinned.Unpin()
	pinned.Pin(&cdb[0])
	pinned.Pin(&sense[0])
	pinned.Pin(&data[0])
	hdr := sgIOHeader{
		interfaceID: sgInterface,
		direction:   sgNoData,
		cmdLen:      uint8(len(cdb)),
		maxSense:    uint8(len(sense)),
		cmd:         unsafe.Pointer(&cdb[0]),
		sense:       unsafe.Pointer(&sense[0]),
		timeoutMS:   uint32(answerTimeout.Milliseconds()),
	}
	if c.read {
		hdr.direction, hdr.dataLen, hdr.data = sgFromDevice, smartSize, unsafe.Pointer(&data[0])
	}
	if _, err := d.ioctl(d.fd, sgIoctl, unsafe.Pointer(&hdr)); err != nil {
		return ataRegisters{}, nil, explained("SG_IO", "CAP_SYS_RAWIO", err)
	}
	if hdr.hostStatus != 0 {
		return ataRegisters{}, nil, fmt.Errorf("SG_IO: host status %#x", hdr.hostStatus)
	}
	if c.read {
		if hdr.status != 0 || hdr.resid != 0 {
			return ataRegisters{}, nil, errNoAnswer
		}
		return ataRegisters{}, data, nil
	}
	regs, err := parseATASense(sense[:min(int(hdr.senseLen), len(sense))])
	if err == nil && regs.failed() {
		err = errNoAnswer
	}
	return regs, nil, err
}

// ataSMART asks a disk that is awake. It returns errAsleep of one that is not.
func (d *device) ataSMART() (Health, error) {
	mode, _, err := d.ata(checkPowerMode)
	if err != nil {
		return Health{}, err
	}
	if mode.asleep() {
		return Health{}, errAsleep
	}
	status, _, err := d.ata(smartReturnStatus)
	if err != nil {
		return Health{}, err
	}
	var h Health
	_, data, err := d.ata(smartReadData)
	if err == nil {
		h, err = parseATASMART(data)
	}
	h.Passed = status.passed()
	if h.Passed.OK && errors.Is(err, errNoAnswer) {
		err = nil
	}
	return h, err
}
