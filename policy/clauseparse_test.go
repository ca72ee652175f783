// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func networksOf(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// testNames has a list of each kind.
func testNames() Names {
	return Names{Lists: []List{
		{Name: "office", Networks: networksOf("203.0.113.0/24", "2001:db8::/32")},
		{Name: "bad", Networks: networksOf("10.1.0.0/16")},
		{Name: "none"},
	}}
}

// The order of clauses is free on input and fixed on output, and what is written reads back as it was.
func TestParseClauses(t *testing.T) {
	for text, want := range map[string]string{
		"http limit 6/min on wg*,eth0 to 10.0.0.1 from 1.2.3.0/24 except 1.2.3.4": "http on wg*,eth0 from 1.2.3.0/24 except 1.2.3.4 to 10.0.0.1 limit 6/minute",
		"80, 443 ,8000-8100/tcp":          "80,443,8000-8100/tcp",
		"443,80,81,80/TCP":                "80-81,443/tcp",
		"443,80,443-444/sctp to ff02::12": "80,443-444/sctp to ff02::12",
		"GRE":                             "gre",
		"proto/47":                        "gre",
		"proto/89 on eth0":                "ospf on eth0",
		"proto/99":                        "proto/99",
		"ipv6":                            "6in4",
		"carp to 224.0.0.18":              "vrrp to 224.0.0.18",
		"ipencap":                         "ipip",
		"TCP":                             "tcp",
		"sctp except 192.0.2.1":           "sctp except 192.0.2.1",
		"All From 192.0.2.4":              "all from 192.0.2.4",
		"ssh from @office":                "ssh from @office",
		"ssh from @office,203.0.113.0/24,192.0.2.1,@office": "ssh from @office,192.0.2.1",
		"ssh from 203.0.113.0/24,@office":                   "ssh from 203.0.113.0/24,@office",
		"ssh from 10.0.0.0/8 except @bad":                   "ssh from 10.0.0.0/8 except @bad",
		"ssh except @none":                                  "ssh except @none",
		"ssh from @none,192.0.2.1":                          "ssh from @none,192.0.2.1",
		"ssh to @office":                                    "ssh to @office",
		"bootps from 0.0.0.0":                               "bootps from 0.0.0.0",
		"ssh from 127.0.0.1,192.0.2.1":                      "ssh from 127.0.0.1,192.0.2.1",
		"ssh on eth0 , eth0,wg*":                            "ssh on eth0,wg*",
		"ssh ON \"x'\\":                                     "ssh on \"x'\\",
		"ssh limit 1/s":                                     "ssh limit 1/second",
		"ssh limit 100/SEC burst 5":                         "ssh limit 100/second",
		"ssh limit 60/m burst 1":                            "ssh limit 60/minute burst 1",
		"ssh limit 20/h BURST 65535":                        "ssh limit 20/hour burst 65535",
		"ssh limit 1000000/days":                            "ssh limit 1000000/day",
	} {
		r, err := testNames().ParseRule(text)
		if err != nil || r.String() != want {
			t.Errorf("%q is %q, %v, want %q", text, r, err, want)
			continue
		}
		again, err := testNames().ParseRule(r.String())
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%q reads back as %#v, %v, was %#v", r, again, err, r)
		}
		restored, err := RestoreRule(Rule{Ports: r.Ports, On: r.On, From: r.From, Except: r.Except, To: r.To, Limit: r.Limit}, r.Spelling())
		if err != nil || !reflect.DeepEqual(restored, r) {
			t.Errorf("%q is restored as %#v, %v", r, restored, err)
		}
		numbers, err := ParseRule(r.inNumbers().Spelled()[0].String())
		if err != nil || len(r.inNumbers().Spelled()) == 1 && !numbers.Equal(r) {
			t.Errorf("%q in numbers is %q, %v", r, numbers, err)
		}
	}
}

