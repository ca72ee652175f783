// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	gomaps "maps"
	"net"
	"net/netip"
	"testing"

	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// forwardRules let some through, and have more open on the router, which is nothing to those behind it.
const forwardRules = `
open: [80/tcp, '22/tcp from 192.0.2.2, 2001:db8::2']
icmp: accept
forward:
  policy: %s
  open:
    - 443/tcp on eth0 to 198.51.100.2,2001:db8:1::2
    - 53/udp from 192.0.2.2,2001:db8::2
    - 1000-1999/udp on eth0 from 192.0.2.0/24,2001:db8::/64 except 192.0.2.2,2001:db8::2
    - gre on eth*
    - 2222/tcp limit 1/hour burst 1
    - 3333/udp on eth0 limit 1/hour burst 1
    - 5000/udp on eth1
    - all on lan
`

const (
	webBehind = "443/tcp on eth0 to 198.51.100.2,2001:db8:1::2"
	dnsBehind = "53/udp from 192.0.2.2,2001:db8::2"
	greBehind = "gre on eth*"
	sshBehind = "2222/tcp limit 1/hour burst 1"
	udpBehind = "3333/udp on eth0 limit 1/hour burst 1"
)

// interfaces are the router's two, each as a test wants it, under names of its own.
func (r router) interfaces(outside, inside maps.Interface) []maps.Interface {
	outside.Index, inside.Index = int(r.outside.Device), int(r.inside)
	return []maps.Interface{outside, inside}
}

