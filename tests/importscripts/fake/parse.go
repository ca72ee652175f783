// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The numbers that commands end with.
const (
	ok      = 0
	missing = 1
	wrong   = 2
)

var long = map[string]string{"--append": "-A", "--insert": "-I", "--delete": "-D", "--replace": "-R", "--check": "-C", "--policy": "-P",
	"--flush": "-F", "--delete-chain": "-X", "--new-chain": "-N", "--rename-chain": "-E", "--list": "-L", "--list-rules": "-S", "--zero": "-Z",
	"--source": "-s", "--protocol": "-p", "--jump": "-j", "--jum": "-j", "--goto": "-g", "--match": "-m", "--in-interface": "-i", "--table": "-t",
	"--destination-port": "--dport", "--destination-ports": "--dports"}

// command is one call.
type command struct {
	verb, chain, policy, table string
	number                     int
	rule                       Rule
	sources                    []string
	modules                    []string
}

// parse reads arguments, as strictly as iptables does for the options that the
// tests draw, and more strictly for others.
func parse(args []string, six bool) (c command, good bool) {
	c.table = "filter"
	var list []string
	for _, a := range args {
		switch {
		case strings.HasPrefix(a, "-j") && len(a) > 2, strings.HasPrefix(a, "--jump="):
			return c, false // of 1.8.9
		case a == "-nL":
			list = append(list, "-n", "-L")
		case strings.HasPrefix(a, "--") && strings.Contains(a, "="):
			option, value, _ := strings.Cut(a, "=")
			list = append(list, option, value)
		case len(a) > 2 && a[0] == '-' && a[1] != '-':
			list = append(list, a[:2], a[2:])
		default:
			list = append(list, a)
		}
	}
	seen := make(map[string]bool)
	not := false
	for i := 0; i < len(list); i++ {
		a := list[i]
		if short, found := long[a]; found {
			a = short
		}
		next := func() (string, bool) {
			if i+1 >= len(list) || strings.HasPrefix(list[i+1], "-") || list[i+1] == "" {
				return "", false
			}
			i++
			return list[i], true
		}
		if not && a != "-s" {
			return c, false
		}
		if seen[a] && strings.Contains(" -s -p -j -g -i --dport --dports --state --ctstate ", " "+a+" ") {
			return c, false
		}
		seen[a] = true
		switch a {
		case "!":
			not = true
			continue
		case "-w":
			if i+1 < len(list) {
				if _, err := strconv.Atoi(list[i+1]); err == nil {
					i++
				}
			}
		case "-n", "-v", "-x", "-4", "-6":
		case "-t":
			if c.table, good = next(); !good {
				return c, false
			}
		case "-A", "-I", "-D", "-R", "-C", "-P", "-F", "-X", "-N", "-E", "-L", "-S", "-Z":
			if c.verb != "" {
				return c, false
			}
			c.verb = a[1:]
			c.chain, good = next()
			if !good && !strings.Contains("FXLSZ", c.verb) {
				return c, false
			}
			if strings.Contains("IDRPE", c.verb) && i+1 < len(list) && !strings.HasPrefix(list[i+1], "-") && list[i+1] != "!" {
				i++
				if c.verb == "P" || c.verb == "E" {
					c.policy = list[i]
				} else if n, err := strconv.Atoi(list[i]); err != nil || n < 1 {
					return c, false
				} else {
					c.number = n
				}
			}
		case "-m":
			module, found := next()
			if !found || !slices.Contains([]string{"tcp", "udp", "multiport", "state", "conntrack", "comment"}, module) {
				return c, false
			}
			c.modules = append(c.modules, module)
		case "-s":
			text, found := next()
			if !found {
				return c, false
			}
			c.rule.NotSource = not
			for _, item := range strings.Split(text, ",") {
				p, err := netip.ParsePrefix(item)
				if a, err2 := netip.ParseAddr(item); err2 == nil {
					p, err = netip.PrefixFrom(a, a.BitLen()), nil
				}
				if err != nil || p.Addr().Is4() == six {
					return c, false
				}
				c.sources = append(c.sources, p.Masked().String())
			}
			if not && len(c.sources) > 1 {
				return c, false
			}
		case "-p":
			if c.rule.Protocol, good = next(); !good || c.rule.Protocol != "tcp" && c.rule.Protocol != "udp" {
				return c, false
			}
			c.modules = append(c.modules, c.rule.Protocol)
		case "--sport":
			text, found := next()
			if !found || c.rule.Protocol == "" || !validPorts(text, false) {
				return c, false
			}
			c.rule.From = text
		case "-i":
			if c.rule.In, good = next(); !good {
				return c, false
			}
		case "--dport", "--dports":
			text, found := next()
			c.rule.Multi = a == "--dports"
			module := c.rule.Protocol
			if c.rule.Multi {
				module = "multiport"
			}
			if !found || module == "" || !slices.Contains(c.modules, module) || c.rule.Protocol == "" || !validPorts(text, c.rule.Multi) || c.rule.Ports != "" {
				return c, false
			}
			c.rule.Ports = text
		case "--state", "--ctstate":
			text, found := next()
			if !found || !slices.Contains(c.modules, map[string]string{"--state": "state", "--ctstate": "conntrack"}[a]) {
				return c, false
			}
			items := strings.Split(text, ",")
			for _, item := range items {
				if !slices.Contains([]string{"NEW", "ESTABLISHED", "RELATED", "INVALID"}, item) {
					return c, false
				}
			}
			slices.Sort(items)
			c.rule.States = a + strings.Join(items, ",")
		case "--comment":
			if c.rule.Comment, good = next(); !good || !slices.Contains(c.modules, "comment") {
				return c, false
			}
		case "--reject-with":
			if _, found := next(); !found || c.rule.Target != "REJECT" {
				return c, false
			}
		case "-j", "-g":
			if c.rule.Target != "" {
				return c, false
			}
			c.rule.GoTo = a == "-g"
			if c.rule.Target, good = next(); !good {
				return c, false
			}
		default:
			return c, false
		}
		not = false
	}
	for _, module := range c.modules {
		switch module {
		case "state", "conntrack":
			good = c.rule.States != ""
		case "multiport":
			good = c.rule.Multi
		case "comment":
			good = c.rule.Comment != ""
		default:
			good = c.rule.Protocol == module
		}
		if !good {
			return c, false
		}
	}
	return c, c.verb != "" && !not
}

func validPorts(text string, multi bool) bool {
	items := strings.Split(text, ",")
	if len(items) > 1 && !multi {
		return false
	}
	count := 0
	for _, item := range items {
		first, last, isRange := strings.Cut(item, ":")
		count++
		if !isRange {
			last = first
		} else {
			count++
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || a > b || multi && isRange && a == b {
			return false
		}
	}
	return count <= 15
}
