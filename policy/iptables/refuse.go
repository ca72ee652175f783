// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"
	"strings"
)

// withComments marks what a comment says that looks like an option, or like !.
func withComments(args []word) []word {
	out := slices.Clone(args)
	module := false
	for i := 0; i+1 < len(out); i++ {
		switch a, next := out[i], &out[i+1]; {
		case a.hidden || next.hidden:
		case a.text == "-mcomment" || (a.text == "-m" || a.text == "--match") && next.text == "comment":
			module = true
		case a.text != "--comment" || !module:
		case strings.HasPrefix(out[i-1].text, "--") && out[i-1].text != "--syn": // it may be what that takes
		default:
			if next.text == "!" || strings.HasPrefix(next.text, "-") {
				next.text = "'" + next.text
			}
			i++
		}
	}
	return out
}

// unglued separates options from arguments that are written without a blank,
// such as -jDROP, and writes out the short forms of --jump and --goto. It
// reports whether a target is written so, which not every iptables takes.
func unglued(args []word) (out []word, target bool) {
	for _, w := range args {
		a := w.text
		switch {
		case w.hidden || len(a) < 3 || a[0] != '-':
		case strings.HasPrefix(a, "--"):
			option, value, glued := strings.Cut(a, "=")
			target = target || glued && len(option) > 2 && (strings.HasPrefix("--jump", option) || strings.HasPrefix("--goto", option))
			for _, full := range []string{"--jump", "--goto"} {
				if len(option) > 2 && strings.HasPrefix(full, option) && option != full {
					w.text = full
					if glued {
						w.text += "=" + value
					}
				}
			}
		default:
			i := 1
			for i < len(a) && strings.IndexByte("nvx46f", a[i]) >= 0 {
				out = append(out, word{text: "-" + a[i:i+1]})
				i++
			}
			if i == len(a) {
				continue
			}
			out = append(out, word{text: "-" + a[i:i+1]})
			if i+1 < len(a) {
				out = append(out, word{text: a[i+1:]})
				target = target || a[i] == 'j' || a[i] == 'g'
			}
			continue
		}
		out = append(out, w)
	}
	return out, target
}

// targets are those that iptables knows beside chains, as far as they are in use.
var targets = strings.Fields("ACCEPT DROP RETURN QUEUE REJECT LOG NFLOG ULOG MARK CONNMARK CONNSECMARK SECMARK SET TRACE AUDIT CLASSIFY DSCP TOS " +
	"TCPMSS CHECKSUM TTL HL LED IDLETIMER RATEEST TEE NFQUEUE DNAT SNAT MASQUERADE REDIRECT NETMAP NOTRACK CT TPROXY SYNPROXY TARPIT " +
	"CLUSTERIP ECN HMARK DNPT SNPT TCPOPTSTRIP STEAL ECHO DELUDE CHAOS SYSRQ ACCOUNT RAWDNAT RAWSNAT MIRROR BALANCE SAME IPMARK")

// knownMatches are the modules that iptables has.
var knownMatches = strings.Fields("tcp udp udplite sctp dccp icmp icmp6 icmpv6 ipv6-icmp multiport state conntrack comment iprange addrtype recent " +
	"hashlimit limit string set mac owner mark connmark connlimit connbytes connlabel length ttl hl time pkttype physdev rt ah esp statistic u32 " +
	"quota socket helper bpf cgroup tos dscp ecn policy hbh dst frag ipv6header eui64 cluster cpu devgroup nfacct osf realm rateest tcpmss rpfilter " +
	"geoip ipvs srh mh")

// once are the options that a rule may have only once.
var once = map[string]string{"-p": "-p", "--protocol": "-p", "--proto": "-p", "-s": "-s", "--source": "-s", "--src": "-s", "-d": "-d",
	"--destination": "-d", "--dst": "-d", "-i": "-i", "--in-interface": "-i", "-o": "-o", "--out-interface": "-o", "-j": "-j", "--jump": "-j",
	"-g": "-j", "--goto": "-j", "--dport": "--dport", "--destination-port": "--dport", "--dports": "--dports", "--destination-ports": "--dports",
	"--state": "--state", "--ctstate": "--ctstate", "--icmp-type": "--icmp-type"}

// providers are the modules of which one has to stand before an option.
var providers = map[string][]string{
	"--dport": {"tcp", "udp", "sctp", "dccp", "udplite"}, "--sport": {"tcp", "udp", "sctp", "dccp", "udplite"},
	"--destination-port": {"tcp", "udp", "sctp", "dccp", "udplite"}, "--source-port": {"tcp", "udp", "sctp", "dccp", "udplite"},
	"--dports": {"multiport"}, "--sports": {"multiport"}, "--destination-ports": {"multiport"}, "--source-ports": {"multiport"}, "--ports": {"multiport"},
	"--state": {"state"}, "--ctstate": {"conntrack"}, "--src-range": {"iprange"}, "--dst-range": {"iprange"},
	"--dst-type": {"addrtype"}, "--src-type": {"addrtype"}, "--syn": {"tcp"}, "--tcp-flags": {"tcp"},
	"--icmp-type": {"icmp"}, "--icmpv6-type": {"icmp6", "icmpv6", "ipv6-icmp"}, "--comment": {"comment"}, "--limit": {"limit"}, "--mac-source": {"mac"},
	"--match-set": {"set"}, "--uid-owner": {"owner"}, "--string": {"string"},
}