func TestForwardRules(t *testing.T) {
	r := newRouter(t)
	list := r.interfaces(maps.Interface{Name: "eth0", Judged: true}, maps.Interface{Name: "eth1", Judged: true})
	for _, policy := range []string{"drop", "established"} {
		text := fmt.Sprintf(forwardRules, policy)
		r.load(t, text).SetInterfaces(t, list...)
		t.Run(policy, func(t *testing.T) {
			r.inBoth(t, text, func(w routing) []arrival {
				answer := frame.TCP{SrcPort: 40000, DstPort: 443, Flags: frame.ACK}
				asked := []step{r.sentOn(r.inside, r.outside.Device, w.leaving(w.inside, frame.UDP{SrcPort: 7000, DstPort: 40000}))}
				served := []step{ // a conversation that a host outside began, as the device inside has it
					r.sentOn(r.outside.Device, r.inside, w.entering(frame.UDP{SrcPort: 40000, DstPort: 9999})),
				}
				quotes := func(layer frame.Layer) []byte {
					return w.through(w.unreachable(), w.ip(w.inside, w.peer), layer)
				}
				late := w.fragmentOf(w.peer, w.inside, frame.ProtoUDP, 9, false, make([]byte, 16))
				copy(late, ours[:])
				neighbour := addr("192.0.2.9")
				if w.family == 6 {
					neighbour = addr("2001:db8::9")
				}
				return []arrival{
					{name: "a rule to an address", frame: w.through(syn(443)), want: rule(webBehind)},
					{name: "its connection", frame: w.through(answer), want: rule(webBehind)},
					{name: "the rule's port at another address", frame: w.to(w.stranger, syn(443)), want: notForwarded},
					{name: "the rule's port at this host", frame: w.to(w.us, syn(443)), want: closedPort},
					{name: "another protocol at that port", frame: w.through(udp(443)), want: notForwarded},
					{name: "a port that is open here", frame: w.through(syn(80)), want: notForwarded},
					{name: "a port that is restricted here", frame: w.through(syn(22)), want: notForwarded},
					{name: "a rule from a source", frame: w.through(udp(53)), want: rule(dnsBehind)},
					{name: "the same from another source", frame: w.framed(w.stranger, w.inside, udp(53)), want: notForwarded},
					{name: "a source that is excepted", frame: w.through(udp(1500)), want: notForwarded},
					{name: "one that is not", frame: w.framed(neighbour, w.inside, udp(1500)),
						want: rule("1000-1999/udp on eth0 from 192.0.2.0/24,2001:db8::/64 except 192.0.2.2,2001:db8::2")},
					{name: "the last port of a range", frame: w.framed(neighbour, w.inside, udp(1999)),
						want: rule("1000-1999/udp on eth0 from 192.0.2.0/24,2001:db8::/64 except 192.0.2.2,2001:db8::2")},
					{name: "the port behind it", frame: w.framed(neighbour, w.inside, udp(2000)), want: notForwarded},
					{name: "the port before it", frame: w.framed(neighbour, w.inside, udp(999)), want: notForwarded},
					{name: "a protocol without ports", frame: frame.Build(frame.Ethernet{Dst: ours}, w.number(w.peer, w.inside, frame.ProtoGRE), frame.Raw(make([]byte, 8))), want: rule(greBehind)},
					{name: "another one", frame: frame.Build(frame.Ethernet{Dst: ours}, w.number(w.peer, w.inside, frame.ProtoESP), frame.Raw(make([]byte, 8))), want: notForwarded},
					{name: "a rule of another interface", frame: w.through(udp(5000)), want: notForwarded},
					{name: "a ping", frame: w.through(w.echo(9, 1)), want: notForwarded},
					{name: "within a limit", frame: w.through(syn(2222)), want: rule(sshBehind)},
					{name: "over a limit", before: []step{received(w.through(syn(2222)))}, frame: w.through(syn(2222)), want: overLimit},
					{name: "what goes on over a limit", before: []step{received(w.through(syn(2222)))},
						frame: w.through(frame.TCP{SrcPort: 40000, DstPort: 2222, Flags: frame.ACK}), want: rule(sshBehind)},
					{name: "UDP over a limit", before: []step{received(w.through(udp(3333)))}, frame: w.through(udp(3333)), want: overLimit},
					{name: "UDP over a limit, in a flow that was answered", before: []step{
						received(w.through(udp(3333))), r.sentOn(r.outside.Device, r.inside, w.entering(udp(3333))),
						r.receivedAt(r.inside, w.back(frame.UDP{SrcPort: 3333, DstPort: 40000})),
					}, frame: w.through(udp(3333)), want: established},
					{name: "an answer for nothing", frame: w.through(frame.UDP{SrcPort: 40000, DstPort: 7000}), want: notForwarded},
					{name: "an answer to a host behind", before: asked, frame: w.through(frame.UDP{SrcPort: 40000, DstPort: 7000}), want: established},
					{name: "what a rule that is gone has begun, and that was answered", before: after(served,
						r.receivedAt(r.inside, w.back(frame.UDP{SrcPort: 9999, DstPort: 40000}))),
						frame: w.through(frame.UDP{SrcPort: 40000, DstPort: 9999}), want: established},
					{name: "what nobody has answered", before: served, frame: w.through(frame.UDP{SrcPort: 40000, DstPort: 9999}), want: notForwarded},
					{name: "an error about what a host behind has sent", before: asked, frame: quotes(frame.UDP{SrcPort: 7000, DstPort: 40000}), want: related},
					{name: "an error about what it answers by a rule", frame: quotes(frame.TCP{SrcPort: 443, DstPort: 40000, Flags: frame.ACK}), want: related},
					{name: "an error about what it answers in a flow", before: served, frame: quotes(frame.UDP{SrcPort: 9999, DstPort: 40000}), want: related},
					{name: "an error about something else", frame: quotes(frame.TCP{SrcPort: 444, DstPort: 40000, Flags: frame.ACK}), want: notForwarded},
					{name: "an error about a port that is open here", frame: quotes(frame.TCP{SrcPort: 80, DstPort: 40000, Flags: frame.ACK}), want: notForwarded},
					{name: "an error about another host's", frame: w.through(w.unreachable(), w.ip(w.stranger, w.peer),
						frame.TCP{SrcPort: 443, DstPort: 40000, Flags: frame.ACK}), want: notForwarded},
					{name: "a later fragment", frame: late, want: fragment},
				}
			})
		})
	}
}

