// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// importRules imports what stands in a chain of input that lets in answers and else drops.
func importRules(t *testing.T, keep bool, rules string, more ...string) *iptables.Result {
	t.Helper()
	text := "table inet t {\n" + strings.Join(more, "\n") + "\nchain in { type filter hook input priority 0; policy drop; ct state established,related accept\n" + rules + "\n}\n}\n"
	r, err := Import([]iptables.File{{Name: "f", Data: []byte(text)}}, iptables.Options{Keep: keep}, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return r
}

// Each case is what stands behind the rule for answers, what that opens, and whether something is lost, or stays in netfilter.
func TestRules(t *testing.T) {
	const meter = "set m { type ipv4_addr; size 65535; flags dynamic; }"
	for _, c := range []struct{ name, rules, open, lost, more string }{
		{"a port", "tcp dport 22 accept", "22/tcp", "", ""},
		{"by name", "tcp dport ssh accept", "ssh", "", ""},
		{"a set", "tcp dport { 22, 80-81, https } accept", "22,80-81,443/tcp", "", ""},
		{"a set of numbers and names", "tcp dport {22,smtp} accept", "22,25/tcp", "", ""},
		{"not", "udp dport != { 1-65000, 65535 } accept", "65001-65534/udp", "", ""},
		{"above", "tcp dport > 65533 accept", "65534-65535/tcp", "", ""},
		{"both transports", "meta l4proto { tcp, udp } th dport 53 accept", "53/tcp|53/udp", "", ""},
		{"raw payload", "meta l4proto udp @th,16,16 53 accept", "53/udp", "", ""},
		{"ports of whatever protocol", "th dport 53 accept", "", "lost", ""},
		{"a source", "ip saddr 10.0.0.0/8 tcp dport 22 accept", "22/tcp from 10.0.0.0/8", "", ""},
		{"a range", "ip saddr 10.0.0.4-10.0.0.7 tcp dport 22 accept", "22/tcp from 10.0.0.4/30", "", ""},
		{"a range with blanks", "ip saddr 10.0.0.4 - 10.0.0.7 tcp dport 22 accept", "22/tcp from 10.0.0.4/30", "", ""},
		{"a mask", "ip saddr & 255.255.0.0 == 10.1.0.0 tcp dport 22 accept", "22/tcp from 10.1.0.0/16", "", ""},
		{"a mask with holes", "ip saddr & 255.0.255.0 == 10.0.1.0 tcp dport 22 accept", "", "lost", ""},
		{"IPv6", "ip6 saddr { fe80::/10, 2001:db8::1 } tcp dport 22 accept", "22/tcp from 2001:db8::1,fe80::/10", "", ""},
		{"one address twice", "ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 tcp dport 22 accept", "22/tcp from 10.0.0.0/8 except 10.1.0.0/16", "", ""},
		{"of one family", "meta nfproto ipv6 tcp dport 22 accept", "22/tcp from ::/0", "", ""},
		{"two fields", "ip saddr . tcp dport { 10.0.0.1 . 22, 10.0.0.2 . 80-81 } accept", "22/tcp from 10.0.0.1|80-81/tcp from 10.0.0.2", "", ""},
		{"a named set", "ip saddr @s tcp dport 22 accept", "22/tcp from 10.0.0.0/8", "", "set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }"},
		{"a set that is not there", "ip saddr @s tcp dport 22 accept", "", "lost", ""},
		{"an empty set", "ip saddr @s drop\ntcp dport 22 accept", "22/tcp", "", "set s { type ipv4_addr; }"},
		{"an empty set that lets in", "ip saddr @s tcp dport 22 accept", "", "", "set s { type ipv4_addr; }"},
		{"a set that changes", "ip saddr @s tcp dport 22 accept", "", "lost", "set s { type ipv4_addr; flags timeout; elements = { 10.0.0.1 timeout 1h } }"},
		{"a set that changes, and drops", "ip saddr @s drop\ntcp dport 22 accept", "22/tcp", "stays", "set s { type ipv4_addr; timeout 1h; }"},
		{"a verdict map", "tcp dport vmap { 22 : accept, 23 : drop, 80 : jump web }\ntcp dport 22-80 accept", "22,24-80/tcp", "", "chain web { ip saddr 10.0.0.0/8 accept; }"},
		{"a verdict map without blanks", "tcp dport vmap {22:accept,80:drop}", "22/tcp", "", ""},
		{"a verdict map by name", "tcp dport vmap @m", "22/tcp", "", "map m { type inet_service : verdict; elements = { 22 : accept } }"},
		{"a verdict map for all else", "tcp dport vmap { 22 : drop, * : accept }\n", "1-21,23-65535/tcp|1-65535/udp|1-65535/sctp|1-65535/udplite", "lost", ""},
		{"a verdict map of what is not known", "numgen random mod 2 vmap { 0 : accept, 1 : drop }\ntcp dport 22 accept", "", "lost", ""},
		{"not some interfaces", `iifname != { "eth0", "eth1" } drop` + "\ntcp dport 22 accept", "22/tcp", "", ""},
		{"not some protocols", "meta l4proto != { tcp, udp } drop\ntcp dport 22 accept\nmeta l4proto esp accept", "22/tcp", "", ""},
		{"a limit", "tcp dport 22 ct state new add @m { ip saddr limit rate over 6/minute burst 8 packets } drop\ntcp dport 22 accept", "22/tcp from ::/0|22/tcp from 0.0.0.0/0 limit 6/minute burst 8", "", meter},
		{"a limit that lets in", "tcp dport 22 ct state new meter x { ip saddr limit rate 6/minute } accept", "22/tcp from 0.0.0.0/0 limit 6/minute", "", ""},
		{"a limit that counts more", "meter x { ip saddr limit rate 6/minute } tcp dport 22 accept", "", "lost", ""},
		{"a limit of all together", "tcp dport 22 limit rate 6/minute accept", "", "lost", ""},
		{"a limit of destinations", "tcp dport 22 meter x { ip daddr limit rate 6/minute } accept", "", "lost", ""},
		{"what is over a limit of all", "limit rate over 100/second drop\ntcp dport 22 accept", "22/tcp", "stays", ""},
		{"connections", "tcp dport 22 ct count over 10 reject\ntcp dport 22 accept", "22/tcp", "stays", ""},
		{"what is not known", "tcp dport 22 tcp option maxseg size 1-500 drop\ntcp dport 22 accept", "22/tcp", "stays", ""},
		{"what is not known, and lets in", "socket transparent 1 tcp dport 22 accept", "", "lost", ""},
		{"a verdict that is none", "ip saddr 10.0.0.1 dorp\nip saddr 10.0.0.2 DROP\nip saddr 10.0.0.3 counter dropp\nip saddr 10.0.0.4 rejct with tcp reset\ntcp dport 22 accept", "22/tcp except 10.0.0.1,10.0.0.2/31,10.0.0.4", "lost", ""},
		{"a verdict that is none, and is a target of iptables", "ip saddr 10.0.0.1 ACCEPT\ntcp dport 22 MARK\ntcp dport 23 accept", "23/tcp except 10.0.0.1", "lost", ""},
		{"a limit without its number", "limit rate over 5/second burst drop\ntcp dport 22 limit rate over 5/ drop\ntcp dport 22 limit rate over 5/second burst 5 drop\ntcp dport 22 accept", "22/tcp", "stays", ""},
		{"a copy, and a word", "tcp dport 22 dup to 10.0.0.1 device \"eth0\"\ntcp dport 23 dup to 10.0.0.1 dorp\ntcp dport 22-23 accept", "22/tcp", "lost", ""},
		{"words behind a verdict", "tcp dport 22 accept frob\ntcp dport 23 accept drop\ntcp dport 24 accept comment \"x\"", "24/tcp", "lost", ""},
		{"a verdict in place of a value", "tcp dport 22 meta mark drop\ntcp dport 22 log prefix drop\ntcp dport 22 counter packets 1 drop\ntcp dport 22-23 accept", "22-23/tcp", "stays", ""},
		{"a mark from another, and a verdict", "tcp dport 22 meta mark set ct mark drop\ntcp dport 22-23 accept", "23/tcp", "", ""},
		{"statements that change what goes by", "tcp flags syn tcp option maxseg size set rt mtu\nip dscp set cs1\nct helper set \"ftp\"\nmeta mark set meta mark & 0xff | 0x1\nct mark set ip dscp map { 1 : 2 }\nmeta secmark set ct secmark\ntcp dport 22 accept", "22/tcp", "", ""},
		{"a statement that changes something, and a word", "meta mark set 1 dorp\ntcp dport 22 accept", "", "lost", ""},
		{"any interface by name", `iifname "*" tcp dport 22 accept` + "\n" + `iifname "e*h" tcp dport 22 accept`, "", "lost", ""},
		{"an element and a word", "tcp dport { 22 dorp } drop\ntcp dport { 22 80 } accept\ntcp dport 23 accept", "23/tcp", "lost", ""},
		{"entries of a verdict map for the same", "tcp dport vmap { 60-70 : accept, 65 : drop }\ntcp dport 22 accept", "", "lost", ""},
		{"networks of a verdict map for the same", "ip saddr vmap { 10.0.0.0/8 : accept, 10.1.0.0/16 : drop }\ntcp dport 22 accept", "22/tcp from ::/0", "lost", ""},
		{"an entry twice", `iifname . tcp dport vmap { "a" . 1 : accept, "a" . 1 : drop }` + "\ntcp dport 22 accept", "", "lost", ""},
		{"entries side by side", "tcp dport vmap { 60-64 : accept, 65 : drop, 66-70 : accept }\ntcp dport 22 accept", "60-64/tcp|66-70/tcp|22/tcp", "", ""},
		{"what comes behind what is not known", "tcp dport 22 frob 7 wibble accept", "", "lost", ""},
		{"pieces", "ip frag-off & 0x1fff != 0 drop\ntcp dport 22 accept", "22/tcp", "", ""},
		{"bogus flags", "tcp flags & (fin|syn) == (fin|syn) drop\ntcp flags & (fin | syn | rst | psh | ack | urg) == 0x0 drop\ntcp flags syn / fin,syn,rst,ack tcp dport 22 accept", "22/tcp", "", ""},
		{"no SYN, in one number", "ct state new tcp flags != syn drop\ntcp dport 22 accept", "22/tcp", "stays", ""},
		{"states with a comma, denied", "ct state != established,related accept", "", "lost", ""},
		{"frames", "meta pkttype { broadcast, multicast } drop\ntcp dport 22 accept", "22/tcp", "", ""},
		{"what local addresses are", "fib daddr type != local drop\ntcp dport 22 accept", "22/tcp", "", ""},
		{"a reject for IPv4 alone", "reject with icmp type host-prohibited\ntcp dport 22 accept", "22/tcp from ::/0", "", ""},
		{"a queue", "tcp dport 22 queue num 1\ntcp dport 22 accept", "22/tcp", "stays", ""},
		{"a part that iptables-nft hides", "tcp dport 22 # xt_recent counter packets 0 bytes 0\ntcp dport 22 accept", "", "lost", ""},
		{"a target of iptables", "tcp dport 22 counter packets 0 bytes 0 xt target \"TARPIT\"\ntcp dport 22 accept", "", "lost", ""},
		{"a synproxy", "tcp dport 80 ct state new synproxy mss 1460 wscale 7\ntcp dport 80 accept", "", "lost", ""},
		{"any type of ICMP but one", "icmp type != echo-request accept", "", "lost", ""},
		{"marks", "meta mark set 0x1 ct mark set mark\ntcp dport 22 meta mark set 7 accept", "22/tcp", "", ""},
		{"logged", `tcp dport 22 log prefix "ssh: " level info flags all counter accept comment "a; b { c"`, "22/tcp", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := importRules(t, true, c.rules, c.more)
			var open []string
			for _, rule := range r.Policy.Open {
				open = append(open, rule.String())
			}
			if got := strings.Join(open, "|"); got != c.open {
				t.Errorf("opens %q, want %q", got, c.open)
			}
			got := ""
			switch {
			case len(r.Untranslated) > 0:
				got = "lost"
			case len(r.Stays) > 0:
				got = "stays"
			}
			if got != c.lost {
				t.Errorf("is %q, want %q: %v %v", got, c.lost, r.Untranslated, r.Stays)
			}
		})
	}
}

