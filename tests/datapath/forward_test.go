// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net"
	"net/netip"
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// router is a host with a client outside and one inside, and what it calls its own.
type router struct {
	host    *lab.Host
	outside testdp.From // the device towards the client
	inside  uint32      // the index of the other one
}

// newRouter makes a router whose device has the MAC of the constants.
func newRouter(t testing.TB) router {
	t.Helper()
	l := lab.New(t)
	l.AddInside(t)
	l.Server.IP(t, "link", "set", "eth0", "address", net.HardwareAddr(ours[:]).String())
	l.Server.IP(t, "route", "add", "default", "via", lab.ClientV4.String())
	l.Server.IP(t, "route", "add", "default", "via", lab.ClientV6.String())
	r := router{host: l.Server}
	r.outside = testdp.From{Device: r.indexOf(t, "eth0")}
	r.inside = r.indexOf(t, "eth1")
	return r
}

// load loads the datapath for the router, with the local prefixes that it has.
func (r router) load(t testing.TB, policy string) *testdp.Datapath {
	t.Helper()
	d := load(t, testdp.Options{Policy: policy, MAC: ours})
	var local []netip.Prefix
	for _, a := range []netip.Addr{lab.ServerV4, lab.ServerV6, lab.RouterV4, lab.RouterV6} {
		local = append(local, netip.PrefixFrom(a, a.BitLen()))
	}
	broadcast := []netip.Prefix{netip.MustParsePrefix("192.0.2.255/32"), netip.MustParsePrefix("198.51.100.255/32")}
	local = append(local, netip.MustParsePrefix("127.0.0.0/8"))
	if err := d.Set.PutLocal(local, broadcast); err != nil {
		t.Fatal(err)
	}
	return d
}

// forwardPolicy has ports open on the router, which are nothing to those behind it.
const forwardPolicy = `
open: [80/tcp, 60000-61000/udp, '22/tcp from 192.0.2.2, 2001:db8::2']
icmp: accept
forward: `

// routing is a world with a client, a router and a host behind it.
type routing struct {
	world
	inside netip.Addr
}

func (w routing) framed(src, dst netip.Addr, layers ...frame.Layer) []byte {
	return frame.Build(append([]frame.Layer{frame.Ethernet{Dst: ours}, w.ip(src, dst)}, layers...)...)
}

// through is a frame from the client to the host inside, and back one of that host to the client.
func (w routing) through(layers ...frame.Layer) []byte { return w.framed(w.peer, w.inside, layers...) }
func (w routing) back(layers ...frame.Layer) []byte    { return w.framed(w.inside, w.peer, layers...) }
func (w routing) to(dst netip.Addr, layers ...frame.Layer) []byte {
	return w.framed(w.peer, dst, layers...)
}

func routings() []routing {
	return []routing{{worlds[0], lab.InsideV4}, {worlds[1], lab.InsideV6}}
}

func (r router) inBoth(t *testing.T, policy string, cases func(routing) []arrival) {
	t.Helper()
	d := r.load(t, policy)
	for _, w := range routings() {
		t.Run(w.String(), func(t *testing.T) {
			list := cases(w)
			for i := range list {
				list[i].from = r.outside
			}
			arriveAt(t, r.host, d, list)
		})
	}
}

