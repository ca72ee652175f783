// SPDX-License-Identifier: Apache-2.0

// Package differential plays the same packets to netfilter, which runs the script that Portcullis replaces, and to
// Portcullis, and compares what each of them lets in. Netfilter is the judge; what is allowed to differ is the list of
// docs/netfilter-differences.md.
package differential

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
)

// tally is how the cases of a mode and family came out.
type tally struct {
	cases, packets, letIn, differences int
	met                                map[string]int // rows of the documentation, and how often
	wrong                              []string
}

func (c *tally) add(other *tally) {
	c.cases += other.cases
	c.packets += other.packets
	c.letIn += other.letIn
	for row, times := range other.met {
		c.meet(row, times)
	}
	c.wrong = append(c.wrong, other.wrong...)
}

func (c *tally) meet(row string, times int) {
	if c.met == nil {
		c.met = make(map[string]int)
	}
	c.met[row] += times
	c.differences += times
}

func (c *tally) String() string {
	return fmt.Sprintf("%d cases and %d packets agree (%d let in), %d documented differences are met, %d undocumented",
		c.cases, c.packets, c.letIn, c.differences, len(c.wrong))
}

// compare adds the verdicts about one case: netfilter's and ours.
func (c *tally) compare(name string, steps []step, netfilter, ours []verdict) {
	before := len(c.wrong)
	for i, s := range steps {
		switch {
		case s.out:
		case s.differs != nil && netfilter[i] == s.differs.netfilter && ours[i] == s.differs.ours:
			c.meet(s.differs.row, 1)
		case s.differs != nil && !(s.mayDiffer && netfilter[i] == ours[i]):
			c.wrong = append(c.wrong, fmt.Sprintf("%s\n  step %d: %s\n  netfilter: %s, Portcullis: %s; documented: %s, %s",
				name, i+1, s.name, netfilter[i], ours[i], s.differs.netfilter, s.differs.ours))
		case netfilter[i] != ours[i]:
			c.wrong = append(c.wrong, fmt.Sprintf("%s\n  step %d: %s\n  netfilter: %s, Portcullis: %s",
				name, i+1, s.name, netfilter[i], ours[i]))
		default:
			c.packets++
			if ours[i] != drop {
				c.letIn++
			}
		}
	}
	if len(c.wrong) == before {
		c.cases++
	}
}

// differ plays cases to all sides, and returns a tally for each mode and family, in the order of sides and families.
func differ(t testing.TB, sides []*side, cases []testCase) [][]tally {
	t.Helper()
	result := make([][]tally, len(sides)-1)
	for i := range result {
		result[i] = make([]tally, len(families))
	}
	for f, h := range families {
		for _, c := range cases {
			if c.family == 4 && h.six || c.family == 6 && !h.six {
				continue
			}
			steps := c.steps(h)
			verdicts := together(t, sides, steps)
			for i := range result {
				result[i][f].compare(fmt.Sprintf("case %d, %s: %s", c.number, h, c.name), steps, verdicts[0], verdicts[i+1])
			}
		}
	}
	return result
}

func TestPortcullisDecidesAsNetfilterDoes(t *testing.T) {
	var total [3][2]tally
	for _, w := range []*world{&script, &noICMP, &halfRouter, &short, &hasty, &unacked} {
		for m, byFamily := range differ(t, w.sides(t, modes), casesOf(w)) {
			for f, result := range byFamily {
				total[m][f].add(&result)
			}
		}
	}
	for m, mode := range modes {
		for f, h := range families {
			total[m][f].report(t, "named", mode, h)
		}
	}
}

// casesOf are the named cases that are played in a world.
func casesOf(w *world) (chosen []testCase) {
	if slices.Contains(forwardWorlds, w) {
		chosen = forwardCases(w)
	}
	for _, c := range cases {
		switch {
		case c.in == w || c.in == nil && w == &script:
			chosen = append(chosen, c)
		case slices.Contains(forwardWorlds, w) && c.isRouted():
			chosen = append(chosen, c.routed(w))
		}
	}
	return chosen
}

// mustAgree plays cases in one world, and reports them as one source of packets.
func (w world) mustAgree(t *testing.T, source string, cases []testCase) {
	t.Helper()
	for m, byFamily := range differ(t, w.sides(t, modes), cases) {
		for f := range byFamily {
			byFamily[f].report(t, source, modes[m], families[f])
		}
	}
}

// report tells how the cases of one source came out, in a mode and family.
func (c *tally) report(t *testing.T, source string, mode loader.Mode, h hosts) {
	t.Helper()
	report(source, mode, h, c)
	t.Logf("%s, %s: %s", mode, h, c)
	if c.letIn == 0 {
		t.Errorf("%s, %s: nothing is let in, so nothing is compared", mode, h)
	}
	if len(c.wrong) > 0 {
		t.Errorf("%s, %s:\n%s", mode, h, strings.Join(c.wrong, "\n"))
	}
}

func TestEveryCaseIsPlayed(t *testing.T) {
	played := make(map[int]bool)
	for _, c := range cases {
		played[c.number] = true
	}
	for n := 1; n <= 60; n++ {
		if played[n] == (notApplicable[n] != "") {
			t.Errorf("case %d: played %t, reason not to: %q", n, played[n], notApplicable[n])
		}
	}
}

// A wrong policy is found out: port 81 is open where the script opens 80.
func TestTheDifferentialCanFail(t *testing.T) {
	wrong := script
	wrong.policy = "open: [81/tcp]\n"
	sides := wrong.sides(t, modes[:1])
	chosen := slices.DeleteFunc(slices.Clone(cases), func(c testCase) bool { return c.number != 1 && c.number != 2 })
	for f, result := range differ(t, sides, chosen)[0] {
		if result.cases != 1 || len(result.wrong) != 1 || !strings.Contains(result.wrong[0], "netfilter: input, Portcullis: drop") {
			t.Errorf("%s: port 81 instead of 80 gives %s: %q", families[f], &result, result.wrong)
		}
	}
}
