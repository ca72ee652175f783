#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes bin/portcullis_VERSION_ARCH.deb of the tree bin/deb/ARCH, into which 'make deb' has installed, and of what only
# Debian asks for. The same commit gives the same package, byte for byte.
# usage: NFPM=module@version VERSION=version packaging/deb.sh ARCH
set -euo pipefail

cd "$(dirname "$0")/.."
export ARCH=$1 TREE=bin/deb/$1
documents=$TREE/usr/share/doc/portcullis
go=${GO:-go}

# As git describe says it: a release, commits after it, a tree with changes; a '~' sorts before the release, a '+'
# after it. Without any release so far it is the commit.
commit=$(git log -1 --format=%cd --date=format:%Y%m%d 2>/dev/null || true)
DEB_VERSION=$(sed -E "/^v?[0-9]+(\.[0-9]+)+/!s/^/0~${commit:-0}./; s/^v//; s/-([0-9]+)-g([0-9a-f]+)/+\1.g\2/
	s/-dirty\$/+dirty/; s/-/~/g" <<<"$VERSION")
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)
export DEB_VERSION SOURCE_DATE_EPOCH

mkdir -p "$documents"
{
	cat packaging/deb/copyright
	sed 's/^$/./; s/^/ /' bpf/LICENSE.BSD-2-Clause
} >"$documents/copyright"

# notice NAME DIRECTORY prints the licence of what is linked into the program, which asks for that, and its notices.
notice() {
	local files
	files=$(find "$2" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) | LC_ALL=C sort)
	[ -n "$files" ] || { echo "$0: no licence of $1 in $2" >&2; return 1; }
	printf '%s\n\n' "==== $1"
	while read -r file; do
		cat "$file"
		echo
	done <<<"$files"
}
modules=$("$go" version -m "$TREE"/usr/sbin/portcullis* | awk '$1 == "dep" { print $2 }' | LC_ALL=C sort -u)
{
	notice "the Go runtime and library" "$("$go" env GOROOT)"
	for module in $modules; do
		notice "$module" "$("$go" list -m -f '{{.Dir}}' "$module")"
	done
} | gzip -9nc >"$documents/third-party-notices.gz"

gzip -9nc CHANGELOG.md >"$documents/changelog.gz"
gzip -9nc >"$documents/changelog.Debian.gz" <<END
portcullis ($DEB_VERSION-1) unstable; urgency=medium

  * Package of version $VERSION: see changelog.gz.

 -- $(sed -n 's/^maintainer: //p' packaging/nfpm.yaml)  $(date -uRd "@$SOURCE_DATE_EPOCH")
END
gzip -9nf "$TREE"/usr/share/man/man8/*.8
install -D -m 0644 packaging/deb/lintian-overrides "$TREE/usr/share/lintian/overrides/portcullis"

# nfpm is built for this machine, whatever it packs for.
env -u GOARCH "$go" run "$NFPM" package --config packaging/nfpm.yaml --packager deb \
	--target "bin/portcullis_$DEB_VERSION-1_$ARCH.deb"
