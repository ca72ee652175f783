#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Prints the go command to build with. Go 1.21 and newer fetch the toolchain that go.mod asks for by themselves
# (with GOTOOLCHAIN=auto), so any of them will do. An older one can still fetch that toolchain as a module:
# `packaging/go.sh fetch` does that, and from then on the go command inside that module is the one printed.
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
old=
for go in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go/bin/go /usr/lib/go-1.*/bin/go; do
	[ -x "$go" ] || continue
	minor=$(GOTOOLCHAIN=local "$go" version 2>/dev/null | sed -n 's/.*go1\.\([0-9][0-9]*\).*/\1/p')
	if [ "${minor:-0}" -ge 21 ]; then
		echo "$go"
		exit 0
	fi
	[ -n "$old" ] || [ -z "$minor" ] || old=$go
done

if [ -z "$old" ]; then
	echo "no go command found: run 'packaging/deps.sh build' as root, or install Go 1.21 or newer" >&2
	exit 1
fi

wanted=go$(sed -n 's/^go //p' "$top/go.mod")
release=v0.0.1-$wanted.$("$old" env GOOS)-$("$old" env GOARCH)
toolchain=$("$old" env GOMODCACHE)/golang.org/toolchain@$release

if [ ! -f "$toolchain/src/go.mod" ] && [ "${1:-}" = fetch ]; then
	echo "$("$old" version) is too old: fetching $wanted as a module" >&2
	scratch=$(mktemp -d)
	trap 'rm -rf "$scratch"' EXIT
	echo "module scratch" >"$scratch/go.mod"
	(cd "$scratch" && GOFLAGS='' GO111MODULE=on GOWORK=off "$old" mod download "golang.org/toolchain@$release")

	# A module holds neither executables nor nested go.mod files. src/go.mod comes last: it says that all is there.
	chmod a+x "$toolchain"/bin/* "$toolchain"/pkg/tool/*/*
	find "$toolchain" -name _go.mod ! -path "$toolchain/src/_go.mod" | while read -r mod; do
		chmod u+w "${mod%/*}"
		cp -f "$mod" "${mod%/*}/go.mod"
	done
	chmod u+w "$toolchain/src"
	cp -f "$toolchain/src/_go.mod" "$toolchain/src/go.mod"
fi

if [ ! -f "$toolchain/src/go.mod" ]; then
	echo "$("$old" version) is too old: run 'packaging/go.sh fetch', or install Go 1.21 or newer" >&2
	exit 1
fi
echo "$toolchain/bin/go"
