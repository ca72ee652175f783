// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// A million bans that end within a day: none a second late, none early.
func TestBansEndInTime(t *testing.T) {
	count, samples := 1<<20, 30000
	if testing.Short() {
		count, samples = 1<<16, 5000
	}
	d, err := testdp.Open(testdp.Options{Policy: "input: accept", Bans: uint32(count)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	w := worlds[0]
	r := rand.New(rand.NewPCG(24, 60))
	list := make([]dpmaps.Ban, count)
	clock := d.Clock(t)
	for i := range list {
		// Each once, all over the addresses.
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(i)*2654435761+uint32(r.IntN(2))<<31)
		a := netip.AddrFrom4(b)
		list[i] = dpmaps.Ban{Prefix: single(a), Since: clock.Time, Until: clock.Time.Add(time.Duration(r.Int64N(int64(24 * time.Hour)))), Reason: "test"}
	}
	list = uniqueBans(list)
	start := time.Now()
	if n, err := d.Set.PutBans(clock, list); err != nil || n != len(list) {
		t.Fatal(n, err)
	}
	t.Logf("%d bans in %s", len(list), time.Since(start))
	// At each moment of the day the sampled ones that are about to end, and those that ended a second ago.
	type moment struct {
		at   uint64 // jiffies
		addr netip.Addr
		end  uint64
		drop bool
	}
	var day []moment
	for range samples {
		b := list[r.IntN(len(list))]
		end := clock.Jiffies + uint64(b.Until.Sub(clock.Time).Seconds()*testdp.HZ)
		if end > clock.Jiffies+2*testdp.HZ {
			day = append(day, moment{end - 40, b.Prefix.Addr(), end, true})
		}
		day = append(day, moment{end + testdp.HZ, b.Prefix.Addr(), end, false})
	}
	slices.SortFunc(day, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	frameFor := sourcePatcher(w)
	asked := 0
	for _, m := range day {
		if now := d.Now(t); now < m.at {
			d.Advance(t, time.Duration(m.at-now)*time.Second/testdp.HZ)
		}
		passes := d.Passes(t, testdp.XDP, frameFor(m.addr), testdp.From{})
		if m.drop && d.Now(t) >= m.end {
			continue // the machine was busy with something else
		}
		asked++
		if passes == m.drop {
			t.Fatalf("%d jiffies after the end of its ban, a packet of %s passes: %v", int64(d.Now(t)-m.end), m.addr, passes)
		}
	}
	if asked < len(day)*3/4 {
		t.Errorf("of %d moments %d were met", len(day), asked)
	}
	if n, err := d.Set.ForgetEndedBans(d.Clock(t)); err != nil || n < len(list)*99/100 {
		t.Errorf("a day later %d bans of %d are forgotten: %v", n, len(list), err)
	}
}

func uniqueBans(list []dpmaps.Ban) []dpmaps.Ban {
	seen := make(map[netip.Prefix]bool, len(list))
	return slices.DeleteFunc(list, func(b dpmaps.Ban) bool {
		twice := seen[b.Prefix]
		seen[b.Prefix] = true
		return twice
	})
}
