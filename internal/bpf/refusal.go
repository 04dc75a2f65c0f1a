// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

var (
	// ErrNotSupported reports that this kernel lacks what a feature needs. It is an errors.ErrUnsupported.
	ErrNotSupported error = &refusal{text: "not supported by this kernel", kind: errors.ErrUnsupported}
	// ErrNotPermitted reports that the process lacks the privileges that a feature needs. It is an fs.ErrPermission.
	ErrNotPermitted error = &refusal{text: "not permitted", kind: fs.ErrPermission}
)

// refusal is an error of a general kind with a text of its own.
type refusal struct {
	text string
	kind error
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

// minKernel is what our objects need: atomic compare-and-exchange in programs, which not every architecture
// had at once. Socket storage in tracing programs came with 5.11.
func minKernel() (major, minor int) {
	if runtime.GOARCH == "arm64" {
		return 5, 18
	}
	return 5, 12
}

// explain turns what the library says of a refused program into one line that names the fix. The library's own text
// guesses at RLIMIT_MEMLOCK, which plays no part since Linux 5.11.
func explain(err error) error {
	if err == nil {
		return nil
	}
	release := kernelRelease()
	var verifier *ebpf.VerifierError
	switch {
	case errors.Is(err, ErrNotSupported), errors.Is(err, ErrNotPermitted):
		return err
	case olderThanMin(release):
		major, minor := minKernel()
		return fmt.Errorf("%w: Linux %s, needs %d.%d or later", ErrNotSupported, release, major, minor)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES) && !errors.As(err, &verifier):
		return fmt.Errorf("%w: needs root, or CAP_BPF and CAP_PERFMON", ErrNotPermitted)
	case noKernelBTF():
		return fmt.Errorf("%w: Linux %s is built without BTF (CONFIG_DEBUG_INFO_BTF)", ErrNotSupported, release)
	case errors.As(err, &verifier), errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: Linux %s: %s", ErrNotSupported, release, firstLine(err))
	}
	return err
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func noKernelBTF() bool {
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	return errors.Is(err, fs.ErrNotExist)
}

func olderThanMin(release string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return false
	}
	minMajor, minMinor := minKernel()
	return major < minMajor || major == minMajor && minor < minMinor
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "of unknown version"
	}
	return unix.ByteSliceToString(u.Release[:])
}
