// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/firewall/firewalltest"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/maps"
)

// watched is a kernel of which somebody sees what is banned while ssh sessions are looked for.
type watched struct {
	*firewalltest.Kernel
	meanwhile []maps.Ban
	before    []maps.Ban // and before anything else is asked of the host
}

func (k *watched) Addresses() ([]netip.Addr, error) {
	k.before = slices.Clone(k.BanList)
	return k.Kernel.Addresses()
}

func (k *watched) SSHSessions(among func(netip.Addr) bool) ([]host.Connection, error) {
	k.meanwhile = slices.Clone(k.BanList)
	return k.Kernel.SSHSessions(among)
}

// While it is not known who has logged in, a ban ends by itself after some seconds. One that is in force already stays.
func TestWhoIsBannedStaysSoMeanwhile(t *testing.T) {
	s := newStand(t, "interfaces: [eth0]\nopen: [22/tcp]\n")
	s.follower()
	k := &watched{Kernel: s.Kernel}
	o := s.options()
	o.Kernel, o.StateDir = k, t.TempDir()
	fw := firewall.New(o)
	banned, fresh, session := netip.MustParsePrefix("203.0.113.1/32"), netip.MustParsePrefix("203.0.113.2/32"), netip.MustParsePrefix("203.0.113.3/32")
	hour := time.Now().Add(time.Hour)
	s.BanList = []maps.Ban{{Prefix: banned, Until: hour, Reason: "x"}, {Prefix: session, Until: hour, Reason: "x"}}
	s.SSHList = []host.Connection{{Local: netip.MustParseAddrPort("192.0.2.2:22"), Remote: netip.MustParseAddrPort("203.0.113.3:50000")}}
	var lines []bans.Line
	for _, p := range []netip.Prefix{banned, fresh, session} {
		lines = append(lines, bans.Line{Prefix: p, For: 24 * time.Hour, Reason: "x"})
	}
	report, err := fw.Ban(context.Background(), firewall.BanRequest{Bans: lines})
	if err != nil || report.Banned != 2 || len(report.Refused) != 1 || report.Refused[0].Place != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	ends := func(list []maps.Ban, p netip.Prefix) time.Duration {
		i := slices.IndexFunc(list, func(b maps.Ban) bool { return b.Prefix == p })
		if i < 0 {
			return 0
		}
		return time.Until(list[i].Until).Round(time.Hour)
	}
	for _, p := range []netip.Prefix{banned, session} {
		if left := ends(k.meanwhile, p); left != time.Hour {
			t.Errorf("%s is banned for %v meanwhile", p, left)
		}
	}
	if i := slices.IndexFunc(k.meanwhile, func(b maps.Ban) bool { return b.Prefix == fresh }); i < 0 || time.Until(k.meanwhile[i].Until) > 10*time.Second {
		t.Errorf("%s is not banned for some seconds: %+v", fresh, k.meanwhile)
	}
	for p, want := range map[netip.Prefix]time.Duration{banned: 24 * time.Hour, fresh: 24 * time.Hour, session: time.Hour} {
		if left := ends(s.BanList, p); left != want {
			t.Errorf("%s is banned for %v then, want %v", p, left, want)
		}
	}
}

// A ban is in force before it is known whom it hits: what the guard refuses is taken back, and too large a network is never in
// force.
func TestABanComesFirst(t *testing.T) {
	s := newStand(t, "interfaces: [eth0]\nopen: [22/tcp]\n")
	s.follower()
	gateway := netip.MustParseAddr("203.0.113.1")
	s.GatewayList = []netip.Addr{gateway}
	k := &watched{Kernel: s.Kernel}
	o := s.options()
	o.Kernel, o.StateDir = k, t.TempDir()
	fw := firewall.New(o)
	var lines []bans.Line
	for _, text := range []string{"203.0.113.1/32", "203.0.113.2/32", "0.0.0.0/0", "203.0.113.2/32"} {
		lines = append(lines, bans.Line{Prefix: netip.MustParsePrefix(text)})
	}
	report, err := fw.Ban(context.Background(), firewall.BanRequest{Bans: lines})
	if err != nil || report.Banned != 2 || len(report.Refused) != 2 || report.Refused[0].Place != 0 || report.Refused[1].Place != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	if len(k.before) != 2 || k.before[0].Prefix != lines[0].Prefix || k.before[1].Prefix != lines[1].Prefix {
		t.Errorf("banned before the host is asked: %+v", k.before)
	}
	if len(s.BanList) != 1 || s.BanList[0].Prefix != lines[1].Prefix || !s.BanList[0].Until.IsZero() {
		t.Errorf("banned are %+v", s.BanList)
	}
	// When nobody can find out whom it hits, it does not stay.
	s.GatewayErr = errors.New("netlink is out of memory")
	if _, err := fw.Ban(context.Background(), firewall.BanRequest{Bans: []bans.Line{{Prefix: netip.MustParsePrefix("203.0.113.9/32")}}}); err == nil {
		t.Error("it does not need to know")
	}
	if len(s.BanList) != 1 {
		t.Errorf("banned are %+v", s.BanList)
	}
}
