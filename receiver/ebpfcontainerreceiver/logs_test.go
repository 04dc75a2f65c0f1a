// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// logsUnderTest is a started logs signal with the host that it follows and what is said of it. Made in a synctest bubble,
// so that time passes only while all wait.
type logsUnderTest struct {
	receiver.Logs
	host  *fakeHost
	tel   *componenttest.Telemetry
	said  *observer.ObservedLogs
	begin time.Time
}

func startLogs(t *testing.T, consume consumer.ConsumeLogsFunc) *logsUnderTest {
	t.Helper()
	next, err := consumer.NewLogs(consume)
	if err != nil {
		t.Fatal(err)
	}
	core, said := observer.New(zapcore.WarnLevel)
	l := &logsUnderTest{
		host: &fakeHost{events: make(chan inventory.Event)}, tel: newTelemetry(t), said: said, begin: time.Now(),
	}
	set := receivertest.NewNopSettings(metadata.Type)
	set.TelemetrySettings = l.tel.NewTelemetrySettings()
	set.Logger = zap.New(core)
	if l.Logs, err = newFactory(l.host.open).CreateLogs(t.Context(), set, newTestConfig(), next); err != nil {
		t.Fatal(err)
	}
	start(t, l)
	return l
}

// happen makes n events of containers that take turns.
func (l *logsUnderTest) happen(n, containers int) {
	for i := range n {
		l.host.events <- inventory.Event{
			Kind: inventory.EventExit, At: time.Now(), Name: fmt.Sprintf("/docker/%064x", i%containers), PID: i + 1,
		}
	}
}

// counted gives a counter of the collector, of all its attributes together.
func (l *logsUnderTest) counted(t *testing.T, name string) (sum int64) {
	t.Helper()
	m, err := l.tel.GetMetric(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, dp := range m.Data.(metricdata.Sum[int64]).DataPoints {
		sum += dp.Value
	}
	return sum
}

// call is one that a consumer got.
type call struct {
	after      time.Duration // since the start
	containers int
	records    int
}

// recorder notes the calls and answers with what answer says of the nth, from 1.
type recorder struct {
	begin  time.Time
	answer func(n int) error
	calls  []call
}

func (r *recorder) consume(_ context.Context, ld plog.Logs) error {
	r.calls = append(r.calls, call{time.Since(r.begin), ld.ResourceLogs().Len(), ld.LogRecordCount()})
	ld.ResourceLogs().RemoveIf(func(plog.ResourceLogs) bool { return true }) // it owns them
	if r.answer == nil {
		return nil
	}
	return r.answer(len(r.calls))
}

func TestLogsAreGivenInBatches(t *testing.T) {
	for _, tt := range []struct {
		name          string
		n, containers int
		want          []call
	}{
		{"one", 1, 1, []call{{batchTime, 1, 1}}},
		{"some of two containers", 5, 2, []call{{batchTime, 2, 5}}},
		{"many", 250, 1, []call{{0, 1, 100}, {0, 1, 100}, {batchTime, 1, 50}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := &recorder{begin: time.Now()}
				l := startLogs(t, sink.consume)
				l.happen(tt.n, tt.containers)
				time.Sleep(time.Second)
				if n := l.counted(t, "otelcol_receiver_accepted_log_records"); n != int64(tt.n) {
					t.Errorf("%d records counted as accepted, want %d", n, tt.n)
				}
				shutdown(t, l)
				if diff := cmp.Diff(tt.want, sink.calls, cmp.AllowUnexported(call{})); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
				l.host.expect(t, 1, 1)
			})
		})
	}
}