// Where nothing at all is let through, later fragments are not either. Guests, and ports that may be published, are
// somebody for whom they may be.
func TestLaterFragmentsThrough(t *testing.T) {
	r := newRouter(t)
	for _, open := range []bool{false, true} {
		text := "forward: drop"
		if open {
			text += "\nopen: [80/tcp]"
		}
		d := r.load(t, text)
		for _, w := range routings() {
			in := w.fragmentOf(w.peer, w.inside, frame.ProtoUDP, 9, false, make([]byte, 16))
			out := w.fragmentOf(w.inside, w.peer, frame.ProtoUDP, 9, false, make([]byte, 16))
			copy(in, ours[:])
			copy(out[6:], ours[:])
			for _, guests := range []bool{false, true} {
				d.SetInterfaces(t, r.interfaces(maps.Interface{Name: "eth0"}, maps.Interface{Name: "eth1", Guests: guests})...)
				arrives, leaves := notForwarded, notForwarded
				if open || guests {
					arrives, leaves = fragment, want{passes: true}
				}
				name := fmt.Sprintf("%s/open %t/guests %t", w, open, guests)
				arriveAt(t, r.host, d, []arrival{{name: name, frame: in, want: arrives, from: r.outside}})
				t.Run(name+"/out", func(t *testing.T) {
					testdp.Enter(t, r.host.Name)
					d.Forget(t)
					(&trial{d, testdp.XDP, r.outside}).expectLeaves(t, out, leaves, testdp.From{Device: r.outside.Device, Routed: r.inside})
				})
			}
		}
	}
}

// Guests begin outward, unless a rule names their interface: then the rules alone count.
func TestForwardRulesByInterface(t *testing.T) {
	r := newRouter(t)
	for _, policy := range []string{"drop", "established"} {
		d := r.load(t, fmt.Sprintf(forwardRules, policy))
		for _, c := range []struct {
			what            string
			inside          maps.Interface
			gre, udp, other want
		}{
			{"an interface that no rule names", maps.Interface{Name: "br0", Judged: true}, notForwarded, notForwarded, notForwarded},
			{"guests", maps.Interface{Name: "docker0", Judged: true, Guests: true}, forwarded, forwarded, forwarded},
			{"an interface that rules name", maps.Interface{Name: "eth1", Judged: true}, rule(greBehind), rule("5000/udp on eth1"), notForwarded},
			{"guests that rules name", maps.Interface{Name: "eth1", Judged: true, Guests: true}, rule(greBehind), rule("5000/udp on eth1"), notForwarded},
			{"all from an interface", maps.Interface{Name: "lan", Judged: true}, rule("all on lan"), rule("all on lan"), rule("all on lan")},
		} {
			d.SetInterfaces(t, r.interfaces(maps.Interface{Name: "eth0", Judged: true}, c.inside)...)
			for _, w := range routings() {
				gre := frame.Build(frame.Ethernet{Dst: ours}, w.number(w.inside, w.peer, frame.ProtoGRE), frame.Raw(make([]byte, 8)))
				from := testdp.From{Device: r.inside}
				t.Run(fmt.Sprintf("%s/%s/%s", policy, c.what, w), func(t *testing.T) {
					arriveAt(t, r.host, d, []arrival{
						{name: "gre", frame: gre, want: c.gre, from: from},
						{name: "udp", frame: w.outOf(udp(5000)), want: c.udp, from: from},
						{name: "tcp", frame: w.outOf(syn(443)), want: c.other, from: from},
						{name: "a ping", frame: w.outOf(w.echo(1, 1)), want: c.other, from: from},
					})
				})
			}
		}
	}
}

