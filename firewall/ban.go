// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/maps"
)

// BanRequest says whom to ban.
type BanRequest struct {
	Bans  []bans.Line
	Force bool // also whom the guard protects
}

// BanReport is the result of Ban.
type BanReport struct {
	Banned   int          `json:"banned"` // addresses and networks
	Kept     int          `json:"kept"`   // of them, those that were banned for another reason, for as long or longer
	Cut      int          `json:"cut"`    // connections
	Refused  []RefusedBan `json:"-"`
	Warnings []string     `json:"warnings"`
}

// RefusedBan is one that the guard refused.
type RefusedBan struct {
	Place int // in the request
	Err   error
}

// ErrUnrecorded is returned when bans are in force, or have ended, and the next boot may not know of it.
var ErrUnrecorded = errors.New("it is done, but could not be written down, so the next boot will not know of it")

// Ban bans addresses and networks: at once in the filter, then their connections are cut, then the journal is written. Of an
// address that is banned for another reason the ban that lasts longer stays. The report is there also with an error, if
// anybody was banned.
//
// A few are in force before the guard is asked, for some seconds: to find out who looks after this host takes longer than
// all the rest.
func (fw *Firewall) Ban(ctx context.Context, r BanRequest) (*BanReport, error) {
	c, err := fw.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	f, err := fw.openToChange(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := &ban{fw: fw, filter: f, lines: r.Bans, index: bans.NewIndex(r.Bans), force: r.Force, refused: make(map[int]error)}
	if err := b.choose(); err != nil {
		return nil, err
	}
	if !r.Force {
		if err := b.guarded(); err != nil {
			return nil, err
		}
	}
	report := &BanReport{Warnings: []string{}, Banned: b.count(b.twice), Kept: b.count(b.kept)}
	report.Banned += report.Kept
	for place := range b.lines {
		if len(b.refused) == 0 {
			break
		}
		if err := b.refused[place]; err != nil {
			report.Refused = append(report.Refused, RefusedBan{place, err})
		}
	}
	others := b.overshadow()
	if len(b.wanted) == 0 {
		if err := others.save(); err != nil {
			return report, fmt.Errorf("%w: %w", ErrUnrecorded, err)
		}
		return report, nil
	}
	complete := fw.Journal().Begin()
	put, err := f.PutCountedBans(b.wanted)
	if err != nil {
		err = fmt.Errorf("ban: %w", err)
		if errors.Is(err, maps.ErrBansFull) {
			err = fmt.Errorf("%w; \"portcullis unban\" makes room", err)
		}
	}
	wanted := b.wanted[:put]
	report.Banned += put
	if err != nil { // who is named twice is not banned either where there was no room
		report.Banned -= b.count(b.twice)
		report.Banned += b.twiceAmong(wanted)
	}
	written := make(chan error, 1) // beside the search for connections: each waits for something else
	go func() { written <- fw.Journal().Add(wanted, len(b.banned) == 0) }()
	cut, cutErr := f.Cut(b.hits(put))
	report.Cut = cut
	if cutErr != nil {
		report.Warnings = append(report.Warnings, fmt.Sprintf("connections that live may go on until they are idle: %v", cutErr))
	}
	report.Warnings = append(report.Warnings, unreasoned(f, wanted)...)
	if r.Force {
		report.Warnings = append(report.Warnings, trustedAmong(f, prefixesOf(wanted))...)
	}
	warning, unrecorded := fw.record(f, complete, func(bans.Journal) error { return errors.Join(<-written, others.save()) })
	if warning != "" {
		report.Warnings = append(report.Warnings, warning)
	}
	return report, errors.Join(err, unrecorded)
}

// ban is one run of Ban.
type ban struct {
	fw      *Firewall
	filter  Filter
	lines   []bans.Line
	index   *bans.Index   // of lines
	refused map[int]error // by their places in lines
	force   bool
	wanted  []maps.Ban // what is to be put in force
	places  []int32    // of wanted in lines
	banned  map[netip.Prefix]maps.Ban
	losers  []loser
	kept    []int32 // places of those that are banned for another reason, for as long or longer
	twice   []int32 // and of those that are named before
}

// count returns how many of some places were not refused.
func (b *ban) count(places []int32) (n int) {
	for _, place := range places {
		if b.refused[int(place)] == nil {
			n++
		}
	}
	return n
}

// twiceAmong returns how many lines name again one of some bans.
func (b *ban) twiceAmong(put []maps.Ban) (n int) {
	in := make(map[netip.Prefix]bool, len(put))
	for i := range put {
		in[put[i].Prefix] = true
	}
	for _, place := range b.twice {
		if b.refused[int(place)] == nil && in[b.lines[place].Prefix] {
			n++
		}
	}
	return n
}

// hits returns a function that reports whether an address is in one of the first bans that were wanted.
func (b *ban) hits(put int) func(netip.Addr) bool {
	if put == len(b.lines) {
		return b.index.Holds
	}
	lines := make([]bans.Line, put)
	for i := range lines {
		lines[i].Prefix = b.wanted[i].Prefix
	}
	return bans.NewIndex(lines).Holds
}

// choose finds out which bans are to be put in force, beside those that stay as they are.
func (b *ban) choose() (err error) {
	if b.banned, err = b.filter.FindBans(prefixesOfLines(b.lines)); err != nil {
		return err
	}
	now := time.Now()
	since := now.Truncate(time.Second)
	var lasts time.Duration // of the line before, as most are alike
	var until time.Time
	b.wanted, b.places = make([]maps.Ban, 0, len(b.lines)), make([]int32, 0, len(b.lines))
	replaced := make(map[int]int) // in wanted, by the places of lines that are named again
	for i := range b.lines {
		l := &b.lines[i]
		if l.For != lasts {
			lasts, until = l.For, now.Add(l.For)
		}
		one := maps.Ban{Prefix: l.Prefix, Since: since, Reason: l.Reason, Forced: b.force}
		if l.For > 0 {
			one.Until = until
		}
		first := b.index.First(i)
		if at, twice := replaced[first]; twice {
			b.twice = append(b.twice, int32(i))
			before := b.wanted[at]
			if one.Packets = before.Packets; outlasts(&before, &one) {
				b.losers = append(b.losers, loser{int32(i), one})
			} else {
				if b.wanted[at] = one; before.Reason != one.Reason {
					b.losers = append(b.losers, loser{int32(i), before})
				}
			}
			continue
		}
		if len(b.banned) > 0 {
			have, ok := b.banned[l.Prefix]
			one.Packets = have.Packets
			if ok && outlasts(&have, &one) {
				b.kept, b.losers = append(b.kept, int32(i)), append(b.losers, loser{int32(i), one})
				continue
			}
		}
		if b.index.IsRepeated(first) {
			replaced[first] = len(b.wanted)
		}
		b.wanted, b.places = append(b.wanted, one), append(b.places, int32(i))
	}
	return nil
}

func prefixesOfLines(lines []bans.Line) []netip.Prefix {
	out := make([]netip.Prefix, len(lines))
	for i := range lines {
		out[i] = lines[i].Prefix
	}
	return out
}

// unreasoned warns of reasons for which there was no number left.
func unreasoned(f Filter, put []maps.Ban) []string {
	seen, last := map[string]bool{"": true, maps.OtherReasons: true}, ""
	var first []maps.Ban // of each reason
	for i := range put {
		if reason := put[i].Reason; reason != last && !seen[reason] {
			seen[reason] = true
			first = append(first, put[i])
		}
		last = put[i].Reason
	}
	if len(first) == 0 {
		return nil
	}
	have, err := f.FindBans(prefixesOf(first))
	if err != nil {
		return warning(fmt.Errorf("see whether bans have their reasons: %w", err))
	}
	var lost []string
	for _, b := range first {
		if have[b.Prefix].Reason == maps.OtherReasons {
			lost = append(lost, b.Reason)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	more := ""
	if n := len(lost) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return []string{fmt.Sprintf("there is no room for another reason of bans: %q%s counts as %q, and \"unban --reason\" does not find it", lost[0], more, maps.OtherReasons)}
}

// outlasts reports whether a ban stays as it is when another one of the same source comes: that is for another reason, and
// lasts no longer.
func outlasts(have, other *maps.Ban) bool {
	if have.Reason == other.Reason {
		return false
	}
	return have.Until.IsZero() || !other.Until.IsZero() && !have.Until.Before(other.Until)
}

func prefixesOf(list []maps.Ban) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i := range list {
		out[i] = list[i].Prefix
	}
	return out
}

// EachBan returns the bans in force, in no order.
func (fw *Firewall) EachBan(ctx context.Context) iter.Seq2[maps.Ban, error] {
	return func(yield func(maps.Ban, error) bool) {
		f, err := fw.View(ctx)
		if err != nil {
			yield(maps.Ban{}, err)
			return
		}
		defer f.Close()
		for b, err := range f.Bans() {
			if !yield(b, err) {
				return
			}
		}
	}
}
