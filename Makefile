# Targets: make help. Go, make and a C compiler are enough for all but `generate` and `check`, which also need clang-19.
SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
MAKEFLAGS   += --no-print-directory

# sudo leaves out where Go usually lives.
export PATH := $(PATH):/usr/local/go/bin
GO          ?= go
BUILD_FLAGS := -trimpath -buildvcs=false
COLLECTOR   := otelcol-custom/otelcol-custom
CONFIG      ?= embedded:default
SUMMARY_URL ?= http://127.0.0.1:8889/metrics
EVERY       ?= 30s
PACKAGES    ?= ./...
TOOL        := $(GO) tool -modfile=internal/tools/go.mod

ROOT := $(filter 0,$(shell id -u))
# Under sudo everything but the programs that need root is still done as the user, with the user's Go caches.
AS_USER := $(if $(and $(ROOT),$(SUDO_USER)),sudo -u $(SUDO_USER) -H env "PATH=$$PATH")
# The race detector needs cgo.
HAVE_CC := $(shell PATH="$(PATH)"; command -v "$$($(GO) env CC 2>/dev/null)" 2>/dev/null)
RACE := $(if $(HAVE_CC),-race)

.PHONY: help run build test test-root test-kernels test-k8s soak bench bench-tcp bench-delay bench-logs bench-patterns generate lint check
.PHONY: test-packages generate-packages

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

build: ## build the collector: otelcol-custom/otelcol-custom
	@$(AS_USER) env CGO_ENABLED=0 $(GO) -C otelcol-custom build $(BUILD_FLAGS) -ldflags '-s -w' -o otelcol-custom .

