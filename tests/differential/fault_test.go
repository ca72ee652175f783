// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

var mutants = flag.Int("mutants", 12, "random faults in the datapath, each one conditional jump that is inverted")

var patient = flag.Bool("patient", false, "look for random faults in the slow worlds too")

// floor is how many of some random faults have to be found. Of a few hundred it was every second one; the others change
// no verdict: they count, choose between two ways to the same verdict, look beyond a buffer that is never cut short, or
// stand in a copy of a function where its case does not arise. A sample is allowed two standard deviations below 40 %.
func floor(faults int) int {
	n := float64(faults)
	return int(math.Ceil(0.4*n - 2*math.Sqrt(0.4*0.6*n)))
}

// Wrong verdicts of the datapath are found: some that a person would make, by name and in every mode, and random ones in
// native mode. Netfilter is asked first, and once.
func TestFaultsInTheDatapathAreFound(t *testing.T) {
	lab.RequireRoot(t)
	worlds := []*world{&noICMP, &script, &forwardEstablished, &short} // the slowest last
	if *patient {
		worlds = slices.Insert(worlds, 3, &halfRouter, &forwardDrop, &forwardAccept)
	}
	exams := make([]*exam, len(worlds))
	t.Run("netfilter", func(t *testing.T) {
		for i, w := range worlds {
			t.Run(w.name, func(t *testing.T) {
				t.Parallel()
				exams[i] = newExam(t, w)
			})
		}
	})
	if slices.Contains(exams, nil) {
		t.Fatal("netfilter was not asked")
	}
	var found [3]int // named faults, in each mode
	t.Run("modes", func(t *testing.T) {
		for m, mode := range modes {
			t.Run(string(mode), func(t *testing.T) {
				t.Parallel()
				var candidates []*candidate
				for _, e := range exams {
					needed := slices.ContainsFunc(faults, func(f fault) bool { return f.in == e.world })
					if needed || mode == loader.ModeNative {
						candidates = append(candidates, e.candidate(t, mode))
					}
				}
				for _, c := range candidates {
					agrees(t, c)
				}
				for _, f := range faults {
					if err := f.find(candidates, mode); err != nil {
						t.Errorf("%q, in %s mode: %v", f.name, mode, err)
						continue
					}
					found[m]++
				}
				if mode == loader.ModeNative && *mutants > 0 {
					findRandom(t, candidates)
				}
			})
		}
	})
	var parts []string
	for m, mode := range modes {
		parts = append(parts, fmt.Sprintf("%d in %s mode", found[m], mode))
	}
	reportFaults("Of %d named faults in the datapath were found %s.", len(faults), strings.Join(parts, ", "))
}

// agrees holds for an unchanged program that takes the same way into the kernel as a changed one: what finds a fault is
// the fault.
func agrees(t *testing.T, c *candidate) {
	t.Helper()
	for _, outbound := range []bool{false, true} {
		h := c.hook(outbound)
		before, err := h.link.Info()
		if err != nil {
			t.Fatal(err)
		}
		changed, err := h.replace(unchanged)
		if err != nil {
			t.Fatal(err)
		}
		after, err := h.link.Info()
		if err != nil {
			t.Fatal(err)
		}
		if changed || before.Program == after.Program {
			t.Errorf("%s: loaded once more, the program is another one (%t), or was not replaced", h.program, changed)
		}
	}
	found, err := c.examine()
	if err != nil {
		t.Fatal(err)
	}
	if found != "" {
		t.Fatalf("%s: nothing was changed, and yet: %s", c.world.name, found)
	}
}

// find tells why the fault is not found, or nil.
func (f *fault) find(candidates []*candidate, mode loader.Mode) error {
	at := slices.IndexFunc(candidates, func(c *candidate) bool { return c.world == f.in })
	changed, found, err := candidates[at].try(f.egress, f.change(mode))
	switch {
	case err != nil:
		return err
	case !changed:
		return errors.New("it changes nothing that the kernel runs")
	case found == "":
		return errors.New("it is not found")
	}
	return nil
}

// jump is a conditional jump of one of the two programs.
type jump struct {
	egress bool
	index  int
	from   place
}

func (j jump) String() string {
	program := "ingress"
	if j.egress {
		program = "egress"
	}
	return fmt.Sprintf("%s, instruction %d, %s", program, j.index, j.from)
}

// invert takes the other branch.
func (j jump) invert(program asm.Instructions) (asm.Instructions, error) {
	invert(&program[j.index])
	return program, nil
}

func (c *candidate) jumps() (all []jump) {
	for _, egress := range []bool{false, true} {
		h := c.hook(egress)
		program := h.spec.Programs[h.program].Instructions
		for i, from := range places(program) {
			if isConditional(program[i]) {
				all = append(all, jump{egress, i, from})
			}
		}
	}
	return all
}

// findRandom inverts conditional jumps anywhere in the two programs, one at a time.
func findRandom(t *testing.T, candidates []*candidate) {
	t.Helper()
	all := candidates[0].jumps()
	r := rand.New(rand.NewPCG(*seed, 1))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	taken, found := 0, 0
	var survivors []string
	for _, j := range all {
		if taken == *mutants {
			break
		}
		ran, by, err := j.find(candidates)
		if err != nil {
			t.Fatalf("%s: %v", j, err)
		}
		switch {
		case !ran:
			continue
		case by == "":
			survivors = append(survivors, j.String())
		default:
			found++
			t.Logf("%s\n  found by %s", j, by)
		}
		taken++
	}
	text := ""
	if survivors != nil {
		text = "; not found:\n  " + strings.Join(survivors, "\n  ")
	}
	t.Logf("%d of %d random faults found, of %d jumps%s", found, taken, len(all), text)
	if taken < min(*mutants, len(all)/2) {
		t.Errorf("the verifier took %d random faults, of %d jumps", taken, len(all))
	}
	if least := floor(taken); found < least {
		t.Errorf("%d of %d random faults found, seed %d: it should be %d%s", found, taken, *seed, least, text)
	}
	reportFaults("Of %d random ones, a conditional jump inverted each, were found %d; not all change a verdict.", taken, found)
}

// find tries one fault in world after world. It ran when the verifier took it in one and the kernel runs something else.
func (j jump) find(candidates []*candidate) (ran bool, by string, err error) {
	for _, c := range candidates {
		if c.world == &short && (!*patient || !slices.Contains([]string{"state.h", "tcp.h", "timeout.h"}, j.from.file)) {
			continue
		}
		changed, found, err := c.try(j.egress, j.invert)
		if errors.Is(err, errRejected) {
			continue
		}
		ran = ran || changed
		if err != nil || found != "" {
			return ran, found, err
		}
	}
	return ran, "", nil
}
