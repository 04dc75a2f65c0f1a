// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// hostNameOfInit asks the UTS namespace of PID 1, which takes CAP_SYS_PTRACE and CAP_SYS_ADMIN.
func hostNameOfInit(root string) (string, error) {
	init, err := os.Open(filepath.Join(root, "proc/1/ns/uts"))
	if err != nil {
		return "", err
	}
	defer init.Close()
	own, err := os.Open("/proc/self/ns/uts")
	if err != nil {
		return "", err
	}
	defer own.Close()

	type answer struct {
		name string
		err  error
	}
	told := make(chan answer)
	go func() {
		var a answer
		a.name, a.err = hostNameIn(init, own)
		told <- a
	}()
	a := <-told
	return a.name, a.err
}

// hostNameIn is for a goroutine that ends afterwards: should there be no way back from the namespace, its thread does too.
func hostNameIn(namespace, own *os.File) (string, error) {
	runtime.LockOSThread()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWUTS); err != nil {
		runtime.UnlockOSThread()
		return "", fmt.Errorf("enter %s: %w", namespace.Name(), os.NewSyscallError("setns", err))
	}
	var uts unix.Utsname
	err := unix.Uname(&uts)
	if backErr := unix.Setns(int(own.Fd()), unix.CLONE_NEWUTS); backErr != nil {
		return "", os.NewSyscallError("setns", backErr)
	}
	runtime.UnlockOSThread()
	if err != nil {
		return "", os.NewSyscallError("uname", err)
	}
	return unix.ByteSliceToString(uts.Nodename[:]), nil
}
