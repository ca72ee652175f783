// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/host/netfilter"
)

// docker makes the chain of Docker in a nat table of the iptables family, and rules in it.
func docker(tool string, rules ...string) []string {
	lines := []string{tool + " -t nat -N DOCKER", tool + " -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"}
	for _, rule := range rules {
		lines = append(lines, tool+" -t nat -A DOCKER "+rule)
	}
	return lines
}

// Which ports netfilter leads to containers, as each tool sets it.
func TestPublished(t *testing.T) {
	const nft = "nft add rule inet d pre "
	chain := []string{"nft add table inet d", "nft 'add chain inet d pre { type nat hook prerouting priority dstnat; }'"}
	for _, c := range []struct {
		what  string
		lines []string
		want  []string // PROTOCOL FIRST-LAST DESTINATION TO
	}{
		{"Docker", docker("iptables", "! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"),
			[]string{"tcp 8080-8080 any 172.17.0.2:80"}},
		{"Docker on an address", docker("iptables", "-d 192.0.2.1/32 ! -i docker0 -p udp -m udp --dport 53 -j DNAT --to-destination 172.17.0.2:53"),
			[]string{"udp 53-53 192.0.2.1/32 172.17.0.2:53"}},
		{"Docker for IPv6", docker("ip6tables", "-d 2001:db8::1/128 ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00::2]:80"),
			[]string{"tcp 8080-8080 2001:db8::1/128 [fd00::2]:80"}},
		{"range and network", []string{"iptables -t nat -A PREROUTING -d 192.0.2.0/25 -p tcp --dport 8000:8010 -j DNAT --to-destination 198.51.100.9"},
			[]string{"tcp 8000-8010 192.0.2.0/25 198.51.100.9"}},
		{"network of whole bytes", []string{"iptables -t nat -A PREROUTING -d 192.0.2.0/24 -p tcp --dport 81 -j DNAT --to-destination 198.51.100.9"},
			[]string{"tcp 81-81 192.0.2.0/24 198.51.100.9"}},
		{"redirect", []string{"iptables -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080"}, []string{"tcp 80-80 any port 8080"}},
		{"by the chain before", []string{"iptables -t nat -N WEB", "iptables -t nat -A PREROUTING -p tcp --dport 82 -j WEB",
			"iptables -t nat -A WEB -j DNAT --to-destination 172.17.0.2"}, []string{"tcp 82-82 any 172.17.0.2"}},
		{"no port", []string{"iptables -t nat -A PREROUTING -d 192.0.2.9 -j DNAT --to-destination 172.17.0.2"}, nil},
		{"not that port", []string{"iptables -t nat -A PREROUTING -p tcp ! --dport 22 -j DNAT --to-destination 172.17.0.2"}, nil},
		{"not that address", []string{"iptables -t nat -A PREROUTING ! -d 192.0.2.9/32 -p tcp --dport 83 -j DNAT --to-destination 172.17.0.2"},
			[]string{"tcp 83-83 any 172.17.0.2"}},
		{"other hooks", []string{"iptables -t nat -A OUTPUT -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80", "iptables -t nat -A POSTROUTING -j MASQUERADE"}, nil},
		{"nft", append(chain, nft+"fib daddr type local tcp dport 8443 counter dnat ip to 172.18.0.2:443",
			nft+"ip6 daddr 2001:db8::1 udp dport 443 dnat ip6 to '[fd00::3]:443'"),
			[]string{"tcp 8443-8443 any 172.18.0.2:443", "udp 443-443 2001:db8::1/128 [fd00::3]:443"}},
		{"nft sets and ranges", append(chain, nft+"tcp dport '{ 81, 90-92 }' dnat ip to 172.18.0.2", nft+"udp dport 100-110 redirect to :9",
			nft+"tcp dport '{ 65000-65535 }' dnat ip to 172.18.0.2"),
			[]string{"tcp 81-81 any 172.18.0.2", "tcp 90-92 any 172.18.0.2", "udp 100-110 any port 9", "tcp 65000-65535 any 172.18.0.2"}},
		{"legacy", append(docker("iptables-legacy", "! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"),
			"iptables-legacy -t nat -A PREROUTING -d 192.0.2.0/25 -p udp -m multiport --dports 53,60:70 -j REDIRECT --to-ports 8080"),
			[]string{"tcp 8080-8080 any 172.17.0.2:80", "udp 53-53 192.0.2.0/25 port 8080", "udp 60-70 192.0.2.0/25 port 8080"}},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "_"), func(t *testing.T) {
			p := newPatient(t)
			if c.what == "legacy" {
				p.can("iptables-legacy -t nat -L")
			}
			p.must(c.lines...)
			var got []string
			p.Server.Do(t, func() error {
				r, err := netfilter.Read(context.Background())
				for _, d := range r.Published {
					destination := "any"
					if d.Destination.IsValid() {
						destination = d.Destination.String()
					}
					got = append(got, fmt.Sprintf("%s %d-%d %s %s", d.Protocol, d.First, d.Last, destination, d.To))
				}
				return err
			})
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
