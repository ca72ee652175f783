// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/portcullis-firewall/portcullis/bpf"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// Rules under which the telltale datapath counts: which of them tells the protocol and the port modulo telltalePorts.
const telltalePorts = 250

func telltaleRule(protocol uint8, port uint16) dpmaps.Reason {
	class := policy.ProtocolIndex(policy.Protocol(protocol))
	return dpmaps.RuleReason(uint16(1 + class*telltalePorts + int(port)%telltalePorts))
}

// telltale loads a datapath in which every port is open, each under a rule that gives it away.
func telltale(tb testing.TB) *testdp.Datapath {
	tb.Helper()
	// Rules enough that there is a counter for each number: the text does not matter.
	d := load(tb, testdp.Options{Policy: "icmp: drop", Rules: 1 + 4*telltalePorts})
	var ports bpf.FirewallPorts
	for i := range ports.Listed {
		ports.Listed[i] = ^uint64(0)
	}
	for _, protocol := range policy.Protocols {
		for port := range 65536 {
			rule := telltaleRule(uint8(protocol), uint16(port)) - dpmaps.RuleReason(0)
			ports.Entries[policy.PortIndex(protocol, uint16(port))].Rule = uint16(rule)
		}
	}
	if err := d.Map(tb, ".bss").Put(uint32(0), &ports); err != nil {
		tb.Fatal(err)
	}
	return d
}

// outcome is what became of a frame on one path.
type outcome struct {
	passes bool
	up     map[dpmaps.Reason]uint64
}

// reason is what decided the frame.
func (o outcome) reason() dpmaps.Reason {
	for reason := range o.up {
		if reason.Verdict() != dpmaps.Seen {
			return reason
		}
	}
	return 0
}

// counted tells whether the frame was counted once, and perhaps once more as invalid.
func (o outcome) counted() bool {
	seen := 0
	for reason, times := range o.up {
		if times != 1 {
			return false
		}
		if reason.Verdict() == dpmaps.Seen {
			seen++
		}
	}
	return seen <= 1 && len(o.up) == 1+seen
}

// outcomeOf runs a frame on every path that takes it, and fails if they disagree.
func outcomeOf(t *testing.T, d *testdp.Datapath, b []byte) outcome {
	t.Helper()
	var first outcome
	for i, path := range testdp.Ingress {
		if !testdp.CanRun(path, b) {
			continue
		}
		d.Counted(t)
		o := outcome{passes: d.Passes(t, path, b, testdp.From{})}
		o.up = d.Counted(t)
		if !o.counted() {
			t.Fatalf("%s counts %v, which is not one packet\n%x", path, o.up, b)
		}
		if want := o.reason().Verdict() == dpmaps.Pass; o.passes != want {
			t.Fatalf("%s: passes: %v, by %s\n%x", path, o.passes, o.reason(), b)
		}
		if i == 0 {
			first = o
		} else if o.passes != first.passes || !maps.Equal(o.up, first.up) {
			t.Fatalf("%s: passes: %v by %s, and on %s %v by %s\n%x", path, o.passes, o.reason(),
				testdp.Ingress[0], first.passes, first.reason(), b)
		}
	}
	return first
}

// FuzzFrame holds the datapath against the reference parser: what it takes for IP, for malformed, and for which port.
func FuzzFrame(f *testing.F) {
	for _, b := range wholeFrames() {
		f.Add(b)
		f.Add(frame.Cut(b, len(b)*2/3))
		f.Add(frame.Padded(b, 9))
	}
	open := telltale(f)
	closed := load(f, testdp.Options{Policy: "icmp: drop"})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < frame.EthernetLen || len(b) > 1514 {
			t.Skip()
		}
		checkFrame(t, open, closed, b)
	})
}

// TestMangledFrames does in every run a little of what the fuzzer does at length.
func TestMangledFrames(t *testing.T) {
	open := telltale(t)
	closed := load(t, testdp.Options{Policy: "icmp: drop"})
	random := rand.New(rand.NewPCG(1, 2))
	frames := wholeFrames()
	for range 2000 {
		b := slices.Clone(frames[random.IntN(len(frames))])
		for range 1 + random.IntN(3) {
			b[12+random.IntN(min(len(b), 90)-12)] = byte(random.Uint32())
		}
		if random.IntN(4) == 0 {
			b = b[:frame.EthernetLen+random.IntN(len(b)-frame.EthernetLen)]
		}
		checkFrame(t, open, closed, b)
	}
}

