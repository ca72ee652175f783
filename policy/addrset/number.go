// SPDX-License-Identifier: Apache-2.0

package addrset

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// number is an address as a number of 128 bits; one of IPv4 has 32.
type number struct{ high, low uint64 }

func numberOf(a netip.Addr) number {
	if a.Is4() {
		b := a.As4()
		return number{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return number{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (n number) addr(v4 bool) netip.Addr {
	if v4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n.low))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], n.high)
	binary.BigEndian.PutUint64(b[8:], n.low)
	return netip.AddrFrom16(b)
}

// ones returns the number whose last bits are 1, so many of them, and the others 0.
func ones(count int) number {
	if count > 64 {
		return number{1<<(count-64) - 1, ^uint64(0)}
	}
	return number{0, 1<<count - 1}
}

func (n number) or(o number) number { return number{n.high | o.high, n.low | o.low} }

func (n number) next() number {
	low, carry := bits.Add64(n.low, 1, 0)
	return number{n.high + carry, low}
}

func (n number) minus(o number) number {
	low, borrow := bits.Sub64(n.low, o.low, 0)
	high, _ := bits.Sub64(n.high, o.high, borrow)
	return number{high, low}
}

// trailingZeros returns 128 for 0.
func (n number) trailingZeros() int {
	if n.low != 0 {
		return bits.TrailingZeros64(n.low)
	}
	return 64 + bits.TrailingZeros64(n.high)
}

// length returns how many bits it takes to write the number.
func (n number) length() int {
	if n.high != 0 {
		return 64 + bits.Len64(n.high)
	}
	return bits.Len64(n.low)
}
