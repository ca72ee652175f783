// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
)

// socketSide is a side whose server has a stack that talks.
type socketSide struct {
	*side
	tap      *tap
	listener *net.TCPListener
}

// openSockets drops ICMP, so that one sees which is let in for a flow's sake, and has an open port of UDP.
var openSockets = world{
	name:   "open sockets",
	rules:  append([]string{"-p udp --dport 53 -j ACCEPT"}, noICMP.rules...),
	policy: "open: [80/tcp, 53/udp]\nicmp: drop\n",
}

func (w world) socketSides(t *testing.T) (sides []socketSide) {
	t.Helper()
	for _, s := range w.sides(t, modes) {
		s.lab.Server.Run(t, "nft", "flush chain inet observer mute")
		talking := socketSide{side: s, tap: newTap(t, s.lab.Client)}
		var names net.PacketConn
		s.lab.Server.Do(t, func() (err error) {
			if talking.listener, err = net.ListenTCP("tcp", &net.TCPAddr{Port: 80}); err != nil {
				return err
			}
			names, err = net.ListenPacket("udp", ":53")
			return err
		})
		t.Cleanup(func() {
			talking.listener.Close()
			names.Close()
		})
		sides = append(sides, talking)
	}
	return sides
}

// played is how a case came out on one side.
type played struct {
	steps    []step
	verdicts []verdict
	sees     seen
}

// converse plays a case on one side, with a port of the peer of its own.
func (s socketSide) converse(h hosts, c socketCase, number int) (played, error) {
	at := &conversation{flow: flow{h, 0, uint16(40000 + number)}, side: s.side, tap: s.tap, listener: s.listener}
	defer at.close()
	if err := s.flush(); err != nil {
		return played{}, err
	}
	if err := at.open(c); err != nil {
		return played{}, err
	}
	var steps []step
	if c.steps != nil {
		steps = c.steps(at)
	}
	steps = append(steps, at.next(end).as("the last word"))
	verdicts, err := s.play(steps)
	if err != nil {
		return played{}, err
	}
	return played{steps, verdicts, at.look()}, nil
}

// openedBy are cases in conversations that begin so.
func openedBy(how opening, cases []socketCase) []socketCase {
	cases = slices.Clone(cases)
	for i := range cases {
		cases[i].opening = how
	}
	return cases
}

// What the filters decide otherwise about a packet of a conversation, no socket sees, but for what is documented.
func TestSocketsSeeTheSame(t *testing.T) {
	sides := openSockets.socketSides(t)
	cases := slices.Concat(openedBy(dialled, dialSocketCases), openedBy(dialled, tcpSocketCases),
		openedBy(accepted, tcpSocketCases), openedBy(asked, udpSocketCases), openedBy(pinged, pingSocketCases),
		openedBy(pingedRaw, rawSocketCases))
	for _, h := range families {
		var total [3]tally
		for number, c := range cases {
			if c.family == 4 && h.six || c.family == 6 && !h.six {
				continue
			}
			name := fmt.Sprintf("%s, %s: %s", h, c.opening, c.name)
			results := make([]played, len(sides))
			errs := make([]error, len(sides))
			var wait sync.WaitGroup
			for i, s := range sides {
				wait.Go(func() { results[i], errs[i] = s.converse(h, c, number) })
			}
			wait.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			for i, s := range sides {
				wanted := c.sees
				if i > 0 && c.ours != nil {
					wanted = *c.ours
				}
				if results[i].sees != wanted {
					t.Errorf("%s: behind %s, the application sees %+v, not %+v", name, s.name, results[i].sees, wanted)
				}
				if results[i].sees.mtu == narrow { // the next case knows nothing of it
					s.lab.Server.IP(t, "-4", "route", "flush", "cache")
					s.lab.Server.IP(t, "-6", "route", "flush", "cache")
				}
			}
			for m := range modes {
				total[m].compare(name, results[0].steps, results[0].verdicts, results[m+1].verdicts)
			}
		}
		for m, mode := range modes {
			total[m].report(t, "at sockets", mode, h)
		}
	}
}
