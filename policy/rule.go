// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// Rule opens ports, to everyone or to some sources only. Rules come from
// [ParseRule]; the zero Rule opens nothing.
type Rule struct {
	// Ports is what the rule opens: one range, or one port for each protocol
	// of a service.
	Ports []PortRange
	// From is who may use it. Empty means anyone.
	From []netip.Prefix

	// what is the part of the text that names the ports. The name of a service
	// has to survive: a user who wrote http does not expect 80/tcp back.
	what string
	// was is the text that a rule was kept with if it no longer stands for the
	// ports: see RestoreRule.
	was string
}

// String returns the rule in the one grammar that the policy file, the command
// line and the status output share. [ParseRule] reads it back.
func (r Rule) String() string {
	var b strings.Builder
	b.WriteString(r.what)
	if r.what == "" {
		for i, p := range r.Ports {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(p.String())
		}
	}
	for i, p := range r.From {
		if i == 0 {
			b.WriteString(" from ")
		} else {
			b.WriteByte(',')
		}
		b.WriteString(prefixText(p))
	}
	return b.String()
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
	return len(r.From) == 0 || len(r.From) > 1 && len(canonicalSources(r.From)) == 0
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
	return r.Anyone() || slices.ContainsFunc(r.From, func(from netip.Prefix) bool {
		return !slices.ContainsFunc(unreachableSources, func(of netip.Prefix) bool {
			return of.Bits() <= from.Bits() && of.Contains(from.Addr())
		})
	})
}

// Allows reports whether the rule lets src use the port.
func (r Rule) Allows(proto Protocol, port uint16, src netip.Addr) bool {
	if !r.Covers(proto, port) {
		return false
	}
	if len(r.From) == 0 {
		return true
	}
	src = src.Unmap()
	for _, p := range r.From {
		if p.Contains(src) {
			return true
		}
	}
	return false
}

// Overlaps reports whether there is a source that both rules let use the same
// port.
func (r Rule) Overlaps(o Rule) bool {
	for _, p := range r.Ports {
		for _, q := range o.Ports {
			if p.overlaps(q) {
				return sourcesOverlap(r.From, o.From)
			}
		}
	}
	return false
}

// key is the same for two rules if and only if they are equal.
func (r Rule) key() string { return string(r.Key()) }

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
