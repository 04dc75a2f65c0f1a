// SPDX-License-Identifier: Apache-2.0

package logfiles

import "strings"

// otherLogs are directories whose files are logs that are read in another way.
var otherLogs = []string{"/var/log/pods/", "/var/log/containers/", "/var/log/journal/"}

var (
	notLogNames    = []string{"wtmp", "btmp", "lastlog", "utmp", "faillog"}
	notLogSuffixes = []string{
		".gz", ".xz", ".bz2", ".zst", ".lz4", ".zip", ".journal", ".db", ".pid", ".lock", ".sock", ".swp", ".pos",
	}
)

// mayBeLog tells by the name of a file, or its path, that it is none.
func mayBeLog(name string) bool {
	name = name[strings.LastIndexByte(name, '/')+1:]
	if name == "" || strings.Contains(name, ".sqlite") { // .sqlite3, .sqlite-wal
		return false
	}
	for _, n := range notLogNames {
		if name == n {
			return false
		}
	}
	for _, s := range notLogSuffixes {
		if strings.HasSuffix(name, s) {
			return false
		}
	}
	return true
}

// isReadElsewhere tells whether a file below a root is in one of otherLogs. The root is as it was given: the directory that it
// leads to may be called anything, and a prefix may stand before it.
func isReadElsewhere(root, rest string) bool {
	whole := root + "/" + rest
	for _, dir := range otherLogs {
		if strings.Contains(whole, dir) {
			return true
		}
	}
	return false
}
