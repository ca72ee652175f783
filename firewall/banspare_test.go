// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
)

func banOf(s *stand, force bool, texts ...string) {
	s.Helper()
	var lines []bans.Line
	for _, text := range texts {
		p, err := bans.ParseAddress(text)
		if err != nil {
			s.Fatal(err)
		}
		lines = append(lines, bans.Line{Prefix: p})
	}
	if report, err := s.fw.Ban(context.Background(), firewall.BanRequest{Bans: lines, Force: force}); err != nil || report.Banned != len(lines) {
		s.Fatalf("ban %v: %+v, %v", texts, report, err)
	}
}

// banned checks who is.
func (s *stand) banned(want ...string) {
	s.Helper()
	var have []string
	for _, b := range s.BanList {
		have = append(have, bans.Text(b.Prefix))
	}
	if strings.Join(have, " ") != strings.Join(want, " ") {
		s.Errorf("banned are %q, want %q", have, want)
	}
}

// Who was banned before he became the gateway is not banned again at the next boot, unless somebody has insisted on it.
func TestBansSpareANewGatewayAtTheNextBoot(t *testing.T) {
	ctx := context.Background()
	for _, force := range []bool{false, true} {
		s, _ := newBlockStand(t)
		if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
			t.Fatal(err)
		}
		banOf(s, force, "198.51.100.3", "198.51.100.0/28", "198.51.100.77")
		s.Running, s.BanList = nil, nil // a boot
		s.GatewayList = []netip.Addr{netip.MustParseAddr("198.51.100.3")}
		report, err := s.fw.Up(ctx, firewall.UpRequest{})
		if err != nil {
			t.Fatal(err)
		}
		said := strings.Join(report.Warnings, "\n")
		if force {
			s.banned("198.51.100.3", "198.51.100.0/28", "198.51.100.77")
			continue
		}
		s.banned("198.51.100.77")
		for _, want := range []string{"198.51.100.3 is not banned again, as it is the default gateway", "198.51.100.0/28 is not banned again, as it holds 198.51.100.3, the default gateway"} {
			if !strings.Contains(said, want) {
				t.Errorf("it says %q, want %q", said, want)
			}
		}
	}
}

// When the default route changes to who is banned, the agent ends that ban, unless somebody has insisted on it.
func TestTheAgentEndsBansOfANewGateway(t *testing.T) {
	ctx := context.Background()
	s, _ := newBlockStand(t)
	if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
		t.Fatal(err)
	}
	banOf(s, false, "198.51.100.3", "198.51.100.0/28", "198.51.100.77")
	banOf(s, true, "198.51.100.4")
	fl := s.fw.Follow(firewall.FollowRequest{})
	look := func() (text string) {
		for _, n := range fl.Spare(ctx, s.Kernel) {
			text += n.Text + "\n"
		}
		return text
	}
	if said := look(); said != "" {
		t.Errorf("it says %q", said)
	}
	s.GatewayList = []netip.Addr{netip.MustParseAddr("198.51.100.3"), netip.MustParseAddr("198.51.100.4")}
	if said := look(); strings.Count(said, "\n") != 2 || !strings.Contains(said, "the ban of 198.51.100.3 has ended, as it is the default gateway") {
		t.Errorf("it says %q", said)
	}
	s.banned("198.51.100.77", "198.51.100.4")
	if said := look(); said != "" {
		t.Errorf("it says %q again", said)
	}
	s.Running, s.BanList, s.GatewayList = nil, nil, nil // a boot
	if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
		t.Fatal(err)
	}
	s.banned("198.51.100.77", "198.51.100.4")
}
