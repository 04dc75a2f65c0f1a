// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxLines is how many lines of a mount table are read, maxLine how much of one, maxMounts how many mounts of it are kept.
	maxLines  = 16 << 10
	maxLine   = 256 << 10
	maxMounts = 256
)

// mount is a line of a mount table. See Documentation/filesystems/proc.rst, "/proc/<pid>/mountinfo".
type mount struct {
	id     uint64
	device uint64 // of the superblock, as unix.Mkdev makes it
	root   string // path in the file system of what is mounted; "" is its root
	point  string // as the process sees it; "" is its root
	upper  string // upper directory of an overlay, as it was given to mount

	overlay bool
}

// mountFields are the fields of a line as they stand there.
type mountFields struct{ id, device, root, point, fsType, options []byte }

// splitMount splits a line, which may be cut off within the options of the file system.
func splitMount(line []byte) (m mountFields, ok bool) {
	var parent, ofMount, optional, source []byte
	for _, field := range []*[]byte{&m.id, &parent, &m.device, &m.root, &m.point, &ofMount} {
		if *field, line, ok = bytes.Cut(line, []byte(" ")); !ok {
			return m, false
		}
	}
	for string(optional) != "-" { // any number of them, up to a lone hyphen
		if optional, line, ok = bytes.Cut(line, []byte(" ")); !ok {
			return m, false
		}
	}
	if m.fsType, line, ok = bytes.Cut(line, []byte(" ")); !ok {
		return m, false
	}
	source, m.options, ok = bytes.Cut(line, []byte(" ")) // source may be empty
	_ = source
	return m, ok
}

// removedSuffix is what the kernel appends to the path of what is gone: no name can contain it.
const removedSuffix = "//deleted"

// mount makes sense of the fields.
func (m *mountFields) mount() (mount, bool) {
	id, err := strconv.ParseUint(string(m.id), 10, 64)
	if err != nil {
		return mount{}, false
	}
	first, second, _ := strings.Cut(string(m.device), ":")
	major, err := strconv.ParseUint(first, 10, 32)
	if err != nil {
		return mount{}, false
	}
	minor, err := strconv.ParseUint(second, 10, 32)
	if err != nil {
		return mount{}, false
	}
	made := mount{
		id: id, device: unix.Mkdev(uint32(major), uint32(minor)), overlay: string(m.fsType) == "overlay",
		root:  strings.TrimSuffix(strings.TrimSuffix(unescape(m.root), removedSuffix), "/"),
		point: strings.TrimSuffix(unescape(m.point), "/"),
	}
	if made.overlay {
		made.upper = optionValue(m.options, "upperdir")
	}
	// What is mounted of nsfs and the like has no path.
	return made, (made.root == "" || made.root[0] == '/') && (made.point == "" || made.point[0] == '/')
}

// optionValue looks among options that are separated by commas. Those within values are escaped.
func optionValue(options []byte, name string) string {
	for option := range bytes.SplitSeq(options, []byte(",")) {
		if key, value, ok := bytes.Cut(option, []byte("=")); ok && string(key) == name {
			return unescape(value)
		}
	}
	return ""
}

// unescape replaces a backslash and three octal digits by what they stand for, as the kernel writes spaces, tabs, newlines,
// backslashes and, in some places, # and commas.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) {
			if n, err := strconv.ParseUint(string(b[i+1:i+4]), 8, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}

// readMounts reads the mounts on whose files the roots are, and those below the roots. left is how many are left out.
func (p *process) readMounts(roots []root) (mounts []mount, left int, err error) {
	fd, err := unix.Openat(p.dir, "mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	file := os.NewFile(uintptr(fd), "mountinfo")
	defer file.Close()
	return selectMounts(file, roots)
}

func selectMounts(r io.Reader, roots []root) (mounts []mount, left int, err error) {
	lines := bufio.NewReaderSize(r, 8<<10)
	for range maxLines {
		line, err := readLine(lines)
		atEnd := errors.Is(err, io.EOF)
		if err != nil && !atEnd {
			return nil, 0, err
		}
		fields, ok := splitMount(line)
		if ok && mayConcern(fields.point, roots) {
			switch m, ok := fields.mount(); {
			case !ok || !slices.ContainsFunc(roots, m.concerns):
			case len(mounts) < maxMounts:
				mounts = append(mounts, m)
			default:
				left++
			}
		}
		if atEnd {
			break
		}
	}
	return mounts, left, nil
}

// readLine reads a line without its end, of which no more than maxLine is kept.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	var long []byte
	for ; errors.Is(err, bufio.ErrBufferFull); line, err = r.ReadSlice('\n') {
		long = append(long, line[:min(len(line), maxLine-len(long))]...)
	}
	if long != nil {
		line = append(long, line[:min(len(line), maxLine-len(long))]...)
	}
	return bytes.TrimSuffix(line, []byte("\n")), err
}

// mayConcern is what can be told of a mount point, as it stands in the table, without making a string of it.
func mayConcern(point []byte, roots []root) bool {
	for i := range roots {
		dir := roots[i].dir
		n := min(len(point), len(dir))
		if string(point[:n]) == dir[:n] || len(point) == 1 || bytes.IndexByte(point, '\\') >= 0 {
			return true
		}
	}
	return false
}

// concerns tells whether the mount is below a root, or the root below it.
func (m *mount) concerns(r root) bool {
	_, above := cutDir(r.dir, m.point)
	_, below := cutDir(m.point, r.dir)
	return above || below
}
