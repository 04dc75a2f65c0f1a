// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"encoding/binary"
	"fmt"
)

// Numbers of include/uapi/linux/taskstats.h and genetlink.h.
const (
	familyName    = "TASKSTATS"
	familyVersion = 1

	cmdGet = 1
	cmdNew = 2

	attrPID        = 1
	attrTGID       = 2
	attrRegister   = 3
	attrDeregister = 4

	typePID       = 1
	typeTGID      = 2
	typeStats     = 3
	typeAggrPID   = 4
	typeAggrTGID  = 5
	nlaTypeMask   = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	nlaHeaderLen  = 4
	nlHeaderLen   = 16
	genlHeaderLen = 4

	nlmsgError = 2
	flagAck    = 0x4 // NLM_F_ACK
	flagReq    = 0x1 // NLM_F_REQUEST
)

// message is one netlink message; its parts are in the datagram that it came in.
type message struct {
	typ  uint16
	seq  uint32
	body []byte
}

// nextMessage cuts one message off a datagram.
func nextMessage(b []byte) (m message, rest []byte, err error) {
	ne := binary.NativeEndian
	if len(b) < nlHeaderLen {
		return m, nil, fmt.Errorf("netlink message of %d bytes: %w", len(b), errMalformed)
	}
	size := ne.Uint32(b)
	if size < nlHeaderLen || uint64(size) > uint64(len(b)) {
		return m, nil, fmt.Errorf("netlink message of %d bytes in %d: %w", size, len(b), errMalformed)
	}
	m = message{typ: ne.Uint16(b[4:]), seq: ne.Uint32(b[8:]), body: b[nlHeaderLen:size]}
	return m, b[min(align4(int(size)), len(b)):], nil
}

// nextAttr cuts one attribute off b.
func nextAttr(b []byte) (typ uint16, value, rest []byte, err error) {
	if len(b) < nlaHeaderLen {
		return 0, nil, nil, fmt.Errorf("attribute of %d bytes: %w", len(b), errMalformed)
	}
	size := int(binary.NativeEndian.Uint16(b))
	if size < nlaHeaderLen || size > len(b) {
		return 0, nil, nil, fmt.Errorf("attribute of %d bytes in %d: %w", size, len(b), errMalformed)
	}
	typ = binary.NativeEndian.Uint16(b[2:]) & nlaTypeMask
	return typ, b[nlaHeaderLen:size], b[min(align4(size), len(b)):], nil
}

// eachRecord gives fn the records that are in the body of a generic netlink message: that of a task and, in the
// message for the last task of a group of several, that of the group. e is written over for each.
func eachRecord(body []byte, counted bool, e *Exit, fn func(*Exit)) error {
	if len(body) < genlHeaderLen {
		return fmt.Errorf("generic netlink message of %d bytes: %w", len(body), errMalformed)
	}
	if body[0] != cmdNew {
		return nil
	}
	var version uint16
	for b := body[genlHeaderLen:]; len(b) > 0; {
		typ, value, rest, err := nextAttr(b)
		if err != nil {
			return err
		}
		b = rest
		if typ != typeAggrPID && typ != typeAggrTGID { // padding where 8 bytes must be aligned
			continue
		}
		found, err := aggregate(value, &version, counted, e)
		if err != nil {
			return err
		}
		if found {
			fn(e)
		}
	}
	return nil
}

// aggregate decodes an id and the record that belongs to it. The record of a group lacks the version on some kernels: it
// then has that of the record before it.
func aggregate(b []byte, version *uint16, counted bool, e *Exit) (found bool, err error) {
	var id uint32
	var group bool
	for len(b) > 0 {
		typ, value, rest, err := nextAttr(b)
		if err != nil {
			return false, err
		}
		b = rest
		switch typ {
		case typePID, typeTGID:
			if len(value) < 4 {
				return false, fmt.Errorf("id of %d bytes: %w", len(value), errMalformed)
			}
			id, group = u32(value), typ == typeTGID
		case typeStats:
			if len(value) < leastTaskSize {
				return false, fmt.Errorf("taskstats of %d bytes: %w", len(value), errShort)
			}
			if v := binary.NativeEndian.Uint16(value[offVersion:]); v != 0 {
				*version = v
			}
			if err := (record{value, *version, counted}).decode(&e.Stats); err != nil {
				return false, err
			}
			e.Status = u32(value[offStatus:])
			found = true
		}
	}
	if !found || id == 0 {
		return false, nil
	}
	e.PID, e.Group = id, group
	if group {
		e.TGID = id
	}
	return true, nil
}

func align4(n int) int { return (n + 3) &^ 3 }
