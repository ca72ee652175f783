// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// draw makes random policies.
type draw struct{ *rand.Rand }

func oneOf[T any](d draw, choices ...T) T { return choices[d.IntN(len(choices))] }

func (d draw) times(one, in int) bool { return d.IntN(in) < one }

var (
	interfaces = []string{"eth0", "eth1", "wg0", "wg7", "wan7", "lan1"}
	patterns   = []string{"eth0", "eth1", "wg7", "wg*", "w*", "*7", "e*0"}
)

// text is a policy file in parts, of which one may be changed.
type text struct {
	input string
	lists map[string][]string
	rules []string
}

func (x text) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "interfaces: [eth0]\ninput: %s\nicmp: drop\nlists:\n", x.input)
	for _, name := range listNames {
		fmt.Fprintf(&b, "  %s: [%s]\n", name, quoted(x.lists[name]))
	}
	b.WriteString("open: [" + quoted(x.rules) + "]\n")
	return b.String()
}

func quoted(texts []string) string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = `"` + t + `"`
	}
	return strings.Join(out, ", ")
}

func (x text) parse() (*policy.Policy, error) { return policy.Parse("policy", []byte(x.String())) }

var listNames = []string{"office", "partners", "vips"}

func (d draw) policy() text {
	x := text{input: d.input(), lists: make(map[string][]string)}
	for _, name := range listNames {
		x.lists[name] = d.prefixes(1 + d.IntN(5))
	}
	for range d.IntN(12) {
		x.rules = append(x.rules, d.rule(x))
	}
	return x
}

// change returns a policy that differs from one, mostly in little.
func (d draw) change(from text) text {
	if d.times(1, 6) {
		return d.policy()
	}
	x := text{from.input, make(map[string][]string), slices.Clone(from.rules)}
	for name, prefixes := range from.lists {
		x.lists[name] = prefixes
	}
	for range 1 + d.IntN(3) {
		switch n := len(x.rules); {
		case d.times(1, 8):
			x.input = d.input()
		case d.times(1, 6):
			name := oneOf(d, listNames...)
			x.lists[name] = d.prefixes(1 + d.IntN(5))
			if _, err := x.parse(); err != nil { // a rule lets nothing in any more
				x.lists[name] = from.lists[name]
			}
		case n > 0 && d.times(1, 2):
			i := d.IntN(n)
			if _, _, limited := strings.Cut(x.rules[i], " limit "); limited && d.times(1, 2) {
				x.relimit(d, i)
				continue
			}
			x.rules = slices.Delete(x.rules, i, i+1)
		default:
			x.rules = append(x.rules, d.rule(x))
		}
	}
	return x
}

// relimit gives a rule another limit, unless there is such a rule.
func (x text) relimit(d draw, i int) {
	before := x.rules[i]
	what, _, _ := strings.Cut(before, " limit ")
	x.rules[i] = what + d.limit()
	if _, err := x.parse(); err != nil {
		x.rules[i] = before
	}
}

func (d draw) input() string {
	words := []string{"drop", "drop", "drop", "drop", "reject", "accept"}
	if d.times(2, 3) {
		return oneOf(d, words...)
	}
	on := []string{"default: " + oneOf(d, words...)}
	for _, i := range d.Perm(len(patterns))[:1+d.IntN(2)] {
		on = append(on, fmt.Sprintf("%q: %s", patterns[i], oneOf(d, words...)))
	}
	return "{" + strings.Join(on, ", ") + "}"
}

// rule returns a rule that can let something in, and that the policy does not have.
func (d draw) rule(in text) string {
	for {
		r := d.what()
		if d.times(1, 3) {
			r += " on " + d.some(2, func() string { return oneOf(d, patterns...) })
		}
		for _, clause := range []string{"from", "except", "to"} {
			if !d.times(2, 5) {
				continue
			}
			r += " " + clause + " "
			if d.times(1, 4) {
				r += "@" + oneOf(d, listNames...)
			} else {
				r += strings.Join(d.prefixes(1+d.IntN(4)), ",")
			}
		}
		if d.times(1, 3) {
			r += d.limit()
		}
		if _, err := (text{"drop", in.lists, append(slices.Clip(in.rules), r)}).parse(); err == nil {
			return r
		}
	}
}

func (d draw) limit() string {
	rate := oneOf(d, "1/minute", "4/minute", "7/minute", "1/hour", "13/hour", "1/day", "9/day")
	return fmt.Sprintf(" limit %s burst %d", rate, 1+d.IntN(mostBurst))
}

// mostBurst is less than the packets of a probe, so that these find out.
const mostBurst = 5

func (d draw) some(most int, one func() string) string {
	var out []string
	for range 1 + d.IntN(most) {
		if next := one(); !slices.Contains(out, next) {
			out = append(out, next)
		}
	}
	return strings.Join(out, ",")
}

// ports are few, so that rules meet.
var ports = []int{1, 2, 3, 20, 21, 22, 80, 443, 1000, 32767, 32768, 65534, 65535}

func (d draw) what() string {
	proto := oneOf(d, "tcp", "tcp", "tcp", "udp", "udp", "sctp", "udplite")
	port := func() int { return oneOf(d, ports...) }
	switch d.IntN(10) {
	case 0:
		return oneOf(d, "http", "ssh", "domain", "https")
	case 1:
		return oneOf(d, "gre", "esp", "ah", "vrrp", "igmp", "ipip", "6in4", "proto/253", "proto/0", "proto/255", "proto/59")
	case 2:
		return "all"
	case 3, 4, 5:
		first, last := port(), port()
		if first > last {
			first, last = last, first
		}
		if first == last {
			return fmt.Sprintf("%d/%s", first, proto)
		}
		return fmt.Sprintf("%d-%d/%s", first, last, proto)
	case 6:
		return d.some(4, func() string { return fmt.Sprint(port()) }) + "/" + proto
	}
	return fmt.Sprintf("%d/%s", port(), proto)
}

// bases are addresses around which networks lie, nested and side by side.
var bases = []netip.Addr{
	netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.0.255"), netip.MustParseAddr("10.128.7.129"),
	netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255"),
	netip.MustParseAddr("2001:db8::"), netip.MustParseAddr("2001:db8::ffff:ffff:ffff:ffff"), netip.MustParseAddr("2001:db8:0:1::1"),
	netip.MustParseAddr("::1"), netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), netip.MustParseAddr("8000::"),
}

func (d draw) prefixes(n int) (out []string) {
	for range n {
		base := oneOf(d, bases...)
		bits := base.BitLen() - d.IntN(12)
		if d.times(1, 2) {
			bits = d.IntN(base.BitLen() + 1)
		}
		p, err := base.Prefix(bits)
		if err != nil {
			panic(err)
		}
		if next := policy.PrefixText(p); !slices.Contains(out, next) {
			out = append(out, next)
		}
	}
	return out
}
