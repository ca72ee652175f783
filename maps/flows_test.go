// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

func TestFlowMemory(t *testing.T) {
	if got := FlowMemory(policy.DefaultMaxFlows); got/1e6 != 34 {
		t.Errorf("the default table takes %d bytes, and README says 34 MB", got)
	}
}

func TestConnectionsThatAreOverGiveWay(t *testing.T) {
	var names []string
	for _, s := range FlowStates() {
		if givesWay(&bpf.FirewallFlow{State: uint8(s)}) {
			names = append(names, s.String())
		}
	}
	if want := []string{"tcp-last-ack", "tcp-time-wait", "tcp-close"}; !slices.Equal(names, want) {
		t.Errorf("these give way: %q, want %q", names, want)
	}
}

// Sorted, each flow that lives comes once, however few are held at a time.
func TestSortedFlows(t *testing.T) {
	set := newSet(t, policy.Default(), nil)
	tags, err := set.State.memory(bpf.FirewallMapFlowTags)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := set.State.memory(bpf.FirewallMapFlows)
	if err != nil {
		t.Fatal(err)
	}
	const now = 1000
	put := func(place int, f *Flow) {
		view[bpf.FirewallEntry](entries)[place] = f.Seed(false).Entry
		word := place % placesPerSet
		view[bpf.FirewallTags](tags)[place/placesPerSet].Words[word/tagsPerWord] |= 7 << (tagBits * (word % tagsPerWord))
	}
	flow := func(protocol uint8, local, remote string) *Flow {
		return &Flow{Protocol: protocol, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), State: 3, Expires: now + 1}
	}
	var want []string
	text := func(f *Flow) string { return fmt.Sprint(f.Protocol, f.Local, f.Remote) }
	random := rand.New(rand.NewPCG(1, 2))
	places := random.Perm(len(entries) / 64)
	next := 0
	add := func(f *Flow) {
		put(places[next], f)
		next++
	}
	for _, protocol := range []uint8{1, 6, 17} {
		for _, local := range []string{"10.0.0.2", "10.0.0.10", "192.0.2.1", "[2001:db8::1]", "[2001:db8::a00]"} {
			for _, port := range []int{9, 80, 443} {
				remotes := []string{"198.51.100.1:22", "198.51.100.1:1000", "198.51.100.20:5"}
				if strings.HasPrefix(local, "[") {
					remotes = []string{"[fe80::1]:5", "[fe80::1]:22", "[fe80::2]:1"}
				}
				for _, remote := range remotes {
					f := flow(protocol, fmt.Sprintf("%s:%d", local, port), remote)
					want = append(want, text(f))
					add(f)
				}
			}
		}
	}
	for _, twice := range []string{"10.0.0.2:9", "192.0.2.1:443"} {
		add(flow(6, twice, "198.51.100.1:22"))
	}
	dead, killed := flow(6, "10.0.0.3:1", "10.0.0.4:1"), flow(6, "10.0.0.3:2", "10.0.0.4:2")
	dead.Expires, killed.State = now, FlowKilled
	add(dead)
	add(killed)
	for _, atOnce := range []int{1, 2, 3, 7, len(want) - 1, len(want), 2 * len(want)} {
		var got []string
		if err := set.sortedFlows(now, atOnce, func(f *Flow) bool {
			got = append(got, text(f))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%d at a time:\n got %q\nwant %q", atOnce, got, want)
		}
	}
	n := 0
	if err := set.SortedFlows(now, func(*Flow) bool { n++; return n < 5 }); err != nil || n != 5 {
		t.Errorf("after the fifth was the last, %d came, %v", n, err)
	}
}
