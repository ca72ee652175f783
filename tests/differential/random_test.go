// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

var (
	seed    = flag.Uint64("seed", 1, "of the random sequences")
	batches = flag.Int("batches", 30, "of random sequences, in each family; one has 3,500 packets")
)

const (
	sequences = 250 // in a batch; each has ports and identifiers of its own, so they are played side by side
	length    = 14
)

// liberal is netfilter that leaves the TCP window to the stack, as Portcullis always does: what remains are the states.
var liberal = world{
	name:    "random sequences",
	rules:   noICMP.rules,
	sysctls: map[string]string{"tcp_be_liberal": "1", "tcp_ignore_invalid_rst": "1"},
	policy:  noICMP.policy,
	flows:   65536,
}

type kind uint8

const (
	tcp kind = iota
	udp
	ping  // an echo request
	pong  // an echo reply
	about // an ICMP error about what goes out
	kindCount
)

// move is one packet of a random sequence, without the addresses.
type move struct {
	out    bool
	kind   kind
	flags  uint8
	local  uint8 // which of the local ports; the last one is the open port 80
	remote uint8
}

var tcpFlags = []uint8{
	frame.SYN, frame.SYN, frame.SYN | frame.ACK, frame.SYN | frame.ACK, frame.ACK, frame.ACK, frame.ACK | frame.PSH,
	frame.FIN | frame.ACK, frame.FIN | frame.ACK, frame.RST, frame.RST | frame.ACK, frame.FIN, 0, frame.SYN | frame.FIN,
}

func randomMove(r *rand.Rand) move {
	m := move{
		out:    r.IntN(2) == 0,
		kind:   []kind{tcp, tcp, tcp, tcp, tcp, tcp, udp, ping, pong, about}[r.IntN(10)],
		flags:  tcpFlags[r.IntN(len(tcpFlags))],
		remote: uint8(r.IntN(4) / 3),
	}
	if n := r.IntN(8); n > 5 {
		m.local = uint8(n - 5)
	}
	return m
}

// step makes a packet of a move, for the sequence of that number.
func (m move) step(h hosts, number int) step {
	f := flow{h, [...]uint16{uint16(1024 + 2*number), uint16(1025 + 2*number), 80}[m.local], uint16(20000 + 2*number + int(m.remote))}
	id := uint16(2*number + int(m.remote))
	var layers []frame.Layer
	switch m.kind {
	case tcp:
		if m.out {
			return f.tcpOut(m.flags, 1000, 5000)
		}
		return f.tcpIn(m.flags, 5000, 1000)
	case udp:
		if m.out {
			return f.udpOut()
		}
		return f.udpIn()
	case ping:
		layers = []frame.Layer{h.echo(id, 1)}
	case pong:
		layers = []frame.Layer{h.echoReply(id, 1)}
	case about:
		layers = []frame.Layer{h.unreachable(), quote(h.us, h.peer, 8, m.quoted(f, id))}
	}
	if m.out {
		return h.out(layers...)
	}
	return h.in(layers...)
}

func (m move) quoted(f flow, id uint16) frame.Layer {
	switch m.flags {
	case frame.SYN:
		return f.echo(id, 1)
	case frame.ACK:
		return frame.UDP{SrcPort: f.local, DstPort: f.remote}
	}
	return frame.TCP{SrcPort: f.local, DstPort: f.remote, Flags: frame.ACK, Seq: 1000}
}

// randomSequence leaves out what is documented to differ by itself, and what no stack sends.
func randomSequence(r *rand.Rand) []move {
	moves := make([]move, length)
	for i := range moves {
		for {
			moves[i] = randomMove(r)
			aboutOpenPort := moves[i].kind == about && moves[i].local == 2
			if !aboutOpenPort && moves[i].possible(moves[:i]) {
				break
			}
		}
	}
	return moves
}

