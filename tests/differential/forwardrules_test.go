// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// forwardRulesWorld has random rules about what is routed, in netfilter's words and in ours.
func forwardRulesWorld(r *rand.Rand, cards []string) *world {
	w := &world{
		name:       "forward rules",
		forwarding: true,
		rules:      []string{established},
		through:    []string{established},
		cards:      cards,
	}
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var rules []string
	for range 3 + r.IntN(8) {
		what := pick("22/tcp", "80/tcp", "5000-5010/tcp", "53/udp", "5000-5010/udp", "gre", "esp", "all", "80/tcp", "53/udp")
		match := "-p " + what
		if ports, protocol, ok := strings.Cut(what, "/"); ok {
			match = fmt.Sprintf("-p %s --dport %s", protocol, strings.ReplaceAll(ports, "-", ":"))
		} else if what == "all" {
			match = ""
		}
		text := what
		on := ""
		switch r.IntN(5) {
		case 0, 1:
			on = "-i eth0 "
			text += " on eth0"
		case 2:
			on = "-i eth1 "
			text += " on eth1"
		case 3:
			on = "-i eth+ "
			text += " on eth*"
		}
		match4, match6 := match, match
		clause := func(word, flag string, four, six netip.Addr) {
			text += fmt.Sprintf(" %s %s,%s", word, four, six)
			match4 += fmt.Sprintf(" %s %s", flag, four)
			match6 += fmt.Sprintf(" %s %s", flag, six)
		}
		switch r.IntN(6) {
		case 0:
			clause("from", "-s", lab.ClientV4, lab.ClientV6)
		case 1:
			clause("from", "-s", otherV4, otherV6)
		case 2:
			clause("from", "-s", lab.InsideV4, lab.InsideV6)
		}
		switch r.IntN(6) {
		case 0, 1:
			clause("to", "-d", lab.InsideV4, lab.InsideV6)
		case 2:
			clause("to", "-d", lab.ClientV4, lab.ClientV6)
		}
		w.through4 = append(w.through4, on+match4+" -j ACCEPT")
		w.through6 = append(w.through6, on+match6+" -j ACCEPT")
		rules = append(rules, "    - "+text)
	}
	slices.Sort(rules) // the same twice is refused
	w.policy = "open: []\nicmp: drop\nforward:\n  open:\n" + strings.Join(slices.Compact(rules), "\n") + "\n"
	return w
}

// throughCase is a sequence of conversations through this host, begun on either side.
func throughCase(r *rand.Rand, number int, bothCards bool) testCase {
	seed := r.Uint64()
	return testCase{name: fmt.Sprintf("conversations %d", number), steps: func(h hosts) (steps []step) {
		r := rand.New(rand.NewPCG(seed, 1))
		far := []netip.Addr{h.peer, h.other}
		near := []netip.Addr{h.inside, h.behind().second}
		for n := range 12 {
			outside, inside := far[r.IntN(len(far))], near[r.IntN(len(near))]
			outward := r.IntN(2) == 0
			say := func(byInitiator bool, layers ...frame.Layer) step {
				if byInitiator == outward {
					return fromInside(packet(inside, outside, layers...))
				}
				return packet(outside, inside, layers...)
			}
			quoting := func(byInitiator bool, layer frame.Layer) []frame.Layer { // of what the other end has sent
				if byInitiator == outward {
					return []frame.Layer{h.unreachable(), quote(outside, inside, 20, layer)}
				}
				return []frame.Layer{h.unreachable(), quote(inside, outside, 20, layer)}
			}
			from := uint16(30000 + 100*number + n)
			port := []uint16{22, 80, 53, 5005, 5011}[r.IntN(5)]
			kind := r.IntN(4)
			if outward && !bothCards {
				kind = []int{0, 2}[r.IntN(2)] // nobody remembers who has begun the others
			}
			var begin, answer, next frame.Layer
			switch kind {
			case 0:
				begin = frame.TCP{SrcPort: from, DstPort: port, Flags: frame.SYN, Seq: 1000}
				answer = frame.TCP{SrcPort: port, DstPort: from, Flags: frame.SYN | frame.ACK, Seq: 5000, Ack: 1001}
				next = frame.TCP{SrcPort: from, DstPort: port, Flags: frame.ACK, Seq: 1001, Ack: 5001}
			case 1:
				begin, answer = frame.UDP{SrcPort: from, DstPort: port}, frame.UDP{SrcPort: port, DstPort: from}
				next = begin
			case 2:
				begin, answer = h.echo(from, 1), h.echoReply(from, 1)
				next = h.echo(from, 2)
			case 3:
				protocol := []uint8{frame.ProtoESP, 253}[r.IntN(2)]
				body := frame.Raw{0, 0, 8, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8}
				raw := func(byInitiator bool) step {
					if byInitiator == outward {
						return fromInside(whole(fmt.Sprintf("protocol %d, %s > %s", protocol, inside, outside), frame.Build(ethernet(outside), ipOf(inside, outside, protocol), body)))
					}
					return whole(fmt.Sprintf("protocol %d, %s > %s", protocol, outside, inside), frame.Build(ethernet(inside), ipOf(outside, inside, protocol), body))
				}
				steps = append(steps, raw(true), raw(false), raw(true))
				continue
			}
			steps = append(steps, say(true, begin), say(true, begin).as("again"))
			if r.IntN(3) == 0 {
				steps = append(steps, say(false, quoting(false, begin)...))
			}
			steps = append(steps, say(false, answer), say(true, next))
			if r.IntN(3) == 0 && kind != 2 {
				steps = append(steps, say(true, quoting(true, answer)...))
			}
			steps = append(steps, say(false, answer).as("again"))
		}
		return steps
	}}
}

