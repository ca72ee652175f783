// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader/dryrun"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// Of so many packets, one in ten is explained, and then comes in; and as many are explained while nothing else happens.
const (
	explainedOf  = 10
	leastOfOne   = 2000 // packets at one policy
	mostOfOne    = 5000
	mostPolicies = 200 // as long as these are not too many
	fewestOf     = 20  // packets that a reason has to have in a long run
)

// explained is how many packets had each reason, and how many could not be told about, as the clock went on in between.
type explained struct {
	reasons map[string]int
	packets int
	unclear int
}

// What explain says of a packet is what then becomes of it, and to explain it changes nothing: in random policies, with
// flows, bans, block lists, trusted sources, limits and what is routed.
func TestExplainSaysWhatBecomesOfAPacket(t *testing.T) {
	lab.RequireRoot(t)
	per := min(max(leastOfOne, *count/explainedOf/mostPolicies), mostOfOne)
	policies := *count/explainedOf/per + 1
	var next atomic.Int64
	if *only >= 0 {
		policies = *only
		next.Store(int64(*only) - 1)
	}
	results := make(chan explained, runtime.NumCPU())
	t.Run("all", func(t *testing.T) {
		for i := range runtime.NumCPU() {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				w := newWitness(t)
				defer func() { results <- w.explained }()
				for n := int(next.Add(1)); n <= policies && !t.Failed(); n = int(next.Add(1)) {
					t.Run(fmt.Sprintf("policy %d of seed %d", n, *seed), func(t *testing.T) { w.try(t, n, per) })
				}
			})
		}
	})
	close(results)
	all := explained{reasons: make(map[string]int)}
	for r := range results {
		all.packets += r.packets
		all.unclear += r.unclear
		for reason, n := range r.reasons {
			all.reasons[reason] += n
		}
	}
	if t.Failed() {
		return
	}
	t.Logf("%d policies: %d packets explained, of which %d met another jiffy; %v", policies, all.packets, all.unclear, all.reasons)
	if *only >= 0 {
		return
	}
	if all.unclear > all.packets/1000 {
		t.Errorf("of %d packets %d met another jiffy than their explanation", all.packets, all.unclear)
	}
	for _, reason := range dpmaps.Reasons() {
		if reason.Verdict() == dpmaps.WouldDrop && reason.String() == "rejected" {
			continue // while the filter only watches nobody is answered
		}
		if reason.Verdict() != dpmaps.Seen && all.reasons[reason.Verdict()+" "+reason.String()] < min(fewestOf, all.packets/10_000) {
			t.Errorf("of %d packets %d %s, %s: too few to tell", all.packets, all.reasons[reason.Verdict()+" "+reason.String()], reason.Verdict(), reason)
		}
	}
}

// witness is a router whose datapath is asked twice.
type witness struct {
	explained
	host            *lab.Host
	outside, inside uint32
}

var routerMAC = frame.MAC{2, 0, 0, 0, 0, 7}

func newWitness(t *testing.T) *witness {
	l := lab.New(t)
	l.AddInside(t)
	l.Server.IP(t, "link", "set", "eth0", "address", net.HardwareAddr(routerMAC[:]).String())
	l.Server.IP(t, "route", "add", "default", "via", lab.ClientV4.String())
	l.Server.IP(t, "route", "add", "default", "via", lab.ClientV6.String())
	w := &witness{host: l.Server, explained: explained{reasons: make(map[string]int)}}
	l.Server.Do(t, func() error {
		for name, index := range map[string]*uint32{"eth0": &w.outside, "eth1": &w.inside} {
			i, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			*index = uint32(i.Index)
		}
		return nil
	})
	return w
}

// scene is the datapath of one policy, and what happens at it.
type scene struct {
	draw
	*testdp.Datapath
	w      *witness
	dry    map[testdp.Path]*dryrun.Program
	reject bool
	bans   []netip.Prefix
	sent   []packetOut
}

// packetOut is one that has left, which something may answer.
type packetOut struct {
	src, dst netip.Addr
	layer    frame.Layer
}

