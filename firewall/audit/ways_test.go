// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
)

// row is what Compare says of an entry, on one line.
func row(e Entry) string {
	return strings.Join([]string{string(e.State), e.Port, strings.Join(e.Addresses, ","), strings.Join(e.From, ",")}, " | ")
}

func TestCompareByInterfaceAndAddress(t *testing.T) {
	network := func(text string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(text)} }
	port := func(number uint16) policy.Rule {
		return policy.Rule{Ports: []policy.PortRange{{Protocol: policy.TCP, First: number, Last: number}}}
	}
	db, dbTo, web, admin, bound, idle := port(5432), port(5432), port(80), port(22), port(9000), port(25)
	db.On, db.From = []string{"eth1"}, network("10.0.0.0/8")
	dbTo.To = network("192.0.2.7/32")
	web.Except = network("203.0.113.0/24")
	admin.On = []string{"eth*"}
	bound.On = []string{"eth1"}
	idle.On = []string{"eth9"}
	routed := port(5900)
	routed.Forward = true
	gre := policy.Rule{Ports: []policy.PortRange{{Protocol: 47}}}
	listen := func(address string, number uint16, only int) host.Listener {
		return host.Listener{Protocol: policy.TCP, Local: netip.AddrPortFrom(netip.MustParseAddr(address), number), Interface: only}
	}
	p := policy.Default()
	p.Open = []policy.Rule{db, dbTo, web, admin, bound, idle, gre, routed}
	var got []string
	for _, e := range Compare(Input{
		Policy: p, Running: true, Filtered: []host.Interface{{Name: "eth0", Index: 2}, {Name: "eth1", Index: 3}},
		Listeners: []host.Listener{
			listen("192.0.2.7", 5432, 0), listen("192.0.2.8", 5432, 0), listen("192.0.2.9", 5432, 0),
			listen("0.0.0.0", 80, 0), listen("::", 22, 0), listen("0.0.0.0", 9000, 2), listen("0.0.0.0", 25, 0),
		},
	}) {
		got = append(got, row(e))
	}
	want := []string{
		"closed | 25/tcp | * | ",
		"closed | 9000/tcp | * | ", // the socket listens on eth0 alone
		"open | 22/tcp | * | *",
		"open | 80/tcp | * | * except 203.0.113.0/24",
		"open | 5432/tcp | 192.0.2.7 | * to 192.0.2.7,10.0.0.0/8 on eth1",
		"open | 5432/tcp | 192.0.2.8,192.0.2.9 | 10.0.0.0/8 on eth1",
		"unused | 9000/tcp |  | * on eth1",
		"unused | 25/tcp |  | * on eth9",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
