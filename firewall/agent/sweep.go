// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/loader"
)

// Dead flows decide nothing, but take room.
const (
	sweepTime     = 30 * time.Second
	sweepTimeFull = 2 * time.Second // when a sweep found more than half of the room taken
)

// sweep removes dead flows, and returns when to do it again.
func (a *Agent) sweep(ctx context.Context) time.Duration {
	f, err := a.fw.View(ctx)
	if errors.Is(err, loader.ErrNotRunning) {
		return sweepTime
	}
	if err != nil {
		a.complain(err)
		return sweepTime
	}
	defer f.Close()
	live, removed, err := f.Sweep()
	a.complain(err)
	refused, err := f.Refusals()
	a.complain(err)
	if err != nil {
		return sweepTime
	}
	a.refusals.warn(a.Log, refused)
	if live+removed > refused.Max/2 {
		return sweepTimeFull
	}
	return sweepTime
}

const (
	tidyTime  = 10 * time.Minute // how often bans that have ended are taken out. They decide nothing, but take room
	clockStep = time.Minute      // from which on a clock has been set, rather than kept right
)

// tidyBans takes them out of the filter, and out of the journal. When somebody has set the clock the journal is at once made
// to say what that one will show when the bans end, or they would end too early or too late after a boot.
func (a *Agent) tidyBans(ctx context.Context) {
	now := time.Now()
	set := clockWasSet(a.tidied, now)
	if !set && now.Sub(a.tidied) < tidyTime {
		return
	}
	_, err := a.fw.TidyBans(ctx, set)
	if errors.Is(err, firewall.ErrLocked) {
		return // at the next sweep
	}
	a.tidied = now
	if !errors.Is(err, loader.ErrNotRunning) {
		a.complain(err)
	}
}

// clockWasSet reports whether the time of day has gone on by more, or by less, than the time between two moments.
func clockWasSet(before, now time.Time) bool {
	return !before.IsZero() && isStep(now.Round(0).Sub(before.Round(0)), now.Sub(before)) // without the monotonic clock, and by it
}

// isStep reports whether more or less time has gone by on one clock than on the other.
func isStep(shown, passed time.Duration) bool { return (shown - passed).Abs() > clockStep }

// refusalTime is the shortest interval between two messages about refused flows.
const refusalTime = 10 * time.Minute

// refusals keeps what was logged about flows that found no room.
type refusals struct {
	packets uint64 // that were logged
	at      time.Time
}

// warn logs what was refused since the last time.
func (r *refusals) warn(log *Log, now loader.Refusals) {
	all := now.Packets
	if all < r.packets {
		r.packets = 0 // the filter has been down, and counts anew
	}
	now.Packets -= r.packets
	if now.Packets == 0 || !r.at.IsZero() && time.Since(r.at) < refusalTime {
		return
	}
	r.packets, r.at = all, time.Now()
	log.Warn("%s", now)
}

// watchRefusals begins with what was refused before the agent ran.
func (a *Agent) watchRefusals(ctx context.Context) {
	f, err := a.fw.View(ctx)
	if err != nil {
		return // nothing was
	}
	defer f.Close()
	before, err := f.Refusals()
	a.complain(err)
	a.refusals.packets = before.Packets
}

// prepare loads programs for what is waited for, as long as nothing else is to be done, and reports whether there are more
// to load.
func (a *Agent) prepare(ctx context.Context, idle func() bool) (more bool) {
	for idle() {
		loaded, err := a.fw.Prepare(ctx)
		if !errors.Is(err, loader.ErrNotRunning) {
			a.complain(err)
		}
		if err != nil || !loaded {
			return false
		}
	}
	return true
}
