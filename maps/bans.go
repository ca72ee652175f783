// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// Ban is a source that is banned.
type Ban struct {
	Prefix  netip.Prefix // an address, or a network without host bits
	Since   time.Time    // in whole seconds
	Until   time.Time    // the zero Time: for ever
	Reason  string       // at most MaxBanReason bytes
	Packets uint64       // that were dropped
	Forced  bool         // it stands whomever it hits; only the journal knows
}

// ErrBansFull is returned when there is no room for another ban. Those that were put before it are in force.
var ErrBansFull = errors.New("no room for more bans")

// banBatch is how many bans are written or read by one system call.
const banBatch = 4096

// PutBans bans sources at once, of which none is named twice, and returns how many are: all, if there is no error. A ban of the
// same address or network is replaced, but goes on counting its packets: what bans says of those is left out.
func (s *State) PutBans(clock Clock, bans []Ban) (put int, err error) {
	counted, err := s.countedBans(bans)
	if err != nil {
		return 0, err
	}
	return s.putCounted(clock, bans, func(b *Ban) uint64 {
		packets, _ := counted.get(b.Prefix)
		return packets
	})
}

// PutCountedBans is PutBans for who has asked by FindBans what is banned already: each goes on with the packets that it says.
func (s *State) PutCountedBans(clock Clock, bans []Ban) (put int, err error) {
	return s.putCounted(clock, bans, func(b *Ban) uint64 { return b.Packets })
}

func (s *State) putCounted(clock Clock, bans []Ban, packets func(*Ban) uint64) (put int, err error) {
	put, err = s.putBans(clock, bans, packets, true)
	if !errors.Is(err, ErrBansFull) {
		return put, err
	}
	if ended, err := s.ForgetEndedBans(clock); err != nil || ended == 0 {
		return put, errors.Join(ErrBansFull, err)
	}
	more, err := s.putBans(clock, bans[put:], packets, true)
	return put + more, err
}

// LoadBans is PutBans for a filter that runs nowhere yet: nobody has counted anything.
func (s *State) LoadBans(clock Clock, bans []Ban) (put int, err error) {
	return s.putBans(clock, bans, func(*Ban) uint64 { return 0 }, false)
}

// putBans puts bans in force. reasonsEnd says whether to look for reasons that no ban has any more where there is no room for
// another one. Of a new filter each has, and to look at all of its bans again and again would hold up the boot.
func (s *State) putBans(clock Clock, bans []Ban, packets func(*Ban) uint64, reasonsEnd bool) (put int, err error) {
	if err := s.openGate(bans); err != nil {
		return 0, err
	}
	reasons, err := s.banReasons()
	if err != nil {
		return 0, err
	}
	reasons.sought = !reasonsEnd
	if s.knownBans == nil {
		s.knownBans = newPrefixMap[uint32](0)
	}
	w := &banWriter{state: s, clock: clock, reasons: reasons, packets: packets, few: reasonsEnd && len(bans) <= banBatch}
	for put < len(bans) {
		n, err := w.put(bans[put:])
		put += n
		if err != nil {
			return put, err
		}
	}
	return put, nil
}

// banWriter puts bans into the tables. Of a million most have the same reason and the same end.
type banWriter struct {
	state   *State
	clock   Clock
	reasons *banReasons
	packets func(*Ban) uint64
	few     bool                // see count
	values  [][]bpf.FirewallBan // for the batches, each time anew

	began  bool
	reason string // of the one before
	number uint32
	ends   time.Time
	until  uint64
}

// putting is a number of bans of one kind that are put by one system call.
type putting struct {
	bans   []Ban
	values []bpf.FirewallBan
	done   int
	err    error
}

