// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	gomaps "maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/explain"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// unexplainedView is a packet of a recording that could not be explained, in JSON.
type unexplainedView struct {
	Number      int        `json:"number"`
	Time        *time.Time `json:"time,omitempty"`
	Interface   string     `json:"interface,omitempty"` // as the recording names it
	Unexplained string     `json:"unexplained"`
}

// played counts what became of the packets of a recording.
type played struct {
	passed, watched, dropped int
	sent                     int            // by this host
	unfiltered               map[string]int // by the interface by which they came
	unexplained              int
}

func (p *played) explained() int { return p.passed + p.watched + p.dropped }

func (p *played) all() int {
	n := p.explained() + p.sent + p.unexplained
	for _, packets := range p.unfiltered {
		n += packets
	}
	return n
}

// explainRecording explains the packets of a file, a line each.
func (a *app) explainRecording(ctx context.Context, path string, args []string, flags string) error {
	on := ""
	switch {
	case flags != "":
		return usagef("--flags is for a packet that is made, and those of --pcap have theirs")
	case len(args) == 2 && args[0] == "on":
		on = args[1]
	case len(args) > 0:
		return usagef("unexpected argument %q: with --pcap, write no more than \"on IFACE\"", args[0])
	}
	file := newInlet(ctx, a.stdin)
	if path != "-" {
		opened, err := os.Open(path)
		if err != nil {
			return err
		}
		defer opened.Close()
		file = opened
	}
	recording, err := explain.NewRecording(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	e, err := a.openExplainer(ctx)
	if err != nil {
		return err
	}
	defer e.Close()
	counted := &played{unfiltered: make(map[string]int)}
	err = a.play(ctx, recording, counted, e, on, path == "-")
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		err = nil
	}
	if a.output != asJSON && counted.all() > 0 {
		a.printPlayed(counted)
	}
	switch {
	case err != nil: // what came before it was explained
		return fmt.Errorf("%s: %w", path, err)
	case counted.unexplained > 0:
		return fmt.Errorf("%s: %s could not be explained", path, count(counted.unexplained, "packet", "packets"))
	case counted.all() == 0:
		a.warn(path + " holds no packet: nothing came while it was recorded, or the filter of whoever recorded it let none through")
	}
	return nil
}

// explainsRecorded explains packets of a recording.
type explainsRecorded interface {
	Recorded(p *explain.Recorded, named string) (*explain.Answer, error)
}

// play explains packets until there are no more, which is io.EOF.
func (a *app) play(ctx context.Context, recording *explain.Recording, counted *played, e explainsRecorded, on string, flush bool) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, err := recording.Next()
		if err != nil {
			return err
		}
		answer, err := e.Recorded(p, on)
		unfiltered, unplayable := new(explain.NotFilteredError), new(explain.UnplayableError)
		switch {
		case errors.Is(err, explain.ErrOutgoing):
			counted.sent++
			continue
		case errors.As(err, &unfiltered):
			counted.unfiltered[unfiltered.Interface]++
			continue
		case errors.As(err, &unplayable):
			counted.unexplained++
			err = a.printUnexplained(p, unplayable.Why)
		case err == nil:
			err = a.printExplained(answer, counted)
		}
		if err == nil && flush {
			err = a.out.Flush()
		}
		if err != nil {
			return err
		}
	}
}

func (a *app) printExplained(answer *explain.Answer, counted *played) error {
	if counted.explained() == 0 {
		a.warn(answer.Warnings...)
	}
	switch answer.Verdict {
	case maps.Pass:
		counted.passed++
	case maps.WouldDrop:
		counted.watched++
	default:
		counted.dropped++
	}
	return a.answerLine(answer, a.printRecorded)
}

func (a *app) printUnexplained(p *explain.Recorded, why string) error {
	if a.output == asJSON {
		view := unexplainedView{Number: p.Number, Interface: quote.Text(p.Interface), Unexplained: why}
		if !p.Time.IsZero() {
			at := p.Time.UTC()
			view.Time = &at
		}
		lines := json.NewEncoder(a.stdout)
		lines.SetEscapeHTML(false)
		return lines.Encode(view)
	}
	at := ""
	if !p.Time.IsZero() {
		at = recordedAt(p.Time)
	}
	where := ""
	if p.Interface != "" {
		where = quote.Name(p.Interface) + "  "
	}
	a.printf("%d  %s%snot explained: %s\n", p.Number, at, where, why)
	return nil
}

// printPlayed sums up what became of the packets.
func (a *app) printPlayed(p *played) {
	a.printf("%s would pass, and %d be dropped", count(p.passed, "packet", "packets"), p.dropped)
	if p.watched > 0 {
		a.printf("; %d pass only because the filter watches", p.watched)
	}
	if p.sent > 0 {
		a.printf("; %s left this host", count(p.sent, "other", "others"))
	}
	for _, name := range slices.Sorted(gomaps.Keys(p.unfiltered)) {
		a.printf("; %d came by %s, which is not filtered", p.unfiltered[name], quote.Name(name))
	}
	if p.unexplained > 0 {
		a.printf("; %d could not be explained", p.unexplained)
	}
	a.printf("\n")
}

func recordedAt(at time.Time) string { return at.Local().Format("15:04:05.000 ") }

func (a *app) printRecorded(v *explain.Answer) {
	at := ""
	if v.Time != nil {
		at = recordedAt(*v.Time)
	}
	decided := v.Reason
	switch {
	case v.Rule != "" && v.Line > 0:
		decided += fmt.Sprintf(" %s (%s:%d)", folded(v.Rule), v.File, v.Line)
	case v.Rule != "":
		decided += " " + folded(v.Rule)
	case v.List != "":
		decided += " by " + v.List
	case v.Ban != nil:
		decided += " " + v.Ban.Address
	}
	line := fmt.Sprintf("%d  %s%s  %s  %s: %s", v.Number, at, v.Interface, v.Packet, v.Verdict, decided)
	if v.Captured > 0 {
		line += fmt.Sprintf("  (%d of %d bytes recorded)", v.Captured, v.Length)
	}
	a.printf("%s\n", strings.TrimRight(line, " "))
}
