#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Portcullis at work, in half a minute, with real sockets: a server and a host outside, each in a network namespace,
# joined by a veth pair. Every step is checked; the first that does not show what it says ends the demo with exit 1.
# Needs root and bin/portcullis ('make demo' builds it). Touches no interface of this machine and leaves nothing behind.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${PORTCULLIS:-$top/bin/portcullis}
PATH=$PATH:/usr/sbin:/sbin

declare -A netns=([server]=portcullis-server-$$ [outside]=portcullis-outside-$$)
server4=192.0.2.1 server6=2001:db8::1
outside4=192.0.2.2 outside6=2001:db8::2
database=5432
export PORTCULLIS_PIN_PATH=/sys/fs/bpf/portcullis-demo-$$
# The server of the demo is not the host that this session may have come to.
unset SSH_CONNECTION SSH_CLIENT SSH_TTY

[ "$(id -u)" -eq 0 ] || {
	echo "demo: this needs root: it makes network namespaces and loads BPF programs" >&2
	exit 1
}
[ -x "$program" ] || {
	echo "demo: no $program: run 'make demo', or 'make build' first" >&2
	exit 1
}
[ -e /proc/net/if_inet6 ] || {
	echo "demo: this kernel runs without IPv6, which half of the demo is about" >&2
	exit 1
}

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' plain=$'\e[0m'
fi

# Everything that is made is taken away again, however this ends.

dir=$(mktemp -d "${TMPDIR:-/tmp}/portcullis-demo.XXXXXX")
started=()
mounted=
finished=

cleanup() {
	local code=$? pid host left
	trap '' INT TERM HUP
	set +e
	rm -rf "$PORTCULLIS_PIN_PATH"
	for pid in "${started[@]}"; do # each leads a session, so its children end with it
		kill -KILL -- "-$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
	for host in "${!netns[@]}"; do
		if [ -e "/run/netns/${netns[$host]}" ]; then
			ip netns delete "${netns[$host]}"
		fi
	done
	if [ -n "$mounted" ]; then
		umount /sys/fs/bpf
	fi
	cd /
	rm -rf "$dir"
	for left in "$dir" "$PORTCULLIS_PIN_PATH" "${netns[@]/#//run/netns/}"; do
		if [ -e "$left" ]; then
			echo "demo: could not remove $left" >&2
			code=1
		fi
	done
	if [ -n "$finished" ] && [ "$code" -eq 0 ]; then
		echo
		echo "${bold}All $step steps showed what they say, in $SECONDS seconds. Nothing is left behind.${plain}"
	fi
	exit "$code"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# How the story is told.

step=0
headline() {
	step=$((step + 1))
	printf '\n%s%d. %s%s\n' "$bold" "$step" "$*" "$plain"
}

indent() { sed '/^$/d; s/^/    /'; }

wrong() {
	printf '\n%sStep %d does not show what it says.%s\nexpected: %s\n' "$bold" "$step" "$plain" "$*" >&2
	printf 'got:      exit %s: %s\n' "${status:-0}" "${output:-nothing}" >&2
	if [ -e "$PORTCULLIS_PIN_PATH" ]; then
		echo "the filter at this moment:" >&2
		on server portcullis status 2>&1 | indent >&2 || true
	fi
	exit 1
}

# on HOST COMMAND...: 'ip netns exec' would hide /sys/fs/bpf.
on() { nsenter --net="/run/netns/${netns[$1]}" "${@:2}"; }

# start HOST COMMAND...: the same, in the background.
start() {
	setsid nsenter --net="/run/netns/${netns[$1]}" "${@:2}" <&0 &
	started+=($!)
}

# run HOST COMMAND...: prints the command and what came back, which stays in $output, the exit code in $status.
run() {
	local most=14 lines
	printf '%s$ %s\n' "$1" "${*:2}"
	status=0
	output=$(on "$@" 2>&1 </dev/null) || status=$?
	[ -n "$output" ] || return 0
	lines=$(wc -l <<<"$output")
	if [ "$lines" -gt $((most + 1)) ]; then
		head -n "$most" <<<"$output" | indent
		echo "    ... and $((lines - most)) more lines"
	else
		indent <<<"$output"
	fi
}

done_well() { [ "$status" -eq 0 ] || wrong "exit 0"; }

# eventually COMMAND...: waits up to five seconds until it succeeds.
eventually() {
	local i
	for ((i = 0; i < 100; i++)); do
		"$@" && return
		sleep 0.05
	done
	return 1
}

# connect ADDRESS PORT RESULT: whether a TCP connection from outside is accepted, refused (a reset: the kernel
# answers), or gets no answer at all.
connect() {
	run outside nc -nzv -w 1 "$1" "$2"
	case $3 in
	accepted) [[ $status -eq 0 && $output == *succeeded* ]] ;;
	refused) [[ $status -ne 0 && $output == *refused* ]] ;;
	unanswered) [[ $status -ne 0 && $output == *"timed out"* ]] ;;
	esac || wrong "the connection to $1 port $2 is $3"
}

