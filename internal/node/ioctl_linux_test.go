// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// fakeDisk is the kernel and a disk behind it.
type fakeDisk struct {
	log    []byte // of NVMe
	status int    // of NVMe, 0 is good

	power    byte         // answer to CHECK POWER MODE
	result   ataRegisters // answer to SMART RETURN STATUS
	data     []byte       // answer to SMART READ DATA
	sense    func(ataRegisters) []byte
	commands []byte // that were sent

	err error
}

func (d *fakeDisk) ioctl(_ int, request uintptr, arg unsafe.Pointer) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	switch {
	case request == nvmeAdminIoctl && d.log != nil:
		cmd := (*nvmePassthruCmd)(arg)
		if cmd.opcode != 2 || cmd.nsid != 0xffffffff || cmd.cdw10 != 127<<16|2 || cmd.timeoutMS == 0 || cmd.dataLen != 512 {
			return 0, unix.EFAULT
		}
		copy(unsafe.Slice(*(**byte)(unsafe.Pointer(&cmd.addr)), cmd.dataLen), d.log)
		return d.status, nil
	case request == sgIoctl && d.sense != nil:
		return 0, d.passThrough((*sgIOHeader)(arg))
	}
	return 0, unix.ENOTTY
}

func (d *fakeDisk) passThrough(hdr *sgIOHeader) error {
	cdb := unsafe.Slice((*byte)(hdr.cmd), hdr.cmdLen)
	if hdr.interfaceID != 'S' || len(cdb) != 16 || cdb[0] != 0x85 || hdr.timeoutMS == 0 {
		return unix.EINVAL
	}
	command, features := cdb[14], cdb[4]
	d.commands = append(d.commands, command)
	if command == 0xb0 && (cdb[10] != 0x4f || cdb[12] != 0xc2) {
		return unix.EINVAL
	}
	answer := func(r ataRegisters) error { // registers were asked for, no data
		if cdb[1] != 3<<1 || cdb[2] != 0x20 || hdr.direction != sgNoData {
			return unix.EINVAL
		}
		hdr.senseLen = uint8(copy(unsafe.Slice((*byte)(hdr.sense), hdr.maxSense), d.sense(r)))
		hdr.status = 2 // CHECK CONDITION
		return nil
	}
	switch {
	case command == 0xe5:
		return answer(ataRegisters{status: 0x50, count: d.power})
	case command == 0xb0 && features == 0xda:
		return answer(d.result)
	case command == 0xb0 && features == 0xd0:
		if cdb[1] != 4<<1 || cdb[2] != 0x0e || cdb[6] != 1 || hdr.direction != sgFromDevice || hdr.dataLen != 512 {
			return unix.EINVAL
		}
		if d.data == nil {
			hdr.status = 2
			return nil
		}
		copy(unsafe.Slice((*byte)(hdr.data), hdr.dataLen), d.data)
		return nil
	}
	return unix.EINVAL
}

var good = ataRegisters{status: 0x50, lbaMid: 0x4f, lbaHigh: 0xc2}

// goodDisk is an ATA disk of 100 hours and 38 degrees.
func goodDisk() *fakeDisk {
	return &fakeDisk{
		power: 0xff, result: good, sense: descriptorSense,
		data: ataData(ataAttribute{9, [6]byte{100}}, ataAttribute{194, [6]byte{38}}),
	}
}

func TestLayoutOfKernelStructs(t *testing.T) {
	if got := unsafe.Sizeof(nvmePassthruCmd{}); got != 72 {
		t.Errorf("struct nvme_passthru_cmd: %d bytes, want 72", got)
	}
	if want := uintptr(64); unsafe.Sizeof(uintptr(0)) == 8 {
		if got := unsafe.Sizeof(sgIOHeader{}); got != 88 {
			t.Errorf("struct sg_io_hdr: %d bytes, want 88", got)
		}
		var h sgIOHeader
		for _, tt := range []struct {
			field     string
			got, want uintptr
		}{
			{"dxferp", unsafe.Offsetof(h.data), 16}, {"timeout", unsafe.Offsetof(h.timeoutMS), 40}, {"status", unsafe.Offsetof(h.status), want},
			{"sb_len_wr", unsafe.Offsetof(h.senseLen), 67}, {"host_status", unsafe.Offsetof(h.hostStatus), 68}, {"resid", unsafe.Offsetof(h.resid), 72},
		} {
			if tt.got != tt.want {
				t.Errorf("sg_io_hdr.%s at %d, want %d", tt.field, tt.got, tt.want)
			}
		}
	}
}

