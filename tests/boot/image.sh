#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes a Debian 12 in DIR: its kernel and initrd, and disk.img, an ext4 file system with systemd and ifupdown. It runs
# the script guest.sh from a tar archive on its second disk, which prints to the second serial port. Does nothing when
# all is there and no older than this script.
# usage: tests/boot/image.sh DIR
#        DEBIAN_MIRROR=URL takes the packages from there
set -euo pipefail

self=$(realpath "$0")
dir=$(realpath -m "$1")
PATH=$PATH:/usr/sbin:/sbin
[ "$self" -nt "$dir/disk.img" ] || exit 0

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
rm -rf "$dir"
mkdir -p "$dir"
cd "$dir"

# The initrd has no driver for network cards: eth0 appears while the services start, as it does on most machines.
mkdir "$root/initramfs"
echo MODULES=list >"$root/initramfs/boot-test.conf"
printf '%s\n' virtio_pci virtio_blk ext4 >"$root/initramfs/modules"

echo "test-boot: making a Debian 12, once" >&2
packages=systemd,systemd-sysv,udev,kmod,ifupdown,iproute2,iputils-ping,netcat-openbsd,jq,zstd,initramfs-tools
# shellcheck disable=SC2016 # mmdebstrap sets $1
mmdebstrap --quiet --variant=minbase --mode=root --components=main --architectures=amd64 \
	--include="$packages,linux-image-cloud-amd64" \
	--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
	--essential-hook="upload '$root/initramfs/boot-test.conf' /etc/initramfs-tools/conf.d/boot-test" \
	--essential-hook="upload '$root/initramfs/modules' /etc/initramfs-tools/modules" \
	bookworm "$root/debian.tar" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"

mkdir "$root/debian"
cd "$root/debian"
tar -xf "$root/debian.tar" --exclude='./dev/*'

echo guest >etc/hostname
echo '127.0.0.1 localhost guest' >etc/hosts
echo '/dev/vda / ext4 defaults,noatime 0 1' >etc/fstab
: >etc/machine-id
mkdir -p var/log/journal
cat >etc/network/interfaces <<'END'
auto lo eth0
iface lo inet loopback
iface eth0 inet static
	address 192.0.2.1/24
	gateway 192.0.2.254
END
cat >etc/systemd/system/boot-test.service <<'END'
[Unit]
After=networking.service

[Service]
ExecStart=/bin/sh -c 'tar -C /run -xf /dev/vdb && exec sh /run/guest.sh >/dev/ttyS1 2>&1'

[Install]
WantedBy=multi-user.target
END
systemctl --quiet --root=. enable boot-test.service
# Work that has nothing to do with the test, and takes its time under emulation.
systemctl --quiet --root=. mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	e2scrub_reap.service fstrim.timer systemd-pstore.service getty@tty1.service serial-getty@ttyS0.service

cp -L vmlinuz "$dir/vmlinuz"
cp -L initrd.img "$dir/initrd"
truncate -s 1G "$dir/disk.new"
mke2fs -q -t ext4 -E lazy_itable_init=1 -d . "$dir/disk.new"
mv "$dir/disk.new" "$dir/disk.img" # last: it tells that the rest is there
