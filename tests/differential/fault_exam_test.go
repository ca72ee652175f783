// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
)

// question is a sequence of packets and what netfilter has decided about them.
type question struct {
	name      string
	steps     []step
	netfilter []verdict
	differs   []*difference // what packets of random sequences may meet
}

// exam is what programs are asked in a world.
type exam struct {
	world     *world
	questions []question
}

// ask lets netfilter decide, once for all the programs that will be compared with it.
func (e *exam) ask(t testing.TB, netfilter *side, q question) {
	t.Helper()
	q.netfilter = together(t, []*side{netfilter}, q.steps)[0]
	e.questions = append(e.questions, q)
}

// named asks the named cases of the world.
func (e *exam) named(t testing.TB, netfilter *side) {
	t.Helper()
	for _, c := range casesOf(e.world) {
		var steps [][]step
		var names string
		for _, h := range families {
			if c.family == 0 || (c.family == 6) == h.six {
				steps = append(steps, c.steps(h))
				names += " " + h.String()
			}
		}
		e.ask(t, netfilter, question{name: fmt.Sprintf("case %d,%s: %s", c.number, names, c.name), steps: sideBySide(steps)})
	}
}

// sideBySide plays the sequences of two families at once, so that they wait only once.
func sideBySide(sequences [][]step) (steps []step) {
	for i := range max(len(sequences[0]), len(sequences[len(sequences)-1])) {
		waited := false
		for _, s := range sequences {
			if i >= len(s) {
				continue
			}
			next := s[i]
			if waited {
				next.wait = 0
			}
			waited = waited || next.wait > 0
			steps = append(steps, next)
		}
	}
	return steps
}

// random asks a batch of random sequences, in which nothing happens but packets.
func (e *exam) random(t testing.TB, netfilter *side) {
	t.Helper()
	for f, h := range families {
		r := newRandom(0, f, nil)
		all := r.batch(0)
		steps, of := interleave(h, all)
		q := question{name: "random sequences, " + h.String(), steps: steps}
		for _, a := range of {
			q.differs = append(q.differs, differs(h, all[a.sequence][:a.move+1]))
		}
		e.ask(t, netfilter, q)
	}
}

// newExam asks netfilter all that there is for a world. The random sequences, for which netfilter is told to be liberal,
// go where no ICMP is let in.
func newExam(t testing.TB, w *world) *exam {
	t.Helper()
	e := &exam{world: w}
	if w == &noICMP {
		e.random(t, liberal.netfilterSide(t))
	}
	e.named(t, w.netfilterSide(t))
	return e
}

// candidate is a side whose programs are exchanged for changed ones.
type candidate struct {
	*exam
	side    *side
	in, out *hook
}

// faultPatience is how long a barrier is waited for: a program that drops ARP costs as much.
const faultPatience = 2 * time.Second

func (e *exam) candidate(t testing.TB, mode loader.Mode) *candidate {
	t.Helper()
	w := *e.world
	w.flows, w.random = liberal.flows, true
	c := &candidate{exam: e, side: w.portcullisSide(t, mode)}
	c.in, c.out = c.side.hooks(t)
	if err := c.side.log.SetPatience(faultPatience); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *candidate) hook(outbound bool) *hook {
	if outbound {
		return c.out
	}
	return c.in
}

// examine plays until there is a disagreement that is not documented, and describes it; "" is none.
func (c *candidate) examine() (string, error) {
	for _, q := range c.questions {
		verdicts, err := c.side.decide(q.steps)
		if errors.Is(err, errBarrier) {
			return q.name + "\n  ARP is not let in", nil
		}
		if err != nil {
			return "", err
		}
		for i, row := range q.differs {
			if !disagree(q.netfilter[i], verdicts[i], row) {
				verdicts[i] = q.netfilter[i]
			}
		}
		var result tally
		result.compare(q.name, q.steps, q.netfilter, verdicts)
		if len(result.wrong) > 0 {
			return result.wrong[0], nil
		}
	}
	return "", nil
}

// try examines the filter with a change in one of its programs. What the kernel would not do differently is no change.
func (c *candidate) try(outbound bool, change mutation) (changed bool, found string, err error) {
	h := c.hook(outbound)
	if changed, err = h.replace(change); err != nil {
		return false, "", err
	}
	if changed {
		found, err = c.examine()
	}
	return changed, found, errors.Join(err, h.restore())
}
