// SPDX-License-Identifier: Apache-2.0

// Package nftables plays packets to made-up rulesets in nftables, and compares what comes in with what the policy lets in
// that import makes of them.
package nftables

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
	"github.com/portcullis-firewall/portcullis/policy/nft"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

var (
	rulesets = flag.Int("rulesets", 40, "how many made-up rulesets are played")
	seed     = flag.Uint64("seed", 1, "of the first one")
	packets  = flag.Int("packets", 250, "how many packets are sent to each")
)

var (
	serverMAC = frame.MAC{2, 0, 0, 0, 0, 1}
	clientMAC = frame.MAC{2, 0, 0, 0, 0, 2}
	cards     = []string{"eth0", "eth1", "wlan0"}
)

// observer is a table that keeps whatever is let in, by a number that each packet has, and counts what arrives. Nothing
// is answered, so every packet stays one that begins something.
const observer = `table inet observer {
	counter arrived { }
	set four { typeof ip id; size 65535; flags dynamic; }
	set six { typeof udp sport; size 65535; flags dynamic; }
	set six-icmp { typeof icmpv6 id; size 65535; flags dynamic; }
	chain before { type filter hook prerouting priority -500; policy accept; counter name "arrived"; }
	chain behind {
		type filter hook input priority 500; policy accept;
		add @four { ip id }
		meta nfproto ipv6 meta l4proto ipv6-icmp add @six-icmp { icmpv6 id }
		meta nfproto ipv6 meta l4proto != ipv6-icmp add @six { th sport }
	}
	chain through {
		type filter hook forward priority 500; policy accept;
		add @four { ip id }
		meta nfproto ipv6 meta l4proto ipv6-icmp add @six-icmp { icmpv6 id }
		meta nfproto ipv6 meta l4proto != ipv6-icmp add @six { th sport }
	}
	chain out { type filter hook output priority -500; policy drop; }
}
`

// probe is one packet to the server.
type probe struct {
	card     string
	src, dst netip.Addr
	protocol policy.Protocol
	port     uint16
	icmp     uint8
	flags    uint8
	valid    bool // it begins something; else it is INVALID
	routed   bool // through the server, out of eth1
	id       uint16
}

func (p probe) String() string {
	return fmt.Sprintf("%s %s > %s protocol %d port %d type %d flags %x, valid %t", p.card, p.src, p.dst, p.protocol, p.port, p.icmp, p.flags, p.valid)
}

var probePorts = []uint16{1, 22, 53, 79, 80, 81, 100, 443, 999, 1000, 65535}

func drawProbe(random *rand.Rand, id uint16) probe {
	addr := netip.MustParseAddr
	p := probe{card: pick(random, cards...), id: id, valid: true, protocol: pick(random, policy.TCP, policy.TCP, policy.TCP, policy.UDP, policy.UDP, policy.Protocol(1), policy.Protocol(50), policy.Protocol(89)),
		src: pick(random, addr("10.1.2.3"), addr("10.200.0.1"), addr("192.0.2.7"), addr("198.51.100.1"), addr("1.1.1.1"), addr("203.0.113.77"), addr("2001:db8::1"), addr("2001:db8:8000::1"), addr("2001:db8:ffff::1"), addr("2a00::1"))}
	p.dst = pick(random, addr("192.0.2.1"), addr("192.0.2.2"), addr("203.0.113.9"))
	if p.src.Is6() {
		p.dst = pick(random, addr("2001:db8:1::1"), addr("2001:db8:1::2"))
	}
	if p.routed = random.IntN(4) == 0; p.routed {
		if p.dst = addr("198.18.0.9"); p.src.Is6() {
			p.dst = addr("2001:db8:9::9")
		}
	}
	switch p.protocol {
	case policy.TCP:
		p.port, p.flags = pick(random, probePorts...), pick[uint8](random, frame.SYN, frame.SYN, frame.SYN, frame.SYN|frame.ECE|frame.CWR, frame.SYN|frame.PSH)
		if random.IntN(12) == 0 {
			p.valid, p.flags = false, frame.SYN|frame.FIN
		}
	case policy.UDP:
		if p.port = pick(random, probePorts...); p.src.Is4() && !p.routed && random.IntN(8) == 0 {
			p.dst = addr("255.255.255.255")
		}
	case 1:
		p.icmp = pick[uint8](random, 8, 8, 13)
		if p.valid = random.IntN(8) > 0; !p.valid {
			p.icmp = 0 // an answer to nothing
		}
		if p.src.Is6() {
			p.protocol = 58
			if p.icmp = 128; !p.valid {
				p.icmp = 129
			}
		}
	}
	return p
}

