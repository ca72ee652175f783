// SPDX-License-Identifier: Apache-2.0

package crowdsec

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// ReasonPrefix begins the reason of each ban that the bouncer has made. Others are not its business.
const ReasonPrefix = "crowdsec: "

// noScenario stands for the scenario of a decision that has none.
const noScenario = "no scenario"

const (
	batch       = 1 << 16 // decisions that are put in force in one step
	longest     = 10 * 365 * 24 * time.Hour
	firstPause  = time.Second // after an error, and twice as long after the next
	longPause   = time.Minute
	mostRefused = 1000 // of which is kept in mind that they were told
)

// Firewall is what the bouncer needs of a firewall.
type Firewall interface {
	Ban(context.Context, firewall.BanRequest) (*firewall.BanReport, error)
	Unban(context.Context, firewall.UnbanRequest) (*firewall.UnbanReport, error)
	EachBan(context.Context) iter.Seq2[maps.Ban, error]
}

// Log is where the bouncer says what it does.
type Log interface {
	Error(format string, args ...any)
	Warn(format string, args ...any)
	Info(format string, args ...any)
}

// Bouncer carries out the decisions of one CrowdSec.
type Bouncer struct {
	Firewall Firewall
	Client   *Client
	Interval time.Duration // between two questions
	Log      Log

	refused map[netip.Prefix]bool // whom the guard refused, and that was told
	ignored map[string]bool       // what kinds of decisions are left out, and were told
	last    string                // error that was told
}

