// SPDX-License-Identifier: Apache-2.0

package importscripts

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// drawn is a script that was made up, and a file that it may source.
type drawn struct {
	text   string
	config string
	posix  bool // run by sh
	plain  bool // of what ordinary scripts consist of
}

// drawer makes up one script.
type drawer struct {
	*rand.Rand
	b         strings.Builder
	indent    int
	posix     bool
	plain     bool // of what ordinary scripts consist of
	ports     []string
	functions []string
	inside    int // functions
	loops     int
	config    string
	bound     int
	label     int
}

func draw(seed uint64) drawn {
	d := &drawer{Rand: rand.New(rand.NewPCG(seed, 19)), bound: 5}
	d.posix = d.IntN(4) == 0
	d.plain = d.IntN(3) == 0
	switch {
	case d.posix:
		d.line("#!/bin/sh")
	case d.IntN(5) > 0:
		d.line("%s", d.pick("#!/bin/bash", "#!/bin/bash", "#!/usr/bin/env bash", "#!/bin/bash -e"))
	}
	d.prologue()
	for range 2 + d.IntN(6) {
		d.statement()
	}
	if d.IntN(6) == 0 {
		d.line("%s -P INPUT DROP", d.program())
	}
	text := d.b.String()
	if !d.plain && d.IntN(60) == 0 {
		lines := strings.Split(text, "\n")
		lines[d.IntN(len(lines))] += "\r"
		text = strings.Join(lines, "\n")
	}
	return drawn{text, d.config, d.posix, d.plain}
}

func (d *drawer) line(format string, args ...any) {
	d.b.WriteString(strings.Repeat("  ", d.indent))
	fmt.Fprintf(&d.b, format, args...)
	d.b.WriteByte('\n')
}

func (d *drawer) pick(of ...string) string { return of[d.IntN(len(of))] }

// within writes lines one step further in.
func (d *drawer) within(write func()) {
	d.indent++
	d.bound--
	write()
	d.bound++
	d.indent--
}

func (d *drawer) prologue() {
	if d.IntN(8) == 0 {
		d.line("%s", d.pick("set -e", "set -u", "set -f", "set -x 2>/dev/null", "set -eu"))
	}
	if d.IntN(3) == 0 {
		d.line("%s", d.pick("IPT=iptables", `IPT="iptables -w"`, "IPT=$(command -v iptables)", "IPT=$(which iptables)", "IPT=`which iptables`"))
		d.line(`[ -n "$IPT" ] || exit 1`)
		d.ports = append(d.ports, "IPT")
	}
	if d.IntN(3) > 0 {
		d.line("iptables -F")
		d.line("iptables -X")
	}
	if d.IntN(8) > 0 {
		d.line("iptables -P INPUT DROP")
	}
	if d.IntN(4) == 0 {
		d.line("for t in iptables ip6tables; do $t -P INPUT DROP; $t -A INPUT -i lo -j ACCEPT; done")
	}
	d.line("iptables -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT")
	if d.plain {
		d.line("ip6tables -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT")
		d.line("P=22 Q=80 N=443; PORT=8080; LIST='80 443'")
	}
	if d.plain || d.IntN(3) == 0 {
		d.line("iptables -N WEB")
		d.line("iptables -A INPUT -j WEB")
		if d.plain {
			d.line("ip6tables -N WEB; ip6tables -A INPUT -j WEB")
		}
	}
}

