// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// A small world in which every packet can be tried. Each address and each
// interface stands for those that rules cannot tell from it.
var (
	worldInterfaces = []string{"eth0", "eth1", "eth7", "wg0", "wg1", "wg7", "wx1", "x0", "x1", "x7"}
	worldPatterns   = []string{"eth0", "eth1", "eth*", "wg*", "wg1", "*0", "w*1"}
	worldPorts      = []PortRange{{TCP, 1, 1}, {TCP, 2, 2}, {TCP, 3, 3}, {UDP, 1, 1}, {47, 0, 0}}
	worldAddresses  = func() (out []netip.Addr) {
		for _, first := range []string{"192.0.2.0", "2001:db8::"} {
			a := addr(first)
			for range 4 {
				out = append(out, a)
				a = a.Next()
			}
		}
		return append(out, addr("198.51.100.1"), addr("2001:db9::1"))
	}()
)

func worldPackets(visit func(Packet) bool) {
	for _, iface := range worldInterfaces {
		for _, p := range worldPorts {
			for _, src := range worldAddresses {
				for _, dst := range worldAddresses {
					if src.Is4() == dst.Is4() && !visit(Packet{iface, p.Protocol, p.First, src, dst, false}) {
						return
					}
				}
			}
		}
	}
}

// worldRule returns a rule of the small world, which may let nothing in.
func worldRule(random *rand.Rand) Rule {
	pick := func(chance int) bool { return random.IntN(chance) == 0 }
	networks := func(most int) (out []netip.Prefix) {
		for range 1 + random.IntN(most) {
			a := worldAddresses[random.IntN(8)]
			bits := a.BitLen() - random.IntN(3)
			if pick(12) {
				bits = 0
			}
			out = append(out, netip.PrefixFrom(a, bits).Masked())
		}
		return out
	}
	var r Rule
	for _, p := range worldPorts {
		if pick(2) {
			r.Ports = append(r.Ports, p)
		}
	}
	if len(r.Ports) == 0 {
		r.Ports = []PortRange{{TCP, 1, 3}}
	}
	if pick(8) {
		r.Ports = allPorts
	}
	if pick(3) {
		for range 1 + random.IntN(2) {
			r.On = append(r.On, worldPatterns[random.IntN(len(worldPatterns))])
		}
	}
	if pick(2) {
		r.From = networks(3)
	}
	if pick(3) {
		r.Except = networks(2)
	}
	if pick(3) {
		r.To = networks(2)
	}
	return r
}

func worldSet(r Rule) map[Packet]bool {
	set := make(map[Packet]bool)
	worldPackets(func(p Packet) bool {
		if r.Admits(p) {
			set[p] = true
		}
		return true
	})
	return set
}

