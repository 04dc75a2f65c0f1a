// SPDX-License-Identifier: Apache-2.0

// Package embeddedprovider gives the collector configurations that are compiled into it.
//
// With it a bare binary runs without a file: `--config embedded:default` reads configs/default.yaml of this folder as it
// was when the collector was built. It reads nothing else and watches nothing.
package embeddedprovider

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"go.opentelemetry.io/collector/confmap"
)

const scheme = "embedded"

//go:embed configs/*.yaml
var configs embed.FS

// NewFactory returns the factory that a collector distribution registers.
func NewFactory() confmap.ProviderFactory {
	return confmap.NewProviderFactory(func(confmap.ProviderSettings) confmap.Provider { return provider{} })
}

type provider struct{}

// Scheme is what stands before the colon of `embedded:NAME`.
func (provider) Scheme() string { return scheme }

// Retrieve returns the configuration whose name follows the colon.
func (provider) Retrieve(_ context.Context, uri string, _ confmap.WatcherFunc) (*confmap.Retrieved, error) {
	name, ok := strings.CutPrefix(uri, scheme+":")
	if !ok {
		return nil, fmt.Errorf("uri %q: scheme is not %q", uri, scheme)
	}
	content, err := fs.ReadFile(configs, path.Join("configs", name+".yaml"))
	if err != nil {
		return nil, fmt.Errorf("no configuration %q in this binary; there are: %s", uri, strings.Join(uris(), ", "))
	}
	return confmap.NewRetrievedFromYAML(content)
}

// Shutdown has nothing to end.
func (provider) Shutdown(context.Context) error { return nil }

// uris lists every configuration in the form that --config takes.
func uris() []string {
	files, err := fs.Glob(configs, "configs/*.yaml")
	if err != nil {
		return nil
	}
	for i, file := range files {
		files[i] = scheme + ":" + strings.TrimSuffix(path.Base(file), ".yaml")
	}
	return files
}