// refuses says why iptables does not take a command of which all is known, or
// nothing if it may.
func (s *ruleset) refuses(f family, c command, args []word) string {
	if !slices.Contains([]string{"A", "I", "R", "D", "C"}, c.verb) || c.table != "filter" {
		return ""
	}
	if c.verb != "C" && c.verb != "D" {
		if why := s.refusesTarget(f, c); why != "" {
			return why
		}
	}
	if c.verb == "D" && c.number > 0 {
		return ""
	}
	seen := make(map[string]bool)
	protocol := -1
	var modules, named []string
	for i := 0; i < len(c.spec); i++ {
		a := c.spec[i].text
		next := ""
		if i+1 < len(c.spec) {
			next = c.spec[i+1].text
		}
		option, value, glued := strings.Cut(a, "=")
		if !strings.HasPrefix(a, "--") {
			option, glued = a, false
		}
		if glued {
			next = value
		}
		if key, ok := once[option]; ok {
			if seen[key] {
				return option + " is there twice"
			}
			seen[key] = true
		}
		negated := i > 0 && c.spec[i-1].text == "!"
		if next == "!" && i+2 < len(c.spec) {
			negated, next = true, c.spec[i+2].text
		}
		switch option {
		case "-s", "--source", "--src", "-d", "--destination", "--dst":
			if negated && strings.Contains(next, ",") {
				return "! takes one address only"
			}
		case "-m", "--match":
			modules = append(modules, next)
			named = append(named, next)
		case "--comment":
			if i+2 < len(c.spec) && !glued && c.spec[i+2].text != "!" && !strings.HasPrefix(c.spec[i+2].text, "-") {
				return "the comment is several words, so they need quotes"
			}
			seen["comment"] = true
		case "-p", "--protocol", "--proto":
			if n, ok := protocolNumber(next); ok {
				modules = append(modules, protocolModules[n]...)
				protocol = n
			} else {
				return "there is no protocol " + next
			}
		case "--dport", "--sport", "--destination-port", "--source-port":
			if strings.Contains(next, ",") {
				return "several ports need -m multiport, and --dports"
			}
		case "--dports", "--sports", "--ports", "--destination-ports", "--source-ports":
			if count := strings.Count(next, ",") + strings.Count(next, ":") + 1; count > 15 {
				return "-m multiport takes 15 ports at most, of which a range is two"
			}
		}
		if need, ok := providers[option]; ok && !slices.ContainsFunc(need, func(m string) bool { return slices.Contains(modules, m) }) {
			return option + " has to stand behind the match that it belongs to"
		}
		for module, prefixes := range needed {
			if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(option, prefix) }) {
				seen[module] = true
			}
		}
	}
	for _, module := range named {
		if needed[module] != nil && !seen[module] {
			return "-m " + module + " needs an option of its own"
		}
		if of, ok := protocolOf[module]; ok && of != protocol {
			return "-m " + module + " needs -p " + module
		}
	}
	return ""
}

// needed are the options of which a module needs one, by how they begin.
var needed = map[string][]string{"state": {"--state"}, "conntrack": {"--ct"}, "multiport": {"--dports", "--sports", "--ports", "--destination-ports", "--source-ports"},
	"iprange": {"--src-range", "--dst-range"}, "addrtype": {"--src-type", "--dst-type"}, "comment": {"--comment"}}

// protocolOf is the protocol that a module is about.
var protocolOf = map[string]int{"tcp": 6, "udp": 17, "sctp": 132, "dccp": 33, "udplite": 136, "icmp": 1, "icmp6": 58, "icmpv6": 58, "ipv6-icmp": 58}

// longestName is that of a chain.
const longestName = 28

// protocolModules are what -p brings with it.
var protocolModules = map[int][]string{6: {"tcp"}, 17: {"udp"}, 132: {"sctp"}, 33: {"dccp"}, 136: {"udplite"}, 1: {"icmp"}, 58: {"icmp6", "icmpv6", "ipv6-icmp"}}

// refusesTarget is about the chain that a rule leads to.
func (s *ruleset) refusesTarget(f family, c command) string {
	r := parseRule(f, place{}, c.spec)
	switch next := s.chains[f][r.target]; {
	case r.target == "" || r.target == "?":
		return ""
	case r.goesTo && next == nil && s.wild[f] == tame, next == nil && s.wild[f] == tame && !slices.Contains(targets, r.target):
		return "there is no chain or target " + r.target
	case next != nil && !next.isUsers():
		return "no rule can lead to " + r.target
	}
	return ""
}
