// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"context"
	"errors"
	"maps"
	"sync"
)

// memory is a Store that a later process finds as the last Write has left it.
type memory struct {
	mu      sync.Mutex
	values  map[string][]byte
	broken  bool
	written int
}

func (m *memory) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken {
		return nil, errors.New("the disk is broken")
	}
	return m.values[key], nil
}

func (m *memory) Write(_ context.Context, values map[string][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken {
		return errors.New("the disk is broken")
	}
	if m.values == nil {
		m.values = map[string][]byte{}
	}
	for key, v := range values {
		if v == nil {
			delete(m.values, key)
		} else {
			m.values[key] = v
			m.written += len(v)
		}
	}
	return nil
}

// copyOf is what a process finds that begins now, whatever the one before does yet.
func (m *memory) copyOf() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memory{values: maps.Clone(m.values)}
}

func (m *memory) fail(broken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = broken
}

// bytes is how many were written.
func (m *memory) bytes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.written
}
