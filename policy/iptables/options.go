// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"
	"strings"
	"sync"
)

// long are the many names of the options that are understood.
var long = sync.OnceValue(func() map[string]string {
	return map[string]string{
		"--protocol": "-p", "--proto": "-p", "--source": "-s", "--src": "-s", "--destination": "-d", "--dst": "-d",
		"--in-interface": "-i", "--out-interface": "-o", "--jump": "-j", "--goto": "-g", "--match": "-m", "--fragment": "-f",
		"--set-counters": "-c", "--source-port": "--sport", "--source-ports": "--sport", "--sports": "--sport",
		"--destination-port": "--dport", "--destination-ports": "--dport", "--dports": "--dport", "--ctstate": "--state",
		"--icmpv6-type": "--icmp-type",
	}
})

// harmless are modules that narrow nothing by being named; what their options
// mean is read below, or doubted.
var harmless = []string{"tcp", "udp", "udplite", "sctp", "icmp", "icmp6", "icmpv6", "ipv6-icmp", "multiport", "state",
	"conntrack", "comment", "iprange", "addrtype", "recent", "hashlimit", "set", "pkttype"}

// dressing are modules that ask of a packet what its sender may have so or otherwise, whoever it is and whatever it is
// for: what a DROP takes away by them, it takes away from nobody.
var dressing = []string{"rt", "ipv6header", "frag", "hbh", "dst", "ipv4options"}

// ofTargets begin the options of targets, which change no verdict.
var ofTargets = []string{"--log-", "--reject-with", "--nflog-", "--ulog-", "--set-mark", "--set-xmark", "--to-", "--save-mark",
	"--restore-mark", "--nfmark", "--ctmark", "--mask", "--random", "--persistent", "--queue-", "--clamp-mss-to-pmtu", "--set-mss",
	"--notrack", "--helper", "--zone", "--add-set", "--del-set", "--set-dscp", "--set-class", "--type"}

// remembers are the options of -m recent that go with --set, which always
// matches.
var remembers = []string{"--set", "--name", "--rsource", "--rdest", "--mask"}

// unread are the options that are not understood, but that iptables knows.
var unread = strings.Fields("-m --match --sport --sports --source-port --source-ports --ports --src-type --tcp-option --chunk-types --ctproto --ctorigsrc " +
	"--ctorigdst --ctdir --ctstatus --ctexpire --limit-iface-in --limit-iface-out --hashlimit-upto --hashlimit-above --hashlimit-htable-expire " +
	"--hashlimit-mode --hashlimit-srcmask --state --ctstate --dst-type")

// single are the options that take exactly one argument.
var single = []string{"-p", "-s", "-d", "-i", "-o", "-j", "-g", "-m", "--dport", "--icmp-type", "--state", "--src-range", "--dst-range",
	"--dst-type", "--pkt-type"}

// optionParser reads the options of one rule.
type optionParser struct {
	*rule
	rest        []word
	not         bool
	module      string
	recentOther bool // -m recent does more than to remember
	seconds     string
	hits        string
	hash        *hashlimit
	counted     string // what is asked behind -m hashlimit, of packets that it has counted
	known       map[string]*ipset
	ofAll       struct{ rate, burst string } // of -m limit
	ending      bool                         // entries of a set that it asks for end by themselves
	endingNot   bool                         // or of one that it asks against
	nat, natNot bool                         // what NAT has to do with a packet is asked, of which nothing is known
}

// inTurn are the options that are asked in their order among modules.
var inTurn = []string{"--dport", "--syn", "--tcp-flags", "--icmp-type", "--state", "--src-range", "--dst-range", "--dst-type", "--pkt-type",
	"--match-set"}

// parseRule reads what follows -A CHAIN.
func parseRule(home family, at place, spec []word) *rule { return parseRuleWith(home, at, spec, nil) }

func (s *ruleset) parseRule(home family, at place, spec []word) *rule {
	return parseRuleWith(home, at, spec, s.sets)
}

