// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestIsRemote(t *testing.T) {
	const table = "36 35 0:40 / / rw - overlay overlay rw\n" +
		"37 35 0:41 / /var/log/a rw shared:1 - nfs4 server:/export rw\n" +
		"38 35 0:42 / /var/log/b rw - tmpfs tmpfs rw\n" +
		"39 35 0:43 / /var/log/c rw - fuse.sshfs x rw"
	for minor, want := range map[uint32]bool{40: false, 41: true, 42: false, 43: true, 44: false} {
		if got := isRemote(strings.NewReader(table), unix.Mkdev(0, minor)); got != want {
			t.Errorf("0:%d: got %v, want %v", minor, got, want)
		}
	}
}