func TestForwarding(t *testing.T) {
	r := newRouter(t)
	for _, p := range []struct {
		policy     string
		first      want // what nothing went before
		reply      want
		relatedErr want
		later      want
	}{
		{"drop", notForwarded, notForwarded, notForwarded, fragment}, // perhaps of a published port's answer
		{"established", notForwarded, established, related, fragment},
		{"accept", forwarded, forwarded, forwarded, forwarded},
	} {
		t.Run(p.policy, func(t *testing.T) {
			r.inBoth(t, forwardPolicy+p.policy, func(w routing) []arrival {
				asked := []step{}
				if p.policy != "drop" {
					asked = []step{
						routed(w.back(frame.TCP{SrcPort: 40000, DstPort: 443, Seq: 1, Flags: frame.SYN})),
						routed(w.back(frame.UDP{SrcPort: 40000, DstPort: 53})),
						routed(w.back(frame.UDP{SrcPort: 60500, DstPort: 53})),
						routed(w.back(w.echo(7, 1))),
						routed(framed(w.number(w.inside, w.peer, frame.ProtoESP), nil)),
					}
				}
				sa := frame.TCP{SrcPort: 443, DstPort: 40000, Flags: frame.SYN | frame.ACK}
				group, broadcast, everybody := addr("224.0.0.5"), addr("192.0.2.255"), addr("255.255.255.255")
				if w.family == 6 {
					group, broadcast, everybody = addr("ff02::5"), w.us, addr("ff02::1")
				}
				quote := w.ip(w.inside, w.peer)
				part := w.fragmentOf(w.peer, w.inside, frame.ProtoUDP, 9, false, make([]byte, 16))
				copy(part, ours[:])
				offer := frame.UDP{SrcPort: 67, DstPort: 68}
				offers := []arrival{
					{name: "a DHCP offer of an address that only the default route leads to", frame: w.to(addr("203.0.113.77"), offer), want: dhcp},
					{name: "a DHCP offer to a host inside", frame: w.through(offer), want: p.first},
					{name: "to 0.0.0.0", frame: w.framed(addr("0.0.0.0"), addr("0.0.0.0"), udp(23)), want: closedPort},
					{name: "to 0.0.0.0, from a peer", frame: w.to(addr("0.0.0.0"), syn(80)), want: rule("80/tcp")},
				}
				if w.family == 6 {
					answer := frame.UDP{SrcPort: 547, DstPort: 546}
					offers = []arrival{
						{name: "an answer of DHCPv6", frame: w.to(addr("fe80::1"), answer), want: dhcp},
						{name: "an answer of DHCPv6 to another address of ours", frame: w.to(w.us, answer), want: closedPort},
						{name: "an answer of DHCPv6 to a host inside", frame: w.through(answer), want: p.first},
					}
				}
				return append(offers, []arrival{
					{name: "a SYN to this host's open port", frame: w.to(w.us, syn(80)), want: rule("80/tcp")},
					{name: "a SYN to this host's closed port", frame: w.to(w.us, syn(23)), want: closedPort},
					{name: "a SYN to this host's broadcast address", frame: w.to(broadcast, syn(80)), want: rule("80/tcp")},
					{name: "a SYN to a multicast address", frame: w.to(group, syn(23)), want: closedPort},
					{name: "a SYN to everybody", frame: w.to(everybody, syn(80)), want: rule("80/tcp")},
					{name: "a ping to this host", frame: w.to(w.us, w.echo(1, 1)), want: icmpOpen},
					{name: "an answer to this host", before: []step{sent(w.out(frame.UDP{SrcPort: 41000, DstPort: 53}))},
						frame: w.to(w.us, frame.UDP{SrcPort: 53, DstPort: 41000}), want: established},
					{name: "a SYN through it", frame: w.through(syn(23)), want: p.first},
					{name: "a SYN through it to a port that is open here", frame: w.through(syn(80)), want: p.first},
					{name: "a SYN through it to a port that is restricted here", frame: w.through(syn(22)), want: p.first},
					{name: "UDP through it to a port that is open here", frame: w.through(udp(60500)), want: p.first},
					{name: "a ping through it", frame: w.through(w.echo(9, 1)), want: p.first},
					{name: "ESP through it", frame: w.through(frame.Text("")), want: p.first},
					{name: "a SYN-ACK for nothing", frame: w.through(sa), want: p.first},
					{name: "a SYN-ACK for a SYN that was routed", before: asked, frame: w.through(sa), want: p.reply},
					{name: "an answer for UDP that was routed", before: asked,
						frame: w.through(frame.UDP{SrcPort: 53, DstPort: 40000}), want: p.reply},
					{name: "an answer for UDP that was routed, from a port that is open here", before: asked,
						frame: w.through(frame.UDP{SrcPort: 53, DstPort: 60500}), want: p.reply},
					{name: "a reply for a ping that was routed", before: asked,
						frame: w.through(w.reply(7, 1)), want: p.reply},
					{name: "a reply for another ping", before: asked, frame: w.through(w.reply(8, 1)), want: p.first},
					{name: "an error about what was routed", before: asked,
						frame: w.through(w.unreachable(), quote, frame.UDP{SrcPort: 40000, DstPort: 53}), want: p.relatedErr},
					{name: "an error about something else", before: asked,
						frame: w.through(w.unreachable(), quote, frame.UDP{SrcPort: 40009, DstPort: 53}), want: p.first},
					{name: "an error about a port that is open here", before: asked,
						frame: w.through(w.unreachable(), quote, frame.TCP{SrcPort: 80, DstPort: 9, Flags: frame.ACK}), want: p.first},
					{name: "an error about a port that is restricted here", before: asked,
						frame: w.through(w.unreachable(), quote, frame.TCP{SrcPort: 22, DstPort: 9, Flags: frame.ACK}), want: p.first},
					{name: "an error to this host, about its open port",
						frame: w.to(w.us, w.unreachable(), w.ip(w.us, w.peer), frame.TCP{SrcPort: 80, DstPort: 9, Flags: frame.ACK}), want: related},
					{name: "a later fragment through it", frame: part, want: p.later},
					{name: "something malformed through it", want: map[int]want{4: badIPv4, 6: badIPv6}[w.family],
						frame: frame.With(w.through(syn(80)), frame.EthernetLen, 0)},
				}...)
			})
		})
	}
}

