// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// other is the MAC of another host, and ours one that the programs are told is their device's.
var (
	other = frame.MAC{0x02, 0, 0, 0, 0, 0x99}
	ours  = frame.MAC{0x02, 0, 0, 0, 0, 0x01}
)

func TestWhatIsNotIPPasses(t *testing.T) {
	link := func(kind uint16, text string) []byte {
		return frame.Build(frame.Ethernet{Type: kind}, frame.Text(text))
	}
	tcp := frame.Read(worlds[0].in(syn(22)))
	arrive(t, load(t, testdp.Options{Policy: server}), []arrival{
		{name: "an ARP request", want: notIP, frame: frame.Build(frame.Ethernet{Dst: frame.Broadcast, Type: frame.TypeARP},
			frame.Raw{0, 1, 8, 0, 6, 4, 0, 1}, frame.Raw(make([]byte, 20)))},
		{name: "LLDP", want: notIP, frame: frame.Build(
			frame.Ethernet{Dst: frame.MAC{1, 0x80, 0xc2, 0, 0, 0x0e}, Type: frame.TypeLLDP}, frame.Text("neighbour"))},
		{name: "EAPOL", want: notIP, frame: link(frame.TypeEAPOL, "\x01\x01\x00\x00")},
		{name: "an 802.3 frame with a length", want: notIP,
			frame: link(38, "\x42\x42\x03spanning tree, for one, is in such frames")},
		{name: "an 802.3 frame of length 0", want: notIP, frame: link(0, "")},
		{name: "PPPoE", want: notIP, frame: link(frame.TypePPPoE, "\x11\x00\x00\x01\x00\x16\x00\x21E")},
		{name: "MPLS", want: notIP, frame: link(frame.TypeMPLS, "\x00\x01\x01\x40"+string(tcp.Payload))},
		{name: "an EtherType nobody knows", want: notIP, frame: link(0xffff, "?")},
		{name: "nothing but an Ethernet header", want: notIP, frame: link(0x88b5, "")},
		{name: "ARP behind a tag", want: notIP,
			frame: frame.Build(frame.Ethernet{}, frame.VLAN{ID: 5, Type: frame.TypeARP}, frame.Raw(make([]byte, 28)))},
		{name: "IPv4 under a reversed EtherType", want: notIP, frame: frame.With(worlds[0].in(syn(22)), 12, 0x00, 0x08)},
	})
}

func TestTagsAreReadThrough(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		tagged := func(port uint16, tags ...frame.Layer) []byte {
			layers := append([]frame.Layer{frame.Ethernet{}}, tags...)
			return frame.Build(append(layers, w.ip(w.peer, w.us), syn(port))...)
		}
		q := func(id uint16) frame.VLAN { return frame.VLAN{ID: id} }
		ad := func(id uint16) frame.VLAN { return frame.VLAN{ID: id, Service: true} }
		open := rule("80/tcp")
		return []arrival{
			{name: "no tag, open port", frame: tagged(80), want: open},
			{name: "VID 0, open port", frame: tagged(80, q(0)), want: open},
			{name: "VID 0, closed port", frame: tagged(23, q(0)), want: closedPort},
			{name: "VID 0 with a priority, open port", frame: tagged(80, q(0xe000)), want: open},
			{name: "VID 10, open port", frame: tagged(80, q(10)), want: open},
			{name: "VID 10, closed port", frame: tagged(23, q(10)), want: closedPort},
			{name: "VID 4095, closed port", frame: tagged(23, q(4095)), want: closedPort},
			{name: "802.1ad alone, closed port", frame: tagged(23, ad(3)), want: closedPort},
			{name: "802.1ad 0 and 802.1Q 0, open port", frame: tagged(80, ad(0), q(0)), want: open},
			{name: "802.1ad and 802.1Q, closed port", frame: tagged(23, ad(3), q(7)), want: closedPort},
			{name: "two 802.1Q tags, open port", frame: tagged(80, q(3), q(7)), want: open},
			{name: "three tags, open port", frame: tagged(80, ad(1), q(2), q(3)), want: badVLAN},
			{name: "three tags, closed port", frame: tagged(23, q(1), q(2), q(3)), want: badVLAN},
			{name: "cut off where the tag begins", frame: frame.Cut(tagged(80, q(5)), 14), want: badVLAN},
			{name: "cut off inside the tag", frame: frame.Cut(tagged(80, q(5)), 17), want: badVLAN},
			{name: "cut off where the second tag begins", frame: frame.Cut(tagged(80, ad(5), q(6)), 18), want: badVLAN},
			{name: "cut off inside the second tag", frame: frame.Cut(tagged(80, ad(5), q(6)), 21), want: badVLAN},
		}
	})
}

