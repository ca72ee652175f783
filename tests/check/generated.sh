#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Fails when the generated files in bpf/ are not what their sources give. Generates into a copy of the tree, so that
# the tree itself is not touched, and into a path that differs from it, so that a path left in an object is found too.
# usage: tests/check/generated.sh GO
set -euo pipefail
cd "$(dirname "$0")/../.."
go=${1:-go}

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r go.mod go.sum bpf "$copy"
rm -f "$copy"/bpf/*_bpfel.* "$copy"/bpf/*_bpfeb.* "$copy"/bpf/*_string.go
(cd "$copy" && "$go" generate ./bpf/...)

if ! diff -rq bpf "$copy/bpf" | sed "s|$copy/|generated |" >&2; then
	echo "generated files in bpf/ are out of date: run \`make generate\` and commit what it changes" >&2
	echo "(compiled here with $(clang-19 --version | head -n 1))" >&2
	exit 1
fi
