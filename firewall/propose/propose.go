// SPDX-License-Identifier: Apache-2.0

// Package propose works out which rules what is dropped, or would be, would need.
package propose

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/monitor"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// What is remembered. Whoever sends chooses ports and sources, so both are bounded.
const (
	mostPorts   = 256
	mostSources = 64 // of a port
	MostNamed   = 8  // sources that a rule names; what more of them ask for is open to everybody
	scanPorts   = 10 // who asks for more is taken for a scanner
)

// Ports from which servers answer, and to which they do: such a datagram is the answer to a question that is forgotten.
const (
	lastWellKnown  = 1023
	firstEphemeral = 32768
)

// reasons are those for which a packet is dropped that a rule would let in.
var reasons = []string{"closed port", "source", "protocol", "rejected"}

// Reasons returns what to ask a monitor for: the reasons that a rule helps against, also while the filter only watches.
func Reasons() (out []maps.Reason) {
	for _, r := range maps.Reasons() {
		if v := r.Verdict(); (v == maps.Drop || v == maps.WouldDrop) && slices.Contains(reasons, r.String()) {
			out = append(out, r)
		}
	}
	return out
}

// seen is what came to a port, or by a protocol without ports.
type seen struct {
	packets uint64
	last    time.Time
	sources map[netip.Addr]bool
	more    bool // sources than are remembered
}

// Collector remembers what began something and was dropped, or would be.
type Collector struct {
	own       map[netip.Addr]bool
	ports     map[string]*seen
	forgotten uint64 // packets to ports that gave way to others
	missed    uint64
	noise     uint64
}

// New returns a collector for a host that has these addresses.
func New(own []netip.Addr) *Collector {
	c := &Collector{own: make(map[netip.Addr]bool), ports: make(map[string]*seen)}
	for _, a := range own {
		c.own[a.Unmap().WithZone("")] = true
	}
	return c
}

// Add remembers what a monitor tells.
func (c *Collector) Add(told loader.Monitored) {
	for i := range told.Packets {
		c.add(&told.Packets[i])
	}
	for _, n := range told.Missed {
		c.missed += n
	}
}

func (c *Collector) add(p *loader.MonitoredPacket) {
	read, ok := monitor.Read(p.Frame, p.Ethernet)
	of, known := whatOf(read)
	if !ok || p.Outbound || !known || !c.begins(read) {
		c.noise++
		return
	}
	s := c.ports[of]
	if s == nil {
		if len(c.ports) == mostPorts {
			c.forgetLeast()
		}
		s = &seen{sources: make(map[netip.Addr]bool)}
		c.ports[of] = s
	}
	s.packets++
	s.last = p.Time
	switch {
	case s.sources[read.Source]:
	case len(s.sources) < mostSources:
		s.sources[read.Source] = true
	default:
		s.more = true
	}
}

// forgetLeast makes room: the port of which fewest packets came gives way, of several the one that was silent for longest.
func (c *Collector) forgetLeast() {
	var least string
	var found *seen
	for of, s := range c.ports {
		if found == nil || s.packets < found.packets || s.packets == found.packets && s.last.Before(found.last) {
			least, found = of, s
		}
	}
	c.forgotten += found.packets
	delete(c.ports, least)
}

// whatOf returns what a packet asks for as a rule names it.
func whatOf(p monitor.Packet) (text string, ok bool) {
	switch {
	case p.HasType:
		return "", false
	case p.HasPorts:
		return strconv.Itoa(int(p.DestPort)) + "/" + p.Protocol, p.DestPort != 0
	}
	name := p.Protocol
	if number, unnamed := strings.CutPrefix(name, "protocol "); unnamed {
		name = "proto/" + number
	}
	rule, err := policy.ParseRule(name)
	return name, err == nil && len(rule.Ports) == 1 && policy.ProtocolIndex(rule.Ports[0].Protocol) < 0
}

// begins reports whether a packet may be somebody's who asks this host for something.
func (c *Collector) begins(p monitor.Packet) bool {
	src := p.Source.Unmap()
	switch {
	case !c.own[p.Destination.Unmap()]: // multicast, broadcast, and what is routed
		return false
	case !src.IsValid() || src.IsUnspecified() || src.IsLoopback() || src.IsMulticast() || c.own[src] || src == broadcast:
		return false
	case p.Protocol == "tcp":
		return slices.Contains(p.Flags, "syn") && !slices.Contains(p.Flags, "ack") &&
			!slices.Contains(p.Flags, "rst") && !slices.Contains(p.Flags, "fin")
	case p.HasPorts:
		return p.SourcePort > lastWellKnown || p.DestPort < firstEphemeral
	}
	return true
}

var broadcast = netip.MustParseAddr("255.255.255.255")

// Need is a rule that what was seen would need.
type Need struct {
	Rule    string    `json:"rule"`
	Packets uint64    `json:"packets"`
	Sources []string  `json:"sources"` // those that are remembered
	More    bool      `json:"more"`    // there were more
	Last    time.Time `json:"last"`
	Scan    bool      `json:"scan"` // whoever sent it asks for many ports

	rule policy.Rule
}

// Needs returns the rules that what was seen would need, those of most packets first.
func (c *Collector) Needs() ([]Need, error) {
	asked := make(map[netip.Addr]int) // ports, by source
	for _, s := range c.ports {
		for source := range s.sources {
			asked[source]++
		}
	}
	out := []Need{}
	for of, s := range c.ports {
		n := Need{Packets: s.packets, More: s.more, Last: s.last, Scan: !s.more}
		sources := make([]netip.Addr, 0, len(s.sources))
		for source := range s.sources {
			sources = append(sources, source)
			n.Scan = n.Scan && asked[source] > scanPorts
		}
		slices.SortFunc(sources, netip.Addr.Compare)
		text := of
		for i, source := range sources {
			n.Sources = append(n.Sources, source.String())
			switch {
			case s.more || len(sources) > MostNamed:
			case i == 0:
				text += " from " + source.String()
			default:
				text += "," + source.String()
			}
		}
		var err error
		if n.rule, err = policy.ParseRule(text); err != nil {
			return nil, err
		}
		n.Rule = n.rule.String()
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b Need) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Rule, b.Rule))
	})
	return out, nil
}
