// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// Tally is what is counted of packets: how many, and the bytes of their frames, link headers among them.
type Tally struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Add adds another tally.
func (t *Tally) Add(other Tally) {
	t.Packets += other.Packets
	t.Bytes += other.Bytes
}

// minus is modulo 2^64, as all sums of the ledger.
func (t Tally) minus(other Tally) Tally {
	return Tally{t.Packets - other.Packets, t.Bytes - other.Bytes}
}

// Page is what came in by one interface, by reason. Each packet that came in is on one page, once.
type Page [ruleZero]Tally

func (p *Page) add(other *Page) {
	for i := range p {
		p[i].Add(other[i])
	}
}

func (p *Page) subtract(other *Page) {
	for i := range p {
		p[i] = p[i].minus(other[i])
	}
}

// Of returns the packets that a reason decided on their way in. That of a rule stands for all rules.
func (p *Page) Of(r Reason) Tally { return p[min(r, passRule)] }

// ByRules returns the packets that rules let in.
func (p *Page) ByRules() Tally { return p[passRule] }

// Unsent returns the routed packets that were not let out by this interface, or would not be, under the reason that they
// count as: they came in by another one, where they passed or nothing filtered them.
func (p *Page) Unsent() map[Reason]Tally {
	return map[Reason]Tally{
		dropLimit: p[unsentLimit], dropForward: p[unsentForward],
		dropLimit.Watched(): p[unsentLimitWatched], dropForward.Watched(): p[unsentForwardWatched],
	}
}

// Passed returns the packets that came in and passed, those that would be dropped among them.
func (p *Page) Passed() (t Tally) {
	t.Add(p.With(Pass))
	t.Add(p.With(WouldDrop))
	return t
}

// Received returns all packets that came in.
func (p *Page) Received() (t Tally) {
	t.Add(p.Passed())
	t.Add(p.With(Drop))
	return t
}

// With returns the packets that came in and had a verdict.
func (p *Page) With(verdict string) (t Tally) {
	for _, r := range Reasons() {
		if r.Verdict() == verdict {
			t.Add(p[r])
		}
	}
	if verdict == Pass {
		t.Add(p[passRule])
	}
	return t
}

// Ledger is the ledger at a moment.
type Ledger struct {
	pages []Page // by number
	total Page   // of all interfaces that there have been
	rules []Tally
}

// Page returns one page by its number.
func (l *Ledger) Page(number uint32) *Page {
	if number >= uint32(len(l.pages)) {
		return &Page{}
	}
	return &l.pages[number]
}

// Rest returns what is on none of the given pages: what came in by interfaces that are gone.
func (l *Ledger) Rest(numbers []uint32) *Page {
	rest := l.total
	for _, n := range numbers {
		rest.subtract(l.Page(n))
	}
	return &rest
}

// Total returns the packets of all interfaces that a reason decided, on the way in or out.
func (l *Ledger) Total(r Reason) Tally {
	if r >= ruleZero {
		return l.Rule(uint16(r - ruleZero))
	}
	t := l.total[r]
	t.Add(l.total.Unsent()[r])
	return t
}

// Rule returns the packets that a rule let in.
func (l *Ledger) Rule(id uint16) Tally {
	if int(id) >= len(l.rules) {
		return Tally{}
	}
	return l.rules[id]
}

// Closed returns the packets that rules have let in which are in force no more. Pages are read before rules: what comes in
// meanwhile, and what a rule lets out of an interface as well, makes it less, never more.
func (l *Ledger) Closed(inForce []Rule) Tally {
	closed := l.total.ByRules()
	for _, r := range inForce {
		open := l.Rule(r.ID)
		closed.Packets -= min(open.Packets, closed.Packets)
		closed.Bytes -= min(open.Bytes, closed.Bytes)
	}
	return closed
}

// OthersPage is the page of interfaces for which there was none left.
const OthersPage = 0

const (
	leastPages = 64
	mostPages  = 4096 // 4 MB a CPU
)

// ResizeLedger sets the map sizes in spec for a host with some devices, and for the pages that an earlier ledger had.
func ResizeLedger(spec *ebpf.CollectionSpec, devices int, old *State) error {
	pages := uint32(min(max(1<<bits.Len(uint(2*devices)), leastPages), mostPages))
	if old != nil {
		m, err := old.Map(bpf.FirewallMapLedger)
		if err != nil {
			return err
		}
		pages = max(pages, m.MaxEntries())
	}
	spec.Maps[bpf.FirewallMapLedger].MaxEntries = pages
	spec.Maps[bpf.FirewallMapLedgerOffsets].MaxEntries = pages + 1
	spec.Maps[bpf.FirewallMapLedgerPages].MaxEntries = pages
	return nil
}

// Ledger reads the ledger.
func (s *State) Ledger() (*Ledger, error) { return s.LedgerBelow(math.MaxUint32) }