// A chain that both hooks lead to, each with another table behind, is one of each hook.
func TestAChainOfTwoHooks(t *testing.T) {
	const text = `table inet a {
	chain both { tcp dport { 22, 80 } accept; }
	chain in { type filter hook input priority 0; policy drop; ct state established,related accept; jump both; }
	chain through { type filter hook forward priority 0; policy drop; ct state established,related accept; jump both; }
}
table inet b {
	chain in { type filter hook input priority 5; policy drop; ct state established,related accept; tcp dport 22 accept; tcp dport 1 accept; tcp dport 2 accept; }
	chain through { type filter hook forward priority 5; policy drop; ct state established,related accept; tcp dport 80 accept; }
}
`
	r, err := Import([]iptables.File{{Name: "f", Data: []byte(text)}}, iptables.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(r.Policy.InputRules(), r.Policy.ForwardRules()), "[22/tcp] [80/tcp]"; got != want {
		t.Errorf("opens %s, want %s", got, want)
	}
}

// With --strict what another program drops counts, and what it may drop is not opened.
func TestTablesOfOthers(t *testing.T) {
	const ban = "table inet f2b-table { set a { type ipv4_addr; flags timeout; }\nchain b { type filter hook input priority -1; tcp dport 22 ip saddr @a reject; } }\n"
	const own = "table inet t { chain in { type filter hook input priority 0; policy drop; ct state established,related accept\ntcp dport 22-23 accept; } }\n"
	for keep, want := range map[bool]string{true: "[22-23/tcp]", false: "[23/tcp from 0.0.0.0/0 22-23/tcp from ::/0]"} {
		r, err := Import([]iptables.File{{Name: "f", Data: []byte(ban + own)}}, iptables.Options{Keep: keep}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(r.Policy.Open); got != want || keep == (len(r.Untranslated) > 0) {
			t.Errorf("keep %t: opens %s, want %s: %v", keep, got, want, r.Untranslated)
		}
	}
}

// A hundred thousand addresses become a list, in less than a second.
func TestLargeSet(t *testing.T) {
	var b strings.Builder
	b.WriteString("set bad { type ipv4_addr; flags interval; elements = { ")
	for i := range 100_000 {
		fmt.Fprintf(&b, "%d.%d.%d.%d, ", 20+i%70, i/70%250, i/17_500, 2*(i%100))
	}
	b.WriteString("} }")
	r := importRules(t, true, "ip saddr @bad drop\ntcp dport 22 accept", b.String())
	if got, want := r.Summary(), "opens 22/tcp to all; forwards everything; blocks 100000 networks"; got != want {
		t.Errorf("the policy %s, want %s", got, want)
	}
}

// What nft refuses in the head of a chain is refused, and not taken for accept.
func TestHeadsThatNftRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"type filter hook input priority 0; policy dorp;":               `f:1: "dorp" is no policy of a chain: write accept or drop`,
		"type filter hook input priority 0 policy drop;":                `f:1: "policy" is not understood behind the type of a chain: write a semicolon`,
		"type filter hook input priority 0; policy drop tcp dport 22":   `f:1: "tcp" is too much behind a policy`,
		"type filtr hook input priority 0;":                             `f:1: "filtr" is no type of a chain`,
		"type filter hook inptu priority 0;":                            `f:1: "inptu" is no hook`,
		"type filter hook input priority flter;":                        `f:1: "flter" is no priority`,
		"type filter hook input priority":                               `f:1: "" is no priority`,
		"type filter priority 0;":                                       `f:1: chain c has a type and no hook`,
		"type filter hook input device \"eth0\" priority filter - 10;":  "",
		"type filter hook input priority filter + 10; policy accept":    "",
		"type filter hook ingress devices = { a, b } priority mangle-1": ErrNoRules.Error(),
	} {
		_, err := Import([]iptables.File{{Name: "f", Data: []byte("table inet t { chain c { " + text + "\n} }")}}, iptables.Options{}, nil)
		if got := fmt.Sprint(err); want == "" && err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s: gives %v, want %s", text, err, want)
		}
	}
}

