// SPDX-License-Identifier: Apache-2.0

//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml
//go:generate sed -i "/^### container.net.tcp.rtt/,/^#### Attributes/s/| Sum | Double |/| Histogram | Double |/" documentation.md
//go:generate go tool -modfile=../../internal/tools/go.mod schemagen -m package ./internal/metadata
//go:generate go tool -modfile=../../internal/tools/go.mod schemagen

// Package ebpfcontainerreceiver is the door between the collector and the host: it turns the inventory's snapshots of
// all containers into metrics, and its events into log records.
//
// It is the only package that knows the collector's API. One instance of the receiver serves all signals of one
// component id. It runs on Linux only; elsewhere it builds and says so at Start.
package ebpfcontainerreceiver
