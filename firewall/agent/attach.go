// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/loader"
)

// attach filters interfaces that have appeared. It is what must not wait.
func (a *Agent) attach(ctx context.Context) {
	report, err := a.fw.Attach(ctx, a.Mode)
	a.unattached = errors.Is(err, firewall.ErrLocked)
	if errors.Is(err, loader.ErrNotRunning) {
		return
	}
	a.complain(err)
	a.warn(report.Warnings)
	for _, i := range report.Attached {
		if slices.Contains(a.halved, i.Name) {
			a.Log.Info("%s is filtered in both directions again", i.Name)
			continue
		}
		a.Log.Info("%s has appeared, and is filtered", i.Name)
	}
}

// mend filters interfaces that are here and not filtered, as when somebody has removed the pin of a link, which takes the
// program off: the kernel reports no change of the interface then.
func (a *Agent) mend(ctx context.Context, f firewall.Filter) {
	interfaces, err := f.Interfaces()
	a.complain(err)
	open := slices.ContainsFunc(interfaces, func(i loader.Interface) bool {
		absence := i.Absence()
		if absence == loader.AbsentHalf && !slices.Contains(a.halved, i.Name) {
			a.halved = append(a.halved, i.Name)
			a.Log.Warn("%s is filtered in one direction only: somebody has removed the pin of a link", i.Name)
		}
		return absence == loader.AbsentHalf || absence == loader.AbsentAppeared || absence == loader.AbsentRecreated
	})
	switch {
	case !open:
		a.halved = nil
	case time.Since(a.mended) < waitTime: // what cannot be mended is not tried all the time
		a.unattached = true
	default:
		a.mended = time.Now()
		a.attach(ctx)
	}
}
