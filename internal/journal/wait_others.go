// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package journal

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// waiter sleeps.
type waiter struct{}

func newWaiter(*zap.Logger) waiter { return waiter{} }

func (*waiter) watch(string) {}

func (*waiter) wait(ctx context.Context, limit time.Duration) { sleep(ctx, limit) }

func (*waiter) close() error { return nil }
