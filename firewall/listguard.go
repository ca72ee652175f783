// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// vital is an address by which this host is looked after, or works.
type vital struct {
	addr netip.Addr
	why  string
}

// vitals returns addresses that are not to be blocked: all but those of sessions. With an error it returns those that it
// has found.
func (fw *Firewall) vitals() (out []vital, err error) {
	add := func(addr netip.Addr, why string) { out = append(out, vital{addr.WithZone(""), why}) }
	own, failed := fw.kernel.Addresses()
	if failed != nil {
		err = fmt.Errorf("find the addresses of this host: %w", failed)
	}
	for _, addr := range own {
		add(addr, "an address of this host")
	}
	gateways, sameMAC, failed := fw.kernel.Gateways()
	if failed != nil {
		err = errors.Join(err, fmt.Errorf("find the default gateway: %w", failed))
	}
	for _, addr := range gateways {
		add(addr, "the default gateway")
	}
	for _, addr := range sameMAC {
		add(addr, "at the MAC address of the default gateway")
	}
	for _, addr := range fw.kernel.Resolvers() {
		add(addr, "a resolver of this host")
	}
	return out, err
}

// vitalsAmong is vitals with the sources of ssh sessions, which takes a look at every process: only those that are among
// the addresses that are meant.
func (fw *Firewall) vitalsAmong(among func(netip.Addr) bool) ([]vital, error) {
	out, err := fw.vitals()
	if s, ok := fw.user.Recorded(); ok && among(s.Remote.Addr()) {
		out = append(out, vital{s.Remote.Addr(), "the source of this ssh session"})
	}
	sessions, failed := fw.kernel.SSHSessions(among)
	if failed != nil {
		err = errors.Join(err, fmt.Errorf("find the ssh sessions of this host: %w", failed))
	}
	for _, c := range sessions {
		out = append(out, vital{c.Remote.Addr(), fmt.Sprintf("the source of an ssh session in use, to port %d", c.Local.Port())})
	}
	return out, err
}

// hazard is a network that a policy blocks and had better not.
type hazard struct {
	place   int // in Policy.Block
	source  policy.Source
	network netip.Prefix
	vital   vital // that it holds; none where it is too large to be meant
}

func (h hazard) String() string {
	where := "block has"
	if h.source.List != "" {
		where = fmt.Sprintf("list %s blocks", h.source.List)
	}
	network := policy.PrefixText(h.network)
	switch {
	case !h.vital.addr.IsValid():
		return fmt.Sprintf("%s %s, which is a large part of the internet", where, network)
	case h.network.IsSingleIP():
		return fmt.Sprintf("%s %s, %s", where, network, h.vital.why)
	}
	return fmt.Sprintf("%s %s, which holds %s, %s", where, network, h.vital.addr, h.vital.why)
}

// remedy says what to do instead of what is refused.
func (h hazard) remedy() string {
	if h.vital.addr.IsValid() {
		return fmt.Sprintf("add %s to trust, or use --force", h.vital.addr)
	}
	return "take it out, or use --force"
}

// hazards returns what a policy blocks and had better not, but for what it trusts. With an error there may be more.
func (fw *Firewall) hazards(p *policy.Policy) (out []hazard, err error) {
	if len(p.Block) == 0 {
		return nil, nil
	}
	var trusted []netip.Prefix
	for _, s := range p.Trust {
		trusted = append(trusted, s.Prefixes()...)
	}
	ranges := addrset.Of(trusted)
	held := make([]*policy.Networks, len(p.Block))
	for i, s := range p.Block {
		if held[i] = s.Holds; s.List == "" {
			held[i] = policy.NewNetworks([]netip.Prefix{s.Network})
		}
	}
	blocked := func(addr netip.Addr) bool {
		return !addrset.Holds(ranges, addr) && slices.ContainsFunc(held, func(n *policy.Networks) bool { return len(n.Holding(addr)) > 0 })
	}
	all, err := fw.vitalsAmong(blocked)
	for i, s := range p.Block {
		for _, wide := range held[i].Wide() {
			out = append(out, hazard{place: i, source: s, network: wide})
		}
		for _, v := range all {
			if addrset.Holds(ranges, v.addr) {
				continue
			}
			for _, network := range held[i].Holding(v.addr) {
				if !policy.IsWide(network) {
					out = append(out, hazard{i, s, network, v})
				}
			}
		}
	}
	return out, err
}

