#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The kernel matrix: runs the tests under each of Debian's kernels, in QEMU, all kernels at the same time, and reports
# for each kernel and suite how many tests passed, failed and were skipped. What each guest printed stays in bin/vm.
# usage: [KERNELS="6.1 6.12"] [PACKAGES="host virtio"] [RUN=regexp] tests/vm/run.sh
#        as 'make test-vm' does, which has built bin/portcullis before
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
# shellcheck source=tests/vm/qemu.sh
. "$here/qemu.sh"
cache=$top/bin/vm
PATH=$PATH:/usr/sbin:/sbin
read -ra kernels <<<"${KERNELS:-6.1 6.12}"
limit=180m # for one guest: in emulation the whole suite takes two hours

# What the guest runs, a line for a suite: its name, its package, and a command in the directory of the package's test
# program. The virtual network cards differ from veth pairs by native XDP alone. Of the benchmark's tests only
# TestGenerators depends on the kernel, of the doctor's those of devices, hooks and sockets. The programs whose traffic
# is recorded (nmap, ssh and others) are not in the guest.
RUN=${RUN:-.}
suites="
datapath	tests/datapath		./test -test.run '$RUN'
host		tests/host		./test -test.run '$RUN'
virtio		tests/host		PORTCULLIS_LAB_DEVICES=eth0,eth1 ./test -test.run '$RUN/(native|auto)' -test.skip TestKill
vmxnet3		tests/host		PORTCULLIS_LAB_DEVICES=eth2,eth3 ./test -test.run '$RUN' -test.skip '^Test([^V]|V[^m])'
differential	tests/differential	./test -test.run '$RUN' -test.skip TestRecordedTraffic -packets 10000
topology	tests/topology		./test -test.run '$RUN'
packets		tests/packets		./test -test.run '$RUN' -test.skip 'Difference' -packets 20000
cli		tests/cli		./test -test.run '$RUN'
doctor		tests/doctor		./test -test.run '$RUN' -test.skip 'TestConditions/(.*tables|ufw|containers|router|forw|another|bad|unf|veth|gen|not|large)'
bench		tests/bench		modprobe pktgen && ./test -test.run '$RUN' -test.skip '^Test[^G]'
"
PACKAGES=${PACKAGES:-$(awk '{ print $1 }' <<<"$suites")}

die() {
	echo "test-vm: $*" >&2
	exit 1
}

[ "$(dpkg --print-architecture)" = amd64 ] || die "only amd64 is supported: the guest runs this machine's programs"

tree=$(mktemp -d)
guests=()
cleanup() {
	[ ${#guests[@]} -eq 0 ] || kill "${guests[@]}" 2>/dev/null || true
	rm -rf "$tree"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

for kernel in "${kernels[@]}"; do
	"$here/kernel.sh" "$kernel" "$cache/$kernel"
done

# The guest's copy of this tree holds test programs where here is their source, and beside them what they read.
export CGO_ENABLED=0
mkdir -p "$tree/bin" "$tree/suites"
cp "$top/bin/portcullis" "$top/bin/portcullisd" "$tree/bin/"
cp -r "$top/docs" "$tree/"
mkdir -p "$tree/policy/iptables"
cp -r "$top/policy/iptables/testdata" "$tree/policy/iptables/"
for name in $PACKAGES; do
	read -r _ package command < <(grep "^$name	" <<<"$suites") || die "there is no suite named $name"
	mkdir -p "$tree/$package"
	(cd "$top" && "${GO:-go}" test -c -trimpath -ldflags '-s -w' -o "$tree/$package/test" "./$package")
	[ ! -d "$top/$package/testdata" ] || cp -r "$top/$package/testdata" "$tree/$package/"
	echo "cd $package && $command -test.v -test.timeout $limit" >"$tree/suites/$name"
done

choose_accelerator "$cache/${kernels[0]}/vmlinuz"

# Two network cards on one hub, with nothing else on it, of each kind. The results come by a serial port of their own.
boot() { # directory
	exec timeout "$limit" "${qemu[@]}" -m 2048 \
		-serial "file:$1/console" -serial "file:$1/results" \
		-netdev hubport,id=a,hubid=0 -device virtio-net-pci,netdev=a \
		-netdev hubport,id=b,hubid=0 -device virtio-net-pci,netdev=b \
		-netdev hubport,id=c,hubid=1 -device vmxnet3,netdev=c \
		-netdev hubport,id=d,hubid=1 -device vmxnet3,netdev=d \
		-kernel "$1/vmlinuz" -initrd "$1/initramfs" \
		-append "$parameters NONCE=$nonce SUITES=${PACKAGES//[[:space:]]/,}" </dev/null >"$1/qemu" 2>&1
}

nonce=$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')
for kernel in "${kernels[@]}"; do
	"$here/initramfs.sh" "$cache/$kernel" "$tree" "$cache/$kernel/initramfs"
	boot "$cache/$kernel" &
	guests+=($!)
done

echo "test-vm: ${kernels[*]} run under $accelerator; what they print grows in bin/vm/*/results"
failed=0
for i in "${!kernels[@]}"; do
	directory=$cache/${kernels[i]}
	wait "${guests[i]}" || echo "QEMU ended with $?, where 124 means after $limit" >>"$directory/qemu"
	awk -v nonce="$nonce" -v suites="$PACKAGES" -f "$here/report.awk" "$directory/results" && continue
	failed=1
	echo "  the guest's last words, from $directory/console, and QEMU's:"
	tail -q -n 12 "$directory/console" "$directory/qemu" | sed 's/^/    /'
done
guests=()
[ "$failed" -eq 0 ] || die "failed"
echo "test-vm: all passed, in $SECONDS s"
