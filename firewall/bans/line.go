// SPDX-License-Identifier: Apache-2.0

package bans

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// Line is what one line of "ban -" asks for: ADDRESS [FOR [REASON]].
type Line struct {
	Prefix netip.Prefix
	For    time.Duration // 0: for ever
	Reason string
}

const (
	longestReason = 63 // bytes
	longestBan    = 10 * 365 * 24 * time.Hour
)

// ParseLine reads a line, in which what is left out is as in the default. An empty one, and one that is a comment, is
// none.
func ParseLine(text string, defaults Line) (l Line, ok bool, err error) {
	address, rest := cutField(text)
	if address == "" || isComment(address) {
		return Line{}, false, nil
	}
	l = defaults
	if l.Prefix, err = ParseAddress(address); err != nil {
		return Line{}, false, err
	}
	period, reason := cutField(rest)
	if isComment(period) {
		period, reason = "", ""
	}
	if period != "" {
		if l.For, err = ParsePeriod(period); err != nil {
			return Line{}, false, err
		}
	}
	if reason != "" {
		l.Reason = reason
	}
	if err = CheckReason(l.Reason); err != nil {
		return Line{}, false, err
	}
	return l, true, nil
}

// isComment reports whether a word begins a comment.
func isComment(word string) bool { return strings.HasPrefix(word, "#") || strings.HasPrefix(word, ";") }

// cutField returns the first word of a text, and what follows without the space around it.
func cutField(text string) (word, rest string) {
	text = strings.TrimSpace(text)
	if i := strings.IndexFunc(text, unicode.IsSpace); i >= 0 {
		return text[:i], strings.TrimSpace(text[i:])
	}
	return text, ""
}

// ParseAddress reads an address or a network. IPv4 that is written as IPv6 is IPv4.
func ParseAddress(text string) (netip.Prefix, error) {
	bad := fmt.Errorf("bad address %s: write an address or a network, such as 203.0.113.7 or 2001:db8::/32", quoted(text))
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, bad
		}
		if addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("address %s names a zone: leave %s out", quoted(text), quoted("%"+addr.Zone()))
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, bad
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, bad
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("network %s has host bits set: write %s, or %s for one host", p, p.Masked(), p.Addr())
	}
	return p, nil
}

// ParsePeriod reads how long a ban is to last; "-" is for ever.
func ParsePeriod(text string) (time.Duration, error) {
	if text == forEver {
		return 0, nil
	}
	bad := fmt.Errorf("bad time %s: write how long the ban lasts, from 1s to 3650d, as 30s, 10m, 12h or 5d, or - for ever",
		quoted(text))
	var total time.Duration
	rest := text
	if head, tail, found := strings.Cut(text, "d"); found {
		days, err := strconv.ParseUint(head, 10, 16)
		if err != nil {
			return 0, bad
		}
		rest, total = tail, time.Duration(days)*24*time.Hour
	}
	if rest != "" || rest == text {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 {
			return 0, bad
		}
		total += d
	}
	if total < time.Second || total > longestBan {
		return 0, bad
	}
	return total, nil
}

// CheckReason refuses a reason that is too long, or that would not stay on its line.
func CheckReason(text string) error {
	switch {
	case len(text) > longestReason:
		return fmt.Errorf("the reason %s is too long: write %d bytes at most", quoted(text), longestReason)
	case !utf8.ValidString(text) || strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0:
		return fmt.Errorf("the reason %s has characters that cannot be printed: leave them out", quoted(text))
	case text != strings.TrimSpace(text):
		return errors.New("the reason begins or ends with a space: leave it out")
	}
	return nil
}

// quoted quotes what somebody has written.
func quoted(text string) string { return `"` + quote.Name(text) + `"` }

// FitReason makes a reason of a text that others have chosen.
func FitReason(text string) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text))
	for len(text) > longestReason {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return strings.TrimSpace(text)
}

// Text returns how a ban's source is written: an address, or a network.
func Text(p netip.Prefix) string { return policy.PrefixText(p) }