func (p probe) frame() []byte {
	mac := serverMAC
	if p.dst == netip.MustParseAddr("255.255.255.255") {
		mac = frame.Broadcast
	}
	layers := []frame.Layer{frame.Ethernet{Dst: mac, Src: clientMAC}}
	number := uint16(p.protocol)
	if p.src.Is6() {
		layers = append(layers, frame.IPv6{Src: p.src, Dst: p.dst, NextHeader: &number})
	} else {
		layers = append(layers, frame.IPv4{Src: p.src, Dst: p.dst, Protocol: uint8(p.protocol), ID: p.id})
	}
	switch p.protocol {
	case policy.TCP:
		layers = append(layers, frame.TCP{SrcPort: p.id, DstPort: p.port, Flags: p.flags})
	case policy.UDP:
		layers = append(layers, frame.UDP{SrcPort: p.id, DstPort: p.port}, frame.Text("probe"))
	case 1:
		layers = append(layers, frame.ICMPv4{Type: p.icmp, ID: p.id}, frame.Raw(make([]byte, 12)))
	case 58:
		layers = append(layers, frame.ICMPv6{Type: p.icmp, ID: p.id}, frame.Raw(make([]byte, 12)))
	default:
		layers = append(layers, frame.Raw(append([]byte{byte(p.id >> 8), byte(p.id)}, make([]byte, 24)...)))
	}
	return frame.Build(layers...)
}

// lets is what a policy means for one packet, in the words of the README.
func lets(p *policy.Policy, k probe) bool {
	in := p.For(k.card)
	for _, b := range p.Block {
		if b.Network.IsValid() && b.Network.Contains(k.src) ||
			b.Holds != nil && slices.ContainsFunc(b.Holds.Prefixes, func(n netip.Prefix) bool { return n.Contains(k.src) }) {
			return false
		}
	}
	if !k.valid {
		switch in.Invalid {
		case policy.InvalidDrop:
			return false
		case policy.InvalidAccept:
			return true
		}
	}
	if in.Input == policy.Accept {
		return true
	}
	for _, r := range p.Open {
		if r.Admits(policy.Packet{Interface: k.card, Protocol: k.protocol, Port: k.port, Source: k.src, Destination: k.dst}) {
			return true
		}
	}
	types := in.ICMP.Types4()
	if k.protocol == 58 {
		types = in.ICMP.Types6()
	}
	return (k.protocol == 1 || k.protocol == 58) && types[k.icmp/64]>>(k.icmp%64)&1 != 0
}

// server is a host with three cards, and the wires to them.
type server struct {
	host  *lab.Host
	wires map[string]lab.Wire
	id    uint16
}

func newServer(t *testing.T) *server {
	t.Helper()
	l := lab.New(t)
	s := &server{host: l.AddHost(t, "nft"), wires: make(map[string]lab.Wire), id: 1024}
	far := l.AddHost(t, "far")
	for _, key := range []string{"ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"} {
		s.host.Sysctl(t, key, "0")
	}
	s.host.Sysctl(t, "ipv6/conf/default/accept_dad", "0")
	for _, card := range cards {
		s.host.IP(t, "link", "add", "name", card, "type", "veth", "peer", "name", card, "netns", far.Name)
		s.host.IP(t, "link", "set", card, "address", "02:00:00:00:00:01", "up")
		far.IP(t, "link", "set", card, "address", "02:00:00:00:00:02", "up")
		s.wires[card] = far.Wire(t, card)
	}
	far.Sysctl(t, "ipv6/conf/all/disable_ipv6", "1") // it says nothing of its own
	for _, a := range []string{"192.0.2.1/24", "192.0.2.2/24", "203.0.113.9/24", "2001:db8:1::1/64", "2001:db8:1::2/64"} {
		args := []string{"addr", "add", a, "dev", "eth0"}
		if strings.Contains(a, ":") {
			args = append(args, "nodad")
		}
		s.host.IP(t, args...)
	}
	s.host.IP(t, "route", "add", "default", "dev", "eth0")
	s.host.IP(t, "route", "add", "198.18.0.0/16", "dev", "eth1")
	s.host.IP(t, "route", "add", "2001:db8:9::/64", "dev", "eth1")
	s.host.Sysctl(t, "ipv4/conf/all/forwarding", "1")
	s.host.Sysctl(t, "ipv6/conf/all/forwarding", "1")
	return s
}