// What is computed over sets is what trying every packet finds.
func TestRulesAsSets(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 15))
	var overlaps, covers, equal, whole int
	for range 1500 {
		r, o, third := worldRule(random), worldRule(random), worldRule(random)
		if random.IntN(2) == 0 { // or few have much in common
			o.Ports, o.On = r.Ports, r.On
			third.Ports, third.On = r.Ports, r.On
		}
		rSet, oSet, thirdSet := worldSet(r), worldSet(o), worldSet(third)
		if len(rSet) == 0 || len(oSet) == 0 {
			if src, dst := r.reach(); len(rSet) == 0 && len(src) > 0 && len(dst) > 0 {
				t.Fatalf("%q lets nothing in, and has sources %v", r, src)
			}
			continue
		}
		both, all, covered := false, true, true
		for p := range rSet {
			both = both || oSet[p]
			all = all && oSet[p]
			covered = covered && (oSet[p] || thirdSet[p])
		}
		if r.Overlaps(o) != both || o.Overlaps(r) != both {
			t.Fatalf("%q and %q overlap: %v, want %v", r, o, r.Overlaps(o), both)
		}
		if got := coversAll([]Rule{o}, r); got != all {
			t.Fatalf("%q lets in all of %q: %v, want %v", o, r, got, all)
		}
		if got := coversAll([]Rule{o, third}, r); got != covered {
			t.Fatalf("%q and %q let in all of %q: %v, want %v", o, third, r, got, covered)
		}
		if same := all && len(rSet) == len(oSet); r.onKey() == o.onKey() && isAll(r.Ports) == isAll(o.Ports) && r.Equal(o) != same {
			t.Fatalf("%q and %q are equal: %v, want %v", r, o, r.Equal(o), same)
		} else if same {
			equal++
		}
		if got := r.AllowsOthers(); !got {
			t.Fatalf("%q lets in no other host", r)
		}
		left, complete := r.without(o, nil)
		rest := make(map[Packet]bool)
		for _, l := range left {
			for p := range worldSet(l) {
				rest[p] = true
				if !rSet[p] || oSet[p] {
					t.Fatalf("%q without %q: %q lets in %v", r, o, l, p)
				}
			}
		}
		for p := range rSet {
			if complete && !oSet[p] && !rest[p] {
				t.Fatalf("%q without %q: %q leave out %v", r, o, left, p)
			}
		}
		for counter, happened := range map[*int]bool{&overlaps: both, &covers: covered, &whole: complete && both && len(left) > 0} {
			if happened {
				*counter++
			}
		}
	}
	if min(overlaps, covers, equal, whole) < 20 {
		t.Errorf("%d overlap, %d are covered, %d are equal, %d are taken apart: the test shows little", overlaps, covers, equal, whole)
	}
}

func TestRangesAndPrefixes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 15))
	for range 2000 {
		var networks []netip.Prefix
		for range random.IntN(8) {
			a := worldAddresses[random.IntN(8)]
			networks = append(networks, netip.PrefixFrom(a, a.BitLen()-random.IntN(4)).Masked())
		}
		if random.IntN(5) == 0 {
			networks = append(networks, netip.MustParsePrefix("128.0.0.0/1"), netip.MustParsePrefix("8000::/1"))
		}
		if got, want := addrset.Prefixes(addrset.Of(networks)), canonicalPrefixes(networks); !slices.Equal(got, want) {
			t.Fatalf("%v became %v, want %v", networks, got, want)
		}
	}
}

func TestPatternsOverlap(t *testing.T) {
	var names, patterns []string
	var grow func(list *[]string, letters, text string, most int)
	grow = func(list *[]string, letters, text string, most int) {
		*list = append(*list, text)
		for _, c := range letters {
			if len(text) < most {
				grow(list, letters, text+string(c), most)
			}
		}
	}
	grow(&names, "ab", "", 7)
	grow(&patterns, "ab*", "", 4)
	matches := make(map[string][]bool)
	for _, p := range patterns {
		for _, n := range names {
			matches[p] = append(matches[p], MatchInterface(p, n))
		}
	}
	for _, a := range patterns {
		for _, b := range patterns {
			want := false
			for i := range names {
				want = want || matches[a][i] && matches[b][i]
			}
			if got := patternsOverlap(a, b); got != want {
				t.Fatalf("%q and %q overlap: %v, want %v", a, b, got, want)
			}
		}
	}
	if patternsOverlap("abcdefgh*", "*ijklmnop") || !patternsOverlap("abcdefgh*", "*hijklmno") {
		t.Error("a name has 15 bytes at most")
	}
}

