// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// families that see what comes in, as nft writes them.
var families = map[nftables.TableFamily]string{
	nftables.TableFamilyINet:   "inet",
	nftables.TableFamilyIPv4:   "ip",
	nftables.TableFamilyIPv6:   "ip6",
	nftables.TableFamilyNetdev: "netdev",
}

// tables is the ruleset of nftables, iptables-nft's among it, as far as it was asked for.
type tables struct {
	conn   *nftables.Conn
	chains map[key]*nftables.Chain
	rules  map[key][]*nftables.Rule
	sets   map[key][][2]uint16
}

// key is the name of a chain or set.
type key struct {
	family      nftables.TableFamily
	table, name string
}

func keyOf(t *nftables.Table, name string) key { return key{t.Family, t.Name, name} }

func (r *Ruleset) readTables() error {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseLasting() }()
	list, err := conn.ListChains()
	if err != nil {
		return err
	}
	t := &tables{conn, map[key]*nftables.Chain{}, map[key][]*nftables.Rule{}, map[key][][2]uint16{}}
	for _, c := range list {
		t.chains[keyOf(c.Table, c.Name)] = c
	}
	for _, c := range list {
		if c.Hooknum == nil || families[c.Table.Family] == "" {
			continue
		}
		if err := r.readBase(t, c); err != nil {
			return err
		}
	}
	return nil
}

// readBase reads a chain that a hook calls.
func (r *Ruleset) readBase(t *tables, c *nftables.Chain) error {
	early := *c.Hooknum == *nftables.ChainHookPrerouting
	if c.Table.Family == nftables.TableFamilyNetdev {
		early = *c.Hooknum == *nftables.ChainHookIngress
	}
	switch {
	case c.Type == nftables.ChainTypeNAT && early:
		return t.walk(c, match{}, map[key]bool{}, r.publish)
	case c.Type == nftables.ChainTypeFilter && (early || *c.Hooknum == *nftables.ChainHookInput):
		f := Filter{Family: families[c.Table.Family], Table: c.Table.Name, Chain: c.Name, Owner: ownerOf(c)}
		f.Drops = c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		rules, err := t.does(c, &f, map[key]part{})
		if err != nil {
			return err
		}
		r.enter(f, rules)
	}
	return nil
}

// ownerOf names the tool that makes chains of such a name. iptables-nft writes the built-in ones in capitals.
func ownerOf(c *nftables.Chain) string {
	switch {
	case c.Table.Name == "firewalld":
		return "firewalld"
	case c.Name != strings.ToUpper(c.Name):
		return "nft"
	case c.Table.Family == nftables.TableFamilyIPv4:
		return "iptables"
	case c.Table.Family == nftables.TableFamilyIPv6:
		return "ip6tables"
	}
	return "nft"
}

func (t *tables) rulesOf(c *nftables.Chain) ([]*nftables.Rule, error) {
	k := keyOf(c.Table, c.Name)
	if rules, ok := t.rules[k]; ok {
		return rules, nil
	}
	rules, err := t.conn.GetRules(c.Table, c)
	t.rules[k] = rules
	return rules, err
}

// does returns what each rule of the chain does, and counts them and those of the chains that they call.
func (t *tables) does(c *nftables.Chain, f *Filter, known map[key]part) (rules []numbered, err error) {
	if strings.HasPrefix(c.Name, "ufw") {
		f.Owner = "ufw"
	}
	list, err := t.rulesOf(c)
	if err != nil {
		return nil, err
	}
	f.Rules += len(list)
	for i, rule := range list {
		n := numbered{delete: strconv.Itoa(i + 1)}
		if f.Owner == "nft" {
			n.delete = strconv.FormatUint(rule.Handle, 10)
		}
		if n.part, err = t.doesOne(c, rule, f, known); err != nil {
			return nil, err
		}
		rules = append(rules, n)
	}
	return rules, nil
}

// doesOne returns what a rule does. It bans when its table, its set or the chain that it calls has the name of a tool
// that does.
func (t *tables) doesOne(c *nftables.Chain, rule *nftables.Rule, f *Filter, known map[key]part) (p part, err error) {
	banner := cmp.Or(bannerOf(c.Table.Name), bannerOf(c.Name))
	for _, e := range rule.Exprs {
		switch e := e.(type) {
		case *expr.Lookup:
			banner = cmp.Or(banner, bannerOf(e.SetName))
		case *expr.Match:
			if e.Name == "set" {
				banner = cmp.Or(banner, ipsetBanner)
			}
		case *expr.Reject:
			p.filters = true
		case *expr.Target:
			p.filters = p.filters || e.Name == "DROP" || e.Name == "REJECT"
		case *expr.Verdict:
			if tool := bannerOf(e.Chain); tool != "" {
				p.bans = []string{tool}
				continue
			}
			called, err := t.called(keyOf(c.Table, e.Chain), f, known)
			if err != nil {
				return p, err
			}
			p.add(called)
			p.filters = p.filters || e.Kind == expr.VerdictDrop
		}
	}
	if p.filters && banner != "" {
		p = part{bans: []string{banner}}
	}
	return p, nil
}

// called returns what a chain does that a rule calls. Each is read once, however many do.
func (t *tables) called(k key, f *Filter, known map[key]part) (p part, err error) {
	c := t.chains[k]
	if p, ok := known[k]; ok || c == nil {
		return p, nil
	}
	known[k] = part{}
	rules, err := t.does(c, f, known)
	for _, n := range rules {
		p.add(n.part)
	}
	known[k] = p
	return p, err
}

// walk finds the rules that rewrite destinations, with all that a packet had to match on its way there.
func (t *tables) walk(c *nftables.Chain, before match, above map[key]bool, found func(match, string)) error {
	if above[keyOf(c.Table, c.Name)] {
		return nil
	}
	above[keyOf(c.Table, c.Name)] = true
	defer delete(above, keyOf(c.Table, c.Name))
	rules, err := t.rulesOf(c)
	if err != nil {
		return err
	}
	for _, rule := range rules {
		d := decoder{tables: t, table: c.Table, match: before, registers: map[uint32][]byte{}}
		for _, e := range rule.Exprs {
			if err := d.read(e); err != nil {
				return err
			}
		}
		if d.to != "" {
			found(d.match, d.to)
		}
		if next := t.chains[keyOf(c.Table, d.next)]; next != nil {
			if err := t.walk(next, d.match, above, found); err != nil {
				return err
			}
		}
	}
	return nil
}
