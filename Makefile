# SPDX-License-Identifier: Apache-2.0
#
# `make help` lists the targets. On Debian and Ubuntu a fresh machine needs nothing but make: what a target needs and the
# machine does not have, Go among it, is installed first (packaging/deps.sh), which takes root.

# Asked when a recipe runs, not when this file is read: Go may have been installed in between.
GO          ?= $(shell packaging/go.sh)
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.7.0
CLANG_FORMAT ?= clang-format-19
# From 2.46 on it wants a module that the Go module proxy does not hand out.
NFPM        ?= github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
DEB_ARCHS   ?= amd64 arm64

# Packages one after the other: some of those in tests/ time packets.
TESTFLAGS   ?= -count=1 -timeout 30m
BENCH       ?= .
FUZZTIME    ?= 30s
PACKETS     ?= 200000
SCRIPTS     ?= 100000
SEED        ?= 1
# Of fleet-test.
FLEET_HOSTS ?= 20
BAD         ?= 1000
ROUNDS      ?= 11
# Of the load part of the differential: names of rows with commas in between, all, or full for minutes of each.
LOAD        ?=

# What is installed beside the program, and where.
INSTALLED   = bin/completion/bash:$(BASHDIR)/portcullis bin/completion/zsh:$(ZSHDIR)/_portcullis \
	bin/completion/fish:$(FISHDIR)/portcullis.fish packaging/portcullis.yaml:$(DOCDIR)/examples/portcullis.yaml \
	packaging/fail2ban/portcullis.conf:$(FAIL2BANDIR)/portcullis.conf \
	packaging/prometheus/alerts.yml:$(DOCDIR)/prometheus/alerts.yml \
	packaging/grafana/portcullis.json:$(DOCDIR)/grafana/portcullis.json

BUILD       = $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)"

# Lists the packages that have tests.
TESTED      = $(GO) list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...

# The packages whose tests need neither root nor a kernel that loads programs.
QUICK_PACKAGES = $(patsubst %,./%/...,$(filter-out tests,$(GO_DIRS))) ./tests/internal/...

# The packages whose tests mostly wait, or measure nothing: two at a time, the longest first, and that in
# two parts.
TOGETHER = tests/host tests/differential tests/doctor tests/datapath tests/topology tests/cli tests/fleet tests/etcd tests/metrics \
	tests/trial tests/packets tests/imports tests/nftables tests/importscripts
PARTS    = "./tests/host -skip ^Test[A-K]" "./tests/host -run ^Test[A-K]" $(patsubst %,"./%",$(wordlist 2,99,$(TOGETHER)))

EMPTY =
SPACE = $(EMPTY) $(EMPTY)

# The packages that have benchmarks.
BENCH_PACKAGES = $(shell grep -rl '^func Benchmark' --include='*_test.go' $(GO_DIRS) | sed 's|/[^/]*$$||; s|^|./|' | sort -u)

# What `go test -race` is worth running for: packages that need no kernel of their own.
RACE_PACKAGES = $(patsubst %,./%/...,$(wildcard policy maps firewall loader/lock))

# Prints what tests/differential and tests/load have written, which is removed before they run.
SHOW_AGREEMENT = cat $(PORTCULLIS_AGREEMENT) 2>/dev/null || echo "nothing was compared with netfilter"

PREFIX      ?= /usr/local
SBINDIR     ?= $(PREFIX)/sbin
MANDIR      ?= $(PREFIX)/share/man
DOCDIR      ?= $(PREFIX)/share/doc/portcullis
UNITDIR     ?= $(PREFIX)/lib/systemd/system
FAIL2BANDIR ?= /etc/fail2ban/action.d
BASHDIR     ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR      ?= $(PREFIX)/share/zsh/site-functions
FISHDIR     ?= $(PREFIX)/share/fish/vendor_completions.d

