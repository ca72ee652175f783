// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"net/netip"
	"sync/atomic"
	"unsafe"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// The gate tells which networks may have somebody in them who is blocked or banned, see bpf/block.h. It is the state's, so
// that bans need not be told to every ruleset, and has bits for the lists of all rulesets in use.

const (
	gateHashShift = 12 // to the 20 bits of a place
	gateFew6      = 16 // networks of fewer bits than that open the gate for all of IPv6
)

// gatePlace6 returns the place of the addresses whose first 32 bits are these.
func gatePlace6(first uint32) uint32 { return first * 0x9e3779b1 >> gateHashShift }

// gateRange calls each for the words of the gate that stand for the addresses from first to last, with their bits.
func gateRange(gate *bpf.FirewallSourceGate, is4 bool, first, last address, each func(word *uint64, bits uint64)) {
	if is4 {
		from, to := uint32(first.high)>>8, uint32(last.high)>>8
		for word := from / 64; word <= to/64; word++ {
			bits := ^uint64(0)
			if word == from/64 {
				bits &= ^uint64(0) << (from % 64)
			}
			if word == to/64 {
				bits &= ^uint64(0) >> (63 - to%64)
			}
			each(&gate.V4[word], bits)
		}
		return
	}
	from, to := first.high>>32, last.high>>32
	if to-from >= 1<<(32-gateFew6) {
		for i := range gate.V6 {
			each(&gate.V6[i], ^uint64(0))
		}
		return
	}
	for place := from; place <= to; place++ {
		bit := gatePlace6(uint32(place))
		each(&gate.V6[bit/64], 1<<(bit%64))
	}
}

func gatePrefix(gate *bpf.FirewallSourceGate, p netip.Prefix, each func(word *uint64, bits uint64)) {
	gateRange(gate, p.Addr().Is4(), addressOf(p.Addr()), lastOf(p), each)
}

func (s *State) gate() (*bpf.FirewallSourceGate, error) {
	memory, err := s.memory(bpf.FirewallMapSourceGate)
	if err != nil {
		return nil, err
	}
	return &view[bpf.FirewallSourceGate](memory)[0], nil
}

// setShared sets bits that the datapath reads.
func setShared(word *uint64, bits uint64) {
	if atomic.LoadUint64(word)&bits != bits {
		atomic.OrUint64(word, bits)
	}
}

// openGate lets the sources of bans through the gate, to the tables.
func (s *State) openGate(bans []Ban) error {
	gate, err := s.gate()
	if err != nil {
		return err
	}
	var asks bpf.FirewallAsk
	for _, b := range bans {
		gatePrefix(gate, b.Prefix, setShared)
		asks |= banKindOf(b.Prefix).ask()
	}
	return s.changeAsks(asks, 0)
}

// changeAsks says what the datapath has to ask about sources, and what it need not ask any more.
func (s *State) changeAsks(add, remove bpf.FirewallAsk) error {
	return s.changeBits([4]byte{asksAt: byte(add)}, [4]byte{asksAt: byte(remove)})
}

// Where the bytes are that changeBits changes.
const (
	asksAt       = unsafe.Offsetof(bpf.FirewallState{}.Asks) - unsafe.Offsetof(bpf.FirewallState{}.Sweep)
	showDropsAt  = unsafe.Offsetof(bpf.FirewallState{}.ShowDrops) - unsafe.Offsetof(bpf.FirewallState{}.Sweep)
	showPassesAt = unsafe.Offsetof(bpf.FirewallState{}.ShowPasses) - unsafe.Offsetof(bpf.FirewallState{}.Sweep)
)

// changeBits sets and clears bits of the word in which struct state has sweep, asks and shows. The others stay as they are,
// whoever changes them meanwhile.
func (s *State) changeBits(add, remove [4]byte) error {
	return s.state(func(state *bpf.FirewallState) {
		word := (*uint32)(unsafe.Pointer(&state.Sweep))
		atomic.OrUint32(word, *(*uint32)(unsafe.Pointer(&add)))
		atomic.AndUint32(word, ^*(*uint32)(unsafe.Pointer(&remove)))
	})
}

// TidyGate closes the gate to sources that nothing blocks any more: no ban that is there, and no list of this ruleset. No
// program may run over another ruleset. What it leaves out costs time, and changes no verdict.
func (s *Set) TidyGate() error {
	want := new(bpf.FirewallSourceGate)
	set := func(word *uint64, bits uint64) { *word |= bits }
	var asks bpf.FirewallAsk
	for _, kind := range banKinds {
		if err := s.eachBan(kind, func(p netip.Prefix, _ *bpf.FirewallBan) bool {
			gatePrefix(want, p, set)
			asks |= kind.ask()
			return true
		}); err != nil {
			return err
		}
	}
	if err := s.eachBlocked(func(is4 bool, first, last address, _ uint32) {
		gateRange(want, is4, first, last, set)
		asks |= bpf.FirewallAskASK_LISTS
	}); err != nil {
		return err
	}
	gate, err := s.gate()
	if err != nil {
		return err
	}
	beforeWrite()
	all := bpf.FirewallAskASK_BANS | bpf.FirewallAskASK_LISTS
	if err := s.changeAsks(0, all&^asks); err != nil {
		return err
	}
	clear := func(words, want []uint64) {
		for i := range words {
			if atomic.LoadUint64(&words[i])&^want[i] != 0 {
				atomic.AndUint64(&words[i], want[i])
			}
		}
	}
	beforeWrite()
	clear(gate.V4[:], want.V4[:])
	beforeWrite()
	clear(gate.V6[:], want.V6[:])
	return nil
}
