// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// listMark begins the name of a list in a rule.
const listMark = "@"

// parseAddresses reads what follows from, except or to. Where a list is named,
// text is how the clause is written.
func (in ruleParser) parseAddresses(keyword string, list word) (out []netip.Prefix, text string, bad *RuleError) {
	var texts []string
	hasList, empty := strings.Contains(list.text, listMark), ""
	collect := newPrefixSet(strings.Count(list.text, ",") + 1)
	for item := range list.items() {
		if item.text == "" {
			return nil, "", item.errorf("empty address %s in the list after %s: take the comma out", quote(item.text), quote(keyword))
		}
		if name, ok := strings.CutPrefix(item.text, listMark); ok {
			l, bad := in.list(item, name)
			if bad != nil {
				return nil, "", bad
			}
			if len(l.Networks) == 0 {
				empty = item.text
			}
			if text := listMark + l.Name; !slices.Contains(texts, text) {
				collect.addList(l.Networks)
				texts = append(texts, text)
			}
			continue
		}
		p, bad := parsePrefix(item)
		if bad != nil {
			if slices.ContainsFunc(in.lists, func(l List) bool { return l.Name == item.text }) {
				bad = item.errorf("bad address %s: write %s for the list of that name", quote(item.text), quote(listMark+item.text))
			} else if interfaceNames().MatchString(item.text) {
				bad = item.interfaceSlip(keyword)
			}
			return nil, "", bad
		}
		if collect.add(p) && hasList {
			texts = append(texts, PrefixText(p))
		}
	}
	out = collect.prefixes
	if len(out) == 0 && keyword != "except" {
		return nil, "", list.errorf("list %s is empty, so that the rule would let nothing in: put networks into it, or take the rule out", quote(empty))
	}
	return out, strings.Join(texts, ","), nil
}

// prefixSet collects prefixes in their order, each once.
type prefixSet struct {
	prefixes []netip.Prefix
	seen     map[netip.Prefix]bool // nil for as long as there are few
	whole    bool                  // prefixes is that of a list, which is not to be changed
	size     int                   // how many are expected
}

// fewPrefixes is how many are looked through without a map.
const fewPrefixes = 16

func newPrefixSet(size int) *prefixSet { return &prefixSet{size: size} }

func (s *prefixSet) add(p netip.Prefix) (added bool) {
	s.own()
	if s.has(p) {
		return false
	}
	if s.prefixes == nil {
		s.prefixes = make([]netip.Prefix, 0, s.size)
	}
	s.prefixes = append(s.prefixes, p)
	if s.seen != nil {
		s.seen[p] = true
	}
	return true
}

func (s *prefixSet) has(p netip.Prefix) bool {
	if s.seen == nil && len(s.prefixes) <= fewPrefixes {
		return slices.Contains(s.prefixes, p)
	}
	if s.seen == nil {
		s.seen = make(map[netip.Prefix]bool, max(s.size, len(s.prefixes)))
		for _, have := range s.prefixes {
			s.seen[have] = true
		}
	}
	return s.seen[p]
}

// addList adds the networks of a list. They are shared as long as there is
// nothing else: many rules may name one long list.
func (s *prefixSet) addList(networks []netip.Prefix) {
	if len(s.prefixes) == 0 {
		s.prefixes, s.whole = networks, true
		return
	}
	for _, p := range networks {
		s.add(p)
	}
}

func (s *prefixSet) own() {
	if !s.whole {
		return
	}
	s.whole = false
	s.prefixes = slices.Clone(s.prefixes)
}

// isListText reports whether text may be what [parseAddresses] returns for a
// clause with a list.
func isListText(text string) bool {
	named := false
	for item := range strings.SplitSeq(text, ",") {
		if name, ok := strings.CutPrefix(item, listMark); ok && validListName(name) {
			named = true
			continue
		}
		if _, bad := parsePrefix(word{text: item}); bad != nil {
			return false
		}
	}
	return named
}

func joinPrefixes(prefixes []netip.Prefix) string {
	const most = 10 // quote cuts what is longer
	texts := make([]string, min(len(prefixes), most))
	for i := range texts {
		texts[i] = PrefixText(prefixes[i])
	}
	return strings.Join(texts, ",")
}

func parsePrefix(w word) (netip.Prefix, *RuleError) {
	address, mask, isNet := strings.Cut(w.text, "/")
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, w.errorf("bad address %s: %s", quote(w.text), cmp.Or(addressSlip(w.text), "write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32"))
	}
	if addr.Zone() != "" {
		return netip.Prefix{}, w.errorf("address %s names a zone: leave %s out", quote(w.text), quote("%"+addr.Zone()))
	}
	bits := addr.BitLen()
	if isNet {
		if m, err := netip.ParseAddr(mask); err == nil && m.Is4() && addr.Is4() {
			if n, ok := maskLength(m); ok {
				return netip.Prefix{}, w.errorf("network %s with a netmask: write %s", quote(w.text),
					netip.PrefixFrom(addr, n).Masked())
			}
		}
		p, err := netip.ParsePrefix(address + "/" + mask)
		if err != nil {
			return netip.Prefix{}, w.errorf("bad prefix length in %s: write a number from 0 to %d after the slash", quote(w.text), bits)
		}
		bits = p.Bits()
	}
	if addr.Is4In6() && bits >= 96 {
		v4 := netip.PrefixFrom(addr.Unmap(), bits-96).Masked()
		return netip.Prefix{}, w.errorf("address %s is IPv4 written as IPv6: write %s", quote(w.text), PrefixText(v4))
	}
	p := netip.PrefixFrom(addr, bits)
	if p.Masked() != p {
		return netip.Prefix{}, w.errorf("network %s has host bits set: write %s, or %s for one host", quote(w.text), p.Masked(), addr)
	}
	return p, nil
}

func maskLength(m netip.Addr) (int, bool) {
	for n := range 33 {
		all := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), n)
		if all.Masked().Addr() == m {
			return n, true
		}
	}
	return 0, false
}
