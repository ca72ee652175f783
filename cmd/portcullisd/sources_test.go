// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// dropFrom returns packets of a source that were dropped for a reason.
func dropFrom(t *testing.T, addr netip.Addr, reason string, n int) (out []loader.MonitoredPacket) {
	t.Helper()
	frame := append(make([]byte, 12), 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1, 0x9c, 0x40, 0, 23, 0, 8, 0, 0)
	copy(frame[26:], addr.AsSlice())
	for _, r := range maps.Reasons() {
		if r.Verdict() == maps.Drop && r.String() == reason {
			for range n {
				out = append(out, loader.MonitoredPacket{Reason: r, Ethernet: true, Frame: frame, Length: 42})
			}
			return out
		}
	}
	t.Fatalf("there is no reason %q", reason)
	return nil
}

// What was sampled stands for what the ledger has dropped, by reason, and all of it is given to somebody.
func TestSourcesAreEstimated(t *testing.T) {
	heavy, light := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.7")
	s := newSources()
	s.begin(map[string]uint64{"closed port": 5000, "banned": 5})
	s.add(dropFrom(t, heavy, "closed port", 90))
	s.add(dropFrom(t, light, "closed port", 10))
	s.add(dropFrom(t, light, "banned", 3))
	is := func(rows []sourceRow, want ...sourceRow) {
		t.Helper()
		if len(rows) != len(want) || rows[0] != want[0] || rows[1] != want[1] {
			t.Errorf("the sources are %+v, want %+v", rows, want)
		}
	}
	is(s.settle(map[string]uint64{"closed port": 6000, "banned": 8}, 2*time.Second),
		sourceRow{heavy, 90, 900, 450}, sourceRow{light, 13, 103, 51.5})
	// Nothing was sampled of what comes next: what is sampled later stands for it.
	is(s.settle(map[string]uint64{"closed port": 6100, "banned": 8}, time.Second), sourceRow{heavy, 90, 900, 0}, sourceRow{light, 13, 103, 0})
	s.add(dropFrom(t, heavy, "closed port", 1))
	is(s.settle(map[string]uint64{"closed port": 6200, "banned": 8}, time.Second), sourceRow{heavy, 91, 1100, 200}, sourceRow{light, 13, 103, 0})
	// The ledger begins anew after a down.
	s.add(dropFrom(t, light, "closed port", 2))
	is(s.settle(map[string]uint64{"closed port": 20}, time.Second), sourceRow{heavy, 91, 1100, 0}, sourceRow{light, 15, 123, 20})
	// While the view was not shown, nothing was sampled, and nothing is given to anybody.
	s.begin(map[string]uint64{"closed port": 1_000_000})
	s.add(dropFrom(t, light, "closed port", 1))
	is(s.settle(map[string]uint64{"closed port": 1_000_001}, time.Second), sourceRow{heavy, 91, 1100, 0}, sourceRow{light, 16, 124, 1})
}

// A flood of forged senders takes no more memory than so many, and does not hide who sends much.
func TestSourcesAreBounded(t *testing.T) {
	s, heavy := newSources(), netip.MustParseAddr("203.0.113.9")
	s.begin(map[string]uint64{})
	for i := range uint32(100_000) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 10<<24+i)
		s.add(dropFrom(t, netip.AddrFrom4(b), "closed port", 1))
		if i%100 == 0 {
			s.add(dropFrom(t, heavy, "closed port", 1))
		}
		if len(s.of) > mostSources {
			t.Fatalf("%d sources are kept", len(s.of))
		}
	}
	rows := s.settle(map[string]uint64{"closed port": 101_000}, time.Second)
	if len(rows) > mostSources || rows[0].Address != heavy || rows[0].Sampled != 1000 || rows[0].Estimated != 1000 {
		t.Errorf("of a flood %d are left, the first is %+v", len(rows), rows[0])
	}
}

// A view says why it has no rows, and no row is without a name.
func TestNothingStandsEmpty(t *testing.T) {
	m := newScreen(nil, time.Second)
	for view := range views {
		m.view = view
		if text := m.table(); !strings.Contains(text, "\n  "+emptyTexts[view]) || emptyTexts[view] == "" {
			t.Errorf("without rows it shows\n%s", text)
		}
	}
	m.view, m.rates.unsampled = viewSources, errors.New("8 others look")
	if text := m.table(); !strings.Contains(text, "8 others look") {
		t.Errorf("where no sources are sampled it shows\n%s", text)
	}
	m.filter = "x"
	if text := m.table(); !strings.Contains(text, `nothing contains "x": esc shows all`) {
		t.Errorf("with a filter that leaves nothing it shows\n%s", text)
	}
	sample := &loader.Sample{BanReasons: []maps.BanReason{{Packets: 7}}}
	m.rates, m.view, m.filter = ratesOf(sample, sample, time.Second), viewBlocked, ""
	if text := m.table(); !strings.Contains(text, "LISTS AND BANS") || !strings.Contains(text, "banned without a reason") || strings.Contains(text, "banned: ") {
		t.Errorf("bans without a reason are shown as\n%s", text)
	}
}
