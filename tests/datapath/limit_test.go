// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

const limitReason = dpmaps.Reason(bpf.FirewallReasonDROP_LIMIT)

// repeated is a frame that comes in n times and is let in.
func repeated(n int, frame []byte) (steps []step) {
	for range n {
		steps = append(steps, received(frame))
	}
	return steps
}

func TestLimits(t *testing.T) {
	const policy = `
open:
  - 22/tcp limit 6/minute
  - 53/udp limit 2/second burst 3
  - gre limit 1/hour burst 1
  - 80/tcp from 203.0.113.0/24,2001:db8:ff::/48
  - 80/tcp limit 1/day burst 2
  - 443/tcp limit 6/minute
  - 443/tcp limit 1/second burst 2
  - 25/tcp to 192.0.2.1,2001:db8::1 limit 1/minute burst 1
  - 25/tcp to 192.0.2.8,2001:db8::8
  - all from 203.0.113.8,2001:db8:ff::8 limit 1/minute burst 1
icmp: drop
`
	inBothUnder(t, testdp.Options{Policy: policy}, func(w world) []arrival {
		ssh, dns, gre := rule("22/tcp limit 6/minute"), rule("53/udp limit 2/second burst 3"), rule("gre limit 1/hour burst 1")
		second, one := addr("192.0.2.8"), addr("203.0.113.8")
		neighbour, network := w.peer.Next(), w.peer.Next()
		want := map[int]want{4: ssh, 6: overLimit}[w.family]
		if w.family == 6 {
			second, one = addr("2001:db8::8"), addr("2001:db8:ff::8")
			network = addr("2001:db8:0:1::2")
		}
		from := w.from(w.peer, syn(22))
		ping := w.from(one, w.echo(7, 1))
		all := rule("all from 203.0.113.8,2001:db8:ff::8 limit 1/minute burst 1")
		return []arrival{
			{name: "the last of a burst", before: repeated(4, from), frame: from, want: ssh},
			{name: "one more", before: repeated(5, from), frame: from, want: overLimit},
			{name: "the next after a pause", before: after(repeated(5, from), waited(10*time.Second)), frame: from, want: ssh},
			{name: "one more after a pause", before: after(repeated(5, from), waited(10*time.Second), received(from)), frame: from, want: overLimit},
			{name: "too early a moment", before: after(repeated(5, from), waited(9*time.Second)), frame: from, want: overLimit},
			{name: "what is refused costs nothing", before: after(repeated(5, from), refused(from), refused(from), waited(10*time.Second)), frame: from, want: ssh},
			{name: "a whole burst after a long pause", before: after(append(repeated(5, from), waited(30*24*time.Hour)), repeated(4, from)...), frame: from, want: ssh},
			{name: "and no more", before: after(append(repeated(5, from), waited(30*24*time.Hour)), repeated(5, from)...), frame: from, want: overLimit},
			{name: "another source", before: repeated(5, from), frame: w.from(w.stranger, syn(22)), want: ssh},
			{name: "a neighbour: for IPv6 the same source", before: repeated(5, from), frame: w.from(neighbour, syn(22)), want: want},
			{name: "another network", before: repeated(5, from), frame: w.from(network, syn(22)), want: ssh},
			{name: "a connection that goes on", before: repeated(5, from), want: ssh,
				frame: w.in(frame.TCP{SrcPort: 5, DstPort: 22, Flags: frame.ACK | frame.PSH}, frame.Text("x"))},
			{name: "the same port in another protocol", before: repeated(5, from), frame: w.in(udp(22)), want: wrongSource},
			{name: "another limit", before: repeated(5, from), frame: w.in(udp(53)), want: dns},
			{name: "each packet of UDP", before: repeated(3, w.in(udp(53))), frame: w.in(udp(53)), want: overLimit},
			{name: "UDP half a second later", before: after(repeated(3, w.in(udp(53))), waited(500*time.Millisecond)), frame: w.in(udp(53)), want: dns},
			{name: "a protocol", frame: w.of(frame.ProtoGRE, w.peer), want: gre},
			{name: "a protocol, too often", before: repeated(1, w.of(frame.ProtoGRE, w.peer)), frame: w.of(frame.ProtoGRE, w.peer), want: overLimit},
			{name: "an answer of ours does not begin a flow: UDP stays limited", want: overLimit, frame: w.in(udp(53)),
				before: after(repeated(3, w.in(udp(53))), sent(w.out(frame.UDP{SrcPort: 53, DstPort: 5})))},
			{name: "those for whom there is no limit", frame: w.from(w.friend, syn(80)), want: rule("80/tcp from 203.0.113.0/24,2001:db8:ff::/48"),
				before: repeated(9, w.from(w.friend, syn(80)))},
			{name: "and the others", before: repeated(2, w.in(syn(80))), frame: w.in(syn(80)), want: overLimit},
			{name: "of two limits the more generous", before: repeated(1, w.in(syn(443))), frame: w.in(syn(443)), want: rule("443/tcp limit 1/second burst 2")},
			{name: "which alone decides", before: repeated(2, w.in(syn(443))), frame: w.in(syn(443)), want: overLimit},
			{name: "a limit at one address", before: repeated(1, w.in(syn(25))), frame: w.in(syn(25)), want: overLimit},
			{name: "and none at another", before: repeated(9, w.at(second, syn(25))), frame: w.at(second, syn(25)), want: rule("25/tcp to 192.0.2.8,2001:db8::8")},
			{name: "a limit of everything", frame: ping, want: all},
			{name: "of everything, too often", before: repeated(1, ping), frame: ping, want: overLimit},
		}
	})
}