// outOf is a frame of the host inside to the client, as it comes in.
func (w routing) outOf(layers ...frame.Layer) []byte { return w.framed(w.inside, w.peer, layers...) }

// Under drop, what is routed from an unfiltered interface is judged where it leaves.
func TestRoutedOutByRules(t *testing.T) {
	r := newRouter(t)
	d := r.load(t, fmt.Sprintf(forwardRules, "drop"))
	sa := uint8(frame.SYN | frame.ACK)
	passes, all := want{passes: true}, rule("all on lan")
	for _, c := range []struct {
		what    string
		inside  maps.Interface
		begins  want // a SYN to port 4
		udp     want // to port 5000
		limited want // the second SYN to port 2222
	}{
		{"filtered", maps.Interface{Name: "br0", Judged: true}, passes, passes, passes},
		{"guests", maps.Interface{Name: "docker0", Guests: true}, passes, passes, passes},
		{"guests that rules name", maps.Interface{Name: "eth1", Guests: true}, notForwarded, rule("5000/udp on eth1"), overLimit},
		{"by rules", maps.Interface{Name: "eth1"}, notForwarded, rule("5000/udp on eth1"), overLimit},
		{"all by a rule", maps.Interface{Name: "lan"}, all, all, all},
		{"nobody knows it", maps.Interface{Name: "br0"}, notForwarded, notForwarded, overLimit},
	} {
		d.SetInterfaces(t, r.interfaces(maps.Interface{Name: "eth0", Judged: true}, c.inside)...)
		answer := func(unjudged want) want { // what is judged already passes
			if c.begins.passes {
				return c.begins
			}
			return unjudged
		}
		for _, w := range routings() {
			late := w.fragmentOf(w.inside, w.peer, frame.ProtoUDP, 9, false, make([]byte, 16))
			tcp := func(src netip.Addr, port uint16, flags uint8) []byte {
				return w.leaving(src, frame.TCP{SrcPort: port, DstPort: 40000, Flags: flags})
			}
			about := func(quotedDst netip.Addr, layer frame.Layer) []byte {
				return w.leaving(w.inside, w.unreachable(), w.ip(w.peer, quotedDst), layer)
			}
			flow := []step{r.begun(w.leaving(w.inside, frame.UDP{SrcPort: 7000, DstPort: 40000}))}
			for _, a := range []arrival{
				{name: "a connection", frame: w.leaving(w.inside, syn(4)), want: c.begins},
				{name: "UDP", frame: w.leaving(w.inside, udp(5000)), want: c.udp},
				{name: "over a limit", before: []step{r.leftOrNot(w.leaving(w.inside, syn(2222)))}, frame: w.leaving(w.inside, syn(2222)), want: c.limited},
				{name: "a later fragment", frame: late, want: passes},

				{name: "an answer of what comes in by a rule", frame: tcp(w.inside, 443, sa), want: answer(passes)},
				{name: "its connection", frame: tcp(w.inside, 443, frame.ACK), want: answer(passes)},
				{name: "a connection from that port", frame: tcp(w.inside, 443, frame.SYN), want: c.begins},
				{name: "an answer of another host", frame: tcp(w.stranger, 443, sa), want: answer(notForwarded)},
				{name: "an answer from another port", frame: tcp(w.inside, 444, sa), want: answer(notForwarded)},
				{name: "an answer by UDP", frame: w.leaving(w.inside, frame.UDP{SrcPort: 53, DstPort: 40000}), want: answer(passes)},

				{name: "an answer of a published port", frame: tcp(w.us, 80, sa), want: answer(passes)},
				{name: "an answer of one that is open to the peer", frame: tcp(w.us, 22, sa), want: answer(passes)},
				{name: "a connection from a published port", frame: tcp(w.us, 80, frame.SYN), want: c.begins},
				{name: "an answer of a port that is closed", frame: tcp(w.us, 81, sa), want: answer(notForwarded)},
				{name: "an answer from the port of another host", frame: tcp(w.inside, 80, sa), want: answer(notForwarded)},

				{name: "a ping", frame: w.leaving(w.inside, w.echo(1, 1)), want: c.begins},
				{name: "the reply to a ping", frame: w.leaving(w.inside, w.reply(1, 1)), want: c.begins},

				{name: "an error about what comes in by a rule", frame: about(w.inside, syn(443)), want: answer(passes)},
				{name: "an error about something else", frame: about(w.inside, syn(444)), want: answer(notForwarded)},
				{name: "an error about what comes in by a published port", frame: about(w.us, syn(80)), want: answer(passes)},
				{name: "an error about what came in by the port of another host", frame: about(w.inside, syn(80)), want: answer(notForwarded)},
				{name: "an error about the answer in a flow", before: flow, frame: about(w.inside, frame.UDP{SrcPort: 40000, DstPort: 7000}), want: answer(passes)},
				{name: "what goes on", before: after(flow, r.receivedAt(r.outside.Device, w.through(frame.UDP{SrcPort: 40000, DstPort: 7000}))),
					frame: w.leaving(w.inside, frame.UDP{SrcPort: 7000, DstPort: 40000}), want: answer(passes)},
				{name: "what nobody has answered", before: flow, frame: w.leaving(w.inside, frame.UDP{SrcPort: 7000, DstPort: 40000}), want: answer(notForwarded)},
			} {
				t.Run(fmt.Sprintf("%s/%s/%s", c.what, w, a.name), func(t *testing.T) {
					testdp.Enter(t, r.host.Name)
					d.Forget(t)
					tr := &trial{d, testdp.XDP, r.outside}
					for _, s := range a.before {
						s(t, tr)
					}
					tr.expectLeaves(t, a.frame, a.want, testdp.From{Device: r.outside.Device, Routed: r.inside})
				})
			}
		}
	}
}

