// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// What a program may cost on any kernel. The verifier gives up after 1,000,000 instructions (BPF_COMPLEXITY_LIMIT_INSNS
// in linux/bpf_verifier.h), and half of that leaves room for a kernel that goes more ways than those tried. Of the stack,
// a chain of calls may take 512 bytes (MAX_BPF_STACK in linux/filter.h); who calls whom only the verifier knows, and it
// refuses what takes more.
const mostVerified = 1_000_000 / 2

const budgetFile = "testdata/budget.txt"

var update = flag.Bool("update", false, "write "+budgetFile+" instead of comparing with it")

var (
	receivers = []string{bpf.FirewallProgPortcullisXdp, bpf.FirewallProgPortcullisIn}
	filters   = append(slices.Clip(receivers), bpf.FirewallProgPortcullisOut)
)

// permutations of what programs are loaded with, each with those that it makes different.
var permutations = []struct {
	options  testdp.Options
	programs []string
}{
	{testdp.Options{}, append(slices.Clip(filters), bpf.FirewallProgPortcullisSweep)},
	{testdp.Options{L3: true}, filters},
	{testdp.Options{MultiBuffer: true}, receivers[:1]},
	{testdp.Options{ManyDevices: true}, filters},
	{testdp.Options{ManyDevices: true, Policy: "forward: {policy: established, open: [all on eth0]}\ninput: reject"}, filters},
	{testdp.Options{Policy: "invalid: drop"}, receivers},
	{testdp.Options{Policy: "invalid: accept"}, receivers},
	{testdp.Options{Policy: "input: accept"}, receivers},
	{testdp.Options{Policy: "input: reject"}, filters},
	{testdp.Options{Policy: "input: reject", L3: true}, filters},
	{testdp.Options{Policy: "input: reject", MultiBuffer: true}, receivers[:1]},
	{testdp.Options{Policy: "input: reject\nforward: established\ninvalid: accept"}, filters},
	{testdp.Options{Policy: "forward: accept"}, filters},
	{testdp.Options{Policy: "forward: established"}, filters},
	{testdp.Options{Policy: "forward: established", L3: true}, filters},
	{testdp.Options{Policy: "forward: established", MultiBuffer: true}, receivers[:1]},
	{testdp.Options{Policy: "forward: established\ninput: accept\ninvalid: accept"}, receivers},
	{testdp.Options{Policy: "forward: {open: [22/tcp on eth0 to 192.0.2.1 limit 6/minute]}"}, filters},
	{testdp.Options{Policy: "forward: {policy: established, open: [all on eth0]}\ninput: reject"}, filters},
	{testdp.Options{Policy: "open: [22/tcp limit 6/minute]"}, filters},
	{testdp.Options{Policy: "open: [22/tcp to 192.0.2.1]"}, filters},
	{testdp.Options{Policy: "forward: established\nopen: [22/tcp to 192.0.2.1 limit 6/minute]"}, filters},
}

// permutation names what differs from a server with one network card and no policy of its own.
func permutation(o testdp.Options) string {
	var names []string
	for _, feature := range []struct {
		on   bool
		name string
	}{
		{o.Policy != "", strings.ReplaceAll(o.Policy, "\n", ", ")},
		{o.L3, "no link headers"},
		{o.MultiBuffer, "multi-buffer"},
		{o.ManyDevices, "many devices"},
	} {
		if feature.on {
			names = append(names, feature.name)
		}
	}
	if names == nil {
		return "defaults"
	}
	return strings.Join(names, ", ")
}

// loading is a program under a permutation.
type loading struct{ program, permutation string }

type budget map[loading]testdp.Cost

