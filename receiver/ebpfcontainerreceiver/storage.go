// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension/xextension/storage"
)

// storageName tells our data in the extension from what a later version may have beside it.
const storageName = "logs"

// closeStorageWithin is how long the extension has to close a client.
const closeStorageWithin = 5 * time.Second

// storageClient keeps places in logs, and counts, in a storage extension. It is an inventory.LogStore.
type storageClient struct{ client storage.Client }

// openStorage returns nil where none is asked for.
func openStorage(ctx context.Context, cfg LogsConfig, id component.ID, host component.Host) (*storageClient, error) {
	if !cfg.Enabled || cfg.Storage == nil {
		return nil, nil
	}
	extension, ok := host.GetExtensions()[*cfg.Storage]
	if !ok {
		return nil, fmt.Errorf("logs: storage: there is no extension %q; it must be listed in service::extensions", cfg.Storage)
	}
	store, ok := extension.(storage.Extension)
	if !ok {
		return nil, fmt.Errorf("logs: storage: extension %q does not store anything", cfg.Storage)
	}
	client, err := store.GetClient(ctx, component.KindReceiver, id, storageName)
	if err != nil {
		return nil, fmt.Errorf("logs: storage: %q: %w", cfg.Storage, err)
	}
	return &storageClient{client}, nil
}

// Get implements inventory.LogStore.
func (s *storageClient) Get(ctx context.Context, key string) ([]byte, error) {
	return s.client.Get(ctx, key)
}

// Write implements inventory.LogStore.
func (s *storageClient) Write(ctx context.Context, values map[string][]byte) error {
	ops := make([]*storage.Operation, 0, len(values))
	for key, value := range values {
		if value == nil {
			ops = append(ops, storage.DeleteOperation(key))
		} else {
			ops = append(ops, storage.SetOperation(key, value))
		}
	}
	return s.client.Batch(ctx, ops...)
}

func (s *storageClient) close() error {
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeStorageWithin)
	defer cancel()
	return s.client.Close(ctx)
}
