// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Each case is what FORWARD has behind the answers on a host that filters eth0, or eth0 and eth1, what that is in the
// policy, and what is said of what is not.
func TestForwardRules(t *testing.T) {
	const answered = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
	for _, c := range []struct{ name, lines, word, rules, lost string }{
		{"a LAN", answered + "-A FORWARD -i eth1 -j ACCEPT", "drop", "all on eth1", ""},
		{"a LAN by addresses", answered + "-A FORWARD -i eth1 -s 10.0.0.0/8 -j ACCEPT", "drop", "all on eth1 from 10.0.0.0/8", ""},
		{"a server", answered + "-A FORWARD -i eth0 -d 10.0.0.5 -p tcp --dport 443 -j ACCEPT", "drop", "443/tcp on eth0 to 10.0.0.5", ""},
		{"a server for all interfaces", answered + "-A FORWARD -d 10.0.0.5 -p tcp -m multiport --dports 80,443 -j ACCEPT", "drop", "80,443/tcp to 10.0.0.5", ""},
		{"but some, by a DROP before", answered + "-A FORWARD -i eth1 -s 10.9.0.0/16 -j DROP\n-A FORWARD -i eth1 -s 10.0.0.0/8 -j ACCEPT", "drop", "all on eth1 from 10.0.0.0/8 except 10.9.0.0/16", ""},
		{"a limit", answered + "-A FORWARD -i eth0 -p tcp --dport 22 -m hashlimit --hashlimit-upto 6/min --hashlimit-mode srcip --hashlimit-name a -m comment --comment c -j ACCEPT", "drop", "22/tcp on eth0 limit 6/minute", ""},
		{"by --syn", answered + "-A FORWARD -i eth0 -p tcp --syn --dport 25 -j ACCEPT", "drop", "25/tcp on eth0", ""},
		{"a chain", "-N a\n" + answered + "-A FORWARD -j a\n-A a -i eth1 -j ACCEPT\n-A a -p gre -j ACCEPT", "drop", "all on eth1|gre", ""},
		{"out by one", answered + "-A FORWARD -i eth1 -o eth0 -j ACCEPT", "drop", "",
			`-o eth0 cannot be said: a forward rule lets through by whatever interface it leaves, so this is not let through; without it, it would be "all on eth1"`},
		{"out by all but one", answered + "-A FORWARD -i eth1 ! -o eth1 -j ACCEPT", "drop", "",
			`-o eth1 cannot be said: a forward rule lets through by whatever interface it leaves, so this is not let through; without it, it would be "all on eth1"`},
		{"without answers", "-A FORWARD -i eth1 -j ACCEPT", "drop", "", "the answers to it are not all let through (eth1), and a forward rule always lets them"},
		{"ICMP", answered + "-A FORWARD -i eth1 -p icmp -j ACCEPT", "drop", "", "a forward rule lets ICMP through only where it lets all through"},
		{"a source port", answered + "-A FORWARD -i eth1 -p udp --sport 53 --dport 1024: -j ACCEPT", "drop", "",
			`--sport 53 cannot be said in a policy, so this is not let through; without it, it would be "1024-65535/udp on eth1"`},
		{"everything", "-A FORWARD -j ACCEPT", "accept", "", ""},
		{"nothing begins", answered, "drop", "", ""},
		{"containers", answered + "-N DOCKER\n-A FORWARD -o docker0 -j DOCKER\n-A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n-A FORWARD -i docker0 -o docker0 -j ACCEPT\n" +
			"-A DOCKER -d 172.17.0.2 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT\n-A FORWARD -i eth1 -j ACCEPT", "drop", "all on eth1", ""},
		{"containers that are bound", answered + "-A FORWARD -i docker0 -p tcp --dport 443 -j ACCEPT", "drop", "443/tcp on docker0", ""},
		{"containers that are cut off", answered + "-A FORWARD -i docker0 -j DROP", "drop", "",
			"what is behind docker0, a bridge of containers, may begin outward where no forward rule names it: the rules do not let all of that through"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := imported(t, false, "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A INPUT -i eth0 -p tcp --dport 22 -j ACCEPT",
				"-A INPUT -i eth1 -p tcp --dport 23 -j ACCEPT", c.lines)
			if got := strings.Join(policy.Texts(r.Policy.ForwardRules()), "|"); got != c.rules || r.Policy.Forward.String() != c.word {
				t.Errorf("gives %s, %s, want %s, %s", r.Policy.Forward, got, c.word, c.rules)
			}
			var lost []string
			for _, f := range r.Untranslated {
				lost = append(lost, f.Why)
			}
			if got := strings.Join(lost, "|"); got != c.lost {
				t.Errorf("not translated: %s\nwant %s", got, c.lost)
			}
			again, err := policy.Parse("f", r.YAML())
			if err != nil || !again.Equal(r.Policy) {
				t.Errorf("it is written as\n%s\n%v", r.YAML(), err)
			}
		})
	}
}
