// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/scraper/scraperhelper"

	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// NewFactory returns the factory of the receiver. It touches nothing: that is left to Start.
func NewFactory() receiver.Factory {
	return newFactory(openInventory)
}

func newFactory(open openFunc) receiver.Factory {
	shared := &instances{open: open, byKey: map[instanceKey]*instance{}}
	return receiver.NewFactory(
		metadata.Type,
		createDefaultConfig,
		receiver.WithMetrics(shared.createMetrics, metadata.MetricsStability),
		receiver.WithLogs(shared.createLogs, metadata.LogsStability),
	)
}

// instances are the receivers that one factory has made and that are not shut down. The signals of one component id
// share one instance, so that the kernel programs are loaded once.
type instances struct {
	open openFunc

	mu    sync.Mutex // guards byKey and the users of each instance in it
	byKey map[instanceKey]*instance
}

// instanceKey has the configuration as well, so that two generations of one component id do not meet.
type instanceKey struct {
	id  component.ID
	cfg *Config
}

func (s *instances) createMetrics(
	_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Metrics,
) (receiver.Metrics, error) {
	config := cfg.(*Config)
	sig := s.newSignal(set, config)
	controller, err := scraperhelper.NewMetricsController(&config.ControllerConfig, set, next,
		scraperhelper.AddMetricsScraper(metadata.Type, newMetricsScraper(sig, config, set)))
	if err != nil {
		sig.release()
		return nil, err
	}
	return controller, nil
}

func (s *instances) createLogs(
	_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Logs,
) (receiver.Logs, error) {
	config := cfg.(*Config)
	logs, err := newEventLogs(config, set, next)
	if err != nil {
		return nil, err
	}
	logs.signal = s.newSignal(set, config)
	logs.in.records = true
	return logs, nil
}

// newSignal returns one more signal of the instance that belongs to set and cfg.
func (s *instances) newSignal(set receiver.Settings, cfg *Config) *signal {
	key := instanceKey{id: set.ID, cfg: cfg}
	s.mu.Lock()
	defer s.mu.Unlock()
	in, ok := s.byKey[key]
	if !ok {
		in = &instance{id: set.ID, cfg: cfg, telemetry: set.TelemetrySettings, open: s.open}
		s.byKey[key] = in
	}
	in.users++
	return &signal{in: in, release: sync.OnceFunc(func() { s.release(key) })}
}

func (s *instances) release(key instanceKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.byKey[key]
	if in.users--; in.users == 0 {
		delete(s.byKey, key)
	}
}