// An address that came after the map of local prefixes was filled is still this host's: the routing table knows it.
func TestAddressesThatTheMapDoesNotKnow(t *testing.T) {
	r := newRouter(t)
	late := map[int]netip.Addr{4: addr("203.0.113.99"), 6: addr("2001:db8:99::99")}
	r.host.IP(t, "addr", "add", late[4].String()+"/32", "dev", "lo")
	r.host.IP(t, "addr", "add", late[6].String()+"/128", "dev", "lo", "nodad")
	cases := func(w routing) []arrival {
		return []arrival{
			{name: "a new address, open port", frame: w.to(late[w.family], syn(80)), want: rule("80/tcp")},
			{name: "a new address, closed port", frame: w.to(late[w.family], syn(23)), want: closedPort},
			{name: "the host inside", frame: w.through(syn(80)), want: notForwarded},
		}
	}
	r.inBoth(t, forwardPolicy+"drop", cases)
	t.Run("while the device itself does not forward", func(t *testing.T) {
		r.host.Sysctl(t, "ipv4/conf/eth0/forwarding", "0")
		r.host.Sysctl(t, "ipv6/conf/eth0/forwarding", "0")
		r.inBoth(t, forwardPolicy+"drop", func(w routing) []arrival {
			if w.family == 4 {
				return cases(w)[:2] // the kernel forwards nothing from there, so there is nothing to hold back
			}
			// IPv6 does forward from there, as long as anything forwards, and the routing table does not tell the
			// program what is local: it has to wait for the map.
			return []arrival{
				{name: "a new address", frame: w.to(late[6], syn(80)), want: notForwarded},
				{name: "the host inside", frame: w.through(syn(80)), want: notForwarded},
				{name: "an address of the map", frame: w.to(w.us, syn(80)), want: rule("80/tcp")},
			}
		})
	})
}