// checkFrame runs a frame where every port is open and where none is.
func checkFrame(t *testing.T, open, closed *testdp.Datapath, b []byte) {
	t.Helper()
	b = frame.With(b, 0, 0, 0, 0, 0, 0, 0) // for this host
	p := frame.Read(b)
	if got, allowed := outcomeOf(t, open, b).reason(), allowedReasons(p, true); !slices.Contains(allowed, got) {
		t.Errorf("with all ports open: %s, want one of %v\n%+v\n%x", got, allowed, p, b)
	}
	if got, allowed := outcomeOf(t, closed, b).reason(), allowedReasons(p, false); !slices.Contains(allowed, got) {
		t.Errorf("with no port open: %s, want one of %v\n%+v\n%x", got, allowed, p, b)
	}
	if testdp.CanRun(testdp.Out, b) {
		checkFlow(t, closed, b, p)
	}
}

// allowedReasons lists what may become of a packet: the reference says what it is, and not what its ICMP or TCP means.
func allowedReasons(p frame.Packet, open bool) []dpmaps.Reason {
	reasons := func(list ...bpf.FirewallReason) []dpmaps.Reason {
		var out []dpmaps.Reason
		for _, r := range list {
			out = append(out, dpmaps.Reason(r))
		}
		return out
	}
	isICMP := p.Src.Is4() && p.Protocol == frame.ProtoICMP || p.Src.Is6() && p.Protocol == frame.ProtoICMPv6
	switch {
	case p.Fault != "":
		var out []dpmaps.Reason
		for _, r := range dpmaps.Reasons() {
			if r.Verdict() == dpmaps.Drop && r.String() == string(p.Fault) {
				out = append(out, r)
			}
		}
		return out
	case !p.IP:
		return reasons(bpf.FirewallReasonPASS_NOT_IP)
	case p.Later:
		return reasons(bpf.FirewallReasonPASS_FRAGMENT)
	case p.HasPorts && open:
		return []dpmaps.Reason{telltaleRule(p.Protocol, p.DstPort)}
	case p.HasPorts && p.Src.Is4() && p.Protocol == frame.ProtoUDP && p.SrcPort == 67 && p.DstPort == 68:
		return reasons(bpf.FirewallReasonPASS_DHCP, bpf.FirewallReasonDROP_INVALID)
	case p.HasPorts:
		return reasons(bpf.FirewallReasonDROP_CLOSED_PORT, bpf.FirewallReasonDROP_INVALID)
	case isICMP && p.Src.Is6() && len(p.Payload) >= frame.ICMPLen &&
		(p.Payload[0] >= frame.ListenerQuery && p.Payload[0] <= frame.Redirect6 || p.Payload[0] == frame.ListenerReport2):
		return reasons(bpf.FirewallReasonPASS_NEIGHBOR_DISCOVERY)
	case isICMP && open: // about one of the open ports, perhaps
		return reasons(bpf.FirewallReasonDROP_ICMP, bpf.FirewallReasonPASS_RELATED)
	case isICMP:
		return reasons(bpf.FirewallReasonDROP_ICMP)
	}
	return reasons(bpf.FirewallReasonDROP_PROTOCOL)
}

// checkFlow sends the frame out: if that makes a flow, the reference must have read the same addresses and ports.
func checkFlow(t *testing.T, d *testdp.Datapath, b []byte, p frame.Packet) {
	t.Helper()
	if !d.Passes(t, testdp.Out, b, testdp.From{}) {
		t.Errorf("a frame on the way out was dropped\n%x", b)
	}
	for _, f := range d.Flows(t) {
		if !p.IP || p.Fault != "" || p.Later || f.Protocol != p.Protocol || f.Local.Addr() != p.Src || f.Remote.Addr() != p.Dst ||
			p.HasPorts && (f.Local.Port() != p.SrcPort || f.Remote.Port() != p.DstPort) {
			t.Errorf("the flow %+v is not that of %+v\n%x", f, p, b)
		}
	}
	d.Sweep(t, true)
}
