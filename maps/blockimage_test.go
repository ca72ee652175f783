// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// randomAddress returns one that is near a border of a prefix, or anywhere.
func randomAddress(r *rand.Rand, prefixes []prefixValue) netip.Addr {
	if len(prefixes) > 0 && r.IntN(4) > 0 {
		p := prefixes[r.IntN(len(prefixes))].prefix
		a := p.Addr()
		if r.IntN(2) == 0 {
			a = addrOf(lastOf(p), a.Is4())
		}
		for _, next := range []func() netip.Addr{a.Prev, a.Next}[r.IntN(2):] {
			if b := next(); b.IsValid() && r.IntN(2) == 0 {
				return b
			}
		}
		return a
	}
	if r.IntN(2) == 0 {
		return addrOf(address{uint64(r.Uint32()), 0}, true)
	}
	return addrOf(address{r.Uint64(), r.Uint64()}, false)
}

func addrOf(a address, is4 bool) netip.Addr {
	var b [16]byte
	if is4 {
		binary.BigEndian.PutUint32(b[:], uint32(a.high))
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	binary.BigEndian.PutUint64(b[:], a.high)
	binary.BigEndian.PutUint64(b[8:], a.low)
	return netip.AddrFrom16(b)
}

// randomLists returns lists with random prefixes, and what holds an address by looking at each.
func randomLists(r *rand.Rand, round int) (lists []BlockList, all []prefixValue, first func(netip.Addr) uint32) {
	lists = make([]BlockList, 1+r.IntN(4))
	for i := range lists {
		lists[i].Name = string(rune('a' + i))
		for _, p := range randomPrefixes(r, r.IntN(1+round)) {
			lists[i].Prefixes = append(lists[i].Prefixes, p.prefix)
			all = append(all, p)
		}
	}
	return lists, all, func(a netip.Addr) uint32 {
		for i, l := range lists {
			for _, p := range l.Prefixes {
				if p.Contains(a) {
					return uint32(i + 1)
				}
			}
		}
		return 0
	}
}

func TestTheFirstListThatHasAnAddressBlocksIt(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 1))
	for round := range 300 {
		lists, all, first := randomLists(r, round)
		b, err := NewBlocking(lists, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b.block == nil {
			continue
		}
		for range 300 {
			a := randomAddress(r, all)
			if got, again, want := b.block.find(a), b.block.value(a), first(a); got != want || again != want {
				t.Fatalf("round %d: %s has the value %d and %d, want %d of %v", round, a, got, again, want, lists)
			}
		}
	}
}

// findSingle looks an address up among the singles as bpf/ranges.h does.
func (image *rangeImage) findSingle(a netip.Addr) uint32 {
	if image.singles.shift == 0 {
		return 0
	}
	addr := uint32(addressOf(a).high)
	addrs, values := singlesIn(&image.lines[image.singles.firstLine+addr*0x9e3779b1>>image.singles.shift])
	value := uint32(0)
	for i := range addrs {
		if addrs[i] == addr {
			value |= uint32(values[i])
		}
	}
	return value
}

// Nearly all addresses that stand alone are found at once, with the value that they have among the ranges, and no others.
func TestAddressesThatStandAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 5))
	for _, n := range []int{1000, 5000, 60000, 300000} {
		lists := make([]BlockList, 2)
		for i := range n {
			l := &lists[i%2]
			l.Name = string(rune('a' + i%2))
			l.Prefixes = append(l.Prefixes, netip.PrefixFrom(addrOf(address{uint64(r.Uint32()), 0}, true), 32))
		}
		lists[0].Prefixes = append(lists[0].Prefixes, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("255.255.255.255/32"))
		b, err := NewBlocking(lists, nil)
		if err != nil {
			t.Fatal(err)
		}
		found, other := 0, b.block.withValues([]uint32{0, 7, 9})
		for _, l := range lists {
			for _, p := range l.Prefixes {
				want := b.block.find(p.Addr())
				if got := b.block.findSingle(p.Addr()); got != 0 {
					found++
					if got != want {
						t.Fatalf("of %d, %s has the value %d alone, and %d among the ranges", n, p, got, want)
					}
				}
				if got := other.findSingle(p.Addr()); got != 0 && got != []uint32{0, 7, 9}[want] {
					t.Fatalf("of %d, %s has the value %d, want another one for %d", n, p, got, want)
				}
				if next := p.Addr().Next(); next.IsValid() && b.block.findSingle(next) != 0 && b.block.find(next) != b.block.findSingle(next) {
					t.Fatalf("%s is found, and is not blocked", next)
				}
			}
		}
		if n >= leastSingles && found < n*98/100 || n < leastSingles && found > 0 {
			t.Errorf("of %d addresses %d are found", n, found)
		}
	}
}

