// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"slices"
	"strconv"
	"testing"
)

func TestBanners(t *testing.T) {
	for name, want := range map[string]string{"f2b-sshd": "fail2ban", "f2b-table": "fail2ban", "fail2ban-ssh": "fail2ban", "crowdsec6": "CrowdSec",
		"CROWDSEC_CHAIN": "CrowdSec", "crowdsec-blacklists": "CrowdSec", "sshguard6": "sshguard", "INPUT": "", "filter": "", "": ""} {
		if got := bannerOf(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// Which commands take out what filters, beside what bans.
func TestRemove(t *testing.T) {
	ban, drop := part{bans: []string{"fail2ban"}}, part{filters: true}
	rules := func(parts ...part) (rules []numbered) {
		for i, p := range parts {
			rules = append(rules, numbered{p, strconv.Itoa(i + 1)})
		}
		return rules
	}
	iptables := Filter{Family: "ip", Table: "filter", Chain: "INPUT", Owner: "iptables", Drops: true}
	nft := Filter{Family: "inet", Table: "t", Chain: "in", Owner: "nft"}
	of := func(f Filter, change func(*Filter)) Filter { change(&f); return f }
	for _, c := range []struct {
		what  string
		f     Filter
		rules []numbered
		want  []string // nil: nothing is listed
		only  bool
	}{
		{"nothing", nft, rules(part{}), nil, false},
		{"a ban", nft, rules(ban), []string{}, true},
		{"rules", nft, rules(drop), []string{"nft flush chain inet t in", "nft 'chain inet t in { policy accept; }'"}, false},
		{"both", nft, rules(ban, drop, part{}, drop), []string{"nft delete rule inet t in handle 4", "nft delete rule inet t in handle 2"}, false},
		{"a policy and a ban", iptables, rules(ban), []string{"iptables -t filter -P INPUT ACCEPT"}, false},
		{"all three", iptables, rules(ban, drop), []string{"iptables -t filter -D INPUT 2", "iptables -t filter -P INPUT ACCEPT"}, false},
		{"both in one rule", iptables, rules(part{true, []string{"fail2ban"}}), []string{}, false},
		{"too many", iptables, rules(append([]part{ban}, slices.Repeat([]part{drop}, mostDeletions+1)...)...), []string{}, false},
		{"firewalld", of(nft, func(f *Filter) { f.Owner = "firewalld" }), rules(ban, drop), []string{}, false},
		{"ufw", of(iptables, func(f *Filter) { f.Owner = "ufw" }), rules(ban, drop), []string{"ufw disable"}, false},
		{"a name that nft cannot say", of(nft, func(f *Filter) { f.Table = "t; flush ruleset" }), rules(drop), []string{}, false},
		{"a name that a shell would run", of(iptables, func(f *Filter) { f.Chain = "$(reboot)" }), rules(drop),
			[]string{"iptables -t filter -P '$(reboot)' ACCEPT", "iptables -t filter -F '$(reboot)'"}, false},
	} {
		r := &Ruleset{}
		r.enter(c.f, c.rules)
		if c.want == nil {
			if len(r.Filters) != 0 {
				t.Errorf("%s: %+v", c.what, r.Filters)
			}
			continue
		}
		if len(r.Filters) != 1 || !slices.Equal(r.Filters[0].Remove, c.want) || r.Filters[0].OnlyBans != c.only {
			t.Errorf("%s: got %+v, want %q", c.what, r.Filters, c.want)
		}
	}
}

// Chains that call one another for ever are read once.
func TestSavedRules(t *testing.T) {
	r := &Ruleset{}
	r.readSaved("iptables-legacy", "ip", "*filter\n:INPUT ACCEPT [0:0]\n:A - [0:0]\n:f2b-x - [0:0]\n-A INPUT -j A\n-A INPUT -j A\n-A INPUT -j f2b-x\n-A A -j A\n-A A -p udp -j REJECT\nCOMMIT\n"+
		"*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j PREROUTING\n-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 192.0.2.9\n-A PREROUTING -j DNAT --to-destination 192.0.2.10\nCOMMIT\n")
	want := []string{"iptables-legacy -t filter -D INPUT 2", "iptables-legacy -t filter -D INPUT 1"}
	if len(r.Filters) != 1 || !slices.Equal(r.Filters[0].Remove, want) || r.Filters[0].Rules != 5 {
		t.Errorf("got %+v, want %q", r.Filters, want)
	}
	if len(r.Published) != 1 || r.Published[0].To != "192.0.2.9" {
		t.Errorf("got %+v", r.Published)
	}
}
