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
	packets = flag.Int("packets", 200_000, "of random sequences to compare, over all modes, at least")
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
	sequences int      // in a batch; each has peers of its own, so they are played side by side
	events    [][]kind // of a batch; they take turns
}

var parts = []part{
	{&liberal, "liberal", 80, 250, [][]kind{nil, nil, nil, {opens, closes}, nil, nil, {opens, closes, opens}, nil, {opens}}},
	{&pinged, "pinged", 12, 250, [][]kind{nil}},
	{&hasty, "hasty", 8, 750, [][]kind{{pause}, {pause, pause}}},
}

// random plays batches of one part in one family, and keeps what it finds.
type random struct {
	part
	hosts
	number int // of the part and family
	sides  []*side

	packets, letIn int
	documented     map[*difference]int
	unsteady       int            // what parted once and never again
	found          map[string]int // a test case, and how often it was met
}

// source is what a batch is drawn from: nothing but its name and the seed.
func (r *random) source(batch int) draw {
	return draw{rand.New(rand.NewPCG(*seed, uint64(r.number)<<32|uint64(batch))), r.six}
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
		examined := make(map[int]bool) // the moves at which another mode has parted already
		for s := range r.sides[1:] {
			i := r.compare(m, rows, verdicts[0][n], verdicts[s+1][n])
			if i >= 0 && !examined[i] && len(r.found) < enough {
				examined[i] = true
				r.examine(t, batch, all, n, s+1, i)
			}
		}
	}
}

// compare counts one sequence as one side has decided it. It returns the first move about which it disagrees, or -1.
func (r *random) compare(all moves, rows []*difference, netfilter, ours []verdict) int {
	for i, m := range all {
		switch {
		case m.out || m.kind.isEvent():
		case disagree(netfilter[i], ours[i], rows[i]):
			return i
		case netfilter[i] != ours[i]:
			r.documented[rows[i]]++
		case rows[i] == nil:
			r.packets++
			if ours[i] == input {
				r.letIn++
			}
		}
	}
	return -1
}

// examine makes a test case of a disagreement. A packet that came late or a log message that was lost is none: what
// disagrees does so when it is played again, alone or beside the others.
func (r *random) examine(t testing.TB, batch int, all []moves, n, mode, i int) {
	t.Helper()
	pair := []*side{r.sides[0], r.sides[mode]}
	small := shrink(t, pair, r.hosts, all[n][:i+1])
	if small == nil {
		verdicts := beside(t, pair, r.hosts, all)
		if parting(r.hosts, all[n], verdicts[0][n], verdicts[1][n]) != i {
			r.unsteady++
			return
		}
		small = all[n][:i+1]
	}
	verdicts := beside(t, pair, r.hosts, []moves{small})
	name := fmt.Sprintf("%s: seed %d, batch %d, sequence %d", pair[1].name, *seed, batch, n)
	r.found[small.literal(name, r.variable, r.hosts, verdicts[0][0], verdicts[1][0])]++
}

func TestRandomSequences(t *testing.T) {
	total := 0
	for number, p := range parts {
		sides := p.world.sides(t, modes)
		for f, h := range families {
			r := &random{part: p, hosts: h, number: 2*number + f, sides: sides,
				documented: make(map[*difference]int), found: make(map[string]int)}
			for batch := 0; r.packets < *packets*p.percent/100/len(families) && len(r.found) < enough; batch++ {
				r.play(t, batch)
			}
			r.report(t)
			total += r.packets
		}
	}
	t.Logf("%d packets are compared", total)
}

func (r *random) report(t testing.TB) {
	t.Helper()
	documented := 0
	for _, times := range r.documented {
		documented += times
	}
	t.Logf("%s, %s: %d packets agree, %d of them let in; %d follow a documented difference; %d undocumented; %d decided otherwise once, and never again",
		r.world.name, r.hosts, r.packets, r.letIn, documented, len(r.found), r.unsteady)
	for _, d := range append(allDifferent[:len(allDifferent):len(allDifferent)], untimed) {
		if r.documented[d] > 0 {
			t.Logf("  %6d %s", r.documented[d], d.row)
		}
	}
	if r.letIn == 0 {
		t.Errorf("%s: nothing is let in, so nothing is compared", r.hosts)
	}
	if r.unsteady > 10+r.packets/1000 {
		t.Errorf("%s: %d packets of %d were decided otherwise when they were played again", r.hosts, r.unsteady, r.packets)
	}
	for text, times := range r.found {
		t.Errorf("%s, %d times:\n%s", r.hosts, times, text)
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
	for _, h := range families {
		r := &random{part: parts[0], hosts: h, sides: sides, documented: make(map[*difference]int), found: make(map[string]int)}
		r.play(t, 0)
		if len(r.found) == 0 {
			t.Errorf("%s: nothing is found", h)
		}
		for text := range r.found {
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
