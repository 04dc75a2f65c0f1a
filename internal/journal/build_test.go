// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// builder makes journal files in all shapes, also those that no systemd at hand writes.
type builder struct {
	compact, keyed bool
	compression    byte // flag of data objects
	seqnum         uint64
	machine, id    ID // of the file and its sequence
	boot           ID

	file    []byte
	data    map[string]uint64
	arrays  []uint64 // of the chain
	slot    int      // of the last one
	entries int
	tail    uint64
}

const builderHeader = 272

func newBuilder(compact, keyed bool, compression byte) *builder {
	b := &builder{compact: compact, keyed: keyed, compression: compression, data: map[string]uint64{}}
	b.machine, b.id, b.boot = ID{1}, ID{2, 3}, ID{4}
	b.file = make([]byte, builderHeader)
	copy(b.file, signature)
	flags := map[byte]uint32{0: 0, flagXZ: incompatibleXZ, flagLZ4: incompatibleLZ4, flagZstd: incompatibleZstd}[compression]
	if compact {
		flags |= incompatibleCompact
	}
	if keyed {
		flags |= incompatibleKeyed
	}
	le := binary.LittleEndian
	le.PutUint32(b.file[12:], flags)
	copy(b.file[40:], b.machine[:])
	b.setID(b.id)
	le.PutUint64(b.file[88:], builderHeader)
	const buckets = 64
	table := b.object(4, 0, make([]byte, buckets*16))
	le.PutUint64(b.file[104:], table+16)
	le.PutUint64(b.file[112:], buckets*16)
	table = b.object(5, 0, make([]byte, buckets*16))
	le.PutUint64(b.file[120:], table+16)
	le.PutUint64(b.file[128:], buckets*16)
	return b
}

// setID changes the id of the file and its sequence. It must come before the first entry, whose hashes it keys.
func (b *builder) setID(id ID) {
	b.id = id
	copy(b.file[24:], id[:])
	copy(b.file[72:], id[:])
}

// object appends an object and returns its offset.
func (b *builder) object(kind, flags byte, rest []byte) uint64 {
	le := binary.LittleEndian
	offset := uint64(len(b.file))
	b.file = append(b.file, kind, flags, 0, 0, 0, 0, 0, 0)
	b.file = le.AppendUint64(b.file, uint64(len(rest))+objectHeader)
	b.file = append(b.file, rest...)
	for len(b.file)%8 != 0 {
		b.file = append(b.file, 0)
	}
	b.tail = offset
	return offset
}

func (b *builder) payload(payload string) uint64 {
	le := binary.LittleEndian
	h := header{keyed: b.keyed, fileID: b.id}
	if at, ok := b.data[payload]; ok {
		le.PutUint64(b.file[at+56:], le.Uint64(b.file[at+56:])+1)
		return at
	}
	rest := le.AppendUint64(nil, h.hash([]byte(payload)))
	rest = append(rest, make([]byte, 32)...)
	rest = le.AppendUint64(rest, 1)
	if b.compact {
		rest = append(rest, make([]byte, 8)...)
	}
	flags := byte(0)
	packed := []byte(payload)
	if b.compression != 0 && len(payload) >= 512 {
		flags, packed = b.compression, pack(packed, b.compression)
	}
	at := b.object(objectData, flags, append(rest, packed...))
	b.data[payload] = at
	return at
}

// entry appends an entry with payloads "NAME=value" and returns its offset.
func (b *builder) entry(realtime uint64, payloads ...string) uint64 {
	le := binary.LittleEndian
	h := header{keyed: b.keyed, fileID: b.id}
	b.seqnum++
	rest := le.AppendUint64(nil, b.seqnum)
	rest = le.AppendUint64(rest, realtime)
	rest = le.AppendUint64(rest, realtime/2)
	rest = append(rest, b.boot[:]...)
	xor := uint64(0)
	var items []byte
	var data []uint64
	for _, p := range payloads {
		xor ^= jenkins([]byte(p))
		at := b.payload(p)
		data = append(data, at)
		if b.compact {
			items = le.AppendUint32(items, uint32(at))
		} else {
			items = le.AppendUint64(items, at)
			items = le.AppendUint64(items, h.hash([]byte(p)))
		}
	}
	rest = append(le.AppendUint64(rest, xor), items...)
	at := b.object(objectEntry, 0, rest)
	for _, d := range data {
		if le.Uint64(b.file[d+40:]) == 0 {
			le.PutUint64(b.file[d+40:], at)
		}
	}
	b.link(at)
	if b.entries == 1 {
		le.PutUint64(b.file[168:], b.seqnum)
		le.PutUint64(b.file[184:], realtime)
	}
	copy(b.file[56:], b.boot[:])
	le.PutUint64(b.file[96:], uint64(len(b.file)-builderHeader))
	le.PutUint64(b.file[136:], b.tail)
	le.PutUint64(b.file[152:], uint64(b.entries))
	le.PutUint64(b.file[160:], b.seqnum)
	le.PutUint64(b.file[192:], realtime)
	le.PutUint64(b.file[200:], realtime/2)
	return at
}

