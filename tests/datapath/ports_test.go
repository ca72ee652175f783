// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/portcullis-firewall/portcullis/bpf"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

func syn(port uint16) frame.TCP {
	return frame.TCP{SrcPort: 40000, DstPort: port, Seq: 1, Flags: frame.SYN}
}
func udp(port uint16) frame.UDP { return frame.UDP{SrcPort: 40000, DstPort: port} }

func TestPortsAreOpenOrClosed(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		return []arrival{
			{name: "a SYN to an open port", frame: w.in(syn(80)), want: rule("80/tcp")},
			{name: "a SYN to a closed port", frame: w.in(syn(81)), want: closedPort},
			{name: "a SYN below a range", frame: w.in(syn(1999)), want: closedPort},
			{name: "a SYN to the first port of a range", frame: w.in(syn(2000)), want: rule("2000-2010/tcp")},
			{name: "a SYN to the last port of a range", frame: w.in(syn(2010)), want: rule("2000-2010/tcp")},
			{name: "a SYN above a range", frame: w.in(syn(2011)), want: closedPort},
			{name: "a SYN to port 0", frame: w.in(syn(0)), want: closedPort},
			{name: "a SYN to port 65535", frame: w.in(syn(65535)), want: closedPort},
			{name: "a SYN from an open port to a closed one",
				frame: w.in(frame.TCP{SrcPort: 80, DstPort: 23, Flags: frame.SYN}), want: closedPort},
			{name: "a SYN from port 0 to an open one",
				frame: w.in(frame.TCP{SrcPort: 0, DstPort: 80, Flags: frame.SYN}), want: rule("80/tcp")},
			{name: "a SYN with data to an open port", frame: w.in(syn(80), frame.Text("early")), want: rule("80/tcp")},
			{name: "a SYN with a bad checksum to an open port, which the stack drops",
				frame: w.in(frame.TCP{DstPort: 80, Flags: frame.SYN, Checksum: frame.Exactly(1)}), want: rule("80/tcp")},

			{name: "UDP to an open port", frame: w.in(udp(53)), want: rule("53/udp")},
			{name: "UDP to a closed port", frame: w.in(udp(54)), want: closedPort},
			{name: "UDP below a range", frame: w.in(udp(59999)), want: closedPort},
			{name: "UDP to the first port of a range", frame: w.in(udp(60000)), want: rule("60000-61000/udp")},
			{name: "UDP to the last port of a range", frame: w.in(udp(61000)), want: rule("60000-61000/udp")},
			{name: "UDP above a range", frame: w.in(udp(61001)), want: closedPort},

			{name: "UDP to a port that is open in TCP", frame: w.in(udp(80)), want: closedPort},
			{name: "TCP to a port that is open in UDP", frame: w.in(syn(53)), want: closedPort},
			{name: "SCTP to its open port",
				frame: w.in(frame.SCTP{SrcPort: 9, DstPort: 5000, Chunk: frame.ChunkInit}), want: rule("5000/sctp")},
			{name: "SCTP to a closed port",
				frame: w.in(frame.SCTP{SrcPort: 9, DstPort: 80, Chunk: frame.ChunkInit}), want: closedPort},
			{name: "UDP-Lite to its open port",
				frame: w.in(frame.UDPLite{SrcPort: 9, DstPort: 5000}), want: rule("5000/udplite")},
			{name: "UDP-Lite to a port that is open in UDP",
				frame: w.in(frame.UDPLite{SrcPort: 9, DstPort: 53}), want: closedPort},
			{name: "UDP to a port that is open in SCTP and UDP-Lite", frame: w.in(udp(5000)), want: closedPort},
			{name: "TCP to a port that is open in SCTP and UDP-Lite", frame: w.in(syn(5000)), want: closedPort},
		}
	})
}