// entering is a frame of the client that goes on to the host inside.
func (w routing) entering(layers ...frame.Layer) []byte {
	return frame.Build(append([]frame.Layer{frame.Ethernet{Src: ours}, w.ip(w.peer, w.inside)}, layers...)...)
}

// leaving is a frame that goes out to the client.
func (w routing) leaving(src netip.Addr, layers ...frame.Layer) []byte {
	return frame.Build(append([]frame.Layer{frame.Ethernet{Src: ours}, w.ip(src, w.peer)}, layers...)...)
}

// expectLeaves checks what becomes of a frame that goes out: one that passes is counted by a rule or not at all.
func (r *trial) expectLeaves(t testing.TB, frame []byte, w want, from testdp.From) {
	t.Helper()
	wanted := make(map[maps.Reason]uint64)
	switch {
	case !w.passes:
		expected[w.reason] = true
		wanted[maps.Reason(w.reason)] = 1
	case w.rule != "":
		wanted[r.Rule(w.rule)] = 1
	}
	r.Counted(t)
	passes := r.Passes(t, testdp.Out, frame, from)
	if up := r.Counted(t); passes != w.passes || !gomaps.Equal(up, wanted) {
		t.Errorf("passes: %v, counted %v; want %+v\n%x", passes, up, w, frame)
	}
}

// sentOn is a frame that this host sends on from one interface by another.
func (r router) sentOn(from, by uint32, b []byte) step {
	return leaves(b, testdp.From{Device: by, Routed: from})
}

// begun is one that begins a flow whatever is known of interfaces, as other rules may have let it through.
func (r router) begun(b []byte) step { return leaves(b, testdp.From{Device: r.outside.Device}) }

// leftOrNot is a frame from inside, of which it does not matter whether it leaves.
func (r router) leftOrNot(b []byte) step {
	return func(t testing.TB, tr *trial) {
		t.Helper()
		tr.Passes(t, testdp.Out, b, testdp.From{Device: r.outside.Device, Routed: r.inside})
		tr.Counted(t)
	}
}