// nft runs commands of nft in the server.
func (s *server) nft(input string, args ...string) (string, error) {
	cmd := s.host.Command("nft", args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

// play sends packets and returns the numbers of those that were let in.
func (s *server) play(t *testing.T, list []probe) map[uint16]bool {
	t.Helper()
	for _, p := range list {
		if err := s.wires[p.card].Send(p.frame()); err != nil {
			t.Fatal(err)
		}
	}
	in := make(map[uint16]bool)
	for deadline := time.Now().Add(20 * time.Second); ; {
		out, err := s.nft("", "-j", "list", "table", "inet", "observer")
		if err != nil {
			t.Fatal(err)
		}
		var found struct {
			Nftables []struct {
				Counter *struct{ Packets int }
				Set     *struct{ Elem []int }
			}
		}
		if err := json.Unmarshal([]byte(out), &found); err != nil {
			t.Fatal(err)
		}
		arrived := 0
		for _, o := range found.Nftables {
			if o.Counter != nil {
				arrived = o.Counter.Packets
			}
			if o.Set != nil {
				for _, id := range o.Set.Elem {
					in[uint16(id)] = true
				}
			}
		}
		if arrived >= len(list) {
			return in
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d packets arrived of %d", arrived, len(list))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestImportIsNeverWider plays packets to rulesets and to the policies that they become. What the policy lets in, the
// ruleset does; what it does not let in although the ruleset does is listed. The text, what nft prints of it, and its
// JSON come to the same policy.
func TestImportIsNeverWider(t *testing.T) {
	lab.RequireRoot(t)
	lab.NeedProgram(t, "nft")
	s := newServer(t)
	var alike, let, opened, through, routed, exact, refused int
	for n := range *rulesets {
		random := rand.New(rand.NewPCG(*seed+uint64(n), 3))
		text := drawRuleset(random)
		if _, err := s.nft("flush ruleset\n"+text, "-f", "-"); err != nil && strings.Contains(err.Error(), "conflicting protocols specified") {
			refused++
			continue
		} else if err != nil {
			t.Fatalf("seed %d: %v\n%s", *seed+uint64(n), err, text)
		}
		r := s.readings(t, text)
		if _, err := s.nft(observer, "-f", "-"); err != nil {
			t.Fatal(err)
		}
		if r == nil {
			continue
		}
		var list []probe
		for range *packets {
			if s.id++; s.id < 1024 {
				s.id = 1024
			}
			list = append(list, drawProbe(random, s.id))
		}
		in := s.play(t, list)
		kept, err := nft.Import([]iptables.File{{Name: "rules", Data: []byte(text)}}, iptables.Options{Keep: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		narrower := false
		for _, p := range list {
			if p.routed {
				if in[p.id] {
					through++
				}
				if p.valid && !in[p.id] && letsThrough(r, text, p) {
					t.Fatalf("seed %d: forward is wider than the rules\n%s\n%s\n%s", *seed+uint64(n), text, p, r.YAML())
				}
				if p.valid && in[p.id] && letsThrough(r, text, p) {
					routed++
				}
				continue
			}
			if !in[p.id] && len(kept.Stays) == 0 && isFiltered(kept, p) && lets(kept.Policy, p) {
				t.Fatalf("seed %d: the policy is wider than the rules, of which none is said to stay\n%s\n%s\n%s", *seed+uint64(n), text, p, kept.YAML())
			}
			if !isFiltered(r, p) {
				continue
			}
			accepted, allowed := in[p.id], lets(r.Policy, p)
			if accepted {
				let++
			}
			if allowed {
				opened++
			}
			switch {
			case accepted == allowed:
				alike++
			case allowed:
				t.Fatalf("seed %d: the policy is wider than the rules\n%s\n%s\n%s", *seed+uint64(n), text, p, r.YAML())
			case p.valid && len(r.Untranslated) == 0 && !saysNothingOf(r, p):
				t.Fatalf("seed %d: the policy is narrower than the rules, and nothing says so\n%s\n%s\n%s", *seed+uint64(n), text, p, r.YAML())
			default:
				narrower = true
			}
		}
		if !narrower {
			exact++
		}
	}
	t.Logf("%d packets alike; the rules let in %d, the policies %d; they let %d through, and %d; %d of %d rulesets are told exactly",
		alike, let, opened, through, routed, exact, *rulesets)
	if routed == 0 {
		t.Error("no policy lets anything through")
	}
	if refused > *rulesets/4 {
		t.Errorf("nft takes only %d of %d rulesets", *rulesets-refused, *rulesets)
	}
	if let == 0 || opened < let/3 {
		t.Errorf("rules let in %d packets, the policies only %d: too little is translated", let, opened)
	}
}

// saysNothingOf reports whether no chain is about packets of a family, which the import closes as it does the other.
func saysNothingOf(r *iptables.Result, p probe) bool {
	beginning := map[bool]string{true: "no rules for IPv4", false: "no rules for IPv6"}[p.src.Is4()]
	return says(r.Notes, beginning)
}

// letsThrough reports whether a policy lets a packet that begins something be routed out of eth1. What rests on which
// interfaces have a filter counts for nothing.
func letsThrough(r *iptables.Result, text string, p probe) bool {
	filtered := func(card string) bool {
		return len(r.Policy.Interfaces) == 0 && !strings.Contains(text, `"`+card+`"`) && !strings.Contains(text, "@cards") ||
			policy.MatchAnyInterface(r.Policy.Interfaces, card)
	}
	if !filtered(p.card) && !filtered("eth1") {
		return false
	}
	packet := policy.Packet{Interface: p.card, Protocol: p.protocol, Port: p.port, Source: p.src, Destination: p.dst, Forward: true}
	return r.Policy.Forward == policy.ForwardAccept || slices.ContainsFunc(r.Policy.ForwardRules(), func(r policy.Rule) bool { return r.Admits(packet) })
}

// isFiltered reports whether a policy is about the card by which a packet comes.
func isFiltered(r *iptables.Result, p probe) bool {
	if len(r.Policy.Interfaces) > 0 {
		return policy.MatchAnyInterface(r.Policy.Interfaces, p.card)
	}
	return !says(r.Notes, p.card+" is not filtered")
}

// says reports whether a finding begins so.
func says(list []iptables.Finding, beginning string) bool {
	return slices.ContainsFunc(list, func(f iptables.Finding) bool { return strings.HasPrefix(f.Why, beginning) })
}

// readings imports a ruleset from its text, from what nft prints and from the JSON of that, which have to be one policy.
func (s *server) readings(t *testing.T, text string) *iptables.Result {
	t.Helper()
	listed, err1 := s.nft("", "list", "ruleset")
	inJSON, err2 := s.nft("", "-j", "list", "ruleset")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	var first *iptables.Result
	for i, data := range []string{text, listed, inJSON} {
		r, err := nft.Import([]iptables.File{{Name: "rules", Data: []byte(data)}}, iptables.Options{}, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		if i == 0 {
			first = r
			continue
		}
		if !r.Policy.Equal(first.Policy) {
			t.Fatalf("what nft prints is another policy: %v\n%s\n%s\n%s\n%s", policy.Diff(first.Policy, r.Policy), text, first.YAML(), data, r.YAML())
		}
	}
	return first
}
