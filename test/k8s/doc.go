// SPDX-License-Identifier: Apache-2.0

// Package k8s tests the collector on a node of a real Kubernetes: etcd, API server, kubelet, containerd and a network
// plugin, no fakes. The kubelet starts pods as it always does; the collector is asked for their names, and the truth is
// what the API says. The manifests of deploy/ are taken as they are: the API server validates them, their role is what
// the k8s_attributes processor has, and their DaemonSet's pod runs.
//
// `make test-k8s` builds all this and runs the test; without it the test skips. Everything lives in a network namespace
// and a mount namespace of its own, where /run, /var/log and /var/lib are directories of the test: nothing of the host's
// own services is seen. The kubelet's cgroups are below one of the test.
package k8s
