# SPDX-License-Identifier: Apache-2.0
#
# `make help` lists the targets. On Debian and Ubuntu a fresh machine needs nothing but make: what a target needs and the
# machine does not have, Go among it, is installed first (packaging/deps.sh), which takes root.

# Asked when a recipe runs, not when this file is read: Go may have been installed in between.
GO          ?= $(shell packaging/go.sh)
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.7.0
CLANG_FORMAT ?= clang-format-19

# Packages one after the other: those in tests/ time packets and share /sys/fs/bpf.
TESTFLAGS   ?= -count=1 -timeout 20m -p 1
BENCH       ?= .
FUZZTIME    ?= 30s
PACKETS     ?= 200000
SEED        ?= 1

# Lists the packages that have tests.
TESTED      = $(GO) list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...

# What `go test -race` is worth running for: packages that need no kernel of their own.
RACE_PACKAGES = $(patsubst %,./%/...,$(wildcard policy maps cmd/portcullis/agent))

# Prints what tests/differential has written, which is removed before it runs.
SHOW_AGREEMENT = cat $(PORTCULLIS_AGREEMENT) 2>/dev/null || echo "nothing was compared with netfilter"

PREFIX      ?= /usr/local
SBINDIR     ?= $(PREFIX)/sbin
MANDIR      ?= $(PREFIX)/share/man
UNITDIR     ?= $(PREFIX)/lib/systemd/system

GO_DIRS     = $(wildcard bpf cmd loader maps policy tests)
C_FILES     = $(wildcard bpf/*.c bpf/*.h)
SHELL_FILES = $(shell grep -rlIE --exclude='*.go' --exclude='*.md' '^.!.*[/ ](ba|da)?sh$$' .ci packaging tests)

export CGO_ENABLED = 0
# Distributions set this to local; go.mod says which toolchain is wanted.
export GOTOOLCHAIN ?= auto
# The version comes from git describe; a clone that another user owns must not stop the build.
export GOFLAGS := $(GOFLAGS) -buildvcs=false
# The program under test, for the demo and for tests.
export PORTCULLIS = $(CURDIR)/bin/portcullis
# Where tests/differential writes what it has compared, because go test is silent about what passes.
export PORTCULLIS_AGREEMENT = $(CURDIR)/bin/agreement.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SHELLFLAGS = -ec
.PHONY: help build man install demo test test-vm race check check-go check-c check-shell check-modules check-generated \
	generate format budget bench benchmark differential fuzz clean root deps-build deps-generate deps-demo deps-test deps-vm deps-benchmark

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

build: deps-build ## build bin/portcullis
	$(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/portcullis ./cmd/portcullis

man: deps-build ## write the manual pages into bin/man
	rm -rf bin/man && mkdir -p bin/man
	$(GO) run -tags man -ldflags "-X main.version=$(VERSION)" ./cmd/portcullis man bin/man

install: build man ## install the program and its manual pages below PREFIX (/usr/local; DESTDIR is honoured)
	install -D -m 0755 bin/portcullis $(DESTDIR)$(SBINDIR)/portcullis
	for page in bin/man/*.8; do install -D -m 0644 $$page $(DESTDIR)$(MANDIR)/man8/$${page##*/} || exit; done
	for unit in $(wildcard packaging/*.service packaging/*.timer); do \
		install -D -m 0644 $$unit $(DESTDIR)$(UNITDIR)/$${unit##*/} || exit; done

demo: root deps-demo build ## show a firewall at work between network namespaces of this machine (root)
	tests/demo.sh

test: root deps-test check build ## run every check and every test (root)
	@rm -f $(PORTCULLIS_AGREEMENT)
	$(GO) test $(TESTFLAGS) -tags man ./...
	@$(MAKE) --no-print-directory race
	@$(SHOW_AGREEMENT)
	@echo "make test: all passed: the checks, the tests of $$($(TESTED) | wc -w) packages on Linux $$(uname -r)," \
		"$$(command -v gcc >/dev/null && echo 'the race run' || echo 'without the race run (no gcc)')$$(\
		command -v clang-19 >/dev/null || echo '; generated files not compared (no clang-19)')"

test-vm: deps-vm build ## run tests under Debian's kernels in QEMU (KERNELS="6.1 6.12" PACKAGES="host virtio" RUN=regexp)
	GO='$(GO)' tests/vm/run.sh

race: deps-build ## run the tests that need no kernel under the race detector, if there is a gcc
	@if command -v gcc >/dev/null; then set -x; CGO_ENABLED=1 $(GO) test -race -count=1 $(RACE_PACKAGES); \
	else echo "race: skipped: no gcc"; fi

check: check-go check-c check-shell check-modules check-generated ## run every check that is not a test
	@echo "make check: passed"

check-go: deps-test ## check Go: gofmt, vet, staticcheck, and the rules of the tree in tests/check
	@goroot=$$($(GO) env GOROOT); unformatted=$$($$goroot/bin/gofmt -l $(GO_DIRS)); \
	[ -z "$$unformatted" ] || { echo "not formatted: run 'make format':" $$unformatted; exit 1; }
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
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m -p 1 ./...

benchmark: root deps-benchmark build ## measure this machine as docs/benchmark.md says, and write the results there (root)
	bin/portcullis bench --report docs/benchmark

differential: root deps-test ## compare with netfilter, packet by packet (root; PACKETS=200000 SEED=1)
	@rm -f $(PORTCULLIS_AGREEMENT)
	$(GO) test -count=1 -timeout 60m -v ./tests/differential -seed $(SEED) -packets $(PACKETS)
	@$(SHOW_AGREEMENT)

fuzz: deps-build ## run each fuzz target for FUZZTIME (30s)
	@$(GO) list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r package dir; do \
		for target in $$(cat "$$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package </dev/null || exit; \
		done; done

budget: root deps-test ## write what this kernel's verifier makes of the programs, to be compared with later (root)
	$(GO) test -count=1 ./tests/datapath -run TestBudget -update

clean: ## remove what the targets above have built
	rm -rf bin coverage*

deps-build deps-generate deps-demo deps-test deps-vm deps-benchmark: deps-%:
	@packaging/deps.sh $*

root:
	@[ "$$(id -u)" -eq 0 ] || { echo "this needs root: it makes network namespaces and loads BPF programs" >&2; exit 1; }
