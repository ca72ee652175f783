// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
)

// Programs that ban the same address for reasons of their own do not end each other's bans, over a boot or not.
func TestBansForSeveralReasons(t *testing.T) {
	const hour, minutes = time.Hour, 10 * time.Minute
	type step struct {
		do     string // "ban", "unban", "batch" or "boot"
		reason string
		lasts  time.Duration
	}
	for name, c := range map[string]struct {
		steps []step
		want  string // what is in force
	}{
		"the longer one ends":           {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"unban", "a", 0}}, "b 10m"},
		"the shorter one came first":    {[]step{{"ban", "b", minutes}, {"ban", "a", hour}, {"unban", "a", 0}}, "b 10m"},
		"the shorter one ends":          {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"unban", "b", 0}}, "a 60m"},
		"both end":                      {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"unban", "b", 0}, {"unban", "a", 0}}, ""},
		"all end":                       {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"unban", "", 0}, {"boot", "", 0}}, ""},
		"none is left of those":         {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"unban", "", 0}, {"ban", "a", hour}, {"unban", "a", 0}}, ""},
		"after a boot":                  {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"boot", "", 0}, {"unban", "a", 0}}, "b 10m"},
		"and a boot":                    {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"unban", "a", 0}, {"boot", "", 0}}, "b 10m"},
		"of three the longer":           {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"ban", "c", 2 * minutes}, {"unban", "a", 0}}, "c 20m"},
		"and the last":                  {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"ban", "c", 2 * minutes}, {"unban", "a", 0}, {"unban", "c", 0}}, "b 10m"},
		"one that is made shorter":      {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"ban", "a", time.Minute}}, "b 10m"},
		"and ends":                      {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"ban", "a", time.Minute}, {"unban", "b", 0}}, "a 1m"},
		"one that does not end":         {[]step{{"ban", "a", 0}, {"ban", "b", minutes}, {"unban", "a", 0}}, "b 10m"},
		"two of one batch":              {[]step{{"batch", "a b", 0}, {"unban", "b", 0}}, "a 1m"},
		"unbanned while nothing runs":   {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"unban, down", "a", 0}, {"boot", "", 0}}, "b 10m"},
		"the other is, while it is off": {[]step{{"ban", "a", hour}, {"ban", "b", minutes}, {"unban, down", "b", 0}, {"boot", "", 0}, {"unban", "a", 0}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			s, _ := newBlockStand(t)
			if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
				t.Fatal(err)
			}
			p := netip.MustParsePrefix("203.0.113.7/32")
			for _, step := range c.steps {
				switch step.do {
				case "ban":
					if report, err := s.fw.Ban(ctx, firewall.BanRequest{Bans: []bans.Line{{Prefix: p, For: step.lasts, Reason: step.reason}}}); err != nil || report.Banned != 1 {
						t.Fatalf("%+v, %v", report, err)
					}
				case "batch":
					var lines []bans.Line
					for i, reason := range strings.Fields(step.reason) {
						lines = append(lines, bans.Line{Prefix: p, For: time.Duration(i+1) * time.Minute, Reason: reason})
					}
					if _, err := s.fw.Ban(ctx, firewall.BanRequest{Bans: lines}); err != nil {
						t.Fatal(err)
					}
				case "boot":
					s.Running, s.BanList = nil, nil
					if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
						t.Fatal(err)
					}
				default:
					r := firewall.UnbanRequest{Prefixes: []netip.Prefix{p}}
					if step.reason != "" {
						r.IsReason = func(reason string) bool { return reason == step.reason }
					}
					if step.do == "unban, down" {
						s.Running, s.BanList = nil, nil
					}
					if report, err := s.fw.Unban(ctx, r); s.Running != nil && (err != nil || report.Unbanned != 1) {
						t.Fatalf("unban %q: %+v, %v", step.reason, report, err)
					}
				}
			}
			have := ""
			for _, b := range s.BanList {
				have += fmt.Sprintf("%s %.0fm", b.Reason, time.Until(b.Until).Minutes())
			}
			if have != c.want {
				t.Errorf("in force is %q, want %q", have, c.want)
			}
		})
	}
}

// What other bans outlast leaves nothing on the disk when it has ended.
func TestBansThatOthersOutlastAreForgotten(t *testing.T) {
	ctx := context.Background()
	s, _ := newBlockStand(t)
	if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
		t.Fatal(err)
	}
	banOf(s, false, "203.0.113.7")
	for range 2000 {
		if _, err := s.fw.Ban(ctx, firewall.BanRequest{Bans: []bans.Line{{Prefix: netip.MustParsePrefix("203.0.113.7/32"), For: time.Minute, Reason: "again and again"}}}); err != nil {
			t.Fatal(err)
		}
	}
	path := s.fw.Journal().Path() + ".others"
	if info, err := os.Stat(path); err != nil || info.Size() > 100<<10 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := s.fw.Unban(ctx, firewall.UnbanRequest{All: true, IsReason: func(reason string) bool { return reason != "" }}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("it is there, %v", err)
	}
	s.banned("203.0.113.7")
}
