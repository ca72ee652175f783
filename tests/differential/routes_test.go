// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"net/netip"
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// What a host may call its own, and what only looks like it. A VRF is a table with a rule, as are the tables here; its
// device is not in every kernel.
const (
	ownBefore = `
		addr add 203.0.113.5/24 dev eth0
		addr add 203.0.113.6/24 dev eth0
		addr add 2001:db8:5::5/64 dev eth0 nodad
		addr add 198.18.1.1/32 dev lo
		addr add 2001:db8:b::1/128 dev lo
		addr add 198.18.5.1/32 dev lo
		addr add 2001:db8:b::5/128 dev lo
		addr add 239.1.2.3/32 dev eth0 autojoin
		addr add ff05::1234/128 dev eth0 autojoin nodad
		route add local 198.18.0.0/24 dev lo
		route add local 2001:db8:a::/64 dev lo
		rule add from 192.0.2.3 lookup 100
		-6 rule add from 2001:db8::3 lookup 100
		route add local 198.18.2.0/24 dev lo table 100
		route add local 2001:db8:c::/64 dev lo table 100
		rule add iif eth0 lookup 101
		-6 rule add iif eth0 lookup 101
		route add local 198.18.3.0/24 dev lo table 101
		route add local 2001:db8:d::/64 dev lo table 101
		rule add fwmark 9 lookup 102
		-6 rule add fwmark 9 lookup 102
		route add local default dev lo table 102
		-6 route add local default dev lo table 102
		route add 198.18.6.0/24 via 198.51.100.2
		-6 route add 2001:db8:e::/64 via 2001:db8:1::2
		-6 route add default via 2001:db8::2
		neigh replace 203.0.113.77 lladdr 02:00:00:00:00:02 nud permanent dev eth0
		neigh replace 192.0.2.0 lladdr 02:00:00:00:00:02 nud permanent dev eth0
	`
	ownAfter = `
		addr add 203.0.113.33/24 dev eth0
		addr add 192.0.2.33/24 dev eth0
		addr add 2001:db8::33/64 dev eth0 nodad
		addr add 198.18.1.2/32 dev lo
		addr add 2001:db8:b::2/128 dev lo
		route add local 198.18.10.0/24 dev lo
		route add local 2001:db8:aa::/64 dev lo
		addr del 198.18.5.1/32 dev lo
		addr del 2001:db8:b::5/128 dev lo
		route add 198.18.5.1 via 198.51.100.2
		-6 route add 2001:db8:b::5 via 2001:db8:1::2
	`
	// What a transparent proxy is set up with.
	marking = `
		table inet proxy {
			chain pre {
				type filter hook prerouting priority mangle;
				ip daddr 198.18.6.9 meta mark set 9
				ip6 daddr 2001:db8:e::9 meta mark set 9
			}
		}
	`
)

func withRoutes(w world) world {
	w.name, w.before, w.after, w.nft = w.name+", with routes of all kinds", ownBefore, ownAfter, marking
	return w
}

// toEach sends to each of some addresses, to what is open here and what is not.
func toEach(four, six []netip.Addr) func(hosts) []step {
	return func(h hosts) (steps []step) {
		list := four
		if h.six {
			list = six
		}
		for _, dst := range list {
			steps = append(steps, h.syns(h.peer, dst)...)
			steps = append(steps, packet(h.peer, dst, frame.UDP{SrcPort: 30000, DstPort: 53}))
		}
		return steps
	}
}

// mistaken marks what is decided otherwise where one side takes an address for this host's and the other does not:
// what is open here where nothing is forwarded, and what is closed where everything is. `reaches` is what the stack
// makes of it.
func mistaken(d *difference, w world, reaches verdict, sequence func(hosts) []step) func(hosts) []step {
	return func(h hosts) []step {
		steps := sequence(h)
		for i := range steps {
			asOurs, asOthers := drop, drop
			if i%2 == 0 { // toEach: open and closed in turn
				asOurs = reaches
			}
			if w.forward == "ACCEPT" {
				asOthers = reaches
			}
			netfilter, ours := asOurs, asOthers
			if reaches == forwarded {
				netfilter, ours = asOthers, asOurs
			}
			if netfilter != ours {
				steps[i].differs = &difference{row: d.row, netfilter: netfilter, ours: ours}
			}
		}
		return steps
	}
}

var ruled = toEach(addresses("198.18.2.1", "198.18.3.1"), addresses("2001:db8:c::1", "2001:db8:d::1"))

func routeCases(w world) []testCase {
	return []testCase{
		{name: "secondary addresses", steps: toEach(
			addresses("192.0.2.10", "203.0.113.5", "203.0.113.6"), addresses("2001:db8::10", "2001:db8:5::5", "fe80::1"))},
		{name: "AnyIP", steps: toEach(
			addresses("198.18.0.0", "198.18.0.77", "198.18.0.255"), addresses("2001:db8:a::", "2001:db8:a::77"))},
		{name: "of lo", steps: toEach(addresses("198.18.1.1", "198.18.1.3"), addresses("2001:db8:b::1", "2001:db8:b::3"))},
		{name: "of the interface inside", steps: toEach(addresses("198.51.100.1"), addresses("2001:db8:1::1"))},
		{name: "broadcast and network", family: 4, steps: toEach(addresses("192.0.2.255", "203.0.113.255",
			"198.51.100.255", "255.255.255.255", "192.0.2.0", "198.51.100.0", "127.0.0.1", "0.0.0.0"), nil)},
		{name: "subnet-router anycast", family: 6, steps: toEach(nil,
			addresses("2001:db8::", "2001:db8:1::", "2001:db8:5::", "fe80::"))},
		{name: "groups, joined or not", steps: toEach(
			addresses("239.1.2.3", "239.1.2.4", "224.0.0.1"), addresses("ff05::1234", "ff05::1235", "ff02::1", "ff02::2"))},
		{name: "of tables that are asked for what comes in, or for another client", steps: ruled},
		{name: "of tables that are asked for what comes in, or for this client", steps: func(h hosts) []step {
			h.peer = h.other
			return ruled(h)
		}},
		{name: "of a table that is asked for a mark", steps: mistaken(markRouted, w, input, toEach(
			addresses("198.18.6.9"), addresses("2001:db8:e::9")))},
		{name: "without the mark", steps: toEach(addresses("198.18.6.1"), addresses("2001:db8:e::1"))},
		{name: "that came after up", steps: toEach(addresses("203.0.113.33", "192.0.2.33", "198.18.1.2", "198.18.10.1"),
			addresses("2001:db8::33", "2001:db8:b::2", "2001:db8:aa::1"))},
		{name: "that went after up, and are now inside", steps: mistaken(givenUp, w, forwarded, toEach(
			addresses("198.18.5.1"), addresses("2001:db8:b::5")))},
		{name: "of somebody else", steps: toEach(
			addresses("203.0.113.77", "192.0.2.3", "198.51.100.2"), addresses("2001:db8::3", "2001:db8:1::2"))},
	}
}

func TestRoutesToThisHost(t *testing.T) {
	for _, w := range []world{forwardDrop, forwardAccept} {
		t.Run(w.name, func(t *testing.T) { withRoutes(w).mustAgree(t, "routes", routeCases(w)) })
	}
}