// guardLists refuses a policy that blocks what this host lives on.
func (fw *Firewall) guardLists(p *policy.Policy) error {
	found, err := fw.hazards(p)
	if err != nil || len(found) == 0 {
		return err
	}
	more := ""
	if n := len(found) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return fmt.Errorf("%s%s: %s", found[0], more, found[0].remedy())
}

// hazardWarnings returns what is to be said of what a policy blocks, where nobody is refused anything.
func (fw *Firewall) hazardWarnings(p *policy.Policy) []string {
	texts, err := fw.hazardTexts(p)
	return append(texts, warning(err)...)
}

// hazardTexts returns why a policy is refused for what it blocks. With an error there may be more.
func (fw *Firewall) hazardTexts(p *policy.Policy) (out []string, err error) {
	found, err := fw.hazards(p)
	for _, h := range found {
		out = append(out, fmt.Sprintf("%s: %s", h, h.remedy()))
	}
	return foldTexts(out), err
}

// foldTexts returns the first sentences, and how many more there are.
func foldTexts(sentences []string) []string {
	const most = 5
	if len(sentences) <= most {
		return sentences
	}
	return append(sentences[:most:most], fmt.Sprintf("so it is with %d more", len(sentences)-most))
}

// sparing returns a policy that blocks nothing that this host lives on, where nobody can be asked, and says what it leaves
// out. What it is said to block stays the same. With an error it may still block some of that.
func (fw *Firewall) sparing(p *policy.Policy) (spared *policy.Policy, notes []string, err error) {
	found, err := fw.hazards(p)
	if len(found) == 0 {
		return p, nil, err
	}
	p = p.Clone()
	for i := range p.Block {
		var addrs []netip.Addr
		var wide []netip.Prefix
		for _, h := range found {
			switch {
			case h.place != i:
			case h.vital.addr.IsValid():
				addrs = append(addrs, h.vital.addr)
			default:
				wide = append(wide, h.network)
			}
		}
		if len(addrs)+len(wide) == 0 {
			continue
		}
		held := p.Block[i].Holds
		if held == nil {
			held = policy.NewNetworks([]netip.Prefix{p.Block[i].Network})
		}
		p.Block[i].Holds = held.Sparing(addrs, wide)
	}
	for _, h := range found {
		what := policy.PrefixText(h.network)
		if h.vital.addr.IsValid() {
			what = h.vital.addr.String()
		}
		notes = append(notes, fmt.Sprintf("%s: %s is left out; \"portcullis apply --force\" blocks it", h, what))
	}
	return p, foldTexts(notes), err
}

// forcedFile has the stamp of a policy file under which somebody wanted to block what this host lives on.
const forcedFile = "forced-lists"

// recordForced records whether somebody has insisted on blocking what this host lives on.
func (c *change) recordForced(stamp string, force bool, p *policy.Policy) {
	if !c.keeps {
		return
	}
	path := c.fw.store.Path(forcedFile)
	if force {
		if found, err := c.fw.hazards(p); err != nil || len(found) > 0 {
			_ = savefile.SavePrivate(path, []byte(stamp)) // else it is spared
			return
		}
	}
	_ = os.Remove(path) // or there was none
}

// isForced reports whether somebody has insisted on what a policy file blocks.
func (fw *Firewall) isForced(stamp string) bool {
	text, err := os.ReadFile(fw.store.Path(forcedFile))
	return err == nil && string(text) == stamp
}

// blockedVitals returns what a filter blocks that this host lives on.
func (fw *Firewall) blockedVitals(f Filter) (out []string, err error) {
	lists, err := f.BlockLists()
	if err != nil || len(lists) == 0 {
		return nil, err
	}
	by := func(addr netip.Addr) string {
		list, blocked, trusted, failed := f.BlockedBy(addr)
		if err = errors.Join(err, failed); failed != nil || !blocked || trusted {
			return ""
		}
		return list
	}
	all, failed := fw.vitalsAmong(func(addr netip.Addr) bool { return by(addr) != "" })
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	for _, v := range all {
		if list := by(v.addr); list != "" {
			out = append(out, fmt.Sprintf("%s, %s, is blocked by %s", v.addr, v.why, strings.TrimSuffix(list, ":")))
		}
	}
	return out, err
}
