// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package logtail

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"
)

// Follower follows files, which it can only on Linux.
type Follower struct{ options Options }

// New returns a Follower that gives nothing.
func New(o Options) *Follower {
	o.setDefaults()
	return &Follower{o}
}

// Follow does nothing.
func (*Follower) Follow(Source) bool { return false }

// Forget does nothing.
func (*Follower) Forget(string) {}

// Changes returns nothing.
func (*Follower) Changes() uint64 { return 0 }

// Rename does nothing.
func (*Follower) Rename(string, string) bool { return false }

// Hold calls do.
func (*Follower) Hold(do func()) { do() }

// Stats returns nothing.
func (*Follower) Stats() Stats { return Stats{} }

// Checkpoint returns nothing.
func (*Follower) Checkpoint() []byte { return nil }

// Restore says that there is nothing to go on with.
func (*Follower) Restore([]byte) error {
	return fmt.Errorf("restore places in log files: %w", errors.ErrUnsupported)
}

// Run waits for ctx to end.
func (w *Follower) Run(ctx context.Context, _ func(key string, lines []Line)) {
	w.options.Logger.Warn("log files are not followed", zap.Error(errors.ErrUnsupported))
	<-ctx.Done()
}
