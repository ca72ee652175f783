// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
)

// A pattern is in force as long as the policy file has it. A file that names no interface leaves all as they are.
func TestPatternsFollowTheFile(t *testing.T) {
	ctx := context.Background()
	const with, without, nothing = "interfaces: [eth0, \"wg*\"]\nopen: [ssh]\n", "interfaces: [eth0]\nopen: [ssh]\n", "open: [ssh]\n"
	for name, put := range map[string]func(s *stand, fl *firewall.Follower) error{
		"up": func(s *stand, _ *firewall.Follower) error { _, err := s.fw.Up(ctx, firewall.UpRequest{}); return err },
		"apply": func(s *stand, _ *firewall.Follower) error {
			_, err := s.fw.Apply(ctx, firewall.ApplyRequest{})
			return err
		},
		"agent":  func(_ *stand, fl *firewall.Follower) error { fl.ApplyChanged(ctx); return nil },
		"reload": func(_ *stand, fl *firewall.Follower) error { fl.Reload(ctx); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, with)
			fl := s.follower()
			s.named("eth0", "wg*")
			s.writes(s.file, nothing)
			if err := put(s, fl); err != nil {
				t.Fatal(err)
			}
			s.named("eth0", "wg*")
			s.writes(s.file, without)
			if err := put(s, fl); err != nil {
				t.Fatal(err)
			}
			s.named("eth0")
			s.writes(s.file, with)
			if err := put(s, fl); err != nil {
				t.Fatal(err)
			}
			s.named("eth0", "wg*")
		})
	}
}

func (s *stand) named(want ...string) {
	s.Helper()
	if !slices.Equal(s.Running.Interfaces, want) {
		s.Fatalf("filtered are %q, want %q", s.Running.Interfaces, want)
	}
}

// A pattern that was given on the command line beside the file's interfaces stays for this up, and one that came on trial
// goes with it.
func TestPatternsOfCommands(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	if _, err := s.fw.Up(ctx, firewall.UpRequest{Interfaces: []string{"eth0", "wg*"}}); err != nil {
		t.Fatal(err)
	}
	s.named("eth0", "wg*")
	candidate := s.file + ".new"
	s.writes(candidate, "interfaces: [eth0, \"tun*\"]\nopen: [ssh]\n")
	if _, err := s.fw.Try(ctx, firewall.TryRequest{File: candidate, Timeout: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s.named("eth0", "tun*", "wg*")
	if _, err := s.fw.Revert(ctx); err != nil {
		t.Fatal(err)
	}
	s.named("eth0", "wg*")
}

// The policy file and what is in force are compared by what patterns mean.
func TestStatusKnowsPatterns(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "interfaces: [eth0, \"wg*\"]\nopen: [ssh]\n")
	if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
		t.Fatal(err)
	}
	if status, err := s.fw.Status(ctx); err != nil || len(status.Warnings) != 0 {
		t.Errorf("status warns of %q, %v", status.Warnings, err)
	}
	s.Running.Interfaces = []string{"eth0", "wg1"} // as up wg1 leaves it
	if status, err := s.fw.Status(ctx); err != nil || len(status.Warnings) != 1 {
		t.Errorf("without the pattern, status warns of %q, %v", status.Warnings, err)
	}
}

// Who filters an interface that appears is named where nobody does.
func TestStatusSaysWhoFiltersWhatAppears(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
		t.Fatal(err)
	}
	s.Awaited = []string{"nowhere0"}
	warns := func(want string) {
		t.Helper()
		status, err := s.fw.Status(ctx)
		if err != nil || len(status.Warnings) != 1 || status.Warnings[0] != want {
			t.Errorf("status warns of %q, %v; want %q", status.Warnings, err, want)
		}
	}
	alone := `nowhere0 does not exist: "portcullis run" filters it when it appears`
	warns(alone)
	release, err := s.fw.ClaimAgent()
	if err != nil {
		t.Fatal(err)
	}
	warns("nowhere0 does not exist: it is filtered when it appears")
	release()
	warns(alone)
}
