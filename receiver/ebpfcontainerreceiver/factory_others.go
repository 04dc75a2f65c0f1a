// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package ebpfcontainerreceiver

import (
	"context"
	"errors"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"

	"github.com/ebpfcontainer/ebpfcontainer/receiver/ebpfcontainerreceiver/internal/metadata"
)

// NewFactory returns a factory whose receivers refuse to start, so that one configuration can be checked on any machine.
func NewFactory() receiver.Factory {
	return receiver.NewFactory(
		metadata.Type,
		createDefaultConfig,
		receiver.WithMetrics(func(
			context.Context, receiver.Settings, component.Config, consumer.Metrics,
		) (receiver.Metrics, error) {
			return stranger{}, nil
		}, metadata.MetricsStability),
		receiver.WithLogs(func(
			context.Context, receiver.Settings, component.Config, consumer.Logs,
		) (receiver.Logs, error) {
			return stranger{}, nil
		}, metadata.LogsStability),
	)
}

type stranger struct{ component.ShutdownFunc }

// Start implements component.Component.
func (stranger) Start(context.Context, component.Host) error {
	return errors.New("ebpf_container runs on Linux only")
}
