// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// ErrSeveralSteps is returned when a change of rules is none that one store makes: it takes maps of its own, or packets
// would meet a part of it.
var ErrSeveralSteps = errors.New("the change of rules takes more than one step")

// Swap is a change of the rules in force that the datapath sees in one store, as it changes one port at most. What leads
// there is written before, and what is left behind goes after it. Its text, kept in between, is what takes a Swap back of
// which somebody was killed, or ends it.
type Swap struct {
	set      *Set
	records  []newRecord
	sets     []placed
	fresh    []Rule // that have new numbers
	compiled *policy.Compiled
	known    []policy.KnownSet
	mark     swapMark
}

// swapMark is what is kept of a Swap.
type swapMark struct {
	group       policy.Group
	slot        int // -1 for none
	old, new    uint32
	come, leave []uint16 // numbers of rules
}

// mostMark is the most bytes of a mark: it is kept as the target of a symbolic link.
const mostMark = 2048

// PlanSwap finds out how rules take the place of old, those in force. It writes nothing. The error is ErrSeveralSteps where
// more than one store would be needed, and ErrNoRoom where the running maps have no room.
func (s *Set) PlanSwap(rules, old []Rule) (*Swap, error) {
	if err := s.checkFeatures(rules); err != nil {
		return nil, err
	}
	w := &Swap{set: s, mark: swapMark{slot: -1}}
	before, after := idsOf(old), idsOf(rules)
	for _, r := range rules {
		if !before.has(r.ID) {
			w.fresh = append(w.fresh, r)
			w.mark.come = append(w.mark.come, r.ID)
		}
	}
	for _, r := range old {
		if !after.has(r.ID) {
			w.mark.leave = append(w.mark.leave, r.ID)
		}
	}
	var err error
	if w.records, err = s.planRecords(rules); err != nil {
		return nil, err
	}
	if !w.Changes() {
		return w, nil
	}
	if w.compiled, w.known, w.sets, err = s.compileBeside(rules, s.interfaces); err != nil {
		return nil, err
	}
	steps, err := s.planRouted(rules, old, w.compiled.Forward)
	if err != nil {
		return nil, err
	}
	if len(steps) > 0 {
		return nil, ErrSeveralSteps
	}
	for g, table := range w.compiled.Tables {
		have, err := s.ports(g)
		if err != nil {
			return nil, err
		}
		if err := w.mark.compare(g, have, table); err != nil {
			return nil, err
		}
	}
	if len(w.mark.text()) > mostMark {
		return nil, ErrSeveralSteps
	}
	return w, nil
}

func idsOf(rules []Rule) (ids idSet) {
	for _, r := range rules {
		ids.add(r.ID)
	}
	return ids
}

// compare notes the slot in which a table in force differs from one that is wanted.
func (m *swapMark) compare(g policy.Group, have ports, table *policy.Table) error {
	wanted := unsafe.Slice((*uint32)(unsafe.Pointer(table)), len(table))
	for slot, want := range wanted {
		// What is there and not listed is left by somebody who was killed: also that is more than one step.
		if atomic.LoadUint32(&have.entries[slot]) == want && have.isListed(slot) == (want != 0) {
			continue
		}
		if m.slot >= 0 {
			return ErrSeveralSteps
		}
		m.group, m.slot, m.old, m.new = g, slot, have.effective(slot), want
	}
	return nil
}

// Changes reports whether rules come or leave; else the same ones are shown in another way, at most.
func (w *Swap) Changes() bool { return len(w.mark.come)+len(w.mark.leave) > 0 }

// Closes reports whether a rule leaves.
func (w *Swap) Closes() bool { return len(w.mark.leave) > 0 }

// Text returns what FinishSwap takes. It has to be kept from before Do until Do is done.
func (w *Swap) Text() string { return w.mark.text() }

// Do puts the rules in force.
func (w *Swap) Do() error {
	s := w.set
	if err := s.writeSets(w.sets); err != nil {
		return err // no port asks for those that are written
	}
	if err := s.putLimits(w.fresh); err != nil {
		return err
	}
	for _, r := range w.fresh {
		beforeWrite()
		if err := s.BeginRule(r.ID); err != nil {
			return err
		}
	}
	if err := s.writeRecords(w.records); err != nil {
		return err
	}
	if err := s.storeSlot(&w.mark, w.mark.new); err != nil {
		return err
	}
	for _, id := range w.mark.leave {
		beforeWrite()
		if err := s.forgetRule(id); err != nil {
			return err
		}
	}
	if w.compiled == nil {
		return nil
	}
	beforeWrite()
	return s.dropSets(w.known, w.compiled.Contents)
}

// PlanRunning returns a map with what is to be recorded once PutBlocking has put other lists in force, and the text that
// FinishSwap takes for that. Both have to be kept from before PutBlocking.
func (s *Set) PlanRunning(running *Running) (text string, next *ebpf.Map, err error) {
	wire, err := s.wireRunning(running)
	if err != nil {
		return "", nil, err
	}
	_, now, err := s.blocking()
	if err != nil {
		return "", nil, err
	}
	next, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "swap_running", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(unsafe.Sizeof(*wire)), MaxEntries: 1,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: wire}},
	})
	if err != nil {
		return "", nil, fmt.Errorf("create map swap_running: %w", err)
	}
	return fmt.Sprintf("%s%d", listsMark, now.Changes+1), next, nil
}

const listsMark = "lists "