GO_DIRS     = $(wildcard bpf cmd firewall host loader maps policy tests)
C_FILES     = $(wildcard bpf/*.c bpf/*.h)
SHELL_FILES = $(shell grep -rlIE --exclude='*.go' --exclude='*.md' '^.!.*[/ ](ba|da)?sh$$' .ci packaging tests)

export CGO_ENABLED = 0
# Distributions set this to local; go.mod says which toolchain is wanted.
export GOTOOLCHAIN ?= auto
# The version comes from git describe; a clone that another user owns must not stop the build.
export GOFLAGS := $(GOFLAGS) -buildvcs=false
# The program under test, for the demo and for tests.
export PORTCULLIS = $(CURDIR)/bin/portcullis
# Where tests/differential and tests/load write what they compare, because go test is silent about what passes.
export PORTCULLIS_AGREEMENT = $(CURDIR)/bin/agreement.txt
# And tests/topology.
export PORTCULLIS_TOPOLOGY = $(CURDIR)/bin/topology.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SHELLFLAGS = -ec
.PHONY: help quick deps build man completion install install-files uninstall deb demo test test-boot test-vm race check \
	check-format check-go check-c check-shell check-modules check-generated generate format budget bench bench-once benchmark \
	differential packets import-scripts imports nftables side-by-side fleet-test fleet-etcd fuzz clean root deps-build deps-deb \
	deps-generate deps-demo deps-test deps-all deps-boot deps-vm deps-benchmark

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

quick: deps-build check-format ## check formatting, vet, the rules of the tree, and test what needs no root, in under a minute
	$(GO) vet -tags man ./...
	$(GO) test -count=1 ./tests/check
	$(GO) test -tags man $(QUICK_PACKAGES)

deps: deps-all ## install what the tests need, an sshd among it (root; packaging/deps.sh list all prints the packages)

build: deps-build ## build bin/portcullis, and bin/portcullisd for metrics and top
	$(BUILD) -o bin/portcullis ./cmd/portcullis
	$(BUILD) -o bin/portcullisd ./cmd/portcullisd

man: deps-build ## write the manual pages into bin/man
	rm -rf bin/man && mkdir -p bin/man
	$(GO) run -tags man -ldflags "-X main.version=$(VERSION)" ./cmd/portcullis man bin/man

completion: build ## write the completions for bash, zsh and fish into bin/completion
	mkdir -p bin/completion
	for shell in bash zsh fish; do bin/portcullis completion $$shell >bin/completion/$$shell; done

install: build man completion install-files ## install all below PREFIX (/usr/local; DESTDIR is honoured): program, manual, completions, unit
	for program in portcullis portcullisd; do install -D -m 0755 bin/$$program $(DESTDIR)$(SBINDIR)/$$program; done

# All but the program, which is another one in the package of another architecture.
install-files:
	for page in bin/man/*.8; do install -D -m 0644 $$page $(DESTDIR)$(MANDIR)/man8/$${page##*/}; done
	for file in $(INSTALLED); do install -D -m 0644 $${file%%:*} $(DESTDIR)$${file#*:}; done
	install -d $(DESTDIR)$(DOCDIR)/examples/fleet
	cp -RL packaging/fleet/. $(DESTDIR)$(DOCDIR)/examples/fleet
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|=/usr/sbin/|=$(SBINDIR)/|' packaging/portcullis.service >$(DESTDIR)$(UNITDIR)/portcullis.service

uninstall: ## remove what install has installed; the filter stays as it is, and so does /etc/portcullis
	rm -f $(DESTDIR)$(SBINDIR)/portcullis $(DESTDIR)$(SBINDIR)/portcullisd $(DESTDIR)$(MANDIR)/man8/portcullis.8 $(DESTDIR)$(MANDIR)/man8/portcullis-*.8
	for file in $(INSTALLED); do rm -f $(DESTDIR)$${file#*:}; done
	rm -rf $(DESTDIR)$(DOCDIR)/examples/fleet
	rm -f $(DESTDIR)$(UNITDIR)/portcullis.service

deb: deps-deb man completion ## build bin/portcullis_VERSION_ARCH.deb, for amd64 and arm64 (DEB_ARCHS)
	rm -rf bin/deb bin/*.deb
	umask 022; for arch in $(DEB_ARCHS); do \
		$(MAKE) --no-print-directory install-files DESTDIR=bin/deb/$$arch PREFIX=/usr ZSHDIR=/usr/share/zsh/vendor-completions; \
		for program in portcullis portcullisd; do \
			GOARCH=$$arch $(BUILD) -o bin/deb/$$arch/usr/sbin/$$program ./cmd/$$program; done; \
		GO='$(GO)' NFPM='$(NFPM)' VERSION='$(VERSION)' packaging/deb.sh $$arch; done

demo: root deps-demo build ## show a firewall at work between network namespaces of this machine (root)
	tests/demo.sh

test: root deps-test check build ## run every check and every test (root)
	@rm -f $(PORTCULLIS_AGREEMENT) $(PORTCULLIS_TOPOLOGY)
	$(GO) test $(TESTFLAGS) -tags man $(QUICK_PACKAGES)
	$(GO) test $(TESTFLAGS) -p 1 -tags man $$($(TESTED) | grep /tests/ | grep -vE '/(tests/internal/.*|$(subst $(SPACE),|,$(TOGETHER)))$$')
	printf '%s\n' $(PARTS) | xargs -P 2 -L 1 $(GO) test $(TESTFLAGS) -tags man -exec $(CURDIR)/tests/isolated.sh
	@$(MAKE) --no-print-directory race bench-once
	@$(SHOW_AGREEMENT)
	@cat $(PORTCULLIS_TOPOLOGY) 2>/dev/null || echo "no topology was compared with netfilter"
	@echo "make test: all passed: the checks, the tests of $$($(TESTED) | wc -w) packages on Linux $$(uname -r)," \
		"$$(command -v gcc >/dev/null && echo 'the race run' || echo 'without the race run (no gcc)')$$(\
		command -v clang-19 >/dev/null || echo '; generated files not compared (no clang-19)')$$(\
		PATH=$$PATH:/usr/sbin command -v sshd >/dev/null || echo '; nothing tried over ssh (no sshd: make deps)')"

test-boot: deps-boot deb ## install the package in a Debian 12 in QEMU, and see what it does there from boot to removal
	GO='$(GO)' tests/boot/run.sh

test-vm: deps-vm build ## run tests under Debian's kernels in QEMU (KERNELS="6.1 6.12" PACKAGES="host virtio" RUN=regexp)
	GO='$(GO)' tests/vm/run.sh

race: deps-build ## run the tests that need no kernel under the race detector, if there is a gcc
	@if command -v gcc >/dev/null; then set -x; CGO_ENABLED=1 $(GO) test -race -count=1 $(RACE_PACKAGES); \
	else echo "race: skipped: no gcc"; fi

check: check-go check-c check-shell check-modules check-generated ## run every check that is not a test
	@echo "make check: passed"

check-format: deps-build ## check that the Go is formatted
	@goroot=$$($(GO) env GOROOT); unformatted=$$($$goroot/bin/gofmt -l $(GO_DIRS)); \
	[ -z "$$unformatted" ] || { echo "not formatted: run 'make format':" $$unformatted; exit 1; }

check-go: deps-test check-format ## check Go: gofmt, vet, staticcheck, and the rules of the tree in tests/check
	$(GO) vet -tags man ./...
	version=$$($(GO) env GOVERSION); GOTOOLCHAIN=$$version+auto $(GO) run $(STATICCHECK) -tags man ./...
	$(GO) test -count=1 ./tests/check

check-c: deps-test ## check that the C is formatted
	@if command -v $(CLANG_FORMAT) >/dev/null; then set -x; $(CLANG_FORMAT) --dry-run -Werror $(C_FILES); \
	else echo "check-c: skipped: no $(CLANG_FORMAT)"; fi

check-shell: deps-test ## check the shell scripts with shellcheck
	shellcheck -x $(SHELL_FILES)

check-modules: deps-build ## check go.mod and go.sum, and the modules against them
	$(GO) mod tidy -diff
	$(GO) mod verify

check-generated: deps-test ## check that the generated files in bpf/ are what their sources give
	@if command -v clang-19 >/dev/null; then set -x; tests/check/generated.sh $(GO); \
	else echo "check-generated: skipped: no clang-19"; fi

generate: deps-generate ## compile the C in bpf/ and generate its Go; the results are committed
	$(GO) generate ./bpf/...

format: deps-test ## format the Go and the C
	goroot=$$($(GO) env GOROOT); $$goroot/bin/gofmt -w $(GO_DIRS)
	$(CLANG_FORMAT) -i $(C_FILES)

bench: root deps-test build ## run the benchmarks of single programs and functions (root; BENCH=regexp)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m -p 1 $(BENCH_PACKAGES)

# Finds the benchmark that no longer runs. What it measures means nothing, and is shown only when one fails.
bench-once: root deps-test
	@echo "$(GO) test -short -run '^$$' -bench . -benchtime 1x -p 1" $(BENCH_PACKAGES)
	@out=$$($(GO) test -short -run '^$$' -bench . -benchtime 1x -p 1 $(BENCH_PACKAGES) 2>&1) || { echo "$$out"; exit 1; }; \
	echo "$$out" | grep '^ok'

benchmark: root deps-benchmark build ## measure this machine as docs/benchmark.md says, and write the results there (root)
	bin/portcullis bench --report docs/benchmark

differential: root deps-test ## compare with netfilter, packet by packet (root; PACKETS=200000 SEED=1), or under load (LOAD=all)
	@rm -f $(PORTCULLIS_AGREEMENT)
	$(GO) test -count=1 -timeout 180m -v $(if $(LOAD),./tests/load -load '$(LOAD)',./tests/differential -seed $(SEED) -packets $(PACKETS))
	@$(SHOW_AGREEMENT)

imports: root deps-test build ## play packets to rules of iptables and to what import makes of them (root; PACKETS=2000)
	$(GO) test -count=1 -timeout 60m -v ./tests/imports -filter -packets $(PACKETS)

imports: PACKETS = 2000

# On its own, ten minutes of it and more, and not what PACKETS says by default.
packets: PACKETS = 10000000
packets: root deps-test ## hold what diff and explain say of packets against loaded policies (root; PACKETS=10000000 SEED=1)
	$(GO) test -count=1 -timeout 180m -v ./tests/packets -seed $(SEED) -packets $(PACKETS)

fleet-test: root deps-test build ## test a fleet of twenty hosts, and a thousand bad policies (root; FLEET_HOSTS=20 BAD=1000)
	tests/isolated.sh $(GO) test -count=1 -timeout 300m -v ./tests/fleet -hosts $(FLEET_HOSTS) -bad $(BAD) -kills 50

fleet-etcd: HOSTS = 10000
fleet-etcd: ROUNDS = 20
fleet-etcd: root deps-all build ## fleets in etcd: members that fail ROUNDS times (20), and HOSTS simulated hosts (10000) (root)
	tests/isolated.sh $(GO) test -count=1 -timeout 180m -v ./tests/etcd -rounds $(ROUNDS) -hosts $(HOSTS) -quiet 30s

nftables: RULESETS = 2000
nftables: root deps-test ## hold what import makes of rules of nft against nft (root; RULESETS=2000 SEED=1)
	$(GO) test -count=1 -timeout 180m -v ./tests/nftables -seed $(SEED) -rulesets $(RULESETS)

side-by-side: root deps-test build ## measure what looking at dropped packets costs, beside tcpdump, xdpdump and nft (root; ROUNDS=11)
	$(GO) test -count=1 -timeout 180m -v -exec $(CURDIR)/tests/isolated.sh ./tests/host -run TestSideBySide -side-by-side $(ROUNDS)

import-scripts: root deps-test ## draw shell scripts, run them, and compare the rules with what import makes of them (root; SCRIPTS=100000 SEED=1)
	$(GO) test -count=1 -timeout 720m -v ./tests/importscripts -seed $(SEED) -scripts $(SCRIPTS) -real $$(($(SCRIPTS) / 100 + 1))

fuzz: deps-build ## run each fuzz target for FUZZTIME (30s)
	@$(GO) list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r package dir; do \
		for target in $$(cat "$$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package </dev/null || exit; \
		done; done

budget: root deps-test ## write what this kernel's verifier makes of the programs, to be compared with later (root)
	$(GO) test -count=1 ./tests/datapath -run TestBudget -update

clean: ## remove what the targets above have built
	rm -rf bin coverage*

deps-build deps-deb deps-generate deps-demo deps-test deps-all deps-boot deps-vm deps-benchmark: deps-%:
	@packaging/deps.sh $*

root:
	@[ "$$(id -u)" -eq 0 ] || { echo "this needs root: it makes network namespaces and loads BPF programs" >&2; exit 1; }