// What netfilter drops at hooks of which nothing is translated is listed.
func TestDropsAtOtherHooks(t *testing.T) {
	const in = "table inet a { chain i { type filter hook input priority 0; policy drop; iif lo accept; ct state established,related accept; tcp dport 22 accept; } }\n"
	for text, want := range map[string]int{
		"table inet b { chain p { type filter hook prerouting priority -300; tcp dport 22 drop; ip saddr 1.1.1.1 drop; } }":           2,
		"table inet b { chain d { drop; }\nchain p { type filter hook prerouting priority -300; tcp dport 22 jump d; } }":             1,
		"table inet b { chain p { type filter hook prerouting priority -300; ip saddr vmap { 1.1.1.1 : drop }; } }":                   1,
		"table inet b { chain p { type filter hook prerouting priority -300; iif lo drop; iifname lo tcp dport 1 drop; } }":           0,
		"table inet b { chain p { type filter hook prerouting priority -300; meta mark set 1; counter; accept; } }":                   0,
		"table inet b { chain p { type filter hook ingress device \"eth0\" priority 0; ip saddr 1.1.1.1 drop; } }":                    1,
		"table inet b { chain p { type nat hook input priority 100; ip saddr 1.1.1.1 drop; } }":                                       1,
		"table inet b { chain p { type filter hook postrouting priority 100; ip saddr 1.1.1.1 drop; } }":                              0,
		"table netdev b { chain p { type filter hook ingress device eth0 priority -500; policy drop; tcp dport 22 accept; } }":        1,
		"table netdev b { chain p { type filter hook egress device eth0 priority -500; policy drop; } }":                              0,
		"table bridge b { chain p { type filter hook input priority 0; policy drop; } }":                                              1,
		"table arp b { chain p { type filter hook input priority 0; policy drop; } }":                                                 0,
		"table inet b { chain p { type filter hook prerouting priority -300; ip saddr 1.1.1.1 dorp; tcp dport 22 jump { drop; }; } }": 2,
	} {
		r, err := Import([]iptables.File{{Name: "f", Data: []byte(in + text)}}, iptables.Options{Keep: true}, nil)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := fmt.Sprint(r.Policy.Open); got != "[22/tcp]" || len(r.Untranslated) != want {
			t.Errorf("%s: opens %s and lists %v, want %d", text, got, r.Untranslated, want)
		}
	}
}

