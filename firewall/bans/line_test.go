// SPDX-License-Identifier: Apache-2.0

package bans

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestParseLine(t *testing.T) {
	defaults := Line{For: 10 * time.Minute, Reason: "script"}
	for text, want := range map[string]Line{
		"203.0.113.7":                       {netip.MustParsePrefix("203.0.113.7/32"), 10 * time.Minute, "script"},
		"  203.0.113.7\t1h30m  ":            {netip.MustParsePrefix("203.0.113.7/32"), 90 * time.Minute, "script"},
		"2001:db8::/32 5d sshd":             {netip.MustParsePrefix("2001:db8::/32"), 5 * 24 * time.Hour, "sshd"},
		"2001:db8::1 - two words #3":        {netip.MustParsePrefix("2001:db8::1/128"), 0, "two words #3"},
		"::ffff:203.0.113.7 1d12h a":        {netip.MustParsePrefix("203.0.113.7/32"), 36 * time.Hour, "a"},
		"::ffff:203.0.113.0/120":            {netip.MustParsePrefix("203.0.113.0/24"), 10 * time.Minute, "script"},
		"203.0.113.0/24 # a whole network":  {netip.MustParsePrefix("203.0.113.0/24"), 10 * time.Minute, "script"},
		"203.0.113.0/24 ; SBL1":             {netip.MustParsePrefix("203.0.113.0/24"), 10 * time.Minute, "script"},
		"203.0.113.7 3650d":                 {netip.MustParsePrefix("203.0.113.7/32"), LongestBan, "script"},
		"203.0.113.7 4000d":                 {netip.MustParsePrefix("203.0.113.7/32"), LongestBan, "script"},
		"203.0.113.7 400000000s":            {netip.MustParsePrefix("203.0.113.7/32"), LongestBan, "script"},
		"203.0.113.7 3650d400000000s":       {netip.MustParsePrefix("203.0.113.7/32"), LongestBan, "script"},
		"203.0.113.7 99999999999999999999s": {netip.MustParsePrefix("203.0.113.7/32"), LongestBan, "script"},
		"203.0.113.7 99999999999999999999d": {netip.MustParsePrefix("203.0.113.7/32"), LongestBan, "script"},
		"0.0.0.0/0":                         {netip.MustParsePrefix("0.0.0.0/0"), 10 * time.Minute, "script"},
	} {
		if got, ok, err := ParseLine(text, defaults); got != want || !ok || err != nil {
			t.Errorf("%q: %+v, %v, %v", text, got, ok, err)
		}
	}
	for _, text := range []string{"", " \t", "# a comment", ";203.0.113.7"} {
		if got, ok, err := ParseLine(text, defaults); ok || err != nil {
			t.Errorf("%q: %+v, %v, %v", text, got, ok, err)
		}
	}
	for text, want := range map[string]string{
		"203.0.113":         "bad address \"203.0.113\": write",
		"203.0.113.7/33":    "bad address",
		"203.0.113.7/24":    "network 203.0.113.7/24 has host bits set: write 203.0.113.0/24, or 203.0.113.7 for one host",
		"fe80::1%eth0":      "names a zone",
		"::ffff:0:0/90":     "bad address",
		"<html>":            "bad address",
		"\x1b[2J":           `bad address "\x1b[2J"`,
		"203.0.113.7 600":   "bad time \"600\": write",
		"203.0.113.7 0s":    "bad time",
		"203.0.113.7 -5m":   "bad time",
		"203.0.113.7 1d-1h": "bad time",
		"203.0.113.7 1h " + strings.Repeat("x", 64):   "too long",
		"203.0.113.7 1h a\x00b":                       "cannot be printed",
		"203.0.113.7 1h \xff":                         "cannot be printed",
		"203.0.113.7 1h \u202e":                       "cannot be printed",
		strings.Repeat("203.0.113.7", 10_000) + " 1h": "bad address",
	} {
		_, ok, err := ParseLine(text, defaults)
		if ok || err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 {
			t.Errorf("%.80q: %v, %v, want %q", text, ok, err, want)
		}
	}
}

func TestFitReason(t *testing.T) {
	for text, want := range map[string]string{
		"crowdsec: crowdsecurity/ssh-bf": "crowdsec: crowdsecurity/ssh-bf",
		" a\nb\x1b[2J\xff ":              "ab[2J",
		strings.Repeat("é", 40):          strings.Repeat("é", 31),
		strings.Repeat("a", 62) + " bcd": strings.Repeat("a", 62),
		"":                               "",
	} {
		got := FitReason(text)
		if got != want || CheckReason(got) != nil {
			t.Errorf("%q: %q, %v", text, got, CheckReason(got))
		}
	}
}

func FuzzLine(f *testing.F) {
	for _, text := range []string{"203.0.113.7 10m sshd", "2001:db8::/32 - x", "::ffff:1.2.3.4/97 1d1h", "# x", "1.2.3.4%eth0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, ok, err := ParseLine(text, Line{})
		if err != nil && (ok || len(err.Error()) > 1200) {
			t.Fatalf("%v, %v", ok, err)
		}
		if !ok {
			return
		}
		if l.Prefix != l.Prefix.Masked() || !l.Prefix.IsValid() || l.Prefix.Addr().Is4In6() || l.For < 0 || l.For > LongestBan || CheckReason(l.Reason) != nil {
			t.Fatalf("%q is %+v", text, l)
		}
		if again, err := ParseAddress(Text(l.Prefix)); again != l.Prefix || err != nil {
			t.Fatalf("%q is %v, and that %v, %v", text, l.Prefix, again, err)
		}
	})
}