func TestRestrictedPorts(t *testing.T) {
	ssh := "22/tcp from 203.0.113.0/24,2001:db8:ff::/48"
	snmp := "161/udp from 203.0.113.7,2001:db8:ff::7"
	inBoth(t, func(w world) []arrival {
		first, last, below, above := addr("203.0.113.0"), addr("203.0.113.255"), addr("203.0.112.255"), addr("203.0.114.0")
		if w.family == 6 {
			first, last = addr("2001:db8:ff::"), addr("2001:db8:ff:ffff:ffff:ffff:ffff:ffff")
			below, above = addr("2001:db8:fe:ffff:ffff:ffff:ffff:ffff"), addr("2001:db8:100::")
		}
		return []arrival{
			{name: "a source inside the prefix", frame: w.from(w.friend, syn(22)), want: rule(ssh)},
			{name: "the first address of the prefix", frame: w.from(first, syn(22)), want: rule(ssh)},
			{name: "the last address of the prefix", frame: w.from(last, syn(22)), want: rule(ssh)},
			{name: "the address below the prefix", frame: w.from(below, syn(22)), want: wrongSource},
			{name: "the address above the prefix", frame: w.from(above, syn(22)), want: wrongSource},
			{name: "another source", frame: w.in(syn(22)), want: wrongSource},
			{name: "the right source at another port", frame: w.from(w.friend, syn(23)), want: closedPort},
			{name: "the right source in another protocol", frame: w.from(w.friend, udp(22)), want: closedPort},
			{name: "the one host of a rule", frame: w.from(w.friend, udp(161)), want: rule(snmp)},
			{name: "the neighbour of the one host of a rule", frame: w.from(w.friend.Next(), udp(161)), want: wrongSource},
			{name: "data from the right source", want: rule(ssh),
				frame: w.from(w.friend, frame.TCP{SrcPort: 5, DstPort: 22, Flags: frame.ACK | frame.PSH}, frame.Text("x"))},
			{name: "a FIN from the right source", want: rule(ssh),
				frame: w.from(w.friend, frame.TCP{SrcPort: 5, DstPort: 22, Flags: frame.FIN | frame.ACK})},
			{name: "data from another source", want: wrongSource,
				frame: w.in(frame.TCP{SrcPort: 5, DstPort: 22, Flags: frame.ACK | frame.PSH}, frame.Text("x"))},
			{name: "a RST from another source", want: invalid.of(wrongState),
				frame: w.in(frame.TCP{SrcPort: 5, DstPort: 22, Flags: frame.RST})},
		}
	})
}

func TestOverlappingPrefixes(t *testing.T) {
	const policy = `
open:
  - 22/tcp from 10.0.0.0/8, fd00::/8
  - 22/tcp from 10.1.0.0/16, fd01::/16
  - 22-23/tcp from 10.1.2.3, fd01::3
  - 443/tcp from 10.0.0.0/8, fd00::/8
  - 443/tcp
`
	inBothUnder(t, testdp.Options{Policy: policy}, func(w world) []arrival {
		wide, narrow, host := addr("10.9.9.9"), addr("10.1.9.9"), addr("10.1.2.3")
		if w.family == 6 {
			wide, narrow, host = addr("fd09::9"), addr("fd01::9"), addr("fd01::3")
		}
		const wideRule, narrowRule, hostRule = "22/tcp from 10.0.0.0/8,fd00::/8", "22/tcp from 10.1.0.0/16,fd01::/16",
			"22-23/tcp from 10.1.2.3,fd01::3"
		return []arrival{
			{name: "a source that only the widest prefix has", frame: w.from(wide, syn(22)), want: rule(wideRule)},
			{name: "a source that a narrower prefix has too", frame: w.from(narrow, syn(22)), want: rule(narrowRule)},
			{name: "a source that has a rule of its own", frame: w.from(host, syn(22)), want: rule(hostRule)},
			{name: "the same source where only its own rule reaches", frame: w.from(host, syn(23)), want: rule(hostRule)},
			{name: "a source that its rule does not let in there", frame: w.from(narrow, syn(23)), want: wrongSource},
			{name: "a source of no prefix", frame: w.from(w.stranger, syn(22)), want: wrongSource},
			{name: "a source of a restricted rule, at a port open to everybody",
				frame: w.from(wide, syn(443)), want: rule("443/tcp")},
			{name: "anybody at a port that is restricted and open too",
				frame: w.from(w.stranger, syn(443)), want: rule("443/tcp")},
		}
	})
}