.build/summary: $(wildcard cmd/summary/*.go) go.mod go.sum
	@$(AS_USER) mkdir -p .build
	@$(AS_USER) env CGO_ENABLED=0 $(GO) build $(BUILD_FLAGS) -o $@ ./cmd/summary

# The kernel lets only root load programs and see every process. Without it the collector runs and leaves those out.
run: build .build/summary ## build and run the collector, with a table of the containers every 30 s (CONFIG=, EVERY=)
	@as_root=
	if [ "$$(id -u)" != 0 ]; then
		echo "Not root: without it there are no TCP connections, no kernel events, and only what this user may read."
		if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v -p 'Password of %u to run the collector as root (Ctrl-D: run without): '; }; }; then
			as_root=sudo
		else
			echo "Going on without root; for everything: sudo make run"
		fi
	fi
	echo "Metrics: $(SUMMARY_URL)   (Ctrl-C ends)"
	.build/summary -url $(SUMMARY_URL) -wait 30s -every $(EVERY) -while $$$$ &
	exec $$as_root ./$(COLLECTOR) --config $(CONFIG) # keeps the process id: the table ends with it

test: build ## run all tests; as root also those with real containers and kernel programs
	@$(if $(ROOT),$(MAKE) test-packages,echo "Not root: tests that need it skip; sudo make test runs them all.")
	$(if $(RACE),,echo "No C compiler: testing without the race detector.")
	$(go_test)

test-root: ## as test, but fails unless root
	@$(if $(ROOT),,echo "make test-root needs root: sudo make test-root" >&2; exit 1)
	$(MAKE) test

test-kernels: ## run the kernel side's tests on other kernels, in QEMU (Debian amd64; KERNELS="6.1 6.12")
	@test/kernels/run.sh $(KERNELS)

test-k8s: build ## run the collector on a node of a real Kubernetes (Debian amd64, root; the first time builds Kubernetes)
	@test/k8s/run.sh

# How long containers come and go: 5m is the least for which growth is told from warming up.
SOAK ?= 30m

soak: build ## run the collector for long while containers come and go, and see that it does not grow (root; SOAK=30m)
	@$(if $(ROOT),,echo "make soak needs root: sudo make soak" >&2; exit 1)
	EBPFCONTAINER_SOAK=$(SOAK) EBPFCONTAINER_REQUIRE_ROOT_TESTS=1 $(GO) test -count=1 -timeout 0 -run '^TestSoak$$' -v ./test/e2e

bench: ## run the benchmarks
	@$(GO) test -run '^$$' -bench . -benchmem $(PACKAGES)

.build/bench: $(wildcard test/bench/*.go) go.mod go.sum
	@$(AS_USER) mkdir -p .build
	@$(AS_USER) env CGO_ENABLED=0 $(GO) build $(BUILD_FLAGS) -o $@ ./test/bench

bench-tcp: build .build/bench ## measure what it costs to count TCP connections, and that all are (root; BENCH_FLAGS=, see -help)
	@$(if $(ROOT),,echo "make bench-tcp needs root: sudo make bench-tcp" >&2; exit 1)
	exec .build/bench tcp $(BENCH_FLAGS)

bench-delay: build .build/bench ## measure what it costs to add up delays over exits, and that all are (root; BENCH_FLAGS=, see -help)
	@$(if $(ROOT),,echo "make bench-delay needs root: sudo make bench-delay" >&2; exit 1)
	exec .build/bench delay $(BENCH_FLAGS)

bench-logs: build .build/bench ## measure what it costs to count the messages of logs, and that all are (root; BENCH_FLAGS=, see -help)
	@$(if $(ROOT),,echo "make bench-logs needs root: sudo make bench-logs" >&2; exit 1)
	exec .build/bench logs $(BENCH_FLAGS)

# Loghub-2k, a folder for each of its systems, is not ours to give: https://github.com/logpai/loghub.
LOGHUB ?= ../shared/logs/loghub-2k
PATTERNS_TEST = $(GO) test -count=1 ./internal/logpatterns

bench-patterns: ## measure how right and how fast log patterns are found (LOGHUB=the folder of Loghub-2k)
	@[ -d '$(LOGHUB)' ] || echo "No folder $(LOGHUB): without Loghub-2k, LOGHUB= names it."
	EBPFCONTAINER_LOGHUB='$(abspath $(LOGHUB))' $(PATTERNS_TEST) -run '^TestScore' -v
	EBPFCONTAINER_HOSTILE=10000000 $(PATTERNS_TEST) -run '^TestMinerMemory' -timeout 30m -v
	$(PATTERNS_TEST) -run '^$$' -bench . -benchmem

generate: generate-packages ## write what is generated: kernel programs, metrics, configuration schema, distribution
	@$(GO) generate ./...
	CGO_ENABLED=0 $(TOOL) builder --config builder-config.yaml --skip-compilation 2>&1 | { grep -v $$'\tINFO\t' || true; }

lint: ## vet and lint
	@$(GO) vet ./...
	$(TOOL) golangci-lint run ./...

check: ## all that must hold before a commit, but the tests: generated files, lint, tidy modules, other platforms
	@step() { echo "== $$*"; }
	git rev-parse --git-dir >/dev/null
	step generated files are current
	before=$$($(file_sums))
	$(MAKE) generate
	diff <(echo "$$before") <($(file_sums)) || { echo "make generate changes the files above: commit what it writes" >&2; exit 1; }
	step modules are tidy
	for dir in . internal/tools; do $(GO) -C $$dir mod tidy -diff 2> >(grep -v '^go: downloading' >&2); done # ocb has done otelcol-custom
	step format
	unformatted=$$(git ls-files -co --exclude-standard '*.go' ':!otelcol-custom' | xargs gofmt -l) # ocb does not format
	[ -z "$$unformatted" ] || { echo "gofmt -w $$unformatted" >&2; exit 1; }
	step lint
	$(MAKE) lint
	step other platforms
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 $(GO) build ./...
	CGO_ENABLED=0 GOOS=darwin $(GO) vet ./receiver/... ./provider/... ./internal/cgroups ./cmd/...
	CGO_ENABLED=0 GOOS=windows $(GO) build ./receiver/...
	step example configurations
	$(MAKE) build
	for config in embedded:default otelcol-custom/config/*.yaml; do ./$(COLLECTOR) validate --config "$$config"; done
	echo "check: all good"

# One line for each file of the working tree that is not ignored: its sum and its name.
file_sums = git ls-files -z -co --exclude-standard | sort -zu | xargs -0 sha256sum 2>/dev/null || true

# go test with -v, so that skipped tests and their reasons can be told, shown as without -v. All of it stays in .build/test.log.
define go_test
$(AS_USER) mkdir -p .build
$(if $(ROOT),EBPFCONTAINER_REQUIRE_ROOT_TESTS=1 )$(GO) test $(RACE) -count=1 -timeout 15m -v $(PACKAGES) 2>&1 | $(AS_USER) tee .build/test.log | awk '
	/^=== (RUN|PAUSE|CONT|NAME)/ { inside = 1; next }
	/^ +[^ ]+\.go:[0-9]+: /      { reason = $$0; sub(/^ +[^ ]+: /, "", reason) }
	/^ *--- SKIP: /              { skipped[++skips] = $$3 ": " reason }
	/^(ok|FAIL|---|panic:|\?)?[ \t]*$$/ && !inside { next }
	/^(ok|FAIL)[ \t]+[^ \t]+[ \t]/ {
		if ($$1 == "FAIL") printf "%s", kept
		print; fflush(); inside = 0; kept = ""; next
	}
	!inside || /^(panic:|WARNING: DATA RACE)/ { if (!/no test files/) { print; fflush() } next }
	!/^ *--- PASS/ { kept = kept $$0 "\n" }
	END {
		printf "%s", kept
		if (skips) print "\nSkipped:"
		for (i = 1; i <= skips; i++) print "  " skipped[i]
	}'
endef

# What tests and generators need from Debian, installed when it is missing and this is root; a machine that has the command
# keeps the package that gave it. $(1): command or file = package ..., $(2): what happens without.
define install
missing=() packages=()
for pair in $(1); do
	what=$${pair%=*}
	[ -e "$$what" ] || command -v "$$what" >/dev/null || { missing+=("$$what"); packages+=("$${pair#*=}"); }
done
if [ $${#missing[@]} -gt 0 ]; then
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "apt-get install $${packages[*]}"
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${packages[@]}" >/dev/null
	else
		echo "Missing here: $${missing[*]} (Debian: apt-get install $${packages[*]}); $(2)"
	fi
fi
endef

test-packages:
	@$(call install,dockerd=docker.io containerd=containerd runc=runc busybox=busybox-static iptables=iptables nft=nftables ip=iproute2 prometheus=prometheus promtool=prometheus podman=podman dbus-daemon=dbus-daemon mkfs.ext4=e2fsprogs mkfs.btrfs=btrfs-progs sfdisk=fdisk journalctl=systemd /lib/systemd/systemd-journal-remote=systemd-journal-remote,tests that use them skip)

generate-packages:
	@$(call install,clang-19=clang-19 llvm-strip-19=llvm-19 /usr/include/bpf/bpf_helpers.h=libbpf-dev,the kernel programs cannot be compiled)
