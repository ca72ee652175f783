// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Sets of addresses lie in three arrays, see bpf/ranges.h. A set is written once, where nothing is, and told by its
// number; then ports ask for it. Dropped, it keeps its places until no packet on its way can read them.

const (
	leastSets    = 1024 // that there is room for, however few a policy has
	leastLines   = 4096
	leastBuckets = 8192
)

// room is how much of the arrays something takes.
type room struct{ sets, lines, buckets int }

// mostRoomOf returns the room that the sets of compiled rules take at most. A prefix has two borders, at which ranges end.
func mostRoomOf(c *policy.Compiled) (r room) {
	for rest := c.Sources; len(rest) > 0; {
		var borders [2]int // of IPv4, IPv6
		n := 0
		for ; n < len(rest) && rest[n].Set == rest[0].Set; n++ {
			if rest[n].Prefix.Addr().Is4() {
				borders[0] += 2
			} else {
				borders[1] += 2
			}
		}
		r.sets = max(r.sets, int(rest[0].Set)+1)
		for i, perLine := range []int{rangesPerLine, longPerLine} {
			lines := borders[i]/perLine + 1 // with the range from the first address
			r.lines += lines
			if lines > 1 {
				r.buckets += bucketsPerLine * lines
			}
		}
		rest = rest[n:]
	}
	return r
}

// ResizeSets sets the map sizes in spec for twice the room that the sets of compiled rules take.
func ResizeSets(spec *ebpf.CollectionSpec, c *policy.Compiled) {
	r := mostRoomOf(c)
	spec.Maps[bpf.FirewallMapRangeSets].MaxEntries = min(powerOfTwo(2*r.sets, leastSets), 1<<16)
	spec.Maps[bpf.FirewallMapRangeLines].MaxEntries = powerOfTwo(2*r.lines, leastLines)
	spec.Maps[bpf.FirewallMapRangeBuckets].MaxEntries = powerOfTwo(2*r.buckets, leastBuckets)
}

// imagesOf returns the images of the sets of compiled rules, by their numbers, but for those that are known.
func imagesOf(c *policy.Compiled, known []policy.KnownSet) map[uint16]*rangeImage {
	skip := make(map[uint16]bool, len(known))
	for _, k := range known {
		skip[k.Number] = true
	}
	images := make(map[uint16]*rangeImage)
	for rest := c.Sources; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Set == rest[0].Set {
			n++
		}
		if !skip[rest[0].Set] {
			prefixes := make([]prefixValue, n)
			for i, s := range rest[:n] {
				prefixes[i] = prefixValue{s.Prefix, wireDecision(s.Decision)}
			}
			images[rest[0].Set] = newRangeImage(prefixes)
		}
		rest = rest[n:]
	}
	return images
}

// wireDecision returns a decision as the word that the datapath reads.
func wireDecision(d policy.Decision) uint32 {
	wire := bpf.FirewallDecision{Number: d.Rule, Kind: uint16(bpf.FirewallDecisionKindLETS_IN)}
	switch {
	case d.To != 0:
		wire = bpf.FirewallDecision{Number: d.To, Kind: uint16(bpf.FirewallDecisionKindBY_ADDRESS)}
	case d.Limited:
		wire.Kind = uint16(bpf.FirewallDecisionKindLIMITED)
	}
	return *(*uint32)(unsafe.Pointer(&wire))
}

func (r *Ruleset) rangeSets() ([]bpf.FirewallRangeSet, error) {
	memory, err := r.memory(bpf.FirewallMapRangeSets)
	return view[bpf.FirewallRangeSet](memory), err
}

func stateOf(s *bpf.FirewallRangeSet) bpf.FirewallRangeSetState {
	return bpf.FirewallRangeSetState(atomic.LoadUint32((*uint32)(unsafe.Pointer(&s.State))))
}

func setState(s *bpf.FirewallRangeSet, state bpf.FirewallRangeSetState) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&s.State)), uint32(state))
}

// knownSets returns the sets in force, and those that are dropped.
func (r *Ruleset) knownSets() ([]policy.KnownSet, error) {
	sets, err := r.rangeSets()
	if err != nil {
		return nil, err
	}
	var known []policy.KnownSet
	for i := range sets {
		if state := stateOf(&sets[i]); state != bpf.FirewallRangeSetStateSET_FREE {
			known = append(known, policy.KnownSet{
				Number: uint16(i), Contents: sets[i].Contents, Dropped: state == bpf.FirewallRangeSetStateSET_DROPPED,
			})
		}
	}
	return known, nil
}

// forgetDropped frees what dropped sets take, once no packet can read it.
func (r *Ruleset) forgetDropped() error {
	sets, err := r.rangeSets()
	if err != nil {
		return err
	}
	waited := false
	for i := range sets {
		if stateOf(&sets[i]) != bpf.FirewallRangeSetStateSET_DROPPED {
			continue
		}
		if !waited && !WaitForPackets() {
			return nil
		}
		waited = true
		setState(&sets[i], bpf.FirewallRangeSetStateSET_FREE)
	}
	return nil
}

