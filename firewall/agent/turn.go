// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
)

// takeTurn waits until no command changes the filter, and does what is due. It returns nil when a policy is on trial:
// then the file waits for the end of that, which would undo it.
func (a *Agent) takeTurn() *loader.Turn {
	turn, err := loader.TakeTurn(a.Deadlines, a.PinPath)
	if err != nil {
		a.complain(err)
		return nil
	}
	a.complain(turn.Failed)
	if turn.Try == nil {
		return turn
	}
	a.Log.Info("%s is on trial for another %s: %s waits for that", turn.Try.File, turn.Try.Due.Left().Round(time.Second), a.Config)
	turn.Release()
	return nil
}

// actWhenDue does what is due, should the process that waits for it have been killed.
func (a *Agent) actWhenDue() {
	d, err := loader.ReadDeadlines(a.Deadlines, a.PinPath)
	a.complain(err)
	if err != nil || !d.Overdue() {
		return
	}
	if turn := a.takeTurn(); turn != nil {
		turn.Release()
	}
}