func TestLogsAfterErrorsOfTheConsumer(t *testing.T) {
	busy := errors.New("busy")
	for _, tt := range []struct {
		name   string
		answer func(n int) error
		after  []time.Duration // of the calls
		lost   int64
		said   int
	}{
		{
			name: "soon well again",
			answer: func(n int) error {
				if n < 3 {
					return busy
				}
				return nil
			},
			after: []time.Duration{200 * time.Millisecond, 700 * time.Millisecond, 1700 * time.Millisecond},
		},
		{
			name:   "never",
			answer: func(int) error { return busy },
			after: []time.Duration{
				200 * time.Millisecond, 700 * time.Millisecond, 1700 * time.Millisecond, 3700 * time.Millisecond,
				7700 * time.Millisecond, 15700 * time.Millisecond,
			},
			lost: 7, said: 1,
		},
		{
			name:   "for good",
			answer: func(int) error { return consumererror.NewPermanent(busy) },
			after:  []time.Duration{200 * time.Millisecond},
			lost:   7, said: 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := &recorder{begin: time.Now(), answer: tt.answer}
				l := startLogs(t, sink.consume)
				l.happen(7, 2)
				time.Sleep(time.Minute)
				synctest.Wait()
				var after []time.Duration
				for _, c := range sink.calls {
					after = append(after, c.after)
					if c.records != 7 || c.containers != 2 {
						t.Errorf("a call with %d records of %d containers, want 7 of 2", c.records, c.containers)
					}
				}
				if diff := cmp.Diff(tt.after, after); diff != "" {
					t.Errorf("calls after (-want +got):\n%s", diff)
				}
				if n := l.counted(t, "otelcol_ebpf_container_events_dropped"); n != tt.lost {
					t.Errorf("%d records counted as dropped, want %d", n, tt.lost)
				}
				if n := l.counted(t, "otelcol_receiver_refused_log_records"); n != tt.lost {
					t.Errorf("%d records counted as refused, want %d", n, tt.lost)
				}
				shutdown(t, l)
				if n := l.said.FilterMessageSnippet("are lost").Len(); n != tt.said {
					t.Errorf("said %d times, want %d", n, tt.said)
				}
			})
		})
	}
}

func TestLogsSayEachReasonOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &recorder{answer: func(n int) error {
			return consumererror.NewPermanent(fmt.Errorf("kind %d", n%2))
		}}
		l := startLogs(t, sink.consume)
		for range 6 {
			l.happen(1, 1)
			time.Sleep(time.Second)
		}
		if n := l.counted(t, "otelcol_ebpf_container_events_dropped"); n != 6 {
			t.Errorf("%d records counted as dropped, want 6", n)
		}
		for range 3 {
			l.host.events <- inventory.Event{Kind: inventory.EventLog, At: time.Now(), Name: "/docker/a", Message: &inventory.LogMessage{Text: "hello"}}
		}
		time.Sleep(time.Second)
		if n, events := l.counted(t, "otelcol_ebpf_container_log_records_dropped"), l.counted(t, "otelcol_ebpf_container_events_dropped"); n != 3 || events != 6 {
			t.Errorf("%d messages and %d events counted as dropped, want 3 and 6", n, events)
		}
		shutdown(t, l)
		if n := l.said.FilterMessageSnippet("are lost").Len(); n != 2 {
			t.Errorf("said %d times, want 2", n)
		}
	})
}

// A consumer that does not come back holds up the follower, whose inventory drops and counts, and nothing else.
func TestLogsToASlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		given := 0
		l := startLogs(t, func(_ context.Context, ld plog.Logs) error {
			<-release
			given += ld.LogRecordCount()
			return nil
		})
		l.happen(maxBatch, 3) // with the consumer
		synctest.Wait()
		l.happen(maxWaiting+1, 3) // in the queue, and one in the follower's hand
		synctest.Wait()
		select {
		case l.host.events <- inventory.Event{}:
			t.Error("one more was taken than there is room for")
		default:
		}
		close(release)
		time.Sleep(time.Second)
		synctest.Wait()
		if want := maxBatch + maxWaiting + 1; given != want {
			t.Errorf("got %d records, want %d", given, want)
		}
		shutdown(t, l)
	})
}

func TestShutdownGivesWhatIsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &recorder{begin: time.Now()}
		l := startLogs(t, sink.consume)
		l.happen(3, 1)
		shutdown(t, l)
		if diff := cmp.Diff([]call{{0, 1, 3}}, sink.calls, cmp.AllowUnexported(call{})); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

func TestShutdownWhileTheConsumerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &recorder{begin: time.Now(), answer: func(int) error { return errors.New("busy") }}
		l := startLogs(t, sink.consume)
		l.happen(1, 1)
		time.Sleep(2 * time.Second) // it waits for the fourth attempt
		l.happen(150, 1)
		shutdown(t, l)
		if took := time.Since(sink.begin); took != 2*time.Second {
			t.Errorf("Shutdown ended after %v, want no more waiting", took)
		}
		var records []int
		for _, c := range sink.calls {
			records = append(records, c.records)
		}
		if diff := cmp.Diff([]int{1, 1, 1, 1, 100, 50}, records); diff != "" {
			t.Errorf("records of the calls (-want +got):\n%s", diff)
		}
		l.host.expect(t, 1, 1)
	})
}

func TestShutdownEndsWithItsContext(t *testing.T) {
	for _, tt := range []struct {
		name   string
		heeds  bool // the consumer heeds its context
		late   bool
		within time.Duration
	}{
		{"consumer that heeds its context", true, false, time.Second},
		{"consumer that does not", false, true, time.Second + shutdownGrace},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				calls := 0
				l := startLogs(t, func(ctx context.Context, _ plog.Logs) error {
					calls++
					if tt.heeds {
						<-ctx.Done()
						return ctx.Err()
					}
					<-release
					return nil
				})
				l.happen(250, 1)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				begin := time.Now()
				err := l.Shutdown(ctx)
				if errors.Is(err, context.DeadlineExceeded) != tt.late {
					t.Errorf("got error %v", err)
				}
				if took := time.Since(begin); took != tt.within {
					t.Errorf("took %v, want %v", took, tt.within)
				}
				close(release)
				synctest.Wait()
				if calls != 1 {
					t.Errorf("got %d calls, want none after the deadline", calls)
				}
				l.host.expect(t, 1, 1)
			})
		})
	}
}

func TestLogsThatNeverStarted(t *testing.T) {
	l := newLogs(t, newFactory((&fakeHost{}).open), receivertest.NewNopSettings(metadata.Type), newTestConfig())
	shutdown(t, l)
	shutdown(t, l)
}

// Two receivers with both signals, while much happens.
func TestLogsBesideMetrics(t *testing.T) {
	const events = 2000
	var components []component.Component
	sinks := make([]*consumertest.LogsSink, 2)
	hosts := make([]*fakeHost, 2)
	for i := range hosts {
		hosts[i] = &fakeHost{events: make(chan inventory.Event)}
		f, set, cfg := newFactory(hosts[i].open), receivertest.NewNopSettings(metadata.Type), newTestConfig()
		cfg.CollectionInterval = time.Millisecond
		sinks[i] = new(consumertest.LogsSink)
		logs, err := f.CreateLogs(t.Context(), set, cfg, sinks[i])
		if err != nil {
			t.Fatal(err)
		}
		components = append(components, newMetrics(t, f, set, cfg), logs)
	}
	for _, c := range components {
		start(t, c)
	}
	var all sync.WaitGroup
	for _, host := range hosts {
		all.Go(func() {
			for i := range events {
				host.events <- inventory.Event{Name: "/docker/" + idA, PID: i + 1, Kind: inventory.EventOOMKill}
			}
		})
	}
	all.Wait()
	for _, c := range components {
		shutdown(t, c)
	}
	for i, host := range hosts {
		host.expect(t, 1, 1)
		if n := sinks[i].LogRecordCount(); n != events {
			t.Errorf("got %d records, want %d", n, events)
		}
	}
}
