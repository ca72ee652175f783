// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// Two at once: what the second one changes is what the first one has put in force, though it was there before.
func TestAChangeThatWaitedIsMadeToWhatIsInForce(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	l.Server.Echo(t, 9)
	up(t, l, loader.ModeNative, policyOf(t, "9/tcp"))
	change(t, l, func(f *loader.Filter) error {
		up(t, l, loader.ModeNative, policyOf(t, "10/tcp"))
		_, err := f.OpenRules(rules(t, "7/tcp"), false)
		return err
	})
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "opened by the second")
	mustNotDial(t, l.Client, lab.ServerV4, 9)
	if got := rulesInForce(t, l); got != "7/tcp 10/tcp" && got != "10/tcp 7/tcp" {
		t.Errorf("rules in force are %s", got)
	}
}

// What runs in the place of nothing is an up, and no apply.
func TestReplaceNeedsARunningFilter(t *testing.T) {
	l := lab.New(t)
	o := loader.Options{Interfaces: []string{"eth0"}, Policy: policyOf(t, "9/tcp"), Running: true}
	if err := try(l, o); !errors.Is(err, loader.ErrNotRunning) {
		t.Errorf("got %v", err)
	}
	mustHaveNothing(t, l, "eth0")
}

// Who reads has no turn, and is not to meet a filter half of which is gone.
func TestWhatIsReadIsOfOneFilter(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policy.Default())
	with(t, l, func(f *loader.Filter) error {
		if _, err := loader.Down(context.Background(), l.PinPath, nil); err != nil {
			return err
		}
		_, err := f.Counters()
		return err
	})
}
