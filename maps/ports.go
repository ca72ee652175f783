// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"sync/atomic"
	"unsafe"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// ports is what the datapath reads of a table: an entry each, by [policy.PortIndex], and a bit each that says that there
// is one. A bit is set after its entry is written, and cleared before it is taken away.
type ports struct {
	entries []uint32
	listed  []uint64
	first   int // slot of the first entry; the first bits are those of its word
}

const entriesSize = unsafe.Sizeof(bpf.FirewallPorts{}.Entries)

// The compiler holds that a policy's entry is laid out as the datapath's.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(policy.PortEntry{})-unsafe.Sizeof(bpf.FirewallPort{})]
	_ = [1]struct{}{}[unsafe.Offsetof(policy.PortEntry{}.Set)-unsafe.Offsetof(bpf.FirewallPort{}.Set)]
)

func (r *Ruleset) ports(g policy.Group) (ports, error) {
	memory, err := r.memory(tableOf(g))
	if err != nil {
		return ports{}, err
	}
	all := memory[:unsafe.Sizeof(bpf.FirewallPorts{})]
	return ports{entries: words(all[:entriesSize]), listed: view[uint64](all[entriesSize:groupOffset])}, nil
}

// portsBetween is ports for slots first to last alone.
func (r *Ruleset) portsBetween(g policy.Group, first, last int) (p ports, release func(), err error) {
	const entry, word = unsafe.Sizeof(p.entries[0]), unsafe.Sizeof(p.listed[0])
	entries, releaseEntries, err := r.window(tableOf(g), uintptr(first)*entry, uintptr(last+1)*entry)
	if err != nil {
		return p, nil, err
	}
	listed, releaseListed, err := r.window(tableOf(g), entriesSize+uintptr(first/64)*word, entriesSize+uintptr(last/64+1)*word)
	if err != nil {
		releaseEntries()
		return p, nil, err
	}
	release = func() { releaseEntries(); releaseListed() }
	return ports{words(entries), view[uint64](listed), first}, release, nil
}

// open gives a port to a rule, if no other has it.
func (p ports) open(slot int, rule uint16) {
	word := &p.entries[slot-p.first]
	for {
		before := atomic.LoadUint32(word)
		entry := *(*bpf.FirewallPort)(unsafe.Pointer(&before))
		if entry.Rule != 0 {
			break
		}
		entry.Rule = rule
		if atomic.CompareAndSwapUint32(word, before, *(*uint32)(unsafe.Pointer(&entry))) {
			break
		}
	}
	atomic.OrUint64(&p.listed[slot/64-p.first/64], 1<<(slot%64))
}

// put writes the entries that differ, each as one word.
func (p ports) put(table *policy.Table) {
	wanted := unsafe.Slice((*uint32)(unsafe.Pointer(table)), len(table))
	for i := range p.listed {
		var listed uint64
		for bit, entry := range wanted[i*64:][:64] {
			if entry != 0 {
				listed |= 1 << bit
			}
		}
		atomic.AndUint64(&p.listed[i], listed)
		for slot := i * 64; slot < (i+1)*64; slot++ {
			if atomic.LoadUint32(&p.entries[slot]) != wanted[slot] {
				atomic.StoreUint32(&p.entries[slot], wanted[slot])
			}
		}
		atomic.OrUint64(&p.listed[i], listed)
	}
}

// Ports returns what each port means on the interfaces of a group, as the datapath sees it now.
func (r *Ruleset) Ports(g policy.Group) (*policy.Table, error) {
	p, err := r.ports(g)
	if err != nil {
		return nil, err
	}
	entries := &policy.Table{}
	for slot := range entries {
		if atomic.LoadUint64(&p.listed[slot/64])>>(slot%64)&1 == 0 {
			continue
		}
		word := atomic.LoadUint32(&p.entries[slot])
		wire := *(*bpf.FirewallPort)(unsafe.Pointer(&word))
		entries[slot] = policy.PortEntry{Rule: wire.Rule, Set: wire.Set}
	}
	return entries, nil
}