// What is walked is what is looked up, and each address of it has its bit in the gate.
func TestTheGateIsOpenForAllThatIsBlocked(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 2))
	set := func(word *uint64, bits uint64) { *word |= bits }
	for round := range 60 {
		lists, all, first := randomLists(r, round)
		b, err := NewBlocking(lists, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b.block == nil {
			continue
		}
		var byRange, byPrefix bpf.FirewallSourceGate
		b.block.eachRange(func(is4 bool, first, last address, value uint32) {
			for _, a := range []address{first, last} {
				if got := b.block.find(addrOf(a, is4)); got != value {
					t.Fatalf("round %d: the range from %s to %s has the value %d, and %d at one end",
						round, addrOf(first, is4), addrOf(last, is4), value, got)
				}
			}
			gateRange(&byRange, is4, first, last, set)
		})
		for _, p := range all {
			gatePrefix(&byPrefix, p.prefix, set)
		}
		if byRange != byPrefix {
			t.Fatalf("round %d: the gate of the ranges is not that of the prefixes %v", round, lists)
		}
		for range 1000 {
			a := randomAddress(r, all)
			if first(a) != 0 && !isOpen(&byRange, a) {
				t.Fatalf("round %d: the gate is closed to %s, which is blocked", round, a)
			}
		}
	}
}

// isOpen looks at the gate as bpf/block.h does.
func isOpen(gate *bpf.FirewallSourceGate, a netip.Addr) bool {
	b := a.AsSlice()
	first := binary.BigEndian.Uint32(b)
	if a.Is4() {
		return gate.V4[first>>8/64]>>(first>>8%64)&1 != 0
	}
	bit := first * 0x9e3779b1 >> 12
	return gate.V6[bit/64]>>(bit%64)&1 != 0
}

func TestTheGateIsClosedToOthers(t *testing.T) {
	var gate bpf.FirewallSourceGate
	set := func(word *uint64, bits uint64) { *word |= bits }
	gatePrefix(&gate, netip.MustParsePrefix("203.0.113.7/32"), set)
	gatePrefix(&gate, netip.MustParsePrefix("10.0.0.0/8"), set)
	gatePrefix(&gate, netip.MustParsePrefix("2001:db8::/32"), set)
	for text, want := range map[string]bool{
		"203.0.113.0": true, "203.0.113.255": true, "203.0.112.255": false, "203.0.114.0": false,
		"10.0.0.0": true, "10.255.255.255": true, "9.255.255.255": false, "11.0.0.0": false,
		"2001:db8::": true, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": true, "2001:db7::": false, "2001:db9::": false,
	} {
		if got := isOpen(&gate, netip.MustParseAddr(text)); got != want {
			t.Errorf("the gate is open to %s: %v, want %v", text, got, want)
		}
	}
}

// No ban ends before its time, and none later than two jiffies after it.
func TestTheClockRoundsUp(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 3))
	for range 10000 {
		c := Clock{Time: time.Unix(1700000000, r.Int64N(1e9)), Jiffies: r.Uint64N(1 << 40), HZ: []uint32{100, 250, 300, 1000}[r.IntN(4)]}
		left := time.Duration(r.Int64N(int64(30 * 24 * time.Hour)))
		end := c.jiffiesAt(c.Time.Add(left))
		jiffy := time.Second / time.Duration(c.HZ)
		// The jiffy of the clock began up to a jiffy before its time.
		earliest, latest := time.Duration(float64(end-c.Jiffies)/float64(c.HZ)*1e9)-jiffy, time.Duration(float64(end-c.Jiffies)/float64(c.HZ)*1e9)
		if earliest < left-time.Microsecond || latest > left+2*jiffy+time.Microsecond {
			t.Fatalf("a ban of %s ends after %s to %s, at %d Hz", left, earliest, latest, c.HZ)
		}
		if back := c.timeAt(end).Sub(c.Time.Add(left)); back < -time.Microsecond || back > 2*jiffy+time.Microsecond {
			t.Fatalf("a ban of %s is told to end %s later, at %d Hz", left, back, c.HZ)
		}
	}
	c := Clock{Time: time.Unix(1700000000, 0), Jiffies: 7, HZ: 250}
	if c.jiffiesAt(time.Time{}) != forever || !c.timeAt(forever).IsZero() {
		t.Error("what has no end has one")
	}
	if got := c.jiffiesAt(c.Time.Add(-time.Hour)); got > c.Jiffies {
		t.Errorf("what has ended goes on until %d, and it is %d", got, c.Jiffies)
	}
}

func BenchmarkNewBlocking(b *testing.B) {
	r := rand.New(rand.NewPCG(16, 4))
	prefixes := make([]netip.Prefix, 1<<20)
	for i := range prefixes {
		prefixes[i] = netip.PrefixFrom(addrOf(address{uint64(r.Uint32()), 0}, true), 32)
	}
	for b.Loop() {
		if _, err := NewBlocking([]BlockList{{Name: "l", Prefixes: prefixes}}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