func TestWhatIsOpened(t *testing.T) {
	all := mustRule(t, "all")
	for p := range 256 {
		proto := Protocol(p)
		if !all.Covers(proto, 0) || all.Covers(proto, 65535) != (ProtocolIndex(proto) >= 0) {
			t.Errorf("all and protocol %d", p)
		}
	}
	if gre := mustRule(t, "gre"); !gre.Covers(47, 0) || gre.Covers(47, 1) || gre.Covers(46, 0) {
		t.Errorf("gre opens %v", gre.Ports)
	}
	if sctp := mustRule(t, "sctp"); !sctp.Covers(SCTP, 1) || !sctp.Covers(SCTP, 65535) || !sctp.Equal(mustRule(t, "1-65535/sctp")) {
		t.Errorf("sctp opens %v", sctp.Ports)
	}
	// A port of a service may go by the name of a protocol.
	names := Names{Services: &Services{text: "gre 4711/tcp\nall 4712/tcp\n"}}
	if r, err := names.ParseRule("gre"); err != nil || r.Ports[0].Protocol != 47 {
		t.Errorf("gre is %v, %v", r.Ports, err)
	}
}

func TestParseClausesErrors(t *testing.T) {
	for _, c := range []struct {
		text   string
		offset int
		want   string
	}{
		{"proto/6", 0, `"proto/6" is tcp, which has ports: write tcp for all of them, or a port such as 80/tcp`},
		{"proto/1", 0, `no rule for "proto/1": the key icmp says what of it is accepted, such as icmp: [echo-request]`},
		{"icmpv6 from 192.0.2.1", 0, `no rule for "icmpv6": the key icmp says what of it is accepted, such as icmp: [echo-request]`},
		{"proto/256", 0, `bad protocol number in "proto/256": write proto/0 to proto/255`},
		{"proto/", 0, `bad protocol number in "proto/": write proto/0 to proto/255`},
		{"proto/007", 0, `protocol number in "proto/007" starts with a zero: write proto/7`},
		{"all/tcp", 0, `"all" is for every protocol: write tcp for all ports of it`},
		{"80/gre", 3, `protocol "gre" has no ports: write gre alone`},
		{"80,81/gre", 6, `protocol "gre" has no ports: write gre alone`},
		{"gre/80", 0, `protocol "gre" has no ports: write gre alone`},
		{"80,gre", 3, `"gre" in a list of ports: write one rule for each service or protocol`},
		{"http,https", 0, `"http" in a list of ports: write one rule for each service or protocol`},
		{"80/tcp,443/tcp", 3, `protocol "tcp" within a list of ports: write it once, behind the last port, as in 80,443/tcp, and one rule for each protocol`},
		{"80,443", 0, `no protocol in "80,443": write 80,443/tcp or 80,443/udp`},
		{"80,443/", 7, `unknown protocol "": write tcp, udp, sctp or udplite`},
		{"80,,443/tcp", 3, `empty port "" in the list: take the comma out`},
		{"80,443-440/tcp", 3, `range "443-440" runs backwards: write 440-443/tcp`},
		{"80,0/tcp", 3, `port "0" is out of range: write a number from 1 to 65535`},
		{"http from @offce", 10, `unknown list "@offce": did you mean "@office"?`},
		{"http from @x", 10, `unknown list "@x": name it and its networks under lists in the policy file, where there are @office, @bad and @none`},
		{"http from office", 10, `bad address "office": write "@office" for the list of that name`},
		{"http from @none", 10, `list "@none" is empty, so that the rule would let nothing in: put networks into it, or take the rule out`},
		{"http to @none", 8, `list "@none" is empty, so that the rule would let nothing in: put networks into it, or take the rule out`},
		{"http from 10.1.2.0/24 except @bad", 22, `"except" takes all of "from", so that nothing is let in: leave some, or take the rule out`},
		{"http from 127.0.0.1,10.1.2.0/24 except @bad", 32, `"except" takes all of "from", so that nothing is let in: leave some, or take the rule out`},
		{"http except 0.0.0.0/0,::/0", 5, `"except" takes all addresses, so that nothing is let in: leave some, or take the rule out`},
		{"http from 192.0.2.1 from 192.0.2.2", 20, `"from" is there twice: join what follows with a comma`},
		{"http limit 1/s limit 2/s", 15, `"limit" is there twice: keep one`},
		{"http from 192.0.2.1 to 2001:db8::1", 20, `sources and destinations are of different families, so that nothing is let in: write both in IPv4, or both in IPv6`},
		{"http to 192.0.2.1 except 0.0.0.0/0", 5, `sources and destinations are of different families, so that nothing is let in: write both in IPv4, or both in IPv6`},
		{"http from 127.0.0.1", 5, `nobody can come from "127.0.0.1": no other host has such an address`},
		{"http from 224.0.0.1,ff02::1", 5, `nobody can come from "224.0.0.1,ff02::1": no other host has such an address`},
		{"http to ::1,127.0.0.0/8", 5, `nothing comes in to "::1,127.0.0.0/8": the loopback is never filtered`},
		{"http limit 6", 11, `rate "6" has no unit: write 6/second, 6/minute, 6/hour or 6/day`},
		{"http limit 6/", 11, `rate "6/" has no unit: write 6/second, 6/minute, 6/hour or 6/day`},
		{"http limit 99999999999999999999", 11, `rate "99999999999999999999" has no unit: write a number and a unit, such as 6/minute or 100/second`},
		{"http limit 0/s", 11, `rate "0/s" lets nothing in: write 1 to 1000000, or close the rule`},
		{"http limit 1000001/s", 11, `rate "1000001/s" is out of range: write 1 to 1000000`},
		{"http limit 6/minut", 11, `unknown unit "minut" in rate "6/minut": did you mean "minute"?`},
		{"http limit 6/fortnight", 11, `unknown unit "fortnight" in rate "6/fortnight": write second, minute, hour or day`},
		{"http limit 1.5/s", 11, `bad rate "1.5/s": write a number and a unit, such as 6/minute or 100/second`},
		{"http limit burst 5", 5, `no rate after "limit": write limit 6/minute, or leave "limit" out`},
		{"http limit 6/minute burst", 20, `no number after "burst": write burst 10, or leave "burst" out`},
		{"http limit 6/minute burst on eth0", 20, `no number after "burst": write burst 10, or leave "burst" out`},
		{"http limit 6/minute burst 0", 26, `burst "0" is out of range: write a number from 1 to 65535`},
		{"http limit 6/minute burst 65536", 26, `burst "65536" is out of range: write a number from 1 to 65535`},
		{"http limit 6/minute burst x", 26, `bad burst "x": write a number from 1 to 65535`},
		{"http limit 6/minute burst 5 burst 6", 28, `"burst" without a rate before it: write limit 6/minute burst 10`},
		{"http burst 5", 5, `"burst" without a rate before it: write limit 6/minute burst 10`},
		{"http limit 6/minute 7", 20, `unexpected "7" after "6/minute": write on, from, except, to or limit, or nothing`},
		{"http limit 6/minute brust 7", 20, `unexpected "brust" after "6/minute": did you mean "burst"?`},
		{"http on", 5, `no interface after "on": write on eth0, or leave "on" out`},
		{"http on from 192.0.2.1", 5, `no interface after "on": write on eth0, or leave "on" out`},
		{"http on eth0,to", 13, `interface name "to" begins a clause: write "t*"`},
		{"http on lo", 8, `interface "lo" is the loopback, which is never filtered: take it out`},
		{"http on *", 8, `"*" stands for every interface: leave "on" out`},
		{"http on eth0,", 13, `empty name "" in the list after "on": take the comma out`},
		{"http on eth0 eth1", 13, `unexpected "eth1": separate interfaces with a comma`},
		{"http on abcdefghijklmnop", 8, `interface name "abcdefghijklmnop" is 16 bytes long: write at most 15`},
		{"http on é", 8, `interface name "é" cannot stand in a rule: write * for its unusual characters`},
		{"http onn eth0", 5, `unexpected "onn" after "http": did you mean "on"?`},
		{"http from 192.0.2.1 excpet 192.0.2.2", 20, `unexpected "excpet" after "192.0.2.1": did you mean "except"?`},
		{"http from except 192.0.2.1", 5, `no address after "from": write from 203.0.113.0/24, or leave "from" out`},
		{"http except", 5, `no address after "except": write except 203.0.113.0/24, or leave "except" out`},
		{"http to", 5, `no address after "to": write to 192.0.2.1, an address of this host, or leave "to" out`},
		{"http foo", 5, `unexpected "foo" after "http": write on, from, except, to or limit, or nothing`},
		{"limit ssh", 0, `no port before "limit": write a service or a port first, as in "ssh limit 6/minute"`},
		{"allow http", 0, `"allow" is not part of a rule: leave it out, as in "ssh from 203.0.113.0/24"`},
		{"deny from 192.0.2.1", 0, `"deny" cannot be a rule, since what no rule lets in is kept out: write whom to keep out after "except", as in "http except 203.0.113.9"`},
		{"any from 192.0.2.1", 0, `unknown service "any": write all for every port and protocol`},
		{"10.0.0.0/8", 0, `address "10.0.0.0/8" where a port should be: write "all from 10.0.0.0/8" to let in everything from there; addresses of one rule are joined by commas, and in brackets such a rule needs quotes`},
		{"http on !eth0", 8, `"!eth0": a rule cannot leave out an interface: write those that it is for`},
		{"http from !192.0.2.1", 10, `bad address "!192.0.2.1": write except 192.0.2.1`},
		{"http from !!192.0.2.1", 10, `bad address "!!192.0.2.1": write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32`},
		{"http from 192.0.2.1-192.0.2.4", 10, `bad address "192.0.2.1-192.0.2.4": write 192.0.2.1,192.0.2.2/31,192.0.2.4`},
		{"http from 192.0.2.4-192.0.2.1", 10, `bad address "192.0.2.4-192.0.2.1": write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32`},
		{"on eth0", 0, `no port before "on": write a service or a port first, as in "http on eth0"`},
	} {
		r, err := testNames().ParseRule(c.text)
		var bad *RuleError
		if !errors.As(err, &bad) {
			t.Errorf("%q is %q, %v", c.text, r, err)
			continue
		}
		if bad.Msg != c.want || bad.Offset != c.offset || !strings.HasPrefix(c.text[bad.Offset:], bad.Token) {
			t.Errorf("%q:\n got %d %s\nwant %d %s", c.text, bad.Offset, bad.Msg, c.offset, c.want)
		}
	}
	if _, err := ParseRule("http from @office"); err == nil || err.Error() != `unknown list "@office": name it and its networks under lists in the policy file` {
		t.Errorf("without lists: %v", err)
	}
}

func TestParseRulesWithClauses(t *testing.T) {
	for _, c := range []struct{ words, want string }{
		{"ssh limit 6/minute burst 3 http", "ssh limit 6/minute burst 3|http"},
		{"ssh on eth0 , wg* from @office to 192.0.2.1 80, 443/tcp", "ssh on eth0,wg* from @office to 192.0.2.1|80,443/tcp"},
		{"gre from 192.0.2.1 esp from 192.0.2.1", "gre from 192.0.2.1|esp from 192.0.2.1"},
	} {
		rules, err := testNames().ParseRules(strings.Fields(c.words))
		if got := strings.Join(Texts(rules), "|"); err != nil || got != c.want {
			t.Errorf("%q is %q, %v", c.words, got, err)
		}
	}
	for _, clause := range []string{"on eth0", "except 192.0.2.1", "to 192.0.2.1", "limit 6/minute burst 3"} {
		_, err := ParseRules(strings.Fields("http https " + clause))
		want := `"` + clause + `" may be meant for "https" alone or for "http" too: quote each rule, as "http" "https ` + clause + `", or "http ` + clause + `" "https ` + clause + `"`
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v", clause, err)
		}
	}
}
