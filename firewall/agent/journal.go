// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// oldTime is from when on a packet is not worth a message that the journal dates now: it waited while no agent ran.
const oldTime = time.Minute

// followJournal reads what the policy has in the journal, unless that goes on already. What the policy does not log does
// not come, so it may go on under any policy.
func (a *Agent) followJournal(ctx context.Context, f firewall.Filter) {
	if err := a.readLogged(f); err != nil || a.logs == 0 || a.journaling {
		a.complain(err)
		return
	}
	own, err := a.fw.View(ctx) // f is closed soon
	if err != nil {
		return // and the next look tries again
	}
	a.journaling = true
	go func() {
		defer own.Close()
		err := own.Journal(ctx, func(p loader.LoggedPacket) error {
			if time.Since(p.Time) > oldTime || p.Time.Before(a.started) {
				return nil
			}
			select {
			case a.logged <- p:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		select {
		case a.unjournaled <- err: // the filter was taken down
		case <-ctx.Done():
		}
	}()
}

// journalEnded is told that the reading has ended, and why.
func (a *Agent) journalEnded(err error) {
	a.journaling = false
	if !errors.Is(err, loader.ErrNotRunning) {
		a.complain(err)
	}
}

// readLogged reads which reasons the policy has in the journal.
func (a *Agent) readLogged(f firewall.Filter) error {
	at := time.Now()
	p, err := f.Policy()
	if err != nil {
		return err
	}
	if added := (p.Log &^ a.logs).Reasons(); len(added) > 0 {
		a.journal.Begin(a.countedBy(f), added)
	}
	a.logs, a.logsRead = p.Log, at
	return nil
}

// isLogged reports whether the policy has a packet in the journal. One that waited may be of a policy before.
func (a *Agent) isLogged(ctx context.Context, p loader.LoggedPacket) bool {
	has := func() bool { return slices.Contains(a.logs.Reasons(), p.Reason) }
	if has() || p.Time.Before(a.logsRead) {
		return has()
	}
	f, err := a.fw.View(ctx) // a policy that has come meanwhile may name the reason
	if err != nil {
		return false
	}
	defer f.Close()
	a.complain(a.readLogged(f))
	return has()
}

// countedBy returns what a filter has counted by reason, but for what passed; nil where that cannot be read.
func (a *Agent) countedBy(f firewall.Filter) map[string]uint64 {
	sample, err := f.Sample(a.sampled)
	if err != nil {
		return nil
	}
	a.sampled = sample
	counted := make(map[string]uint64)
	for _, c := range sample.Counters {
		if c.Verdict != maps.Pass {
			counted[c.Reason] += c.Packets
		}
	}
	return counted
}

// journalPacket writes a packet to the journal, or counts it.
func (a *Agent) journalPacket(ctx context.Context, p loader.LoggedPacket) {
	if !a.isLogged(ctx, p) {
		return
	}
	if r := a.journal.Add(p, time.Now()); r != nil {
		a.Log.Packet(*r)
	}
}

// tellOfMore writes how many packets were counted, if it is time for that or the agent ends.
func (a *Agent) tellOfMore(ctx context.Context, end bool) {
	if !end && !a.journal.Due(time.Now()) {
		return
	}
	var counted map[string]uint64
	if f, err := a.fw.View(ctx); err == nil {
		counted = a.countedBy(f)
		f.Close()
	}
	for _, r := range a.journal.Summaries(time.Now(), counted) {
		a.Log.Packet(r)
	}
}
