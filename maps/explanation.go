// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// Step is a step that a packet takes on its way in, as the README counts them.
type Step uint32

// The steps.
const (
	StepLink Step = iota + 1
	StepParse
	StepSource
	StepForward
	StepOpen
	StepFlow
	StepCondition
	StepICMP
	StepRefuse
)

// Explanation is what a dry run has found out about a packet.
type Explanation struct {
	Reason  Reason // under which it would be counted
	Refused Reason // the same before its sender is told that it is dropped
	Invalid Reason // what is invalid about it, in the eyes of netfilter; 0: nothing
	Step    Step   // that decided

	// As the datapath has read them. Of ICMP queries, the ports are the identifier and the query's type.
	Source, Destination netip.AddrPort // not valid where it could not be parsed
	Protocol            uint8
	ICMPType            uint8
	TCPFlags            uint8
	LaterFragment       bool

	Flow    *Flow // the flow that it may belong to, also one that does not let it in; nil: there is none
	Place   int   // of the flow, in the table
	List    uint32
	Trusted bool          // its source is trusted, and that mattered
	Limited uint16        // the rule whose limit drops it, or 0
	Wait    time.Duration // till a source that is over its limit may come again

	ban *bpf.FirewallBan
}

// explainedMap is the section in which a dry run leaves what it finds out.
const explainedMap = ".data.explained"

// PrivateMaps returns the names of the maps that a dry run may not share with programs that run: they are room to work
// in, and what a CPU may still do. And what it has found out is nobody else's.
func PrivateMaps() []string {
	return []string{
		explainedMap, bpf.FirewallMapQuestions, bpf.FirewallMapSearches, bpf.FirewallMapRejections, bpf.FirewallMapEventBudgets,
	}
}

// Explained is where a dry run leaves what it finds out.
type Explained struct{ m *ebpf.Map }

// TakeExplained takes the map out of a collection.
func TakeExplained(c *ebpf.Collection) (Explained, error) {
	m := c.Maps[explainedMap]
	if m == nil {
		return Explained{}, fmt.Errorf("the object has no map %s", explainedMap)
	}
	delete(c.Maps, explainedMap)
	return Explained{m}, nil
}

// Close lets go of the map.
func (e Explained) Close() error { return e.m.Close() }

// Clear makes room for the next packet. Generic says that XDP runs behind the driver.
func (e Explained) Clear(generic bool) error {
	var raw bpf.ExplainExplanation
	if generic {
		raw.Generic = 1
	}
	raw.Step = uint32(StepLink)
	if err := e.m.Put(uint32(0), &raw); err != nil {
		return fmt.Errorf("prepare a dry run: %w", err)
	}
	return nil
}

// Read returns what the last dry run has found out.
func (e Explained) Read() (*Explanation, error) {
	var raw bpf.ExplainExplanation
	if err := e.m.Lookup(uint32(0), &raw); err != nil {
		return nil, fmt.Errorf("read a dry run: %w", err)
	}
	x := &Explanation{
		Reason: Reason(raw.Reason), Refused: Reason(raw.Refused), Invalid: Reason(raw.Seen), Step: Step(raw.Step),
		List: raw.List, Trusted: raw.Trusted != 0, Limited: uint16(raw.Limited), Wait: time.Duration(raw.Debt),
	}
	if p := &raw.Packet; p.Family != 0 {
		x.Source = netip.AddrPortFrom(addressOfWords(&p.Src, p.Family), p.SrcPort)
		x.Destination = netip.AddrPortFrom(addressOfWords(&p.Dst, p.Family), p.DstPort)
		x.Protocol, x.ICMPType, x.TCPFlags, x.LaterFragment = p.Protocol, p.Type, p.TcpFlags, p.Fragment == laterFragment
	}
	if x.Reason.isLink() {
		x.Step = StepLink
	}
	if raw.Place != 0 {
		key, flow := bpf.FirewallFlowKey(raw.Entry.Key), bpf.FirewallFlow(raw.Entry.Flow)
		x.Flow, x.Place = new(Flow), int(raw.Place-1)
		x.Flow.setKey(&key)
		x.Flow.setValue(&flow)
	}
	if x.Reason.Decided() == Reason(bpf.FirewallReasonDROP_BANNED) {
		ban := bpf.FirewallBan(raw.Ban)
		x.ban = &ban
	}
	return x, nil
}

func addressOfWords(words *[4]uint32, family uint8) netip.Addr {
	if family == 4 {
		return addr4(words[0])
	}
	return addr6(*words)
}

const laterFragment = 2 // FRAGMENT_LATER of bpf/types.h

// isLink reports whether a packet is let pass before it is parsed.
func (r Reason) isLink() bool {
	return r == Reason(bpf.FirewallReasonPASS_NOT_IP) || r == Reason(bpf.FirewallReasonPASS_OTHER_HOST)
}

// Rule returns the number of the rule that a reason is, or 0.
func (r Reason) Rule() uint16 {
	if r < ruleZero {
		return 0
	}
	return uint16(r - ruleZero)
}

// IsBanned reports whether it is a ban that drops the packet.
func (x *Explanation) IsBanned() bool { return x.ban != nil }

// IsBlocked reports whether it is a block list that drops the packet.
func (x *Explanation) IsBlocked() bool {
	return x.Reason.Decided() == Reason(bpf.FirewallReasonDROP_BLOCKED)
}

// Blocked returns the explanation of the same packet where a block list drops it instead.
func (x *Explanation) Blocked() *Explanation {
	out := *x
	out.Reason, out.Step, out.ban = Reason(bpf.FirewallReasonDROP_BLOCKED), StepSource, nil
	if x.Reason.IsWatched() {
		out.Reason = out.Reason.Watched()
	}
	return &out
}

// BanOf returns the ban that drops an explained packet, or nil.
func (s *State) BanOf(clock Clock, x *Explanation) (*Ban, error) {
	if x.ban == nil {
		return nil, nil
	}
	reasons, err := s.banReasons()
	if err != nil {
		return nil, err
	}
	prefix, err := x.Source.Addr().Prefix(int(x.ban.PrefixLen))
	if err != nil {
		return nil, err
	}
	ban := reasons.ban(clock, prefix, x.ban)
	return &ban, nil
}

// BlockListOf returns the name of the block list that drops an explained packet, or "".
func (s *Set) BlockListOf(x *Explanation) (string, error) {
	if x.List == 0 {
		return "", nil
	}
	lists, err := s.orderedLists()
	for _, l := range lists {
		if l.number == x.List {
			return l.Name, err
		}
	}
	return "", err
}
