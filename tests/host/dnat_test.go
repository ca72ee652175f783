// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// A connection to an address of the gateway that netfilter leads to a host behind it goes on as any other, on whichever
// card the filter is, whether it comes after no filter or after one that let everything through.
func TestTranslatedConnectionsInwardGoOn(t *testing.T) {
	for _, interfaces := range [][]string{{"eth0"}, {"eth1"}, both} {
		for _, masqueraded := range []bool{false, true} {
			for _, before := range []string{"", "accept"} {
				t.Run(fmt.Sprintf("%v/masqueraded %t/before %q", interfaces, masqueraded, before), func(t *testing.T) {
					l := lab.New(t)
					inside := l.AddInside(t)
					inside.Echo(t, 443)
					inside.Echo(t, 444)
					l.Server.Run(t, "nft", "add table ip in; add chain ip in pre { type nat hook prerouting priority dstnat; }; add rule ip in pre iifname eth0 tcp dport 8443 dnat to 198.51.100.2:443")
					if masqueraded {
						l.Server.Run(t, "nft", "add chain ip in post { type nat hook postrouting priority srcnat; }; add rule ip in post masquerade")
					}
					if before != "" {
						upWith(t, l, loader.Options{Interfaces: interfaces, Policy: gateway(t, before, "", "8443/tcp")})
					}
					c := mustDial(t, l.Client, "tcp", lab.ServerV4, 8443)
					mustTalk(t, c, "before")
					upWith(t, l, loader.Options{Interfaces: interfaces, Policy: gateway(t, "drop", "1/tcp on eth1")})
					mustTalk(t, c, "after")
					mustTalk(t, c, "once more")
					mustNotDial(t, l.Client, lab.ServerV4, 8443)
				})
			}
		}
	}
}

// track makes netfilter track what is routed.
func track(t testing.TB, l *lab.Lab) {
	t.Helper()
	l.Server.Run(t, "nft", "add table ip track; add chain ip track forward { type filter hook forward priority 0; }; add rule ip track forward ct state new accept")
}

// UDP that was answered is ESTABLISHED for netfilter, long before it is a stream. It goes on when the filter comes up, and
// when the rules go that have let it through, in whatever order, as far as netfilter tracks it.
func TestYoungUDPGoesOn(t *testing.T) {
	dns := "53/udp on eth0"
	for _, interfaces := range [][]string{{"eth0"}, {"eth1"}, both} {
		for _, kind := range []string{"routed", "masqueraded", "led inward"} {
			for _, closed := range [][]string{nil, {"all on eth1", dns}, {dns, "all on eth1"}} {
				t.Run(fmt.Sprintf("%v/%s/closed %v", interfaces, kind, closed), func(t *testing.T) {
					l := lab.New(t)
					inside := l.AddInside(t)
					var c net.Conn
					switch kind {
					case "routed":
						track(t, l)
					case "masqueraded":
						masquerade(t, l)
					case "led inward":
						l.Server.Run(t, "nft", "add table ip in; add chain ip in pre { type nat hook prerouting priority dstnat; }; add rule ip in pre iifname eth0 udp dport 8053 dnat to 198.51.100.2:53")
					}
					if kind == "masqueraded" {
						echoUDP(t, l.Client, lab.ClientV4, 53)
					} else {
						echoUDP(t, inside, lab.InsideV4, 53)
					}
					if closed != nil {
						upWith(t, l, loader.Options{Interfaces: interfaces, Policy: gateway(t, "drop", "'"+dns+"', all on eth1", "8053/udp")})
					}
					switch kind {
					case "routed":
						c = mustDial(t, l.Client, "udp", lab.InsideV4, 53)
					case "masqueraded":
						c = mustDial(t, inside, "udp", lab.ClientV4, 53)
					default:
						c = mustDial(t, l.Client, "udp", lab.ServerV4, 8053)
					}
					mustTalk(t, c, "before")
					if closed == nil {
						upWith(t, l, loader.Options{Interfaces: interfaces, Policy: policy.Default()})
					} else if kind == "led inward" {
						change(t, l, func(f *loader.Filter) error { _, err := f.CloseRules(rules(t, "8053/udp"), false); return err })
						mustTalk(t, c, "after its port was closed")
					}
					for _, rule := range closed {
						closeForward(t, l, rule)
						mustTalk(t, c, "after close of "+rule)
					}
					mustTalk(t, c, "after")
				})
			}
		}
	}
}

// A change from accept to drop cuts what nobody keeps, and says so; where netfilter tracks it, it says nothing.
func TestAcceptThatEndsSaysWhatItCuts(t *testing.T) {
	for _, tracked := range []bool{false, true} {
		l := lab.New(t)
		inside := l.AddInside(t)
		inside.Echo(t, 443)
		if tracked {
			track(t, l)
		}
		upWith(t, l, loader.Options{Interfaces: both, Policy: gateway(t, "accept", "")})
		c := mustDial(t, l.Client, "tcp", lab.InsideV4, 443)
		mustTalk(t, c, "before")
		report := upWith(t, l, loader.Options{Interfaces: both, Policy: gateway(t, "drop", "1/tcp on eth1")})
		warned := slices.ContainsFunc(report.Warnings, func(w string) bool { return strings.Contains(w, "routed through this host are cut") })
		if warned == tracked {
			t.Errorf("tracked %t: warnings %q", tracked, report.Warnings)
		}
		if tracked {
			mustTalk(t, c, "after")
		} else {
			mustNotTalk(t, c, "after")
		}
	}
}
