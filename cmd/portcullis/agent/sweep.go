// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Dead flows decide nothing, but take room.
const (
	sweepTime     = 30 * time.Second
	sweepTimeFull = 2 * time.Second // when a sweep found more than half of the room taken
)

// sweep takes dead flows out, and tells when to do it again.
func (a *Agent) sweep() time.Duration {
	f, err := a.firewall.Open(a.PinPath)
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
	p, err := f.Saved()
	a.complain(err)
	if err == nil && live+removed > cmp.Or(p.MaxFlows, policy.DefaultMaxFlows)/2 {
		return sweepTimeFull
	}
	return sweepTime
}

// prepare loads programs for what is waited for, as long as nothing else is to be done, and tells whether there are more
// to load.
func (a *Agent) prepare(idle func() bool) (more bool) {
	for idle() {
		loaded, err := a.firewall.Prepare(a.PinPath)
		if !errors.Is(err, loader.ErrNotRunning) {
			a.complain(err)
		}
		if err != nil || !loaded {
			return false
		}
	}
	return true
}
