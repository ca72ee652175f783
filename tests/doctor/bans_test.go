// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall/doctor"
)

// What bans addresses stays when the doctor's commands have been run: they take out the rest alone.
func TestBansAreKept(t *testing.T) {
	const saved = "iptables-save -t filter"
	for _, c := range []struct {
		what  string
		needs string
		make  []string
		rest  bool   // something else filters there
		show  string // the ruleset
		ban   string // which has this line before and after
		tool  string
	}{
		{"fail2ban in nftables", "", []string{"nft add table inet f2b-table", "nft 'add set inet f2b-table addr-set-sshd { type ipv4_addr; }'",
			"nft add element inet f2b-table addr-set-sshd '{ 203.0.113.9 }'",
			"nft 'add chain inet f2b-table f2b-chain { type filter hook input priority filter - 1; }'",
			"nft add rule inet f2b-table f2b-chain tcp dport 22 ip saddr @addr-set-sshd reject"}, false,
			"nft list table inet f2b-table", "@addr-set-sshd", "fail2ban"},
		{"CrowdSec in nftables", "", []string{"nft add table ip crowdsec", "nft 'add set ip crowdsec crowdsec-blacklists { type ipv4_addr; }'",
			"nft 'add chain ip crowdsec crowdsec-chain { type filter hook input priority -10; }'",
			"nft add rule ip crowdsec crowdsec-chain ip saddr @crowdsec-blacklists drop"}, false,
			"nft list table ip crowdsec", "@crowdsec-blacklists", "CrowdSec"},
		{"sshguard in nftables", "", []string{"nft add table ip sshguard", "nft 'add set ip sshguard attackers { type ipv4_addr; flags interval; }'",
			"nft 'add chain ip sshguard blacklist { type filter hook input priority filter - 10; }'",
			"nft add rule ip sshguard blacklist ip saddr @attackers drop"}, false, "nft list table ip sshguard", "@attackers", "sshguard"},
		{"CrowdSec's set among other rules", "", []string{"nft add table ip filter", "nft 'add set ip filter crowdsec-blacklists { type ipv4_addr; }'",
			"nft 'add chain ip filter input { type filter hook input priority 0; policy drop; }'",
			"nft add rule ip filter input ip saddr @crowdsec-blacklists drop", "nft add rule ip filter input tcp dport 22 accept",
			"nft add rule ip filter input udp dport 53 drop"}, true, "nft list table ip filter", "@crowdsec-blacklists", "CrowdSec"},
		{"fail2ban by iptables", "", []string{"iptables -N f2b-sshd", "iptables -A f2b-sshd -s 203.0.113.9 -j REJECT", "iptables -A f2b-sshd -j RETURN",
			"iptables -A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd"}, false, saved, "-j f2b-sshd", "fail2ban"},
		{"fail2ban among rules of iptables", "", []string{"iptables -P INPUT DROP", "iptables -N f2b-sshd", "iptables -A f2b-sshd -s 203.0.113.9 -j REJECT",
			"iptables -A INPUT -p udp --dport 53 -j DROP", "iptables -A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd",
			"iptables -A INPUT -p tcp --dport 22 -j ACCEPT", "iptables -A INPUT -p tcp --dport 25 -j REJECT"}, true, saved, "-j f2b-sshd", "fail2ban"},
		{"sshguard by iptables-legacy", "iptables-legacy -L", []string{"iptables-legacy -N sshguard", "iptables-legacy -A sshguard -s 203.0.113.9 -j DROP",
			"iptables-legacy -A INPUT -j sshguard", "iptables-legacy -A INPUT -p udp --dport 53 -j DROP"}, true,
			"iptables-legacy-save -t filter", "-j sshguard", "sshguard"},
		{"ipset", "ipset create b hash:ip && iptables -A INPUT -m set --match-set b src -j DROP", nil, false, saved, "--match-set b src", "a set of ipset"},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "_"), func(t *testing.T) {
			p := newPatient(t)
			if c.needs != "" {
				p.can(c.needs)
			}
			p.must(c.make...)
			verdict := doctor.Note
			if c.rest {
				verdict = doctor.Warn
			}
			check := p.expect("network", "netfilter", verdict, c.tool, "keep", "do not flush")
			if c.rest != (len(check.Fix) > 0) {
				t.Errorf("fixes: %q", check.Fix)
			}
			for _, command := range check.Fix {
				if strings.Contains(command, "flush") || strings.Contains(command, "-F") {
					t.Errorf("advises %q", command)
				}
			}
			p.must(check.Fix...)
			if text := p.print(c.show); !strings.Contains(text, c.ban) {
				t.Errorf("the ban is gone:\n%s", text)
			}
			p.expect("network", "netfilter", doctor.Note, c.tool, "keep")
		})
	}
}

// Two rules that call one chain are two rules to take out.
func TestChainThatIsCalledTwice(t *testing.T) {
	p := newPatient(t)
	p.must("iptables -N f2b-sshd", "iptables -A INPUT -j f2b-sshd", "iptables -N BLOCK", "iptables -A BLOCK -j DROP",
		"iptables -A INPUT -p udp --dport 1 -j BLOCK", "iptables -A INPUT -p udp --dport 2 -j BLOCK")
	check := p.expect("network", "netfilter", doctor.Warn, "fail2ban")
	p.must(check.Fix...)
	p.expect("network", "netfilter", doctor.Note, "fail2ban")
	if text := p.print("iptables-save -t filter"); strings.Contains(text, "-A INPUT -p udp") || !strings.Contains(text, "-j f2b-sshd") {
		t.Error(text)
	}
}
