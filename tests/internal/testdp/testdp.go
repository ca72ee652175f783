// SPDX-License-Identifier: Apache-2.0

// Package testdp loads the datapath with a policy and runs frames through it, one at a time and attached to nothing.
// The kernel's BPF_PROG_TEST_RUN lets them come from lo, whose MAC is all zeroes, or from the device that a context
// names.
package testdp

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// HZ is how many jiffies the tests' clock has a second. The kernel's own are the same or longer, so a test that moves
// the clock to a second before an end has at least that second to get there.
const HZ = 1000

// Options say what is loaded.
type Options struct {
	Policy      string // the text of a policy file
	L3          bool   // a device without link headers
	MAC         [6]byte
	MultiBuffer bool
	ManyDevices bool   // one program for many
	Rules       uint32 // room for this many; 0 is enough for the policy
	Interface   string // whose rules count; "" is one that no rule names
	Bans        uint32 // room for this many addresses and networks of each family; 0 is a few
	Blocking    uint32 // room for this many ranges of block lists; 0 is a few
}

// Datapath is a loaded datapath with maps of its own.
type Datapath struct {
	Set      *maps.Set
	Policy   *policy.Policy
	programs map[string]*ebpf.Program
	rules    map[string]maps.Reason
	seen     map[maps.Reason]uint64
	options  Options
	group    policy.Group
	close    func()
}