// finishLists records what belongs to the lists in force, where they are the new ones.
func (s *Set) finishLists(changes string, next func() (*ebpf.Map, error)) error {
	_, now, err := s.blocking()
	if err != nil || fmt.Sprint(now.Changes) != changes {
		return err
	}
	m, err := next()
	if err != nil {
		return err
	}
	defer m.Close()
	var wire bpf.FirewallSettings
	if err := m.Lookup(uint32(0), &wire); err != nil {
		return fmt.Errorf("read %s: %w", m, err)
	}
	beforeWrite()
	return s.putSettings(&wire)
}

// FinishSwap ends a change in place, of which somebody may have been killed, if the datapath goes by it, or takes it back.
// Text is its own. Next opens the map of PlanRunning.
func (s *Set) FinishSwap(text string, next func() (*ebpf.Map, error)) error {
	if changes, ok := strings.CutPrefix(text, listsMark); ok {
		return s.finishLists(changes, next)
	}
	mark, err := parseSwapMark(text)
	if err != nil {
		return err
	}
	places, _, err := s.records()
	if err != nil {
		return err
	}
	// The records of what comes are there before the port changes, and those of what leaves until then.
	forward := !slices.ContainsFunc(mark.come, func(id uint16) bool {
		return int(id) >= len(places) || loadPlace(&places[id]).length == 0
	})
	if forward && mark.slot >= 0 {
		table, err := s.ports(mark.group)
		if err != nil {
			return err
		}
		forward = table.effective(mark.slot) == mark.new
	}
	gone, entry := mark.come, mark.old
	if forward {
		gone, entry = mark.leave, mark.new
	}
	if err := s.storeSlot(&mark, entry); err != nil {
		return err
	}
	for _, id := range gone {
		if int(id) >= len(places) {
			continue
		}
		if err := s.forgetRule(id); err != nil {
			return err
		}
	}
	return nil // sets that no port asks for go with the next change of rules
}

// storeSlot gives the port of a mark an entry.
func (r *Ruleset) storeSlot(m *swapMark, entry uint32) error {
	if m.slot < 0 {
		return nil
	}
	p, release, err := r.portsBetween(m.group, m.slot, m.slot)
	if err != nil {
		return err
	}
	defer release()
	listed, bit := &p.listed[0], uint64(1)<<(m.slot%64)
	if entry == 0 {
		beforeWrite()
		atomic.AndUint64(listed, ^bit)
	}
	beforeWrite()
	atomic.StoreUint32(&p.entries[0], entry)
	if entry != 0 {
		beforeWrite()
		atomic.OrUint64(listed, bit)
	}
	return nil
}

func (p ports) isListed(slot int) bool {
	return atomic.LoadUint64(&p.listed[slot/64])>>(slot%64)&1 != 0
}

// effective returns the entry of a slot that packets meet.
func (p ports) effective(slot int) uint32 {
	if !p.isListed(slot) {
		return 0
	}
	return atomic.LoadUint32(&p.entries[slot])
}

// text returns the mark as words: slot, old entry, new entry, what comes and what leaves, and the group.
func (m *swapMark) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d %d", m.slot, m.old, m.new)
	for _, id := range m.come {
		fmt.Fprintf(&b, " +%d", id)
	}
	for _, id := range m.leave {
		fmt.Fprintf(&b, " -%d", id)
	}
	return b.String() + " " + strconv.Quote(string(m.group))
}

var errSwapMark = errors.New("what a killed command has left of a change of rules cannot be read: \"portcullis up\" puts the policy in force anew")

func parseSwapMark(text string) (m swapMark, err error) {
	words, group, ok := strings.Cut(text, ` "`)
	if !ok {
		return m, errSwapMark
	}
	name, err := strconv.Unquote(`"` + group)
	if err != nil {
		return m, errSwapMark
	}
	m.group = policy.Group(name)
	fields := strings.Fields(words)
	if len(fields) < 3 {
		return m, errSwapMark
	}
	m.slot, err = strconv.Atoi(fields[0])
	if err != nil || m.slot < -1 || m.slot >= policy.PortSlots {
		return m, errSwapMark
	}
	for i, entry := range []*uint32{&m.old, &m.new} {
		n, err := strconv.ParseUint(fields[1+i], 10, 32)
		if err != nil {
			return m, errSwapMark
		}
		*entry = uint32(n)
	}
	for _, word := range fields[3:] {
		id, err := strconv.ParseUint(word[1:], 10, 16)
		switch {
		case err != nil:
			return m, errSwapMark
		case word[0] == '+':
			m.come = append(m.come, uint16(id))
		default:
			m.leave = append(m.leave, uint16(id))
		}
	}
	return m, nil
}

// Empty takes out whatever the ruleset holds. No program may run over it.
func (r *Ruleset) Empty() error {
	for _, g := range r.Groups() {
		memory, err := r.memory(tableOf(g))
		if err != nil {
			return err
		}
		clear(memory[:groupOffset])
	}
	for _, name := range []string{bpf.FirewallMapRules, bpf.FirewallMapBlockLists, blockingMap} {
		memory, err := r.memory(name)
		if err != nil {
			return err
		}
		clear(memory)
	}
	sets, err := r.rangeSets()
	if err != nil {
		return err
	}
	for i := range sets {
		setState(&sets[i], bpf.FirewallRangeSetStateSET_FREE)
	}
	entries, err := r.readForwarders()
	if err != nil {
		return err
	}
	var steps []forwarderStep
	for key := range entries {
		steps = append(steps, forwarderStep{key: key, gone: true})
	}
	return r.putForwarders(steps)
}