func (w *witness) try(t *testing.T, number, packets int) {
	testdp.Enter(t, w.host.Name)
	s := &scene{draw: draw{rand.New(rand.NewPCG(*seed, uint64(number)))}, w: w, dry: make(map[testdp.Path]*dryrun.Program)}
	text := s.fullPolicy()
	var err error
	if s.Datapath, err = testdp.Open(testdp.Options{Policy: text, MAC: routerMAC, Interface: "eth0", Bans: 256, Blocking: 4096}); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	t.Cleanup(s.Close)
	s.reject = s.Policy.InputOf("eth0") == policy.Reject
	for _, path := range testdp.Ingress {
		s.dry[path] = s.DryRun(t, path)
	}
	s.prepare(t)
	watching := false
	for range packets {
		if s.times(1, 40) {
			watching = !watching
			if err := s.Set.SetWatching(watching); err != nil {
				t.Fatal(err)
			}
		}
		s.happen(t)
		b, what := s.arrival()
		s.compare(t, b, func() string { return what + "\n" + text })
		if t.Failed() {
			return
		}
	}
	before, _ := s.Snapshot(t)
	for range packets {
		b, _ := s.arrival()
		s.explain(t, oneOf(s.draw, testdp.Ingress...), b)
	}
	after, logged := s.Snapshot(t)
	for name := range before {
		if before[name] != after[name] {
			t.Errorf("to explain packets has changed %s\n%s", name, text)
		}
	}
	if logged > 0 {
		t.Errorf("to explain packets has logged %d of them\n%s", logged, text)
	}
}