// WaitForPackets waits until no packet is on its way through what was replaced before: for the end of every RCU read
// section. It reports whether it could: it cannot where the kernel was booted with nohz_full.
func WaitForPackets() bool {
	const membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
	return errno == 0
}

// placed is a set with the places of its lines and buckets.
type placed struct {
	number  uint16
	image   *rangeImage
	line    int
	bucket  int
	content policy.SetContents
}

// planSets finds places for images beside the sets that are there. It writes nothing. The error is ErrNoRoom if there is
// no room for them.
func (r *Ruleset) planSets(images map[uint16]*rangeImage, contents map[uint16]policy.SetContents) ([]placed, error) {
	if len(images) == 0 {
		return nil, nil
	}
	sets, err := r.rangeSets()
	if err != nil {
		return nil, err
	}
	var usedLines, usedBuckets []taken
	for i := range sets {
		if s := &sets[i]; stateOf(s) != bpf.FirewallRangeSetStateSET_FREE {
			usedLines = append(usedLines, taken{int(s.FirstLine), int(s.Lines)})
			usedBuckets = append(usedBuckets, taken{int(s.FirstBucket), int(s.Buckets)})
		}
	}
	lines := newSpace(int(r.byName[bpf.FirewallMapRangeLines].MaxEntries()), usedLines)
	buckets := newSpace(int(r.byName[bpf.FirewallMapRangeBuckets].MaxEntries()), usedBuckets)
	plan := make([]placed, 0, len(images))
	for _, number := range slices.Sorted(maps.Keys(images)) {
		image := images[number]
		p := placed{number: number, image: image, content: contents[number]}
		var ok, also bool
		p.line, ok = lines.take(len(image.lines))
		p.bucket, also = buckets.take(len(image.buckets))
		if !ok || !also || int(number) >= len(sets) {
			return nil, fmt.Errorf("%w: the sources of the old rules and of the new ones take more than %d ranges", ErrNoRoom, rangesPerLine*int(r.byName[bpf.FirewallMapRangeLines].MaxEntries()))
		}
		plan = append(plan, p)
	}
	return plan, nil
}

// writeSets writes sets to their places. Until ports ask for them, no packet reads them.
func (r *Ruleset) writeSets(plan []placed) error {
	sets, err := r.rangeSets()
	if err != nil {
		return err
	}
	for _, p := range plan {
		if err := r.writeArray(bpf.FirewallMapRangeLines, p.line*rangeLineSize, len(p.image.lines)*rangeLineSize, func(memory []byte) {
			for i := range p.image.lines {
				copy(memory[i*rangeLineSize:], p.image.lines[i][:])
			}
		}); err != nil {
			return err
		}
		if err := r.writeArray(bpf.FirewallMapRangeBuckets, rangeBucketSize*p.bucket, rangeBucketSize*len(p.image.buckets), func(memory []byte) {
			copy(view[rangeBucket](memory), p.image.buckets)
		}); err != nil {
			return err
		}
		s := &sets[p.number]
		beforeWrite()
		s.V4, s.V6 = wireIndex(p.image.v4, p), wireIndex(p.image.v6, p)
		s.FirstSingle, s.SinglesShift = p.image.singles.firstLine+uint32(p.line), p.image.singles.shift
		s.FirstLine, s.Lines = uint32(p.line), uint32(len(p.image.lines))
		s.FirstBucket, s.Buckets = uint32(p.bucket), uint32(len(p.image.buckets))
		s.Contents = p.content
		beforeWrite()
		setState(s, bpf.FirewallRangeSetStateSET_IN_USE)
	}
	return nil
}

func (r *Ruleset) writeArray(name string, from, length int, write func(memory []byte)) error {
	if length == 0 {
		return nil
	}
	memory, release, err := r.window(name, uintptr(from), uintptr(from+length))
	if err != nil {
		return err
	}
	beforeWrite()
	write(memory)
	release()
	return nil
}

func wireIndex(i rangeIndex, p placed) bpf.FirewallRangeIndex {
	return bpf.FirewallRangeIndex{
		Base: i.base, Shift: i.shift, LastBucket: i.lastBucket,
		FirstBucket: i.firstBucket + uint32(p.bucket), FirstLine: i.firstLine + uint32(p.line), LastLine: i.lastLine,
	}
}

// dropSets drops the sets in force but for those of compiled rules, and those that the policy blocks and trusts.
func (r *Ruleset) dropSets(known []policy.KnownSet, keep map[uint16]policy.SetContents) error {
	sets, err := r.rangeSets()
	if err != nil {
		return err
	}
	for _, k := range known {
		blocking, err := r.isBlocking(k.Number)
		if err != nil {
			return err
		}
		if _, ok := keep[k.Number]; !ok && !k.Dropped && !blocking {
			setState(&sets[k.Number], bpf.FirewallRangeSetStateSET_DROPPED)
		}
	}
	return nil
}
