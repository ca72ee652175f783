// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// ErrNoZones is returned for files among which there is nothing of firewalld.
var ErrNoZones = errors.New("nothing of firewalld: name /etc/firewalld, or files of zones below it")

// config is what the files say.
type config struct {
	zones, policies map[string]*node
	services        map[string]*service
	ipsets          map[string]*node
	direct          *node
	settings        map[string]string
	hasSettings     bool
}

var (
	setting = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?m)^\s*(\w+)\s*=\s*(.*?)\s*$`) })
	element = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^\s*(<\?xml[^>]*\?>\s*)?(<!--(?s:.*?)-->\s*)*(<!DOCTYPE[^>]*>\s*)?<(zone|service|ipset|policy|direct)[\s/>]`)
	})
	defaultZone = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?m)^\s*DefaultZone\s*=`) })
)

// Detect reports whether a file belongs to firewalld.
func Detect(data []byte) bool { return element().Match(data) || defaultZone().Match(data) }

// Import translates files into one policy. Of two of the same kind and name the
// later one counts, as what is below /etc does before what is below /usr/lib.
func Import(files []iptables.File, o iptables.Options) (*iptables.Result, error) {
	c, err := read(files)
	if err != nil {
		return nil, err
	}
	l := &lowering{config: c, out: iptables.NewRules("the configuration of firewalld", o)}
	l.lower()
	return l.out.Translate(files)
}

func read(files []iptables.File) (*config, error) {
	c := &config{zones: make(map[string]*node), policies: make(map[string]*node), services: maps.Clone(builtinServices()),
		ipsets: make(map[string]*node), settings: make(map[string]string)}
	found := false
	for _, f := range files {
		name := strings.TrimSuffix(path.Base(f.Name), ".xml")
		if !bytes.HasPrefix(bytes.TrimSpace(f.Data), []byte("<")) {
			if !defaultZone().Match(f.Data) {
				return nil, fmt.Errorf("%s: neither XML of firewalld nor firewalld.conf", f.Name)
			}
			for _, m := range setting().FindAllSubmatch(f.Data, -1) {
				c.settings[string(m[1])] = string(m[2])
			}
			c.hasSettings = true
			found = true
			continue
		}
		n, err := parse(f)
		if err != nil {
			return nil, err
		}
		if err := n.check(); err != nil {
			return nil, err
		}
		switch n.name {
		case "zone":
			c.zones[name], found = n, true
		case "policy":
			c.policies[name] = n
		case "service":
			c.services[name] = parseService(n)
		case "ipset":
			c.ipsets[name] = n
		case "direct":
			c.direct, found = n, true
		default:
			return nil, fmt.Errorf("%s: <%s> is not of firewalld", f.Name, n.name)
		}
	}
	if !found {
		return nil, ErrNoZones
	}
	for name, text := range builtinZones {
		if c.zones[name] == nil {
			n, err := parse(iptables.File{Data: []byte(text)})
			if err != nil {
				return nil, err
			}
			c.zones[name] = n
		}
	}
	return c, nil
}

// lowering says the configuration in chains of iptables.
type lowering struct {
	*config
	out *iptables.Rules
}

// nowhere is a place that no file has.
var nowhere iptables.Position

// everything is the chain that comes behind direct rules.
const everything = "all of firewalld"

// isIptables reports whether direct rules stand in one chain with the others.
func (l *lowering) isIptables() bool {
	return strings.EqualFold(l.settings["FirewallBackend"], "iptables")
}

func (l *lowering) lower() {
	standard := l.settings["DefaultZone"]
	if standard == "" {
		standard = "public"
		if !l.hasSettings {
			l.out.Note(nowhere, "firewalld.conf was not given: the default zone is taken to be public")
		}
	}
	zones := slices.Sorted(maps.Keys(l.zones))
	for _, f := range iptables.Families {
		l.out.SetPolicy(f, "INPUT", "DROP", nowhere)
		l.out.SetPolicy(f, "FORWARD", "DROP", nowhere)
		if !l.isIptables() {
			l.directRules(f, "INPUT")
		}
		l.out.Append(f, "INPUT", nowhere, []string{"-g", everything})
		l.add(f, everything, "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
		l.add(f, everything, "-i lo -j ACCEPT")
		if l.isIptables() {
			l.directRules(f, everything)
		}
		l.add(f, everything, "-m conntrack --ctstate INVALID -j DROP")
		l.add(f, "FORWARD", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
		for _, group := range l.byPriority(zones) {
			for _, kind := range []string{"source", "interface"} {
				for _, name := range group {
					l.dispatch(f, name, kind)
				}
			}
		}
		if l.zones[standard] == nil {
			l.add(f, everything, "-j REJECT")
		} else {
			l.out.Append(f, everything, nowhere, []string{"-g", zoneChain(standard)})
		}
		for _, name := range zones {
			if z := l.zones[name]; name == standard || z.child("interface", "source") != nil {
				l.zone(f, name, z)
			}
		}
	}
	if l.zones[standard] == nil {
		l.out.Lost(nowhere, "there is no file of the default zone, %s: nothing is opened for it", standard)
	}
	l.routed()
	l.out.Note(nowhere, "an interface that NetworkManager has in a zone is not in that zone's file: name it there, or it counts for the default zone, %s", standard)
}

// byPriority are zones in the order in which packets are told apart: by their
// priority, and then by name.
func (l *lowering) byPriority(zones []string) (groups [][]string) {
	of := func(name string) int {
		n, _ := strconv.Atoi(l.zones[name].attr("ingress-priority"))
		return n
	}
	zones = slices.Clone(zones)
	slices.SortStableFunc(zones, func(a, b string) int { return cmp.Compare(of(a), of(b)) })
	for i, name := range zones {
		if i == 0 || of(zones[i-1]) != of(name) {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], name)
	}
	return groups
}

// dispatch leads packets to a zone by its sources, or by its interfaces.
func (l *lowering) dispatch(f iptables.Family, name, kind string) {
	for _, n := range l.zones[name].children {
		switch {
		case n.name != kind:
		case kind == "interface":
			l.out.Append(f, everything, n.at, []string{"-i", n.attr("name"), "-g", zoneChain(name)})
		default:
			if options, doubts, ok := l.source(f, n); ok {
				l.out.Append(f, everything, n.at, append(options, "-g", zoneChain(name)), doubts...)
			}
		}
	}
}

func zoneChain(name string) string { return "zone " + name }

func policyChain(name string) string { return "policy " + name }

// add appends a rule that no file has.
func (l *lowering) add(f iptables.Family, chain, options string) {
	l.out.Append(f, chain, nowhere, strings.Split(options, " "))
}

// zone writes the chain of a zone, which lets no packet go on.
func (l *lowering) zone(f iptables.Family, name string, n *node) {
	chain := zoneChain(name)
	l.out.AddChain(f, chain)
	before, behind := l.policiesOf(name)
	for _, p := range before {
		l.jumpTo(f, chain, p, name)
	}
	l.body(f, chain, n)
	for _, p := range behind {
		l.jumpTo(f, chain, p, name)
	}
	target := n.attr("target")
	inverted := n.child("icmp-block-inversion") != nil
	closes := target == "DROP" || target == "%%REJECT%%" || target == "REJECT"
	icmp := []string{"-p", [...]string{"icmp", "ipv6-icmp"}[f]}
	switch {
	case inverted && !closes:
		l.out.Append(f, chain, n.at, append(icmp, "-j", "REJECT"))
	case !closes && target != "ACCEPT":
		l.out.Append(f, chain, n.at, append(icmp, "-j", "ACCEPT"))
	}
	l.out.Append(f, chain, n.at, []string{"-j", verdictOf(target)})
}

// verdictOf is what a target says of the packets that no rule decides about.
func verdictOf(target string) string {
	switch target {
	case "ACCEPT", "DROP":
		return target
	}
	return "REJECT"
}

// body writes what is in a zone, or a policy, in the order in which firewalld
// has it.
func (l *lowering) body(f iptables.Family, chain string, n *node) {
	inverted := n.child("icmp-block-inversion") != nil
	rules := l.richRules(n)
	each := func(of func(r *node) bool) {
		for _, r := range rules {
			if of(r) {
				l.rich(f, chain, r, inverted)
			}
		}
	}
	each(func(r *node) bool { return priority(r) < 0 })
	each(func(r *node) bool { return priority(r) == 0 && denies(r) })
	if !inverted {
		l.icmpBlocks(f, chain, n, "REJECT")
	}
	each(func(r *node) bool { return priority(r) == 0 && !denies(r) })
	for _, c := range n.children {
		l.opening(f, chain, c)
	}
	if inverted {
		l.icmpBlocks(f, chain, n, "ACCEPT")
	}
	each(func(r *node) bool { return priority(r) > 0 })
}

func (l *lowering) icmpBlocks(f iptables.Family, chain string, n *node, verdict string) {
	for _, c := range n.children {
		if c.name == "icmp-block" {
			if options, ok := icmpOptions(f, c.attr("name")); ok {
				l.out.Append(f, chain, c.at, append(options, "-j", verdict))
			}
		}
	}
}

// opening writes an element that opens something to everybody.
func (l *lowering) opening(f iptables.Family, chain string, n *node) {
	for _, o := range l.opens(f, n) {
		l.out.Append(f, chain, n.at, append(o.options, "-j", "ACCEPT"), o.doubts...)
	}
}

// routed says what is not translated.
func (l *lowering) routed() {
	for _, name := range slices.Sorted(maps.Keys(l.zones)) {
		interfaces := 0
		z := l.zones[name]
		for _, n := range z.children {
			switch n.name {
			case "interface":
				interfaces++
			case "masquerade":
				if z.at.File != "" {
					l.out.Lost(n.at, "masquerading stays with netfilter, and what is routed is not translated: write it under forward")
				}
			case "forward-port":
				l.out.Lost(n.at, "DNAT stays with netfilter, but Portcullis sees packets before it, as those to this host: open \"%s/%s\" to let them in",
					n.attr("port"), n.attr("protocol"))
			case "short", "description", "source", "service", "port", "protocol", "icmp-block", "icmp-block-inversion", "source-port", "rule", "forward":
			default:
				l.out.Lost(n.at, "not understood")
			}
		}
		if interfaces > 1 && z.child("forward") != nil {
			l.out.Lost(z.child("forward").at, "what is routed among the interfaces of zone %s is not translated: write it under forward", name)
		}
	}
}