// parseRuleWith reads a rule that may name sets.
func parseRuleWith(home family, at place, spec []word, sets map[string]*ipset) *rule {
	r := &rule{place: at, home: home}
	var texts []string
	for _, w := range spec {
		texts = append(texts, w.text)
	}
	r.spec, r.args = strings.Join(texts, " "), texts
	p := optionParser{rule: r, rest: spec, known: sets}
	for len(p.rest) > 0 {
		p.option()
	}
	for i, text := range texts {
		if (text == "DROP" || text == "REJECT") && r.passes() && (i == 0 || !strings.HasPrefix(texts[i-1], "--") || texts[i-1] == "--syn") {
			p.wrong("", []string{text})
			r.target, p.stray = "?", true
		}
	}
	if p.stray && r.target == "" {
		r.target = "?"
	}
	if p.recentOther {
		r.near = near(p.seconds, p.hits)
		r.doubt("-m recent, which counts what it drops, too,")
	}
	p.limits()
	if r.icmp != nil && r.protocol == nil {
		r.protocol = &test[int]{value: int(icmpProtocol[home])}
	}
	if r.ports != nil {
		switch {
		case r.protocol == nil || r.protocol.not || r.protocol.value < 0:
			r.doubt("ports without a protocol")
		case keysOf(home, uint8(r.protocol.value)).first >= icmpKeys:
			r.doubt("ports of a protocol that is none of tcp, udp, sctp and udplite")
		}
	}
	if p.nat && (r.target == "ACCEPT") == p.natNot {
		r.doubt("--ctstate DNAT or SNAT") // it matches less than is taken, or more
	}
	if p.ending && !r.drops() && !r.passes() || p.endingNot && r.target != "ACCEPT" && !r.passes() {
		r.doubt("a set of which entries end by themselves")
		if p.endingNot {
			r.from, r.to = nil, nil // it is for them, too, when they have ended
		}
	}
	if r.dress != "" && !r.drops() {
		r.doubt("%s", r.dress)
	}
	if l, ok := parseLimit(p.ofAll.rate, p.ofAll.burst); ok && p.ofAll.rate != "" {
		r.ofAll = l
	}
	r.own = len(r.unsure)
	return r
}

// arguments are the words up to the next option; a ! may stand before them.
func (p *optionParser) arguments() (args []word) {
	if len(p.rest) > 1 && p.rest[0].text == "!" && !strings.HasPrefix(p.rest[1].text, "-") {
		p.not, p.rest = !p.not, p.rest[1:]
	}
	for len(p.rest) > 0 && p.rest[0].text != "!" && !(strings.HasPrefix(p.rest[0].text, "-") && !p.rest[0].hidden) {
		args, p.rest = append(args, p.rest[0]), p.rest[1:]
	}
	return args
}

func (p *optionParser) option() {
	name := p.rest[0]
	p.rest = p.rest[1:]
	p.not = false
	if name.text == "!" && len(p.rest) > 0 {
		p.not = true
		name, p.rest = p.rest[0], p.rest[1:]
	}
	if name.hidden {
		p.hides = true
		p.doubt("%s, which only the script knows,", name.text)
		return
	}
	option, value, glued := strings.Cut(name.text, "=")
	if !strings.HasPrefix(option, "--") {
		option, glued = name.text, false
	}
	written := option
	if short, ok := long()[option]; ok {
		option = short
	}
	var args []word
	switch {
	case !slices.Contains(verbatim, option):
		args = p.arguments()
	case !glued && len(p.rest) > 0:
		args, p.rest = p.rest[:1:1], p.rest[1:]
	}
	if glued {
		args = append(wordsOf(value), args...)
	}
	values := make([]string, len(args))
	for i, a := range args {
		if a.hidden {
			if option == "-j" || option == "-g" {
				p.target = "?"
			}
			p.hides = true
			p.doubt("%s %s, which only the script knows,", written, a.text)
			return
		}
		values[i] = a.text
	}
	if slices.Contains(single, option) && len(values) != 1 {
		switch jumps := option == "-j" || option == "-g"; {
		case jumps && len(values) > 0:
			p.target, p.goesTo, p.stray = values[0], option == "-g", true
		case jumps || len(values) > 1:
			p.stray = true
		}
		p.wrong(written, values)
		return
	}
	if !strings.HasPrefix(option, "-") || len(option) == 2 && !strings.Contains("psdijogmfc", option[1:]) {
		p.stray = true
	}
	p.read(option, written, values)
}

func (p *optionParser) wrong(option string, args []string) {
	p.suspect = p.suspect || !slices.Contains(unread, option)
	not := ""
	if p.not {
		not = "! "
	}
	p.doubt("%s%s", not, strings.TrimSpace(option+" "+strings.Join(args, " ")))
}

