// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/host/netfilter"
	"github.com/portcullis-firewall/portcullis/policy"
)

// forwards tells whether any interface forwards packets.
func (e *examination) forwards() bool {
	for _, family := range []string{"ipv4", "ipv6"} {
		names, _ := fs.Glob(e.files, "proc/sys/net/"+family+"/conf/*/forwarding")
		for _, name := range names {
			if value, ok := e.files.line(name); ok && value != "0" {
				return true
			}
		}
	}
	return false
}

// topology tells what the filter decides otherwise than other devices of this host need.
func (e *examination) topology(sentences []string) {
	for _, s := range sentences {
		e.warn("topology", "%s", s)
	}
	if len(sentences) == 0 {
		e.ok("topology", "no other device stands between the filter and what it needs")
	}
}

// forwarding compares what this host does with the forward policy.
func (e *examination) forwarding(bridges []string) {
	if e.Policy == nil {
		return // the check of the policy tells
	}
	managed := make([]string, len(bridges))
	for i, b := range bridges {
		managed[i] = fmt.Sprintf("%s (%s)", b, managerOf(b))
	}
	switch {
	case !e.forwards():
		e.ok("forward", "this host forwards nothing")
	case e.Policy.Forward == policy.ForwardDrop && len(bridges) > 0:
		e.warn("forward", "\"forward: drop\" cuts off what is behind %s; \"established\" lets it reach out, and only answers come in", strings.Join(managed, ", ")).
			fix(e.setForward()...)
	case e.Policy.Forward == policy.ForwardDrop:
		e.note("forward", "this host forwards, and \"forward: drop\" lets nothing through; \"established\" would let others reach out through it").
			fix(e.setForward()...)
	case e.Policy.Forward == policy.ForwardAccept:
		e.note("forward", "\"forward: accept\" lets everything through to what is behind this host")
	default:
		e.ok("forward", "what is behind this host reaches out, and only answers come in")
	}
}

// setForward writes forward: established into the policy file, and puts it in force.
func (e *examination) setForward() []string {
	const line = "forward: established"
	var edit []string
	text, _ := fs.ReadFile(e.files, strings.TrimPrefix(e.Config, "/"))
	switch {
	case e.BuiltIn:
		rules := make([]string, len(e.Policy.Open))
		for i, r := range e.Policy.Open {
			rules[i] = strconv.Quote(r.String())
		}
		edit = []string{
			"mkdir -p " + path.Dir(e.Config),
			fmt.Sprintf("printf '%%s\\n' '%s' 'open: [%s]' > %s", line, strings.Join(rules, ", "), e.Config),
		}
	case strings.HasPrefix(string(text), "forward:") || strings.Contains(string(text), "\nforward:"):
		edit = []string{fmt.Sprintf("sed -i 's/^forward:[^#]*/%s /' %s", line, e.Config)}
	default:
		edit = []string{fmt.Sprintf("echo '%s' >> %s", line, e.Config)}
	}
	return append(edit, e.portcullis("up --config "+e.Config+" "+strings.Join(e.Interfaces, " ")))
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
		how := "drops some packets"
		if f.Drops {
			how = "drops by default"
		}
		e.warn("netfilter", "%s filters as well: chain %s of table %s %s %s, with %d rules: each packet pays for both, and a port has to be open in both",
			f.Owner, f.Chain, f.Family, f.Table, how, f.Rules).fix(f.Remove...)
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
		if e.files.exists("etc/systemd/system/*.wants/" + name + ".service") {
			e.note("services", "%s puts its rules in force at boot, which then filter as well", name).fix("systemctl disable --now " + name)
		}
	}
	if len(e.checks) == quiet {
		e.ok("services", "no other firewall comes back at boot")
	}
}
