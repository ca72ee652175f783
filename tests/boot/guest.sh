#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest once the network is up: the stage that the kernel's command line names. Each check prints one line;
# one that fails prints what it saw too. eth1 is on the same wire as eth0; in the namespace "outside" it is another host.

cd /run || exit
unit=portcullis.service
file=/etc/portcullis/portcullis.yaml
failed=

check() { # what, command...
	what=$1
	shift
	if "$@" >/run/seen 2>&1; then
		echo "ok: $what"
	else
		failed=yes
		echo "FAILED: $what: $*"
		sed 's/^/    /' /run/seen
	fi
}

# Runs a command that has to print a pattern.
says() {
	pattern=$1
	shift
	output=$("$@" 2>&1)
	echo "$output"
	echo "$output" | grep -q "$pattern"
}
gone() { # file...
	for name in "$@"; do
		[ ! -e "$name" ] || return 1
	done
}

# Tries a command for a minute and more; emulated guests are slow.
soon() {
	for _ in $(seq 120); do
		! "$@" || return 0
		sleep 0.5
	done
	return 1
}

outside() { ip netns exec outside "$@"; }
connect() { outside nc -nvz -w "$2" 192.0.2.1 "$1" 2>&1; }
answers() { connect "$1" 10; }
silent() { says 'timed out' connect "$1" 3; }

# Packets that reached UDP and found no socket, which is what the stack makes of those that pester this host.
unsolicited() { awk '/^Udp: [0-9]/ { print $3 }' /proc/net/snmp; }
dropped() { portcullis status -o json | jq '[.counters[] | select(.verdict == "drop") | .packets] | add'; }
grows() { # function
	before=$($1)
	sleep 2
	after=$($1)
	echo "$1: $before, then $after"
	[ "$after" -gt "$before" ]
}

filtered() { portcullis status -o json | jq -e --arg name "$1" '.interfaces[] | select(.name == $name and .present)'; }
in_force() { portcullis status -o json | jq -e --arg rule "$1" '.rules[] | select(.rule == $rule)'; }
not_running() {
	portcullis status
	[ $? -eq 3 ]
}
is() { # property, value
	value=$(systemctl show -P "$1" $unit)
	echo "$1=$value"
	[ "$value" = "$2" ]
}
# When a unit came into a state, in microseconds since the kernel began.
since() { systemctl show -P "${1}TimestampMonotonic" "$2"; }
main_pid() { systemctl show -P MainPID $unit; }
replaced() { [ "$(main_pid)" -ne "$1" ] && is ActiveState active; }
errors() { journalctl -b -q -p err -o cat -u $unit; }
no_errors() { ! errors | grep .; }
complains() { says "$file:.*gibberish" errors; }

# 7000 is opened, 7001 later on, 7002 never; all three have a listener.

stage_install() {
	check "without a filter a port answers" answers 7002
	check "and what pesters this host reaches it" grows unsolicited
	check "the package installs" dpkg -i portcullis.deb
	check "which enables nothing" is UnitFileState disabled
	check "and starts nothing" is ActiveState inactive
	check "and attaches nothing" not_running
	check "so the port still answers" answers 7002

	sed 's/^interfaces: .*/interfaces: [eth0, lan0]/' /usr/share/doc/portcullis/examples/portcullis.yaml >$file
	check "the service is enabled, with the example for a policy" systemctl enable --now $unit
	check "now the port is silent" silent 7002
	check "a rule is added" portcullis open 7000/tcp
	check "and lets in" answers 7000
	reset
}

