// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

func TestRulesThatLetNothingIn(t *testing.T) {
	to := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	for name, c := range map[string]struct {
		on   []string
		to   []netip.Prefix
		says string
	}{
		"plain":                           {nil, nil, ""},
		"forward on what is not filtered": {[]string{"eth1"}, nil, ""},
		"forward to somebody":             {nil, to("198.51.100.1/32"), ""},
		"forward to a network with us":    {nil, to("192.0.2.0/24"), ""},
		"forward to us":                   {nil, to("192.0.2.1/32"), "forward rules to addresses of this host"},
		"on what is filtered":             {[]string{"eth1", "eth0"}, nil, ""},
		"on a pattern":                    {[]string{"eth*"}, nil, ""},
		"on what is not":                  {[]string{"eth1"}, nil, "on no interface"},
		"to its address":                  {nil, to("198.51.100.1/32", "192.0.2.0/24"), ""},
		"to a group":                      {nil, to("224.0.0.18/32"), ""},
		"to an address of somebody":       {nil, to("198.51.100.1/32", "2001:db8::/32"), "to no address"},
	} {
		p := policy.Default()
		p.Open = []policy.Rule{{Forward: strings.HasPrefix(name, "forward"), Ports: []policy.PortRange{{Protocol: policy.TCP, First: 22, Last: 22}}, On: c.on, To: c.to}}
		e := &examination{Options: Options{Policy: p, Interfaces: []string{"eth0"}}}
		e.rules([]netip.Addr{netip.MustParseAddr("192.0.2.1")})
		said := ""
		for _, check := range e.checks {
			said += check.Text
		}
		if (said == "") != (c.says == "") || !strings.HasPrefix(said, c.says) {
			t.Errorf("%s: %q", name, said)
		}
	}
}
