// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"encoding/binary"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// frame is how much a record of the local driver has beside its message: the length of that, big endian, before and after it.
const frame = 4 + 4

// splitFrames is split for DockerLocal. A record is found by the length before it alone: where that is wrong, and with skip, the
// next one is looked for that fits.
func (s *splitter) splitFrames(data []byte, j *joins, skip bool) (n int, skipping bool) {
	most := maxRecord(DockerLocal, s.maxLine)
	for len(s.lines) < maxBatch {
		b, state := cutFrame(data[n:], most)
		if state == frameWhole && (!skip || isRecord(b)) {
			s.record(b, DockerLocal, j)
			n, skip = n+len(b)+frame, false
			continue
		}
		if state == frameTorn && !skip {
			break
		}
		if !skip {
			s.invalid++
			skip = true
		}
		next := nextFrame(data[n:], most, state != frameTorn)
		if next == 0 || n+next == len(data) {
			return n + next, true
		}
		n += next
	}
	return n, skip
}

// nextFrame returns how many bytes lie before the next record, or before what may be the begin of one.
func nextFrame(data []byte, most int, notHere bool) int {
	from, may := 0, len(data)
	if notHere {
		from = 1
	}
	for i := from; i < len(data); i++ {
		switch b, state := cutFrame(data[i:], most); {
		case state == frameWhole && isRecord(b):
			return i
		case state == frameTorn:
			may = min(may, i)
		}
	}
	return may
}

type frameState uint8

const (
	frameWhole frameState = iota
	frameTorn             // its end has not come yet
	frameWrong
)

// cutFrame returns the message that data begins with.
func cutFrame(data []byte, most int) ([]byte, frameState) {
	if len(data) < 4 {
		return nil, frameTorn
	}
	size := int(binary.BigEndian.Uint32(data))
	switch {
	case size == 0, size > most:
		return nil, frameWrong
	case len(data) < size+frame:
		return nil, frameTorn
	case int(binary.BigEndian.Uint32(data[4+size:])) != size:
		return nil, frameWrong
	}
	return data[4 : 4+size], frameWhole
}

func isRecord(b []byte) bool {
	_, ok := parseDockerLocal(b)
	return ok
}

// parseDockerLocal reads a message of the local driver: LogEntry of Docker's api/types/plugins/logdriver.
func parseDockerLocal(b []byte) (record, bool) {
	r := record{}
	partial, last := false, false
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return r, false
		}
		b = b[n:]
		switch {
		case (field == 1 || field == 3 || field == 5) && kind == protowire.BytesType:
			var value []byte
			if value, n = protowire.ConsumeBytes(b); n < 0 {
				return r, false
			}
			switch field {
			case 1:
				r.stream = parseStream(value)
			case 3:
				r.text = value
			default:
				last = isLastPart(value)
			}
		case (field == 2 || field == 4) && kind == protowire.VarintType:
			var value uint64
			if value, n = protowire.ConsumeVarint(b); n < 0 {
				return r, false
			}
			if field == 2 {
				r.at = time.Unix(0, int64(value)).UTC() //nolint:gosec // as it was written
			} else {
				partial = value != 0
			}
		default:
			if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
				return r, false
			}
		}
		b = b[n:]
	}
	r.partial = partial && !last
	return r, r.stream != StreamUnknown && !r.at.IsZero()
}

// isLastPart tells what PartialLogEntryMetadata does.
func isLastPart(b []byte) bool {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		if field == 1 && kind == protowire.VarintType {
			value, n := protowire.ConsumeVarint(b)
			return n > 0 && value != 0
		}
		if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
			return false
		}
		b = b[n:]
	}
	return false
}