stage_boot() {
	pesters=$(unsolicited)
	check "the service runs" is ActiveState active
	check "it was ready before the network was to begin" \
		[ "$(since ActiveEnter $unit)" -lt "$(since ActiveEnter network-pre.target)" ]
	check "which was before eth0 was brought up" \
		[ "$(since ActiveEnter network-pre.target)" -lt "$(since InactiveExit networking.service)" ]
	journalctl -b -o short-monotonic --no-hostname -u $unit -u networking.service -u network-pre.target | sed 's/^/    /'
	check "of what has pestered this host ever since, nothing was let in" [ "$pesters" -eq 0 ]
	check "but it was there, and dropped" grows dropped
	check "the saved rule is in force" in_force 7000/tcp
	check "and lets in" answers 7000
	check "a port that no rule opens is silent" silent 7002
	check "pings are answered" outside ping -nc 1 -W 10 192.0.2.1
	# CAP_NET_ADMIN is 12, CAP_NET_RAW 13, CAP_PERFMON 38, CAP_BPF 39 (linux/capability.h)
	check "the service has four capabilities" grep -i 'CapEff:.*000000c000003000' "/proc/$(main_pid)/status"
	check "and has had no error" no_errors

	ip link add lan0 type veth peer name lan1
	check "an interface that appears is filtered" soon filtered lan0
	sed -i 's|^open:|&\n  - 7001/tcp|' $file
	check "the service reloads its file" systemctl reload $unit
	check "and a new rule lets in" soon answers 7001
	echo "gibberish: yes" >>$file
	check "it reloads a bad file" systemctl reload $unit
	check "and says so as an error" soon complains
	check "and the policy stays" in_force 7001/tcp

	old=$(main_pid)
	check "the service is killed" kill -KILL "$old"
	check "the filter stays" silent 7002
	check "and the service comes back" soon replaced "$old"
	check "the service is stopped" systemctl stop $unit
	check "the filter stays" silent 7002
	check "and the open port" answers 7000
	reset
}

stage_lastgood() {
	pesters=$(unsolicited)
	check "with a bad file the service runs" is ActiveState active
	check "and says so as an error" complains
	journalctl -b -p err -o short-monotonic --no-hostname -u $unit | sed 's/^/    /'
	check "the last good policy is in force" in_force 7001/tcp
	check "and lets in" answers 7001
	check "a port that no rule opens is silent" silent 7002
	check "of what has pestered this host since before, nothing was let in" [ "$pesters" -eq 0 ]
	check "though it was there" grows dropped

	check "the filter is taken down" portcullis down
	check "and stays so, though the service runs" is ActiveState active
	check "and the port answers" answers 7002
	sed -i '/gibberish/d' $file
	check "a reload puts it up again" systemctl reload $unit
	check "and the port is silent" soon silent 7002

	old=$(main_pid) pesters=$(unsolicited)
	check "the package is upgraded" dpkg -i portcullis.deb
	check "which starts the service anew" soon replaced "$old"
	check "and lets in nothing, at no moment" [ "$pesters" -eq "$(unsolicited)" ]
	check "the package is removed" says unprotected dpkg -r portcullis
	check "the port answers" answers 7002
	check "nothing is pinned any more" gone /sys/fs/bpf/portcullis
	check "the service is gone" is LoadState not-found
	check "and not enabled any more" [ -z "$(find /etc/systemd/system -name $unit)" ]
	check "the file stays" test -s $file
	check "the package is purged" dpkg -P portcullis
	check "and nothing is left" gone /etc/portcullis /var/lib/portcullis
	reset
}

# Ends the guest as if somebody had pulled the plug.
reset() {
	[ -z "$failed" ] || journalctl -b -o short-monotonic --no-hostname -u $unit | sed 's/^/    /'
	echo finished
	stty sane </dev/ttyS1 # returns when all of it is sent
	echo b >/proc/sysrq-trigger
}

ip netns add outside
ip link set eth1 netns outside
outside ip addr add 192.0.2.2/24 dev eth1
outside ip link set eth1 up
for port in 7000 7001 7002; do
	nc -nlk $port &
done
soon outside ping -nc 1 -W 1 192.0.2.1 >/dev/null # until the wire carries

stage=$(sed 's/.*stage=\([a-z]*\).*/\1/' /proc/cmdline)
"stage_$stage"
