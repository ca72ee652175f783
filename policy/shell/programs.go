// SPDX-License-Identifier: Apache-2.0

package shell

import (
	"path"
	"strconv"
	"strings"
	"sync"
)

// kind is what a program that touches no rule does.
type kind uint8

const (
	quiet kind = iota // nothing that lasts
	sets              // something that has to be done without the script from now on
	reads             // nothing, but it may read the standard input
	asks              // nothing, but it is there for its status
)

// programs are those that are known to touch no rules.
var programs = sync.OnceValue(func() map[string]kind {
	known := make(map[string]kind)
	for k, names := range map[kind]string{
		quiet: "sleep usleep logger date true false tput clear stty sync mkdir rmdir touch chmod chown chgrp cp mv rm ln mktemp " +
			"seq basename dirname id whoami hostname uname arch nproc getconf pwd ls stat readlink realpath du df free uptime " +
			"ps lsmod lspci who w last ipcalc sipcalc test printenv locale tty dmesg " +
			"log_daemon_msg log_end_msg log_action_msg log_begin_msg log_progress_msg log_success_msg log_failure_msg log_warning_msg " +
			"log_action_begin_msg log_action_end_msg log_action_cont_msg ss netstat " +
			"success failure passed warning notify-send beep plymouth conntrack hostnamectl timedatectl",
		sets: "modprobe insmod rmmod depmod sysctl ip ifconfig route tc ethtool brctl bridge vconfig wg iw iwconfig mount umount swapon " +
			"kill killall pkill ulimit crontab update-rc.d chkconfig dhclient setcap install useradd usermod groupadd " +
			"apt-get apt yum dnf curl wget conntrackd hwclock",
		asks: "expr getent pgrep pidof ping ping6 dig host nslookup lsof fuser mountpoint runlevel",
		reads: "cat grep egrep fgrep zgrep uniq head tail tac rev wc tr cut paste column fold fmt nl tee " +
			"diff cmp comm join xxd od hexdump strings file md5sum sha1sum sha256sum base64 jq mail mailx sendmail less more " +
			"zcat gzip gunzip bzip2 xz dd",
	} {
		for _, name := range strings.Fields(names) {
			known[name] = k
		}
	}
	return known
})

func knownProgram(name string) bool {
	_, ok := programs()[name]
	return ok || runners[name] != nil
}

// printed is what a program prints that needs nothing but its arguments.
func printed(name string, args []Word, st *state) (string, bool) {
	if !known(args) {
		return "", false
	}
	texts := make([]string, len(args))
	for i, a := range args {
		texts[i] = a.Text
	}
	switch {
	case name == "id" && len(texts) == 1 && texts[0] == "-u", name == "id" && strings.Join(texts, " ") == "-u -r":
		return "0\n", true
	case name == "whoami" && len(texts) == 0, name == "id" && strings.Join(texts, " ") == "-un":
		return "root\n", true
	case name == "uname" && (len(texts) == 0 || len(texts) == 1 && texts[0] == "-s"):
		return "Linux\n", true
	case name == "basename" && (len(texts) == 1 || len(texts) == 2) && texts[0] != "" && !strings.HasPrefix(texts[0], "-"):
		base := path.Base(texts[0])
		if len(texts) == 2 && base != texts[1] {
			base = strings.TrimSuffix(base, texts[1])
		}
		return base + "\n", true
	case name == "dirname" && len(texts) == 1 && texts[0] != "" && !strings.HasPrefix(texts[0], "-"):
		return path.Dir(texts[0]) + "\n", true
	case name == "seq":
		return sequence(texts)
	case name == "which" && len(texts) == 1 && isIPTables(texts[0]):
		return "/usr/sbin/" + texts[0] + "\n", true
	case name == "cat" && len(texts) == 0 && st.in.Known:
		text := st.in.Text.Text
		st.in = input{Text: Text{Known: true}}
		return text, true
	}
	return "", false
}

// sequence is what seq prints.
func sequence(args []string) (string, bool) {
	var n [3]int
	if len(args) < 1 || len(args) > 3 {
		return "", false
	}
	for i, a := range args {
		v, err := strconv.Atoi(a)
		if err != nil || strconv.Itoa(v) != a {
			return "", false
		}
		n[i] = v
	}
	first, step, last := 1, 1, n[0]
	switch len(args) {
	case 2:
		first, last = n[0], n[1]
	case 3:
		first, step, last = n[0], n[1], n[2]
	}
	if step == 0 || (last-first)/step > maxRounds {
		return "", false
	}
	var b strings.Builder
	for i := first; step > 0 && i <= last || step < 0 && i >= last; i += step {
		b.WriteString(strconv.Itoa(i) + "\n")
	}
	return b.String(), true
}

// isIPTables reports whether a name is one of iptables, which has to be there
// for its rules to be.
func isIPTables(name string) bool {
	name = strings.TrimSuffix(strings.TrimSuffix(path.Base(name), "-save"), "-restore")
	name = strings.TrimSuffix(strings.TrimSuffix(name, "-legacy"), "-nft")
	return name == "iptables" || name == "ip6tables"
}
