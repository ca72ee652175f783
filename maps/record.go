// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// A rule in force is kept as numbers, which mean the same whatever /etc/services and the lists of the file say by then,
// and as text to be shown. Its record, in the byte order of the host:
//
//	u32 flags: recordRuntime, recordForward
//	u32 bytes of text, u32 ports, u32 sources
//	u32 exceptions, u32 destinations, u32 bytes of the interfaces
//	u32 bytes of the text of the sources, of the exceptions, of the destinations
//	u32 limit, u32 in how many seconds, u32 burst
//	text, interfaces with a newline between them, the three texts
//	per port:   u8 protocol, u8 0, u16 first, u16 last
//	per source, exception and destination: u8 bytes of the address, u8 bits, the address
//
// A record of schema v5 ends its head behind the sources, and has no other clauses.
const (
	recordHead     = 52
	recordHeadV5   = 16
	recordPortSize = 6
	recordAlign    = 8

	recordRuntime = 1 << 0 // it is not in the file
	recordForward = 1 << 1 // it is about what is routed
)

var errRecord = errors.New("its record is damaged")

// interfaceSeparator is between the interfaces of a rule: no name has it.
const interfaceSeparator = "\n"

// recordSize returns the bytes that the record of a rule takes.
func recordSize(r policy.Rule) int {
	size := recordHead + recordPortSize*len(r.Ports)
	for _, text := range recordTexts(r) {
		size += len(text)
	}
	for _, list := range [][]netip.Prefix{r.From, r.Except, r.To} {
		for _, p := range list {
			size += 2 + p.Addr().BitLen()/8
		}
	}
	return align(size)
}

// recordTexts returns the texts of a record, in their order.
func recordTexts(r policy.Rule) [5]string {
	s := r.Spelling()
	return [5]string{s.What, strings.Join(r.On, interfaceSeparator), s.From, s.Except, s.To}
}

func align(size int) int { return (size + recordAlign - 1) &^ (recordAlign - 1) }

func encodeRule(r Rule) []byte {
	flags := 0
	if r.Runtime {
		flags |= recordRuntime
	}
	if r.Rule.Forward {
		flags |= recordForward
	}
	rule, texts := r.Rule, recordTexts(r.Rule)
	b := make([]byte, 0, recordSize(rule))
	for _, n := range [recordHead / 4]int{
		flags, len(texts[0]), len(rule.Ports), len(rule.From), len(rule.Except), len(rule.To),
		len(texts[1]), len(texts[2]), len(texts[3]), len(texts[4]),
		int(rule.Limit.Count), int(rule.Limit.Per / time.Second), int(rule.Limit.Burst),
	} {
		b = binary.NativeEndian.AppendUint32(b, uint32(n))
	}
	for _, text := range texts {
		b = append(b, text...)
	}
	for _, p := range rule.Ports {
		b = append(b, byte(p.Protocol), 0)
		b = binary.NativeEndian.AppendUint16(b, p.First)
		b = binary.NativeEndian.AppendUint16(b, p.Last)
	}
	for _, list := range [][]netip.Prefix{rule.From, rule.Except, rule.To} {
		for _, p := range list {
			address := p.Addr().AsSlice()
			b = append(append(b, byte(len(address)), byte(p.Bits())), address...)
		}
	}
	return b
}

func decodeRule(id uint16, b []byte) (Rule, error) { return decodeRecord(id, b, recordHead) }

// What is damaged is wanted, too, so that it is told of.

func isRuntimeRecord(b []byte) bool {
	return len(b) < recordHead || binary.NativeEndian.Uint32(b)&recordRuntime != 0
}

func namesInterfaces(b []byte) bool {
	return len(b) < recordHead || binary.NativeEndian.Uint32(b[4*6:]) != 0
}

// decodeRecord reads a record with a head of that many bytes.
func decodeRecord(id uint16, b []byte, headSize int) (Rule, error) {
	d := recordReader{rest: b}
	var head [recordHead]byte
	copy(head[:], d.take(headSize))
	word := func(i int) int { return int(binary.NativeEndian.Uint32(head[4*i:])) }
	var s policy.Spelling
	s.What = d.text(word(1))
	r := policy.Rule{Forward: word(0)&recordForward != 0}
	if on := d.text(word(6)); on != "" {
		r.On = strings.Split(on, interfaceSeparator)
	}
	s.From, s.Except, s.To = d.text(word(7)), d.text(word(8)), d.text(word(9))
	r.Ports = d.ports(word(2))
	r.From, r.Except, r.To = d.prefixes(word(3)), d.prefixes(word(4)), d.prefixes(word(5))
	r.Limit = policy.Limit{Count: uint32(word(10)), Per: time.Duration(word(11)) * time.Second, Burst: uint32(word(12))}
	if d.damaged {
		return Rule{}, errRecord
	}
	r, err := policy.RestoreRule(r, s)
	if err != nil {
		return Rule{}, err
	}
	return Rule{policy.NumberedRule{ID: id, Rule: r}, word(0)&recordRuntime != 0}, nil
}

// recordReader takes a record apart. What is not there is damage.
type recordReader struct {
	rest    []byte
	damaged bool
}

func (d *recordReader) take(n int) []byte {
	if n < 0 || n > len(d.rest) {
		d.rest, d.damaged = nil, true
		return nil
	}
	taken := d.rest[:n]
	d.rest = d.rest[n:]
	return taken
}

func (d *recordReader) text(n int) string { return string(d.take(n)) }

func (d *recordReader) ports(n int) []policy.PortRange {
	b := d.take(n * recordPortSize)
	ports := make([]policy.PortRange, 0, len(b)/recordPortSize)
	for p := range slices.Chunk(b, recordPortSize) {
		ports = append(ports, policy.PortRange{
			Protocol: policy.Protocol(p[0]),
			First:    binary.NativeEndian.Uint16(p[2:]),
			Last:     binary.NativeEndian.Uint16(p[4:]),
		})
	}
	return ports
}

func (d *recordReader) prefixes(n int) []netip.Prefix {
	if n == 0 || n > len(d.rest) {
		d.damaged = d.damaged || n > 0
		return nil
	}
	out := make([]netip.Prefix, n)
	for i := range out {
		head := d.take(2)
		if head == nil {
			return nil
		}
		address, ok := netip.AddrFromSlice(d.take(int(head[0])))
		d.damaged = d.damaged || !ok
		out[i] = netip.PrefixFrom(address, int(head[1]))
	}
	return out
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
		beforeWrite()
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
