// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Readers look at packets as they come, see bpf/show.h. Each has a slot with what it asks for, and renews the time until
// which that counts: of one that was killed nothing is left to do.

// The bounds of what a reader may ask for.
const (
	MaxReaders          = 8 // READERS of bpf/types.h
	MaxReaderInterfaces = len(bpf.FirewallReader{}.Interfaces)
	// MaxSnaplen is the most that is shown of a frame: the record that holds it has 16 bits for its length.
	MaxSnaplen = 65000
)

// ErrReadersFull is returned when as many readers look as can.
var ErrReadersFull = fmt.Errorf("%d others look at packets already, as many as can: end one of them", MaxReaders)

// Asked is what a reader asks for. What is left out does not matter.
type Asked struct {
	From, To   netip.Prefix // of one family
	Port       uint16       // of either end
	ToPort     uint16       // of the destination
	Protocol   *policy.Protocol
	Interfaces []uint32 // by their indexes, MaxReaderInterfaces at most
	Reasons    []Reason // that are no rules
	Rules      bool     // what rules let in
	Rule       uint16   // only what this one does; 0: all
	Snaplen    int      // bytes of a frame
	Rate       int      // packets of a reason that a CPU shows a second
}

// anyRule is ANY_RULE of bpf/types.h.
const anyRule = ^uint32(0)

func (a *Asked) wire() (out bpf.FirewallReader) {
	for _, reason := range a.Reasons {
		out.Reasons |= 1 << reason
	}
	switch {
	case a.Rules && a.Rule == 0:
		out.RuleReasons = anyRule
	case a.Rules:
		out.RuleReasons = uint32(RuleReason(a.Rule))
	}
	copy(out.Interfaces[:], a.Interfaces)
	out.Snaplen, out.Rate, out.Port, out.ToPort = uint32(a.Snaplen), uint32(a.Rate), a.Port, a.ToPort
	if a.Protocol != nil {
		out.HasProtocol, out.Protocol = 1, uint8(*a.Protocol)
	}
	for _, p := range []netip.Prefix{a.From, a.To} {
		if p.IsValid() {
			out.Family = 6
			if p.Addr().Is4() {
				out.Family = 4
			}
		}
	}
	out.From, out.FromMask = wirePrefix(a.From)
	out.To, out.ToMask = wirePrefix(a.To)
	return out
}

// wirePrefix returns a prefix as the datapath compares it; the zero value holds every address.
func wirePrefix(p netip.Prefix) (address, mask [4]uint32) {
	if !p.IsValid() {
		return address, mask
	}
	var ones [16]byte
	for i := range p.Bits() {
		ones[i/8] |= 1 << (7 - i%8)
	}
	b := p.Masked().Addr().AsSlice()
	for i := range len(b) / 4 {
		address[i] = binary.NativeEndian.Uint32(b[4*i:])
		mask[i] = binary.NativeEndian.Uint32(ones[4*i:])
	}
	return address, mask
}

// passes reports whether packets are asked for that pass.
func (a *Asked) passes() bool {
	return a.Rules || slices.ContainsFunc(a.Reasons, func(r Reason) bool { return r.Verdict() == Pass })
}

// Reader is the slot of a reader.
type Reader struct {
	state *State
	slot  int
	owner uint64 // tells whose slot it is
	asked Asked
}

// ClaimReader gives a slot to a reader until a time of the datapath's clock, and frees those of readers that have gone.
// Nobody else may claim one at the same time.
func (s *State) ClaimReader(a Asked, now, until uint64) (*Reader, error) {
	slots, err := s.readers()
	if err != nil {
		return nil, err
	}
	if _, err := s.TidyReaders(now); err != nil {
		return nil, err
	}
	for slot := range slots {
		r := &slots[slot]
		if atomic.LoadUint64(&r.Until) != 0 {
			continue
		}
		reader := &Reader{state: s, slot: slot, owner: rand.Uint64() | 1, asked: a}
		wire := a.wire()
		wire.Owner = reader.owner
		*r = wire // its time is 0, so nobody reads it
		return reader, reader.Renew(until)
	}
	return nil, ErrReadersFull
}

// ErrReaderLost is returned when a reader has been silent for so long that another may have its slot.
var ErrReaderLost = errors.New("the reader was silent for too long")

// Renew makes the datapath go on showing packets to the reader until a time.
func (r *Reader) Renew(until uint64) error {
	slots, err := r.state.readers()
	if err != nil {
		return err
	}
	slot := &slots[r.slot]
	if atomic.LoadUint64(&slot.Owner) != r.owner {
		return ErrReaderLost
	}
	atomic.StoreUint64(&slot.Until, until)
	bit := byte(1) << r.slot
	add := [4]byte{showDropsAt: bit}
	if r.asked.passes() {
		add[showPassesAt] = bit
	}
	return r.state.changeBits(add, [4]byte{})
}