// TestBudget compares what the verifier makes of the programs with what it made of them when the budget was committed,
// so that growth is seen in review. On other kernels than that of the budget it only looks for what is too much.
func TestBudget(t *testing.T) {
	lab.RequireRoot(t)
	now := verifyAll(t)
	for l, cost := range now {
		if cost.Verified > mostVerified {
			t.Errorf("%s, %s: %d instructions verified, of at most %d", l.program, l.permutation, cost.Verified, mostVerified)
		}
	}
	here := kernel(t)
	if *update {
		if err := os.WriteFile(budgetFile, []byte(now.format(here)), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	committed, reference := readBudget(t)
	if here != reference {
		t.Skipf("%s is of %s; on %s only the ceiling was held: %d instructions verified",
			budgetFile, reference, here, mostVerified)
	}
	if changes := committed.changes(now); changes != nil {
		t.Errorf("what the verifier makes of the programs has changed:\n\t%s\n"+
			"If that is meant, or a patch of %s has done it: \"make budget\", and commit tests/datapath/%s",
			strings.Join(changes, "\n\t"), here, budgetFile)
	}
}

// verifyAll loads every program under every permutation, on all processors: it is the verifier that takes its time.
func verifyAll(t *testing.T) budget {
	t.Helper()
	costs := make(budget)
	var mutex sync.Mutex
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	for _, p := range permutations {
		for _, program := range p.programs {
			group.Go(func() error {
				cost, err := testdp.Verify(p.options, program)
				if err != nil {
					return fmt.Errorf("%s: %w", permutation(p.options), err)
				}
				mutex.Lock()
				defer mutex.Unlock()
				costs[loading{program, permutation(p.options)}] = cost
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatalf("%+v", err)
	}
	return costs
}

// kernel names the kernel's release, without the patch, and the architecture, as the JIT decides what is inlined.
func kernel(t *testing.T) string {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	release := strings.SplitN(unix.ByteSliceToString(uts.Release[:]), ".", 3)
	return fmt.Sprintf("Linux %s %s", strings.Join(release[:2], "."), runtime.GOARCH)
}

// sorted lists by program, so that one permutation is read beside the other.
func (b budget) sorted() []loading {
	return slices.SortedFunc(maps.Keys(b), func(a, b loading) int {
		return cmp.Or(cmp.Compare(a.program, b.program), cmp.Compare(a.permutation, b.permutation))
	})
}

const budgetHead = `# What the verifier makes of each program, by what it is loaded with. "make budget" writes this file.
#   verified  instructions it went through, along all paths; it gives up after 1,000,000
#   size      instructions it left in the program
#   stack     bytes, by function; a chain of calls may take 512
`

const budgetColumns = "%-17s %8v %6v  %-11s  %s\n"

func (b budget) format(kernel string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s%s\n\n", budgetHead, kernel)
	fmt.Fprintf(&text, budgetColumns, "program", "verified", "size", "stack", "loaded with")
	for _, l := range b.sorted() {
		fmt.Fprintf(&text, budgetColumns, l.program, b[l].Verified, b[l].Size, b[l].Stack, l.permutation)
	}
	return text.String()
}

// readBudget reads what format has written.
func readBudget(t *testing.T) (_ budget, kernel string) {
	t.Helper()
	text, err := os.ReadFile(budgetFile)
	if err != nil {
		t.Fatal(err)
	}
	kernel, table, _ := strings.Cut(strings.TrimPrefix(string(text), budgetHead), "\n\n")
	b := make(budget)
	for _, line := range strings.Split(strings.TrimSpace(table), "\n")[1:] {
		var l loading
		var cost testdp.Cost
		if _, err := fmt.Sscan(line, &l.program, &cost.Verified, &cost.Size, &cost.Stack, &l.permutation); err != nil {
			t.Fatalf("%s: %v in %q", budgetFile, err, line)
		}
		// The last column has spaces in it.
		l.permutation = line[strings.LastIndex(line, "  ")+2:]
		b[l] = cost
	}
	return b, kernel
}

// changes says what is different now, and by how much.
func (b budget) changes(now budget) (changes []string) {
	both := maps.Clone(b)
	maps.Copy(both, now)
	for _, l := range both.sorted() {
		before, had := b[l]
		after, has := now[l]
		say := func(format string, a ...any) {
			changes = append(changes, fmt.Sprintf("%s, %s: ", l.program, l.permutation)+fmt.Sprintf(format, a...))
		}
		if !had || !has {
			say("has a budget: %v, is loaded: %v", had, has)
			continue
		}
		if before.Verified != after.Verified {
			say("verified %s", grown(int(before.Verified), int(after.Verified)))
		}
		if before.Size != after.Size {
			say("size %s", grown(before.Size, after.Size))
		}
		if before.Stack != after.Stack {
			say("stack %s -> %s", before.Stack, after.Stack)
		}
	}
	return changes
}

func grown(before, after int) string {
	return fmt.Sprintf("%d -> %d (%+d, %+.1f %%)", before, after, after-before, float64(after-before)*100/float64(before))
}
