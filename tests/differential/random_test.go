// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

var (
	seed    = flag.Uint64("seed", 1, "of the random sequences")
	packets = flag.Int("packets", 120_000, "of random sequences to compare, over all modes, at least")
)

const (
	length = 14 // of a sequence, in packets
	enough = 4  // disagreements in a part and family: more take time and tell little
)

// part is what a world gets of the packets.
type part struct {
	world     *world
	variable  string // that the world is
	percent   int
	sequences int               // in a batch; each has peers of its own, so they are played side by side
	events    [][]kind          // of a batch; they take turns
	ends      func(hosts) hosts // when this host is but on the way
}

var parts = []part{
	{&liberal, "liberal", 66, 250, [][]kind{nil, nil, nil, {opens, closes}, nil, nil, {opens, closes, opens}, nil, {opens}}, nil},
	{&withICMP, "withICMP", 10, 250, [][]kind{nil}, nil},
	{&hasty, "hasty", 8, 750, [][]kind{{pause}, {pause, pause}}, nil},
	{&liberalRouter, "liberalRouter", 9, 250, [][]kind{nil}, hosts.behind},
	{&natLiberal, "natLiberal", 7, 250, [][]kind{nil}, hosts.behindNAT},
}

// random plays batches of one part in one family, and keeps what it finds.
type random struct {
	part
	hosts
	number int // of the part and family
	sides  []*side

	tallies  [3]tally // by mode
	unsteady int      // what parted once and never again
}

// newRandom is a part in a family; both are numbers.
func newRandom(part, family int, sides []*side) *random {
	r := &random{part: parts[part], hosts: families[family], number: 2*part + family, sides: sides}
	if r.ends != nil {
		r.hosts = r.ends(r.hosts)
	}
	return r
}

// source is what a batch is drawn from: nothing but its name and the seed.
func (r *random) source(batch int) draw {
	return draw{rand.New(rand.NewPCG(*seed, uint64(r.number)<<32|uint64(batch))), r.six, r.ends != nil}
}

func (r *random) batch(number int) (all []moves) {
	d := r.source(number)
	for range r.sequences {
		all = append(all, d.sequence(length, r.events[(number+r.number)%len(r.events)]))
	}
	return all
}

func (r *random) play(t testing.TB, batch int) {
	t.Helper()
	all := r.batch(batch)
	// The identifications of IPv4 come again sooner than an incomplete datagram is forgotten: to other peers.
	r.first = batch % 16 * 1000
	verdicts := beside(t, r.sides, r.hosts, all)
	for n, m := range all {
		rows := make([]*difference, len(m))
		for i := range m {
			rows[i] = differs(r.hosts, m[:i+1])
		}
		examined := make(map[int]string) // the moves at which a mode has parted already
		for mode := range r.sides[1:] {
			i := r.compare(mode, m, rows, verdicts[0][n], verdicts[mode+1][n])
			if i < 0 {
				continue
			}
			text, known := examined[i]
			if !known && r.found() < enough {
				text = r.examine(t, batch, all, n, mode, i)
				examined[i] = text
			}
			if text != "" {
				r.tallies[mode].wrong = append(r.tallies[mode].wrong, text)
			}
		}
	}
}

// compared is how many packets are decided alike, over all modes.
func (r *random) compared() (packets int) {
	for _, one := range r.tallies {
		packets += one.packets
	}
	return packets
}

// found is how many disagreements there are.
func (r *random) found() (wrong int) {
	for _, one := range r.tallies {
		wrong += len(one.wrong)
	}
	return wrong
}

// compare counts one sequence as a mode has decided it. It returns the first move about which it disagrees, or -1.
func (r *random) compare(mode int, all moves, rows []*difference, netfilter, ours []verdict) int {
	result := &r.tallies[mode]
	for i, m := range all {
		switch {
		case netfilter[i] == none:
		case disagree(netfilter[i], ours[i], rows[i]):
			return i
		case rows[i] == untimed:
		case netfilter[i] != ours[i]:
			result.meet(rows[i].row, 1)
		case rows[i] == nil:
			result.packets++
			if ours[i] != drop && !m.out {
				result.letIn++
			}
		}
	}
	return -1
}

// examine makes a test case of a disagreement. A packet that came late or a log message that was lost is none: what
// disagrees does so when it is played again, alone or beside the others.
func (r *random) examine(t testing.TB, batch int, all []moves, n, mode, i int) string {
	t.Helper()
	pair := []*side{r.sides[0], r.sides[mode+1]}
	small := shrink(t, pair, r.hosts, all[n][:i+1])
	if small == nil {
		verdicts := beside(t, pair, r.hosts, all)
		if parting(r.hosts, all[n], verdicts[0][n], verdicts[1][n]) != i {
			r.unsteady++
			return ""
		}
		small = all[n][:i+1]
	}
	verdicts := beside(t, pair, r.hosts, []moves{small})
	name := fmt.Sprintf("%s, %s: seed %d, batch %d, sequence %d", pair[1].name, r.hosts, *seed, batch, n)
	return small.literal(name, r.variable, r.hosts, verdicts[0][0], verdicts[1][0])
}

func TestRandomSequences(t *testing.T) {
	total := 0
	for number, p := range parts {
		sides := p.world.sides(t, modes)
		for f := range families {
			r := newRandom(number, f, sides)
			for batch := 0; r.compared() < *packets*p.percent/100/len(families) && r.found() < enough; batch++ {
				r.play(t, batch)
			}
			r.report(t)
			total += r.compared()
		}
	}
	t.Logf("%d packets are compared", total)
}

func (r *random) report(t *testing.T) {
	t.Helper()
	t.Logf("%s: %d packets were decided otherwise once, and never again", r.world.name, r.unsteady)
	for m := range r.tallies {
		r.tallies[m].report(t, "random", modes[m], r.hosts)
	}
	for _, d := range allDifferent {
		if r.tallies[0].met[d.row] > 0 {
			t.Logf("  %6d in %s mode: %s", r.tallies[0].met[d.row], modes[0], d.row)
		}
	}
	if packets := r.compared(); r.unsteady > 10+packets/1000 {
		t.Errorf("%s: %d packets of %d were decided otherwise when they were played again", r.hosts, r.unsteady, packets)
	}
}

// A wrong side is found out, and what is printed of it is short and still shows it: this netfilter picks up no connection
// in mid-stream.
func TestTheGeneratorCanFail(t *testing.T) {
	wrong := liberal
	wrong.sysctls = map[string]string{"tcp_loose": "0"}
	for k, v := range liberal.sysctls {
		wrong.sysctls[k] = v
	}
	sides := wrong.sides(t, modes[:1])
	for f, h := range families {
		r := newRandom(0, f, sides)
		r.play(t, 0)
		if r.found() == 0 {
			t.Errorf("%s: nothing is found", h)
		}
		for _, text := range r.tallies[0].wrong {
			small, err := readLiteral(text)
			if err != nil {
				t.Fatalf("%s: %v:\n%s", h, err, text)
			}
			verdicts := together(t, sides, small.steps(h))
			last := len(small) - 1
			if last > 2 || verdicts[0][last] != drop || verdicts[1][last] != input {
				t.Errorf("%s: %s and %s of\n%s", h, verdicts[0][last], verdicts[1][last], text)
			}
			if slices.ContainsFunc(small, func(m move) bool { return !reflect.ValueOf(m.dress).IsZero() }) {
				t.Errorf("%s: it wears what it does not need:\n%s", h, text)
			}
		}
	}
}