// prepare says what is this host's, whom it blocks, and by which interfaces it routes.
func (s *scene) prepare(t *testing.T) {
	var local []netip.Prefix
	for _, a := range []netip.Addr{lab.ServerV4, lab.ServerV6, lab.RouterV4, lab.RouterV6} {
		local = append(local, netip.PrefixFrom(a, a.BitLen()))
	}
	if err := s.Set.PutLocal(local, []netip.Prefix{netip.MustParsePrefix("192.0.2.255/32")}); err != nil {
		t.Fatal(err)
	}
	s.SetInterfaces(t, dpmaps.Interface{Index: int(s.w.outside), Name: "eth0", Judged: true, Guests: s.times(1, 6)},
		dpmaps.Interface{Index: int(s.w.inside), Name: "eth1", Judged: true})
	var lists []dpmaps.BlockList
	for i := range s.IntN(3) {
		lists = append(lists, dpmaps.BlockList{Name: fmt.Sprintf("list%d", i), Prefixes: []netip.Prefix{s.network(), s.network()}})
	}
	var trust []netip.Prefix
	if s.times(1, 2) {
		trust = append(trust, s.network())
	}
	b, err := dpmaps.NewBlocking(lists, trust)
	if err == nil {
		err = s.Set.PutBlocking(b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// happen does what may happen between two packets.
func (s *scene) happen(t *testing.T) {
	switch s.IntN(12) {
	case 0, 1, 2, 3:
		s.send(t)
	case 4:
		s.Advance(t, time.Duration(s.Int64N(int64(oneOf(s.draw, time.Second, time.Minute, 10*time.Minute, 5*24*time.Hour)))))
	case 5:
		clock := s.Clock(t)
		ban := dpmaps.Ban{Prefix: s.network(), Since: clock.Time, Reason: "test"}
		if s.times(2, 3) {
			ban.Until = clock.Time.Add(time.Duration(s.Int64N(int64(time.Hour))))
		}
		if _, err := s.Set.PutBans(clock, []dpmaps.Ban{ban}); err != nil {
			t.Fatal(err)
		}
		s.bans = append(s.bans, ban.Prefix)
	case 6, 7:
		if len(s.bans) > 0 {
			if _, err := s.Set.RemoveBans(s.Clock(t), s.bans[:1]); err != nil {
				t.Fatal(err)
			}
			s.bans = s.bans[1:]
		}
	case 8:
		if flows := s.Flows(t); s.times(1, 4) && len(flows) > 0 { // as close --kill does
			f := flows[s.IntN(len(flows))]
			f.State, f.Expires = dpmaps.FlowKilled, s.Now(t)+1000*testdp.HZ
			s.Enter(t, &f, true)
		}
	case 9:
		s.Sweep(t, s.times(1, 8))
	}
	if s.reject {
		s.Advance(t, 100*time.Millisecond) // a CPU's answers are renewed, of which a dry run knows nothing
	}
}

// compare asks what becomes of a packet, and then looks.
func (s *scene) compare(t *testing.T, b []byte, about func() string) {
	t.Helper()
	path := oneOf(s.draw, testdp.Ingress...)
	if !testdp.CanRun(path, b) {
		path = testdp.XDP
	}
	s.Counted(t)
	began := s.Now(t)
	says := s.explain(t, path, b)
	passed := s.Run(t, path, b, testdp.From{Device: s.w.outside})
	up := s.Counted(t)
	want := map[dpmaps.Reason]uint64{says.Reason: 1}
	if says.Invalid != 0 {
		want[says.Invalid] = 1
	}
	s.w.packets++
	passes := says.Reason.Verdict() == dpmaps.Pass || says.Reason.Verdict() == dpmaps.WouldDrop
	if passed != passes || !maps.Equal(up, want) {
		if s.Now(t) != began {
			s.w.unclear++
			return
		}
		t.Errorf("%s: is said to %s by %v, and passes: %v by %v: %x\n%s", path, says.Reason.Verdict(), want, passed, up, b, about())
	}
	kind := says.Reason.Verdict() + " " + says.Reason.String()
	if strings.HasPrefix(kind, "pass rule ") {
		kind = "pass rule"
	}
	s.w.reasons[kind]++
	switch says.Reason.String() {
	case "established":
		if says.Flow == nil {
			t.Errorf("%s: established, and no flow: %x", path, b)
		}
	case "blocked", "banned":
		if (says.List != 0) == says.IsBanned() {
			t.Errorf("%s: %s by list %d, or a ban: %v", path, says.Reason, says.List, says.IsBanned())
		}
	case "limit":
		if says.Limited == 0 || says.Wait <= 0 {
			t.Errorf("%s: over the limit of rule %d, for %v", path, says.Limited, says.Wait)
		}
	}
	if says.Reason.Verdict() == dpmaps.Drop && says.Reason.String() == "rejected" && says.Refused.Verdict() != dpmaps.Drop {
		t.Errorf("%s: rejected, and would be dropped by %s: %x", path, says.Refused, b)
	}
}

func (s *scene) explain(t *testing.T, path testdp.Path, b []byte) *dpmaps.Explanation {
	t.Helper()
	if !testdp.CanRun(path, b) {
		path = testdp.XDP
	}
	says, err := s.dry[path].Run(dryrun.Frame{Bytes: b, Device: s.w.outside})
	if err != nil {
		t.Fatal(err)
	}
	return says
}

// The hosts that packets come from, few, so that what is drawn meets.
var (
	peers   = addresses("192.0.2.2", "192.0.2.9", "203.0.113.7", "203.0.113.8", "198.18.5.5", "2001:db8::2", "2001:db8::9", "2001:db8:ff::7", "2001:db8:ff::8", "2400::5")
	ours    = []netip.Addr{lab.ServerV4, lab.ServerV6}
	insides = []netip.Addr{lab.InsideV4, lab.InsideV6}
)

func addresses(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// network is that of a peer.
func (s *scene) network() netip.Prefix {
	a := oneOf(s.draw, peers...)
	p, _ := a.Prefix(oneOf(s.draw, a.BitLen(), a.BitLen(), a.BitLen()-1, a.BitLen()-8)) // within the bounds
	return p
}

// fullPolicy returns the text of a policy that says something of everything.
func (s *scene) fullPolicy() string {
	for {
		var b strings.Builder
		fmt.Fprintf(&b, "input: %s\ninvalid: %s\nicmp: %s\n", oneOf(s.draw, "drop", "drop", "reject", "accept"), oneOf(s.draw, "log", "drop", "accept"),
			oneOf(s.draw, "accept", "drop", "[echo-request]", "[destination-unreachable, timestamp-request]"))
		switch s.IntN(4) {
		case 0:
			fmt.Fprintf(&b, "forward: %s\n", oneOf(s.draw, "accept", "established", "drop"))
		case 1, 2:
			fmt.Fprintf(&b, "forward: {policy: %s, open: [%s]}\n", oneOf(s.draw, "drop", "established"), quoted(s.rules(5, insides)))
		}
		fmt.Fprintf(&b, "open: [%s]\n", quoted(s.rules(7, ours)))
		if _, err := policy.Parse("policy", []byte("interfaces: [eth0]\n"+b.String())); err == nil {
			return b.String()
		}
	}
}

func (s *scene) rules(most int, to []netip.Addr) (rules []string) {
	for range s.IntN(most + 1) {
		r := oneOf(s.draw, "22/tcp", "80/tcp", "1000-2000/tcp", "53/udp", "1000-2000/udp", "80/sctp", "53/udplite", "gre", "proto/253", "all", "22/tcp", "80/tcp")
		if s.times(1, 2) {
			r += " from " + s.network().String()
		}
		if s.times(1, 4) {
			r += fmt.Sprintf(" to %s,%s", to[0], to[1])
		}
		if s.times(1, 3) {
			r += fmt.Sprintf(" limit %s burst %d", oneOf(s.draw, "2/minute", "1/hour", "1/second"), 1+s.IntN(3))
		}
		if !slices.Contains(rules, r) {
			rules = append(rules, r)
		}
	}
	return rules
}

// transport is what stands behind an IP header, of a protocol that frame knows.
func (s *scene) transport(six bool, from, to uint16) frame.Layer {
	switch s.IntN(10) {
	case 0, 1, 2, 3:
		return frame.TCP{SrcPort: from, DstPort: to, Seq: 1000, Ack: 1, Flags: s.flags()}
	case 4, 5, 6:
		return frame.UDP{SrcPort: from, DstPort: to}
	case 7:
		return oneOf[frame.Layer](s.draw, frame.UDPLite{SrcPort: from, DstPort: to}, frame.SCTP{SrcPort: from, DstPort: to, Chunk: frame.ChunkInit})
	}
	if six {
		return frame.ICMPv6{Type: oneOf[uint8](s.draw, frame.Echo6, frame.Echo6, frame.EchoReply6, frame.NeighborSolicitation, 200), ID: from, Seq: 1}
	}
	return frame.ICMPv4{Type: oneOf[uint8](s.draw, frame.Echo, frame.Echo, frame.EchoReply, 13, 40), ID: from, Seq: 1}
}

func (s *scene) flags() uint8 {
	return oneOf[uint8](s.draw, frame.SYN, frame.SYN, frame.SYN|frame.ACK, frame.ACK, frame.ACK|frame.PSH, frame.FIN|frame.ACK, frame.RST, frame.RST|frame.ACK, frame.SYN|frame.FIN, 0)
}

func (s *scene) port() uint16 { return oneOf[uint16](s.draw, 22, 53, 80, 1000, 1500, 2001, 40000) }

func ipOf(src, dst netip.Addr) frame.Layer {
	if src.Is4() {
		return frame.IPv4{Src: src, Dst: dst}
	}
	return frame.IPv6{Src: src, Dst: dst}
}

func family6(addrs []netip.Addr, six bool) (out []netip.Addr) {
	for _, a := range addrs {
		if a.Is6() == six {
			out = append(out, a)
		}
	}
	return out
}

// send lets this host, or one behind it, send something.
func (s *scene) send(t *testing.T) {
	six := s.times(1, 2)
	p := packetOut{src: family6(ours, six)[0], dst: oneOf(s.draw, family6(peers, six)...)}
	from := testdp.From{Device: s.w.outside}
	if s.times(1, 3) {
		p.src, from.Routed = family6(insides, six)[0], s.w.inside
	}
	p.layer = s.transport(six, s.port(), s.port())
	s.sent = append(s.sent, p)
	s.Run(t, testdp.Out, frame.Build(frame.Ethernet{Src: routerMAC}, ipOf(p.src, p.dst), p.layer), from)
}

// answerTo returns what may come back for a packet.
func (s *scene) answerTo(p packetOut) frame.Layer {
	switch l := p.layer.(type) {
	case frame.TCP:
		return frame.TCP{SrcPort: l.DstPort, DstPort: l.SrcPort, Seq: oneOf[uint32](s.draw, 1, 1, 2, 70000), Ack: l.Seq + oneOf[uint32](s.draw, 0, 1, 1, 70000), Flags: s.flags()}
	case frame.UDP:
		return frame.UDP{SrcPort: l.DstPort, DstPort: l.SrcPort}
	case frame.UDPLite:
		return frame.UDPLite{SrcPort: l.DstPort, DstPort: l.SrcPort}
	case frame.SCTP:
		return frame.SCTP{SrcPort: l.DstPort, DstPort: l.SrcPort, Chunk: l.Chunk + 1}
	case frame.ICMPv4:
		return frame.ICMPv4{Type: frame.EchoReply, ID: l.ID, Seq: l.Seq}
	case frame.ICMPv6:
		return frame.ICMPv6{Type: frame.EchoReply6, ID: l.ID, Seq: l.Seq}
	}
	panic("what is that")
}

// arrival returns a frame that comes in, and what it is.
func (s *scene) arrival() ([]byte, string) {
	six := s.times(1, 2)
	eth := frame.Ethernet{Dst: routerMAC, Src: frame.MAC{2, 0, 0, 0, 0, 9}}
	src, dst := oneOf(s.draw, family6(peers, six)...), family6(ours, six)[0]
	if s.times(1, 4) {
		dst = family6(insides, six)[0]
	}
	layer := s.transport(six, s.port(), s.port())
	switch n := s.IntN(24); {
	case n < 9 && len(s.sent) > 0:
		p := s.sent[len(s.sent)-1-s.IntN(min(len(s.sent), 12))]
		if s.times(1, 5) { // an error about it
			error := frame.Layer(frame.ICMPv4{Type: frame.Unreachable, Code: 1})
			if p.src.Is6() {
				error = frame.ICMPv6{Type: frame.Unreachable6}
			}
			return frame.Build(eth, ipOf(oneOf(s.draw, family6(peers, p.src.Is6())...), p.src), error, ipOf(p.src, p.dst), p.layer), "an error about what was sent"
		}
		return frame.Build(eth, ipOf(p.dst, p.src), s.answerTo(p)), "an answer"
	case n == 9:
		eth.Dst = frame.MAC{2, 0, 0, 0, 0, byte(s.IntN(3))}
	case n == 10:
		b := frame.Build(eth, ipOf(src, dst), layer)
		for range 1 + s.IntN(3) {
			b[12+s.IntN(min(len(b), 70)-12)] = byte(s.Uint32())
		}
		return b, "a broken packet"
	case n == 11:
		b := frame.Build(eth, ipOf(src, dst), layer)
		return b[:frame.EthernetLen+s.IntN(len(b)-frame.EthernetLen)], "a packet that was cut off"
	case n == 12:
		offset, body := uint16(s.IntN(3)), frame.Raw(make([]byte, 8*(1+s.IntN(4))))
		if six {
			return frame.Build(eth, ipOf(src, dst), frame.Fragment{NextHeader: frame.Exactly(uint16(oneOf(s.draw, 6, 17))), Offset: offset, MoreFragments: true, ID: 7}, body), "a fragment"
		}
		return frame.Build(eth, frame.IPv4{Src: src, Dst: dst, Protocol: oneOf[uint8](s.draw, 6, 17), Offset: offset, MoreFragments: true, ID: 7}, body), "a fragment"
	case n == 13:
		number := oneOf[uint8](s.draw, frame.ProtoGRE, frame.ProtoESP, 253)
		if six {
			return frame.Build(eth, frame.IPv6{Src: src, Dst: dst, NextHeader: frame.Exactly(uint16(number))}, frame.Raw("12345678")), "another protocol"
		}
		return frame.Build(eth, frame.IPv4{Src: src, Dst: dst, Protocol: number}, frame.Raw("12345678")), "another protocol"
	case n == 14:
		layer = frame.UDP{SrcPort: 67, DstPort: 68}
		if six {
			layer, dst = frame.UDP{SrcPort: 547, DstPort: 546}, netip.MustParseAddr("fe80::1")
		}
	case n == 15:
		dst = netip.MustParseAddr("224.0.0.5")
		if six {
			dst = netip.MustParseAddr("ff02::5")
		}
	case n == 16 && s.times(1, 2):
		return append(frame.Build(eth)[:12], 0x08, 0x06, 1, 2, 3, 4), "not IP"
	case n == 18:
		if six {
			return frame.Build(eth, frame.IPv6{Src: src, Dst: dst, NextHeader: frame.Exactly(oneOf[uint16](s.draw, 0, 17, 60))}, frame.Raw("123")), "headers that end early"
		}
		return frame.Build(eth, frame.IPv4{Src: src, Dst: dst, Protocol: frame.ProtoUDP}, frame.Raw("123")), "headers that end early"
	case n == 17:
		tags := []frame.Layer{eth, frame.VLAN{ID: 5}, frame.VLAN{ID: 6}, frame.VLAN{ID: 7}}[:2+s.IntN(3)]
		return frame.Build(append(tags, ipOf(src, dst), layer)...), "a tagged packet"
	}
	return frame.Build(eth, ipOf(src, dst), layer), "a packet"
}
