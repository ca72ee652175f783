// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
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