// What is not tracked is dropped where a rule asks for it, and is not opened behind.
func TestUntracked(t *testing.T) {
	const raw = "table inet r { chain p { type filter hook prerouting priority raw; tcp dport 22 notrack; ip saddr 10.0.0.0/8 udp dport 53 notrack; } }\n"
	for rules, want := range map[string]string{
		"ct state invalid,untracked drop; tcp dport { 22, 23 } accept; udp dport 53 accept": "[23/tcp 53/udp except 10.0.0.0/8]",
		"ct state vmap { invalid : drop, untracked : drop }; tcp dport { 22, 23 } accept":   "[23/tcp]",
		"ct state untracked jump d; tcp dport { 22, 23 } accept":                            "[23/tcp]",
		"ct state != { established, related, new } drop; tcp dport { 22, 23 } accept":       "[23/tcp]",
		"ip saddr 10.0.0.0/8 ct state untracked drop; tcp dport { 22, 23 } accept":          "[22/tcp except 10.0.0.0/8 23/tcp]",
		"tcp dport { 22, 23 } accept; ct state untracked drop":                              "[22-23/tcp]",
		"ct state established,related,untracked accept; tcp dport { 22, 23 } accept":        "[22-23/tcp]",
	} {
		text := raw + "table inet t { chain d { drop; }\nchain i { type filter hook input priority 0; policy drop; ct state established,related accept; " + rules + " } }"
		r, err := Import([]iptables.File{{Name: "f", Data: []byte(text)}}, iptables.Options{Keep: true}, nil)
		if err != nil {
			t.Fatalf("%s: %v", rules, err)
		}
		if got := fmt.Sprint(r.Policy.Open); got != want || len(r.Untranslated) == 0 {
			t.Errorf("%s: opens %s, want %s: %v", rules, got, want, r.Untranslated)
		}
	}
}

