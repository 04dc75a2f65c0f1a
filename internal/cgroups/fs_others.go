// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package cgroups

import (
	"context"
	"errors"
	"fmt"
)

// FS is the cgroup file systems of a host, which only Linux has.
type FS struct{}

// Cgroup reads the totals of one cgroup.
type Cgroup struct{}

// Open says that there are no cgroups here.
func Open(root string) (*FS, error) { return nil, fmt.Errorf("%s: %w", root, errors.ErrUnsupported) }

// Mode returns the zero Mode.
func (*FS) Mode() Mode { return ModeUnified }

// LegacyController returns "".
func (*FS) LegacyController() string { return "" }

// HasIOController returns false.
func (*FS) HasIOController() bool { return false }

// UnifiedDir returns "".
func (*FS) UnifiedDir() string { return "" }

// PIDs finds nothing.
func (*FS) PIDs(Hierarchy, string) ([]int, error) { return nil, errors.ErrUnsupported }

// Walk finds nothing.
func (*FS) Walk(context.Context, func(Dir)) error { return errors.ErrUnsupported }

// Cgroup returns a handle that reads nothing.
func (*FS) Cgroup(string) *Cgroup { return &Cgroup{} }

// CgroupOf returns a handle that reads nothing.
func (*FS) CgroupOf(ID, string) *Cgroup { return &Cgroup{} }

// Read says that there are no cgroups here.
func (*Cgroup) Read(*Stats) error { return errors.ErrUnsupported }

// Close does nothing.
func (*Cgroup) Close() error { return nil }