// Under input: accept a rule restricts nobody.
func TestLimitsWhereInputIsAccepted(t *testing.T) {
	inBothUnder(t, testdp.Options{Policy: "input: accept\nopen: [22/tcp limit 1/minute burst 1]"}, func(w world) []arrival {
		return []arrival{
			{name: "within the limit", frame: w.in(syn(22)), want: rule("22/tcp limit 1/minute burst 1")},
			{name: "beyond it", before: repeated(1, w.in(syn(22))), frame: w.in(syn(22)), want: inputOpen},
		}
	})
}

// A rate that is more than a burst a tick of the clock is possible, too.
func TestAFastLimit(t *testing.T) {
	d := load(t, testdp.Options{Policy: "open: [53/udp limit 100000/second burst 1]"})
	for _, w := range worlds {
		d.Forget(t)
		in := w.in(udp(53))
		passed := 0
		began := time.Now()
		for range 20 {
			for range 1000 {
				if d.Passes(t, testdp.XDP, in, testdp.From{}) {
					passed++
				}
			}
			d.Advance(t, time.Millisecond)
		}
		// A hundred a millisecond, by the kernel's own clock as well, which is a jiffy too early or too late.
		took := 20*time.Millisecond + time.Since(began) + 10*time.Millisecond
		if most := int(took / (10 * time.Microsecond)); passed < 20*100 || passed > most {
			t.Errorf("%s: %d packets came in, want 2000 to %d in %v", w, passed, most, took)
		}
	}
}

// Two CPUs that bring packets of one source get as many in as one.
func TestTwoCPUsOnOneBucket(t *testing.T) {
	d := load(t, testdp.Options{Policy: "open: [53/udp limit 1/hour burst 1000]"})
	for _, w := range worlds {
		for range 5 {
			d.Forget(t)
			in := w.in(udp(53))
			if !d.Passes(t, testdp.XDP, in, testdp.From{}) { // it has its bucket
				t.Fatal("the first packet was dropped")
			}
			var passed atomic.Int64
			passed.Add(1)
			var working sync.WaitGroup
			for range 2 {
				working.Go(func() {
					for range 3000 {
						result, err := d.Program(testdp.XDP).Run(&ebpf.RunOptions{Data: in})
						if err == nil && result == testdp.Verdict(testdp.XDP, true) {
							passed.Add(1)
						}
					}
				})
			}
			working.Wait()
			if n := passed.Load(); n != 1000 {
				t.Errorf("%s: %d packets came in, want 1000", w, n)
			}
		}
	}
}

// flood returns a function that sends a packet from another source each time, on a path of its own.
func flood(d *testdp.Datapath, w world, port uint16) func(number uint32) (passed bool, err error) {
	in := w.from(w.stranger, syn(port))
	at := frame.EthernetLen + 12 // where IPv4 has its source
	if w.family == 6 {
		at = frame.EthernetLen + 8 + 4 // the second half of its network
	}
	program := d.Program(testdp.XDP)
	return func(number uint32) (bool, error) {
		binary.BigEndian.PutUint32(in[at:], number)
		result, err := program.Run(&ebpf.RunOptions{Data: in})
		return result == testdp.Verdict(testdp.XDP, true), err
	}
}

