// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
)

// lookTime is how long a look at the interfaces takes where nothing comes in, and the time from one to the next. A
// driver that resets itself does not report that.
const lookTime = 10 * time.Second

// sight is what a look has found: interfaces from which packets reach the host past the filter.
type sight struct {
	interfaces []loader.Interface
	err        error
}

// look begins to look, beside everything else, whether drivers run what is attached to them, and ends the look before.
func (a *Agent) look(ctx context.Context) {
	if a.endLook != nil {
		a.endLook()
	}
	ctx, a.endLook = context.WithCancel(ctx)
	go func() {
		var s sight
		f, err := a.fw.View(ctx)
		if err == nil {
			s.interfaces, err = f.Bypassed(ctx, lookTime)
			f.Close()
		}
		if s.err = err; len(s.interfaces) == 0 && err == nil || ctx.Err() != nil {
			return
		}
		select {
		case a.seenPast <- s:
		case <-ctx.Done():
		}
	}()
}

// goOver filters in TC where the driver does not run the program, which it may forget again. TC filters before XDP is
// taken off, so no packet meets neither.
func (a *Agent) goOver(ctx context.Context, s sight) {
	if errors.Is(s.err, loader.ErrNotRunning) {
		return
	}
	if errors.Is(s.err, unix.EPERM) {
		if !a.blind {
			a.blind = true
			a.Log.Warn("%s: without CAP_NET_RAW nobody looks whether drivers run what is attached", s.err)
		}
		return
	}
	a.complain(s.err)
	for _, i := range s.interfaces {
		if i.Mode == loader.ModeTC {
			a.complain(errors.New(i.BypassText()))
			continue
		}
		warnings, err := a.fw.SwitchToTC(ctx, i.Name)
		if errors.Is(err, loader.ErrNotRunning) {
			return
		}
		a.complain(err)
		if err == nil {
			a.Log.Warn("%s: packets came past the filter, as %s did not run its XDP program: TC ingress filters from now on", i.Name, i.Runner())
			a.warn(warnings)
		}
	}
}