// side by side: all first packets, those that go out before those that come in, then all second ones.
func interleave(h hosts, all [][]move) (steps []step, of [][2]int) {
	for i := range length {
		for _, out := range []bool{true, false} {
			for n, moves := range all {
				if i < len(moves) && moves[i].out == out {
					steps = append(steps, moves[i].step(h, n))
					of = append(of, [2]int{n, i})
				}
			}
		}
	}
	return steps, of
}

// agree plays one sequence and tells whether the two sides let in the same, and if not, where they part.
func agree(t testing.TB, sides []*side, h hosts, moves []move) (steps []step, verdicts [][]verdict, parts int) {
	t.Helper()
	for _, m := range moves {
		steps = append(steps, m.step(h, 0))
	}
	verdicts = together(t, sides, steps)
	for i := range steps {
		if verdicts[0][i] != verdicts[1][i] && !h.unlike(moves[:i+1]) {
			return steps, verdicts, i
		}
	}
	return steps, verdicts, -1
}

// shrink leaves out what the disagreement does not need.
func shrink(t testing.TB, sides []*side, h hosts, moves []move) []move {
	t.Helper()
	for again := true; again; {
		again = false
		for i := len(moves) - 1; i >= 0; i-- {
			fewer := slices.Delete(slices.Clone(moves), i, i+1)
			if !allPossible(fewer) {
				continue
			}
			if _, _, parts := agree(t, sides, h, fewer); parts >= 0 {
				moves, again = fewer[:parts+1], true
				i = min(i, len(moves))
			}
		}
	}
	return moves
}

func explain(t testing.TB, sides []*side, h hosts, moves []move) string {
	t.Helper()
	steps, verdicts, parts := agree(t, sides, h, moves)
	if parts < 0 {
		return "alone, the sequence is decided alike"
	}
	var text strings.Builder
	for i, s := range steps[:parts+1] {
		fmt.Fprintf(&text, "\n  %s", s.name)
		if !s.out {
			fmt.Fprintf(&text, ": netfilter %s, Portcullis %s", verdicts[0][i], verdicts[1][i])
		}
	}
	return text.String()
}

func TestRandomSequences(t *testing.T) { playRandom(t, liberal, families, *batches) }

func playRandom(t *testing.T, w world, ends []hosts, batches int) {
	sides := w.sides(t, modes)
	r := rand.New(rand.NewPCG(*seed, 0))
	for _, h := range ends {
		left, tallies := 0, make([]tally, len(modes))
		found := make(map[string]int)
		for range batches {
			all := make([][]move, sequences)
			for n := range all {
				all[n] = randomSequence(r)
			}
			steps, of := interleave(h, all)
			verdicts := together(t, sides, steps)
			for m := range modes {
				parted := make(map[int]bool)
				for i, at := range of {
					switch n := at[0]; {
					case steps[i].out || parted[n]:
					case h.unlike(all[n][:at[1]+1]):
						left++
					case verdicts[0][i] == verdicts[m+1][i]:
						tallies[m].packets++
						if verdicts[0][i] != drop && !steps[i].inside {
							tallies[m].letIn++
						}
					default:
						parted[n] = true
						tallies[m].wrong = append(tallies[m].wrong, fmt.Sprintf("a random sequence, seed %d", *seed))
						if len(found) < 8 {
							pair := []*side{sides[0], sides[m+1]}
							found[explain(t, pair, h, shrink(t, pair, h, all[n][:at[1]+1]))]++
						}
					}
				}
			}
		}
		for m, mode := range modes {
			report("random", mode, h, &tallies[m])
			if tallies[m].letIn == 0 {
				t.Errorf("%s, %s: nothing is let in, so nothing is compared", mode, h)
			}
		}
		t.Logf("%s: %d packets follow a documented difference and do not count", h, left)
		for text, times := range found {
			t.Errorf("%s, seed %d: %d times in all modes%s", h, *seed, times, text)
		}
	}
}
