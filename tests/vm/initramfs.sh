#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the guest's root file system: busybox and the programs that the tests call, with their libraries, from this
# machine; the modules of the kernel that kernel.sh has put in KERNEL; the tree TREE, with the test programs; and init.
# usage: tests/vm/initramfs.sh KERNEL TREE FILE
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kernel=$1 tree=$2 file=$3
PATH=$PATH:/usr/sbin:/sbin
version=$(ls "$kernel/lib/modules")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

# busybox's shell would run busybox's own ip.
programs="sh ip tc nsenter setpriv ping curl nft iptables ip6tables iptables-legacy iptables-legacy-save iptables-save iptables-restore ip6tables-save ip6tables-restore conntrack ethtool flock kmod"
# All of netfilter, the protocols, traffic control and pktgen are in net/.
drivers="bonding dummy ifb ipvlan macvlan team tun veth virtio_net virtio_pci vmxnet3 vrf vxlan"

mkdir -p "$root"/{dev,etc,proc,root,run,sys,tmp,usr/bin,usr/sbin,usr/lib,usr/lib64}
for directory in bin sbin lib lib64; do
	ln -s "usr/$directory" "$root/$directory"
done

# Installs files where they are here, those behind symbolic links too.
take() {
	local path
	for path in "$@"; do
		[ -e "$root$path" ] || install -D "$path" "$root$path"
	done
}

# The libraries that a program or library is linked to.
libraries() { ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true; }

for name in busybox $programs; do
	path=$(command -v "$name")
	take "$path"
	mapfile -t needed < <(libraries "$path")
	take "${needed[@]}"
done
ln -s "$(command -v kmod)" "$root/sbin/modprobe"
# Busybox stands in for what else there is.
for name in $(busybox --list); do
	[ -e "$root/bin/$name" ] || [ -e "$root/sbin/$name" ] || ln -s "$(command -v busybox)" "$root/bin/$name"
done

# iptables loads its matches at run time, from where it was built to.
for extension in /usr/lib/*/xtables/*.so; do
	take "$extension"
done
for optional in /etc/protocols /etc/services; do
	[ ! -e "$optional" ] || take "$optional"
done

net=$(cd "$kernel/lib/modules/$version/kernel/net" && find . -name '*.ko' -exec basename {} .ko \;)
for module in $drivers $net; do
	modprobe -C /dev/null -S "$version" -d "$kernel" --show-depends "$module"
done | awk '$1 == "insmod" { print $2 }' | sort -u | while read -r module; do
	install -D -m 0644 "$module" "$root/lib/modules/${module##*/lib/modules/}"
done
cp "$kernel/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$version/"
depmod -b "$root" "$version"

install "$here/init" "$root/init"
cp -r "$tree" "$root/portcullis"
(cd "$root" && find . -print0 | cpio --null --quiet -o -H newc) >"$file"