fetch() { # HOST URL TEXT
	run "$1" curl -sS -g --max-time 3 "$2"
	[[ $status -eq 0 && $output == "$3" ]] || wrong "the page '$3'"
}

fetch_fails() { # HOST URL
	run "$1" curl -sS -g --connect-timeout 1 "$2"
	[ "$status" -eq 28 ] || wrong "curl gives up after a second without an answer (exit 28)"
}

# call NAME ADDRESS PORT: a connection from outside that stays open, with a fifo in and a file out at each end.
declare -A at_server at_outside
call() {
	local end fd
	for end in server outside; do
		mkfifo "$1.$end.say"
		: >"$1.$end.heard"
	done
	exec {fd}<>"$1.server.say"
	at_server[$1]=$fd
	start server nc -nl "$2" "$3" <"$1.server.say" >"$1.server.heard"
	eventually listens "$2" "$3" || wrong "a server listens on $2 port $3"
	exec {fd}<>"$1.outside.say"
	at_outside[$1]=$fd
	start outside nc -n "$2" "$3" <"$1.outside.say" >"$1.outside.heard"
}

listens() { [ -n "$(on server ss -Hltn "sport = :$2 and src [$1]")" ]; }

# talk NAME TEXT: says TEXT at either end and waits until the other one has heard it.
talk() {
	local status='no answer' output=
	echo "$2, says the outside" >&"${at_outside[$1]}"
	eventually grep -qsxF "$2, says the outside" "$1.server.heard" || wrong "the server hears '$2' over $1"
	echo "server hears over $1:  $(tail -n 1 "$1.server.heard")"
	echo "$2, says the server" >&"${at_server[$1]}"
	eventually grep -qsxF "$2, says the server" "$1.outside.heard" || wrong "the outside hears '$2' over $1"
	echo "outside hears over $1: $(tail -n 1 "$1.outside.heard")"
}

received() { stat -c %s stream 2>/dev/null || echo 0; }
received_more_than() { [ "$(received)" -gt "$1" ]; }

# Two hosts, a cable, and what runs on them.

if [ "$(stat -f -c %T /sys/fs/bpf)" != bpf_fs ]; then
	mount -t bpf bpf /sys/fs/bpf
	mounted=yes
fi
cd "$dir"
mkdir -p bin www.server/cgi-bin www.outside
ln -s "$program" bin/portcullis
ln -s "$(command -v nc.openbsd)" bin/nc
PATH=$dir/bin:$PATH

for host in server outside; do
	ip netns add "${netns[$host]}"
	ip -n "${netns[$host]}" link set lo up
done
ip -n "${netns[server]}" link add eth0 type veth peer name eth0 netns "${netns[outside]}"
for host in server outside; do
	address4=${host}4 address6=${host}6
	ip -n "${netns[$host]}" address add "${!address4}/24" dev eth0
	ip -n "${netns[$host]}" address add "${!address6}/64" dev eth0 nodad
	ip -n "${netns[$host]}" link set eth0 up
done
# A small window: what a cut connection still receives is then soon spent.
window=262144
on outside sysctl -qw net.ipv4.tcp_rmem="4096 65536 $window"

echo "the page of the server" >www.server/index.html
echo "the page of the outside" >www.outside/index.html
cat >www.server/cgi-bin/stream <<'END'
#!/bin/sh
printf 'Content-Type: video/example\r\n\r\n'
while head -c 100000 /dev/zero; do sleep 0.1; done
END
chmod +x www.server/cgi-bin/stream
for host in server outside; do
	start "$host" busybox httpd -f -p 80 -h "$dir/www.$host" </dev/null 2>"httpd.$host"
done
start outside dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= \
	--listen-address="$outside4,$outside6" --bind-interfaces \
	--address=/www.example/198.51.100.80 --address=/www.example/2001:db8:80::80 </dev/null 2>dnsmasq.outside

cat <<END
Two hosts, each in a network namespace of its own, and a cable between their interfaces, both called eth0:
    server   $server4  $server6   the host to protect: a web server, a database
    outside  $outside4  $outside6   the rest of the world
