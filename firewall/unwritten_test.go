// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall"
)

// Where packets are to be in the journal and no agent writes them, whoever may have asked for that is told.
func TestToldThatNobodyWritesTheLog(t *testing.T) {
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\nlog: [closed port]\n")
	ctx := context.Background()
	if _, err := s.fw.Up(ctx, firewall.UpRequest{Force: true}); err != nil {
		t.Fatal(err)
	}
	const want = `nobody writes what "log: [closed port]" asks for to the journal, as the agent does not run: `
	says := func(agent bool, who string, warnings []string, err error) {
		t.Helper()
		i := slices.IndexFunc(warnings, func(w string) bool { return strings.HasPrefix(w, want) })
		if err != nil || (i >= 0) == agent {
			t.Errorf("with an agent %v, %s warns of %q, %v", agent, who, warnings, err)
		}
		if i >= 0 && !strings.HasSuffix(warnings[i], `"portcullis run" starts it`) {
			t.Errorf("%s does not say what to do: %q", who, warnings[i])
		}
	}
	everybody := func(agent bool) {
		t.Helper()
		applied, err := s.fw.Apply(ctx, firewall.ApplyRequest{Force: true})
		if err != nil {
			t.Fatal(err)
		}
		says(agent, "apply", applied.Warnings, err)
		checked, err := s.fw.Check("")
		if err != nil {
			t.Fatal(err)
		}
		says(agent, "check", checked.Warnings, err)
		status, err := s.fw.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		says(agent, "status", status.Warnings, err)
		inspected, err := s.fw.Inspect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		says(agent, "doctor", inspected.Running.Warnings, err)
	}
	everybody(false)
	release, err := s.fw.ClaimAgent()
	if err != nil {
		t.Fatal(err)
	}
	everybody(true)
	release()
	everybody(false)
}
