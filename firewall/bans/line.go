// SPDX-License-Identifier: Apache-2.0

package bans

import (
	"bytes"
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
	longestReason = 63   // bytes
	longestDays   = 3650 // of a ban that ends
)

// LongestBan is how long a ban lasts at most that ends by itself.
const LongestBan = longestDays * 24 * time.Hour

// Parser reads lines, in which what is left out is as in the defaults. It knows times and reasons again that it has read:
// of a million lines most have the same.
type Parser struct {
	Defaults Line
	periods  map[string]time.Duration
	reasons  map[string]string
}

// mostKnown is how many times and reasons a parser knows again. There may be any number.
const mostKnown = 4096

// ParseLine reads a line, in which what is left out is as in the defaults. An empty one, and one that is a comment, is
// none.
func ParseLine(text string, defaults Line) (l Line, ok bool, err error) {
	p := Parser{Defaults: defaults}
	return p.Parse([]byte(text))
}

// Parse reads a line. An empty one, and one that is a comment, is none.
func (p *Parser) Parse(text []byte) (l Line, ok bool, err error) {
	address, rest := cutField(text)
	if len(address) == 0 || isComment(address) {
		return Line{}, false, nil
	}
	l = p.Defaults
	if addr, plain := parse4(address); plain {
		l.Prefix = netip.PrefixFrom(addr, 32)
	} else if l.Prefix, err = ParseAddress(string(address)); err != nil {
		return Line{}, false, err
	}
	period, reason := cutField(rest)
	if isComment(period) {
		period, reason = nil, nil
	}
	if len(period) > 0 {
		if l.For, err = p.period(period); err != nil {
			return Line{}, false, err
		}
	}
	if len(reason) == 0 {
		reason = []byte(l.Reason)
	}
	if l.Reason, err = p.reason(reason); err != nil {
		return Line{}, false, err
	}
	return l, true, nil
}

func (p *Parser) period(text []byte) (d time.Duration, err error) {
	if d, ok := p.periods[string(text)]; ok {
		return d, nil
	}
	if d, err = ParsePeriod(string(text)); err == nil && len(p.periods) < mostKnown {
		if p.periods == nil {
			p.periods = make(map[string]time.Duration)
		}
		p.periods[string(text)] = d
	}
	return d, err
}

func (p *Parser) reason(text []byte) (string, error) {
	if known, ok := p.reasons[string(text)]; ok {
		return known, nil
	}
	reason := string(text)
	if err := CheckReason(reason); err != nil {
		return "", err
	}
	if len(p.reasons) < mostKnown {
		if p.reasons == nil {
			p.reasons = make(map[string]string)
		}
		p.reasons[reason] = reason
	}
	return reason, nil
}

// parse4 reads an address of IPv4, and leaves everything else to who can tell what is wrong with it.
func parse4(text []byte) (netip.Addr, bool) {
	var addr [4]byte
	part, number, digits := 0, 0, 0
	for _, c := range text {
		switch {
		case '0' <= c && c <= '9':
			if digits > 0 && number == 0 {
				return netip.Addr{}, false
			}
			if number, digits = 10*number+int(c-'0'), digits+1; number > 255 {
				return netip.Addr{}, false
			}
		case c == '.' && digits > 0 && part < 3:
			addr[part] = byte(number)
			part, number, digits = part+1, 0, 0
		default:
			return netip.Addr{}, false
		}
	}
	addr[3] = byte(number)
	return netip.AddrFrom4(addr), part == 3 && digits > 0
}

// isComment reports whether a word begins a comment.
func isComment(word []byte) bool { return len(word) > 0 && (word[0] == '#' || word[0] == ';') }

// cutField returns the first word of a text, and what follows without the space around it.
func cutField(text []byte) (word, rest []byte) {
	text = bytes.TrimSpace(text)
	if i := bytes.IndexFunc(text, unicode.IsSpace); i >= 0 {
		return text[:i], bytes.TrimSpace(text[i:])
	}
	return text, nil
}

// ParseAddress reads an address or a network. IPv4 that is written as IPv6 is IPv4.
func ParseAddress(text string) (netip.Prefix, error) {
	bad := func() error {
		return fmt.Errorf("bad address %s: write an address or a network, such as 203.0.113.7 or 2001:db8::/32", quoted(text))
	}
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, bad()
		}
		if addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("address %s names a zone: leave %s out", quoted(text), quoted("%"+addr.Zone()))
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, bad()
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, bad()
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("network %s has host bits set: write %s, or %s for one host", p, p.Masked(), p.Addr())
	}
	return p, nil
}

// ParsePeriod reads how long a ban is to last; "-" is for ever. One that is longer than [LongestBan] is as long as that, as
// programs write times of their own.
func ParsePeriod(text string) (time.Duration, error) {
	if text == forEver {
		return 0, nil
	}
	bad := fmt.Errorf("bad time %s: write how long the ban lasts, from 1s to 3650d, as 30s, 10m, 12h or 5d, or - for ever",
		quoted(text))
	var total time.Duration
	rest, over := text, false
	if head, tail, found := strings.Cut(text, "d"); found {
		days, err := strconv.ParseUint(head, 10, 64)
		if over = days > longestDays; err != nil && !errors.Is(err, strconv.ErrRange) {
			return 0, bad
		}
		rest, total = tail, time.Duration(min(days, longestDays))*24*time.Hour
	}
	if rest != "" || rest == text {
		d, err := time.ParseDuration(rest)
		if number, found := strings.CutSuffix(rest, "s"); err != nil && found && isNumber(number) { // in nanoseconds it is too long
			d, over, err = LongestBan, true, nil
		}
		if err != nil || d < 0 {
			return 0, bad
		}
		total += min(d, LongestBan)
	}
	if over || total > LongestBan {
		return LongestBan, nil
	}
	if total < time.Second {
		return 0, bad
	}
	return total, nil
}

func isNumber(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

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
