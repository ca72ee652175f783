// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

const keepCommandName = "keep"

// keepCommand is run by try and open --for: see [loader.Keep].
func (a *app) keepCommand() *cobra.Command {
	return &cobra.Command{
		Use:    keepCommandName,
		Short:  "Revert or close when the time is up",
		Hidden: true,
		Args:   noArguments,
		RunE: func(*cobra.Command, []string) error {
			signal.Ignore(unix.SIGHUP)
			return loader.Keep(loader.StateDir, a.pinPath, a.complain)
		},
	}
}

// takeTurn waits until no other command changes the filter, and does what is overdue.
func (a *app) takeTurn() (*loader.Turn, error) {
	if err := a.privileged(); err != nil {
		return nil, err
	}
	return a.firewall.TakeTurn(a.pinPath)
}

// turnToChange is takeTurn for what cannot be done while a policy is on trial: the end of the trial would undo it.
func (a *app) turnToChange() (*loader.Turn, error) {
	turn, err := a.takeTurn()
	if err != nil {
		return nil, err
	}
	err = turn.Failed
	if err == nil && turn.Try != nil {
		err = fmt.Errorf("%s is on trial for another %s: run \"portcullis confirm\" or \"portcullis revert\" first",
			turn.Try.File, span(turn.Try.Due.Left()))
	}
	if err != nil {
		turn.Release()
		return nil, err
	}
	return turn, nil
}

// beginChange takes the turn, and finds the filter that is to be changed. End gives both back.
func (a *app) beginChange() (turn *loader.Turn, f filter, end func(), err error) {
	if turn, err = a.turnToChange(); err != nil {
		return nil, nil, nil, err
	}
	if f, err = a.connectToChange(); err != nil {
		turn.Release()
		return nil, nil, nil, err
	}
	return turn, f, func() { f.Close(); turn.Release() }, nil
}

// endTimed takes it down that no rule is open for a time any more.
func endTimed(turn *loader.Turn) error {
	if len(turn.Timed) == 0 {
		return nil
	}
	turn.Timed = nil
	return turn.Save()
}

// forgetTimed takes it down that the rules are no longer open for a time.
func forgetTimed(turn *loader.Turn, rules []policy.Rule) error {
	n := len(turn.Timed)
	turn.ForgetRules(rules)
	if len(turn.Timed) == n {
		return nil
	}
	return turn.Save()
}

// seconds is what is left until then, for JSON.
func seconds(i loader.Instant) int { return int(i.Left().Round(time.Second) / time.Second) }

// clock tells when that is, as people say it.
func clock(i loader.Instant) string {
	const soon = 12 * time.Hour
	layout := "15:04:05"
	if i.Left() > soon {
		layout = "Mon 15:04:05"
	}
	return time.Now().Add(i.Left()).Format(layout)
}
