// SPDX-License-Identifier: Apache-2.0

package bans

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

func TestGuard(t *testing.T) {
	g := &Guard{}
	g.Protect(netip.MustParseAddr("192.0.2.1"), "the default gateway")
	g.Protect(netip.MustParseAddr("fe80::1"), "a resolver")
	g.ProtectRange(addrset.RangeOf(netip.MustParsePrefix("10.1.0.0/16")), "trusted")
	for text, want := range map[string]string{
		"192.0.2.1":     "192.0.2.1 is the default gateway: use --force",
		"192.0.2.0/24":  "192.0.2.0/24 holds 192.0.2.1, the default gateway: use --force",
		"192.0.2.0/31":  "holds 192.0.2.1",
		"192.0.2.2/31":  "",
		"192.0.2.2":     "",
		"10.1.2.3":      "10.1.2.3 is trusted",
		"10.1.2.0/24":   "10.1.2.0/24 holds 10.1.0.0-10.1.255.255, trusted",
		"10.0.0.0/8":    "trusted",
		"10.2.0.0/16":   "",
		"10.0.255.255":  "",
		"fe80::/64":     "fe80::/64 holds fe80::1, a resolver",
		"fe80::/16":     "a resolver",
		"2001:db8::/32": "",
		"11.0.0.0/8":    "",
		"12.0.0.0/7":    "12.0.0.0/7 is shorter than /8: use --force",
		"0.0.0.0/0":     "shorter than /8",
		"::/0":          "::/0 is shorter than /16",
		"2000::/15":     "shorter than /16",
		"2001::/16":     "",

		"127.0.0.1":       "127.0.0.1 is loopback: use --force",
		"127.0.0.0/8":     "127.0.0.0/8 is loopback",
		"::1":             "loopback",
		"0.0.0.0":         "no address of a host",
		"0.0.0.0/8":       "no address of a host",
		"::":              "no address of a host",
		"224.0.0.1":       "multicast",
		"239.0.0.0/8":     "multicast",
		"ff02::1":         "multicast",
		"255.255.255.255": "broadcast",
		"::ffff:7f00:1":   "loopback",
		"240.0.0.1":       "",
		"::2":             "",
	} {
		p, err := ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Check(p); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// The guard finds what a look at each that is protected finds.
func TestGuardAgainstAModel(t *testing.T) {
	for range 2000 {
		g := &Guard{}
		var all []addrset.Range
		random := func() netip.Prefix {
			bits := 24 + rand.IntN(9)
			if rand.IntN(4) == 0 {
				bits = 16 + rand.IntN(8)
			}
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(rand.IntN(4)), byte(rand.IntN(256))}), bits).Masked()
		}
		for range rand.IntN(8) {
			r := addrset.RangeOf(random())
			all = append(all, r)
			g.ProtectRange(r, "it")
		}
		for range 20 {
			p := random()
			r, want := addrset.RangeOf(p), false
			for _, q := range all {
				want = want || q.First.Compare(r.Last) <= 0 && r.First.Compare(q.Last) <= 0
			}
			if _, got := g.find(r); got != want {
				t.Fatalf("%v among %v: %v", p, all, got)
			}
		}
	}
}
