// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Disk tells which disk a file that the process has is on, by a number: those of one disk may be held up by it together, be it
// in this machine or a server's. It is 0 for what is in memory, for overlays, which are on the disk that most is on, and where it
// is not known.
func (f *Finder) Disk(pid int, file File) uint64 {
	if unix.Major(file.Dev) != 0 {
		return file.Dev
	}
	table, err := os.Open(f.procDir(pid) + "/mountinfo")
	if err != nil {
		return 0
	}
	defer table.Close()
	if isRemote(table, file.Dev) {
		return file.Dev
	}
	return 0
}

// isRemote looks for what is mounted of a device without a disk, and tells whether that may have to be waited for.
func isRemote(r io.Reader, device uint64) bool {
	number := strconv.Itoa(int(unix.Major(device))) + ":" + strconv.Itoa(int(unix.Minor(device)))
	lines := bufio.NewReaderSize(r, 8<<10)
	for range maxLines {
		line, err := readLine(lines)
		if err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		if m, ok := splitMount(line); ok && string(m.device) == number {
			switch string(m.fsType) {
			case "overlay", "tmpfs", "ramfs", "btrfs":
				return false
			}
			return true
		}
		if err != nil {
			return false
		}
	}
	return false
}
