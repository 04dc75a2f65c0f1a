// SPDX-License-Identifier: Apache-2.0

package internal

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ebpfcontainer/ebpfcontainer/"

// mayImport lists, for each package of the house, the packages of the house that it may import. See docs/architecture.md.
var mayImport = map[string][]string{
	"internal/apptype":   {},
	"internal/bpf":       {},
	"internal/cgroups":   {},
	"internal/mounts":    {},
	"internal/netns":     {},
	"internal/node":      {},
	"internal/cloudmeta": {},
	"internal/delayacct": {},
	"internal/journal":   {},
	// Made lines for the tests of that one.
	"internal/logpatterns/internal/corpus": {},
	"internal/logpatterns":                 {"internal/logpatterns/internal/corpus"}, // its tests alone
	"internal/logfiles":                    {},
	"internal/logtail":                     {},
	"internal/logs":                        {"internal/journal", "internal/logpatterns", "internal/logtail"},
	"internal/procfs":                      {},
	"internal/runtimes":                    {"internal/cgroups"},
	"internal/inventory": {
		"internal/apptype", "internal/bpf", "internal/cgroups", "internal/delayacct", "internal/logfiles", "internal/logpatterns",
		"internal/logs", "internal/logtail",
		"internal/mounts", "internal/netns", "internal/procfs", "internal/runtimes",
	},
	"receiver/ebpfcontainerreceiver": {
		"internal/inventory", "internal/node", "internal/cloudmeta",
		"receiver/ebpfcontainerreceiver/internal/metadata", "receiver/ebpfcontainerreceiver/internal/metadatatest",
	},
	"receiver/ebpfcontainerreceiver/internal/metadata":     {}, // generated, as the next
	"receiver/ebpfcontainerreceiver/internal/metadatatest": {"receiver/ebpfcontainerreceiver/internal/metadata"},
	"provider/embeddedprovider":                            {},
}

// collectorFree packages know nothing of the collector: pdata stops at the door.
func collectorFree(pkg string) bool { return strings.HasPrefix(pkg, "internal/") }

func TestImportsGoStrictlyDown(t *testing.T) {
	seen := map[string]bool{}
	for file, imports := range importsOf(t, "..") {
		pkg := filepath.ToSlash(filepath.Dir(file))
		top, _, _ := strings.Cut(pkg, "/")
		if top == "cmd" || top == "test" || pkg == "internal" { // programs and tests of the whole
			continue
		}
		seen[pkg] = true
		allowed, known := mayImport[pkg]
		if !known {
			t.Errorf("%s: package is not in mayImport: does the house have a room for it?", pkg)
			continue
		}
		for _, imp := range imports {
			if own, ok := strings.CutPrefix(imp, module); ok && !slices.Contains(allowed, own) && !isTestOfTypes(file, own) {
				t.Errorf("%s imports %s", file, own)
			}
			if collectorFree(pkg) && isCollector(imp) {
				t.Errorf("%s imports %s: collector types stay in receiver/", file, imp)
			}
		}
	}
	for _, pkg := range []string{"internal/bpf", "internal/cgroups", "internal/inventory", "receiver/ebpfcontainerreceiver"} {
		if !seen[pkg] {
			t.Errorf("%s was not looked at", pkg)
		}
	}
}

// isTestOfTypes lets the receiver's tests make values of the types that a snapshot is made of.
func isTestOfTypes(file, own string) bool {
	return strings.HasSuffix(file, "_test.go") && strings.HasPrefix(file, "receiver/") && own == "internal/cgroups"
}

func isCollector(imp string) bool {
	return hasAnyPrefix(imp, []string{"go.opentelemetry.io/collector", "github.com/open-telemetry/opentelemetry-collector-contrib"})
}

func hasAnyPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// importsOf reads the import paths of all Go files of the module below root, by file.
func importsOf(t *testing.T, root string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if rel == "otelcol-custom" || rel == filepath.Join("internal", "tools") || strings.HasPrefix(d.Name(), ".") && rel != "." {
				return fs.SkipDir // modules of their own
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imp, _ := strconv.Unquote(spec.Path.Value)
			found[filepath.ToSlash(rel)] = append(found[filepath.ToSlash(rel)], imp)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
