#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Fetches the newest of Debian's kernels of a release, such as 6.1, and unpacks it: DIR/vmlinuz and DIR/lib/modules.
# Does nothing when it is there. The flavour is the one for virtual machines, which is a third of the others' size.
# usage: tests/vm/kernel.sh RELEASE DIR
#        DEBIAN_MIRROR=URL takes it from there, where this machine's apt has none: on Ubuntu, or 6.1 on Debian 13.
set -euo pipefail

release=$1 dir=$2
[ ! -e "$dir/vmlinuz" ] || exit 0

die() {
	echo "kernel $release: $*" >&2
	exit 1
}

rm -rf "$dir"
mkdir -p "$dir"
cd "$dir"

apt=(-qq -o APT::Sandbox::User=root)
if [ -n "${DEBIAN_MIRROR:-}" ]; then
	keys=/usr/share/keyrings/debian-archive-keyring.gpg
	[ -e "$keys" ] || die "needs the package debian-archive-keyring, to check what $DEBIAN_MIRROR gives"
	for suite in bookworm trixie; do
		echo "deb [arch=amd64 signed-by=$keys] $DEBIAN_MIRROR $suite main"
	done >sources.list
	mkdir -p lists/partial cache/archives/partial
	apt+=(-o "Dir::Etc::SourceList=$PWD/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$PWD/lists"
		-o "Dir::Cache=$PWD/cache" -o Dir::State::Status=/dev/null -o Acquire::Languages=none)
	apt-get "${apt[@]}" update
fi

# Not the package of packages, not the debug symbols, not the one without a signature.
package=$(apt-cache "${apt[@]}" search --names-only "^linux-image-${release/./\\.}\.[0-9][^ ]*-cloud-amd64\$" |
	cut -d ' ' -f 1 | sort -V | tail -n 1)
[ -n "$package" ] || die "apt knows no linux-image-$release.*-cloud-amd64: only Debian has them;" \
	"elsewhere set DEBIAN_MIRROR to the URL of a mirror of Debian"

echo "kernel $release: fetching $package" >&2
apt-get "${apt[@]}" download "$package" ||
	die "cannot fetch $package; if it is not found there, run apt-get update first"
dpkg-deb -x "$package"_*.deb unpacked

# Debian's 6.12 compresses its modules. The guest would take them apart slowly.
find unpacked -name '*.ko.xz' -exec xz -d {} +
# Where modules lie: /lib up to Debian 12, /usr/lib since.
modules=$(find unpacked -path '*/lib/modules/*' -prune)
mkdir -p lib/modules
mv "$modules" lib/modules/
depmod -b . "${modules##*/}"
mv unpacked/boot/vmlinuz-* vmlinuz.new
rm -rf unpacked ./*.deb lists cache sources.list
mv vmlinuz.new vmlinuz # last: it tells that the rest is there
