// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// Rule opens ports and protocols, to everyone or under conditions. Rules come
// from [ParseRule]; the zero Rule opens nothing.
type Rule struct {
	// Forward says that the rule lets through what is routed, and lets nothing
	// in to this host. On is then where it comes in, and To where it goes.
	Forward bool
	// Ports is what the rule opens: ranges of ports, or protocols that have
	// none, in ranges from 0 to 0.
	Ports []PortRange
	// On names the interfaces on which it counts, or patterns of them, see
	// [MatchInterface]. Empty means all.
	On []string
	// From is who may use it. Empty means anyone.
	From []netip.Prefix
	// Except is who may not, of those in From.
	Except []netip.Prefix
	// To is the addresses of the host at which it counts. Empty means all.
	To []netip.Prefix
	// Limit is how often one source may begin something.
	Limit Limit

	// what is the part of the text that names the ports, where they do not tell.
	// The name of a service has to survive: a user who wrote http does not expect
	// 80/tcp back.
	what string
	// lists are the clauses that name lists, as they are written.
	lists listTexts
	// was is the text that a rule was kept with if it no longer stands for the
	// ports: see RestoreRule.
	was string
}

type listTexts struct{ from, except, to string }

// String returns the rule in the one grammar that the policy file, the command
// line and the status output share. [ParseRule] reads it back.
func (r Rule) String() string {
	var b strings.Builder
	b.WriteString(r.what)
	if r.what == "" {
		b.WriteString(portsText(r.Ports))
	}
	if len(r.On) > 0 {
		b.WriteString(" on " + strings.Join(r.On, ","))
	}
	writePrefixes(&b, " from ", r.From, r.lists.from)
	writePrefixes(&b, " except ", r.Except, r.lists.except)
	writePrefixes(&b, " to ", r.To, r.lists.to)
	if r.Limit.Count > 0 {
		b.WriteString(" limit " + r.Limit.String())
	}
	return b.String()
}

// noun returns what the rule is, for messages.
func (r Rule) noun() string {
	if r.Forward {
		return "forward rule"
	}
	return "rule"
}

// hasClauses reports whether the rule is written as more than what it opens.
func (r Rule) hasClauses() bool {
	return len(r.On) > 0 || !r.everywhere() || r.lists != (listTexts{}) || r.Limit.Count > 0
}

func writePrefixes(b *strings.Builder, keyword string, prefixes []netip.Prefix, text string) {
	if text != "" {
		b.WriteString(keyword + text)
		return
	}
	for i, p := range prefixes {
		if i == 0 {
			b.WriteString(keyword)
		} else {
			b.WriteByte(',')
		}
		b.WriteString(PrefixText(p))
	}
}

// Equal reports whether both rules open the same ports to the same sources,
// however they are written: http equals 80/tcp.
func (r Rule) Equal(o Rule) bool {
	if len(r.Ports) == 1 && len(o.Ports) == 1 && r.Ports[0] != o.Ports[0] {
		return false // of most rules this tells, and costs nothing
	}
	return r.Key() == o.Key()
}

// Anyone reports whether the rule is open to every source. A rule that names
// both 0.0.0.0/0 and ::/0 is.
func (r Rule) Anyone() bool {
	return len(r.Except) == 0 && (len(r.From) == 0 || len(r.From) > 1 && !areApart(r.From) && len(canonicalSources(r.From)) == 0)
}

// Covers reports whether the rule opens the port to at least one source.
func (r Rule) Covers(proto Protocol, port uint16) bool {
	for _, p := range r.Ports {
		if p.contains(proto, port) {
			return true
		}
	}
	return false
}

// Texts returns rules as they are written.
func Texts(rules []Rule) []string {
	out := make([]string, len(rules))
	for i, r := range rules {
		out[i] = r.String()
	}
	return out
}

// unreachableSources are the networks from which no other host can come.
var unreachableSources = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("ff00::/8"),
}

// AllowsOthers reports whether the rule has a source from which another host
// can come: from the loopback, groups and reserved networks nobody does.
func (r Rule) AllowsOthers() bool {
	if len(r.Except) > 0 {
		return !addrset.Within(r.sources(), addrset.Of(unreachableSources))
	}
	return r.Anyone() || slices.ContainsFunc(r.From, func(from netip.Prefix) bool {
		return !slices.ContainsFunc(unreachableSources, func(of netip.Prefix) bool { return prefixWithin(from, of) })
	})
}

// Packet is what a rule looks at in a packet that begins something.
type Packet struct {
	Interface           string
	Protocol            Protocol
	Port                uint16 // 0 for a protocol without ports
	Source, Destination netip.Addr
	Forward             bool // it is routed, and not for this host
}

// Admits reports whether the rule lets a packet in, unless its limit is
// exceeded.
func (r Rule) Admits(p Packet) bool {
	return r.Forward == p.Forward && r.AppliesOn(p.Interface) && r.allows(p.Protocol, p.Port, p.Source) &&
		(len(r.To) == 0 || containsAddress(r.To, p.Destination.Unmap()))
}

// Allows reports whether the rule lets src use the port, on some interface and
// at some address of the host.
func (r Rule) Allows(proto Protocol, port uint16, src netip.Addr) bool {
	return !r.Forward && r.allows(proto, port, src)
}

func (r Rule) allows(proto Protocol, port uint16, src netip.Addr) bool {
	if !r.Covers(proto, port) {
		return false
	}
	src = src.Unmap()
	return (len(r.From) == 0 || containsAddress(r.From, src)) && !containsAddress(r.Except, src)
}

func containsAddress(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// Overlaps reports whether there is a packet that both rules let in.
func (r Rule) Overlaps(o Rule) bool {
	return r.Forward == o.Forward && portsOverlap(r.Ports, o.Ports) && r.onOverlaps(o) && r.reachOverlaps(o)
}

// key is the same for two rules if and only if they are equal.
func (r Rule) key() string { return string(r.Key()) }

// PrefixText returns a prefix in the grammar of a rule: an address alone without its length.
func PrefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
