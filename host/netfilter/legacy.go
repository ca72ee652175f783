// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// readLegacy reads the tables of iptables-legacy, which nftables does not list. To ask for one loads it, so only those
// that /proc names are asked for.
func (r *Ruleset) readLegacy(ctx context.Context) error {
	for _, family := range []struct{ name, list, tool string }{
		{"ip", "/proc/thread-self/net/ip_tables_names", "iptables"},
		{"ip6", "/proc/thread-self/net/ip6_tables_names", "ip6tables"},
	} {
		names, err := os.ReadFile(family.list)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, table := range strings.Fields(string(names)) {
			if table != "filter" && table != "nat" {
				continue
			}
			tool, err := exec.LookPath(family.tool + "-legacy-save")
			if err != nil {
				tool, err = exec.LookPath(family.tool + "-save") // before iptables-nft there was no other
			}
			if err != nil {
				return errNoTool
			}
			text, err := saveTable(ctx, tool, table)
			if err != nil {
				return err
			}
			r.readSaved(strings.TrimSuffix(filepath.Base(tool), "-save"), family.name, text)
		}
	}
	return nil
}

// saveTime is how long a tool may take: it waits for others that change tables, and a command may wait for it with a lock.
const saveTime = 5 * time.Second

// saveTable returns what iptables-save prints of a table.
func saveTable(ctx context.Context, tool, table string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, saveTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, "-t", table)
	cmd.WaitDelay = time.Second // for what it may have started
	text, err := cmd.Output()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("%s -t %s: %w", tool, table, err)
	}
	return string(text), nil
}

// readSaved reads what iptables-save prints.
func (r *Ruleset) readSaved(owner, family, text string) {
	for _, t := range iptables.Tables(text, family == "ip6") {
		s := saved{t}
		switch t.Name {
		case "nat":
			s.walk("PREROUTING", match{}, map[string]bool{}, r.publish)
		case "filter":
			f := Filter{Family: family, Table: t.Name, Chain: "INPUT", Owner: owner}
			if input := t.Chains[f.Chain]; input != nil {
				f.Drops = input.Policy == "DROP"
				rules := s.rules(f.Chain, &f, map[string]part{})
				r.enter(f, rules)
			}
		}
	}
}

// saved is a table of iptables-legacy.
type saved struct{ *iptables.Table }

// rules returns what each rule of a chain does, and counts them and those of the chains that they call.
func (s saved) rules(name string, f *Filter, known map[string]part) (rules []numbered) {
	chain := s.Chains[name]
	if strings.HasPrefix(name, "ufw") {
		f.Owner = "ufw"
	}
	f.Rules += len(chain.Rules)
	for i, rule := range chain.Rules {
		n := numbered{delete: strconv.Itoa(i + 1)}
		drops := rule.Target == "DROP" || rule.Target == "REJECT"
		switch tool := bannerOf(rule.Target); {
		case tool != "":
			n.bans = []string{tool}
		case drops && len(rule.Sets) > 0:
			n.bans = bannersOf(rule.Sets)
		case drops:
			n.filters = true
		default:
			n.part = s.called(rule.Target, f, known)
		}
		rules = append(rules, n)
	}
	return rules
}

// called returns what a chain does that a rule calls, and nothing for a verdict.
func (s saved) called(name string, f *Filter, known map[string]part) (p part) {
	if p, ok := known[name]; ok || s.Chains[name] == nil {
		return p
	}
	known[name] = part{}
	for _, n := range s.rules(name, f, known) {
		p.add(n.part)
	}
	known[name] = p
	return p
}

func bannersOf(sets []string) (tools []string) {
	for _, set := range sets {
		tool := bannerOf(set)
		if tool == "" {
			tool = ipsetBanner
		}
		tools = append(tools, tool)
	}
	return tools
}

// walk finds the rules that rewrite destinations, with all that a packet had to match on its way there.
func (s saved) walk(name string, before match, above map[string]bool, found func(match, string)) {
	chain := s.Chains[name]
	if chain == nil || above[name] {
		return
	}
	above[name] = true
	defer delete(above, name)
	for _, rule := range chain.Rules {
		m := before
		if rule.Protocol != 0 {
			m.protocol = rule.Protocol
		}
		if rule.Destination.IsValid() {
			m.destination = rule.Destination
		}
		if len(rule.Ports) > 0 {
			m.ports = rule.Ports
		}
		switch to, isPort := strings.CutPrefix(rule.To, ":"); {
		case rule.Target != "DNAT" && rule.Target != "REDIRECT":
			s.walk(rule.Target, m, above, found)
		case isPort:
			found(m, "port "+to)
		case to == "":
			found(m, "this host")
		default:
			found(m, to)
		}
	}
}