func TestEqualLimits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"ssh limit 60/minute", "ssh limit 1/second burst 5", true},
		{"ssh limit 24/day", "ssh limit 1/hour", true},
		{"ssh limit 1/second", "ssh limit 1/second burst 6", false},
		{"ssh limit 1/second", "ssh limit 61/minute", false},
		{"ssh limit 1/second", "ssh", false},
	} {
		a, b := mustRule(t, c.a), mustRule(t, c.b)
		if a.Equal(b) != c.same {
			t.Errorf("%q equals %q: %v", a, b, a.Equal(b))
		}
	}
	if a := (Limit{Count: 60, Per: time.Minute, Burst: 5}); !a.allowsAll(Limit{Count: 1, Per: time.Second, Burst: 5}) ||
		a.allowsAll(Limit{Count: 61, Per: time.Minute, Burst: 5}) || a.allowsAll(Limit{Count: 1, Per: time.Second, Burst: 6}) ||
		a.allowsAll(Limit{}) || !(Limit{}).allowsAll(a) {
		t.Error("limits are compared wrongly")
	}
}

func TestCoveringWithClauses(t *testing.T) {
	for _, c := range []struct{ open, rule, want string }{
		{"ssh", "ssh limit 6/minute", "[ssh]"},
		{"ssh limit 6/minute", "ssh", "[]"},
		{"ssh limit 6/minute", "ssh limit 5/minute", "[ssh limit 6/minute]"},
		{"ssh limit 6/minute", "ssh limit 7/minute", "[]"},
		{"ssh", "ssh on eth0", "[ssh]"},
		{"ssh on eth*", "ssh on eth0", "[ssh on eth*]"},
		{"ssh on eth0; ssh on eth1", "ssh on eth0,eth1", "[ssh on eth0 ssh on eth1]"},
		{"ssh on eth0", "ssh", "[]"},
		{"all from 192.0.2.4", "ssh from 192.0.2.4", "[all from 192.0.2.4]"},
		{"all from 192.0.2.4", "gre from 192.0.2.4", "[all from 192.0.2.4]"},
		{"ssh from 10.0.0.0/8 except 10.1.0.0/16", "ssh from 10.0.0.0/8", "[]"},
		{"ssh from 10.0.0.0/8 except 10.1.0.0/16; ssh from 10.1.0.0/16", "ssh from 10.0.0.0/8", "[ssh from 10.0.0.0/8 except 10.1.0.0/16 ssh from 10.1.0.0/16]"},
		{"ssh to 192.0.2.1", "ssh from 10.0.0.0/8", "[]"},
		{"ssh to 192.0.2.0/24", "ssh from 10.0.0.0/8 to 192.0.2.1", "[ssh to 192.0.2.0/24]"},
	} {
		p := &Policy{}
		for text := range strings.SplitSeq(c.open, "; ") {
			p.Open = append(p.Open, mustRule(t, text))
		}
		r := mustRule(t, c.rule)
		if got := fmt.Sprint(p.Covering(r)); got != c.want {
			t.Errorf("%s has all of %s: %s, want %s", c.open, c.rule, got, c.want)
		}
	}
	p := mustPolicy(t, "open: [ssh]\n")
	if got := p.CoveringText(mustRule(t, "ssh limit 6/minute")); got != `"ssh limit 6/minute" restricts nothing: "ssh" lets all of it in already, until closed` {
		t.Error(got)
	}
}

