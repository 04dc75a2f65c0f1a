// SPDX-License-Identifier: Apache-2.0

package journal

const (
	// maxSkip is how much of a file may make no sense before the rest of it is given up.
	maxSkip = 256 << 20
	// longObject is from where on an object must be followed by another one to be believed.
	longObject = 64 << 10
)

// startWalk goes over to reading all objects, beginning behind the last intact entry.
func (f *file) startWalk() {
	f.walking, f.lost = true, true
	f.walkAt = f.hdr.size
	if f.last.seqnum != 0 {
		f.walkAt = f.last.offset + align8(f.last.size)
	}
}

// walk finds the next entry by going from object to object up to the last one, and past what is no object in steps of 8 bytes. A
// payload behind damage may look like an object to it, so entries must have higher numbers than all before.
func (f *file) walk() bool {
	for !f.gaveUp && f.walkAt <= f.hdr.tailObject {
		o, ok := f.objectAt(f.walkAt)
		if !ok {
			if f.walkAt+objectHeader > f.size || f.skipped > maxSkip {
				f.gaveUp = true
				f.damage(1)
				return false
			}
			if !f.lost {
				f.lost = true
				f.damage(1)
			}
			f.walkAt += 8
			f.skipped += 8
			continue
		}
		at := f.walkAt
		if o.kind != objectEntry {
			f.lost = false
			f.walkAt += align8(o.size)
			continue
		}
		head, err := f.entryAt(at)
		if at == f.hdr.tailObject && (err != nil || head.realtime != f.hdr.tailTime || head.monotonic != f.hdr.tailMono) {
			return false // it is just being written, or never was
		}
		f.walkAt += align8(o.size)
		if err != nil || head.seqnum <= f.last.seqnum || f.hdr.tailSeqnum != 0 && head.seqnum > f.hdr.tailSeqnum {
			f.damage(1)
			continue
		}
		f.lost = false
		f.head, f.last = head, head
		return true
	}
	return false
}

// objectAt tells whether there is an object.
func (f *file) objectAt(at uint64) (object, bool) {
	b, err := f.blocks.view(f, at, objectHeader)
	if err != nil {
		return object{}, false
	}
	o := parseObject(b)
	if !o.plausible() || o.size > f.size-at {
		return object{}, false
	}
	if o.size > longObject && at != f.hdr.tailObject {
		b, err := f.blocks.view(f, at+align8(o.size), objectHeader)
		if err != nil || !parseObject(b).plausible() {
			return object{}, false
		}
	}
	return o, true
}