// LedgerBelow is Ledger with the rules whose numbers are below one: to read those that there are not takes as long.
func (s *State) LedgerBelow(rules uint32) (*Ledger, error) {
	raw, err := s.rawLedger(rules)
	if err != nil {
		return nil, err
	}
	memory, err := s.memory(bpf.FirewallMapLedgerOffsets)
	if err != nil {
		return nil, err
	}
	offsets := view[Page](memory)
	last := len(offsets) - 1
	if last != len(raw.pages) {
		return nil, fmt.Errorf("the ledger has %d pages and offsets of %d", len(raw.pages), last)
	}
	raw.total.add(&offsets[last])
	for i := range raw.pages {
		raw.pages[i].add(&offsets[i])
	}
	if memory, err = s.memory(bpf.FirewallMapRuleOffsets); err != nil {
		return nil, err
	}
	begun := view[Tally](memory)
	for i := range min(len(raw.rules), len(begun)) {
		raw.rules[i].Add(begun[i])
	}
	return raw, nil
}

// rawLedger is the ledger as the datapath counted it.
func (s *State) rawLedger(rules uint32) (*Ledger, error) {
	l := &Ledger{}
	var err error
	if l.pages, err = sums[Page](s, bpf.FirewallMapLedger, math.MaxUint32, (*Page).add); err != nil {
		return nil, err
	}
	for i := range l.pages {
		l.total.add(&l.pages[i])
	}
	l.rules, err = sums[Tally](s, bpf.FirewallMapRuleTallies, rules, func(sum, t *Tally) { sum.Add(*t) })
	return l, err
}

// sums returns the values of a per-CPU array below a number, summed over all CPUs.
func sums[T any](s *State, name string, below uint32, add func(sum, value *T)) ([]T, error) {
	m, err := s.Map(name)
	if err != nil {
		return nil, err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	below = min(below, m.MaxEntries())
	out := make([]T, below)
	err = inBatches(m, below, cpus, func(key uint32, values []T) {
		for i := range values {
			add(&out[key], &values[i])
		}
	})
	return out, err
}

// batchSize is how many entries of an array are read at once.
const batchSize = 1024

// inBatches calls each for the entries of a per-CPU array below a number, with their values.
func inBatches[T any](m *ebpf.Map, below uint32, perEntry int, each func(key uint32, values []T)) error {
	n := min(below, batchSize)
	keys, values := make([]uint32, n), make([]T, int(n)*perEntry)
	var cursor ebpf.MapBatchCursor
	for left := below; left > 0; {
		most := min(left, n) // keys come in their order
		got, err := m.BatchLookup(&cursor, keys[:most], values[:int(most)*perEntry], nil)
		if got == 0 {
			return fmt.Errorf("read %s: %w", m, err)
		}
		for i, key := range keys[:got] {
			each(key, values[i*perEntry:(i+1)*perEntry])
		}
		left -= min(uint32(got), left)
	}
	return nil
}

// BeginRule makes a rule count from 0.
func (s *State) BeginRule(id uint16) error {
	sum, err := sumAt[Tally](s, bpf.FirewallMapRuleTallies, uint32(id), func(sum, t *Tally) { sum.Add(*t) })
	if err != nil {
		return err
	}
	s.begunRules.add(id)
	return s.putOffset(bpf.FirewallMapRuleOffsets, uint32(id), Tally{}.minus(sum))
}

// BeginPage makes a page count from 0, for an interface that has just got it. What was on it stays in the total.
func (s *State) BeginPage(number uint32) error {
	sum, err := sumAt[Page](s, bpf.FirewallMapLedger, number, (*Page).add)
	if err != nil {
		return err
	}
	var offset Page
	offset.subtract(&sum)
	s.begunPages.add(uint16(number))
	return s.putOffset(bpf.FirewallMapLedgerOffsets, number, offset)
}

func sumAt[T any](s *State, name string, key uint32, add func(sum, value *T)) (sum T, err error) {
	m, err := s.Map(name)
	if err != nil {
		return sum, err
	}
	var values []T
	if err := m.Lookup(key, &values); err != nil {
		return sum, fmt.Errorf("read %s: %w", m, err)
	}
	for i := range values {
		add(&sum, &values[i])
	}
	return sum, nil
}

func (s *State) putOffset(name string, key uint32, offset any) error {
	m, err := s.Map(name)
	if err != nil {
		return err
	}
	if err := m.Put(key, offset); err != nil {
		return fmt.Errorf("write %s: %w", m, err)
	}
	return nil
}

// Pages returns how many pages the ledger has.
func (s *State) Pages() (uint32, error) {
	m, err := s.Map(bpf.FirewallMapLedger)
	if err != nil {
		return 0, err
	}
	return m.MaxEntries(), nil
}

// AssignedPages returns the pages that AssignPage has named, and whose they are or were: interface indexes.
func (s *State) AssignedPages() (map[uint32][]uint32, error) {
	m, err := s.Map(bpf.FirewallMapLedgerPages)
	if err != nil {
		return nil, err
	}
	out := make(map[uint32][]uint32)
	var index, page uint32
	entries := m.Iterate()
	for entries.Next(&index, &page) {
		out[page] = append(out[page], index)
	}
	return out, entries.Err()
}

// AssignPage names the page of a device to programs that may stand at more than one. Devices that are gone, and had it
// before, have it no more.
func (s *State) AssignPage(ifindex int, page uint32, former []uint32) error {
	m, err := s.Map(bpf.FirewallMapLedgerPages)
	if err != nil {
		return err
	}
	for _, index := range former {
		if int(index) != ifindex {
			_ = m.Delete(index) // at worst it stays
		}
	}
	if err := m.Put(uint32(ifindex), page); err != nil {
		return fmt.Errorf("write %s: %w", m, err)
	}
	return nil
}
