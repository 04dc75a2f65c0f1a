// SPDX-License-Identifier: Apache-2.0

package logtail

import "bytes"

// parseCRI reads a record as the kubelet reads them: time, stream, tags parted by colons of which the first is P for a part and
// F for the last one, and the text as it was written.
func parseCRI(b []byte) (record, bool) {
	at, b, ok := cutSpace(b)
	if !ok {
		return record{}, false
	}
	stream, b, ok := cutSpace(b)
	if !ok {
		return record{}, false
	}
	tags, text, ok := cutSpace(b)
	if !ok {
		tags, text = b, nil // an empty line may be written without the space
	}
	r := record{text: text}
	if r.at, ok = parseTime(at); !ok {
		return record{}, false
	}
	if r.stream = parseStream(stream); r.stream == StreamUnknown || len(tags) == 0 || (len(tags) > 1 && tags[1] != ':') {
		return record{}, false
	}
	switch tags[0] {
	case 'F':
	case 'P':
		r.partial = true
	default:
		return record{}, false
	}
	return r, true
}

// cutSpace is bytes.Cut, which does not find a single byte as fast.
func cutSpace(b []byte) (before, after []byte, ok bool) {
	i := bytes.IndexByte(b, ' ')
	if i < 0 {
		return b, nil, false
	}
	return b[:i], b[i+1:], true
}

func parseStream(b []byte) Stream {
	switch string(b) {
	case "stdout":
		return Stdout
	case "stderr":
		return Stderr
	}
	return StreamUnknown
}