// What leaves is the firewall's business only when it was routed.
func TestRoutedEgress(t *testing.T) {
	for _, c := range []struct {
		policy string
		passes bool
		behind string // the state of a flow that a host behind us begins
	}{
		{"drop", false, ""}, {"established", true, "udp"}, {"accept", true, ""},
	} {
		d := load(t, testdp.Options{Policy: forwardPolicy + c.policy, MAC: ours})
		if err := d.Set.PutLocal([]netip.Prefix{netip.PrefixFrom(worlds[0].us, 32), netip.PrefixFrom(worlds[1].us, 128)}, nil); err != nil {
			t.Fatal(err)
		}
		for i, w := range worlds {
			t.Run(w.String()+"/"+c.policy, func(t *testing.T) {
				d.Forget(t)
				r := &trial{Datapath: d, path: testdp.Out}
				sent(w.out(frame.UDP{SrcPort: 40000, DstPort: 53}))(t, r)
				r.expectState(t, "udp")
				d.Forget(t)
				out := w.out(frame.UDP{SrcPort: 40001, DstPort: 53})
				if c.passes {
					routed(out)(t, r) // as masquerading makes it
					r.expectState(t, "udp")
					d.Forget(t)
					routed(frame.Build(frame.Ethernet{Src: ours}, w.ip(routings()[i].inside, w.peer),
						frame.UDP{SrcPort: 40001, DstPort: 53}))(t, r)
					r.expectState(t, c.behind)
				} else {
					r.from.Routed = 1
					r.expect(t, out, notForwarded)
					r.expectState(t, "")
				}
				arp := frame.Build(frame.Ethernet{Type: frame.TypeARP}, frame.Raw(make([]byte, 28)))
				routed(arp)(t, r)
			})
		}
	}
}

// The device's own MAC counts, also when it is not the one that was known at load.
func TestOwnMACOfADevice(t *testing.T) {
	l := lab.New(t)
	mac := frame.MAC{0x02, 0, 0, 0, 0, 0x42}
	l.Server.IP(t, "link", "set", "eth0", "address", net.HardwareAddr(mac[:]).String())
	d := load(t, testdp.Options{Policy: server, MAC: ours})
	testdp.Enter(t, l.Server.Name)
	device, err := net.InterfaceByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	w := worlds[0]
	for _, c := range []struct {
		name  string
		mac   frame.MAC
		paths map[testdp.Path]want
	}{
		{"the MAC that the device has", mac, map[testdp.Path]want{testdp.XDP: closedPort, testdp.TC: closedPort}},
		{"the MAC known at load", ours, map[testdp.Path]want{testdp.XDP: closedPort, testdp.TC: otherHost}},
		{"another MAC", other, map[testdp.Path]want{testdp.XDP: otherHost, testdp.TC: otherHost}},
		{"no MAC, which lo has", frame.MAC{}, map[testdp.Path]want{testdp.XDP: otherHost, testdp.TC: otherHost}},
	} {
		for path, want := range c.paths {
			r := &trial{d, path, testdp.From{Device: uint32(device.Index)}}
			t.Log(path, c.name)
			r.expect(t, frame.Build(frame.Ethernet{Dst: c.mac}, w.ip(w.peer, w.us), syn(23)), want)
		}
	}
}

// What a container answers through a published port that is open leaves from our address, and begins no flow: whoever
// asks comes in through the port. A host of its own behind us may well use that port to ask.
func TestRoutedFromAnOpenPort(t *testing.T) {
	d := load(t, testdp.Options{Policy: forwardPolicy + "established", MAC: ours})
	if err := d.Set.PutLocal([]netip.Prefix{netip.PrefixFrom(worlds[0].us, 32), netip.PrefixFrom(worlds[1].us, 128)}, nil); err != nil {
		t.Fatal(err)
	}
	for i, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			r := &trial{Datapath: d, path: testdp.Out}
			for _, c := range []struct {
				from  netip.Addr
				state string
			}{{w.us, ""}, {routings()[i].inside, "udp"}} {
				d.Forget(t)
				routed(frame.Build(frame.Ethernet{Src: ours}, w.ip(c.from, w.peer), frame.UDP{SrcPort: 60000, DstPort: 5000}))(t, r)
				r.expectState(t, c.state)
			}
		})
	}
}