// put puts some of the bans, and returns how many from the first one on are in force. Each CPU writes a batch, as the tables
// have a lock for each of their buckets; but only one where there may not be room for all, so that it is the last ones that
// are left out.
func (w *banWriter) put(bans []Ban) (put int, err error) {
	kind := banKindOf(bans[0].Prefix)
	m, err := w.state.Map(kind.name())
	if err != nil {
		return 0, err
	}
	batches := make([]putting, 0, max(1, min(runtime.GOMAXPROCS(0), (int(m.MaxEntries())-w.reasons.total())/banBatch)))
	for rest := bans; len(rest) > 0 && len(batches) < cap(batches); {
		n := 0
		for n < len(rest) && n < banBatch && banKindOf(rest[n].Prefix) == kind {
			n++
		}
		if n == 0 {
			break
		}
		if len(w.values) == len(batches) {
			w.values = append(w.values, make([]bpf.FirewallBan, max(n, min(banBatch, len(bans)))))
		}
		b := putting{bans: rest[:n], values: w.values[len(batches)][:n]}
		for i := range b.bans {
			if b.values[i], err = w.wire(&b.bans[i], w.packets(&b.bans[i])); err != nil {
				return 0, err
			}
		}
		batches, rest = append(batches, b), rest[n:]
	}
	var others sync.WaitGroup
	for i := range batches[1:] {
		others.Go(func() { batches[i+1].put(kind, m) })
	}
	batches[0].put(kind, m)
	others.Wait()
	for i := range batches {
		b := &batches[i]
		if i > 0 && b.err != nil { // whatever it has done is done again, in order, so that what is told is in force
			b.put(kind, m)
		}
		put += b.done
		for j := range b.bans[:b.done] {
			w.reasons.count(w.state.knownBans, w.few, b.bans[j].Prefix, b.values[j].Reason, b.values[j].Since)
		}
		switch {
		case b.err == nil:
			continue
		case errors.Is(b.err, unix.E2BIG), errors.Is(b.err, unix.ENOSPC):
			return put, fmt.Errorf("%w of %s: %d is the most", ErrBansFull, kind, m.MaxEntries())
		}
		return put, fmt.Errorf("ban %s: %w", b.bans[min(b.done, len(b.bans)-1)].Prefix, b.err)
	}
	return put, nil
}

func (b *putting) put(kind banKind, m *ebpf.Map) { b.done, b.err = kind.put(m, b.bans, b.values) }

func (w *banWriter) wire(b *Ban, packets uint64) (wire bpf.FirewallBan, err error) {
	if !w.began || b.Reason != w.reason {
		if w.number, err = w.reasons.number(b.Reason); err != nil {
			return wire, err
		}
		w.reason = b.Reason
	}
	if !w.began || b.Until != w.ends {
		w.ends, w.until = b.Until, w.clock.jiffiesAt(b.Until)
	}
	w.began = true
	return bpf.FirewallBan{
		Until: w.until, Since: uint64(max(b.Since.Unix(), 0)), Packets: packets,
		Reason: w.number, PrefixLen: uint32(b.Prefix.Bits()),
	}, nil
}

// RemoveBans ends bans, and returns the addresses and networks that were not banned.
func (s *State) RemoveBans(clock Clock, prefixes []netip.Prefix) (missing []netip.Prefix, err error) {
	type found struct {
		there, live bool
		reason      uint32
	}
	held := newPrefixMap[found](0)
	if err := s.eachOf(prefixes, func(p netip.Prefix, wire *bpf.FirewallBan) {
		held.set(p, found{true, wire.Until > clock.Jiffies, wire.Reason})
	}); err != nil {
		return nil, err
	}
	reasons, err := s.banReasons()
	if err != nil {
		return nil, err
	}
	var there [len(banKinds)][]netip.Prefix
	var ended []uint32 // the reasons of those
	for _, p := range prefixes {
		one, _ := held.get(p)
		if !one.live {
			missing = append(missing, p)
		}
		if one.there {
			kind := banKindOf(p)
			there[kind], ended = append(there[kind], p), append(ended, one.reason)
			held.set(p, found{}) // who is named twice is not there the second time
		}
		if s.knownBans != nil {
			s.knownBans.remove(p)
		}
	}
	for _, kind := range banKinds {
		if err := s.removeBans(kind, there[kind]); err != nil {
			return missing, err
		}
	}
	for _, number := range ended {
		reasons.add(number, -1)
	}
	return missing, nil
}

