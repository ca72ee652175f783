// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
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
}

// ErrBansFull is returned when there is no room for another ban. Those that were put before it are in force.
var ErrBansFull = errors.New("no room for more bans")

// banBatch is how many bans are written or read by one system call.
const banBatch = 4096

// PutBans bans sources at once, one after the other, and returns how many are: all, if there is no error. A ban of the
// same address or network is replaced, but goes on counting its packets: what bans says of those is left out.
func (s *State) PutBans(clock Clock, bans []Ban) (put int, err error) {
	counted, err := s.countedBans(bans)
	if err != nil {
		return 0, err
	}
	return s.putCounted(clock, bans, func(b *Ban) uint64 { return counted[b.Prefix] })
}

// PutCountedBans is PutBans for who has asked what is banned already: each goes on with the packets that it says.
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
	for rest := bans; len(rest) > 0; {
		kind := banKindOf(rest[0].Prefix)
		n := 1
		for n < len(rest) && n < banBatch && banKindOf(rest[n].Prefix) == kind {
			n++
		}
		values := make([]bpf.FirewallBan, n)
		for i := range rest[:n] {
			b := &rest[i]
			number, err := reasons.number(b.Reason)
			if err != nil {
				return put, err
			}
			values[i] = bpf.FirewallBan{
				Until: clock.jiffiesAt(b.Until), Since: uint64(max(b.Since.Unix(), 0)), Packets: packets(b),
				Reason: number, PrefixLen: uint32(b.Prefix.Bits()),
			}
		}
		m, err := s.Map(kind.name())
		if err != nil {
			return put, err
		}
		done, err := kind.put(m, rest[:n], values)
		put += done
		if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) {
			return put, fmt.Errorf("%w of %s: %d is the most", ErrBansFull, kind, m.MaxEntries())
		}
		if err != nil {
			return put, fmt.Errorf("ban %s: %w", rest[min(done, n-1)].Prefix, err)
		}
		rest = rest[n:]
	}
	return put, nil
}

// RemoveBans ends bans, and returns the addresses and networks that were not banned.
func (s *State) RemoveBans(clock Clock, prefixes []netip.Prefix) (missing []netip.Prefix, err error) {
	type found struct{ there, live bool }
	held := make(map[netip.Prefix]found)
	if err := s.eachOf(prefixes, func(p netip.Prefix, wire *bpf.FirewallBan) {
		held[p] = found{there: true, live: wire.Until > clock.Jiffies}
	}); err != nil {
		return nil, err
	}
	var there [len(banKinds)][]netip.Prefix
	for _, p := range prefixes {
		if !held[p].live {
			missing = append(missing, p)
		}
		if held[p].there {
			kind := banKindOf(p)
			there[kind] = append(there[kind], p)
			held[p] = found{} // who is named twice is not there the second time
		}
	}
	for _, kind := range banKinds {
		if err := s.removeBans(kind, there[kind]); err != nil {
			return missing, err
		}
	}
	return missing, nil
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

// CountBans returns how many bans there are, those included that have ended and are not forgotten yet.
func (s *State) CountBans() (n int, err error) {
	for _, kind := range banKinds {
		if err := s.eachBan(kind, func(netip.Prefix, *bpf.FirewallBan) bool { n++; return true }); err != nil {
			return n, err
		}
	}
	return n, nil
}

// ForgetEndedBans makes room: it takes bans out that have ended, and returns how many did. No verdict needs it.
func (s *State) ForgetEndedBans(clock Clock) (n int, err error) {
	for _, kind := range banKinds {
		var ended []netip.Prefix
		if err := s.eachBan(kind, func(p netip.Prefix, wire *bpf.FirewallBan) bool {
			if wire.Until <= clock.Jiffies {
				ended = append(ended, p)
			}
			return true
		}); err != nil {
			return n, err
		}
		if err := s.removeBans(kind, ended); err != nil {
			return n, err
		}
		n += len(ended)
	}
	return n, nil
}

// countedBans returns the packets of those of bans that there are already.
func (s *State) countedBans(bans []Ban) (map[netip.Prefix]uint64, error) {
	prefixes := make([]netip.Prefix, len(bans))
	for i, b := range bans {
		prefixes[i] = b.Prefix
	}
	counted := make(map[netip.Prefix]uint64)
	err := s.eachOf(prefixes, func(p netip.Prefix, wire *bpf.FirewallBan) {
		if wire.Packets > 0 {
			counted[p] = wire.Packets
		}
	})
	return counted, err
}

// eachOf calls each for those of prefixes that are banned, or were until a while ago; for some, twice.
func (s *State) eachOf(prefixes []netip.Prefix, each func(netip.Prefix, *bpf.FirewallBan)) error {
	const few = 256 // that are looked for one by one in any case
	if len(prefixes) > few {
		err := s.eachOfMany(prefixes, each)
		if !errors.Is(err, errStopped) {
			return err
		}
	}
	for _, p := range prefixes {
		kind := banKindOf(p)
		m, err := s.Map(kind.name())
		if err != nil {
			return err
		}
		var wire bpf.FirewallBan
		switch err := kind.lookup(m, kind.key(p), p, &wire); {
		case errors.Is(err, ebpf.ErrKeyNotExist):
		case err != nil:
			return fmt.Errorf("look for the ban of %s: %w", p, err)
		default:
			each(p, &wire)
		}
	}
	return nil
}

// eachOfMany is eachOf by a walk over all that are banned. The error is errStopped where these are so many more that to
// look for each takes less.
func (s *State) eachOfMany(prefixes []netip.Prefix, each func(netip.Prefix, *bpf.FirewallBan)) error {
	const cheaper = 4                // times as fast is the walk
	var wanted map[netip.Prefix]bool // made when there is any ban
	left := cheaper * len(prefixes)
	for _, kind := range banKinds {
		if err := s.eachBan(kind, func(p netip.Prefix, wire *bpf.FirewallBan) bool {
			if wanted == nil {
				wanted = make(map[netip.Prefix]bool, len(prefixes))
				for _, p := range prefixes {
					wanted[p] = true
				}
			}
			if wanted[p] {
				each(p, wire)
			}
			left--
			return left > 0
		}); err != nil {
			return err
		}
	}
	return nil
}

// ban returns a ban as commands know it.
func (r *banReasons) ban(clock Clock, p netip.Prefix, wire *bpf.FirewallBan) Ban {
	return Ban{
		Prefix: p, Since: time.Unix(int64(wire.Since), 0), Until: clock.timeAt(wire.Until),
		Reason: r.text(wire.Reason), Packets: wire.Packets,
	}
}
