// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/host/netfilter"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// topology passes on what other devices of this host need to know of the filter.
func (e *examination) topology(sentences []string) {
	for _, s := range sentences {
		e.warn("topology", "%s", s)
	}
	if len(sentences) == 0 {
		e.ok("topology", "no other device gets in the way")
	}
}

// forwarding compares what this host does with the forward policy.
func (e *examination) forwarding(guests []host.Guests) {
	if e.Policy == nil {
		return // the check of the policy says why
	}
	behind := make([]string, len(guests))
	for i, g := range guests {
		behind[i] = g.String()
	}
	rules := len(e.Policy.ForwardRules())
	switch {
	case !host.Forwards(e.files):
		e.ok("forward", "this host forwards nothing")
	case e.Policy.Forward == policy.ForwardAccept:
		e.note("forward", "\"forward: accept\" lets everything through to what is behind this host")
	case e.Policy.Forward == policy.ForwardEstablished && rules == 0:
		e.ok("forward", "what is behind this host reaches out, and only answers come in")
	case rules > 0:
		e.ok("forward", "\"forward: %s\", and rules let through what they name: %s", e.Policy.Forward, few(policy.Texts(e.Policy.ForwardRules())))
	case len(guests) > 0:
		e.ok("forward", "what is behind %s reaches out, answers come in, and so does what \"open\" lets in to published ports; nothing else is forwarded",
			strings.Join(behind, ", "))
	default:
		e.note("forward", "this host forwards, and \"forward: drop\" lets nothing through; \"portcullis open --forward 'all on eth1'\" would let through what comes in by eth1, and answers to it")
	}
}

// netfilter examines what else filters.
func (e *examination) netfilter(r *netfilter.Ruleset, err error) {
	if e.unseen("netfilter", "the rules of iptables and nftables", err) {
		return
	}
	if err != nil {
		e.note("netfilter", "%s", err)
	}
	for _, f := range r.Filters {
		chain := fmt.Sprintf("chain %s of table %s %s", quote.Name(f.Chain), f.Family, quote.Name(f.Table))
		bans := strings.Join(f.Bans, ", ")
		e.bans = e.bans || len(f.Bans) > 0
		how := "drops some packets"
		if f.Drops {
			how = "drops by default"
		}
		switch {
		case f.OnlyBans:
			e.note("netfilter", "%s bans addresses by %s, behind portcullis: keep it, and do not flush that table", bans, chain)
		case len(f.Bans) > 0:
			e.warn("netfilter", "%s filters as well: %s %s, with %d rules: each packet pays for both, and a port has to be open in both; keep the rules by which %s bans, and do not flush the chain",
				f.Owner, chain, how, f.Rules, bans).fix(f.Remove...)
		default:
			e.warn("netfilter", "%s filters as well: %s %s, with %d rules: each packet pays for both, and a port has to be open in both",
				f.Owner, chain, how, f.Rules).fix(f.Remove...)
		}
	}
	if err == nil && len(r.Filters) == 0 {
		e.ok("netfilter", "nothing else filters what comes in")
	}
}

// conntrack examines netfilter's own table of connections, which drops what it has no room for.
func (e *examination) conntrack() {
	count, err := host.SysctlNumber(e.files, "net/netfilter/nf_conntrack_count")
	most, err2 := host.SysctlNumber(e.files, "net/netfilter/nf_conntrack_max")
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && count == 0:
		e.ok("conntrack", "netfilter tracks no connections")
	case err != nil || err2 != nil:
		e.note("conntrack", "how many connections netfilter tracks is not known: %s", errors.Join(err, err2))
	case most > 0 && count >= most/10*9: // 0 is no limit
		e.warn("conntrack", "netfilter tracks %d of at most %d connections, and soon drops new ones, whatever portcullis says", count, most).
			fix(fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*most))
	default:
		e.ok("conntrack", "netfilter tracks %d connections", count)
	}
}

// services examines which other firewalls come back at boot.
func (e *examination) services() {
	quiet := len(e.checks)
	if text, err := fs.ReadFile(e.files, "etc/ufw/ufw.conf"); err == nil && strings.Contains("\n"+string(text), "\nENABLED=yes") {
		e.note("services", "ufw puts its rules in force at boot, which then filter as well").fix("ufw disable")
	}
	for _, name := range []string{"firewalld", "nftables", "netfilter-persistent", "iptables", "ip6tables"} {
		if !e.files.exists("etc/systemd/system/*.wants/" + name + ".service") {
			continue
		}
		// To stop it would flush all tables, those of whoever bans or publishes ports among them.
		command := "systemctl disable " + name
		if name == "firewalld" && !e.bans {
			command = "systemctl disable --now " + name
		}
		e.note("services", "%s puts its rules in force at boot, which then filter as well", name).fix(command)
	}
	if len(e.checks) == quiet {
		e.ok("services", "no other firewall comes back at boot")
	}
}