// Open loads the datapath. It takes root, and the kernel a good part of a second.
func Open(o Options) (_ *Datapath, err error) {
	spec, p, err := o.spec(true)
	if err != nil {
		return nil, err
	}
	set, err := maps.NewSet(spec, nil)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			set.Close()
		}
	}()
	group := policy.GroupOf(p.Open, o.Interface)
	if err := errors.Join(set.SetFeatures(maps.FeaturesOf(p.Open)), set.AddTables([]policy.Group{group})); err != nil {
		return nil, err
	}
	numbered, err := maps.Number(p.Open, nil, set.Capacity())
	if err != nil {
		return nil, err
	}
	d := &Datapath{Set: set, Policy: p, rules: make(map[string]maps.Reason), options: o, group: group}
	rules := make([]maps.Rule, len(numbered))
	for i, n := range numbered {
		rules[i].NumberedRule = n
		d.rules[n.Rule.String()] = maps.RuleReason(n.ID)
	}
	if err := set.PutRules(rules, nil, nil); err != nil {
		return nil, err
	}
	all, err := set.AllOf(group)
	if err != nil {
		return nil, err
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: all})
	if err != nil {
		return nil, err
	}
	d.programs = collection.Programs
	d.close = func() { collection.Close(); set.Close() }
	if d.seen, err = set.Counters(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// spec returns the object with the options' constants, and their policy. The test clock is one that Advance can move.
func (o *Options) spec(testClock bool) (*ebpf.CollectionSpec, *policy.Policy, error) {
	p, err := policy.Parse("policy", []byte("interfaces: [eth0]\n"+o.Policy))
	if err != nil {
		return nil, nil, err
	}
	spec, err := bpf.LoadFirewall()
	if err != nil {
		return nil, nil, err
	}
	maps.Resize(spec, p)
	shrink(spec, p, o)
	constants := o.constants(p, testClock)
	if o.MultiBuffer {
		spec.Programs[bpf.FirewallProgPortcullisXdp].Flags |= xdpHasFrags
	}
	return spec, p, constants.Set(spec)
}

func (o *Options) constants(p *policy.Policy, testClock bool) maps.Constants {
	return maps.Constants{
		Policy: p.For(o.Interface), HZ: HZ, Ethernet: !o.L3, MAC: o.MAC, Page: 1,
		MultiBuffer: o.MultiBuffer, ManyDevices: o.ManyDevices, Features: maps.FeaturesOf(p.Open), TestClock: testClock,
	}
}

// shrink makes the tables small, where the policy does not say how big they are to be: each case of a test begins with
// empty ones and ends with counters that are read, and takes a hundred times as long with tables for a server.
func shrink(spec *ebpf.CollectionSpec, p *policy.Policy, o *Options) {
	for _, name := range []string{
		bpf.FirewallMapBans4, bpf.FirewallMapBans6, bpf.FirewallMapBanNetworks4, bpf.FirewallMapBanNetworks6,
	} {
		spec.Maps[name].MaxEntries = max(o.Bans, 64)
	}
	spec.Maps[bpf.FirewallMapRangeLines].MaxEntries += o.Blocking
	spec.Maps[bpf.FirewallMapRangeBuckets].MaxEntries += 2 * o.Blocking
	if p.MaxFlows == policy.DefaultMaxFlows {
		maps.ResizeFlows(spec, 512)
	}
	if rules := max(o.Rules, 64); len(p.Open) < int(rules) {
		maps.ResizeRules(spec, rules)
	}
}

// SetInterfaces says what is known of interfaces by which packets come that are routed.
func (d *Datapath) SetInterfaces(tb testing.TB, list ...maps.Interface) {
	tb.Helper()
	if err := d.Set.SyncInterfaces(list); err != nil {
		tb.Fatal(err)
	}
}

// Close takes everything out of the kernel.
func (d *Datapath) Close() { d.close() }

// Rule returns the reason under which a rule of the policy counts, or 0 for one that the policy has not.
func (d *Datapath) Rule(text string) maps.Reason { return d.rules[text] }

// Clock returns the datapath's clock, for bans.
func (d *Datapath) Clock(tb testing.TB) maps.Clock {
	tb.Helper()
	return maps.Clock{Time: time.Now(), Jiffies: d.Now(tb), HZ: HZ}
}

// Forget removes all flows, marks and debts, and sets the clock and the counters back.
func (d *Datapath) Forget(tb testing.TB) {
	tb.Helper()
	d.Sweep(tb, true)
	for _, name := range []string{".data.used", ".data.syn_sent", ".data.own", ".data.others"} {
		m := d.Map(tb, name)
		if err := m.Put(uint32(0), make([]byte, m.ValueSize())); err != nil {
			tb.Fatal(err)
		}
	}
	buckets := d.Map(tb, bpf.FirewallMapLimitBuckets)
	for i := range buckets.MaxEntries() {
		if err := buckets.Put(i, &bpf.FirewallBucketSet{}); err != nil {
			tb.Fatal(err)
		}
	}
	var state bpf.FirewallState
	if err := d.Map(tb, ".data.state").Lookup(uint32(0), &state); err != nil {
		tb.Fatal(err)
	}
	d.putState(tb, &bpf.FirewallState{Sweep: 1, Asks: state.Asks}) // bans and lists stay
	d.Counted(tb)
}

// Map returns one of the maps by its name in the object.
func (d *Datapath) Map(tb testing.TB, name string) *ebpf.Map {
	tb.Helper()
	m, err := d.Set.Map(name)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// Advance moves the clock.
func (d *Datapath) Advance(tb testing.TB, by time.Duration) {
	tb.Helper()
	var state bpf.FirewallState
	if err := d.Map(tb, ".data.state").Lookup(uint32(0), &state); err != nil {
		tb.Fatal(err)
	}
	state.ClockOffset += uint64(maps.Jiffies(by, HZ))
	d.putState(tb, &state)
}

func (d *Datapath) putState(tb testing.TB, state *bpf.FirewallState) {
	tb.Helper()
	if err := d.Map(tb, ".data.state").Put(uint32(0), state); err != nil {
		tb.Fatal(err)
	}
}

// Counted returns by how much each counter went up since it was last asked. It leaves out what is told of frames in
// merged packets, which is beside the verdict.
func (d *Datapath) Counted(tb testing.TB) map[maps.Reason]uint64 {
	tb.Helper()
	now, err := d.Set.Counters()
	if err != nil {
		tb.Fatal(err)
	}
	up := make(map[maps.Reason]uint64)
	for reason, n := range now {
		if n != d.seen[reason] && reason != maps.Merged {
			up[reason] = n - d.seen[reason]
		}
	}
	d.seen = now
	return up
}

// Flows returns the flow table, dead entries too.
func (d *Datapath) Flows(tb testing.TB) []maps.Flow {
	tb.Helper()
	var flows []maps.Flow
	if err := d.Set.Flows(func(f *maps.Flow) bool {
		flows = append(flows, *f)
		return true
	}); err != nil {
		tb.Fatal(err)
	}
	return flows
}

// Sweep runs the program that takes dead flows out, or with flush all of them.
func (d *Datapath) Sweep(tb testing.TB, flush bool) bpf.FirewallSweep {
	tb.Helper()
	args := bpf.FirewallSweep{}
	if flush {
		args.Flush = 1
	}
	if _, err := d.programs[bpf.FirewallProgPortcullisSweep].Run(&ebpf.RunOptions{Context: &args, ContextOut: &args}); err != nil {
		tb.Fatal(fmt.Errorf("run the sweep: %w", err))
	}
	if err := d.Set.AfterSweep(); err != nil {
		tb.Fatal(err)
	}
	return args
}

// Enter writes a flow into the table, as one that user space knows of, and tells whether it is there now.
func (d *Datapath) Enter(tb testing.TB, f *maps.Flow, replace bool) bool {
	tb.Helper()
	args := f.Seed(replace)
	if _, err := d.programs[bpf.FirewallProgPortcullisEnter].Run(&ebpf.RunOptions{Context: args, ContextOut: args}); err != nil {
		tb.Fatal(fmt.Errorf("enter a flow: %w", err))
	}
	return args.Entered != 0
}

// Now returns the datapath's clock.
func (d *Datapath) Now(tb testing.TB) uint64 {
	tb.Helper()
	var jiffies uint64
	if _, err := d.programs[bpf.FirewallProgPortcullisClock].Run(&ebpf.RunOptions{Context: &jiffies, ContextOut: &jiffies}); err != nil {
		tb.Fatal(fmt.Errorf("read the clock: %w", err))
	}
	return jiffies
}
