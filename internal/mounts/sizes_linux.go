// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"context"
	"errors"
	"math"
	"math/bits"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// sizesDeadline is how long Sizes waits for all that it asks.
	sizesDeadline = hungAfter
	// maxAsked is how many containers, and how many processes of each, are tried where a file system is seen by many.
	maxAskedContainers = 32
	maxAskedProcesses  = 4
)

// Sizes tells how full the mounts of some containers are: one result for each request, with one Usage for each of its Mounts.
// What does not answer within 200 ms, or before ctx ends, is not Known; others do not wait for it longer than that. Each file
// system is asked once for all mounts that are SizedBy the same.
//
// The error is ErrClosed.
func (r *Reader) Sizes(ctx context.Context, requests []SizeRequest) ([][]Usage, error) {
	var order []*sizeGroup
	groups := map[string]*sizeGroup{}
	for i := range requests {
		for j := range requests[i].Mounts {
			m := &requests[i].Mounts[j]
			g := groups[m.SizedBy]
			if g == nil {
				g = &sizeGroup{}
				groups[m.SizedBy] = g
				order = append(order, g)
			}
			g.members = append(g.members, member{requests[i].PIDs, m, i, j})
		}
	}
	questions := make([]*call, len(order))
	for i, g := range order {
		first := g.members[0].mount
		ask := g.members[:min(len(g.members), maxAskedContainers)]
		questions[i] = &call{key: first.SizedBy, mayHang: mayHang(first.FSType), run: func() answer { return r.askOne(ask) }}
	}
	ctx, cancel := context.WithTimeout(ctx, sizesDeadline)
	defer cancel()
	started, err := r.calls.start(questions)
	if err != nil {
		return nil, err
	}
	results := make([][]Usage, len(requests))
	for i := range requests {
		results[i] = make([]Usage, len(requests[i].Mounts))
	}
	for i, answered := range r.calls.finish(ctx, started) {
		members := order[i].members
		switch {
		case !answered:
			r.slowSizes.Add(uint64(len(members)))
		case started[i].answer.refused:
			r.failedSizes.Add(uint64(len(members)))
		default:
			for _, m := range members {
				results[m.request][m.index] = started[i].answer.usage
			}
		}
	}
	return results, nil
}

// sizeGroup is mounts that have the same sizes.
type sizeGroup struct{ members []member }

type member struct {
	pids           func() []int
	mount          *Mount
	request, index int
}

// askOne asks through one process after the other, since any may be gone by now.
func (r *Reader) askOne(members []member) answer {
	for _, m := range members {
		if m.pids == nil {
			continue
		}
		pids := m.pids()
		for _, pid := range pids[:min(len(pids), maxAskedProcesses)] {
			var st unix.Statfs_t
			err := r.withMount(pid, m.mount, func(fd int) error { return unix.Fstatfs(fd, &st) })
			if err == nil {
				usage := usageOf(&st)
				return answer{usage: usage, refused: !usage.Known}
			}
		}
	}
	return answer{refused: true}
}

// usageOf reads what a file system says, which may be a program of somebody else's.
func usageOf(st *unix.Statfs_t) Usage {
	unit := uint64(max(st.Frsize, 0))
	if unit == 0 {
		unit = uint64(max(st.Bsize, 0))
	}
	if high, size := bits.Mul64(st.Blocks, unit); high != 0 || size == 0 || size > math.MaxInt64 {
		return Usage{}
	}
	free := min(st.Bfree, st.Blocks)
	return Usage{
		Size:     st.Blocks * unit,
		Used:     (st.Blocks - free) * unit,
		Reserved: (free - min(st.Bavail, free)) * unit,
		Known:    true,
	}
}

var errOtherMount = errors.New("another mount is there")

// withMount opens a mount through the root directory of a process, without following links: they are the container's, and
// a mount point has none. Nothing but the mount itself is accepted.
func (r *Reader) withMount(pid int, m *Mount, use func(fd int) error) error {
	root, err := unix.Open(filepath.Join(r.procDir(pid), "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	fd := root
	if m.MountPoint != "/" {
		if fd, err = r.openBelow(root, strings.TrimPrefix(m.MountPoint, "/")); err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	id, _, number, err := mountIDOf(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	// Each subvolume of a btrfs has a number of its own there.
	if id != 0 && id != m.ID || id == 0 && number != m.Number && m.FSType != "btrfs" {
		return errOtherMount
	}
	return use(fd)
}

// openBelow opens a path without links below a directory. Before Linux 5.6, or where a filter of system calls refuses openat2,
// it goes step by step.
func (r *Reader) openBelow(root int, path string) (int, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if !r.noOpenat2.Load() {
		fd, err := unix.Openat2(root, path, &unix.OpenHow{
			Flags:   flags,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
			return fd, err
		}
		if errors.Is(err, unix.ENOSYS) {
			r.noOpenat2.Store(true)
		}
	}
	return openSteps(root, path, flags)
}

func openSteps(root int, path string, flags int) (int, error) {
	dir := root
	for step := range strings.SplitSeq(path, "/") {
		if step == "" || step == "." || step == ".." {
			return -1, unix.EINVAL // no mount table says so
		}
		// O_PATH opens a link itself: looking for the next step in it then fails, as it is no directory.
		fd, err := unix.Openat(dir, step, flags, 0)
		if dir != root {
			unix.Close(dir)
		}
		if err != nil {
			return -1, err
		}
		dir = fd
	}
	return dir, nil
}

// isDirectory tells of a mount whether it is one, and not a file that was mounted.
func (r *Reader) isDirectory(pid int, m *Mount) answer {
	var a answer
	err := r.withMount(pid, m, func(fd int) error {
		_, mode, _, err := mountIDOf(fd, "", unix.AT_EMPTY_PATH)
		a.isDir = mode&unix.S_IFMT == unix.S_IFDIR
		return err
	})
	a.refused = err != nil
	return a
}

// findUpper finds the mount of the upper directory of an overlay by going there, and whether the overlay has its size: if not,
// the directory has a quota, or it is another one of that name.
func (r *Reader) findUpper(pid int, m *Mount, upper string) answer {
	for _, dir := range upperDirs(upper) {
		if !filepath.IsAbs(dir) {
			continue
		}
		dir = filepath.Join(r.opts.HostRoot, dir)
		id, _, number, err := mountIDOf(unix.AT_FDCWD, dir, 0)
		if err != nil {
			continue
		}
		var merged, below unix.Statfs_t
		err = errors.Join(
			unix.Statfs(dir, &below),
			r.withMount(pid, m, func(fd int) error { return unix.Fstatfs(fd, &merged) }),
		)
		same := err == nil && merged.Blocks == below.Blocks && merged.Bsize == below.Bsize
		return answer{id: id, number: number, sameSize: same}
	}
	return answer{refused: true}
}
