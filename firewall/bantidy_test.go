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
		addr := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24+uint32(first+i))))
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
		bans := manyBans(i*batch, batch, time.Now().Add(time.Hour), "sshd")
		if i < 9*alive {
			bans = manyBans(i*batch, batch, time.Now().Add(-time.Second), "sshd")
		}
		if err := journal.Add(bans, true); err != nil {
			t.Fatal(err)
		}
		// As many are in force as ever, and one batch has just ended.
		s.BanList = append(manyBans(i*batch, batch*alive, time.Now().Add(time.Hour), "sshd"), manyBans(1<<23, batch, time.Now().Add(-time.Second), "sshd")...)
		if ended, err := s.fw.TidyBans(ctx); err != nil || ended != batch {
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
	if _, err := journal.Load(time.Now(), func(maps.Ban) error { kept++; return nil }); err != nil || kept != batch*alive {
		t.Errorf("it holds %d bans, %v", kept, err)
	}
	// When nothing more ends, what has ended goes all the same.
	s.BanList = nil
	if err := journal.Add(manyBans(0, batch, time.Now().Add(-time.Second), "sshd"), true); err != nil {
		t.Fatal(err)
	}
	if ended, err := s.fw.TidyBans(ctx); err != nil || ended != 0 {
		t.Errorf("%d have ended, %v", ended, err)
	}
	if lines, err := journal.Lines(); err != nil || lines != batch*alive+1 {
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
	before, err := os.Stat(journal.Path())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.fw.TidyBans(ctx); err != nil {
		t.Error(err)
	}
	if after, err := os.Stat(journal.Path()); err != nil || !os.SameFile(before, after) {
		t.Errorf("it was written anew, %v", err)
	}
}
