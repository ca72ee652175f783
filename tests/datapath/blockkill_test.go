// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

func isFull(err error) bool { return errors.Is(err, dpmaps.ErrBansFull) }

// victimVariable is set for a copy of this program that swaps block lists and is killed before one of its writes.
const victimVariable = "PORTCULLIS_TEST_VICTIM"

// swap is what the copy is to do.
type swap struct {
	Dir   string
	Seed  uint64
	Count int
	Lists []string
	Die   int // before the write of that number; 0: never
}

// lists returns those that the copy puts: anybody who knows the seed knows them.
func (s swap) lists() (out []dpmaps.BlockList, trust []netip.Prefix) {
	r := rand.New(rand.NewPCG(s.Seed, 0))
	for _, name := range s.Lists {
		l := dpmaps.BlockList{Name: name, Digest: [32]byte{byte(s.Seed)}}
		for range s.Count {
			l.Prefixes = append(l.Prefixes, anyPrefix(r, 4), anyPrefix(r, 6))
		}
		out = append(out, l)
	}
	return out, []netip.Prefix{anyPrefix(r, 4), anyPrefix(r, 6)}
}

// swapAndDie is what the copy does in place of the tests.
func swapAndDie(order string) {
	var s swap
	err := json.Unmarshal([]byte(order), &s)
	if err == nil {
		err = s.do()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (s swap) do() error {
	set, err := dpmaps.OpenSet(filepath.Join(s.Dir, "state"), filepath.Join(s.Dir, "ruleset"), nil)
	if err != nil {
		return err
	}
	lists, trust := s.lists()
	b, err := dpmaps.NewBlocking(lists, trust)
	if err != nil {
		return err
	}
	writes := 0
	dpmaps.BeforeWrite = func() {
		if writes++; writes == s.Die {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	if err := set.PutBlocking(b); err != nil {
		return err
	}
	return set.TidyGate()
}

// Whatever write it is before which a command is killed that swaps the block lists: then the old ones are in force, or the
// new ones, whole, and the next command puts others.
func TestBlockListsOutliveAKill(t *testing.T) {
	lab.RequireRoot(t)
	d, err := testdp.Open(testdp.Options{Policy: "input: accept", Blocking: 1 << 14})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	dir := filepath.Join("/sys/fs/bpf", fmt.Sprintf("portcullis-swap-%d", os.Getpid()))
	for _, sub := range []string{"", "state", "ruleset"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(d.Set.State.Pin(filepath.Join(dir, "state")), d.Set.Ruleset.Pin(filepath.Join(dir, "ruleset"))); err != nil {
		t.Fatal(err)
	}
	old := swap{Dir: dir, Seed: 1, Count: 40, Lists: []string{"a", "b"}}
	run(t, old)
	seen := make(map[uint64]int)
	for die := 1; ; die++ {
		next := swap{Dir: dir, Seed: old.Seed + 1, Count: 30 + die, Lists: []string{"b", fmt.Sprint("c", die)}, Die: die}
		killed := run(t, next)
		in := inForce(t, d, old, next)
		seen[in.Seed-old.Seed]++
		if !killed {
			if in.Seed != next.Seed {
				t.Errorf("after a swap of %d writes the old lists are in force", die-1)
			}
			t.Logf("of %d writes, %d leave the old lists and %d the new ones", die-1, seen[0], seen[1])
			break
		}
		old = in
	}
	if seen[0] < 5 || seen[1] < 3 {
		t.Errorf("the writes before which the copy was killed left the old lists %d times and the new ones %d times: too few to tell", seen[0], seen[1])
	}
}

// run runs the copy, and reports whether it was killed.
func run(t *testing.T, s swap) (killed bool) {
	t.Helper()
	order, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimVariable+"="+string(order))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		return true
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return false
}

// inForce returns which of two swaps the datapath, and what commands are told, agree with.
func inForce(t *testing.T, d *testdp.Datapath, choices ...swap) swap {
	t.Helper()
	r := rand.New(rand.NewPCG(7, choices[0].Seed))
	models := make([]sources, len(choices))
	wrong := make([]string, len(choices))
	for i, c := range choices {
		models[i].lists, models[i].trust = c.lists()
	}
	note := func(i int, format string, args ...any) {
		if wrong[i] == "" {
			wrong[i] = fmt.Sprintf(format, args...)
		}
	}
	lists, err := d.Set.BlockLists()
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range models {
		if len(lists) != len(m.lists) {
			note(i, "%d lists are in force", len(lists))
			continue
		}
		for j, l := range lists {
			if l.Name != m.lists[j].Name || l.Digest != m.lists[j].Digest || l.Networks4+l.Networks6 != len(m.lists[j].Prefixes) {
				note(i, "list %d is told to be %+v", j, l)
			}
		}
	}
	for n := range 400 {
		w := worlds[n%2]
		a := anyAddress(r, w.family)
		passes := d.Passes(t, testdp.XDP, w.from(a, udp(9)), testdp.From{})
		by, _, _, err := d.Set.BlockedBy(a)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range models {
			if reason, list := m.verdict(a, 0); passes != (reason == 0) || list != "" && list != by {
				note(i, "a packet of %s passes: %v, by list %q, want %q", a, passes, by, list)
			}
		}
	}
	for i, c := range choices {
		if wrong[i] == "" {
			return c
		}
	}
	t.Fatalf("killed before write %d: what is in force is neither the old lists (%s) nor the new ones (%s)", choices[1].Die, wrong[0], wrong[1])
	return swap{}
}
