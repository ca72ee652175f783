// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/cmd/portcullis/bench"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// baselines names what both generators can send, and what it is measured against.
var baselines = map[string]string{
	"closed":        "bare-drop",
	"closed-random": "bare-drop",
	"open":          "bare-pass",
	"syn-flood":     "bare-pass",
	"established-1": "bare-pass",
}

// ring is how many frames a veth keeps for its receiver. An emulated CPU may send all of a run before it receives any.
const ring = "256"

// TestGenerators runs the benchmark with each generator, with a test for each row.
func TestGenerators(t *testing.T) {
	t.Run("live", func(t *testing.T) { measures(t, "live") })
	t.Run("pktgen", func(t *testing.T) {
		if _, err := os.Stat("/proc/net/pktgen"); err != nil {
			t.Skip("this kernel has no pktgen, or its module is not loaded")
		}
		measures(t, "pktgen")
	})
}

func measures(t *testing.T, generator string) {
	l := lab.New(t)
	dir := filepath.Join(t.TempDir(), "out")
	var works []string
	for work := range baselines {
		works = append(works, work)
	}
	r := start(t, l.Server, "--quick", "--frames", ring, "--generator", generator, "--work", strings.Join(works, ","),
		"--report", dir, "-o", "json")
	r.ends(t, 0)
	if t.Failed() {
		return
	}
	got := report(t, r)
	text, err := os.ReadFile(filepath.Join(dir, bench.ReportText))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", text)

	rows, counted := 0, 0
	for _, w := range got.Works {
		if baselines[w.Key] == "" {
			continue // it counts no frames
		}
		for _, row := range w.Rows {
			rows++
			t.Run(w.Key+"/"+row.Subject, func(t *testing.T) {
				if row.Invalid != "" || len(row.Rounds) != got.Method.Rounds || row.Frames == 0 || row.Checked == "" {
					t.Fatalf("not every round was counted: %+v", row)
				}
				counted++
			})
		}
	}

	wanted := map[string]bool{"portcullis-tc": true, "none": true}
	for _, program := range []string{"iptables", "nft"} {
		_, err := exec.LookPath(program)
		wanted[program] = err == nil
	}
	// pktgen on a veth whose other end runs generic XDP was seen to crash Linux 6.1 and 6.12.
	wanted["portcullis-generic"] = generator != "pktgen"
	for key, baseline := range baselines {
		w := got.Work(key)
		if w == nil {
			t.Errorf("%s was not measured", key)
			continue
		}
		wanted["portcullis"], wanted[baseline] = true, true
		for subject, want := range wanted {
			if row := w.Row(subject); want && row == nil || !want && row != nil {
				t.Errorf("%s: %s was measured: %v, wanted %v", key, subject, row != nil, want)
			}
		}
		delete(wanted, baseline)
	}

	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	warning, emulated := "rates mean nothing", bytes.Contains(cpu, []byte("QEMU TCG CPU"))
	if told := bytes.Contains(text, []byte(warning)); told != emulated {
		t.Errorf("emulated: %v, and the report says so: %v", emulated, told)
	}
	if !emulated {
		warning = "on a CPU that is not emulated"
	}
	t.Logf("report: %s: %d rows ran, %d were counted; %s", generator, rows, counted, warning)
}
