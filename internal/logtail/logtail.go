// SPDX-License-Identifier: Apache-2.0

// Package logtail follows log files through rotation and gives their lines: none lost, none given twice.
//
// A file is known by its device, inode, time of birth and hashes of its first bytes and of those before the place that was
// read to. A place is always the first byte of a record that was not given as a whole, so a line that is written in pieces
// is read again until it ends, and a Checkpoint needs no text but that of records which their writer has split.
//
// One goroutine, the one in Run, reads; memory does not grow with what is in the files. What was written and deleted between
// two looks cannot be read by anybody; what is known of that is in Stats.Lost.
package logtail

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

var (
	// ErrNotRegular reports a path that leads to a pipe, a device or a directory, which are never opened.
	ErrNotRegular = errors.New("not a regular file")
	// ErrCheckpoint reports bytes that Checkpoint did not make.
	ErrCheckpoint = errors.New("not a checkpoint of log files")
)

const (
	defaultPoll    = 200 * time.Millisecond
	defaultSilence = 5 * time.Second
	defaultMaxOpen = 1024
	defaultMaxLine = 64 << 10

	defaultGoneAfter = time.Hour
	minMaxLine       = 64
	maxMaxLine       = 16 << 20
)

// Options of a Follower. The zero value is good.
type Options struct {
	Poll    time.Duration // between two looks at a file; 0 is 200 ms. One that was idle for 50 looks is looked at in every fifth.
	Silence time.Duration // how long a rotated file is quiet before it is closed and its unfinished line given; 0 is 5 s
	MaxOpen int           // open files, and what one source has rotated, up to 256; 0 is 1024. Those that were idle longest are closed, and opened again when they grow.
	MaxLine int           // bytes of a line, 0 is 64 KiB; what is longer is cut and its end left out

	// Pace, if not nil, is called before more is read of a file, when no lines are on their way. It may wait, until ctx ends at most.
	Pace func(ctx context.Context)
	// Gone, if not nil, is called in Run when there has been nothing at the path of a source for GoneAfter, 0 is an hour, and all
	// that was there is read and closed; and after that time again. The source is followed on.
	Gone      func(key string)
	GoneAfter time.Duration
	// Forgotten, if not nil, is called in Run after the last line of a source that Forget named.
	Forgotten func(key string)
	Logger    *zap.Logger // nil says nothing
}

func (o *Options) setDefaults() {
	if o.Poll <= 0 {
		o.Poll = defaultPoll
	}
	if o.Silence <= 0 {
		o.Silence = defaultSilence
	}
	if o.MaxOpen <= 0 {
		o.MaxOpen = defaultMaxOpen
	}
	if o.MaxLine <= 0 {
		o.MaxLine = defaultMaxLine
	}
	if o.GoneAfter <= 0 {
		o.GoneAfter = defaultGoneAfter
	}
	o.MaxLine = min(max(o.MaxLine, minMaxLine), maxMaxLine)
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
}

// Format is how records stand in a file.
type Format uint8

// The formats. Those of Docker and CRI carry a time and a stream, and long messages are split by them and joined here.
const (
	Plain       Format = iota // a line is a record; a carriage return before its end is left out
	DockerJSON                // the json-file driver of Docker
	CRI                       // containerd, CRI-O, and the k8s-file driver of Podman
	DockerLocal               // the local driver of Docker, whose rotated files are only read until it has compressed them
)

// Start is where to begin in the first file at a path of which no checkpoint knows. Files that come to the path after it was
// followed are read from 0.
type Start struct {
	kind   startKind
	offset uint64
	since  int64 // wall time, ns; 0 for none
}

type startKind uint8

const (
	startEnd startKind = iota
	startAt
)

// End starts with the line that is being written when the file is found.
func End() Start { return Start{} }

// Beginning starts with the first line.
func Beginning() Start { return At(0) }

// At starts with the line that holds the byte at offset; at the first one if the file is shorter.
func At(offset uint64) Start { return Start{kind: startAt, offset: offset} }

// BeginningSince starts with the first line, after those of the files that were made since t and that rotation has renamed, or
// copied, by now. The file system must tell when files were made.
func BeginningSince(t time.Time) Start { return Start{kind: startAt, since: t.UnixNano()} }

// Source is a path to follow.
type Source struct {
	Key  string // tells sources apart, also in checkpoints
	Path string // symlinks are followed

	// Root, if not "", is a directory that Path is in, such as /proc/PID/root. No symlink leads out of it. Linux 5.6.
	Root   string
	Format Format
	Start  Start

	// Disk tells disks apart. What is on one is read by one goroutine, so that a disk that hangs holds up its own files alone.
	// 0 is the one of most files; beyond 15 others some have a goroutine together.
	Disk uint64
}

// Stream is the output that a container wrote a line to.
type Stream uint8

// The streams. Plain files have StreamUnknown.
const (
	StreamUnknown Stream = iota
	Stdout
	Stderr
	streams = 3
)

// Line is one line without its end.
type Line struct {
	Text   []byte    // any bytes but a newline at the end; valid until the function that got it returns
	Time   time.Time // in the record, of its first part if it was split; zero for plain files and where it cannot be read
	Stream Stream
	Cut    bool // was longer than Options.MaxLine
}

// Stats are totals since New, except Sources and OpenFiles.
type Stats struct {
	Sources, OpenFiles uint64

	Lines, Bytes uint64 // Bytes are those of the files: with ends of lines and what records carry besides the text
	Cut          uint64 // lines that were cut
	Invalid      uint64 // records that are not of their format, and were left out
	Rotations    uint64 // other files at the path of a source
	Truncations  uint64 // files that were cut off or written anew
	Errors       uint64 // looks that failed: not permitted, not a regular file, a disk error
	Shared       uint64 // files that were not read because another source has them already, by another name or way
	Lost         Lost
}

// Lost are bytes that were seen in a file and are gone or left unread. What was written after the last look and before the
// loss is not in these: nobody knows of it.
type Lost struct {
	Truncated uint64
	Deleted   uint64
	Abandoned uint64 // in files that were rotated too often, and past the limit of what Forget reads
}
