// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// bannerNames begin the names that tools which ban addresses give to their tables, chains and sets, in lower case.
var bannerNames = []struct{ prefix, tool string }{
	{"f2b-", "fail2ban"}, {"fail2ban", "fail2ban"},
	{"crowdsec", "CrowdSec"},
	{"sshguard", "sshguard"},
}

// bannerOf returns the tool that bans by something of such a name, or "".
func bannerOf(name string) string {
	name = strings.ToLower(name)
	for _, b := range bannerNames {
		if strings.HasPrefix(name, b.prefix) {
			return b.tool
		}
	}
	return ""
}

// ipsetBanner stands for whoever fills a set of ipset: which one it is the kernel does not tell with the rule.
const ipsetBanner = "a set of ipset"

// part is what a rule of a chain, or a whole chain, does: it filters, bans, both or neither.
type part struct {
	filters bool
	bans    []string // the tools
}

func (p *part) add(o part) {
	p.filters = p.filters || o.filters
	for _, tool := range o.bans {
		if !slices.Contains(p.bans, tool) {
			p.bans = append(p.bans, tool)
		}
	}
}

// numbered is a rule of a base chain.
type numbered struct {
	part
	delete string // the end of the command that takes it out
}

// mostDeletions bounds how many commands are worth typing.
const mostDeletions = 12

// enter lists a chain that a hook calls with what its rules do, unless it lets everything pass.
func (r *Ruleset) enter(f Filter, rules []numbered) {
	var whole part
	for _, rule := range rules {
		whole.add(rule.part)
	}
	f.Bans, f.OnlyBans = whole.bans, !whole.filters && !f.Drops
	if f.OnlyBans && len(f.Bans) == 0 {
		return
	}
	switch {
	case f.OnlyBans:
	case f.Owner == "nft" && !isIdentifier(f.Table, f.Chain): // no command could name it
	case len(f.Bans) > 0 && f.Owner != "ufw": // which takes its own chains out, and no others
		f.Remove = f.removeBut(rules)
	default:
		f.Remove = f.removeAll()
	}
	r.Filters = append(r.Filters, f)
}

// isIdentifier reports whether nft takes the names without quotes.
func isIdentifier(names ...string) bool {
	for _, name := range names {
		if strings.Trim(name, `abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/\.-`) != "" {
			return false
		}
	}
	return true
}

// removeAll returns the commands of whoever has made the chain that make it accept everything.
func (f *Filter) removeAll() (commands []string) {
	switch f.Owner {
	case "ufw":
		return []string{"ufw disable"}
	case "firewalld":
		return []string{"systemctl disable --now firewalld"}
	case "nft":
		return []string{"nft flush chain " + f.nftName(), f.accept()}
	}
	return []string{f.accept(), fmt.Sprintf("%s -F %s", f.tool(), quote.Shell(f.Chain))}
}

// removeBut returns the commands that take out of the chain what filters, and leave what bans; none where both are done
// by one rule, or where there are too many.
func (f *Filter) removeBut(rules []numbered) (commands []string) {
	if f.Owner == "firewalld" {
		return nil
	}
	// From the end: iptables counts rules by their places.
	for _, rule := range slices.Backward(rules) {
		switch {
		case !rule.filters:
		case len(rule.bans) > 0 || len(commands) == mostDeletions:
			return nil
		case f.Owner == "nft":
			commands = append(commands, "nft delete rule "+f.nftName()+" handle "+rule.delete)
		default:
			commands = append(commands, fmt.Sprintf("%s -D %s %s", f.tool(), quote.Shell(f.Chain), rule.delete))
		}
	}
	if f.Drops {
		commands = append(commands, f.accept())
	}
	return commands
}

// accept is the command that sets the chain's policy.
func (f *Filter) accept() string {
	if f.Owner == "nft" {
		return "nft " + quote.Shell("chain "+f.Family+" "+f.Table+" "+f.Chain+" { policy accept; }")
	}
	return fmt.Sprintf("%s -P %s ACCEPT", f.tool(), quote.Shell(f.Chain))
}

func (f *Filter) nftName() string { return quote.ShellWords([]string{f.Family, f.Table, f.Chain}) }

func (f *Filter) tool() string { return quote.Shell(f.Owner) + " -t " + quote.Shell(f.Table) }
