// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/loader"
)

// oldTime is from when on a packet is not worth a message that the journal dates now: it waited while no agent ran.
const oldTime = time.Minute

// followJournal reads what the policy has in the journal, unless that goes on already. What the policy does not log does
// not come, so it may go on under any policy.
func (a *Agent) followJournal(ctx context.Context, f firewall.Filter) {
	p, err := f.Policy()
	if err != nil || p.Log == 0 || a.journaling {
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
			if time.Since(p.Time) > oldTime {
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

// journalPacket writes a packet to the journal, or counts it.
func (a *Agent) journalPacket(p loader.LoggedPacket) {
	if r := a.journal.Add(p, time.Now()); r != nil {
		a.Log.Packet(*r)
	}
}

// tellOfMore writes how many packets were counted, if it is time for that or the agent ends.
func (a *Agent) tellOfMore(end bool) {
	for _, r := range a.journal.Summaries(time.Now(), end) {
		a.Log.Packet(r)
	}
}
