// SPDX-License-Identifier: Apache-2.0

package apptype

import (
	"bytes"
	"strings"
)

// maxArgs bounds what a command line of two million empty arguments costs.
const maxArgs = 4096

// ParseCmdline reads /proc/PID/cmdline, whole or cut off, and returns the arguments, nil for none. Bytes that are not
// UTF-8 become U+FFFD. What follows the first 4096 arguments is left out.
//
// Arguments end in NUL. A process that has overwritten them with a title ("nginx: worker process") leaves one string with
// spaces, padded with NUL or spaces; it is cut at its spaces. The path of a program that has spaces in it and no arguments
// looks the same and is cut as well.
func ParseCmdline(b []byte) []string {
	b = bytes.TrimRight(b, "\x00")
	if len(b) == 0 {
		return nil
	}
	s := strings.ToValidUTF8(string(b), "\uFFFD")
	if !strings.Contains(s, "\x00") && strings.Contains(s, " ") {
		args := strings.Fields(s)
		if len(args) == 0 {
			return nil
		}
		return args[:min(len(args), maxArgs)]
	}
	args := strings.SplitN(s, "\x00", maxArgs+1)
	return args[:min(len(args), maxArgs)]
}
