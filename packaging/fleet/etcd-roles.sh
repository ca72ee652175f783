#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Gives the users of a fleet what they may do in etcd. A user of etcd is the common name of a client certificate: etcd has
# to run with --client-cert-auth and --trusted-ca-file. There are no passwords. All of it can be done again at any time.
#
# usage: etcd-roles.sh publisher NAME...      who publishes, bans and looks at the fleet
#        etcd-roles.sh host GROUP NAME...     hosts of a group
#        etcd-roles.sh probing GROUP          let hosts of a group read how others are: for probes "22/tcp from h2"
#        etcd-roles.sh remove NAME...         take everything from users
#        etcd-roles.sh enable                 from now on etcd holds everybody to it: root has to exist as a certificate
#
# etcdctl finds the cluster by its environment: ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY, which is
# root's once auth is enabled. FOLDER is what the fleet's URL says after the members, or else portcullis.
set -eu

export ETCDCTL_API=3
folder=/${FOLDER:-portcullis}/

die() {
	echo "etcd-roles.sh: $*" >&2
	exit 2
}

check() {
	case $1 in
	"" | [!a-z0-9]* | *[!a-z0-9.-]*) die "'$1' is no name: lower-case letters, digits, dots and hyphens" ;;
	esac
}

role() { etcdctl role get "$1" >/dev/null 2>&1 || etcdctl role add "$1"; }
user() {
	[ "$1" != root ] || die "root may do everything as it is"
	etcdctl user get "$1" >/dev/null 2>&1 || etcdctl user add "$1" --no-password
}
below() { etcdctl role grant-permission --prefix=true "$1" "$2" "$folder$3"; } # ROLE read|readwrite FOLDER/

[ $# -ge 1 ] || die "usage: etcd-roles.sh publisher NAME... | host GROUP NAME... | probing GROUP | remove NAME... | enable"
command=$1
shift

case $command in
publisher)
	[ $# -ge 1 ] || die "name the publisher"
	role portcullis-publisher
	below portcullis-publisher readwrite ""
	for name; do
		check "$name"
		user "$name"
		etcdctl user grant-role "$name" portcullis-publisher
	done
	;;
host)
	[ $# -ge 2 ] || die "name the group, and its hosts"
	group=$1
	check "$group"
	shift
	role "portcullis-group-$group"
	for read in "groups/$group/" bundles/ lists/ "bans/$group/"; do
		below "portcullis-group-$group" read "$read"
	done
	for name; do
		check "$name"
		user "$name"
		# How it is, and whom it bans. Which bans travel, and whose, the signed bundle says.
		role "portcullis-host-$name"
		below "portcullis-host-$name" readwrite "hosts/$name/"
		etcdctl role grant-permission "portcullis-host-$name" readwrite "${folder}bans/$group/$name"
		etcdctl user grant-role "$name" "portcullis-group-$group"
		etcdctl user grant-role "$name" "portcullis-host-$name"
	done
	;;
probing)
	[ $# -eq 1 ] || die "name one group"
	check "$1"
	role "portcullis-group-$1"
	below "portcullis-group-$1" read hosts/
	;;
remove)
	[ $# -ge 1 ] || die "name the users"
	for name; do
		check "$name"
		! etcdctl user get "$name" >/dev/null 2>&1 || etcdctl user delete "$name"
		! etcdctl role get "portcullis-host-$name" >/dev/null 2>&1 || etcdctl role delete "portcullis-host-$name"
	done
	;;
enable)
	role root
	etcdctl user get root >/dev/null 2>&1 || etcdctl user add root --no-password
	etcdctl user grant-role root root
	etcdctl auth enable
	;;
*)
	die "no command '$command'"
	;;
esac