// rule is one command of iptables.
func (d *drawer) rule() string {
	p := d.program()
	if d.plain {
		return p + d.pick(" -A ", " -A ", " -A ", " -I ") + d.chain() + d.match() + d.target()
	}
	switch d.IntN(30) {
	case 0:
		return p + " -I " + d.chain() + " " + d.pick("1", "2", "3", "$N") + d.match() + d.target()
	case 1:
		return p + " -D " + d.chain() + " " + d.pick("1", "2", "3", "$N")
	case 2:
		return p + " -R " + d.chain() + " " + d.pick("1", "2", "$N") + d.match() + d.target()
	case 3:
		return p + " -F" + d.pick("", " INPUT", " WEB", " $CHAIN")
	case 4:
		return p + " -P INPUT " + d.pick("ACCEPT", "DROP", "DROP", "drop", "accept", "REJECT", "$T")
	case 5:
		return p + " -N " + d.pick("WEB", "OLD", "LOGDROP")
	case 6:
		return p + " -X" + d.pick("", " WEB", " OLD")
	case 7:
		return p + " -E " + d.pick("WEB OLD", "OLD WEB", "WEB NEW")
	case 8:
		rule := d.chain() + d.match() + d.target()
		return p + " -A " + rule + "; " + p + " -D " + d.pick(rule, rule, d.chain()+d.match()+d.target())
	case 9, 10:
		rule := d.chain() + d.match() + d.target()
		return p + " -C " + rule + " 2>/dev/null || " + p + d.pick(" -A ", " -I ") + d.pick(rule, rule, rule, d.chain()+d.match()+d.target())
	case 11:
		return p + " -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT"
	case 12:
		return p + " -N " + d.pick("WEB", "OLD") + " 2>/dev/null || " + p + " -F " + d.pick("WEB", "OLD")
	}
	return p + d.pick(" -A ", " -A ", " -A ", " -I ", " --append ", " --insert ", " -A") + d.chain() + d.match() + d.target()
}

// simple is a command on one line.
func (d *drawer) simple() string {
	if d.plain {
		return d.pick(d.rule(), d.rule(), d.rule(), d.assignment(), "echo done", d.call())
	}
	switch d.IntN(14) {
	case 0, 1, 2:
		return d.assignment()
	case 3:
		return d.call()
	case 4:
		return d.odd()
	case 5:
		if d.loops > 0 {
			return d.pick("break", "continue", "[ $P = 80 ] && continue", "[ $Q = 443 ] && break", "[ -e missing ] && break", "break 2", "[ -f /etc/hostname ] && continue")
		}
		return "echo something"
	case 6:
		if d.inside > 0 {
			return d.pick("return", "return 1", "[ $P = 80 ] && return", `[ -n "$1" ] || return 0`, "[ -e missing ] || return 1", "shift", "local P=$1", `local P="$1" Q`, "local P", "PORT=$1", "set -- 53", "return $?", "echo $1")
		}
		return d.pick("exit 0", "[ -e missing ] && exit 0", "[ -f /etc/hostname ] || exit 1", "true || exit 1", "false && exit", "echo nothing", "echo nothing")
	case 7:
		return d.condition() + d.pick(" && ", " || ") + d.pick(d.rule(), d.assignment(), d.rule())
	}
	return d.rule()
}

func (d *drawer) call() string {
	if len(d.functions) == 0 {
		return d.rule()
	}
	f := d.functions[d.IntN(len(d.functions))]
	if d.plain {
		return f + " " + d.port() + " tcp"
	}
	return f + " " + d.pick(d.value(), d.value()+" "+d.value(), `"$@"`, "22 80", "", d.value()+" 192.0.2.7", "$UNKNOWN 22")
}