// AskFor changes what is asked for of rules, and the interfaces: these get other numbers when they come anew.
func (r *Reader) AskFor(rules bool, rule uint16, interfaces []uint32) error {
	slots, err := r.state.readers()
	if err != nil {
		return err
	}
	slot := &slots[r.slot]
	if atomic.LoadUint64(&slot.Owner) != r.owner {
		return ErrReaderLost
	}
	r.asked.Rules, r.asked.Rule, r.asked.Interfaces = rules, rule, interfaces
	wire := r.asked.wire()
	atomic.StoreUint32(&slot.RuleReasons, wire.RuleReasons)
	for i := range wire.Interfaces {
		atomic.StoreUint32(&slot.Interfaces[i], wire.Interfaces[i])
	}
	return nil
}

// Missed returns how many packets were asked for and not shown, by reason; those of rules together under RuleReason(0). It
// counts from a time before the reader.
func (r *Reader) Missed() (map[Reason]uint64, error) {
	m, err := r.state.Map(bpf.FirewallMapAllowances)
	if err != nil {
		return nil, err
	}
	missed := make(map[Reason]uint64)
	var each []bpf.FirewallAllowance
	for _, reason := range append(Reasons(), RuleReason(0)) {
		if err := m.Lookup(uint32(r.slot)*uint32(RuleReason(1))+uint32(reason), &each); err != nil {
			return nil, fmt.Errorf("read what was not shown: %w", err)
		}
		for _, a := range each {
			missed[reason] += a.Missed
		}
	}
	return missed, nil
}

// Close frees the slot.
func (r *Reader) Close() error {
	slots, err := r.state.readers()
	if err != nil {
		return err
	}
	slot := &slots[r.slot]
	if atomic.LoadUint64(&slot.Owner) != r.owner {
		return nil
	}
	bit := byte(1) << r.slot
	err = r.state.changeBits([4]byte{}, [4]byte{showDropsAt: bit, showPassesAt: bit})
	if outer, failed := r.state.Map(bpf.FirewallMapReaderBuffers); failed == nil {
		_ = outer.Delete(uint32(r.slot)) // there are none if the reader could not make them
	}
	atomic.StoreUint64(&slot.Owner, 0)
	atomic.StoreUint64(&slot.Until, 0)
	return err
}

// TidyReaders frees the slots of readers that have gone without a word, and returns how many look. Nobody may claim one at
// the same time.
func (s *State) TidyReaders(now uint64) (looking int, err error) {
	slots, err := s.readers()
	if err != nil {
		return 0, err
	}
	for slot := range slots {
		r := &slots[slot]
		until := atomic.LoadUint64(&r.Until)
		switch {
		case until > now:
			looking++
			continue
		case until == 0:
			continue
		}
		bit := byte(1) << slot
		if err := s.changeBits([4]byte{}, [4]byte{showDropsAt: bit, showPassesAt: bit}); err != nil {
			return looking, err
		}
		atomic.StoreUint64(&r.Owner, 0)
		atomic.StoreUint64(&r.Until, 0)
	}
	return looking, nil
}

func (s *State) readers() ([]bpf.FirewallReader, error) {
	memory, err := s.memory(bpf.FirewallMapReaders)
	if err != nil {
		return nil, err
	}
	return view[bpf.FirewallReader](memory), nil
}

// Shown is a packet that a reader is shown.
type Shown struct {
	Time      int64  // ns since boot
	Interface uint32 // index
	Reason    Reason
	Outbound  bool
	Length    uint32 // bytes of the whole frame
	Ethernet  bool   // the frame begins with an Ethernet header, else with that of IP
	Frame     []byte // its first bytes
}

func readShown(b []byte) (*Shown, error) {
	var raw bpf.FirewallShown
	if len(b) < int(unsafe.Sizeof(raw)) {
		return nil, fmt.Errorf("read packets: a record of %d bytes", len(b))
	}
	raw = *(*bpf.FirewallShown)(unsafe.Pointer(unsafe.SliceData(b)))
	b = b[unsafe.Sizeof(raw):]
	return &Shown{
		Time:      int64(raw.Time),
		Interface: raw.Ifindex,
		Reason:    Reason(raw.Reason),
		Outbound:  raw.Outbound != 0,
		Length:    raw.Length,
		Ethernet:  raw.Ethernet != 0,
		Frame:     b[:min(int(raw.Captured), len(b))],
	}, nil
}
