#!/usr/bin/env bash
# Builds what a node of Kubernetes consists of, once, and runs the test of this directory with it: a real API server and
# kubelet, in a network namespace of their own. Debian amd64, as root. The first time takes some 15 minutes of CPU time,
# later ones about two minutes. See make test-k8s.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$PWD/.build/k8s
version=1.34.4
[ "$(id -u)" = 0 ] || { echo "make test-k8s needs root: sudo make test-k8s" >&2; exit 1; }
mkdir -p "$work/deb"
[ -z "${SUDO_USER:-}" ] || chown "$SUDO_USER" .build "$work"

missing=()
for pair in containerd=containerd runc=runc busybox=busybox-static ip=iproute2 iptables=iptables; do
	command -v "${pair%=*}" >/dev/null || missing+=("${pair#*=}")
done
if [ ${#missing[@]} -gt 0 ]; then
	echo "apt-get install ${missing[*]}"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
# Unpacked only: installed, etcd would be started as a service of this host.
get="apt-get download -qq -o APT::Sandbox::User=root"
for pair in usr/bin/etcd=etcd-server usr/lib/cni/ptp=containernetworking-plugins; do
	package=${pair#*=}
	if [ ! -e "$work/deb/${pair%=*}" ]; then
		echo "apt-get download $package"
		(cd "$work" && { $get "$package" || { apt-get update -qq && $get "$package"; }; } &&
			dpkg-deb -x "$package"_*.deb deb && rm "$package"_*.deb)
	fi
done

# Built as the user who called sudo, with that user's Go cache. The version is what the linker is told.
as_user=()
[ -z "${SUDO_USER:-}" ] || as_user=(sudo -u "$SUDO_USER" -H env "PATH=$PATH")
x=k8s.io/component-base/version
for program in kube-apiserver kubelet kubectl; do
	[ -x "$work/$program" ] && [ "$work/$program" -nt test/k8s/kubernetes/go.mod ] && continue
	echo "building $program $version"
	"${as_user[@]}" env CGO_ENABLED=0 go -C test/k8s/kubernetes build -p 2 -buildvcs=false \
		-ldflags "-s -w -X $x.gitVersion=v$version -X $x.gitMajor=1 -X $x.gitMinor=34" -o "$work/$program" "k8s.io/kubernetes/cmd/$program"
done

EBPFCONTAINER_K8S="$work" exec go test -count=1 -timeout 10m -v "$@" ./test/k8s