// odd is what runs iptables by something else.
func (d *drawer) odd() string {
	r := d.rule()
	list := []string{"eval '" + strings.ReplaceAll(r, "'", `"`) + "'", "eval \"" + strings.ReplaceAll(r, `"`, "") + "\"", "(" + r + ")", "{ " + r + "; }", r + " &", r + " & wait", "bash -c 'iptables -A INPUT -p tcp --dport 22 -j DROP'", "sh -c \"iptables -I INPUT -s 192.0.2.7 -j DROP\"",
		"echo 192.0.2.7 | xargs -n1 iptables -I INPUT -j DROP -s", "echo 192.0.2.7 10.0.0.1 | xargs -n1 -I{} iptables -I INPUT -s {} -j DROP", "trap 'iptables -I INPUT -s 192.0.2.7 -j DROP' EXIT", "trap \"" + d.pick("iptables -F", "exit 0", "f1 22") + "\" EXIT", "X=$(" + r + ")", "echo \"$(" + r + ")\" >/dev/null",
		"fw -A INPUT -p tcp --dport 22 -j " + d.pick("DROP", "ACCEPT"), r + " | cat", "echo x | " + r, "! " + r, "time -p true", "true | " + r, r + " < missing", r + " </dev/null >/dev/null 2>&1", "exec 3>&1", "iptables-save >/dev/null",
		"iptables-restore < missing", "find . -name conf.sh -exec iptables -I INPUT -s 192.0.2.7 -j DROP \\;", "./helper.sh", "sh helper.sh", ". ./helper.sh", "command -v missing || " + r, "if ! " + r + "; then exit 1; fi", "iptables() { command iptables -w \"$@\"; }", "iptables() { :; }",
		"ip netns exec other iptables -A INPUT -j DROP", "iptables-legacy -A INPUT -p tcp --dport 22 -j " + d.pick("DROP", "ACCEPT"), "while iptables -D INPUT -p tcp --dport 80 -j ACCEPT 2>/dev/null; do :; done", "until ! iptables -D INPUT 1; do :; done 2>/dev/null", "exec iptables -A INPUT -p tcp --dport 80 -j ACCEPT",
		"unset -f f1", "f1() { echo 3306; }", "iptables -A INPUT -p tcp \\\n --dport 443 \\\n -j ACCEPT", "echo 'iptables -P INPUT ACCEPT' >/dev/null # iptables -F", "flock lock " + "iptables -A INPUT -p tcp --dport 22 -j DROP", "cd / && iptables -A INPUT -p tcp --dport 53 -j ACCEPT", "kill -0 $$", "printf 'iptables -F\\n' | sh",
		"sleep 0", "printf '%s\\n' 22 80 | while read P; do iptables -A INPUT -p tcp --dport $P -j ACCEPT; done", "env -i PATH=\"$PATH\" FAKE_RULES=\"$FAKE_RULES\" iptables -I INPUT -s 10.0.0.0/8 -j DROP", "setsid iptables -A INPUT -s 192.0.2.7 -j DROP"}
	if !d.posix {
		list = append(list, "while read P; do iptables -A INPUT -p tcp --dport $P -j ACCEPT; done <<< 22", "while read -r P N; do "+r+"; done < <(echo 22 1)", "coproc true", "function f2 { "+r+"; }", "{ echo 22; echo 80; } | while read P; do "+r+"; done", "cat <(iptables -I INPUT -s 10.0.0.0/8 -j DROP) >/dev/null",
			"for ((i=0; i<2; i++)); do "+r+"; done", r+" &>/dev/null", r+" |& cat", "trap 'iptables -I INPUT -s 192.0.2.7 -j DROP' ERR", "select P in 22 80; do break; done </dev/null", "declare -f f1 >/dev/null", "readarray -t A < conf.sh")
	}
	return list[d.IntN(len(list))]
}