// Ten times as many spoofed sources as there are buckets: none of them is dropped, one that is over its limit stays over
// it, and at most one packet is forgotten of one that is not.
func TestLimitsUnderASpoofedFlood(t *testing.T) {
	d := load(t, testdp.Options{Policy: "open: [22/tcp limit 6/hour burst 4]"})
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			offender, other := w.in(syn(22)), w.from(w.friend, syn(22))
			pass := func(frame []byte) bool { return d.Passes(t, testdp.XDP, frame, testdp.From{}) }
			for range 4 {
				if !pass(offender) {
					t.Fatal("an offender is stopped within its burst")
				}
			}
			send := flood(d, w, 22)
			for round := range rounds {
				for i := range 65536 {
					passed, err := send(0x0b000000 + uint32(round<<16+i))
					if err != nil {
						t.Fatal(err)
					}
					if !passed {
						t.Fatalf("source %d of round %d was dropped", i, round)
					}
				}
				if pass(offender) {
					t.Fatalf("in round %d the flood has freed a source that is over its limit", round)
				}
			}
			// Two packets make a debt that the flood does not have.
			pass(other)
			pass(other)
			for i := range 65536 {
				if _, err := send(0x0c000000 + uint32(i)); err != nil {
					t.Fatal(err)
				}
			}
			left := 0
			for range 4 {
				if pass(other) {
					left++
				}
			}
			if left != 2 {
				t.Errorf("a source that has sent two packets of four may send %d more", left)
			}
			if n, room := inDebt(t, d); room != 65536 || n < room*9/10 {
				t.Errorf("%d sources are in debt, and there is room for %d", n, room)
			}
			d.Advance(t, time.Hour)
			if n, _ := inDebt(t, d); n != 0 {
				t.Errorf("an hour later %d sources are in debt", n)
			}
		})
	}
}

// inDebt returns how many sources are in debt, and how many there is room for.
func inDebt(t *testing.T, d *testdp.Datapath) (sources, room int) {
	t.Helper()
	now := d.Now(t) * uint64(time.Second/testdp.HZ)
	m := d.Map(t, bpf.FirewallMapLimitBuckets)
	for i := range m.MaxEntries() {
		var set bpf.FirewallBucketSet
		if err := m.Lookup(i, &set); err != nil {
			t.Fatal(err)
		}
		for _, b := range set.Buckets {
			if room++; b.Arrival > now {
				sources++
			}
		}
	}
	return sources, room
}

// Two CPUs that give buckets away do not charge one source with another's packets: each sends one, so that nobody is ever
// dropped, though intervals differ a million times.
func TestTwoCPUsThatGiveBuckets(t *testing.T) {
	d := load(t, testdp.Options{Policy: "open: [22/tcp limit 1/day burst 2, 80/tcp limit 1000/second burst 2]"})
	for _, w := range worlds {
		d.Forget(t)
		var working sync.WaitGroup
		var dropped atomic.Int64
		for me, port := range []uint16{22, 80} {
			send := flood(d, w, port)
			working.Go(func() {
				for i := range uint32(300000) {
					if passed, err := send(0x0b000000 + uint32(me)<<24 + i); err == nil && !passed {
						dropped.Add(1)
					}
				}
			})
		}
		working.Wait()
		if n := dropped.Load(); n > 0 {
			t.Errorf("%s: %d sources were dropped at their first packet", w, n)
		}
	}
}

// A number that is given to another rule does not take the debts along, and a rule with another number keeps its own.
func TestDebtsGoWithTheirRule(t *testing.T) {
	const policy = "open: [22/tcp limit 1/day burst 1]"
	first, err := testdp.Open(testdp.Options{Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	rules, err := first.Set.Rules()
	if err != nil || len(rules) != 1 {
		t.Fatal(rules, err)
	}
	w := worlds[0]
	passes := func() bool { return first.Passes(t, testdp.XDP, w.in(syn(22)), testdp.From{}) }
	if !passes() || passes() {
		t.Fatal("a limit of one a day does not let one in")
	}
	renumbered := rules[0]
	renumbered.ID = 7
	if err := first.Set.PutRules([]dpmaps.Rule{renumbered}, rules, rules); err != nil {
		t.Fatal(err)
	}
	if passes() {
		t.Error("a rule has lost its debts with its number")
	}
	other := renumbered
	other.Rule.Limit.Burst = 2
	if err := first.Set.PutRules([]dpmaps.Rule{other}, []dpmaps.Rule{renumbered}, nil); err != nil {
		t.Fatal(err)
	}
	burst := 0
	for range 3 {
		if passes() {
			burst++
		}
	}
	if burst != 2 {
		t.Errorf("another rule has the debts of the one that had its number: it lets %d in, want 2", burst)
	}
	if n := first.Counted(t)[limitReason]; n != 3 {
		t.Errorf("%d packets are counted under the limit, want 3", n)
	}
}
