#!/usr/bin/env bash
# Boots the kernels of the Debian series named as arguments in QEMU (software emulation, half a minute each) and runs the
# tests of the packages that touch the kernel inside, or those that the variable TESTS matches. Debian amd64, as root when
# packages are missing. See make test-kernels.
set -euo pipefail
cd "$(dirname "$0")/../.."
series=("$@")
[ ${#series[@]} -gt 0 ] || series=(6.1 6.12)
work=.build/kernels
mkdir -p "$work/root/tests" "$work/deb"

for pair in qemu-system-x86_64=qemu-system-x86 cpio=cpio; do
	command -v "${pair%=*}" >/dev/null || apt-get install -y -qq --no-install-recommends "${pair#*=}" >/dev/null
done

export CGO_ENABLED=0 GOARCH=amd64
for pkg in bpf inventory; do
	go test -c -o "$work/root/tests/$pkg" "./internal/$pkg"
done
go build -trimpath -o "$work/root/init" ./test/kernels/init
# Programs of a test that cannot be made inside.
if command -v cc >/dev/null; then
	cc -static -O1 -pthread -o "$work/root/ebpfcontainer-test-tasks" internal/bpf/testdata/tasks.c
fi
if command -v mkfs.ext4 >/dev/null; then
	image=$work/root/ebpfcontainer-test-ext4
	rm -f "$image"
	truncate -s 64M "$image"
	mkfs.ext4 -q -F -J size=4 -E lazy_itable_init=0,lazy_journal_init=0 "$image"
	chmod +x "$image" # it is looked for in PATH
fi
(cd "$work/root" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd.gz"

failed=0
for s in "${series[@]}"; do
	image=$(apt-cache search --names-only "^linux-image-${s//./\\.}\\.[0-9].*-cloud-amd64\$" | cut -d' ' -f1 | sort -V | tail -n 1)
	if [ -z "$image" ]; then
		echo "Linux $s: apt knows no image (apt-get update?)"
		failed=1
		continue
	fi
	kernel=$work/deb/$image
	if [ ! -d "$kernel" ]; then
		(cd "$work/deb" && apt-get download -qq "$image" && dpkg-deb -x "$image"_*.deb "$image")
	fi
	# Connection tracking is a module here, and our program has to find its types there. Tests make disks with loop and brd.
	modules=$work/modules-$s
	rm -rf "$modules"
	mkdir -p "$modules/modules"
	n=10
	for module in libcrc32c nf_defrag_ipv4 nf_defrag_ipv6 nf_conntrack nfnetlink nf_conntrack_netlink loop brd; do
		file=$(find "$kernel" -name "$module.ko*" | head -n 1)
		[ -n "$file" ] || continue # built in
		case $file in
		*.xz) xz -dc "$file" ;;
		*) cat "$file" ;;
		esac >"$modules/modules/$((n++))-$module.ko"
	done
	{ cat "$work/initrd.gz"; (cd "$modules" && find . | cpio -o -H newc 2>/dev/null | gzip -1); } >"$work/initrd-$s.gz"
	log=$work/$s.log
	timeout 1200 qemu-system-x86_64 -M q35 -accel tcg -cpu max -m 1024 -smp 2 -nographic -no-reboot -nodefaults -serial stdio \
		-kernel "$kernel"/boot/vmlinuz-* -initrd "$work/initrd-$s.gz" -append "console=ttyS0 panic=-1 loglevel=4${TESTS:+ TESTS=$TESTS}" \
		</dev/null >"$log" 2>&1 || true
	if grep -q '^verdict: passed' "$log"; then
		echo "$image: $(grep -c '^--- PASS' "$log") passed, $(grep -c '^--- SKIP' "$log" || true) skipped"
	else
		echo "$image: FAILED, see $log"
		grep -E '^(--- FAIL|panic:|init:)|_test\.go:' "$log" | head -n 20
		failed=1
	fi
done
exit $failed
