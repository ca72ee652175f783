// SPDX-License-Identifier: Apache-2.0

package addrset

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func TestPrefixes(t *testing.T) {
	for _, c := range []struct {
		first, last string
		want        []string
	}{
		{"0.0.0.0", "255.255.255.255", []string{"0.0.0.0/0"}},
		{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", []string{"::/0"}},
		{"192.0.2.1", "192.0.2.1", []string{"192.0.2.1/32"}},
		{"192.0.2.1", "192.0.2.6", []string{"192.0.2.1/32", "192.0.2.2/31", "192.0.2.4/31", "192.0.2.6/32"}},
		{"255.255.255.254", "255.255.255.255", []string{"255.255.255.254/31"}},
		{"2001:db8::ffff:ffff:ffff:fffe", "2001:db8:0:1::1", []string{"2001:db8::ffff:ffff:ffff:fffe/127", "2001:db8:0:1::/127"}},
		{"8000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", []string{"8000::/1"}},
		{"::", "::1", []string{"::/127"}},
	} {
		var got []string
		for _, p := range Prefixes([]Range{{netip.MustParseAddr(c.first), netip.MustParseAddr(c.last)}}) {
			got = append(got, p.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s to %s: got %q, want %q", c.first, c.last, got, c.want)
		}
	}
}

// What is written as prefixes is the same set again, and no two of the prefixes could be one.
func TestPrefixesAreTheRangesAndTheFewest(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var prefixes []netip.Prefix
		for range random.IntN(6) {
			var b [16]byte
			for i := range b {
				b[i] = byte(random.Uint32() >> (8 * random.IntN(4)))
			}
			addr := netip.AddrFrom16(b)
			if random.IntN(2) == 0 {
				addr = netip.AddrFrom4([4]byte(b[:4]))
			}
			prefixes = append(prefixes, netip.PrefixFrom(addr, random.IntN(addr.BitLen()+1)).Masked())
		}
		for _, ranges := range [][]Range{Of(prefixes), Subtract(Everything, Of(prefixes))} {
			got := Prefixes(ranges)
			if again := Of(got); !slices.Equal(again, ranges) {
				t.Fatalf("%v became %v and then %v", ranges, got, again)
			}
			for i := 1; i < len(got); i++ {
				wider := netip.PrefixFrom(got[i-1].Addr(), got[i-1].Bits()-1)
				if got[i].Bits() == got[i-1].Bits() && wider.IsValid() && wider.Masked() == wider && wider.Contains(got[i].Addr()) {
					t.Fatalf("%s and %s could be %s", got[i-1], got[i], wider)
				}
			}
		}
	}
}

// The rest of the addresses, where a few networks are taken out, is hundreds of prefixes.
func BenchmarkPrefixes(b *testing.B) {
	var prefixes []netip.Prefix
	for i := range 10 {
		prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, byte(31 * i), 7, byte(i), 3}), 48))
	}
	rest := Subtract(Everything, Of(prefixes))
	for b.Loop() {
		Prefixes(rest)
	}
}