// receivedAt is a frame that comes in by an interface, and passes.
func (r router) receivedAt(device uint32, b []byte) step {
	return func(t testing.TB, tr *trial) {
		t.Helper()
		if !tr.Passes(t, tr.path, b, testdp.From{Device: device}) {
			t.Fatalf("on the way to the case, a frame is dropped: %v", tr.Counted(t))
		}
	}
}

// What hosts behind us begin makes flows, and not what they answer to whom a rule let through, unless a TCP connection goes
// on: so nobody outside makes us allocate.
func TestFlowsOfForwardRules(t *testing.T) {
	r := newRouter(t)
	for _, policy := range []string{"drop", "established"} {
		d := r.load(t, fmt.Sprintf(forwardRules, policy))
		d.SetInterfaces(t, r.interfaces(maps.Interface{Name: "eth0", Judged: true}, maps.Interface{Name: "lan", Judged: true})...)
		for _, w := range routings() {
			for _, c := range []struct {
				name  string
				frame []byte
				state string
			}{
				{"a host behind us begins", w.leaving(w.inside, frame.UDP{SrcPort: 7000, DstPort: 9}), "udp"},
				{"it answers by a rule", w.leaving(w.inside, frame.UDP{SrcPort: 53, DstPort: 9}), ""},
				{"it answers whom no rule lets through", frame.Build(frame.Ethernet{Src: ours}, w.ip(w.inside, w.stranger), frame.UDP{SrcPort: 53, DstPort: 9}), "udp"},
				{"it acknowledges by a rule", w.leaving(w.inside, frame.TCP{SrcPort: 443, DstPort: 9, Flags: frame.ACK}), "tcp-loose"},
				{"it accepts by a rule", w.leaving(w.inside, frame.TCP{SrcPort: 443, DstPort: 9, Flags: frame.SYN | frame.ACK}), ""},
				{"it refuses by a rule", w.leaving(w.inside, frame.TCP{SrcPort: 443, DstPort: 9, Flags: frame.RST | frame.ACK}), ""},
				{"it begins from the port of a rule", w.leaving(w.inside, frame.TCP{SrcPort: 443, DstPort: 9, Flags: frame.SYN}), ""},
				{"masqueraded, from a port of a rule", w.leaving(w.us, frame.UDP{SrcPort: 53, DstPort: 9}), "udp"},
				{"masqueraded", w.leaving(w.us, frame.UDP{SrcPort: 7000, DstPort: 9}), "udp"},
				{"this host itself, from a port of a rule", w.leaving(w.us, frame.UDP{SrcPort: 53, DstPort: 10}), "udp"},
			} {
				t.Run(fmt.Sprintf("%s/%s/%s", policy, w, c.name), func(t *testing.T) {
					testdp.Enter(t, r.host.Name)
					d.Forget(t)
					tr := &trial{Datapath: d, path: testdp.Out}
					routedBy := r.inside
					if c.name[:4] == "this" {
						routedBy = 0
					}
					leaves(c.frame, testdp.From{Device: r.outside.Device, Routed: routedBy})(t, tr)
					tr.expectState(t, c.state)
				})
			}
			t.Run(fmt.Sprintf("%s/%s/a flood of SYNs", policy, w), func(t *testing.T) {
				testdp.Enter(t, r.host.Name)
				d.Forget(t)
				tr := &trial{Datapath: d, path: testdp.XDP, from: r.outside}
				src := w.peer
				for range 1000 {
					src = src.Next()
					if src == w.us || !src.Is4() && src == lab.ServerV6 {
						continue
					}
					tr.expect(t, w.framed(src, w.inside, syn(443)), rule(webBehind))
					for _, flags := range []byte{frame.SYN | frame.ACK, frame.RST} {
						answer := frame.Build(frame.Ethernet{Src: ours}, w.ip(w.inside, src), frame.TCP{SrcPort: 443, DstPort: 40000, Flags: flags})
						leaves(answer, testdp.From{Device: r.outside.Device, Routed: r.inside})(t, tr)
					}
				}
				tr.expectState(t, "")
			})
		}
	}
}

