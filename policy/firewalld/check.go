// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// attributes are those that elements of firewalld may have. It refuses a file
// with others, which may be what limits a rule.
var attributes = map[string]string{
	"zone":   "name immutable target version ingress-priority egress-priority",
	"policy": "name immutable target version priority",
	"short":  "", "description": "", "interface": "name", "source": "address mac ipset invert not family",
	"destination": "address ipset invert not family ipv4 ipv6",
	"rule":        "family priority ipv table chain",
	"service":     "name version", "port": "port protocol", "protocol": "value", "source-port": "port protocol",
	"icmp-block": "name", "icmp-type": "name", "icmp-block-inversion": "", "forward": "", "masquerade": "enabled",
	"forward-port": "port protocol to-port to-addr",
	"log":          "prefix level", "nflog": "group prefix queue-size", "audit": "type", "limit": "value burst",
	"accept": "", "drop": "", "reject": "type", "mark": "set", "tcp-mss-clamp": "value",
	"ingress-zone": "name", "egress-zone": "name",
	"ipset": "type version", "option": "name value", "entry": "",
	"include": "service", "helper": "name", "module": "name",
	"direct": "", "chain": "ipv table chain", "passthrough": "ipv",
}

// inside are the elements that may stand in some; in those of none nothing may.
var inside = map[string]string{
	"rule": "source destination service port protocol source-port icmp-block icmp-type masquerade forward-port tcp-mss-clamp log nflog audit " +
		"accept reject drop mark",
	"policy": "short description ingress-zone egress-zone service port protocol icmp-block icmp-block-inversion masquerade forward-port " +
		"source-port rule",
	"accept": "limit", "reject": "limit", "drop": "limit", "mark": "limit", "log": "limit", "nflog": "limit", "audit": "limit",
	"source": "", "destination": "", "port": "", "protocol": "", "source-port": "", "icmp-block": "", "icmp-type": "", "interface": "",
	"limit": "", "ipset": "short description option entry",
}

// targets are those of a zone and of a policy.
var targets = map[string][]string{
	"zone":   {"", "default", "{chain}_{zone}", "ACCEPT", "DROP", "REJECT", "%%REJECT%%"},
	"policy": {"", "CONTINUE", "ACCEPT", "DROP", "REJECT"},
}

// check refuses what firewalld does not read as it seems to be meant.
func (n *node) check() error {
	if known, ok := attributes[n.name]; ok {
		for _, a := range n.attrs {
			isSchema := a.Name.Space != "" || strings.HasPrefix(a.Name.Local, "xmlns")
			if !isSchema && !slices.Contains(strings.Fields(known), a.Name.Local) {
				return n.refuse("the attribute %s is not known: leave it out, or write what stands in \"firewall-cmd --list-all\"", a.Name.Local)
			}
		}
	}
	if err := n.checkValues(); err != nil {
		return err
	}
	known, isKnown := inside[n.name]
	for _, c := range n.children {
		if isKnown && !slices.Contains(strings.Fields(known), c.name) {
			return c.refuse("nothing that is known in <%s>: write what firewalld has", n.name)
		}
		if err := c.check(); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) checkValues() error {
	if known := targets[n.name]; known != nil && !slices.Contains(known, n.attr("target")) {
		return n.refuse("%q is no target of a %s: write one of %s", n.attr("target"), n.name, strings.Join(known[1:], ", "))
	}
	for _, name := range []string{"invert", "not"} {
		if v := strings.ToLower(n.attr(name)); !slices.Contains([]string{"", "yes", "no", "true", "false"}, v) {
			return n.refuse("%s is %q: write yes or no", name, n.attr(name))
		}
	}
	for _, name := range []string{"priority", "ingress-priority", "egress-priority"} {
		if v := n.attr(name); v != "" {
			if _, err := strconv.Atoi(v); err != nil {
				return n.refuse("%s is %q: write a number", name, v)
			}
		}
	}
	switch n.name {
	case "rule":
		if v := n.attr("family"); v != "" && v != "ipv4" && v != "ipv6" {
			return n.refuse("family is %q: write ipv4 or ipv6", v)
		}
	case "source":
		if n.attr("address") == "" && n.attr("mac") == "" && n.attr("ipset") == "" {
			return n.refuse("it names no source: write address, mac or ipset")
		}
	case "option":
		v := n.attr("value")
		switch n.attr("name") {
		case "family":
			if v != "" && v != "inet" && v != "inet6" {
				return n.refuse("family is %q: write inet or inet6", v)
			}
		case "timeout", "hashsize", "maxelem":
		default:
			return n.refuse("firewalld has no such option of an ipset: write family, timeout, hashsize or maxelem")
		}
	}
	return nil
}

func (n *node) refuse(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s: %s", n.at.File, n.at.Line, n.at.Text, fmt.Sprintf(format, args...))
}