func (b *builder) link(entry uint64) {
	le := binary.LittleEndian
	width := 8
	if b.compact {
		width = 4
	}
	size := 4 << len(b.arrays) / 2 // of the last array
	if len(b.arrays) == 0 || b.slot == size {
		size = 4 << (len(b.arrays) + 1) / 2
		at := b.object(objectArray, 0, make([]byte, 8+size*width))
		if len(b.arrays) == 0 {
			le.PutUint64(b.file[176:], at)
		} else {
			le.PutUint64(b.file[b.arrays[len(b.arrays)-1]+16:], at)
		}
		b.arrays, b.slot = append(b.arrays, at), 0
	}
	at := int(b.arrays[len(b.arrays)-1]) + arrayHeader + b.slot*width
	if b.compact {
		le.PutUint32(b.file[at:], uint32(entry))
	} else {
		le.PutUint64(b.file[at:], entry)
	}
	b.slot++
	b.entries++
}

func pack(payload []byte, compression byte) []byte {
	switch compression {
	case flagZstd:
		w, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		defer w.Close()
		return w.EncodeAll(payload, nil)
	case flagXZ:
		var out bytes.Buffer
		w, _ := xz.WriterConfig{DictCap: 1 << 20, CheckSum: xz.None, NoCheckSum: true}.NewWriter(&out)
		w.Write(payload)
		w.Close()
		return out.Bytes()
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(payload))), packLZ4(payload)...)
}

// packLZ4 finds runs of one byte and of a period of 7, which is what the tests write.
func packLZ4(p []byte) []byte {
	var out []byte
	sequence := func(literals []byte, back, length int) {
		token := byte(min(len(literals), 15) << 4)
		if back > 0 {
			token |= byte(min(length-4, 15))
		}
		out = append(out, token)
		out = appendLZ4Length(out, len(literals))
		out = append(out, literals...)
		if back > 0 {
			out = append(out, byte(back), byte(back>>8))
			out = appendLZ4Length(out, length-4)
		}
	}
	begin := 0
	for at := 8; at+16 < len(p); at++ {
		for _, back := range []int{1, 7} {
			n := 0
			for at+n < len(p)-8 && p[at+n] == p[at+n-back] {
				n++
			}
			if n >= 4 {
				sequence(p[begin:at], back, n)
				at += n
				begin = at
			}
		}
	}
	sequence(p[begin:], 0, 0)
	return out
}

func appendLZ4Length(out []byte, n int) []byte {
	if n < 15 {
		return out
	}
	for n -= 15; n >= 255; n -= 255 {
		out = append(out, 255)
	}
	return append(out, byte(n))
}

// randomText compresses to about half.
func randomText(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefgh \n"[r.IntN(10)]
	}
	return string(b)
}

func TestUnpackGivesWhatWasPacked(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var u unpacker
	defer u.close()
	for _, size := range []int{1, 15, 300, 5000, 20_000} {
		text := []byte("MESSAGE=" + randomText(random, size) + string(bytes.Repeat([]byte("x"), size)) + randomText(random, 20))
		for _, flags := range []byte{flagZstd, flagLZ4, flagXZ} {
			packed := pack(text, flags)
			for _, limit := range []int{1, 257, 4096, len(text) - 1, len(text), 2 * len(text)} {
				want := append([]byte("before"), text[:min(limit, len(text))]...)
				got, err := u.unpack([]byte("before"), packed, flags, limit, true)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("compression %d, %d bytes, limit %d: got %d bytes, %v; want %d", flags, len(text), limit, len(got), err, len(want))
				}
			}
			cut, err := u.unpack(nil, packed[:len(packed)-len(packed)/3-1], flags, len(text), true)
			if err == nil {
				t.Errorf("compression %d, %d bytes: cut to %d without an error", flags, len(text), len(cut))
			}
		}
	}
}
