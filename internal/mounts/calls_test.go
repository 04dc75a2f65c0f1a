// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// ask makes calls as Sizes does.
func ask(t *testing.T, c *calls, all ...*call) []bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hungAfter)
	defer cancel()
	started, err := c.start(all)
	if err != nil {
		t.Fatal(err)
	}
	return c.finish(ctx, started)
}

func quick(key string) *call { return &call{key: key, run: func() answer { return answer{id: 1} }} }

func TestWhatHangsIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCalls(time.Now)
		release := make(chan struct{})
		asked := 0
		hung := func() *call {
			return &call{key: "hung", mayHang: true, run: func() answer { asked++; <-release; return answer{id: 7} }}
		}
		begin := time.Now()
		if d := cmp.Diff([]bool{true, false, true}, ask(t, c, quick("a"), hung(), quick("b"))); d != "" {
			t.Error(d)
		}
		if took := time.Since(begin); took != hungAfter {
			t.Errorf("took %v", took)
		}
		if got := c.stuck(); got != 1 {
			t.Errorf("%d stuck", got)
		}
		begin = time.Now()
		if d := cmp.Diff([]bool{false, true}, ask(t, c, hung(), quick("a"))); d != "" {
			t.Error(d)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("took %v the second time", took)
		}
		close(release)
		synctest.Wait()
		if got := c.stuck(); got != 0 {
			t.Errorf("%d stuck after it has answered", got)
		}
		if d := cmp.Diff([]bool{true}, ask(t, c, hung())); d != "" {
			t.Error(d)
		}
		if asked != 2 {
			t.Errorf("asked %d times, want 2", asked)
		}
	})
}

func TestWhoAsksTheSameWaitsForOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCalls(time.Now)
		asked := 0
		slow := func() *call {
			return &call{key: "slow", run: func() answer { asked++; time.Sleep(hungAfter / 2); return answer{id: 7} }}
		}
		other := make(chan []bool)
		go func() { other <- ask(t, c, slow()) }()
		synctest.Wait()
		if got := ask(t, c, slow()); !got[0] {
			t.Error("not answered")
		}
		if got := <-other; !got[0] {
			t.Error("not answered to the first one")
		}
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
}

func TestNumberOfStuckCallsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCalls(time.Now)
		release := make(chan struct{})
		var begun atomic.Int32
		all := make([]*call, 3*maxCalls)
		for i := range all {
			all[i] = &call{key: strconv.Itoa(i), mayHang: true, run: func() answer { begun.Add(1); <-release; return answer{} }}
		}
		ask(t, c, append(all, quick("x"))...)
		if got := ask(t, c, quick("x")); !got[0] {
			t.Error("what does not hang is not answered")
		}
		if got := begun.Load(); got != maxCalls || c.stuck() != maxCalls {
			t.Errorf("%d begun, %d stuck; want %d", got, c.stuck(), maxCalls)
		}
		begin := time.Now()
		more := &call{key: "more", mayHang: true, run: func() answer { return answer{} }}
		if got := ask(t, c, more); got[0] || time.Since(begin) > 0 {
			t.Errorf("where all hang: answered %v after %v", got[0], time.Since(begin))
		}
		if len(c.open) != maxCalls || len(c.lanes[1].queue) != 0 {
			t.Errorf("%d open, %d in the queue", len(c.open), len(c.lanes[1].queue))
		}
		close(release)
		synctest.Wait()
		if c.lanes[0].running != 0 || c.lanes[1].running != 0 || len(c.open) != 0 {
			t.Errorf("left over: %+v", c.lanes)
		}
	})
}

func TestCloseWaitsForWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCalls(time.Now)
		var ended atomic.Bool
		release := make(chan struct{})
		started, err := c.start([]*call{
			{key: "a", run: func() answer { time.Sleep(hungAfter / 2); ended.Store(true); return answer{} }},
			{key: "b", run: func() answer { <-release; return answer{} }},
		})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		c.close()
		if took := time.Since(begin); !ended.Load() || took != hungAfter {
			t.Errorf("ended: %v, took %v", ended.Load(), took)
		}
		if _, err := c.start([]*call{quick("c")}); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want %v", err, ErrClosed)
		}
		close(release)
		c.finish(t.Context(), started)
	})
}