// read reads one option with its arguments.
func (p *optionParser) read(option, written string, args []string) {
	ok := true
	if p.hash != nil && slices.Contains(inTurn, option) {
		p.counted = written
	}
	switch option {
	case "-p":
		n, known := protocolNumber(args[0])
		p.protocol, ok = &test[int]{n, p.not}, known && !(n < 0 && p.not) && !(p.home == v6 && slices.Contains(extensionHeaders, n))
		if !known {
			p.protocol = nil
		}
	case "-s":
		ok = p.source(parseAddresses, args[0])
	case "--src-range":
		ok = p.source(parseSpan, args[0])
	case "-d":
		p.destination = &test[string]{args[0], p.not}
		ok = p.sentTo(parseAddresses, args[0])
	case "--dst-range":
		ok = p.sentTo(parseSpan, args[0])
	case "-i", "-o":
		ok = possibleInterface(args[0])
		switch {
		case !ok:
		case option == "-i":
			p.in = &test[string]{args[0], p.not}
		default:
			p.out = &test[string]{args[0], p.not}
		}
	case "-j", "-g":
		p.target, p.goesTo = args[0], option == "-g"
	case "-m":
		p.module = args[0]
		switch ok = slices.Contains(harmless, args[0]); {
		case slices.Contains(dressing, args[0]):
			p.dress, ok = "-m "+args[0], true
		case args[0] == "hashlimit" && p.hash == nil:
			p.hash = &hashlimit{}
		case args[0] == "hashlimit":
			p.hash.bad = "that is there twice"
		case args[0] == "limit":
			p.doubt(limitOfAll)
			return
		}
	case "-c", "--comment":
	case "-f":
		// Connection tracking has put all pieces together before.
		p.exactly(p.not)
	case "--dport":
		ports, known := p.parsePorts(args[0])
		if ok = known && p.ports == nil; ok {
			p.ports = &test[[]portRange]{ports, p.not}
		}
	case "--syn":
		ok = p.flags([]string{"SYN,RST,ACK,FIN", "SYN"})
	case "--tcp-flags":
		ok = p.flags(args)
	case "--icmp-type":
		ok = p.icmpType(args[0])
	case "--state":
		p.nat = strings.Contains(strings.ToUpper(args[0]), "NAT")
		p.natNot = p.not
		p.untracked = p.untracked || slices.Contains(strings.Split(strings.ToUpper(args[0]), ","), "UNTRACKED") != p.not
		ok = p.cells(states, args[0])
	case "--pkt-type":
		ok = p.cells(frameTypes, args[0])
	case "--match-set":
		ok = p.matchSet(args)
	case "--dst-type":
		p.asksLocal = true
		ok = p.cells(destinations, args[0])
	default:
		p.unknown(option, written, args)
	}
	if !ok {
		p.wrong(written, args)
	}
}

func (p *optionParser) unknown(option, written string, args []string) {
	if len(args) > 0 {
		switch option {
		case "--to-destination":
			p.sendsTo = args[0]
		case "--to-ports":
			p.sendsTo = ":" + args[0]
		case "--reject-with":
			p.rejectWith = args[0]
		}
	}
	ofTarget := slices.ContainsFunc(ofTargets, func(s string) bool { return strings.HasPrefix(option, s) })
	switch {
	case p.hash != nil && strings.HasPrefix(option, "--hashlimit"):
		if !p.hashlimitOption(option, args) {
			p.wrong(written, args)
		}
	case p.module == "recent" && slices.Contains(remembers, option) && !p.not:
	case p.module == "recent":
		p.recentOther = true
		if len(args) == 1 && option == "--seconds" {
			p.seconds = args[0]
		}
		if len(args) == 1 && option == "--hitcount" {
			p.hits = args[0]
		}
	case p.target != "" && ofTarget:
	case slices.Contains(dressing, p.module) && strings.HasPrefix(option, "--"):
	case p.module == "limit" && !p.not && len(args) == 1 && (option == "--limit" || option == "--limit-burst"):
		if option == "--limit" {
			p.ofAll.rate = args[0]
		} else {
			p.ofAll.burst = args[0]
		}
	case p.module == "limit" || p.module != "" && !slices.Contains(harmless, p.module) && strings.HasPrefix(option, "--"):
		// The module is doubted as a whole.
	default:
		p.wrong(written, args)
	}
}

// extensionHeaders are the protocols that ip6tables passes over to find the one
// of a packet: no rule that names one ever matches.
var extensionHeaders = []int{0, 43, 44, 51, 60}

// possibleInterface reports whether Linux could have a device of that name, or
// with that beginning, and a policy could hold it without quotes.
func possibleInterface(name string) bool {
	plain := strings.TrimSuffix(name, "+")
	return name != "" && len(name) <= 15 && plain != "." && plain != ".." && !strings.ContainsAny(plain, "/:\"'\\+*?%,") &&
		strings.IndexFunc(name, func(c rune) bool { return c <= ' ' || c >= 0x7f }) < 0
}
