// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// find looks an address up in an image as bpf/ranges.h does.
func (image *rangeImage) find(a netip.Addr) uint32 {
	index, perLine := image.v4, rangesPerLine
	if a.Is6() {
		index, perLine = image.v6, longPerLine
	}
	at, want := uint32(0), addressOf(a)
	first := func(line uint32, i int) address {
		b := image.lines[index.firstLine+line]
		if a.Is4() {
			return address{uint64(binary.NativeEndian.Uint32(b[4*i:])), 0}
		}
		return address{binary.NativeEndian.Uint64(b[8*i:]), binary.NativeEndian.Uint64(b[8*(3+i):])}
	}
	if index.lastLine > 0 && want.high >= index.base {
		bucket := min(uint32((want.high-index.base)>>index.shift), index.lastBucket) + index.firstBucket
		lines := image.buckets[bucket]
		for at = lines.first; at < lines.last && compareAddresses(first(at+1, 0), want) <= 0; at++ {
		}
	}
	place := 0
	for i := 1; i < perLine; i++ {
		if compareAddresses(first(at, i), want) <= 0 {
			place = i
		}
	}
	b := image.lines[index.firstLine+at]
	if a.Is4() {
		return binary.NativeEndian.Uint32(b[4*(rangesPerLine+place):])
	}
	return binary.NativeEndian.Uint32(b[16*longPerLine+4*place:])
}

func randomPrefixes(r *rand.Rand, n int) (out []prefixValue) {
	seen := make(map[netip.Prefix]bool)
	for range n {
		var p netip.Prefix
		switch r.IntN(4) {
		case 0: // all over the addresses
			p, _ = netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}).Prefix(r.IntN(33))
		case 1: // in a corner
			p, _ = netip.AddrFrom4([4]byte{10, 0, byte(r.Uint32()), byte(r.Uint32())}).Prefix(8 + r.IntN(25))
		case 2:
			b := [16]byte{0x20, byte(r.IntN(3))}
			binary.BigEndian.PutUint64(b[6:], r.Uint64())
			p, _ = netip.AddrFrom16(b).Prefix(r.IntN(129))
		default: // both ends
			b := [16]byte{15: byte(r.Uint32())}
			if r.IntN(2) == 0 {
				for i := range 15 {
					b[i] = 0xff
				}
			}
			p, _ = netip.AddrFrom16(b).Prefix(100 + r.IntN(29))
		}
		if !seen[p] {
			seen[p] = true
			out = append(out, prefixValue{p, uint32(r.IntN(4))})
		}
	}
	return out
}

func TestAnAddressHasTheValueOfItsLongestPrefix(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 300 {
		prefixes := randomPrefixes(r, r.IntN(1+round))
		image := newRangeImage(prefixes)
		for range 300 {
			addr := netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
			if len(prefixes) > 0 && r.IntN(4) > 0 { // at a border
				p := prefixes[r.IntN(len(prefixes))].prefix
				addr = p.Addr()
				switch r.IntN(4) {
				case 0:
					addr = addr.Prev()
				case 1:
					addr = addr.Next()
				case 2:
					next, ok := behind(p)
					if ok && p.Addr().Is6() {
						var b [16]byte
						binary.BigEndian.PutUint64(b[:8], next.high)
						binary.BigEndian.PutUint64(b[8:], next.low)
						addr = netip.AddrFrom16(b)
					}
				}
				if !addr.IsValid() {
					continue
				}
			}
			want, length := uint32(0), -1
			for _, p := range prefixes {
				if p.prefix.Contains(addr) && p.prefix.Bits() > length {
					want, length = p.value, p.prefix.Bits()
				}
			}
			if got := image.find(addr); got != want {
				t.Fatalf("round %d: %s has %d, not %d, among %v", round, addr, got, want, prefixes)
			}
		}
	}
}

func BenchmarkRangeImage(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	var prefixes []prefixValue
	for i := range 1 << 20 {
		addr := netip.AddrFrom4([4]byte{byte(1 + i>>13), byte(i >> 5), byte(i << 3), byte(r.Uint32()) & 0xfe})
		prefixes = append(prefixes, prefixValue{netip.PrefixFrom(addr, 32), 1})
	}
	for b.Loop() {
		newRangeImage(prefixes)
	}
}
