// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/portcullis-firewall/portcullis/policy"
)

// word is one argument of a command. A script may hide what it is.
type word struct {
	text   string
	hidden bool
}

// verbatim are the options of which the argument is the next word, whatever it looks like.
var verbatim = []string{"--comment", "--log-prefix", "--nflog-prefix", "--ulog-prefix"}

func wordsOf(texts ...string) []word {
	out := make([]word, len(texts))
	for i, t := range texts {
		out[i] = word{text: t}
	}
	return out
}

// command is what one call of iptables says.
type command struct {
	table  string
	verb   string // the short option: A, I, D, R, P, F, X, N, E, or another that changes nothing
	chain  string
	number int    // of a rule
	policy string // or the new name of -E
	spec   []word
	only   *family // -4, -6
	bad    string  // why it cannot be
	doubt  string  // why it may not be
}

var verbs = sync.OnceValue(func() map[string]string {
	return map[string]string{
		"--append": "-A", "--insert": "-I", "--delete": "-D", "--replace": "-R", "--policy": "-P", "--flush": "-F",
		"--delete-chain": "-X", "--new-chain": "-N", "--new": "-N", "--rename-chain": "-E", "--list": "-L", "--list-rules": "-S",
		"--zero": "-Z", "--check": "-C", "--version": "-V", "--help": "-h",
	}
})

// parseCommand reads the arguments of iptables, or a line of iptables-save.
func parseCommand(args []word) command {
	c := command{table: "filter"}
	take := func(i int) (word, bool) {
		if i < len(args) && args[i].text != "!" && !strings.HasPrefix(args[i].text, "-") {
			return args[i], true
		}
		return word{}, false
	}
	for i := 0; i < len(args); i++ {
		a := args[i].text
		if args[i].hidden {
			c.spec = append(c.spec, args[i])
			continue
		}
		if short, ok := verbs()[a]; ok {
			a = short
		}
		if table, ok := strings.CutPrefix(a, "--table="); ok {
			c.table = table
			continue
		}
		switch a {
		case "-t", "--table":
			w, ok := take(i + 1)
			if !ok || w.hidden {
				c.bad = "which table it is for cannot be told"
			}
			c.table = w.text
			i++
		case "-4", "--ipv4":
			c.only = new(family)
		case "-6", "--ipv6":
			f := v6
			c.only = &f
		case "-w", "--wait", "-W", "--wait-interval":
			if w, ok := take(i + 1); ok && strings.Trim(w.text, "0123456789") == "" && !w.hidden {
				i++
			}
		case "-n", "--numeric", "-v", "--verbose", "-x", "--exact", "--line-numbers":
		case "-A", "-I", "-D", "-R", "-P", "-F", "-X", "-N", "-E", "-L", "-S", "-Z", "-C", "-V", "-h":
			if c.verb != "" {
				c.bad = "two commands in one"
				continue
			}
			c.verb = a[1:]
			if w, ok := take(i + 1); ok {
				c.chain = w.text
				if w.hidden {
					c.bad = "which chain it is about cannot be told"
				}
				i++
			}
			w, ok := take(i + 1)
			switch number, err := numberOf(w.text, 31); {
			case !ok:
			case strings.Contains("IDRLS", c.verb) && err == nil && !w.hidden:
				if c.number = int(number); number < 1 && c.bad == "" {
					c.bad = "rules are numbered from 1"
				}
				i++
			case c.verb == "P" || c.verb == "E":
				c.policy = w.text
				if w.hidden {
					c.bad = "what it sets cannot be told"
				}
				i++
			}
		default:
			c.spec = append(c.spec, args[i])
			// What follows is part of this option, whatever it looks like.
			if _, ok := take(i + 1); ok && strings.HasPrefix(a, "-") || i+1 < len(args) && slices.Contains(verbatim, a) {
				c.spec = append(c.spec, args[i+1])
				i++
			}
		}
	}
	return c
}

// protocols are names of /etc/protocols that rules use.
var protocols = sync.OnceValue(func() map[string]int {
	return map[string]int{"all": -1, "tcp": 6, "udp": 17, "udplite": 136, "sctp": 132, "icmp": 1, "icmpv6": 58, "ipv6-icmp": 58,
		"icmp6": 58, "igmp": 2, "ipip": 4, "ipencap": 4, "gre": 47, "esp": 50, "ipv6-crypt": 50, "ah": 51, "ipv6-auth": 51, "ipv6": 41,
		"ospf": 89, "vrrp": 112, "pim": 103, "dccp": 33, "mh": 135, "ipv6-mh": 135, "l2tp": 115, "ipcomp": 108, "egp": 8, "eigrp": 88}
})

// numberOf reads a number as iptables does: 0x10 is 16, and 010 is 8.
func numberOf(text string, bits int) (uint64, error) {
	switch lower := strings.ToLower(text); {
	case strings.HasPrefix(lower, "0x"):
		return strconv.ParseUint(lower[2:], 16, bits)
	case len(text) > 1 && text[0] == '0':
		return strconv.ParseUint(text[1:], 8, bits)
	}
	return strconv.ParseUint(text, 10, bits)
}

func protocolNumber(text string) (int, bool) {
	text = strings.ToLower(text)
	if n, err := numberOf(text, 8); err == nil {
		if n == 0 {
			return -1, true
		}
		return int(n), true
	}
	n, ok := protocols()[text]
	return n, ok
}

// parsePorts reads a list of ports and ranges; names are those of the policy.
func (r *rule) parsePorts(text string) (ports []portRange, ok bool) {
	for item := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(item, ":")
		if !isRange {
			last = first
		}
		if isRange && first == "" {
			first = "0"
		}
		if isRange && last == "" {
			last = "65535"
		}
		a, ok1 := r.parsePort(first, !isRange)
		b, ok2 := r.parsePort(last, false)
		if !ok1 || !ok2 || a > b {
			return nil, false
		}
		ports = append(ports, portRange{a, b})
	}
	return ports, true
}

func (r *rule) parsePort(text string, remember bool) (uint16, bool) {
	if n, err := numberOf(text, 16); err == nil {
		return uint16(n), true
	}
	if r.protocol == nil || r.protocol.not || text == "" || text[0] >= '0' && text[0] <= '9' { // 080 is no number
		return 0, false
	}
	named, err := policy.ParseRule(text + "/" + policy.Protocol(r.protocol.value).String())
	if err != nil || len(named.Ports) != 1 || named.Ports[0].First != named.Ports[0].Last || len(named.From) > 0 {
		return 0, false
	}
	port := named.Ports[0].First
	if remember {
		if r.names == nil {
			r.names = make(map[uint16]string)
		}
		r.names[port] = strings.ToLower(text)
	}
	return port, true
}
