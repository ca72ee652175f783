// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"strings"
	"testing"
)

// opens are rules behind which there are always a policy and the answers.
const opens = "-P INPUT DROP\n-P FORWARD DROP\n-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT\n"

// Each case is what a script does after opens, what that opens, and which of its lines are not translated.
func TestScripts(t *testing.T) {
	for _, c := range []struct{ name, script, open, lost string }{
		{"plain", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT", "22/tcp", ""},
		{"long options", "iptables --append INPUT --protocol tcp --destination-port=22 --jump ACCEPT", "22/tcp", ""},
		{"a netmask, and ! behind the option", "iptables -A INPUT -p udp -s 10.0.0.0/255.128.0.0 --dport 53 -j ACCEPT\niptables -A INPUT -i ! lo -p tcp --dport 1 -j ACCEPT",
			"53/udp from 10.0.0.0/9|1/tcp", ""},
		{"a rule in front", "iptables -A INPUT -p tcp --dport 1:3 -j ACCEPT\niptables -I INPUT -p tcp --dport 2 -j DROP", "1,3/tcp", ""},
		{"a rule in the middle", "iptables -A INPUT -p tcp --dport 2 -j DROP\niptables -I INPUT 2 -p tcp --dport 2 -j ACCEPT", "2/tcp", ""},
		{"a rule taken back", "iptables -A INPUT -p tcp --dport 22:23 -j ACCEPT\niptables -D INPUT -p tcp --dport 22:23 -j ACCEPT", "", ""},
		{"by number", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -D INPUT 2", "", ""},
		{"what was not there", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -D INPUT -p tcp --dport ssh -j ACCEPT", "", "1 2"},
		{"what was never there", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -D INPUT -p tcp --dport 23 -j ACCEPT", "22/tcp", ""},
		{"replaced", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -R INPUT 2 -p tcp --dport 23 -j ACCEPT", "23/tcp", ""},
		{"flushed", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -F INPUT\niptables -A INPUT -m state --state ESTABLISHED -j ACCEPT", "", ""},
		{"only if", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\n[ -e /x ] && iptables -I INPUT -p tcp --dport 22 -j DROP", "", "2"},
		{"only if not", "[ -e /x ] || iptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", "1"},
		{"perhaps flushed", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\nif [ -e /x ]; then iptables -F; fi", "", "0 1 2"},
		{"flushed behind what holds", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\nif true; then iptables -F; fi; iptables -A INPUT -m state --state ESTABLISHED -j ACCEPT", "", ""},
		{"or else", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT || iptables -A INPUT -p tcp --dport 23 -j ACCEPT", "22/tcp", ""},
		{"a loop in a loop", "for p in 1 2; do for n in 10.0.0.1 10.0.0.3; do iptables -A INPUT -s $n -p tcp --dport $p -j ACCEPT; done; done",
			"1/tcp from 10.0.0.1,10.0.0.3|2/tcp from 10.0.0.1,10.0.0.3", ""},
		{"a loop over what is not known", "for p in $(cat ports); do iptables -A INPUT -p tcp --dport $p -j ACCEPT; done", "", "1"},
		{"a variable that is not known", "iptables -A INPUT -p tcp --dport $PORT -j ACCEPT", "", "1"},
		{"what is dropped is not known", "iptables -A INPUT -p tcp -s $BAD -j DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", "1"},
		{"the chain is not known", "iptables -I $CHAIN -p tcp -j DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", "1"},
		{"the target is not known", "iptables -A INPUT -p tcp -j $TARGET\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", "1"},
		{"a variable of another kind", "P=22\nif [ -e /x ]; then P=23; fi\niptables -A INPUT -p tcp --dport $P -j ACCEPT", "", "3"},
		{"quotes", "P='22'; A=\"-A INPUT -p tcp --dport $P\"\niptables $A -m comment --comment \"a b\" -j ACCEPT", "22/tcp", ""},
		{"after the end", "exit 0\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", ""},
		{"another chain", "iptables -N a\niptables -A INPUT -j a\niptables -A a -p tcp --dport 22 -j ACCEPT", "22/tcp", ""},
		{"no such chain", "iptables -A a -p tcp --dport 22 -j ACCEPT", "", "1"},
		{"restored", "iptables-restore --noflush <<E\n*filter\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\nE", "22/tcp", ""},
		{"not iptables", "nft add rule inet filter input tcp dport 22 accept", "", "1"},
		{"to an address", "iptables -A INPUT -d 192.0.2.1 -p tcp --dport 443 -j ACCEPT", "443/tcp to 192.0.2.1", ""},
		{"to all but one address", "iptables -A INPUT -d 192.0.2.0/31 -p tcp --dport 25 -j DROP\niptables -A INPUT -d 192.0.2.0/30 -p tcp --dport 25 -j ACCEPT",
			"25/tcp to 192.0.2.2/31", ""},
		{"to a group", "iptables -A INPUT -d 224.0.0.251 -p udp --dport 5353 -j ACCEPT", "5353/udp to 224.0.0.251", ""},
		{"to broadcast", "iptables -A INPUT -d 255.255.255.255 -p udp --dport 67 -j ACCEPT", "67/udp to 255.255.255.255", ""},
		{"from the loopback only", "iptables -A INPUT -d 127.0.0.0/8 -j REJECT\niptables -A INPUT -p tcp --dport 80 -j ACCEPT", "80/tcp", ""},
		{"by another interface", "iptables -A INPUT -i eth0 -p tcp --dport 80 -j ACCEPT\niptables -A INPUT -i eth1 -p tcp --dport 5432 -j ACCEPT\niptables -A INPUT -i wg+ -p tcp --dport 22 -j ACCEPT",
			"80/tcp on eth0|5432/tcp on eth1|22/tcp on wg*", ""},
		{"by interface, the same", "iptables -A INPUT -i eth0 -p tcp --dport 80 -j ACCEPT\niptables -A INPUT -i eth1 -p tcp --dport 80 -j ACCEPT", "80/tcp", ""},
		{"by all but one interface", "iptables -A INPUT ! -i eth0 -p tcp --dport 80 -j ACCEPT\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "22/tcp", "1"},
		{"except", "iptables -A INPUT ! -s 203.0.113.0/24 -p tcp --dport 80 -j ACCEPT\nip6tables -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT", "80/tcp from 0.0.0.0/0 except 203.0.113.0/24", ""},
		{"except, by a DROP before", "iptables -A INPUT -s 10.9.0.0/16 -p tcp --dport 80 -j DROP\niptables -A INPUT -s 10.0.0.0/8 -p tcp --dport 80:81 -j ACCEPT",
			"80/tcp from 10.0.0.0/8 except 10.9.0.0/16|81/tcp from 10.0.0.0/8", ""},
		{"protocols without ports", "iptables -A INPUT -p gre -s 198.51.100.9 -j ACCEPT\niptables -A INPUT -p 50 -j ACCEPT\niptables -A INPUT -p vrrp -d 224.0.0.18 -j ACCEPT\niptables -A INPUT -p 99 -j ACCEPT",
			"gre from 198.51.100.9|esp|vrrp to 224.0.0.18|proto/99", ""},
		{"all from a host", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -A INPUT -s 192.0.2.4 -j ACCEPT", "22/tcp|all from 192.0.2.4", ""},
		{"all from a host by a chain", "iptables -N a\niptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -A INPUT -j a\niptables -A a -s 192.0.2.4 -j ACCEPT", "22/tcp|all from 192.0.2.4", ""},
		{"numbers of base 8 and 16", "iptables -A INPUT -p tcp --dport 022 -j ACCEPT\niptables -A INPUT -p tcp -m multiport --dports 025,0100:0200 -j ACCEPT\n" +
			"iptables -A INPUT -p 057 -j ACCEPT\niptables -A INPUT -p udp --dport 0x35 -j ACCEPT", "18/tcp|21,64-128/tcp|gre|53/udp", ""},
		{"what is no number of base 8", "iptables -A INPUT -p tcp --dport 080 -j ACCEPT\niptables -A INPUT -p tcp -m multiport --dports 22,081 -j ACCEPT", "", "1 2"},
		{"the place of a rule in base 8", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -D INPUT 02", "", ""},
		{"several ports", "iptables -A INPUT -p tcp -m multiport --dports 80,443,8000:8010 -j ACCEPT", "80,443,8000-8010/tcp", ""},
		{"a limit", "iptables -A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -m hashlimit --hashlimit-upto 6/min --hashlimit-burst 10 --hashlimit-mode srcip --hashlimit-name ssh -j ACCEPT",
			"22/tcp limit 6/minute burst 10", ""},
		{"a limit by --syn, with the default burst", "iptables -A INPUT -p tcp --syn -m multiport --dports 22,80 -m hashlimit --hashlimit 3/s --hashlimit-mode srcip --hashlimit-name a -s 10.0.0.0/8 -j ACCEPT",
			"22,80/tcp from 10.0.0.0/8 limit 3/second", ""},
		{"a limit of what is written twice", "iptables -A INPUT -p tcp --dport 22 -m hashlimit --hashlimit-upto 6/min --hashlimit-mode srcip --hashlimit-name a -j ACCEPT\n" +
			"iptables -A INPUT -p tcp --dport 23 -m hashlimit --hashlimit-upto 6/min --hashlimit-mode srcip --hashlimit-name a -j ACCEPT", "", "1 2"},
		{"a limit that two rules would count", "iptables -A INPUT ! -p icmp -m state --state NEW -m hashlimit --hashlimit-upto 6/min --hashlimit-mode srcip --hashlimit-name a -j ACCEPT", "", "1"},
		{"a limit that counts more", "iptables -A INPUT -p tcp --dport 22 -m hashlimit --hashlimit-upto 6/min --hashlimit-mode srcip --hashlimit-name a -m state --state NEW -j ACCEPT", "", "1"},
		{"a limit of whole networks", "iptables -A INPUT -p tcp --dport 22 -m hashlimit --hashlimit-upto 6/min --hashlimit-mode srcip --hashlimit-srcmask 24 --hashlimit-name a -j ACCEPT", "", "1"},
		{"a limit for all together", "iptables -A INPUT -p tcp --dport 22 -m hashlimit --hashlimit-upto 6/min --hashlimit-name a -j ACCEPT", "", "1"},
		{"a limit of bytes", "iptables -A INPUT -p tcp --dport 22 -m hashlimit --hashlimit-upto 6kb/s --hashlimit-mode srcip --hashlimit-name a -j ACCEPT", "", "1"},
		{"above a limit", "iptables -A INPUT -p tcp --dport 22 -m hashlimit --hashlimit-above 6/min --hashlimit-mode srcip --hashlimit-name a -j DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT",
			"22/tcp limit 6/minute", ""},
		{"not within a limit", "iptables -A INPUT -p tcp --dport 22 -m hashlimit ! --hashlimit-upto 6/min --hashlimit-mode srcip --hashlimit-name a -j DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT",
			"22/tcp limit 6/minute", ""},
		{"above a limit, in front of more", "iptables -A INPUT -p tcp --dport 22 -m state --state NEW -m hashlimit --hashlimit-above 6/min --hashlimit-mode srcip --hashlimit-name a -j DROP\niptables -A INPUT -p udp --dport 53 -j ACCEPT\niptables -A INPUT -p tcp -m multiport --dports 22,80 -j ACCEPT",
			"53/udp|80/tcp|22/tcp limit 6/minute", ""},
		{"above a limit, in front of less", "iptables -A INPUT -p tcp -m hashlimit --hashlimit-above 6/min --hashlimit-mode srcip --hashlimit-name a -j DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT",
			"", "1"},
		{"above a limit, with a DROP of some", "iptables -A INPUT -p tcp --dport 22 -m hashlimit --hashlimit-above 6/min --hashlimit-mode srcip --hashlimit-name a -j DROP\niptables -A INPUT -s 10.0.0.0/8 -p tcp -j DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT",
			"", "1"},
		{"above a limit of some sources", "iptables -A INPUT -s 10.0.0.0/8 -p tcp --dport 22 -m hashlimit --hashlimit-above 6/min --hashlimit-mode srcip --hashlimit-name a -j DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT",
			"22/tcp except 10.0.0.0/8|22/tcp from 10.0.0.0/8 limit 6/minute", ""},
		{"above a limit, refused", "iptables -A INPUT -p tcp --dport 22 -m hashlimit --hashlimit-above 6/min --hashlimit-mode srcip --hashlimit-name a -j REJECT\niptables -A INPUT -p tcp --dport 22 -j ACCEPT",
			"", "1"},
		{"above a limit, and accepted", "iptables -A INPUT -p tcp --dport 22 -m hashlimit --hashlimit-above 6/min --hashlimit-mode srcip --hashlimit-name a -j ACCEPT",
			"", "1"},
		{"a limit of answers", "iptables -F INPUT\niptables -A INPUT -p tcp --dport 22 -m hashlimit --hashlimit-upto 6/min --hashlimit-mode srcip --hashlimit-name a -j ACCEPT", "", "0 2"},
		{"a limit beside none", "iptables -A INPUT -p tcp --dport 22 -m hashlimit --hashlimit-upto 6/min --hashlimit-mode srcip --hashlimit-name a -j ACCEPT\niptables -A INPUT -s 10.0.0.0/8 -p tcp --dport 22 -j ACCEPT",
			"22/tcp from 10.0.0.0/8|22/tcp limit 6/minute", ""},
		{"one limit for all together", "iptables -A INPUT -p tcp --dport 22 -m limit --limit 6/min -j ACCEPT", "", "1"},
		{"not a script", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\nif", "", "2"},
		{"added if it is not there", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -C INPUT -s 192.0.2.7 -j DROP 2>/dev/null || iptables -I INPUT -s 192.0.2.7 -j DROP\n" +
			"iptables -C INPUT -p tcp --dport 443 -j ACCEPT || iptables -A INPUT -p tcp --dport 443 -j ACCEPT", "22/tcp|443/tcp", ""},
		{"added if it is not there for certain", "[ -e /x ] && iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -C INPUT -p tcp --dport 22 -j ACCEPT || iptables -A INPUT -p tcp --dport 22 -j ACCEPT\n" +
			"iptables -A INPUT -p tcp --dport 80 -j ACCEPT", "80/tcp", "1 2"},
		{"a function that returns", "f() { return; iptables -A INPUT -p tcp --dport 22 -j ACCEPT; }; f", "", ""},
		{"a function that may return", "f() { [ -e /x ] || return; iptables -A INPUT -p tcp --dport 22 -j ACCEPT; }; f", "", "1"},
		{"a loop that goes on", "for p in 22 80 443; do [ $p = 80 ] && continue; iptables -A INPUT -p tcp --dport $p -j ACCEPT; done", "22/tcp|443/tcp", ""},
		{"a loop that breaks", "for p in 22 80 443; do iptables -A INPUT -p tcp --dport $p -j ACCEPT; [ $p = 80 ] && break; done", "22/tcp|80/tcp", ""},
		{"it may end", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\n[ -e /x ] && exit 0\niptables -A INPUT -p tcp --dport 80 -j ACCEPT", "22/tcp", "2 3"},
		{"it may end under set -e", "set -e\niptables -A INPUT -p tcp --dport 22 -j ACCEPT\ngrep -q x /etc/passwd\niptables -A INPUT -p tcp --dport 80 -j ACCEPT", "22/tcp", "3 4"},
		{"arguments", "f() { local p=$1; shift; iptables -A INPUT -p $p --dport $1 -s $2 -j ACCEPT; }; f tcp 22 10.0.0.0/8; f udp 53 192.0.2.7", "22/tcp from 10.0.0.0/8|53/udp from 192.0.2.7", ""},
		{"a local variable", "P=80; f() { local P=22; iptables -A INPUT -p tcp --dport $P -s 10.0.0.0/8 -j ACCEPT; }; f; iptables -A INPUT -p tcp --dport $P -j ACCEPT", "22/tcp from 10.0.0.0/8|80/tcp", ""},
		{"all arguments of local first", "N=10.0.0.0/8; f() { local N=$1 S=$N; iptables -A INPUT -p tcp --dport 22 -s $S -j ACCEPT; }; f 0.0.0.0/0", "22/tcp from 10.0.0.0/8", ""},
		{"what it sets in /proc", "echo 1 > /proc/sys/net/ipv4/ip_forward\nfor f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done\niptables -A INPUT -p tcp --dport 22 -j ACCEPT 2>/dev/null", "22/tcp", ""},
		{"only if that can be written", "echo 1 > /proc/sys/x && iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -A INPUT -p tcp --dport 80 -j ACCEPT >> /var/log/x", "", "1 2"},
		{"a comment that ends in a backslash", "modprobe x # y \\\niptables -A INPUT -s 192.0.2.7 -j DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "22/tcp except 192.0.2.7", ""},
		{"comments like options", "iptables -A INPUT -s 192.0.2.7 -m comment --comment '- a b' -j DROP\niptables -A INPUT -s 192.0.2.9 -m comment --comment \"-x\" -j DROP\n" +
			"iptables -A INPUT -m comment --comment '-s 192.0.2.4' -m comment --comment ! -p tcp --dport 22 -j ACCEPT", "22/tcp except 192.0.2.7,192.0.2.9", ""},
		{"a comment that is none", "iptables -A INPUT -j LOG -m comment --log-prefix --comment\niptables -A INPUT -p tcp --comment -m comment --dport 22 -j ACCEPT", "", "2"},
		{"arithmetic", "P=8000; ((P+=80)); iptables -A INPUT -p tcp --dport $P -j ACCEPT; iptables -A INPUT -p tcp --dport $((P+1)) -j ACCEPT", "8080/tcp|8081/tcp", ""},
		{"a file that is sourced", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\n. ./conf\niptables -A INPUT -p tcp --dport 80 -j ACCEPT", "", "2"},
		{"by xargs", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\necho 192.0.2.7 | xargs -n1 iptables -I INPUT -j DROP -s", "", "2"},
		{"by another shell", "bash -c 'iptables -A INPUT -s 192.0.2.7 -j DROP; iptables -A INPUT -p tcp --dport 80 -j ACCEPT'\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "22/tcp except 192.0.2.7", "1"},
		{"by an alias", "alias fw=iptables\nfw -A INPUT -s 192.0.2.7 -j DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "22/tcp except 192.0.2.7", "2"},
		{"by a trap", "trap 'iptables -I INPUT -s 192.0.2.7 -j DROP' EXIT\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "22/tcp except 192.0.2.7", "1"},
		{"by a program that is not known", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\n/usr/local/bin/block-more", "", "2"},
		{"all rules anew", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables-restore <<E\n*filter\n:INPUT DROP\n-A INPUT -m state --state ESTABLISHED -j ACCEPT\n-A INPUT -p tcp --dport 80 -j ACCEPT\nCOMMIT\nE", "80/tcp", ""},
		{"all rules but one that is refused", "iptables-restore -n <<E\n*filter\n-A INPUT -p tcp --dport 80 -j ACCEPT\n-A INPUT -p tcp --dport 22,23 -j ACCEPT\nCOMMIT\nE", "", "1 3 4"},
		{"no COMMIT", "iptables-restore -n <<E\n*filter\n-A INPUT -p tcp --dport 80 -j ACCEPT\nE", "", "2"},
		{"ports that are refused", "iptables -A INPUT -p tcp --dport 22,80 -j ACCEPT\niptables -A INPUT -j WEB\niptables -N WEB\niptables -A WEB -p tcp --dport 22 -j ACCEPT", "", "1 2"},
		{"a policy that is refused", "iptables -P INPUT accept", "", "1"},
		{"written together", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -I INPUT -s192.0.2.7 -jDROP", "22/tcp except 192.0.2.7", "2"},
		{"a target that is written together", "iptables -A INPUT -p tcp --dport 22 -jACCEPT\niptables -A INPUT -p tcp --dport 80 --jump=ACCEPT", "", "1 2"},
		{"a target that may be in a variable", "iptables -I INPUT -s 192.0.2.7 $REST\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", "1"},
		{"another name of a chain", "iptables -N A; iptables -A INPUT -j A; iptables -A A -p tcp --dport 22 -j ACCEPT; iptables -E A B; iptables -A B -p tcp --dport 80 -j ACCEPT", "22/tcp|80/tcp", ""},
		{"asks for iptables first", "command -v iptables >/dev/null 2>&1 || { echo missing; exit 1; }\n[ -x /sbin/iptables ] || exit 0\n[ \"$(id -u)\" = 0 ] || exit 1\nIPT=$(which iptables)\n$IPT -A INPUT -p tcp --dport 22 -j ACCEPT", "22/tcp", ""},
		{"as init runs it", "iptables -F; iptables -P INPUT ACCEPT; iptables -P FORWARD ACCEPT\ncase \"$1\" in\nstart) iptables -P INPUT DROP; iptables -A INPUT -m state --state ESTABLISHED -j ACCEPT; iptables -A INPUT -p tcp --dport 22 -j ACCEPT;;\n" +
			"stop) iptables -F;;\n*) echo usage; exit 1;;\nesac", "22/tcp", ""},
		{"a carriage return", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -A INPUT -p tcp --dport 80 -j ACCEPT\r\n", "", "2"},
		{"two kinds of iptables", "iptables-legacy -A INPUT -s 192.0.2.7 -j DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", "1 2"},
		{"in the background", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -F INPUT &", "", "2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before strings.Builder
			for line := range strings.Lines(opens) {
				before.WriteString("iptables " + strings.TrimSpace(line) + "; ")
			}
			r, err := Import([]File{{"sh", []byte(before.String() + c.script)}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var open, lost []string
			for _, rule := range r.Policy.Open {
				open = append(open, rule.String())
			}
			for _, f := range r.Untranslated {
				if line := fmt.Sprint(f.Line); len(lost) == 0 || lost[len(lost)-1] != line {
					lost = append(lost, line)
				}
			}
			if got := strings.Join(open, "|"); got != c.open {
				t.Errorf("opens %q, want %q", got, c.open)
			}
			if got := strings.Join(lost, " "); got != c.lost {
				t.Errorf("lines %q are not translated, want %q: %v", got, c.lost, r.Untranslated)
			}
		})
	}
}

// What a REJECT has the last word about is refused, and nothing else is.
func TestReject(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines string
		want  string // of input
	}{
		{"all", "-A INPUT -j REJECT", "reject"},
		{"all, by two rules", "-A INPUT -p tcp -j REJECT --reject-with tcp-reset\n-A INPUT -j REJECT", "reject"},
		{"all, by a chain", "-N a\n-A INPUT -j a\n-A a -j REJECT --reject-with icmp-admin-prohibited", "reject"},
		{"all, but some drop before", "-A INPUT -s 192.0.2.0/24 -j DROP\n-A INPUT -j REJECT", "reject"},
		{"one port", "-A INPUT -p tcp --dport 113 -j REJECT", "drop"},
		{"one port, before a DROP", "-A INPUT -p tcp --dport 113 -j REJECT\n-A INPUT -j DROP", "drop"},
		{"TCP", "-A INPUT -p tcp -j REJECT --reject-with tcp-reset", "drop"},
		{"behind a DROP", "-A INPUT -j DROP\n-A INPUT -j REJECT", "drop"},
		{"up to a limit, and else dropped", "-N a\n-A INPUT -p gre -g a\n-A a -p gre -m hashlimit --hashlimit-upto 2/min --hashlimit-mode srcip --hashlimit-name b -j REJECT\n-A INPUT -j REJECT", "drop"},
		{"in doubt", "-A INPUT -m string --string x --algo bm -j REJECT", "drop"},
		{"of what perhaps returns", "-N a\n-A INPUT -g a\n-A a -p udp -m limit --limit 1/s -j RETURN\n-A a -j REJECT", "drop"},
		{"by one interface", "-A INPUT -i eth0 -p tcp --dport 22 -j ACCEPT\n-A INPUT -i eth1 -p tcp --dport 22 -j ACCEPT\n-A INPUT -i eth1 -j REJECT", "{default: drop, eth1: reject}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := imported(t, false, "-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT", "-A INPUT -p tcp --dport 80 -j ACCEPT", c.lines)
			if got := string(r.YAML()); !strings.Contains(got, "\ninput: "+c.want+"\n") {
				t.Errorf("gives\n%s\nwant input: %s", got, c.want)
			}
		})
	}
}

// A pattern stands for the interfaces that it matches.
func TestAPatternIsNamedAlone(t *testing.T) {
	const script = `iptables -P INPUT DROP
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT
iptables -A INPUT -p tcp --dport 22 -j ACCEPT
iptables -A INPUT -i eth0 -p tcp --dport 80 -j ACCEPT
iptables -A INPUT -i eth+ -p udp --dport 53 -j ACCEPT
`
	r, err := Import([]File{{"fw.sh", []byte(script)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(r.YAML()); !strings.Contains(text, "- 53/udp on eth*\n") || !strings.Contains(text, "- 80/tcp on eth0\n") {
		t.Error(text)
	}
}
