// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

// entry is a line of mountinfo. See Documentation/filesystems/proc.rst, "/proc/<pid>/mountinfo".
type entry struct {
	id, parent   int
	number       DeviceNumber // of the superblock; that of stat is another one on btrfs
	root         string       // without what says that it was removed
	mountPoint   string
	fsType       string
	source       string
	upper        string // upper directory of an overlay, as it was given to mount
	readOnly     bool
	projectQuota bool // sizes differ by directory
}

// removedSuffix is what the kernel appends to the path of a directory or file that is gone: no name can contain it.
const removedSuffix = "//deleted"

var errTruncatedLine = errors.New("mountinfo line ends early")

// parseMountInfoLine reads a line of mountinfo. It may be cut off within the options of the file system.
func parseMountInfoLine(line []byte) (entry, error) {
	var e entry
	var fields [6][]byte
	rest := line
	for i := range fields {
		var ok bool
		if fields[i], rest, ok = bytes.Cut(rest, []byte(" ")); !ok {
			return e, errTruncatedLine
		}
	}
	var err error
	if e.id, err = strconv.Atoi(string(fields[0])); err != nil {
		return e, fmt.Errorf("mount id: %w", err)
	}
	if e.parent, err = strconv.Atoi(string(fields[1])); err != nil {
		return e, fmt.Errorf("parent's mount id: %w", err)
	}
	if e.number, err = parseDeviceNumber(string(fields[2])); err != nil {
		return e, err
	}
	e.root = strings.TrimSuffix(unescape(fields[3]), removedSuffix)
	e.mountPoint = unescape(fields[4])
	e.readOnly = hasOption(fields[5], "ro")

	// Any number of optional fields, up to a lone hyphen.
	for {
		field, after, ok := bytes.Cut(rest, []byte(" "))
		if !ok {
			return e, errTruncatedLine
		}
		rest = after
		if string(field) == "-" {
			break
		}
	}
	fsType, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return e, errTruncatedLine
	}
	source, options, ok := bytes.Cut(rest, []byte(" ")) // source may be empty
	if !ok {
		return e, errTruncatedLine
	}
	e.fsType, e.source = unescape(fsType), unescape(source)
	e.readOnly = e.readOnly || hasOption(options, "ro")
	e.projectQuota = hasOption(options, "prjquota")
	if e.fsType == "overlay" {
		e.upper = optionValue(options, "upperdir")
	}
	return e, nil
}

// hasOption looks among options that are separated by commas. Those within values are escaped.
func hasOption(options []byte, name string) bool {
	for option := range bytes.SplitSeq(options, []byte(",")) {
		if string(option) == name {
			return true
		}
	}
	return false
}

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

// upperDirs gives what the upper directory of an overlay may be: before Linux 6.8 a backslash in the option's value could
// stand before a colon, a comma or another backslash to keep that from having a meaning.
func upperDirs(upper string) []string {
	if !strings.Contains(upper, `\`) {
		return []string{upper}
	}
	var plain strings.Builder
	for i := 0; i < len(upper); i++ {
		if upper[i] == '\\' && i+1 < len(upper) {
			i++
		}
		plain.WriteByte(upper[i])
	}
	return []string{upper, plain.String()}
}

// table is the mount table of a namespace, as a process in it sees it. It does not change.
type table struct {
	entries  []entry
	byID     map[int]*entry
	byPoint  map[string]*entry // those that paths lead to
	byNumber map[DeviceNumber][]*entry
	volumes  map[DeviceNumber][]*entry // those whose mount point is that of a volume
}

// readTable reads mountinfo. Lines that make no sense are left out. whole is false if there were too many.
func readTable(r io.Reader) (t *table, whole bool, err error) {
	t = &table{}
	lines := bufio.NewReaderSize(r, 16<<10)
	var long []byte
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, line[:min(len(line), maxMountLine-len(long))]...)
			continue
		}
		if len(long) > 0 {
			line = append(long, line[:min(len(line), maxMountLine-len(long))]...)
			long = long[:0]
		}
		if e, parseErr := parseMountInfoLine(bytes.TrimSuffix(line, []byte("\n"))); parseErr == nil {
			if len(t.entries) == maxMounts {
				break
			}
			t.entries = append(t.entries, e)
		}
		if errors.Is(err, io.EOF) {
			whole = true
			break
		}
		if err != nil {
			return nil, false, err
		}
	}
	t.index()
	return t, whole, nil
}

// index finds what is visible: paths do not lead to a mount if something is mounted over it or over a directory above it. A
// container may mount very many: no step goes through all of them for each.
func (t *table) index() {
	t.byID = make(map[int]*entry, len(t.entries))
	t.byNumber = make(map[DeviceNumber][]*entry, len(t.entries))
	t.volumes = map[DeviceNumber][]*entry{}
	for i := range t.entries {
		e := &t.entries[i]
		t.byID[e.id] = e
		t.byNumber[e.number] = append(t.byNumber[e.number], e)
		if isVolume(e.mountPoint) {
			t.volumes[e.number] = append(t.volumes[e.number], e)
		}
	}
	const outside = -1 // what the root is mounted on is not in the table
	on := make(map[int][]*entry, len(t.entries))
	for i := range t.entries {
		e := &t.entries[i]
		parent := e.parent
		if t.byID[parent] == nil || parent == e.id {
			parent = outside
		}
		on[parent] = append(on[parent], e)
	}
	t.byPoint = make(map[string]*entry, len(t.entries))
	reached := uncovered(on[outside])
	for len(reached) > 0 {
		e := reached[len(reached)-1]
		reached = reached[:len(reached)-1]
		above := on[e.id]
		delete(on, e.id) // garbage may go round in circles
		above = slices.DeleteFunc(above, func(o *entry) bool { return !isBelow(o.mountPoint, e.mountPoint) })
		above = uncovered(above)
		if len(above) == 0 || above[0].mountPoint != e.mountPoint {
			t.byPoint[e.mountPoint] = e
		}
		reached = append(reached, above...)
	}
}

// uncovered returns those of the mounts on one mount that are not below another one of them, sorted, no mount point twice.
func uncovered(on []*entry) []*entry {
	if len(on) < 2 {
		return on
	}
	// A directory comes right before what is in it if the separator sorts before all other bytes.
	type keyed struct {
		key string
		*entry
	}
	sorted := make([]keyed, len(on))
	for i, e := range on {
		sorted[i] = keyed{strings.ReplaceAll(e.mountPoint, "/", "\x00"), e}
	}
	slices.SortStableFunc(sorted, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	kept := on[:0]
	for _, e := range sorted {
		switch last := len(kept) - 1; {
		case last >= 0 && kept[last].mountPoint == e.mountPoint: // of those in the same place the last one is on top
			kept[last] = e.entry
		case last < 0 || !isBelow(e.mountPoint, kept[last].mountPoint):
			kept = append(kept, e.entry)
		}
	}
	return kept
}

func (t *table) visible(e *entry) bool { return t.byPoint[e.mountPoint] == e }

// at returns the mount on which a directory is. It is nil if there is none.
func (t *table) at(dir string) *entry {
	for {
		if e := t.byPoint[dir]; e != nil {
			return e
		}
		if dir == "/" || dir == "" {
			return nil
		}
		dir = dir[:strings.LastIndexByte(dir, '/')+1]
		if dir != "/" {
			dir = strings.TrimSuffix(dir, "/")
		}
	}
}

// under returns the mount that an entry of the table lies on, as far as paths tell.
func (t *table) under(e *entry) *entry {
	if e.mountPoint == "/" {
		return nil
	}
	return t.at(path.Dir(e.mountPoint))
}