// What a trusted source begins is not limited, coming in or, judged there, going out.
func TestLimitsOfForwardRulesLeaveTrustedSourcesAlone(t *testing.T) {
	r := newRouter(t)
	d := r.load(t, fmt.Sprintf(forwardRules, "drop"))
	defer clear(t, d)
	d.SetInterfaces(t, r.interfaces(maps.Interface{Name: "eth0", Judged: true}, maps.Interface{Name: "eth1"})...)
	for _, w := range routings() {
		trust := blocks([]netip.Prefix{single(w.peer)})
		arriveAt(t, r.host, d, []arrival{
			{name: "trusted/" + w.String(), before: after([]step{trust}, repeated(3, w.through(syn(2222)))...), frame: w.through(syn(2222)), want: rule(sshBehind)},
			{name: "no more/" + w.String(), before: after([]step{nobody}, repeated(1, w.through(syn(2222)))...), frame: w.through(syn(2222)), want: overLimit},
		})
		for _, trusted := range []netip.Addr{w.inside, w.stranger} {
			t.Run(fmt.Sprintf("out/%s/%s", w, trusted), func(t *testing.T) {
				testdp.Enter(t, r.host.Name)
				d.Forget(t)
				tr := &trial{d, testdp.XDP, r.outside}
				blocks([]netip.Prefix{single(trusted)})(t, tr)
				r.leftOrNot(w.leaving(w.inside, syn(2222)))(t, tr)
				second := overLimit
				if trusted == w.inside {
					second = rule(sshBehind)
				}
				tr.expectLeaves(t, w.leaving(w.inside, syn(2222)), second, testdp.From{Device: r.outside.Device, Routed: r.inside})
			})
		}
	}
}

// twoRules let through either end of a connection.
const twoRules = `
icmp: drop
flows: {max: 1024}
forward:
  open:
    - all on lan
    - 443/tcp on eth0 to 198.51.100.2,2001:db8:1::2
    - 53/udp on eth0 to 198.51.100.2,2001:db8:1::2
`

// conversation is a TCP connection of a client outside with the host inside, both of which rules let begin.
type conversation struct {
	r    router
	w    routing
	peer netip.Addr
	port uint16 // of the client
}

func (c conversation) say(outward bool, flags uint8, seq, ack uint32) step {
	ip, tcp := c.w.ip(c.peer, c.w.inside), frame.TCP{SrcPort: c.port, DstPort: 443, Flags: flags, Seq: seq, Ack: ack}
	from, by := c.r.outside.Device, c.r.inside
	if outward {
		ip, tcp.SrcPort, tcp.DstPort = c.w.ip(c.w.inside, c.peer), 443, c.port
		from, by = by, from
	}
	return func(t testing.TB, tr *trial) {
		t.Helper()
		c.r.receivedAt(from, frame.Build(frame.Ethernet{Dst: ours}, ip, tcp))(t, tr)
		c.r.sentOn(from, by, frame.Build(frame.Ethernet{Src: ours}, ip, tcp))(t, tr)
	}
}

// handshake is the connection until both ends have said something.
func (c conversation) handshake() []step {
	return []step{
		c.say(false, frame.SYN, 1000, 0), c.say(true, frame.SYN|frame.ACK, 5000, 1001), c.say(false, frame.ACK, 1001, 5001),
		c.say(false, frame.ACK|frame.PSH, 1001, 5001), c.say(true, frame.ACK, 5001, 1001), c.say(false, frame.ACK, 1001, 5001),
	}
}

