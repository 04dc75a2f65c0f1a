// SPDX-License-Identifier: Apache-2.0

package embeddedprovider

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/confmap"
)

func newProvider(t *testing.T) confmap.Provider {
	t.Helper()
	p := NewFactory().Create(confmap.ProviderSettings{})
	t.Cleanup(func() {
		if err := p.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return p
}

func TestSchemeIsEmbedded(t *testing.T) {
	if got := newProvider(t).Scheme(); got != "embedded" {
		t.Errorf("got %q, want %q", got, "embedded")
	}
}

func TestEveryConfigurationHasPipelines(t *testing.T) {
	p := newProvider(t)
	all := uris()
	if len(all) == 0 {
		t.Fatal("no configuration in the binary")
	}
	for _, uri := range all {
		t.Run(uri, func(t *testing.T) {
			retrieved, err := p.Retrieve(context.Background(), uri, nil)
			if err != nil {
				t.Fatal(err)
			}
			conf, err := retrieved.AsConf()
			if err != nil {
				t.Fatal(err)
			}
			if !conf.IsSet("service::pipelines") {
				t.Error("no service::pipelines")
			}
		})
	}
}

func TestDefaultListensOnLoopbackOnly(t *testing.T) {
	retrieved, err := newProvider(t).Retrieve(context.Background(), "embedded:default", nil)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := retrieved.AsConf()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := conf.Get("exporters::prometheus::endpoint"), "127.0.0.1:8889"; got != want {
		t.Errorf("exporters::prometheus::endpoint: got %v, want %v", got, want)
	}
	// Without it the equal series of two containers collapse into one.
	if got := conf.Get("exporters::prometheus::resource_to_telemetry_conversion::enabled"); got != true {
		t.Errorf("resource_to_telemetry_conversion::enabled: got %v, want true", got)
	}
}

func TestUnknownNameListsThoseThereAre(t *testing.T) {
	for _, uri := range []string{"embedded:nosuch", "embedded:", "embedded:../provider", "embedded:default.yaml"} {
		_, err := newProvider(t).Retrieve(context.Background(), uri, nil)
		if err == nil {
			t.Errorf("%s: no error", uri)
			continue
		}
		if !strings.Contains(err.Error(), "embedded:default") || !strings.Contains(err.Error(), uri) {
			t.Errorf("%s: error does not name it and those there are: %v", uri, err)
		}
	}
}

func TestForeignSchemeIsRefused(t *testing.T) {
	if _, err := newProvider(t).Retrieve(context.Background(), "file:default", nil); err == nil {
		t.Error("no error")
	}
}