// RemoveAllBans ends all bans, and returns how many were in force.
func (s *State) RemoveAllBans(clock Clock) (n int, err error) {
	reasons, err := s.banReasons()
	if err != nil {
		return 0, err
	}
	for _, kind := range banKinds {
		var all []netip.Prefix
		live := 0
		if err := s.eachBan(kind, func(p netip.Prefix, wire *bpf.FirewallBan) bool {
			all = append(all, p)
			if wire.Until > clock.Jiffies {
				live++
			}
			return true
		}); err != nil {
			return n, err
		}
		if err := s.removeBans(kind, all); err != nil {
			return n, err
		}
		n += live
	}
	reasons.setCounts(make(banCounts, len(reasons.places)))
	s.knownBans = nil
	return n, nil
}

func (s *State) removeBans(kind banKind, prefixes []netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	m, err := s.Map(kind.name())
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(prefixes, banBatch) {
		if err := kind.remove(m, chunk); err != nil {
			return err
		}
	}
	return nil
}

// Bans returns the bans in force, in no order. It reads them in batches: one that is put or removed meanwhile may be
// among them or not. The sequence ends with the first error.
func (s *State) Bans(clock Clock) iter.Seq2[Ban, error] {
	return func(yield func(Ban, error) bool) {
		reasons, err := s.banReasons()
		if err != nil {
			yield(Ban{}, err)
			return
		}
		for _, kind := range banKinds {
			err := s.eachBan(kind, func(p netip.Prefix, wire *bpf.FirewallBan) bool {
				return wire.Until <= clock.Jiffies || yield(reasons.ban(clock, p, wire), nil)
			})
			if errors.Is(err, errStopped) {
				return
			}
			if err != nil {
				yield(Ban{}, err)
				return
			}
		}
	}
}

// BansOf returns the bans in force that hold an address, that of the address alone first and then the longest network's.
func (s *State) BansOf(clock Clock, addr netip.Addr) ([]Ban, error) {
	reasons, err := s.banReasons()
	if err != nil {
		return nil, err
	}
	var out []Ban
	for bits := addr.BitLen(); bits >= 0; bits-- {
		p, err := addr.Prefix(bits)
		if err != nil {
			return nil, err
		}
		kind := banKindOf(p)
		m, err := s.Map(kind.name())
		if err != nil {
			return nil, err
		}
		var wire bpf.FirewallBan
		switch err := kind.lookup(m, kind.key(p), p, &wire); {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("look for the ban of %s: %w", p, err)
		}
		if wire.Until > clock.Jiffies {
			out = append(out, reasons.ban(clock, p, &wire))
		}
	}
	return out, nil
}

// ForgetEndedBans makes room: it takes bans out that have ended, and returns how many did. No verdict needs it.
func (s *State) ForgetEndedBans(clock Clock) (n int, err error) {
	reasons, err := s.banReasons()
	if err != nil {
		return 0, err
	}
	live := make(banCounts, len(reasons.places))
	for _, kind := range banKinds {
		var ended []netip.Prefix
		if err := s.eachBan(kind, func(p netip.Prefix, wire *bpf.FirewallBan) bool {
			if wire.Until > clock.Jiffies {
				live.add(wire)
				return true
			}
			ended = append(ended, p)
			return true
		}); err != nil {
			return n, err
		}
		if err := s.removeBans(kind, ended); err != nil {
			return n, err
		}
		n += len(ended)
		for _, p := range ended {
			if s.knownBans != nil {
				s.knownBans.remove(p)
			}
		}
	}
	reasons.setCounts(live)
	return n, nil
}

// ban returns a ban as commands know it.
func (r *banReasons) ban(clock Clock, p netip.Prefix, wire *bpf.FirewallBan) Ban {
	return Ban{
		Prefix: p, Since: time.Unix(int64(wire.Since), 0), Until: clock.timeAt(wire.Until),
		Reason: r.text(wire.Reason), Packets: wire.Packets,
	}
}
