// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxViews is how many views are kept, keepView for how long: mounts and symlinks may change.
	maxViews = 1024
	keepView = time.Second
)

// Finder finds log files of processes. It keeps nothing open and may be used by several goroutines at once. Linux 5.8.
type Finder struct {
	options Options
	now     func() time.Time

	mu    sync.Mutex // of views; what is in a view does not change
	views map[viewKey]*view

	descriptors, files, mounts atomic.Uint64
}

// New returns a Finder. It asks nothing of the host yet.
func New(o Options) *Finder {
	o.setDefaults()
	return &Finder{options: o, now: time.Now, views: map[viewKey]*view{}}
}

// Stats returns what was left out so far.
func (f *Finder) Stats() Stats {
	return Stats{Descriptors: f.descriptors.Load(), Files: f.files.Load(), Mounts: f.mounts.Load()}
}

func (f *Finder) procDir(pid int) string { return f.options.ProcRoot + "/" + strconv.Itoa(pid) }

// process is what is open of a process while it is looked at. Its number cannot come to mean another process meanwhile.
type process struct {
	dir  int // in /proc
	root int // its root directory
	key  viewKey
}

// look opens a process and finds its view, with targets if they are wanted. The error is unix.ENOENT or unix.ESRCH if there is no
// such process, or only what its parent has not waited for.
func (f *Finder) look(pid int, withTargets bool) (*process, *view, error) {
	p, err := f.openProcess(pid)
	if err != nil {
		return nil, nil, err
	}
	var v *view
	for range 3 { // a runtime changes the root directory of a process before it runs a program
		if v, err = f.viewOf(p, withTargets); err == nil {
			return p, v, nil
		}
		if !errors.Is(err, errRootChanged) {
			break
		}
		if err = p.openRoot(); err != nil {
			break
		}
	}
	p.close()
	return nil, nil, err
}

func (f *Finder) openProcess(pid int) (*process, error) {
	dir, err := unix.Open(f.procDir(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	p := &process{dir: dir, root: -1}
	if err := p.openRoot(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *process) openRoot() (err error) {
	if p.root >= 0 {
		unix.Close(p.root)
	}
	if p.root, err = unix.Openat(p.dir, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		p.key, err = viewKeyAt(p.root, "")
	}
	return err
}

func (p *process) close() {
	unix.Close(p.dir)
	if p.root >= 0 {
		unix.Close(p.root)
	}
}

var errRootChanged = errors.New("root directory changed")

// hasGone tells that an error means the end of a process.
func hasGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

const statxMask = unix.STATX_TYPE | unix.STATX_INO | unix.STATX_SIZE | unix.STATX_CTIME | unix.STATX_BTIME | unix.STATX_MNT_ID

// openIn opens what a path without symlinks leads to in the root directory of the process.
func (p *process) openIn(path string, flags, resolve uint64) (int, error) {
	for len(path) > 0 && path[0] == '/' {
		path = path[1:]
	}
	if path == "" {
		path = "."
	}
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | flags,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve,
	}
	for range 10 { // a rename or a mount somewhere in the system may be in the way
		fd, err := unix.Openat2(p.root, path, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// stat tells what a path without symlinks leads to in the root directory of the process.
func (p *process) stat(path string) (x unix.Statx_t, err error) {
	fd, err := p.openIn(path, unix.O_NOFOLLOW, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return x, err
	}
	defer unix.Close(fd)
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, statxMask, &x)
	return x, err
}

func isRegular(x *unix.Statx_t) bool { return x.Mode&unix.S_IFMT == unix.S_IFREG }

func (f *Finder) newFile(pid int, path string, x *unix.Statx_t) File {
	file := File{
		Path: path, Root: f.procDir(pid) + "/root", Dev: unix.Mkdev(x.Dev_major, x.Dev_minor), Inode: x.Ino, Size: x.Size,
	}
	if x.Mask&unix.STATX_BTIME != 0 {
		file.Born = time.Unix(x.Btime.Sec, int64(x.Btime.Nsec))
	}
	return file
}

// viewKeyAt returns the key of the view of a process whose root directory it is given.
func viewKeyAt(dir int, path string) (viewKey, error) {
	flags := unix.AT_STATX_DONT_SYNC
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var x unix.Statx_t
	if err := unix.Statx(dir, path, flags, unix.STATX_INO|unix.STATX_MNT_ID, &x); err != nil {
		return viewKey{}, err
	}
	if x.Mask&unix.STATX_MNT_ID == 0 {
		return viewKey{}, fmt.Errorf("statx tells no mount, needs Linux 5.8: %w", errors.ErrUnsupported)
	}
	return viewKey{mount: x.Mnt_id, dev: unix.Mkdev(x.Dev_major, x.Dev_minor), inode: x.Ino}, nil
}