// Rules that are opened one by one mean what they mean when they are compiled together.
func TestRulesAddedOneByOne(t *testing.T) {
	lab.RequireRoot(t)
	random := rand.New(rand.NewPCG(1, 2))
	d, err := testdp.Open(testdp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var rules []dpmaps.Rule
	var numbered []policy.NumberedRule
	for id := uint16(1); id < 60; id++ {
		first := 1 + random.IntN(80)
		text := fmt.Sprintf("%d-%d/%s", first, first+random.IntN(6), []string{"tcp", "udp"}[random.IntN(2)])
		if random.IntN(3) == 0 {
			text += " from 192.0.2.0/24"
		}
		r, err := policy.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		n := policy.NumberedRule{ID: id, Rule: r}
		numbered, rules = append(numbered, n), append(rules, dpmaps.Rule{NumberedRule: n})
		if r.Anyone() {
			err = d.Set.AddRules(rules[len(rules)-1:])
		} else {
			err = d.Set.PutRules(rules, rules[:len(rules)-1], rules[:len(rules)-1])
		}
		if err != nil {
			t.Fatal(err)
		}
		wantPorts(t, d.Set, numbered)
	}
	// The last half is taken back.
	half := len(rules) / 2
	if err := d.Set.PutRules(rules[:half], rules, rules); err != nil {
		t.Fatal(err)
	}
	wantPorts(t, d.Set, numbered[:half])
}

// A command that opens ports maps the pages of these alone: here those at the ends of words, of pages and of all.
func TestRulesAddedToMapsThatAreNotMapped(t *testing.T) {
	lab.RequireRoot(t)
	spec, err := bpf.LoadFirewall()
	if err != nil {
		t.Fatal(err)
	}
	dpmaps.ResizeFlows(spec, 1)
	for _, text := range []string{
		"1/tcp", "63-64/tcp", "64/udp", "1023-1024/tcp", "1024/udp", "32767-32768/tcp", "32768/sctp", "30000-33000/udp",
		"65535/tcp", "1-65535/udp", "1/udplite", "65535/udplite",
	} {
		r, err := policy.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		numbered := policy.NumberedRule{ID: 7, Rule: r}
		set, err := dpmaps.NewSet(spec.Copy(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := set.AddRules([]dpmaps.Rule{{NumberedRule: numbered}}); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		wantPorts(t, set, []policy.NumberedRule{numbered})
		set.Close()
	}
}

// wantPorts compares the ports with what the rules are compiled to, and the bits that list them with their entries.
func wantPorts(t *testing.T, set *dpmaps.Set, rules []policy.NumberedRule) {
	t.Helper()
	want, err := policy.Compile(rules, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := set.Ports("")
	if err != nil {
		t.Fatal(err)
	}
	m, err := set.Map(".bss")
	if err != nil {
		t.Fatal(err)
	}
	var raw bpf.FirewallPorts
	if err := m.Lookup(uint32(0), &raw); err != nil {
		t.Fatal(err)
	}
	for i, entry := range want.Tables[""] {
		if got[i].Rule != entry.Rule || (got[i].Set == 0) != (entry.Set == 0) {
			t.Errorf("port %d of protocol %d is %+v, want %+v", i&0xffff, i>>16, got[i], entry)
		}
		listed, entry := raw.Listed[i/64]>>(i%64)&1 == 1, raw.Entries[i].Rule != 0 || raw.Entries[i].Set != 0
		if listed != entry {
			t.Errorf("port %d of protocol %d is listed: %v, has an entry: %v", i&0xffff, i>>16, listed, entry)
		}
	}
}
