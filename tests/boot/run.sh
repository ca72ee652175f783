#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian package in a Debian 12 in QEMU, and boots that cold again and again, while somebody on its wire
# sends packets that nobody asked for. What the guest has to show is in guest.sh; each stage there is one boot.
# usage: tests/boot/run.sh
#        as 'make test-boot' does, which has built bin/*.deb before
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
image=$top/bin/boot
limit=10m # for one boot
# shellcheck source=tests/vm/qemu.sh
. "$here/../vm/qemu.sh"

die() {
	echo "test-boot: $*" >&2
	exit 1
}

[ "$(dpkg --print-architecture)" = amd64 ] || die "only amd64 is supported"
"$here/package.sh"
"$here/image.sh" "$image"
choose_accelerator "$image/vmlinuz"

work=$(mktemp -d)
guest=
cleanup() {
	[ -z "$guest" ] || kill "$guest" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

cp --sparse=always "$image/disk.img" "$work/disk"
mkdir "$work/payload"
cp "$here/guest.sh" "$work/payload/"
cp "$top"/bin/portcullis_*_amd64.deb "$work/payload/portcullis.deb"
tar -C "$work/payload" -cf "$work/payload.tar" .

# A UDP packet from 192.0.2.99 to 192.0.2.1, port 7009, where nobody listens, as QEMU frames it on a stream socket.
packet='\0\0\0\x2e\x52\x54\0\0\x02\x01\x52\x54\0\0\x02\x63\x08\0'
packet+='\x45\0\0\x20\0\0\0\0\x40\x11\xf6\x68\xc0\0\x02\x63\xc0\0\x02\x01\x1b\x61\x1b\x61\0\x0c\0\0abcd'

# Sends it all the time, to nobody until the card is up.
pester() {
	until [ -S "$work/wire" ]; do sleep 0.1; done
	# shellcheck disable=SC2059 # the packet is the format
	while printf "$packet" 2>/dev/null; do sleep 0.05; done | nc.openbsd -U "$work/wire" >/dev/null 2>&1 || true
}

# Two network cards and the wire on one hub.
boot() { # stage
	rm -f "$work/wire" "$image/$1".*
	timeout "$limit" "${qemu[@]}" -m 1024 \
		-serial "file:$image/$1.console" -serial "file:$image/$1.results" \
		-netdev stream,id=wire,server=on,addr.type=unix,addr.path="$work/wire" \
		-netdev hubport,id=hub,hubid=0,netdev=wire \
		-netdev hubport,id=a,hubid=0 -device virtio-net-pci,netdev=a,mac=52:54:00:00:02:01 \
		-netdev hubport,id=b,hubid=0 -device virtio-net-pci,netdev=b,mac=52:54:00:00:02:02 \
		-drive "file=$work/disk,format=raw,if=virtio,cache=unsafe" \
		-drive "file=$work/payload.tar,format=raw,if=virtio,readonly=on" -device virtio-rng-pci \
		-kernel "$image/vmlinuz" -initrd "$image/initrd" \
		-append "$parameters root=/dev/vda rw systemd.show_status=0 stage=$1" </dev/null >"$image/$1.qemu" 2>&1 &
	guest=$!
	pester &
	wait "$guest" || echo "QEMU ended with $?, where 124 means after $limit" >>"$image/$1.qemu"
	guest=
	wait
}

echo "test-boot: Debian 12 under $accelerator; what it prints stays in bin/boot"
failed=0
mapfile -t stages < <(sed -n 's/^stage_\([a-z]*\)() .*/\1/p' "$here/guest.sh")
for stage in "${stages[@]}"; do
	began=$SECONDS
	boot "$stage"
	tr -d '\r' <"$image/$stage.results" | sed '/^finished$/d; s/^/  /'
	echo "  $stage: $((SECONDS - began)) s"
	grep -q '^finished' "$image/$stage.results" && ! grep -q '^FAILED' "$image/$stage.results" && continue
	failed=1
	echo "  the guest's last words, from bin/boot/$stage.console, and QEMU's:"
	tail -q -n 12 "$image/$stage".{console,qemu} | sed 's/^/    /'
	break
done
[ "$failed" -eq 0 ] || die "failed"
echo "test-boot: all passed, in $SECONDS s"