'server\$ command' is what is typed at the server: here, nsenter --net=/run/netns/${netns[server]} command
END

# The story.

headline "Without a firewall every port answers, and the database serves its clients"
eventually on outside nc -nz -w 1 "$server4" 80 2>/dev/null || wrong "the web server runs"
connect $server4 80 accepted
connect $server6 80 accepted
connect $server4 22 refused
call IPv4 $server4 $database
call IPv6 $server6 $database
talk IPv4 "select 1"
talk IPv6 "select 1"

headline "One file says what may come in. So far: nothing. One command puts it in force"
cat >portcullis.yaml <<END
# The firewall of a web server.
interfaces: [eth0]
input: drop       # what nobody here asked for
icmp: accept      # a host that answers pings is easier to keep
open: []          # who may come in
invalid: log
END
run server cat portcullis.yaml
run server portcullis up eth0 --config portcullis.yaml
done_well

headline "Now no port answers: not even to say no"
connect $server4 80 unanswered
connect $server6 80 unanswered
connect $server4 $database unanswered

headline "The connections from before go on, both ways"
talk IPv4 "select 2"
talk IPv6 "select 2"

headline "To open a port is one command: at once in force, and saved with the file's comments kept"
cp portcullis.yaml before.yaml
run server portcullis open http
done_well
run server diff before.yaml portcullis.yaml
[[ $(grep -c '^[<>]' <<<"$output") -eq 2 && $output == *"> open: [http] "*"# who may come in"* ]] ||
	wrong "one line changed in the file, its comment kept, and no other change"
fetch outside "http://$server4/" "the page of the server"
fetch outside "http://[$server6]/" "the page of the server"
connect $server4 22 unanswered

headline "The server reaches out as ever: answers to what it asked come in"
fetch server "http://$outside4/" "the page of the outside"
fetch server "http://[$outside6]/" "the page of the outside"
run server dig +short +tries=1 +time=2 @$outside4 www.example A
[ "$output" = 198.51.100.80 ] || wrong "198.51.100.80"
run server dig +short +tries=1 +time=2 @$outside6 www.example AAAA
[ "$output" = 2001:db8:80::80 ] || wrong "2001:db8:80::80"
run server ping -nq -c 1 -W 2 $outside4
done_well

headline "The outside may ping the server, as the file says"
run outside ping -nq -c 1 -W 2 $server4
done_well
run outside ping -nq -c 1 -W 2 $server6
done_well

headline "A port that is closed takes nobody new, and leaves who is inside alone"
echo "outside\$ curl -sSN -o stream http://$server4/cgi-bin/stream &"
start outside curl -sSN -o stream "http://$server4/cgi-bin/stream" </dev/null 2>curl.outside
eventually received_more_than 0 || wrong "the stream begins"
run server portcullis close http
done_well
before=$(received)
echo "outside has $before bytes of the stream"
fetch_fails outside "http://$server4/"
fetch_fails outside "http://[$server6]/"
eventually received_more_than $((before + 3 * window)) || wrong "the stream goes on: $(received) bytes so far"
echo "outside has $(received) bytes of the stream, and receives more"

headline "The filter is in the kernel. No process keeps it: there is none to kill"
mine=()
for process in /proc/[0-9]*; do
	# Those of this demo only, whatever else this machine runs.
	if [ "$process/exe" -ef "$program" ] &&
		grep -qszxF "PORTCULLIS_PIN_PATH=$PORTCULLIS_PIN_PATH" "$process/environ"; then
		mine+=("${process#/proc/}")
	fi
done
if [ ${#mine[@]} -gt 0 ]; then
	kill -KILL "${mine[@]}"
fi
echo "processes of portcullis, ended with kill -9: ${mine[*]:-none, as none runs}"
connect $server4 80 unanswered
talk IPv4 "select 3"

headline "What runs, what it counted, and the connections that it knows"
run server portcullis status
[[ $status -eq 0 && $output == *eth0* && $output == *"closed port"* ]] || wrong "eth0 and the packets to closed ports"
run server portcullis flows
[[ $status -eq 0 && $output == *"$server4:$database"* ]] || wrong "the connection to $server4:$database"

headline "Down opens the host again, and says so"
run server portcullis down
done_well
connect $server4 80 accepted
connect $server4 22 refused
fetch outside "http://[$server6]/" "the page of the server"
run server portcullis status
[ "$status" -eq 3 ] || wrong "exit 3: not running"
[ ! -e "$PORTCULLIS_PIN_PATH" ] || wrong "nothing is pinned below $PORTCULLIS_PIN_PATH"

finished=yes
