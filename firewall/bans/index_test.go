// SPDX-License-Identifier: Apache-2.0

package bans

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// An index finds what a look at each line finds.
func TestIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	anyAddr := func() netip.Addr {
		if r.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(3)), byte(r.IntN(9))})
		}
		return netip.AddrFrom16([16]byte{0x20, 1, 14: byte(r.IntN(3)), 15: byte(r.IntN(9))})
	}
	for range 300 {
		lines := make([]Line, r.IntN(12))
		for i := range lines {
			addr := anyAddr()
			lines[i].Prefix, _ = addr.Prefix(addr.BitLen() - []int{0, 0, 2, 8}[r.IntN(4)])
		}
		x := NewIndex(lines)
		for range 50 {
			addr, want := anyAddr(), false
			for _, l := range lines {
				want = want || l.Prefix.Contains(addr)
			}
			if x.Holds(addr) != want {
				t.Fatalf("%v: it holds %v: %t", lines, addr, !want)
			}
		}
		for i := range lines {
			first, repeated := i, false
			for j := range lines {
				if lines[j].Prefix == lines[i].Prefix {
					first, repeated = min(first, j), repeated || j > i
				}
			}
			if x.First(i) != first || first == i && x.IsRepeated(i) != repeated {
				t.Fatalf("%v: %d is first at %d, repeated: %t", lines, i, x.First(i), x.IsRepeated(i))
			}
		}
	}
}
