// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"time"
)

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