// What is to be said of both families is said once, and names the statement.
func TestFindingsOfBothFamilies(t *testing.T) {
	for rules, want := range map[string]string{
		"tcp dport 22 acept":                 `f:4: tcp dport 22 acept: target "acept", which is not known (write accept, drop or reject, if that is meant), cannot be said in a policy: what may be dropped by it is not opened`,
		"tcp dport 22 ip dscp cs1 accept":    `f:4: tcp dport 22 ip dscp cs1 accept: ip dscp cs1 cannot be said in a policy, so this is not opened; without it, it would be "22/tcp from 0.0.0.0/0"`,
		"tcp dport 22 meta mark 1 accept":    `f:4: tcp dport 22 meta mark 1 accept: mark 1 cannot be said in a policy, so this is not opened; without it, it would be "22/tcp"`,
		"tcp dport 22 xt target \"TARPIT\"":  `f:4: tcp dport 22 xt target "TARPIT": target (xt target "TARPIT") cannot be said in a policy: what may be dropped by it is not opened; without it, it would be "22/tcp"`,
		"tcp dport 22-23 meta mark 1 accept": `f:4: tcp dport 22-23 meta mark 1 accept: mark 1 cannot be said in a policy, so this is not opened; without it, it would be "22-23/tcp"`,
	} {
		r := importRules(t, true, rules)
		if len(r.Untranslated) == 0 || !strings.HasPrefix(r.Untranslated[len(r.Untranslated)-1].String(), want) {
			t.Errorf("%s: gives %v, want %s", rules, r.Untranslated, want)
		}
		if n := len(slices.DeleteFunc(r.Untranslated, func(f iptables.Finding) bool { return strings.Contains(f.Why, "answers to") })); n != 1 {
			t.Errorf("%s: gives %d findings", rules, n)
		}
	}
}
