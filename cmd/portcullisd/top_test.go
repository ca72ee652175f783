// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

func sampleOf(closed, rule uint64) *loader.Sample {
	return &loader.Sample{
		Ledger: []loader.Traffic{{Of: loader.OfInterface, Interface: "eth0", Received: maps.Tally{Packets: closed + rule, Bytes: 100 * (closed + rule)},
			Counters: []loader.TrafficCounter{
				{Verdict: "drop", Reason: "closed port", Tally: maps.Tally{Packets: closed, Bytes: 100 * closed}},
				{Verdict: "pass", Reason: "rule", Tally: maps.Tally{Packets: rule, Bytes: 100 * rule}},
			}}},
		Rules:      []loader.RuleStatus{{Rule: "9/udp", ID: 1, Packets: rule, Bytes: 100 * rule}},
		BanReasons: []maps.BanReason{{Text: "sshd\x1b[2J", Packets: closed}},
		Entries:    7, MaxFlows: 100,
	}
}

func TestRates(t *testing.T) {
	r := ratesOf(sampleOf(100, 10), sampleOf(300, 20), 2*time.Second)
	if len(r.Reasons) != 2 || r.Reasons[0].Name != "closed port" || r.Reasons[0].PPS != 100 || r.Reasons[0].BPS != 10_000 {
		t.Errorf("by reason: %+v", r.Reasons)
	}
	if r.Rules[0].PPS != 5 || r.Interfaces[0].PPS != 105 || r.Interfaces[0].Packets != 320 || r.Blocked[0].PPS != 100 {
		t.Errorf("%+v", r)
	}
	// What begins anew has no rate, least of all a negative one.
	again := ratesOf(sampleOf(300, 20), sampleOf(5, 0), time.Second)
	if again.Reasons[0].PPS != 0 || again.Rules[0].PPS != 0 {
		t.Errorf("counted anew: %+v", again)
	}
}

type keys []string

func (k keys) to(m *screen) (last tea.Cmd) {
	for _, key := range k {
		msg := tea.KeyPressMsg{Text: key}
		if len(key) == 1 {
			msg.Code = rune(key[0])
		} else {
			msg.Text = ""
			msg.Code = map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "down": tea.KeyDown, "backspace": tea.KeyBackspace}[key]
		}
		_, last = m.Update(msg)
	}
	return last
}

// Each width and height is filled, and no line is longer or too much; no control character of a name gets out.
func TestTheScreenFits(t *testing.T) {
	m := newScreen(nil, time.Second)
	for _, size := range [][2]int{{60, 12}, {80, 24}, {200, 50}, {20, 4}, {1, 1}} {
		m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		m.Update(looked{ratesOf(sampleOf(100, 10), sampleOf(300, 20), time.Second), nil})
		for range views {
			text := m.render()
			lines := strings.Split(text, "\n")
			if len(lines) > max(size[1], 1) || strings.Contains(text, "\x1b") {
				t.Errorf("%v: %d lines: %q", size, len(lines), text)
			}
			for _, line := range lines {
				if utf8.RuneCountInString(line) > size[0] {
					t.Errorf("%v: %q", size, line)
				}
			}
			keys{"tab"}.to(m)
		}
	}
	m.Update(tea.WindowSizeMsg{Width: 60, Height: 12})
	if text := m.render(); !strings.Contains(text, "> drop closed port") || !strings.Contains(text, "200") || !strings.Contains(text, "dropped 200/s") {
		t.Errorf("at 60 columns:\n%s", text)
	}
	m.Update(looked{nil, errors.New("portcullis is not running")})
	if text := m.render(); !strings.Contains(text, "not running") {
		t.Errorf("an error is not shown:\n%s", text)
	}
}

func TestKeysOfTop(t *testing.T) {
	m := newScreen(nil, time.Second)
	m.Update(looked{ratesOf(sampleOf(100, 10), sampleOf(300, 20), time.Second), nil})
	keys{"/", "r", "u", "l", "x", "backspace", "e", "enter"}.to(m)
	if rows := m.rows(); len(rows) != 1 || rows[0].Name != "rule" {
		t.Errorf("the filter leaves %+v", rows)
	}
	keys{"esc"}.to(m)
	if len(m.rows()) != 2 {
		t.Error("esc does not end the filter")
	}
	keys{"s", "s"}.to(m)
	if rows := m.rows(); m.order != byName || rows[0].Name != "closed port" {
		t.Errorf("sorted by %s: %+v", m.order, rows)
	}
	// Banning asks first, and nothing but y is yes.
	keys{"b", "1", "9", "8", ".", "5", "1", ".", "1", "0", "0", ".", "7", "enter"}.to(m)
	if m.prompt != confirmBan || m.target != netip.MustParseAddr("198.51.100.7") || !strings.Contains(m.render(), "ban 198.51.100.7 for an hour? y/n") {
		t.Errorf("it asks %q", m.render())
	}
	if cmd := (keys{"n"}).to(m); cmd != nil || m.prompt != noPrompt {
		t.Error("it bans without being told to")
	}
	keys{"b", "x", "enter"}.to(m)
	if m.prompt != noPrompt || !strings.Contains(m.render(), `"x" is no address`) {
		t.Errorf("of no address: %q", m.render())
	}
	m.rates.Sources = []sourceRow{{Address: netip.MustParseAddr("198.51.100.9"), Sampled: 10, Estimated: 12_345, PPS: 100}}
	keys{"4", "b"}.to(m)
	if text := m.table(); !strings.Contains(text, "DROPPED SOURCES") || !strings.Contains(text, "> 198.51.100.9") || !strings.Contains(text, "      100       10      12k") {
		t.Errorf("the source is shown as\n%s", text)
	}
	if m.prompt != confirmBan || m.target.String() != "198.51.100.9" {
		t.Errorf("of the selected source it asks %q", m.render())
	}
	if cmd := (keys{"y"}).to(m); cmd == nil {
		t.Error("y does not ban")
	}
	if cmd := (keys{"q"}).to(m); cmd == nil {
		t.Error("q does not end it")
	}
}

func TestShort(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 1.25: "1.2", 17.4: "17", 9999: "9999", 12_345: "12k", 123_456_789: "123M", 5e12: "5000G"} {
		if got := short(n); got != want {
			t.Errorf("%v: %q, want %q", n, got, want)
		}
	}
}

func TestTopNeedsATerminal(t *testing.T) {
	var out, complaint strings.Builder
	d := &daemon{stdout: &out, stderr: &complaint, getenv: func(string) string { return "" }}
	if code := d.run([]string{"top"}); code != exitUsage || complaint.String() != "portcullis: top needs a terminal: use --once\n" {
		t.Errorf("exit code %d: %s", code, &complaint)
	}
}
