#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs what a make target needs and this machine does not have, through apt-get. Does nothing when all is there.
# usage: packaging/deps.sh [list] SET
#   SET is build, deb, generate, demo, test, all, boot, vm or benchmark; list prints its packages, and installs none.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

say() { echo "deps: $*" >&2; }
die() {
	say "$*"
	exit 1
}

# One line each: what must be there (a command, or a file), and the package that brings it.
needs() {
	case $1 in
	build)
		echo /etc/ssl/certs/ca-certificates.crt ca-certificates
		;;
	deb)
		needs build
		echo git git
		;;
	generate)
		needs build
		echo clang-19 clang-19
		echo llvm-strip-19 llvm-19
		echo /usr/include/linux/bpf.h linux-libc-dev
		echo /usr/include/bpf/bpf_helpers.h libbpf-dev
		;;
	demo)
		needs build
		echo ip iproute2
		echo ping iputils-ping
		echo curl curl
		echo nc.openbsd netcat-openbsd
		echo dnsmasq dnsmasq-base
		echo dig bind9-dnsutils
		echo busybox busybox
		echo ethtool ethtool
		echo sysctl procps
		;;
	test)
		needs demo
		needs generate
		echo clang-format-19 clang-format-19
		echo shellcheck shellcheck
		echo iptables iptables
		echo nft nftables
		echo ipset ipset
		echo conntrack conntrack
		echo tcpdump tcpdump
		echo tshark tshark
		echo ssh openssh-client
		echo traceroute traceroute
		echo nmap nmap
		echo iperf3 iperf3
		echo strace strace
		echo tmux tmux
		;;
	all) # and what tests are skipped without: 'make test' must not bring a server to anybody's machine by itself
		needs test
		echo sshd openssh-server
		echo fail2ban-server fail2ban
		echo crowdsec crowdsec
		echo prometheus prometheus
		echo etcd etcd-server
		echo etcdctl etcd-client
		echo /lib/systemd/systemd-journald systemd
		echo gcc gcc
		echo /usr/include/stdlib.h libc6-dev
		;;
	boot)
		needs deb
		echo qemu-system-x86_64 qemu-system-x86
		echo mmdebstrap mmdebstrap
		echo /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
		echo mke2fs e2fsprogs
		echo nc.openbsd netcat-openbsd
		echo dpkg-deb dpkg
		;;
	vm)
		needs demo
		echo iptables iptables
		echo nft nftables
		echo conntrack conntrack
		echo qemu-system-x86_64 qemu-system-x86
		echo cpio cpio
		echo depmod kmod
		echo xz xz-utils
		;;
	benchmark)
		needs build
		echo iptables iptables
		echo nft nftables
		echo ipset ipset
		echo iperf3 iperf3
		echo xdp-filter xdp-tools
		;;
	*)
		die "no set named '$1': build, deb, generate, demo, test, all, boot, vm or benchmark"
		;;
	esac
}

list=
if [ "${1:-}" = list ]; then
	list=yes
	shift
fi
[ $# -eq 1 ] || die "usage: packaging/deps.sh [list] build|deb|generate|demo|test|all|boot|vm|benchmark"
table=$(needs "$1")

if [ -n "$list" ]; then
	echo "$table" | awk '{ print $2 }' | sort -u
	exit
fi

missing=$(echo "$table" | while read -r what package; do
	case $what in
	/*) [ -e "$what" ] ;;
	*) command -v "$what" >/dev/null ;;
	esac || printf '%s ' "$package"
done)
go=$("$here/go.sh" 2>&1) || case $go in
*"no go command"*) missing="${missing}golang-go " ;;
esac

if [ -n "$missing" ]; then
	command -v apt-get >/dev/null || die "missing: ${missing}- this is not Debian or Ubuntu: install what brings them here"
	[ "$(id -u)" -eq 0 ] || die "missing: ${missing}- run this as root to install them, or: apt-get install $missing"

	export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
	apt-get -qq update || say "apt-get update failed: going on with the package lists that are here"

	# The compiler serves only those who change the C: the objects are committed. Do not let its absence stop a test.
	install=
	for package in $missing; do
		if apt-cache policy "$package" | grep -q 'Candidate: [^(]'; then
			install="$install $package"
			continue
		fi
		case $1:$package in
		test:clang-* | test:llvm-* | all:clang-* | all:llvm-*) say "this distribution has no $package: what needs it is skipped" ;;
		*:clang-* | *:llvm-*) die "this distribution has no package $package; Debian 12 and Ubuntu 24.04, and newer, do" ;;
		*) die "this distribution has no package $package" ;;
		esac
	done

	# Tests run an sshd of their own: where there was none, none shall begin to listen (sshd(8) of Debian).
	case $install in
	*fail2ban* | *crowdsec* | *prometheus* | *etcd*)
		# So it is with those who ban, measure or keep: none shall begin to, nor tell anybody elsewhere of this machine (README.Debian of crowdsec).
		mkdir -p /etc/systemd/system /etc/crowdsec
		for unit in fail2ban crowdsec prometheus etcd; do
			case $install in *"$unit"*) [ -e "/etc/systemd/system/$unit.service" ] || ln -sf /dev/null "/etc/systemd/system/$unit.service" ;; esac
		done
		[ -e /etc/crowdsec/online_api_credentials.yaml ] || echo '# not registered' >/etc/crowdsec/online_api_credentials.yaml
		;;
	esac
	case $install in
	*openssh-server*) mkdir -p /etc/ssh && : >/etc/ssh/sshd_not_to_be_run ;;
	esac

	if [ -n "$install" ]; then
		say "installing$install"
		# shellcheck disable=SC2086 # a list of words
		apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 install $install >/dev/null
	fi
fi

"$here/go.sh" fetch >/dev/null
