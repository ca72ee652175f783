#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs a test program (go test -exec) with a bpf filesystem, names of network namespaces and a /run/portcullis of its own,
# so that packages can be tested at the same time.
set -euo pipefail

exec unshare --mount --propagation private bash -euc '
	mkdir -p /run/netns /run/portcullis
	mount -t bpf -o mode=0700 bpf /sys/fs/bpf
	mount -t tmpfs tmpfs /run/netns
	mount -t tmpfs -o mode=0755 tmpfs /run/portcullis
	exec "$@"' isolated "$@"
