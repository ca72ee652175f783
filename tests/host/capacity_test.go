// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// What the running maps have no room for gets others, for a rule that opens as for one that closes; rules that stay go
// on counting, and connections live.
func TestRulesThatNeedMapsOfTheirOwn(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	l.Server.Echo(t, 50000)
	// Each port has a set of its two sources. Without the wide rule each has another, of one.
	const wide = "1-65535/tcp from 10.0.0.99"
	p := policyOf(t, wide)
	for port := 1; port <= 40_000; port++ {
		p.Open = append(p.Open, rules(t, fmt.Sprintf("%d/tcp from %s", port, lab.ClientV4))...)
	}
	up(t, l, loader.ModeNative, p)
	l.Client.IP(t, "addr", "add", "10.0.0.99/32", "dev", "lo")
	l.Server.IP(t, "route", "add", "10.0.0.99/32", "via", lab.ClientV4.String())
	conn := mustDial(t, l.Client, "tcp", lab.ServerV4, 7)
	mustTalk(t, conn, "before")
	counted := func(rule string) uint64 {
		for _, r := range status(t, l).Rules {
			if r.Rule == rule {
				return r.Packets
			}
		}
		return 0
	}
	open7 := "7/tcp from " + lab.ClientV4.String()
	before := counted(open7)

	report := closeRule(t, l, wide, false)
	if len(report.Closed) != 1 || len(status(t, l).Rules) != 40_000 {
		t.Errorf("closed was %v, and %d rules are left", report.Closed, len(status(t, l).Rules))
	}
	mustTalk(t, conn, "after")
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "anew")
	if now := counted(open7); before == 0 || now <= before {
		t.Errorf("%s had counted %d, and counts %d", open7, before, now)
	}
	with(t, l, func(f *loader.Filter) error {
		entries, err := f.Policy()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(entries.Open, func(r policy.Rule) bool { return r.String() == wide }) {
			t.Error("the rule is still there")
		}
		return nil
	})

	// More sources than the records have room for, with the client's among them.
	many := rules(t, "50000/tcp")[0]
	for i := range 300_000 {
		many.From = append(many.From, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(16 + i>>16), byte(i >> 8), byte(i)}), 32))
	}
	mustNotDial(t, l.Client, lab.ServerV4, 50000)
	many.From = append(many.From, netip.PrefixFrom(lab.ClientV4, 32))
	change(t, l, func(f *loader.Filter) error {
		report, err := f.OpenRules([]policy.Rule{many}, true)
		if err == nil && len(report.Opened) != 1 {
			t.Errorf("opened was %v", report.Opened)
		}
		return err
	})
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 50000), "by the new rule")
	s := status(t, l)
	if n := len(s.Rules); n != 40_001 {
		t.Errorf("%d rules are in force", n)
	}
	for _, r := range s.Rules {
		if r.Runtime != (len(r.Rule) > 1000) {
			t.Errorf("%.60s is not in the file: %t", r.Rule, r.Runtime)
		}
	}
	closed := closeRule(t, l, many.String(), false)
	if len(closed.Closed) != 1 {
		t.Errorf("closed was %.100v", closed.Closed)
	}
	mustNotDial(t, l.Client, lab.ServerV4, 50000)
	mustTalk(t, conn, "in the end")
}
