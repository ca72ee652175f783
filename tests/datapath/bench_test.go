// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

const benchPolicy = `
open: [80/tcp, '22/tcp from 203.0.113.0/24, 2001:db8:ff::/48']
icmp: accept
`

// BenchmarkIngress measures one frame of each kind on XDP. ns/op holds the kernel's own cost of a test run;
// ns-over-empty is what the firewall adds to a program that passes everything, measured in turns with it.
func BenchmarkIngress(b *testing.B) {
	v4, v6 := worlds[0], worlds[1]
	query := sent(v4.out(frame.UDP{SrcPort: 40000, DstPort: 53}))
	answer := v4.in(frame.UDP{SrcPort: 53, DstPort: 40000}, frame.Text("answer"))
	for _, c := range []struct {
		name   string
		before []step
		frame  []byte
		passes bool
	}{
		{"closed port", nil, v4.in(syn(23)), false},
		{"closed port, IPv6", nil, v6.in(syn(23)), false},
		{"closed port that is in use", v4.connected(), v4.in(syn(40000)), false},
		{"open port", nil, v4.in(syn(80)), true},
		{"open port, IPv6", nil, v6.in(syn(80)), true},
		{"restricted port", nil, v4.from(v4.friend, syn(22)), true},
		{"restricted port, IPv6", nil, v6.from(v6.friend, syn(22)), true},
		{"established v4", v4.connected(), v4.tcpIn(theirData), true},
		{"established v6", v6.connected(), v6.tcpIn(theirData), true},
		{"ICMP echo", nil, v4.in(v4.echo(7, 1)), true},
		{"UDP established", []step{query, received(answer)}, answer, true},
	} {
		b.Run(c.name, func(b *testing.B) { measure(b, testdp.XDP, c.before, c.frame, c.passes) })
	}
}

// BenchmarkClauses measures what conditions cost where they are asked, and the closed port beside them.
func BenchmarkClauses(b *testing.B) {
	w := worlds[0]
	options := testdp.Options{Policy: "open: [22/tcp limit 6/minute, 443/tcp to 192.0.2.1, 'esp from 203.0.113.0/24']"}
	for _, c := range []struct {
		name   string
		before []step
		frame  []byte
		passes bool
	}{
		{"closed port", nil, w.in(syn(23)), false},
		{"over the limit", repeated(5, w.in(syn(22))), w.in(syn(22)), false},
		{"limited, but nothing new", nil, w.in(frame.TCP{SrcPort: 5, DstPort: 22, Flags: frame.ACK}), true},
		{"at an address", nil, w.in(syn(443)), true},
		{"protocol from a source", nil, w.of(frame.ProtoESP, w.friend), true},
	} {
		b.Run(c.name, func(b *testing.B) { measureWith(b, options, testdp.XDP, c.before, c.frame, c.passes) })
	}
}

// BenchmarkForwardRules measures a packet that is routed and that the last of some rules lets through, as it comes in and as
// it leaves, and one that none does. ns/op holds the kernel's own cost of a test run, and what it takes to look the route up.
func BenchmarkForwardRules(b *testing.B) {
	r := newRouter(b)
	w := routings()[0]
	for _, n := range []int{1, 100, 10_000} {
		text := "forward:\n  open:\n"
		for i := range n {
			text += fmt.Sprintf("    - %d/tcp from 192.0.2.0/24 to 198.51.100.2\n", 10_000+i)
		}
		d := r.load(b, text)
		d.SetInterfaces(b, r.interfaces(maps.Interface{Name: "eth0", Judged: true}, maps.Interface{Name: "eth1"})...)
		port := uint16(10_000 + n - 1)
		answer := w.leaving(w.inside, frame.TCP{SrcPort: port, DstPort: 40000, Flags: frame.ACK})
		for _, c := range []struct {
			name   string
			path   testdp.Path
			frame  []byte
			from   testdp.From
			passes bool
		}{
			{"let through", testdp.XDP, w.through(syn(port)), r.outside, true},
			{"not let through", testdp.XDP, w.through(syn(9)), r.outside, false},
			{"the answer leaves", testdp.Out, answer, testdp.From{Device: r.outside.Device, Routed: r.inside}, true},
		} {
			b.Run(fmt.Sprintf("%s/%d rules", c.name, n), func(b *testing.B) {
				testdp.Enter(b, r.host.Name)
				d.Repeat(b, c.path, c.frame, c.from, c.passes, b.N)
			})
		}
	}
}

// BenchmarkEgress measures a frame of an established flow on its way out.
func BenchmarkEgress(b *testing.B) {
	for _, w := range worlds {
		b.Run("established "+w.String(), func(b *testing.B) {
			measure(b, testdp.Out, w.connected(), w.tcpOut(ourData), true)
		})
	}
	b.Run("from an open port", func(b *testing.B) {
		answer := worlds[0].out(frame.TCP{SrcPort: 80, DstPort: 50000, Flags: frame.ACK}, frame.Text("200"))
		measure(b, testdp.Out, nil, answer, true)
	})
}

// BenchmarkMultiBuffer measures what a device pays whose frames may lie in several buffers.
func BenchmarkMultiBuffer(b *testing.B) {
	w := worlds[0]
	options := testdp.Options{Policy: benchPolicy, MultiBuffer: true}
	b.Run("closed port", func(b *testing.B) { measureWith(b, options, testdp.XDP, nil, w.in(syn(23)), false) })
	b.Run("open port", func(b *testing.B) { measureWith(b, options, testdp.XDP, nil, w.in(syn(80)), true) })
	b.Run("established v4", func(b *testing.B) {
		measureWith(b, options, testdp.XDP, w.connected(), w.tcpIn(theirData), true)
	})
}

const rounds = 5

func measure(b *testing.B, path testdp.Path, before []step, frame []byte, passes bool) {
	b.Helper()
	measureWith(b, testdp.Options{Policy: benchPolicy}, path, before, frame, passes)
}

func measureWith(b *testing.B, o testdp.Options, path testdp.Path, before []step, frame []byte, passes bool) {
	b.Helper()
	d := load(b, o)
	if err := d.Set.PutLocal([]netip.Prefix{netip.PrefixFrom(worlds[0].us, 32), netip.PrefixFrom(worlds[1].us, 128)}, nil); err != nil {
		b.Fatal(err)
	}
	r := &trial{Datapath: d, path: testdp.XDP}
	for _, s := range before {
		s(b, r)
	}
	empty := emptyProgram(b, path)
	repeat := max(1, b.N/rounds)
	var base, full []time.Duration
	for range rounds {
		base = append(base, timed(b, empty, frame, repeat, testdp.Verdict(path, true)))
		full = append(full, timed(b, d.Program(path), frame, repeat, testdp.Verdict(path, passes)))
	}
	b.ReportMetric(float64(median(full).Nanoseconds()), "ns/op")
	b.ReportMetric(float64((median(full) - median(base)).Nanoseconds()), "ns-over-empty")
}

func timed(b *testing.B, p *ebpf.Program, frame []byte, repeat int, want uint32) time.Duration {
	b.Helper()
	got, took, err := p.Benchmark(frame, repeat, nil)
	if err != nil {
		b.Fatal(err)
	}
	if got != want {
		b.Fatalf("the program returned %d, want %d", int32(got), int32(want))
	}
	return took
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// emptyProgram passes everything.
func emptyProgram(b *testing.B, path testdp.Path) *ebpf.Program {
	b.Helper()
	kind := ebpf.SchedCLS
	if path == testdp.XDP {
		kind = ebpf.XDP
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         kind,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(testdp.Verdict(path, true))), asm.Return()},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close() })
	return p
}
