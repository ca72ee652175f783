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
		{"a rule in front", "iptables -A INPUT -p tcp --dport 1:3 -j ACCEPT\niptables -I INPUT -p tcp --dport 2 -j DROP", "1/tcp|3/tcp", ""},
		{"a rule in the middle", "iptables -A INPUT -p tcp --dport 2 -j DROP\niptables -I INPUT 2 -p tcp --dport 2 -j ACCEPT", "2/tcp", ""},
		{"a rule taken back", "iptables -A INPUT -p tcp --dport 22:23 -j ACCEPT\niptables -D INPUT -p tcp --dport 22:23 -j ACCEPT", "", ""},
		{"by number", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -D INPUT 2", "", ""},
		{"what was not there", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -D INPUT -p tcp --dport ssh -j ACCEPT", "", "0 1 2"},
		{"replaced", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -R INPUT 2 -p tcp --dport 23 -j ACCEPT", "23/tcp", ""},
		{"flushed", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\niptables -F INPUT\niptables -A INPUT -m state --state ESTABLISHED -j ACCEPT", "", ""},
		{"only if", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\n[ -e /x ] && iptables -I INPUT -p tcp --dport 22 -j DROP", "", "2"},
		{"only if not", "[ -e /x ] || iptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", "1"},
		{"perhaps flushed", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\nif true; then iptables -F; fi", "", "0 1 2"},
		{"or else", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT || iptables -A INPUT -p tcp --dport 23 -j ACCEPT", "22/tcp", ""},
		{"a loop in a loop", "for p in 1 2; do for n in 10.0.0.1 10.0.0.3; do iptables -A INPUT -s $n -p tcp --dport $p -j ACCEPT; done; done",
			"1/tcp from 10.0.0.1,10.0.0.3|2/tcp from 10.0.0.1,10.0.0.3", ""},
		{"a loop over what is not known", "for p in $(cat ports); do iptables -A INPUT -p tcp --dport $p -j ACCEPT; done", "", "1"},
		{"a variable that is not known", "iptables -A INPUT -p tcp --dport $PORT -j ACCEPT", "", "1"},
		{"what is dropped is not known", "iptables -A INPUT -p tcp -s $BAD -j DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", "1"},
		{"the chain is not known", "iptables -I $CHAIN -p tcp -j DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", "1"},
		{"the target is not known", "iptables -A INPUT -p tcp -j $TARGET\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", "1"},
		{"a variable of another kind", "P=22\nif false; then P=23; fi\niptables -A INPUT -p tcp --dport $P -j ACCEPT", "", "3"},
		{"quotes", "P='22'; A=\"-A INPUT -p tcp --dport $P\"\niptables $A -m comment --comment \"a b\" -j ACCEPT", "22/tcp", ""},
		{"after the end", "exit 0\niptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", ""},
		{"another chain", "iptables -N a\niptables -A INPUT -j a\niptables -A a -p tcp --dport 22 -j ACCEPT", "22/tcp", ""},
		{"no such chain", "iptables -A a -p tcp --dport 22 -j ACCEPT", "", "1"},
		{"restored", "iptables-restore --noflush <<E\n*filter\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\nE", "22/tcp", ""},
		{"not iptables", "nft add rule inet filter input tcp dport 22 accept", "", "1"},
		{"not a script", "iptables -A INPUT -p tcp --dport 22 -j ACCEPT\nif", "22/tcp", "2"},
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
