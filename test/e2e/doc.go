// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the collector as its users run it: the built otelcol-custom watches containers of a real Docker,
// Podman and containerd (a pod of Kubernetes among them) and of a bare runc and a process in a systemd-style cgroup, a
// real Prometheus scrapes it, and a second collector receives the same data and the log records over OTLP. Nothing of the
// product is imported; the truth is what the load says it did, and what the runtimes say of their containers.
//
// The tests need root and the tools that requireRoot names, and skip without them. The daemons and all their iptables
// rules live in a network namespace of their own. Everything made is removed by name or pid, and only cgroups that the
// tests made are observed. One test switches the kernel's delay accounting, and back; one mounts a disk for a while.
package e2e
