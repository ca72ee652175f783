// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// readLegacy reads the tables of iptables-legacy, which nftables does not list. To ask for one loads it, so only those
// that /proc names are asked for.
func (r *Ruleset) readLegacy() error {
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
			text, err := exec.Command(tool, "-t", table).Output()
			if err != nil {
				return fmt.Errorf("%s: %w", tool, err)
			}
			r.readSaved(strings.TrimSuffix(filepath.Base(tool), "-save"), family.name, string(text))
		}
	}
	return nil
}

// readSaved reads one table as iptables-save prints it.
func (r *Ruleset) readSaved(owner, family, text string) {
	s := saved{policies: map[string]string{}, rules: map[string][][]string{}}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 1 && strings.HasPrefix(line, "*"):
			s.table = fields[0][1:]
		case len(fields) >= 2 && strings.HasPrefix(line, ":"):
			s.policies[fields[0][1:]] = fields[1]
		case len(fields) >= 2 && fields[0] == "-A":
			s.rules[fields[1]] = append(s.rules[fields[1]], fields[2:])
		}
	}
	if s.table == "nat" {
		s.walk("PREROUTING", match{}, r.publish)
		return
	}
	f := Filter{Family: family, Table: s.table, Chain: "INPUT", Owner: owner, Drops: s.policies["INPUT"] == "DROP"}
	if s.drops("INPUT", &f, map[string]bool{}) || f.Drops {
		r.filter(f)
	}
}

// saved is a table: the policy of each chain, and the words of its rules.
type saved struct {
	table    string
	policies map[string]string
	rules    map[string][][]string
}

// option returns the word that follows the option, and whether a ! stands before it.
func option(rule []string, names ...string) (value string, not bool) {
	for i := 0; i+1 < len(rule); i++ {
		if slices.Contains(names, rule[i]) {
			return rule[i+1], i > 0 && rule[i-1] == "!"
		}
	}
	return "", false
}

func (s *saved) drops(chain string, f *Filter, seen map[string]bool) (found bool) {
	if seen[chain] {
		return false
	}
	seen[chain] = true
	if strings.HasPrefix(chain, "ufw") {
		f.Owner = "ufw"
	}
	f.Rules += len(s.rules[chain])
	for _, rule := range s.rules[chain] {
		target, _ := option(rule, "-j", "-g")
		if target == "DROP" || target == "REJECT" || s.drops(target, f, seen) {
			found = true
		}
	}
	return found
}

func (s *saved) walk(chain string, before match, found func(match, string)) {
	for _, rule := range s.rules[chain] {
		m := before
		if name, not := option(rule, "-p"); !not {
			for _, p := range policy.Protocols {
				if p.String() == name {
					m.protocol = p
				}
			}
		}
		if text, not := option(rule, "-d"); text != "" && !not {
			m.destination, _ = netip.ParsePrefix(text)
		}
		if text, not := option(rule, "--dport", "--dports"); text != "" && !not {
			m.ports = savedPorts(text)
		}
		to, _ := option(rule, "--to-destination")
		if redirected, _ := option(rule, "--to-ports"); redirected != "" {
			to = "port " + redirected
		}
		target, _ := option(rule, "-j", "-g")
		switch {
		case target == "DNAT", target == "REDIRECT":
			found(m, to)
		case s.rules[target] != nil:
			s.walk(target, m, found)
		}
	}
}

// savedPorts reads 80, 80:90 and lists of them with commas.
func savedPorts(text string) (out [][2]uint16) {
	for one := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(one, ":")
		if !isRange {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err == nil && err2 == nil {
			out = append(out, [2]uint16{uint16(a), uint16(b)})
		}
	}
	return out
}