// Run follows the decisions until ctx ends. The bans stay until they end by themselves.
func (b *Bouncer) Run(ctx context.Context) error {
	b.refused, b.ignored = make(map[netip.Prefix]bool), make(map[string]bool)
	startup, pause := true, firstPause
	for ctx.Err() == nil {
		wait := b.Interval
		if err := b.pull(ctx, startup); err != nil {
			if ctx.Err() != nil {
				break
			}
			if errors.Is(err, ErrKey) && startup && b.last == "" {
				return err
			}
			if text := err.Error(); text != b.last {
				b.last = text
				b.Log.Error("%s; what is banned stays so, and CrowdSec is asked again", quote.Text(text))
			}
			// What an answer said that was lost will not be said again, but for a new start.
			startup, wait = true, pause+rand.N(pause/2)
			pause = min(2*pause, longPause)
		} else {
			if b.last != "" {
				b.last = ""
				b.Log.Info("CrowdSec is followed again")
			}
			startup, pause = false, firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// pull asks once, and does what is said.
func (b *Bouncer) pull(ctx context.Context, startup bool) error {
	w := &work{bouncer: b, ctx: ctx}
	if startup {
		w.decided = make(map[netip.Prefix]bool)
	}
	err := b.Client.Stream(ctx, startup, w.delete, w.add)
	w.tellBad()
	if err == nil {
		err = w.finish()
	}
	if w.banned > 0 || w.unbanned > 0 {
		b.Log.Info("%d banned, %d bans ended, %d connections cut", w.banned, w.unbanned, w.cut)
	}
	return err
}

// work is what one answer asks for.
type work struct {
	bouncer *Bouncer
	ctx     context.Context
	decided map[netip.Prefix]bool // all that is banned, at a start
	ended   []netip.Prefix
	lines   []bans.Line
	full    error  // there was no room for some
	bad     int    // decisions that cannot be read
	badOne  string // the first of them

	banned, unbanned, cut int
}

func (w *work) delete(d Decision) error {
	if p, ok := parseValue(d.Value); ok && d.isBan() {
		w.ended = append(w.ended, p)
	}
	return nil
}

func (w *work) add(d Decision) error {
	if !d.isBan() {
		if kind := strings.ToLower(d.Type + " of " + d.Scope); !d.Simulated && !w.bouncer.ignored[kind] && len(w.bouncer.ignored) < 100 {
			w.bouncer.ignored[kind] = true
			w.bouncer.Log.Warn("decisions like %q are left out: only bans of addresses and networks are carried out", quote.Name(kind))
		}
		return nil
	}
	p, ok := parseValue(d.Value)
	left, err := time.ParseDuration(d.Duration)
	if !ok || err != nil {
		if w.bad++; w.bad == 1 {
			w.badOne = fmt.Sprintf("value %q, duration %q", quote.Name(d.Value), quote.Name(d.Duration))
		}
		return nil
	}
	if left < time.Second {
		return nil // it is over
	}
	if w.decided != nil {
		w.decided[p] = true
	}
	// Without anything behind it the prefix would be no prefix: reasons do not end with a space.
	reason := bans.FitReason(ReasonPrefix + cmp.Or(bans.FitReason(d.Scenario), noScenario))
	w.lines = append(w.lines, bans.Line{Prefix: p, For: min(left, longest), Reason: reason})
	return nil
}

// tellBad says of decisions that cannot be read what the first one is, as there may be any number.
func (w *work) tellBad() {
	if w.bad == 0 {
		return
	}
	more := ""
	if w.bad > 1 {
		more = fmt.Sprintf(", and %d more", w.bad-1)
	}
	w.bouncer.Log.Warn("decisions that cannot be read are left out: %s%s", w.badOne, more)
}

// parseValue reads the address of a decision.
func parseValue(text string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(text); err == nil && !p.Addr().Is4In6() {
		return p.Masked(), true
	}
	p, err := bans.ParseAddress(text)
	return p, err == nil
}

// finish ends what has ended, and then bans: what is decided anew is among both.
func (w *work) finish() error {
	if w.decided != nil {
		for b, err := range w.bouncer.Firewall.EachBan(w.ctx) {
			if err != nil {
				return err
			}
			if strings.HasPrefix(b.Reason, ReasonPrefix) && !w.decided[b.Prefix] {
				w.ended = append(w.ended, b.Prefix)
			}
		}
	}
	if len(w.ended) > 0 {
		report, err := w.bouncer.Firewall.Unban(w.ctx, firewall.UnbanRequest{Prefixes: w.ended, IsReason: isOwn})
		if report != nil {
			w.unbanned += report.Unbanned
			w.tell(report.Warnings)
		}
		if err != nil && !errors.Is(err, firewall.ErrUnrecorded) {
			return err
		}
		w.tellUnrecorded(err)
	}
	// Each kind has room of its own, so one that is full must not keep the others out.
	slices.SortStableFunc(w.lines, func(a, b bans.Line) int { return cmp.Compare(kindOf(a.Prefix), kindOf(b.Prefix)) })
	for len(w.lines) > 0 {
		n := 1
		for n < min(batch, len(w.lines)) && kindOf(w.lines[n].Prefix) == kindOf(w.lines[0].Prefix) {
			n++
		}
		if err := w.ban(w.lines[:n]); err != nil {
			return err
		}
		w.lines = w.lines[n:]
	}
	return w.full
}

// kindOf returns a number that is the same for those who share the room for bans.
func kindOf(p netip.Prefix) (kind int) {
	if p.Addr().Is6() {
		kind = 2
	}
	if !p.IsSingleIP() {
		kind++
	}
	return kind
}

func isOwn(reason string) bool { return strings.HasPrefix(reason, ReasonPrefix) }

func (w *work) ban(lines []bans.Line) error {
	b := w.bouncer
	report, err := b.Firewall.Ban(w.ctx, firewall.BanRequest{Bans: lines})
	if report != nil {
		w.banned, w.cut = w.banned+report.Banned-report.Kept, w.cut+report.Cut
		w.tell(report.Warnings)
		for _, r := range report.Refused {
			if p := lines[r.Place].Prefix; !b.refused[p] {
				if len(b.refused) >= mostRefused {
					clear(b.refused)
				}
				b.refused[p] = true
				b.Log.Warn("not banned: %s", r.Err)
			}
		}
	}
	if errors.Is(err, loader.ErrNotRunning) {
		return fmt.Errorf("nobody can be banned: %w", err)
	}
	if errors.Is(err, maps.ErrBansFull) { // who is banned already can be banned for longer all the same
		if w.full == nil {
			w.full = err
		}
		return nil
	}
	if err != nil && !errors.Is(err, firewall.ErrUnrecorded) {
		return err
	}
	w.tellUnrecorded(err)
	return nil
}

func (w *work) tell(warnings []string) {
	for _, text := range warnings {
		w.bouncer.Log.Warn("%s", text)
	}
}

func (w *work) tellUnrecorded(err error) {
	if err != nil {
		w.bouncer.Log.Error("%v", err)
	}
}
