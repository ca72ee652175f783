#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks what is in the packages, one for each architecture: every file that has to be there, with its mode; nothing
# else but directories and manual pages; and a program for that architecture.
# And that what make install puts elsewhere works there, and make uninstall takes all of it away.
# usage: tests/boot/package.sh
set -euo pipefail

cd "$(dirname "$0")/../.."

die() {
	echo "test-boot: $*" >&2
	exit 1
}

expected='drwxr-xr-x root/root /etc/portcullis/
-rw-r--r-- root/root /etc/fail2ban/action.d/portcullis.conf
-rw-r--r-- root/root /usr/lib/systemd/system/portcullis.service
-rwxr-xr-x root/root /usr/sbin/portcullis
-rwxr-xr-x root/root /usr/sbin/portcullisd
-rw-r--r-- root/root /usr/share/bash-completion/completions/portcullis
-rw-r--r-- root/root /usr/share/doc/portcullis/changelog.Debian.gz
-rw-r--r-- root/root /usr/share/doc/portcullis/changelog.gz
-rw-r--r-- root/root /usr/share/doc/portcullis/copyright
-rw-r--r-- root/root /usr/share/doc/portcullis/examples/portcullis.yaml
-rw-r--r-- root/root /usr/share/doc/portcullis/grafana/portcullis.json
-rw-r--r-- root/root /usr/share/doc/portcullis/prometheus/alerts.yml
-rw-r--r-- root/root /usr/share/doc/portcullis/third-party-notices.gz
-rw-r--r-- root/root /usr/share/fish/vendor_completions.d/portcullis.fish
-rw-r--r-- root/root /usr/share/lintian/overrides/portcullis
-rw-r--r-- root/root /usr/share/man/man8/portcullis-up.8.gz
-rw-r--r-- root/root /usr/share/man/man8/portcullis.8.gz
-rw-r--r-- root/root /usr/share/zsh/vendor-completions/_portcullis'

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
declare -A machine=([amd64]=3e00 [arm64]=b700) # e_machine, low byte first: elf(5)
for arch in "${!machine[@]}"; do
	package=$(compgen -G "bin/portcullis_*_$arch.deb") || die "no package for $arch: run 'make deb'"

	[ "$(dpkg-deb -f "$package" Architecture)" = "$arch" ] || die "$package is not for $arch"
	contents=$(dpkg-deb -c "$package" | awk '{ sub(/^\./, "", $6); print $1, $2, $6 }')
	others=$(grep -vxF "$expected" <<<"$contents" | grep -vE \
		'^(drwxr-xr-x root/root .*|-rw-r--r-- root/root /usr/share/man/man8/portcullis-[a-z-]+\.8\.gz)$' || true)
	[ -z "$others" ] || die "$package: what is not expected: $others"
	missing=$(grep -vxF "$contents" <<<"$expected" || true)
	[ -z "$missing" ] || die "$package: not there: $missing"

	dpkg-deb -x "$package" "$tree/$arch"
	for program in portcullis portcullisd; do
		elf=$(od -An -tx1 -j 18 -N 2 "$tree/$arch/usr/sbin/$program" | tr -d ' ')
		[ "$elf" = "${machine[$arch]}" ] || die "$package: $program is not for $arch"
	done
	notices=$(zgrep '^==== ' "$tree/$arch/usr/share/doc/portcullis/third-party-notices.gz")
	for module in $("${GO:-go}" version -m "$tree/$arch"/usr/sbin/portcullis* | awk '$1 == "dep" { print $2 }'); do
		grep -qxF "==== $module" <<<"$notices" || die "$package: no licence of $module"
	done
	conffiles=$(dpkg-deb --ctrl-tarfile "$package" | tar -t | grep conffiles || true)
	[ -z "$conffiles" ] || die "$package: has conffiles, about which an upgrade would ask"
	echo "ok: $package: $(wc -l <<<"$contents") files and directories, for $arch"
done

make -s install DESTDIR="$tree/install" PREFIX=/opt
grep -q '^ExecStart=/opt/sbin/portcullis run$' "$tree/install/opt/lib/systemd/system/portcullis.service" ||
	die "make install: the unit does not start what was installed"
for program in portcullis portcullisd; do
	[ -x "$tree/install/opt/sbin/$program" ] || die "make install: no $program"
done
make -s uninstall DESTDIR="$tree/install" PREFIX=/opt
left=$(find "$tree/install" ! -type d)
[ -z "$left" ] || die "make uninstall: left behind: $left"
echo "ok: make install and make uninstall, below another PREFIX"