func TestNVMeSMART(t *testing.T) {
	for _, tt := range []struct {
		name    string
		disk    fakeDisk
		want    Health
		wantErr error
	}{
		{
			name: "answers", disk: fakeDisk{log: nvmeLog(0, 311, 3, 2, 1)},
			want: Health{
				Passed: Some(true), Temperature: Some(38), PercentageUsed: Some(uint8(3)), MediaErrors: Some(uint64(1)), PowerOn: Some(2 * time.Hour),
			},
		},
		{name: "has no such log page", disk: fakeDisk{log: nvmeLog(0, 311, 3, 2, 1), status: 0x109}, wantErr: errNoAnswer},
		{name: "is no NVMe", wantErr: errNoAnswer},
		{name: "no privilege", disk: fakeDisk{err: unix.EACCES}, wantErr: fs.ErrPermission},
		{name: "gone", disk: fakeDisk{err: unix.ENXIO}, wantErr: unix.ENXIO},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := device{ioctl: tt.disk.ioctl}
			got, err := d.nvmeSMART()
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("got error %v, want %v", err, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestATASMART(t *testing.T) {
	healthy := Health{Passed: Some(true), Temperature: Some(38), PowerOn: Some(100 * time.Hour)}
	failing := healthy
	failing.Passed = Some(false)
	with := func(change func(*fakeDisk)) *fakeDisk {
		d := goodDisk()
		change(d)
		return d
	}
	for _, tt := range []struct {
		name     string
		disk     *fakeDisk
		want     Health
		wantErr  error
		commands int
	}{
		{name: "healthy", disk: goodDisk(), want: healthy, commands: 3},
		{name: "fixed sense", disk: with(func(d *fakeDisk) { d.sense = fixedSense }), want: healthy, commands: 3},
		{name: "failing", disk: with(func(d *fakeDisk) { d.result.lbaMid, d.result.lbaHigh = 0xf4, 0x2c }), want: failing, commands: 3},
		{name: "no data", disk: with(func(d *fakeDisk) { d.data = nil }), want: Health{Passed: Some(true)}, commands: 3},
		{name: "asleep: not asked any further", disk: with(func(d *fakeDisk) { d.power = 0 }), wantErr: errAsleep, commands: 1},
		{name: "SMART is off", disk: with(func(d *fakeDisk) { d.result.status = 0x51 }), wantErr: errNoAnswer, commands: 2},
		{name: "no registers", disk: with(func(d *fakeDisk) { d.sense = func(ataRegisters) []byte { return nil } }), commands: 1, wantErr: errNoAnswer},
		{name: "no privilege", disk: with(func(d *fakeDisk) { d.err = unix.EPERM }), wantErr: fs.ErrPermission},
		{name: "no SG_IO", disk: &fakeDisk{}, wantErr: errNoAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := device{ioctl: tt.disk.ioctl}
			got, err := d.ataSMART()
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("got error %v, want %v", err, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(tt.disk.commands) != tt.commands {
				t.Errorf("sent %#x, want %d commands", tt.disk.commands, tt.commands)
			}
		})
	}
}

// A file is no device: the kernel says so itself.
func TestIoctlOfWhatIsNoDevice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sda")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := openDevice(file, ioctl)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if _, err := d.nvmeSMART(); !errors.Is(err, errNoAnswer) {
		t.Errorf("NVMe: got error %v, want %v", err, errNoAnswer)
	}
	if _, err := d.ataSMART(); !errors.Is(err, errNoAnswer) {
		t.Errorf("ATA: got error %v, want %v", err, errNoAnswer)
	}
}