// statement is anything.
func (d *drawer) statement() {
	if d.bound <= 0 || d.IntN(5) < 3 {
		d.line("%s", d.simple())
		return
	}
	block := func(n int) {
		d.within(func() {
			for range 1 + d.IntN(n) {
				d.statement()
			}
		})
	}
	kinds := 5
	if !d.plain {
		kinds = 11
	}
	switch d.IntN(kinds) {
	case 0:
		d.line("if %s; then", d.condition())
		block(2)
		if d.IntN(3) == 0 {
			d.line("elif %s; then", d.condition())
			block(2)
		}
		if d.IntN(2) == 0 {
			d.line("else")
			block(2)
		}
		d.line("fi")
	case 1, 2:
		d.line("for %s in %s; do", d.variable(), d.words())
		d.loops++
		block(2)
		d.loops--
		d.line("done")
	case 3:
		d.function()
	case 4:
		d.line("case $%s in", d.variable())
		d.within(func() {
			for range 1 + d.IntN(2) {
				d.line("%s)", d.pick("22", "80|443", "8*", "[0-9]*", `"$Q"`, "??"))
				block(2)
				d.line(";;")
			}
			if d.IntN(2) == 0 {
				d.line("*)")
				block(1)
			}
		})
		d.line("esac")
	case 5:
		d.line("N=0; while [ $N -lt %s ]; do", d.pick("2", "3"))
		d.loops++
		d.within(func() { d.line("N=$((N+1))"); d.statement() })
		d.loops--
		d.line("done")
	case 6:
		d.line("%s <<%s", d.pick("iptables-restore", "iptables-restore -n", "iptables-restore --noflush", "ip6tables-restore", "cat | iptables-restore -n"), d.pick("EOF", "'EOF'"))
		d.b.WriteString("*filter\n" + d.pick(":INPUT DROP [0:0]\n", "", ":INPUT ACCEPT [0:0]\n", ":INPUT DROP\n:OLD - [0:0]\n"))
		for range 1 + d.IntN(2) {
			d.b.WriteString(d.pick("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", "-A INPUT -p tcp --dport $P -j ACCEPT", "-I INPUT -s 192.0.2.7 -j DROP", "-A MISSING -j DROP", "-A INPUT -p udp --dport 53 -j ACCEPT", "-F INPUT") + "\n")
		}
		d.b.WriteString(d.pick("COMMIT\n", "COMMIT\n", "COMMIT\n", "") + "EOF\n")
	case 7:
		d.line("(")
		block(2)
		d.line(")%s", d.pick("", "", " || true", " >/dev/null", " &"))
	case 8:
		d.line("while read P Q; do")
		d.loops++
		block(2)
		d.loops--
		d.line("done <<END")
		d.b.WriteString(d.pick("22 80\n443 53\n", "22\n", "$LIST\n", "") + "END\n")
	case 9:
		d.line("%s | while read P; do", d.pick("echo 22", "printf '80\\n443\\n'", "cat missing 2>/dev/null", "echo $LIST", "f1 22"))
		d.loops++
		block(2)
		d.loops--
		d.line("done")
	case 10:
		if d.config == "" {
			d.config = d.pick("P=443\n", "LIST='53 8080'\n", "iptables -I INPUT -s 192.0.2.7 -j DROP\n", "set -e\n", "exit 0\n", "f1() { echo 3306; }\n", "T=DROP\n", "return 1\n", "iptables -F\n")
		}
		d.line("%s", d.pick(". ./conf.sh", "[ -r conf.sh ] && . ./conf.sh", "source ./conf.sh 2>/dev/null"))
	}
}

func (d *drawer) function() {
	name := "f1"
	if len(d.functions) > 0 || d.IntN(2) == 0 {
		d.label++
		name = fmt.Sprintf("open%d", d.label)
	}
	if d.inside > 1 || d.plain && d.bound < 5 {
		d.line("%s", d.simple())
		return
	}
	d.line("%s() {", name)
	before := d.b.String()
	loops := d.loops
	d.inside++
	d.loops = 0
	d.within(func() {
		if d.plain {
			d.line("%s -A INPUT -p ${2:-tcp} --dport $1 -j ACCEPT", d.pick("iptables", "iptables", "ip6tables"))
			if d.IntN(2) == 0 {
				d.line("iptables -A INPUT -s %s -p tcp --dport \"$1\" -j ACCEPT", d.source())
			}
			return
		}
		if d.IntN(3) == 0 {
			d.line("%s", d.pick("local P=$1", "PORT=$1; shift", `local P="$1" N=1`, "local Q", "P=$1", "[ $# -gt 0 ] || return", "for P; do echo $P; done", "echo 22"))
		}
		for range 1 + d.IntN(3) {
			d.statement()
		}
	})
	d.inside--
	d.loops = loops
	// Functions that call themselves in subshells would fill the machine.
	body := d.b.String()[len(before):]
	for _, name := range append([]string{"f1"}, d.functions...) {
		body = strings.ReplaceAll(body, name+" ", "echo ")
	}
	d.b.Reset()
	d.b.WriteString(before + body)
	d.line("}")
	d.functions = append(d.functions, name)
	if d.IntN(3) > 0 {
		d.line("%s", d.call())
	}
}
