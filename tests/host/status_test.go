// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// A status is of one policy, also where another one came since the filter was opened.
func TestStatusIsOfOnePolicy(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeAuto, policyOf(t, "7/tcp"))
	with(t, l, func(f *loader.Filter) error {
		up(t, l, loader.ModeAuto, policyOf(t, "9/tcp", "11/tcp"))
		s, err := f.Status()
		if err != nil {
			return err
		}
		var rules []string
		for _, r := range s.Rules {
			rules = append(rules, r.Rule)
		}
		want := []string{"9/tcp", "11/tcp"}
		if !slices.Equal(policy.Texts(s.Policy.Open), want) || !slices.Equal(policy.Texts(s.Saved.Open), want) || !slices.Equal(rules, want) {
			t.Errorf("in force are %q, saved %q, rules %q; want %q", policy.Texts(s.Policy.Open), policy.Texts(s.Saved.Open), rules, want)
		}
		return nil
	})
}

// Whoever lacks a capability is told which.
func TestMissingCapabilitiesAreNamed(t *testing.T) {
	for name, do := range map[string]func(l *lab.Lab) error{
		"down": func(l *lab.Lab) error {
			_, err := loader.Down(context.Background(), l.PinPath, nil)
			return err
		},
		"attach": func(l *lab.Lab) error {
			_, err := loader.Attach(context.Background(), l.PinPath, loader.ModeAuto)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t)
			upWith(t, l, loader.Options{Interfaces: []string{"eth0"}, Mode: loader.ModeTC, Policy: policyOf(t), NoTCX: true})
			if name == "attach" { // so that there is something to attach
				if err := os.Remove(filepath.Join(l.PinPath, loader.Schema, "links/eth0/clsact_in")); err != nil {
					t.Fatal(err)
				}
			}
			var did error
			l.Server.Do(t, func() error { // on a thread that is not used again
				header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
				none := [2]unix.CapUserData{}
				if err := unix.Capset(&header, &none[0]); err != nil {
					return err
				}
				did = do(l)
				return nil
			})
			if did == nil || !strings.Contains(did.Error(), "CAP_NET_ADMIN") || !strings.Contains(did.Error(), "missing") {
				t.Errorf("it says %v", did)
			}
		})
	}
}
