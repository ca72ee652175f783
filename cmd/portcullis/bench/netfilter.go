// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/host"
)

// lenient lets conntrack take packets that are all the same for what they are: parts of a flow.
func lenient() error { return setting("netfilter/nf_conntrack_tcp_be_liberal", "1") }

// forget empties the table of tracked flows for the next firewall on the same interfaces. A kernel without ctnetlink
// cannot; then they stay until the namespace goes.
func forget() { _ = netlink.ConntrackTableFlush(netlink.ConntrackTable) }

// conntrackRoom says how many flows netfilter may track; the setting is one for the whole machine, so it stays.
func conntrackRoom() int {
	n, _ := host.SysctlNumber(nil, "net/netfilter/nf_conntrack_max")
	return n
}

// tracksFlows refuses scenes with more flows than netfilter has room for.
func tracksFlows(r rules) string {
	if text := r.conditional(); text != "" {
		return text
	}
	if r.blocked > 0 && installed("ipset")() != "" {
		return "ipset is not installed"
	}
	if room := conntrackRoom(); room > 0 && r.flows > room {
		return fmt.Sprintf("nf_conntrack_max of this machine is %d", room)
	}
	return ""
}

// iptables is the script, one rule a port, through whichever iptables is installed.
type iptables struct{}

// iptablesPorts is how many rules a packet can be made to walk before a single one takes a millisecond.
const iptablesPorts = 10000

func fewRules(r rules) string {
	if len(r.ports) > iptablesPorts {
		return fmt.Sprintf("a rule for each of %d ports takes a millisecond a packet", len(r.ports))
	}
	return tracksFlows(r)
}

func (iptables) install(s *stand, r rules) error {
	var b strings.Builder
	fmt.Fprintf(&b, "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n")
	fmt.Fprintf(&b, "-A INPUT -i %s -m state --state ESTABLISHED,RELATED -j ACCEPT\n", s.to.name)
	for _, port := range r.ports {
		fmt.Fprintf(&b, "-A INPUT -i %s -p %s --dport %d -j ACCEPT\n", s.to.name, r.protocolName(), port)
	}
	fmt.Fprintf(&b, "-A INPUT -i %s -p icmp -j ACCEPT\nCOMMIT\n", s.to.name)
	if _, err := command(b.String(), "iptables-restore"); err != nil {
		return err
	}
	if r.blocked > 0 {
		if _, err := command(ipsetText(r.blocked, false), "ipset", "restore"); err != nil {
			return err
		}
		if _, err := command(blockRule, "iptables-restore"); err != nil {
			return err
		}
	}
	return lenient()
}

// blockRule drops by a set where netfilter can at the earliest.
const blockRule = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m set --match-set bench src -j DROP\nCOMMIT\n"

// ipsetText makes a set of blocked addresses, for ipset restore.
func ipsetText(blocked int, timeout bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "create -exist bench hash:ip hashsize %d maxelem %d", max(blocked, 1024), max(2*blocked, 1<<16))
	if timeout {
		b.WriteString(" timeout 3600")
	}
	b.WriteByte('\n')
	for _, a := range scatteredSources(blocked) {
		fmt.Fprintf(&b, "add -exist bench %s\n", a)
	}
	return b.String()
}

func (iptables) remove(*stand) error {
	_, _ = command("*raw\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n", "iptables-restore") // where nothing was blocked it may be missing
	_, _ = command("", "ipset", "destroy", "bench")
	_, err := command("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n", "iptables-restore")
	forget()
	return err
}

func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// Patterns are compiled when they are first needed: other commands start the sooner.
var (
	iptablesPolicy = pattern(`(?m)^Chain INPUT \(policy DROP (\d+) packets`)
	iptablesSet    = pattern(`(?m)^ *(\d+) .* match-set bench src`)
	iptablesRule   = pattern(`(?m)^num.*\n1 +(\d+) .*\n2 +(\d+) `)
)

func (iptables) counted(_ *stand, f fate) (uint64, bool, error) {
	inRaw, err := iptablesBlocked()
	if f == blocked || err != nil {
		return inRaw, true, err
	}
	args := []string{"-t", "filter", "-nvx", "--line-numbers", "-L", "INPUT"}
	out, err := command("", "iptables", args...)
	if err != nil {
		return 0, true, err
	}
	line, group := iptablesPolicy, 1
	if f != dropped {
		line = iptablesRule // the first is that of established flows, the second that of openPort
	}
	if f == opened {
		group = 2
	}
	n, has, err := number(line().FindStringSubmatch(out), group, "iptables")
	if f == dropped {
		n += inRaw
	}
	return n, has, err
}

// iptablesBlocked returns what the rule for a set has dropped, if there is one.
func iptablesBlocked() (uint64, error) {
	out, err := command("", "iptables", "-t", "raw", "-nvx", "-L", "PREROUTING")
	if err != nil || !strings.Contains(out, "match-set") {
		return 0, err
	}
	n, _, err := number(iptablesSet().FindStringSubmatch(out), 1, "iptables")
	return n, err
}

// number reads the count that a program has printed.
func number(match []string, group int, program string) (uint64, bool, error) {
	if match == nil {
		return 0, true, fmt.Errorf("%s prints its counters in a form that is not known here", program)
	}
	n, err := strconv.ParseUint(match[group], 10, 64)
	return n, true, err
}

// nft is the same policy as one would write it in nftables: the ports in one set.
type nft struct{ blocks bool }

func (n *nft) install(s *stand, r rules) error {
	n.blocks = r.blocked > 0
	var ports strings.Builder
	for _, port := range r.ports {
		fmt.Fprintf(&ports, "%d, ", port)
	}
	_, err := command(nftBlocked(r.blocked)+fmt.Sprintf(`table ip bench {
	counter dropped {}
	counter opened {}
	counter established {}
	set ports { type inet_service; elements = { %s } }
	chain input {
		type filter hook input priority filter; policy drop;
		iif != "%s" accept
		ct state established,related counter name established accept
		%s dport @ports counter name opened accept
		meta l4proto icmp accept
		counter name dropped
	}
}
`, ports.String(), s.to.name, r.protocolName()), "nft", "-f", "-")
	if err != nil {
		return err
	}
	return lenient()
}

// nftBlocked returns what drops by a set where nft can at the earliest behind a device.
func nftBlocked(blocked int) string {
	if blocked == 0 {
		return ""
	}
	return nftSet(blocked, "") + `table ip bench {
	chain early {
		type filter hook prerouting priority raw; policy accept;
		ip saddr @blocked counter drop
	}
}
`
}

func (*nft) remove(*stand) error {
	_, err := command("", "nft", "delete", "table", "ip", "bench")
	forget()
	return err
}

var nftCounter = pattern(`packets (\d+)`)

func (n *nft) counted(_ *stand, f fate) (uint64, bool, error) {
	if n.blocks {
		return 0, false, nil // nft reads a million elements, for half a minute, to show one counter
	}
	name := map[fate]string{dropped: "dropped", opened: "opened", established: "established"}[f]
	out, err := command("", "nft", "list", "counter", "ip", "bench", name)
	if err != nil {
		return 0, true, err
	}
	return number(nftCounter().FindStringSubmatch(out), 1, "nft")
}
