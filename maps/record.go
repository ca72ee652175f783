// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// A rule in force is kept as numbers, which mean the same whatever /etc/services says by then, and as text to be shown.
// Its record, in the byte order of the host:
//
//	u32 1 if it is not in the file
//	u32 bytes of text, u32 ports, u32 sources
//	text
//	per port:   u8 protocol, u8 0, u16 first, u16 last
//	per source: u8 bytes of the address, u8 bits, the address
const (
	recordHead     = 16
	recordPortSize = 6
	recordAlign    = 8
)

var errRecord = errors.New("its record is damaged")

// recordSize returns the bytes that the record of a rule takes.
func recordSize(r policy.Rule) int {
	size := recordHead + len(r.What()) + recordPortSize*len(r.Ports)
	for _, p := range r.From {
		size += 2 + p.Addr().BitLen()/8
	}
	return align(size)
}

func align(size int) int { return (size + recordAlign - 1) &^ (recordAlign - 1) }

func encodeRule(r Rule) []byte {
	what := r.Rule.What()
	runtime := uint32(0)
	if r.Runtime {
		runtime = 1
	}
	b := make([]byte, 0, recordSize(r.Rule))
	for _, n := range []uint32{runtime, uint32(len(what)), uint32(len(r.Rule.Ports)), uint32(len(r.Rule.From))} {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	b = append(b, what...)
	for _, p := range r.Rule.Ports {
		b = append(b, byte(p.Protocol), 0)
		b = binary.NativeEndian.AppendUint16(b, p.First)
		b = binary.NativeEndian.AppendUint16(b, p.Last)
	}
	for _, p := range r.Rule.From {
		address := p.Addr().AsSlice()
		b = append(append(b, byte(len(address)), byte(p.Bits())), address...)
	}
	return b
}

func decodeRule(id uint16, b []byte) (Rule, error) {
	rest := b
	take := func(n int) []byte {
		if n < 0 || n > len(rest) {
			rest = nil
			return nil
		}
		taken := rest[:n]
		rest = rest[n:]
		return taken
	}
	head := take(recordHead)
	if head == nil {
		return Rule{}, errRecord
	}
	word := func(i int) int { return int(binary.NativeEndian.Uint32(head[4*i:])) }
	what := string(take(word(1)))
	if n := word(2); n > len(rest)/recordPortSize || word(3) > len(rest) {
		return Rule{}, errRecord
	}
	ports := make([]policy.PortRange, word(2))
	for i := range ports {
		p := take(recordPortSize)
		ports[i] = policy.PortRange{
			Protocol: policy.Protocol(p[0]),
			First:    binary.NativeEndian.Uint16(p[2:]),
			Last:     binary.NativeEndian.Uint16(p[4:]),
		}
	}
	var from []netip.Prefix
	if n := word(3); n > 0 {
		from = make([]netip.Prefix, n)
	}
	for i := range from {
		size := take(2)
		if size == nil {
			return Rule{}, errRecord
		}
		address, ok := netip.AddrFromSlice(take(int(size[0])))
		if !ok {
			return Rule{}, errRecord
		}
		from[i] = netip.PrefixFrom(address, int(size[1]))
	}
	r, err := policy.RestoreRule(what, ports, from)
	if err != nil {
		return Rule{}, err
	}
	return Rule{policy.NumberedRule{ID: id, Rule: r}, word(0) != 0}, nil
}

// place is where a record is. As one word of the map of rules, so that a rule changes in one step.
type place struct{ offset, length uint32 }

func (p place) end() int { return align(int(p.offset) + int(p.length)) }

// newRecord is a record that has yet to be written.
type newRecord struct {
	id    uint16
	bytes []byte
	place place
}

// planRecords returns a place for the record of each rule, beside all records that are there. It leaves out rules whose
// record is the same already. It writes nothing.
func (r *Ruleset) planRecords(rules []Rule) ([]newRecord, error) {
	places, memory, err := r.records()
	if err != nil {
		return nil, err
	}
	var used []place
	for i := range places {
		if p := loadPlace(&places[i]); p.length > 0 {
			used = append(used, p)
		}
	}
	slices.SortFunc(used, func(a, b place) int { return cmp.Compare(a.offset, b.offset) })
	var plan []newRecord
	at := 0 // what is free begins here, and ends where the first of used begins
	for _, rule := range rules {
		b := encodeRule(rule)
		if int(rule.ID) >= len(places) {
			return nil, fmt.Errorf("%w: rule %q has the number %d, and %d is the last", ErrNoRoom, rule.Rule, rule.ID, len(places)-1)
		}
		if have, ok := bytesAt(memory, loadPlace(&places[rule.ID])); ok && string(have) == string(b) {
			continue
		}
		for len(used) > 0 && at+align(len(b)) > int(used[0].offset) {
			at = max(at, used[0].end())
			used = used[1:]
		}
		if at+align(len(b)) > len(memory) {
			return nil, fmt.Errorf("%w: the records of the rules are more than %d bytes", ErrNoRoom, len(memory))
		}
		plan = append(plan, newRecord{rule.ID, b, place{uint32(at), uint32(len(b))}})
		at += align(len(b))
	}
	return plan, nil
}

// writeRecords writes records to the places that planRecords has found.
func (r *Ruleset) writeRecords(plan []newRecord) error {
	places, memory, err := r.records()
	if err != nil {
		return err
	}
	for _, n := range plan {
		copy(memory[n.place.offset:], n.bytes)
		storePlace(&places[n.id], n.place)
	}
	return nil
}

// records returns where the record of each rule is, and the memory that they are in.
func (r *Ruleset) records() (places []uint64, memory []byte, err error) {
	index, err := r.memory(bpf.FirewallMapRules)
	if err != nil {
		return nil, nil, err
	}
	memory, err = r.memory(bpf.FirewallMapRuleRecords)
	return view[uint64](index), memory, err
}

func bytesAt(memory []byte, p place) ([]byte, bool) {
	if p.length == 0 || uint64(p.offset)+uint64(p.length) > uint64(len(memory)) {
		return nil, false
	}
	return memory[p.offset : p.offset+p.length], true
}
