// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/extension/xextension/storage"
)

// extensions is a component.Host that has some.
type extensions map[component.ID]component.Component

func (e extensions) GetExtensions() map[component.ID]component.Component { return e }

// mapStorage is a storage extension of one client.
type mapStorage struct {
	component.StartFunc
	component.ShutdownFunc
	values map[string][]byte
	closed int
}

func (m *mapStorage) GetClient(_ context.Context, kind component.Kind, id component.ID, name string) (storage.Client, error) {
	m.values["client"] = []byte(kind.String() + " " + id.String() + " " + name)
	return m, nil
}
func (m *mapStorage) Get(_ context.Context, key string) ([]byte, error) { return m.values[key], nil }
func (m *mapStorage) Set(_ context.Context, key string, value []byte) error {
	m.values[key] = value
	return nil
}
func (m *mapStorage) Delete(_ context.Context, key string) error { delete(m.values, key); return nil }
func (m *mapStorage) Close(context.Context) error                { m.closed++; return nil }
func (m *mapStorage) Batch(ctx context.Context, ops ...*storage.Operation) error {
	for _, op := range ops {
		switch op.Type {
		case storage.Set:
			_ = m.Set(ctx, op.Key, op.Value)
		case storage.Delete:
			_ = m.Delete(ctx, op.Key)
		}
	}
	return nil
}

func TestStorage(t *testing.T) {
	id, receiver := component.MustNewID("file_storage"), component.MustNewIDWithName("ebpf_container", "one")
	store := &mapStorage{values: map[string][]byte{}}
	cfg := LogsConfig{Enabled: true, Storage: &id}
	s, err := openStorage(t.Context(), cfg, receiver, extensions{id: store})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), map[string][]byte{"a": []byte("1"), "b": []byte("2")}); err != nil {
		t.Error(err)
	}
	if err := s.Write(t.Context(), map[string][]byte{"a": nil}); err != nil {
		t.Error(err)
	}
	a, _ := s.Get(t.Context(), "a")
	b, _ := s.Get(t.Context(), "b")
	if a != nil || string(b) != "2" || string(store.values["client"]) != "Receiver ebpf_container/one logs" {
		t.Errorf("a %q, b %q, client %q", a, b, store.values["client"])
	}
	if err := s.close(); err != nil || store.closed != 1 {
		t.Errorf("closed %d times, %v", store.closed, err)
	}
}

func TestStorageThatIsNotThere(t *testing.T) {
	id, receiver := component.MustNewID("file_storage"), component.MustNewID("ebpf_container")
	nop := struct {
		component.StartFunc
		component.ShutdownFunc
	}{}
	for _, tt := range []struct {
		name string
		cfg  LogsConfig
		host component.Host
		want string // in the error, "" for none
	}{
		{"none wanted", LogsConfig{Enabled: true}, componenttest.NewNopHost(), ""},
		{"logs off", LogsConfig{Storage: &id}, componenttest.NewNopHost(), ""},
		{"not listed", LogsConfig{Enabled: true, Storage: &id}, componenttest.NewNopHost(), "must be listed in service::extensions"},
		{"another kind", LogsConfig{Enabled: true, Storage: &id}, extensions{id: nop}, "does not store"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := openStorage(t.Context(), tt.cfg, receiver, tt.host)
			if s != nil || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v", s, err)
			}
			if err := s.close(); err != nil {
				t.Error(err)
			}
		})
	}
}
