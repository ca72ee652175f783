// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/host/netfilter"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

func TestNetwork(t *testing.T) {
	forwarding := func(forward policy.ForwardPolicy, guests ...host.Guests) func(*situation) {
		return func(s *situation) {
			s.files["proc/sys/net/ipv6/conf/eth0/forwarding"], s.guests = "1\n", guests
			s.options.Policy.Forward = forward
		}
	}
	docker := host.Guests{Device: "docker0", Manager: "Docker"}
	enabled := func(name string) func(*situation) {
		return file("etc/systemd/system/multi-user.target.wants/"+name+".service", "[Unit]\n")
	}
	runAll(t, []testcase{
		{"containers", well, forwarding(policy.ForwardDrop, docker, host.Guests{Device: "virbr0", Manager: "libvirt"}), "forward", OK,
			"what is behind docker0 (Docker), virbr0 (libvirt) reaches out", ""},
		{"router", well, forwarding(policy.ForwardDrop), "forward", Note, "\"portcullis open --forward 'all on eth1'\" would let through", ""},
		{"router with rules", well, both(forwarding(policy.ForwardDrop, docker), func(s *situation) {
			r, _ := policy.Names{Forward: true}.ParseRule("all on eth1")
			s.options.Policy.Open = append(s.options.Policy.Open, r)
		}), "forward", OK, "\"forward: drop\", and rules let through what they name: all on eth1", ""},
		{"established", well, forwarding(policy.ForwardEstablished, docker), "forward", OK, "only answers", ""},
		{"accept", well, forwarding(policy.ForwardAccept), "forward", Note, "everything", ""},
		{"none", well, func(s *situation) { s.guests = []host.Guests{docker} }, "forward", OK, "forwards nothing", ""},
		{"policy", well, func(s *situation) {
			s.ruleset.Filters = []netfilter.Filter{{Owner: "iptables", Family: "ip", Table: "filter", Chain: "INPUT", Drops: true, Rules: 3, Remove: []string{"iptables -F"}}}
		}, "netfilter", Warn, "iptables filters as well: chain INPUT of table ip filter drops by default, with 3 rules", "iptables -F"},
		{"bans alone", well, func(s *situation) {
			s.ruleset.Filters = []netfilter.Filter{{Owner: "nft", Family: "inet", Table: "f2b-table", Chain: "f2b-chain", Bans: []string{"fail2ban"}, OnlyBans: true, Rules: 1}}
		}, "netfilter", Note, "fail2ban bans addresses by chain f2b-chain of table inet f2b-table, behind portcullis: keep it", ""},
		{"bans among others", well, func(s *situation) {
			s.ruleset.Filters = []netfilter.Filter{{Owner: "iptables", Family: "ip", Table: "filter", Chain: "INPUT", Bans: []string{"fail2ban"}, Rules: 3, Remove: []string{"iptables -D INPUT 2"}}}
		}, "netfilter", Warn, "keep the rules by which fail2ban bans, and do not flush the chain", "iptables -D INPUT 2"},
		{"hostile names", well, func(s *situation) {
			s.ruleset.Filters = []netfilter.Filter{{Owner: "nft", Family: "ip", Table: "a\nb", Chain: "\x1b[2J", Drops: true}}
		}, "netfilter", Warn, `chain \x1b[2J of table ip a\nb drops`, ""},
		{"unseen", well, func(s *situation) { s.rulesErr = fs.ErrPermission }, "netfilter", Note, "not seen without root", "sudo portcullis doctor"},
		{"half seen", well, func(s *situation) { s.rulesErr = errors.New("no iptables-legacy-save") }, "netfilter", Note, "no iptables-legacy-save", ""},
		{"full", well, file("proc/sys/net/netfilter/nf_conntrack_count", "250000\n"), "conntrack", Warn, "250000 of at most 262144", "sysctl -w net.netfilter.nf_conntrack_max=524288"},
		{"some", well, file("proc/sys/net/netfilter/nf_conntrack_count", "25\n"), "conntrack", OK, "25 connections", ""},
		{"ufw", well, file("etc/ufw/ufw.conf", "ENABLED=yes\n"), "services", Note, "ufw", "ufw disable"},
		{"nftables", well, enabled("nftables"), "services", Note, "nftables", "systemctl disable nftables"},
		{"firewalld", well, enabled("firewalld"), "services", Note, "firewalld", "systemctl disable --now firewalld"},
	})
}