// Closing some of a rule is refused with the commands that lead there.
func TestClosingPartOfARule(t *testing.T) {
	for _, c := range []struct{ open, remove, want string }{
		{"80,443/tcp", "443/tcp", `open "80/tcp", then close "80,443/tcp"`},
		{"http on eth0,eth1", "http on eth1", `open "http on eth0", then close "http on eth0,eth1"`},
		{"http", "http on eth1", `open what should stay, then close "http"`},
		{"http limit 6/minute", "http", `close "http limit 6/minute"`},
		{"http", "http limit 6/minute", `close "http"`},
		{"http limit 6/minute", "http from 192.0.2.1", `open "http except 192.0.2.1 limit 6/minute", then close "http limit 6/minute"`},
		{"ssh from 10.0.0.0/8 except 10.1.0.0/16", "ssh from 10.2.0.0/16,192.0.2.0/24", `open "ssh from 10.0.0.0/8 except 10.1.0.0/16,10.2.0.0/16", then close "ssh from 10.0.0.0/8 except 10.1.0.0/16"`},
		{"ssh from 192.0.2.0/30", "ssh from 192.0.2.0/30 except 192.0.2.1", `open "ssh from 192.0.2.1", then close "ssh from 192.0.2.0/30"`},
		{"ssh to 192.0.2.0/31", "ssh to 192.0.2.1", `open "ssh to 192.0.2.0", then close "ssh to 192.0.2.0/31"`},
		{"all from 192.0.2.1", "ssh from 192.0.2.1", `open what should stay, then close "all from 192.0.2.1"`},
		{"tcp", "ssh", `open "1-21,23-65535/tcp", then close "tcp"`},
		{"gre", "gre from 192.0.2.1", `open "gre except 192.0.2.1", then close "gre"`},
	} {
		p := &Policy{Open: []Rule{mustRule(t, c.open)}}
		_, _, err := p.WithoutRule(mustRule(t, c.remove))
		if err == nil || !strings.HasSuffix(err.Error(), ": "+c.want) {
			t.Errorf("%s without %s:\n got %v\nwant %s", c.open, c.remove, err, c.want)
		}
	}
	for _, c := range []struct{ open, remove, want string }{
		{"http", "http on eth1", `open "http on eth0", then close "http"`},
		{"80,443/tcp", "443/tcp on eth1", `open "80/tcp" and "443/tcp on eth0", then close "80,443/tcp"`},
		{"http; all from 192.0.2.1", "http on eth1", `open "http on eth0", then close "http"; what is left comes in by "all from 192.0.2.1"`},
		{"http; all from 192.0.2.1", "gre from 192.0.2.1", `open what should stay, then close "all from 192.0.2.1"`},
		{"http from 10.0.0.0/8,192.0.2.0/24 except 10.9.0.0/16", "http from 10.0.0.0/8", `open "http from 192.0.2.0/24", then close "http from 10.0.0.0/8,192.0.2.0/24 except 10.9.0.0/16"`},
		{"http from 10.0.0.0/8,192.0.2.0/24", "http from 10.0.0.0/8,192.0.2.1", `open "http from 192.0.2.0/24 except 192.0.2.1", then close "http from 10.0.0.0/8,192.0.2.0/24"`},
		// What is to be pasted is whole.
		{"5432/tcp on eth0,eth1 from 10.0.0.0/8,198.51.100.0/24,203.0.113.0/24", "5432/tcp from 10.1.0.0/16",
			`open "5432/tcp on eth0,eth1 from 10.0.0.0/8,198.51.100.0/24,203.0.113.0/24 except 10.1.0.0/16", then close "5432/tcp on eth0,eth1 from 10.0.0.0/8,198.51.100.0/24,203.0.113.0/24"`},
	} {
		p := &Policy{Interfaces: []string{"eth0", "eth1"}}
		for text := range strings.SplitSeq(c.open, "; ") {
			p.Open = append(p.Open, mustRule(t, text))
		}
		_, _, err := p.WithoutRule(mustRule(t, c.remove))
		if err == nil || !strings.HasSuffix(err.Error(), ": "+c.want) {
			t.Errorf("%s without %s:\n got %v\nwant %s", c.open, c.remove, err, c.want)
		}
	}
	for _, apart := range []struct{ open, remove string }{
		{"http on eth0", "http on eth1"}, {"http to 192.0.2.1", "http to 192.0.2.2"}, {"ssh from 10.0.0.0/8 except 10.1.0.0/16", "ssh from 10.1.2.0/24"},
	} {
		p := &Policy{Open: []Rule{mustRule(t, apart.open)}}
		if _, _, notOpen, err := p.WithoutRules([]Rule{mustRule(t, apart.remove)}); err != nil || len(notOpen) != 1 {
			t.Errorf("%s without %s: %v", apart.open, apart.remove, err)
		}
	}
}
