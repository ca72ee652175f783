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
RACE_PACKAGES = $(patsubst %,./%/...,$(wildcard policy maps))

PREFIX      ?= /usr/local
SBINDIR     ?= $(PREFIX)/sbin
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

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SHELLFLAGS = -ec
.PHONY: help build install demo test race check check-go check-c check-shell check-modules check-generated \
	generate format bench differential fuzz clean root deps-build deps-generate deps-demo deps-test

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

build: deps-build ## build bin/portcullis
	$(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/portcullis ./cmd/portcullis

install: build ## install the program, and the systemd unit, below PREFIX (/usr/local; DESTDIR is honoured)
	install -D -m 0755 bin/portcullis $(DESTDIR)$(SBINDIR)/portcullis
	for unit in $(wildcard packaging/*.service packaging/*.timer); do \
		install -D -m 0644 $$unit $(DESTDIR)$(UNITDIR)/$${unit##*/} || exit; done

demo: root deps-demo build ## show a firewall at work between network namespaces of this machine (root)
	tests/demo.sh

test: root deps-test check build ## run every check and every test (root)
	$(GO) test $(TESTFLAGS) ./...
	@$(MAKE) --no-print-directory race
	@echo "make test: all passed: the checks, the tests of $$($(TESTED) | wc -w) packages on Linux $$(uname -r)," \
		"$$(command -v gcc >/dev/null && echo 'the race run' || echo 'without the race run (no gcc)')$$(\
		command -v clang-19 >/dev/null || echo '; generated files not compared (no clang-19)')"

race: deps-build ## run the tests that need no kernel under the race detector, if there is a gcc
	@if command -v gcc >/dev/null; then set -x; CGO_ENABLED=1 $(GO) test -race -count=1 $(RACE_PACKAGES); \
	else echo "race: skipped: no gcc"; fi

check: check-go check-c check-shell check-modules check-generated ## run every check that is not a test
	@echo "make check: passed"

check-go: deps-test ## check Go: gofmt, vet, staticcheck, and the rules of the tree in tests/check
	@goroot=$$($(GO) env GOROOT); unformatted=$$($$goroot/bin/gofmt -l $(GO_DIRS)); \
	[ -z "$$unformatted" ] || { echo "not formatted: run 'make format':" $$unformatted; exit 1; }
	$(GO) vet ./...
	version=$$($(GO) env GOVERSION); GOTOOLCHAIN=$$version+auto $(GO) run $(STATICCHECK) ./...
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

bench: root deps-test build ## run the benchmarks (root; BENCH=regexp)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m -p 1 ./...

differential: root deps-test ## compare with netfilter, packet by packet (root; PACKETS=200000 SEED=1)
	$(GO) test -count=1 -timeout 60m -v ./tests/differential -seed $(SEED) -packets $(PACKETS)

fuzz: deps-build ## run each fuzz target for FUZZTIME (30s)
	@$(GO) list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r package dir; do \
		for target in $$(cat "$$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package </dev/null || exit; \
		done; done

clean: ## remove what the targets above have built
	rm -rf bin coverage*

deps-build deps-generate deps-demo deps-test: deps-%:
	@packaging/deps.sh $*

root:
	@[ "$$(id -u)" -eq 0 ] || { echo "this needs root: it makes network namespaces and loads BPF programs" >&2; exit 1; }
