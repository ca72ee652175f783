// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

func rules(t *testing.T, texts ...string) *policy.Policy {
	p := &policy.Policy{}
	for _, text := range texts {
		r, err := policy.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		p.Open = append(p.Open, r)
	}
	return p
}

// A line says what a rule would, not the hundreds of protocols and networks which that comes to.
func TestChangesAreShort(t *testing.T) {
	for _, c := range []struct {
		old, new []string
		want     string
	}{
		{[]string{"22/tcp"}, []string{"22/tcp", "all on wg*"}, "all but 22/tcp on wg*: nobody -> anybody"},
		{[]string{"22/tcp", "gre", "5000-6000/udp"}, []string{"22/tcp", "5000-6000/udp", "gre", "all"}, "all but 22/tcp,5000-6000/udp,gre: nobody -> anybody"},
		{[]string{"all"}, []string{"tcp", "udp"}, "all but tcp,udp: anybody -> nobody"},
		{[]string{"80/tcp"}, []string{"all", "tcp"}, "all but 80/tcp: nobody -> anybody"},
		{nil, []string{"80/tcp except 192.0.2.1"}, "80/tcp: nobody -> anybody except 192.0.2.1"},
		{nil, []string{"80/tcp except 192.0.2.1,2001:db8::/32 limit 6/minute"}, "80/tcp: nobody -> anybody except 192.0.2.1,2001:db8::/32 limit 6/minute"},
		{nil, []string{"80/tcp from 10.0.0.0/8 except 10.9.0.0/16"}, "80/tcp: nobody -> from 10.0.0.0/8 except 10.9.0.0/16"},
		{nil, []string{"80/tcp from 0.0.0.0/0 except 10.9.0.0/16"}, "80/tcp: nobody -> from 0.0.0.0/0 except 10.9.0.0/16"},
		{nil, []string{"80/tcp except 192.0.2.1 to 198.51.100.1"}, "80/tcp: nobody -> anybody except 192.0.2.1 to 198.51.100.1"},
		{nil, []string{"vrrp to 224.0.0.18", "vrrp from 10.0.0.9"}, "vrrp: nobody -> anybody except 10.0.0.9 to 224.0.0.18; from 10.0.0.9"},
	} {
		changes := Diff(rules(t, c.old...), rules(t, c.new...))
		if len(changes) == 0 || !strings.HasPrefix(changes[0].String(), c.want) {
			t.Errorf("%q -> %q: %q instead of %q", c.old, c.new, changes, c.want)
		}
	}
}

// What other programs read is complete.
func TestAllPortsAreNamedInWhat(t *testing.T) {
	var ports []string
	for port := 1; port < 200; port += 2 {
		ports = append(ports, fmt.Sprintf("%d/tcp", port))
	}
	changes := Diff(&policy.Policy{}, rules(t, ports...))
	if len(changes) != 1 || changes[0].What != strings.Join(ports, ",") {
		t.Errorf("%q", changes)
	}
	if text := changes[0].String(); !strings.HasSuffix(text, "39/tcp and 80 more: nobody -> anybody") {
		t.Errorf("%q", text)
	}
}

func TestOtherPortsAreWhatIsLeftOut(t *testing.T) {
	all, err := policy.ParseRule("all")
	if err != nil {
		t.Fatal(err)
	}
	if got := otherPorts(nil); !slices.Equal(got, sorted(all.Ports)) {
		t.Errorf("beside none: %v", got)
	}
	if got := otherPorts(sorted(all.Ports)); len(got) > 0 {
		t.Errorf("beside all: %v", got)
	}
}

func TestShortestIsTheSameNetworks(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	shortened := 0
	for range 4000 {
		var from, but []netip.Prefix
		for range 1 + r.IntN(3) {
			from = append(from, randomPrefix(r))
		}
		for range r.IntN(4) {
			but = append(but, randomPrefix(r))
		}
		set := addrset.Subtract(addrset.Of(from), addrset.Of(but))
		prefixes := addrset.Prefixes(set)
		in, except, ok := shortest(prefixes)
		if got := addrset.Subtract(addrset.Of(in), addrset.Of(except)); (ok || len(prefixes) > mostShown) && !slices.Equal(got, set) {
			t.Fatalf("%v: %v except %v", prefixes, in, except)
		}
		if len(in)+len(except) > len(prefixes) {
			t.Fatalf("%v: longer as %v except %v", prefixes, in, except)
		}
		if len(except) > 0 {
			shortened++
		}
	}
	if shortened == 0 {
		t.Error("nothing was shortened")
	}
}