func TestPortcullis(t *testing.T) {
	const enabled = "etc/systemd/system/a.target.wants/portcullis.service"
	const up = "up eth0"
	runAll(t, []testcase{
		{"broken", well, func(s *situation) { s.options.PolicyErr = errors.New("fw.yaml:1:2: no\nfw.yaml:2:2: nor this") }, "policy", Fail, "fw.yaml:1:2: no (and 1 more)", ""},
		{"unreadable", well, func(s *situation) { s.options.PolicyErr = fs.ErrPermission }, "policy", Note, conf + ": not seen without root", "sudo portcullis doctor"},
		{"none", well, func(s *situation) { s.options.BuiltIn = true }, "policy", OK, "sshd", ""},
		{"disabled", well, file(enabled, ""), "boot", Note, "nothing puts the filter up", "systemctl enable portcullis.service"},
		{"not installed", well, both(file(enabled, ""), file("usr/lib/systemd/system/portcullis.service", "")), "boot", Note, "not installed", ""},
		{"without systemd", well, both(file(enabled, ""), file("run/systemd/system/x", "")), "boot", OK, "does not run systemd", ""},
		{"not running", stopped, func(s *situation) { s.options.PinPath = "/sys/fs/bpf/x" }, "filter", Note, "every port is open", "portcullis --pin-path /sys/fs/bpf/x " + up},
		{"other namespace", stopped, func(s *situation) { s.options.FilterErr = loader.ErrOtherNamespace }, "filter", Fail, "another network namespace",
			"portcullis --pin-path /sys/fs/bpf/portcullis-NAME " + up},
		{"another card", well, func(s *situation) { s.options.Unfiltered = []string{"eth1"} }, "filter", Warn, "eth1 is not filtered: what comes in by it", "portcullis up eth1"},
		{"unseen", stopped, func(s *situation) { s.options.FilterErr = fs.ErrPermission }, "filter", Note, "not seen without root", "sudo portcullis doctor"},
		{"unreadable", stopped, func(s *situation) { s.options.FilterErr = errors.New("bad pins") }, "filter", Fail, "bad pins", ""},
		{"watching", well, func(s *situation) {
			s.options.Running.Policy = policy.Default()
			s.options.Running.Policy.WatchOnly = true
		}, "filter", Warn, "it only watches: nothing is dropped", "portcullis apply"},
		{"warning", well, func(s *situation) { s.options.Running.Warnings = []string{"eth1 is gone"} }, "filter", Warn, "is gone", ""},
		{"evicted", well, func(s *situation) { s.options.Running.Flows.Evicted = 5 }, "flows", OK, "0 of 262144; the table has been full, and has evicted 5 flows", ""},
		{"full", well, func(s *situation) {
			s.options.Running.Flows.Evicted, s.options.Running.Flows.Answered = 5, policy.DefaultMaxFlows
		}, "flows", Note, "the flow table is full (262144 of 262144) and has evicted 5 flows; none of them was assured", ""},
		{"refused", well, func(s *situation) { s.options.Running.Flows.Full = 5 }, "flows", Warn, `set "flows: {max: 524288}" in the policy file (69 MB of memory)`, ""},
		{"refused many", well, func(s *situation) { s.options.Running.Flows.Full = 1 << 20 }, "flows", Warn, `set "flows: {max: 1048576}" in the policy file (137 MB of memory)`, ""},
		{"refused by the largest", well, func(s *situation) {
			s.options.Running.Flows.Full, s.options.Running.Flows.Max = 1, policy.MaxMaxFlows
		}, "flows", Warn, `1 packet that begins a flow, and what answered was dropped (over TCP it shows as "invalid state"): no table is larger`, ""},
		{"refused till the next up", well, func(s *situation) {
			s.options.Running.Flows.Full, s.options.Running.Flows.Max = 5, 1024
		}, "flows", Warn, "asks for 262144", "portcullis down\nportcullis up"},
		{"of another size", well, func(s *situation) { s.options.Running.Flows.Max = 1024 }, "flows", Note, "its size of 1024 flows while the filter runs, and the policy asks for 262144",
			"portcullis down\nportcullis up"},
		{"default route", well, func(s *situation) { s.options.Default = "wan0" }, "filter", Warn, "wan0 is not filtered", "portcullis up wan0"},
		{"default route that the file does not name", well, func(s *situation) { s.options.Default, s.options.Named = "wan0", []string{"eth0"} },
			"filter", Warn, "wan0 is not filtered", "portcullis up wan0\nportcullis save"},
		{"another file", stopped, func(s *situation) { s.options.Config, s.options.ConfigFlag = "/srv/a b.yaml", true }, "filter", Note, "every port is open",
			"portcullis up eth0 --config '/srv/a b.yaml'"},
		{"another file while it runs", well, func(s *situation) {
			s.options.Config, s.options.ConfigFlag, s.options.Default = "/srv/p.yaml", true, "wan0;reboot"
		}, "filter", Warn, "is not filtered", "portcullis up 'wan0;reboot' --config /srv/p.yaml"},
		{"named", well, func(s *situation) { s.options.Interfaces = append(s.options.Interfaces, "eth1") }, "filter", Warn, "eth1 is not filtered", "portcullis up eth1"},
	})
}

// A card that no filter would cover is named before up, too, once.
func TestCardsThatNoFilterCovers(t *testing.T) {
	s := stopped()
	s.options.Unfiltered = []string{"eth1"}
	s.options.Interfaces = []string{"eth0"}
	var texts []string
	for _, c := range s.examine() {
		if strings.Contains(c.Text, "eth1") {
			texts = append(texts, c.Text)
			if c.Verdict != Note || strings.Join(c.Fix, "\n") != "portcullis up eth0 eth1" {
				t.Errorf("%+v", c)
			}
		}
	}
	if len(texts) != 1 {
		t.Errorf("%q", texts)
	}
	s = well()
	s.options.Unfiltered, s.options.Default = []string{"eth1"}, "eth1"
	texts = nil
	for _, c := range s.examine() {
		if strings.Contains(c.Text, "eth1") {
			texts = append(texts, c.Text)
		}
	}
	if len(texts) != 1 {
		t.Errorf("%q", texts)
	}
}
