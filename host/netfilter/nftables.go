// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
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
		return t.walk(c, match{}, r.publish)
	case c.Type == nftables.ChainTypeFilter && (early || *c.Hooknum == *nftables.ChainHookInput):
		f := Filter{Family: families[c.Table.Family], Table: c.Table.Name, Chain: c.Name, Owner: ownerOf(c)}
		f.Drops = c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		drops, err := t.drops(c, &f, map[key]bool{})
		if err == nil && (drops || f.Drops) {
			r.filter(f)
		}
		return err
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

// drops tells whether a rule of the chain, or of those that it calls, drops or rejects, and counts the rules.
func (t *tables) drops(c *nftables.Chain, f *Filter, seen map[key]bool) (found bool, err error) {
	if c == nil || seen[keyOf(c.Table, c.Name)] {
		return false, nil
	}
	seen[keyOf(c.Table, c.Name)] = true
	if strings.HasPrefix(c.Name, "ufw") {
		f.Owner = "ufw"
	}
	rules, err := t.rulesOf(c)
	f.Rules += len(rules)
	for _, rule := range rules {
		for _, e := range rule.Exprs {
			switch e := e.(type) {
			case *expr.Reject:
				found = true
			case *expr.Target:
				found = found || e.Name == "DROP" || e.Name == "REJECT"
			case *expr.Verdict:
				deeper, err := t.drops(t.chains[keyOf(c.Table, e.Chain)], f, seen)
				if err != nil {
					return false, err
				}
				found = found || deeper || e.Kind == expr.VerdictDrop
			}
		}
	}
	return found, err
}

// walk finds the rules that rewrite destinations, with all that a packet had to match on its way there.
func (t *tables) walk(c *nftables.Chain, before match, found func(match, string)) error {
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
			if err := t.walk(next, d.match, found); err != nil {
				return err
			}
		}
	}
	return nil
}