// A connection that two rules let through has one flow, by which either end goes on, whichever has begun it.
func TestAConnectionOfTwoRulesHasAFlow(t *testing.T) {
	r := newRouter(t)
	d := r.load(t, twoRules)
	d.SetInterfaces(t, r.interfaces(maps.Interface{Name: "eth0", Judged: true}, maps.Interface{Name: "lan", Judged: true})...)
	for _, w := range routings() {
		t.Run(w.String(), func(t *testing.T) {
			testdp.Enter(t, r.host.Name)
			d.Forget(t)
			tr := &trial{Datapath: d, path: testdp.XDP}
			c := conversation{r, w, w.peer, 40000}
			for i, s := range c.handshake() {
				s(t, tr)
				if i < 2 {
					tr.expectState(t, "")
				}
			}
			if flow := tr.expectState(t, "tcp-established"); !flow.Assured {
				t.Errorf("%+v is not assured", flow)
			}
			c.say(true, frame.FIN|frame.ACK, 5001, 1001)(t, tr)
			c.say(false, frame.FIN|frame.ACK, 1001, 5002)(t, tr)
			c.say(true, frame.ACK, 5002, 1002)(t, tr)
			tr.expectState(t, "tcp-time-wait")
			for _, s := range c.handshake() { // the port is used anew
				s(t, tr)
			}
			tr.expectState(t, "tcp-established")
		})
	}
}

// Who forges packets to what two rules let through begins no flow by them but with an ACK, which gives way to all others.
func TestForgedPacketsOfTwoRules(t *testing.T) {
	r := newRouter(t)
	d := r.load(t, twoRules)
	d.SetInterfaces(t, r.interfaces(maps.Interface{Name: "eth0", Judged: true}, maps.Interface{Name: "lan", Judged: true})...)
	for _, w := range routings() {
		for _, c := range []struct {
			name   string
			layer  frame.Layer
			begins bool
		}{
			{"SYN", syn(443), false},
			{"SYN-ACK", frame.TCP{SrcPort: 40000, DstPort: 443, Flags: frame.SYN | frame.ACK}, false},
			{"RST", frame.TCP{SrcPort: 40000, DstPort: 443, Flags: frame.RST}, false},
			{"UDP", udp(53), false},
			{"ACK", frame.TCP{SrcPort: 40000, DstPort: 443, Flags: frame.ACK}, true},
		} {
			t.Run(fmt.Sprintf("%s/%s", w, c.name), func(t *testing.T) {
				testdp.Enter(t, r.host.Name)
				d.Forget(t)
				tr := &trial{Datapath: d, path: testdp.XDP}
				// What nobody has answered yet, which an ordinary flood would push out.
				const pending = 100
				for i := range uint16(pending) {
					leaves(w.leaving(w.inside, frame.UDP{SrcPort: 7000 + i, DstPort: 9}), testdp.From{Device: r.outside.Device, Routed: r.inside})(t, tr)
				}
				src := addr("203.0.113.0")
				if w.family == 6 {
					src = addr("2001:db8:ffff::")
				}
				for range 5000 {
					src = src.Next()
					tr.Passes(t, testdp.Out, frame.Build(frame.Ethernet{Src: ours}, w.ip(src, w.inside), c.layer), testdp.From{Device: r.inside, Routed: r.outside.Device})
				}
				tr.Counted(t)
				mine, forged := 0, 0
				for _, f := range tr.Flows(t) {
					if f.Local.Addr() == w.inside {
						mine++
					} else {
						forged++
					}
				}
				if mine != pending || (forged > 0) != c.begins {
					t.Errorf("%d of %d flows are left, and there are %d of who is forged", mine, pending, forged)
				}
			})
		}
	}
}

// indexOf returns the index of one of the router's interfaces.
func (r router) indexOf(t testing.TB, name string) (index uint32) {
	t.Helper()
	r.host.Do(t, func() error {
		device, err := net.InterfaceByName(name)
		if err == nil {
			index = uint32(device.Index)
		}
		return err
	})
	return index
}
