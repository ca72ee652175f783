// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// What the forward policies are in netfilter's words. The router's own ports are open, and all ICMP is let in to it,
// neither of which may open anything behind it.
var (
	forwardDrop = world{
		name:       "forward: drop",
		forwarding: true,
		rules:      script.rules,
		policy:     script.policy + "forward: drop\n",
	}
	forwardEstablished = world{
		name:       "forward: established",
		forwarding: true,
		rules:      script.rules,
		through:    outward,
		policy:     script.policy + "forward: established\n",
	}
	forwardAccept = world{
		name:       "forward: accept",
		forwarding: true,
		rules:      script.rules,
		forward:    "ACCEPT",
		before:     "-6 route add default via " + lab.ClientV6.String(),
		policy:     script.policy + "forward: accept\n",
	}
	liberalRouter = world{
		name:       "random sequences through a router",
		forwarding: true,
		rules:      liberal.rules,
		through:    outward,
		sysctls:    liberal.sysctls,
		policy:     liberal.policy + "forward: established\n",
		flows:      liberal.flows,
		random:     true,
	}
	forwardShort = world{
		name:       "forward: established, with short timeouts",
		forwarding: true,
		rules:      short.rules,
		through:    outward,
		sysctls:    short.sysctls,
		policy:     short.policy + "forward: established\n",
	}

	forwardWorlds = []*world{&forwardDrop, &forwardEstablished, &forwardAccept}

	// Hosts behind us open outward, and only answers come in.
	outward = []string{established, "-i eth1 -j ACCEPT"}
)

// behind is the host inside, in the place that the server has in the cases.
func (h hosts) behind() hosts {
	h.us, h.second, h.routed = h.inside, insideSecondV4, true
	if h.six {
		h.second = insideSecondV6
	}
	return h
}

// notRouted are the cases about the host itself, its link, or its groups.
var notRouted = []int{20, 21, 22, 23, 26, 27, 28, 47, 48, 58, 59}

// isRouted tells whether a case is played through a router, too: those with short timeouts wait for long, and those without
// a number are what random sequences have found of this host's own stack and ports.
func (c testCase) isRouted() bool {
	return c.in != &short && c.in != &unacked && c.number != 0 && !slices.Contains(notRouted, c.number)
}

// routed is a case of the server as one of the host inside.
func (c testCase) routed(w *world) testCase {
	played := c.steps
	c.steps = func(h hosts) []step {
		steps := played(h.behind())
		for i, s := range steps {
			if s.out { // it was made from addresses, not by what hosts send
				steps[i].out, steps[i].inside = false, true
			}
			steps[i].differs = routedDifference(s, w)
		}
		return steps
	}
	return c
}

// routedDifference is what a difference at the host itself is for those behind it, or one that only routing shows.
func routedDifference(s step, w *world) *difference {
	for _, only := range whenRouted {
		if only.in == w && strings.HasSuffix(s.name, only.step) {
			return only.differs.through(w)
		}
	}
	if d := s.differs; d != nil && d != openPort && d != dhcpAnswer && d != dhcp6Answer && d != neighbours { // these are about the host alone
		return d.through(w)
	}
	return nil
}

// through is the difference about a routed packet, or nil where all or none are routed anyway.
func (d *difference) through(w *world) *difference {
	switch {
	case d.netfilter == drop && w.through != nil:
		return &difference{row: d.row, netfilter: drop, ours: forwarded}
	case d.ours == drop && w.forward == "ACCEPT":
		return &difference{row: d.row, netfilter: forwarded, ours: drop}
	}
	return nil
}

// onTheWay is the difference about a packet of a random sequence after some moves, through this host. Behind NAT one flow
// goes by another: a packet that was let in to this host may take the port that the next one of a host inside would have
// got.
func (d *difference) onTheWay(h hosts, moves []move) *difference {
	if h.masked {
		for _, m := range moves {
			d = cmp.Or(d, historyOf(m.conversation(), moves).row)
		}
	}
	if d == nil || !h.routed && !h.masked {
		return d
	}
	routed := *d
	for _, v := range []*verdict{&routed.netfilter, &routed.ours} {
		if *v == input {
			*v = forwarded
		}
	}
	routed.either = routed.either || h.masked
	return &routed
}

// whenRouted are steps that are decided alike where they are for the host itself.
var whenRouted = []struct {
	in      *world
	step    string // how its name ends
	differs *difference
}{
	// The query has a checksum that netfilter takes for wrong, and comes from another host, so it tracks nothing.
	{&forwardEstablished, "UDP-Lite with UDP's checksum", checksum},
	{&forwardAccept, "protocol 6, 3 bytes", cutOff},
	{&forwardAccept, "protocol 6, 0 bytes", cutOff},
	{&forwardAccept, "nothing behind the header", cutOff},
	{&forwardAccept, "longer than the packet", cutOff},
	{&forwardAccept, "protocol 60, 3 bytes", cutOff},
	{&forwardAccept, "protocol 44, 4 bytes", cutOff},
	{&forwardAccept, "port 22, 8 bytes each", splitHeader},
	{&forwardAccept, "11 headers", manyHeaders},
}

func TestForwarding(t *testing.T) {
	for _, w := range forwardWorlds {
		t.Run(w.name, func(t *testing.T) { w.mustAgree(t, "forwarded", casesOf(w)) })
	}
	t.Run(forwardShort.name, func(t *testing.T) {
		forwardShort.mustAgree(t, "forwarded", []testCase{timeoutCases[0].routed(&forwardShort)})
	})
}
