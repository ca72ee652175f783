// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall/importcheck"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
	"github.com/portcullis-firewall/portcullis/policy/nft"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// jobOf compares a file of nft with what becomes of it.
func jobOf(t *testing.T, name string) importcheck.Job {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../policy/nft/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	r, err := nft.Import([]iptables.File{{Name: name, Data: data}}, iptables.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	job := importcheck.NewJob(r, 400, "")
	job.NFT = [][]byte{data}
	return job
}

// What import --verify does with rules of nft: it loads these themselves, and the policy. That it can fail is seen by a policy
// that lets in everything.
func TestVerify(t *testing.T) {
	lab.RequireRoot(t)
	for _, name := range []string{"nft", "iptables-restore", "ip"} {
		lab.NeedProgram(t, name)
	}
	names := []string{"server.nft", "gateway.nft", "bans.nft", "nasty.nft", "server.nft", "server.json"}
	const wrong = 0
	var jobs []importcheck.Job
	for i, name := range names {
		job := jobOf(t, name)
		job.Text = i < len(names)-1 // the filter of the last one stays
		jobs = append(jobs, job)
	}
	jobs[wrong].Policy = "input: accept\n"
	found, err := importcheck.Run(context.Background(), lab.Program(t), jobs)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range found {
		t.Logf("%s: %s", names[i], a)
		switch {
		case i == wrong && a.Wider == 0:
			t.Errorf("a policy that lets in everything gives %s", a)
		case i != wrong && a.Wider > 0:
			t.Errorf("%s: %s: %v", names[i], a, a.WiderAt)
		case i > 3 && a.Alike != a.Packets:
			t.Errorf("%s: %s: %v", names[i], a, a.NarrowerAt)
		}
	}
}