func TestFramesForAnotherMAC(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		to := func(mac frame.MAC, port uint16) []byte {
			return frame.Build(frame.Ethernet{Dst: mac}, w.ip(w.peer, w.us), syn(port))
		}
		return []arrival{
			{name: "to another host's MAC, closed port", frame: to(other, 22), want: otherHost},
			{name: "to another host's MAC, open port", frame: to(other, 80), want: otherHost},
			{name: "ARP to another host's MAC",
				frame: frame.Build(frame.Ethernet{Dst: other, Type: frame.TypeARP}), want: otherHost},
			{name: "something malformed to another host's MAC", frame: frame.Cut(to(other, 80), 20), want: otherHost},
			{name: "to the broadcast MAC, open port", frame: to(frame.Broadcast, 80), want: rule("80/tcp")},
			{name: "to the broadcast MAC, closed port", frame: to(frame.Broadcast, 23), want: closedPort},
			{name: "to a multicast MAC, closed port", frame: to(frame.MAC{1, 0, 0x5e, 0, 0, 1}, 23), want: closedPort},
		}
	})
}

// The MAC that the program was told and the one that the device has now both count.
func TestOwnMACIsThatOfTheConstantOrOfTheDevice(t *testing.T) {
	d := load(t, testdp.Options{Policy: server, MAC: ours})
	w := worlds[0]
	r := &trial{Datapath: d, path: testdp.XDP}
	for _, c := range []struct {
		name string
		mac  frame.MAC
		want want
	}{
		{"the MAC known at load", ours, closedPort},
		{"the MAC that lo has", frame.MAC{}, closedPort},
		{"neither of them", other, otherHost},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.expect(t, frame.Build(frame.Ethernet{Dst: c.mac}, w.ip(w.peer, w.us), syn(23)), c.want)
		})
	}
}

// A flood of random MACs makes no search each. Who has a verdict keeps it, and who has none is filtered.
func TestFloodOfMACs(t *testing.T) {
	d := load(t, testdp.Options{Policy: server})
	w := worlds[0]
	r := &trial{Datapath: d, path: testdp.XDP}
	to := func(number int) []byte {
		mac := frame.MAC{2, 0x77, byte(number >> 24), byte(number >> 16), byte(number >> 8), byte(number)}
		return frame.Build(frame.Ethernet{Dst: mac}, w.ip(w.peer, w.us), syn(23))
	}
	d.Advance(t, time.Hour) // beyond the budget of the test before
	r.expect(t, to(0), otherHost)
	flood := 1
	for ; flood < 200_000 && d.Passes(t, testdp.XDP, to(flood), testdp.From{}); flood++ {
	}
	if flood < 1000 || flood == 200_000 {
		t.Fatalf("after %d MACs the budget is at its end", flood)
	}
	r.expect(t, to(0x1000000), closedPort)
	r.expect(t, to(flood-1), otherHost)
	d.Advance(t, 900*time.Millisecond)
	r.expect(t, to(flood-1), otherHost)
	d.Advance(t, time.Second)
	r.expect(t, to(0x1000001), otherHost)
}