// Random rules about what is routed, and random conversations, through a host with one card filtered, and with both.
func TestForwardRules(t *testing.T) {
	const worlds, sequences = 8, 6
	for n := range worlds {
		r := rand.New(rand.NewPCG(*seed, uint64(n)))
		cards := [][]string{{"eth0"}, {"eth0", "eth1"}}[n%2]
		w := forwardRulesWorld(r, cards)
		var cases []testCase
		for i := range sequences {
			cases = append(cases, throughCase(r, i, len(cards) == 2))
		}
		t.Run(fmt.Sprintf("%s %d", strings.Join(cards, ","), n), func(t *testing.T) {
			w.mustAgree(t, "forward rules", cases)
			if t.Failed() {
				t.Logf("%s\n%s", w.policy, strings.Join(w.through4, "\n"))
			}
		})
	}
}

// What a rule lets through keeps no flow, so its answers are known by their port where they meet no other filter.
func TestUnaskedAnswers(t *testing.T) {
	w := world{
		name:       "a forward rule",
		forwarding: true,
		rules:      []string{established},
		through:    []string{established, "-i eth0 -p tcp --dport 443 -j ACCEPT", "-i eth0 -p udp --dport 53 -j ACCEPT"},
		policy:     "open: []\nforward: {open: [443/tcp on eth0, 53/udp on eth0]}\n",
	}
	cases := []testCase{{name: "answers that nobody has asked for", steps: func(h hosts) []step {
		f := h.behind()
		return []step{
			f.out(frame.TCP{SrcPort: 443, DstPort: 30000, Flags: frame.SYN | frame.ACK}).but(unasked),
			f.out(frame.TCP{SrcPort: 443, DstPort: 30001, Flags: frame.ACK}).but(unasked),
			f.out(frame.UDP{SrcPort: 53, DstPort: 30000}).but(unasked),
			f.out(frame.TCP{SrcPort: 443, DstPort: 30000, Flags: frame.SYN}).as("which begins"),
			f.out(frame.TCP{SrcPort: 444, DstPort: 30000, Flags: frame.ACK}).as("of another port"),
			f.in(frame.UDP{SrcPort: 30005, DstPort: 53}), f.out(frame.UDP{SrcPort: 53, DstPort: 30005}).as("asked"),
		}
	}}}
	w.mustAgree(t, "forward rules", cases)
	w.cards = []string{"eth0", "eth1"}
	for i := range cases {
		played := cases[i].steps
		cases[i].steps = func(h hosts) []step {
			steps := played(h)
			for i := range steps {
				steps[i].differs = nil // eth1 has seen no question
			}
			return steps
		}
	}
	w.mustAgree(t, "forward rules", cases)
}
