#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks what is in the packages, one for each architecture: every file that has to be there with its mode, nothing
# beside them but manual pages, and a program for that architecture.
# usage: tests/boot/package.sh
set -euo pipefail

cd "$(dirname "$0")/../.."

die() {
	echo "test-boot: $*" >&2
	exit 1
}

expected='drwxr-xr-x root/root /etc/portcullis/
-rw-r--r-- root/root /usr/lib/systemd/system/portcullis.service
-rwxr-xr-x root/root /usr/sbin/portcullis
-rw-r--r-- root/root /usr/share/bash-completion/completions/portcullis
-rw-r--r-- root/root /usr/share/doc/portcullis/changelog.Debian.gz
-rw-r--r-- root/root /usr/share/doc/portcullis/changelog.gz
-rw-r--r-- root/root /usr/share/doc/portcullis/copyright
-rw-r--r-- root/root /usr/share/doc/portcullis/examples/portcullis.yaml
-rw-r--r-- root/root /usr/share/fish/vendor_completions.d/portcullis.fish
-rw-r--r-- root/root /usr/share/lintian/overrides/portcullis
-rw-r--r-- root/root /usr/share/man/man8/portcullis-up.8.gz
-rw-r--r-- root/root /usr/share/man/man8/portcullis.8.gz
-rw-r--r-- root/root /usr/share/zsh/vendor-completions/_portcullis'

declare -A machine=([amd64]=3e00 [arm64]=b700) # e_machine, low byte first: elf(5)
for arch in "${!machine[@]}"; do
	packages=(bin/portcullis_*_"$arch".deb)
	[ -e "${packages[0]}" ] && [ ${#packages[@]} -eq 1 ] || die "not one package for $arch: run 'make deb'"
	package=${packages[0]}

	[ "$(dpkg-deb -f "$package" Architecture)" = "$arch" ] || die "$package is not for $arch"
	contents=$(dpkg-deb -c "$package" | awk '{ sub(/^\./, "", $6); print $1, $2, $6 }')
	directories=$(sed 's|[^/]*$||' <<<"$expected" | cut -d ' ' -f 3)
	others=$(grep -vxF "$expected" <<<"$contents" |
		grep -vE '^-rw-r--r-- root/root /usr/share/man/man8/portcullis-[a-z-]+\.8\.gz$' |
		while read -r mode owner path; do
			[ "$mode $owner" = "drwxr-xr-x root/root" ] && grep -q "^$path" <<<"$directories" || echo "$mode $owner $path"
		done)
	[ -z "$others" ] || die "$package: what is not expected: $others"
	missing=$(grep -vxF "$contents" <<<"$expected" || true)
	[ -z "$missing" ] || die "$package: not there: $missing"

	elf=$(dpkg-deb --fsys-tarfile "$package" | tar -xO ./usr/sbin/portcullis | head -c 20 | od -An -tx1 | tr -d ' \n')
	[ "${elf:36:4}" = "${machine[$arch]}" ] || die "$package: the program is not for $arch"
	conffiles=$(dpkg-deb --ctrl-tarfile "$package" | tar -t | grep conffiles || true)
	[ -z "$conffiles" ] || die "$package: has conffiles, about which an upgrade would ask"
	echo "ok: $package: $(wc -l <<<"$contents") files and directories, for $arch"
done
