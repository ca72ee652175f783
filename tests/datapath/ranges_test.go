// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	dppolicy "github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// randomAddress is one of a few networks, or any.
func randomAddress(r *rand.Rand, family int) netip.Addr {
	if family == 4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], r.Uint32())
		if r.IntN(2) == 0 {
			b[0], b[1] = 198, 18
		}
		if b[0] == 0 || b[0] == 127 || b[0] >= 224 {
			b[0] = 100
		}
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], 0x20010db800000000|uint64(r.IntN(4))<<uint(r.IntN(32)))
	binary.BigEndian.PutUint64(b[8:], r.Uint64()>>uint(r.IntN(64)))
	return netip.AddrFrom16(b)
}

// Sets of any size decide as their rules do, at the borders of their prefixes above all.
func TestSetsOfManySources(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{1, 2, 3, 5, 9, 40, 300, 5000} {
		var sources, excepted []string
		var borders []netip.Addr
		for range n {
			for _, family := range []int{4, 6} {
				addr := randomAddress(r, family)
				bits := addr.BitLen() - r.IntN(9)
				if r.IntN(3) == 0 {
					bits = addr.BitLen()/2 + r.IntN(addr.BitLen()/2+1)
				}
				p := netip.PrefixFrom(addr, bits).Masked()
				list := &sources
				if r.IntN(4) == 0 {
					list = &excepted
				}
				*list = append(*list, p.String())
				borders = append(borders, p.Addr(), p.Addr().Prev(), addr, netip.PrefixFrom(addr, bits).Addr().Next())
			}
		}
		text := "22/tcp from 192.0.2.0/24,2001:db8:ffff::/48," + strings.Join(sources, ",")
		if len(excepted) > 0 {
			text += " except " + strings.Join(excepted, ",")
		}
		rules := []string{text, "22/tcp from 198.18.0.0/17,2001:db8::/64 to 192.0.2.1,2001:db8::1"}
		d := load(t, testdp.Options{Policy: "open:\n  - " + strings.Join(rules, "\n  - ") + "\n"})
		var parsed []dppolicy.Rule
		for _, text := range rules {
			rule, err := dppolicy.ParseRule(text)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, rule)
		}
		for range 3000 {
			src := borders[r.IntN(len(borders))]
			if r.IntN(3) == 0 || !src.IsValid() || src.IsMulticast() {
				src = randomAddress(r, []int{4, 6}[r.IntN(2)])
			}
			w := worlds[0]
			if src.Is6() {
				w = worlds[1]
			}
			want := false
			for _, rule := range parsed {
				want = want || rule.Admits(dppolicy.Packet{Interface: "eth0", Protocol: dppolicy.TCP, Port: 22, Source: src, Destination: w.us})
			}
			if got := d.Passes(t, testdp.XDP, w.from(src, syn(22)), testdp.From{}); got != want {
				t.Fatalf("%d sources: %s passes: %v, want %v", n, src, got, want)
			}
		}
	}
}
