// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// errNoAnswer reports a disk that does not do what it was asked for, which is not an error.
var errNoAnswer = errors.New("the disk does not tell")

// smartSize is the size of NVMe's SMART / Health Information log page, and of ATA's SMART data.
const smartSize = 512

// parseNVMeSMART reads the SMART / Health Information log page (02h).
//
// See NVM Express Base Specification 2.0, "SMART / Health Information".
func parseNVMeSMART(b []byte) (Health, error) {
	if len(b) < smartSize {
		return Health{}, fmt.Errorf("SMART log of %d bytes: truncated", len(b))
	}
	const knownWarnings = 0x3f // bits 0 to 5 of Critical Warning
	le := binary.LittleEndian
	h := Health{
		Passed:         Some(b[0]&knownWarnings == 0),
		PercentageUsed: Some(b[5]),
		MediaErrors:    Some(saturated(b[160:])),
	}
	if kelvin := int(le.Uint16(b[1:])); kelvin > 0 && kelvin < 500 { // 0: not reported
		h.Temperature = Some(kelvin - 273)
	}
	h.PowerOn = hours(saturated(b[128:]))
	return h, nil
}

// saturated reads a number of 128 bits.
func saturated(b []byte) uint64 {
	if binary.LittleEndian.Uint64(b[8:]) != 0 {
		return math.MaxUint64
	}
	return binary.LittleEndian.Uint64(b)
}

// hours is absent when no disk can be that old: some count in other units.
func hours(n uint64) Opt[time.Duration] {
	const oldest = 50 * 365 * 24
	if n > oldest {
		return Opt[time.Duration]{}
	}
	return Some(time.Duration(n) * time.Hour) //nolint:gosec // checked
}

// ATA attributes. No standard says what they mean, but vendors agree about these.
const (
	attrPowerOnHours        = 9
	attrReportedUncorrect   = 187
	attrAirflowTemperature  = 190
	attrTemperature         = 194
	attrSize, attrCount     = 12, 30
	attrFirst, attrRawStart = 2, 5
)

// parseATASMART reads the data of SMART READ DATA, all but Passed, which is not in it.
//
// See ATA/ATAPI Command Set (ATA8-ACS), "SMART READ DATA", and SFF-8035i for the attributes.
func parseATASMART(b []byte) (Health, error) {
	if len(b) < smartSize {
		return Health{}, fmt.Errorf("SMART data of %d bytes: truncated", len(b))
	}
	var sum byte
	for _, c := range b[:smartSize] {
		sum += c
	}
	if sum != 0 {
		return Health{}, errors.New("SMART data: bad checksum")
	}
	var h Health
	for i := range attrCount {
		attr := b[attrFirst+i*attrSize:][:attrSize]
		raw := attr[attrRawStart : attrRawStart+6]
		low := uint64(binary.LittleEndian.Uint32(raw))
		switch attr[0] {
		case attrPowerOnHours:
			h.PowerOn = hours(low & 0xffffff) // what is above, milliseconds, is not used by all
		case attrReportedUncorrect:
			h.MediaErrors = Some(low | uint64(binary.LittleEndian.Uint16(raw[4:]))<<32)
		case attrTemperature:
			h.Temperature = celsius(raw[0], h.Temperature)
		case attrAirflowTemperature:
			if !h.Temperature.OK {
				h.Temperature = celsius(raw[0], h.Temperature)
			}
		}
	}
	return h, nil
}

// celsius reads the low byte of a temperature; above it are often the lowest and the highest.
func celsius(b byte, otherwise Opt[int]) Opt[int] {
	if t := int(int8(b)); t > 0 { //nolint:gosec // a signed byte
		return Some(t)
	}
	return otherwise
}

// ataRegisters are what a device leaves in its registers after a command, as far as we look at them.
type ataRegisters struct {
	status, error, count, lbaMid, lbaHigh byte
}

// failed reports whether the device refused the command: bits ERR and DF of the status.
func (r *ataRegisters) failed() bool { return r.status&(1<<0|1<<5) != 0 }

// parseATASense finds the registers in the sense data of a command for which they were asked.
//
// See SCSI / ATA Translation (SAT-3), "ATA Status Return sense data descriptor" and "fixed format sense data".
func parseATASense(b []byte) (ataRegisters, error) {
	const minSize = 8
	if len(b) < minSize {
		return ataRegisters{}, errNoAnswer
	}
	switch b[0] & 0x7f {
	case 0x70, 0x71:
		const informationAvailable = 0x1d // ASCQ to ASC 0
		if len(b) < 14 || b[12] != 0 || b[13] != informationAvailable {
			return ataRegisters{}, errNoAnswer
		}
		return ataRegisters{error: b[3], status: b[4], count: b[6], lbaMid: b[10], lbaHigh: b[11]}, nil
	case 0x72, 0x73:
		const ataReturn, ataReturnSize = 0x09, 14
		list := b[minSize:min(len(b), minSize+int(b[7]))]
		for len(list) >= 2 {
			size := 2 + int(list[1])
			if size > len(list) {
				break
			}
			if d := list[:size]; d[0] == ataReturn && size >= ataReturnSize {
				return ataRegisters{error: d[3], count: d[5], lbaMid: d[9], lbaHigh: d[11], status: d[13]}, nil
			}
			list = list[size:]
		}
	}
	return ataRegisters{}, errNoAnswer
}

// passed reads the answer to SMART RETURN STATUS.
func (r *ataRegisters) passed() Opt[bool] {
	switch {
	case r.lbaMid == 0x4f && r.lbaHigh == 0xc2:
		return Some(true)
	case r.lbaMid == 0xf4 && r.lbaHigh == 0x2c:
		return Some(false)
	}
	return Opt[bool]{}
}

// asleep reads the answer to CHECK POWER MODE: whether another command would make the disk spin up.
func (r *ataRegisters) asleep() bool {
	switch r.count {
	case 0x00, 0x01, 0x40: // standby, standby_y, spun down behind a non-volatile cache
		return true
	}
	return false
}
