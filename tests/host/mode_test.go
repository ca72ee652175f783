// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// wan makes an interface of the server, in the place of the one that had the name.
func wan(t *testing.T, l *lab.Lab, exists bool) {
	t.Helper()
	if exists {
		l.Server.IP(t, "link", "del", "wan0")
	}
	l.Server.IP(t, "link", "add", "wan0", "type", "veth", "peer", "name", "wan1")
}

// An interface that is made anew while no agent runs is filtered as it was, by whatever command puts a filter on it.
func TestTheModeOutlivesTheInterface(t *testing.T) {
	named := func(l *lab.Lab) loader.Options {
		return loader.Options{Interfaces: []string{"wan0"}, Policy: policyOf(t, "9/tcp")}
	}
	ways := map[string]func(*lab.Lab){
		"up of it":      func(l *lab.Lab) { upWith(t, l, named(l)) },
		"up of another": func(l *lab.Lab) { up(t, l, loader.ModeAuto, policyOf(t, "9/tcp")) },
		"new programs":  func(l *lab.Lab) { upWith(t, l, loader.Options{Wait: true}) },
		"apply to what is run": func(l *lab.Lab) {
			upWith(t, l, loader.Options{Policy: policyOf(t, "9/tcp"), Running: true, Filtered: true, Wait: true, Interfaces: []string{"wan0"}})
		},
	}
	for name, again := range ways {
		t.Run(name, func(t *testing.T) {
			for _, mode := range []loader.Mode{loader.ModeTC, loader.ModeGeneric} {
				l := lab.New(t)
				wan(t, l, false)
				upWith(t, l, loader.Options{Interfaces: []string{"wan0"}, Mode: mode, Policy: policy.Default()})
				l.Server.IP(t, "link", "del", "wan0")
				upWith(t, l, loader.Options{Wait: true}) // while it is away
				wan(t, l, false)
				again(l)
				mustHaveMode(t, l, mode)
				wan(t, l, true)
				again(l)
				mustHaveMode(t, l, mode)
			}
		})
	}
}

// The mode is known before the interface is, and to whatever filters it when it comes.
func TestTheModeIsKnownBeforeTheInterface(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policy.Default())
	upWith(t, l, loader.Options{Interfaces: []string{"wan0"}, Mode: loader.ModeTC, Policy: policy.Default(), Wait: true})
	wan(t, l, false)
	upWith(t, l, loader.Options{Wait: true})
	mustHaveMode(t, l, loader.ModeTC)
	down(t, l, "wan0")
	wan(t, l, true)
	upWith(t, l, loader.Options{Interfaces: []string{"wan0"}, Policy: policy.Default()})
	mustHaveMode(t, l, loader.ModeNative) // down has ended what was asked for
}

func mustHaveMode(t *testing.T, l *lab.Lab, want loader.Mode) {
	t.Helper()
	for _, i := range status(t, l).Interfaces {
		if i.Name == "wan0" {
			if !i.Present || i.Mode != want {
				t.Errorf("wan0 is %+v, want %s", i, want)
			}
			return
		}
	}
	t.Errorf("wan0 is not filtered")
}

// Native XDP was asked for, and what comes back has none: it is filtered all the same, and it is said how.
func TestAModeThatTheNextDeviceHasNot(t *testing.T) {
	for name, again := range map[string]func(*lab.Lab) (warnings []string, err error){
		"up": func(l *lab.Lab) ([]string, error) {
			report, err := loader.Up(context.Background(), loader.Options{PinPath: l.PinPath, Wait: true})
			if err != nil {
				return nil, err
			}
			return report.Warnings, nil
		},
		"attach": func(l *lab.Lab) ([]string, error) {
			report, err := loader.Attach(context.Background(), l.PinPath, loader.ModeAuto)
			if err != nil {
				return nil, err
			}
			for _, i := range report.Slow {
				up, err := loader.Up(context.Background(), loader.Options{PinPath: l.PinPath, Interfaces: []string{i.Name}, Mode: i.Mode, Wait: true})
				if err != nil {
					return nil, err
				}
				report.Warnings = append(report.Warnings, up.Warnings...)
			}
			return report.Warnings, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t)
			wan(t, l, false)
			upWith(t, l, loader.Options{Interfaces: []string{"wan0"}, Mode: loader.ModeNative, Policy: policy.Default()})
			l.Server.IP(t, "link", "del", "wan0")
			l.Server.IP(t, "link", "add", "wan0", "type", "bridge")
			var warnings []string
			l.Server.Do(t, func() (err error) {
				warnings, err = again(l)
				return err
			})
			if !strings.Contains(strings.Join(warnings, "\n"), "native XDP; filtering in TC") {
				t.Errorf("it says %q", warnings)
			}
			mustHaveMode(t, l, loader.ModeTC)
			wan(t, l, true)
			l.Server.Do(t, func() (err error) {
				_, err = again(l)
				return err
			})
			mustHaveMode(t, l, loader.ModeNative)
		})
	}
}
