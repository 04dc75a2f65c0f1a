// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz/lzma"
)

// compressedSlack is how much of a compressed payload is needed besides what it unpacks to: a block of zstd is 128 KiB at most, a
// chunk of LZMA2 64 KiB.
const compressedSlack = 256 << 10

// maxDictionary is the largest window or dictionary that a payload may need. journald's are 2 MiB at most.
const maxDictionary = 8 << 20

// unpacker unpacks the payloads of data objects. It gives the first bytes of a payload of any size.
type unpacker struct {
	zstd *zstd.Decoder
	in   bytes.Reader
}

func (u *unpacker) close() {
	if u.zstd != nil {
		u.zstd.Close()
	}
}

// unpack appends up to limit bytes of the payload to dst. whole tells that packed is all of it: an end in its middle is then damage.
func (u *unpacker) unpack(dst, packed []byte, flags byte, limit int, whole bool) ([]byte, error) {
	var err error
	start := len(dst)
	switch flags {
	case flagZstd:
		dst, err = u.unpackZstd(dst, packed, limit)
	case flagLZ4:
		dst, err = unpackLZ4(dst, packed, limit)
	case flagXZ:
		dst, err = u.unpackXZ(dst, packed, limit)
	default:
		return dst, fmt.Errorf("compression %#x: %w", flags, errDamaged)
	}
	if err != nil && (whole || len(dst)-start < limit) {
		return dst[:start], fmt.Errorf("%w: %w", errDamaged, err)
	}
	return dst, nil
}

func (u *unpacker) unpackZstd(dst, packed []byte, limit int) ([]byte, error) {
	u.in.Reset(packed)
	if u.zstd == nil {
		// Concurrency 1 starts no goroutine.
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary))
		if err != nil {
			return dst, err
		}
		u.zstd = d
	}
	if err := u.zstd.Reset(&u.in); err != nil {
		return dst, err
	}
	return readUpTo(dst, u.zstd, limit)
}

// unpackXZ knows the one shape that journald writes: a stream with one block and no filter but LZMA2. What reads whole xz files
// makes room for whatever dictionary a block asks for; journald asks for 1 MiB.
func (u *unpacker) unpackXZ(dst, packed []byte, limit int) ([]byte, error) {
	if len(packed) < 14 || string(packed[:6]) != "\xfd7zXZ\x00" {
		return dst, errors.New("no xz stream")
	}
	end := 12 + (int(packed[12])+1)*4
	if packed[12] == 0 || end > len(packed) || packed[13]&0x3f != 0 {
		return dst, errors.New("xz stream without a block of one filter")
	}
	filter, size := packed[14:end-4], uint64(maxDictionary)
	for _, has := range []byte{0x40, 0x80} { // packed size, unpacked size
		if packed[13]&has != 0 {
			v, n := binary.Uvarint(filter)
			if n <= 0 {
				return dst, errors.New("xz block with a bad size")
			}
			filter = filter[n:]
			if has == 0x80 {
				size = v
			}
		}
	}
	if len(filter) < 3 || filter[0] != 0x21 || filter[1] != 1 || filter[2] > 40 {
		return dst, errors.New("xz block of another filter than LZMA2")
	}
	size = min(size, maxDictionary, uint64(2|filter[2]&1)<<(filter[2]/2+11))
	u.in.Reset(packed[end:])
	r, err := lzma.Reader2Config{DictCap: max(lzma.MinDictCap, int(size))}.NewReader2(&u.in)
	if err != nil {
		return dst, err
	}
	return readUpTo(dst, r, limit)
}

func readUpTo(dst []byte, r io.Reader, limit int) ([]byte, error) {
	idle := 0
	for end := len(dst) + limit; len(dst) < end; {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := r.Read(dst[len(dst):min(cap(dst), end)])
		dst = dst[:len(dst)+n]
		if idle++; n > 0 {
			idle = 0
		}
		if errors.Is(err, io.EOF) {
			return dst, nil
		}
		if err == nil && idle > 100 {
			err = io.ErrNoProgress
		}
		if err != nil {
			return dst, err
		}
	}
	return dst, nil
}

var errLZ4 = errors.New("bad lz4 block")

// unpackLZ4 reads a block of LZ4 behind its unpacked size (8 bytes). A library would need room for all of it; see
// lz4_Block_format.md of the LZ4 project.
func unpackLZ4(dst, packed []byte, limit int) ([]byte, error) {
	if len(packed) < 9 {
		return dst, errLZ4
	}
	size := binary.LittleEndian.Uint64(packed)
	in := packed[8:]
	start, end := len(dst), len(dst)+limit
	if size < uint64(limit) {
		end = len(dst) + int(size)
	}
	for len(dst) < end {
		if len(in) == 0 {
			return dst, errLZ4
		}
		token := in[0]
		literals, rest, ok := lz4Length(in[1:], token>>4)
		if !ok || literals > len(rest) && len(rest) < end-len(dst) {
			return dst, errLZ4
		}
		take := min(literals, len(rest), end-len(dst))
		dst = append(dst, rest[:take]...)
		if len(dst) == end {
			return dst, nil
		}
		in = rest[literals:]
		if len(in) < 2 {
			return dst, errLZ4
		}
		back := int(binary.LittleEndian.Uint16(in))
		length, rest, ok := lz4Length(in[2:], token&15)
		if !ok || back == 0 || back > len(dst)-start {
			return dst, errLZ4
		}
		in = rest
		for n := min(length+4, end-len(dst)); n > 0; {
			from := len(dst) - back
			part := min(n, back)
			dst = append(dst, dst[from:from+part]...)
			n -= part
		}
	}
	return dst, nil
}

// lz4Length reads the rest of a length whose first four bits are in the token.
func lz4Length(in []byte, nibble byte) (int, []byte, bool) {
	n := int(nibble)
	if nibble < 15 {
		return n, in, true
	}
	for i, c := range in {
		n += int(c)
		if c != 255 {
			return n, in[i+1:], true
		}
	}
	return 0, nil, false
}
