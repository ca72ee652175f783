// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/maps"
)

// manyBans returns bans of so many addresses from a number on, that end at a time.
func manyBans(first, n int, until time.Time, reason string) []maps.Ban {
	list := make([]maps.Ban, n)
	for i := range list {
		addr := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(10<<24+first+i))))
		list[i] = maps.Ban{Prefix: netip.PrefixFrom(addr, 32), Since: time.Now().Add(-time.Hour), Until: until, Reason: reason}
	}
	return list
}

// The journal of a host that bans in large batches all day, of which each ends a while later, stays about as long as what
// is in force; one that holds little else is left alone.
func TestTidyBans(t *testing.T) {
	ctx := context.Background()
	s, _ := newBlockStand(t)
	if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
		t.Fatal(err)
	}
	journal := s.fw.Journal()
	const batch, alive = 2000, 10 // batches
	longest := 0
	for i := range 10 * alive {
		if err := journal.Add(manyBans(i*batch, batch, time.Now().Add(time.Hour), "sshd"), true); err != nil {
			t.Fatal(err)
		}
		// As many are in force as ever, and one batch has just ended.
		s.BanList = append(manyBans((i+1-alive)*batch, batch*alive, time.Now().Add(time.Hour), "sshd"), manyBans(1<<23, batch, time.Now().Add(-time.Second), "sshd")...)
		if ended, err := s.fw.TidyBans(ctx, false); err != nil || ended != batch {
			t.Fatalf("%d have ended, %v", ended, err)
		}
		lines, err := journal.Lines()
		if err != nil {
			t.Fatal(err)
		}
		longest = max(longest, lines)
	}
	if longest > 3*batch*alive {
		t.Errorf("it has grown to %d lines for %d bans", longest, batch*alive)
	}
	kept := 0
	if _, err := journal.Load(time.Now(), func(maps.Ban) error { kept++; return nil }); err != nil || kept < batch*alive || kept >= longest {
		t.Errorf("it holds %d bans, %v", kept, err)
	}
	// When nothing more ends, what has ended goes all the same.
	s.BanList = nil
	if err := journal.Add(manyBans(0, batch, time.Now().Add(-time.Second), "sshd"), true); err != nil {
		t.Fatal(err)
	}
	if ended, err := s.fw.TidyBans(ctx, false); err != nil || ended != 0 {
		t.Errorf("%d have ended, %v", ended, err)
	}
	if lines, err := journal.Lines(); err != nil || lines != 1 {
		t.Errorf("it has %d lines, %v", lines, err)
	}
	// Long reasons are no waste.
	if err := journal.Clear(); err != nil {
		t.Fatal(err)
	}
	s.BanList = manyBans(0, batch, time.Now().Add(time.Hour), strings.Repeat("x", maps.MaxBanReason))
	if err := journal.Add(s.BanList, true); err != nil {
		t.Fatal(err)
	}
	journal.SetComplete()
	before, err := os.Stat(journal.Path())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.fw.TidyBans(ctx, false); err != nil {
		t.Error(err)
	}
	if after, err := os.Stat(journal.Path()); err != nil || !os.SameFile(before, after) {
		t.Errorf("it was written anew, %v", err)
	}
}

// A clock that is wrong for a while costs nobody his ban, and makes none last for years: the journal goes by what is in force.
func TestBansOutliveAWrongClock(t *testing.T) {
	ctx := context.Background()
	const some = 2000
	for _, c := range []struct {
		name         string
		since, until time.Duration // of what was written down, from now
		set          bool          // the clock, since then
		want         time.Duration // until then it holds, from now
	}{
		{"written when the clock was in 1970", -50 * 365 * 24 * time.Hour, -50*365*24*time.Hour + time.Hour, false, time.Hour},
		{"the clock is in the past now", 10 * 365 * 24 * time.Hour, 10*365*24*time.Hour + time.Hour, false, 10*365*24*time.Hour + time.Hour},
		{"the clock has gone ahead", -2 * time.Hour, -time.Hour, false, time.Hour},
		{"the clock was set back", time.Hour, 3 * time.Hour, true, time.Hour},
		{"the clock was set ahead", -20 * time.Minute, 10 * time.Minute, true, time.Hour},
		{"the clock is right", -time.Hour, time.Hour, false, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := newBlockStand(t)
			if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			journal, written := s.fw.Journal(), manyBans(0, some, now.Add(c.until), "sshd")
			for i := range written {
				written[i].Since = now.Add(c.since)
			}
			s.BanList = manyBans(0, some/10, now.Add(time.Hour), "sshd")
			if err := journal.Add(written, false); err != nil {
				t.Fatal(err)
			}
			if _, err := s.fw.TidyBans(ctx, c.set); err != nil {
				t.Fatal(err)
			}
			if lines, err := journal.Lines(); err != nil || lines != some/10+1 {
				t.Fatalf("it has %d lines, %v", lines, err)
			}
			held := 0
			if _, err := journal.Load(now.Add(c.want-time.Second), func(b maps.Ban) error {
				if b.Until.Sub(b.Since) != c.until-c.since {
					t.Errorf("it lasts %v, want %v", b.Until.Sub(b.Since), c.until-c.since)
				}
				held++
				return nil
			}); err != nil || held != some/10 {
				t.Errorf("%d bans hold until then, %v", held, err)
			}
			if c.want > time.Hour {
				return // at a boot with the clock as it is they last for an hour
			}
			if _, err := journal.Load(now.Add(c.want+time.Minute), func(b maps.Ban) error {
				t.Fatalf("%v still holds", b)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}
