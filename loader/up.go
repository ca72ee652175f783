// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// change is one run of Up: what is made for it, and how to take back what it did.
type change struct {
	options      Options
	pins         pin.Dir
	old          *Filter     // nil when nothing ran
	state        *maps.State // what the new policy goes on with, or nil
	maintains    bool        // what runs, of which nobody has named anything anew
	damaged      bool        // what runs lacks so many of its pins that there is no old
	older        *pin.Dir    // of an older version, whose filter is taken over
	readable     *maps.Older // what is kept of it, or nil where that cannot be read
	numbered     bool        // the rules have its numbers, so its counters can go on
	unreadable   bool        // its flows
	set          *maps.Set
	factory      *factory
	grouping     grouping                                                       // of interfaces by the rules
	load         func(t *target, name, direction string) (*ebpf.Program, error) // gets a program for a target
	tools        *tools
	constants    maps.Constants // of no interface yet
	listsChanged bool           // the gate has bits of lists that have gone
	report       UpReport
	targets      []*target
	switchover   *switchover        // nil while nothing that runs is replaced
	bypassed     []Interface        // whose drivers do not run what is attached
	replaced     []*ebpf.Program    // of an older version
	retired      []*hook.Attachment // what others stand in for from now on
	undo         []func() error
	committed    bool // the new policy stands
	pages        *pages
	handover     bool // XDP and TC both filter a device
}

// Up puts the policy in force on the interfaces, and on those that are filtered already. Either all of it happens or
// nothing: what fails is taken back. Live connections are entered as flows before anything drops.
// The context bounds the wait for other commands.
func Up(ctx context.Context, o Options) (*UpReport, error) {
	report, err := up(ctx, o)
	return report, permissionError(err)
}

func up(ctx context.Context, o Options) (_ *UpReport, err error) {
	if o.Mode == "" {
		o.Mode = ModeAuto
	}
	o.Running = o.Running || o.Policy == nil
	c := &change{options: o, maintains: o.Policy == nil}
	c.load = c.loadNew
	if c.pins, err = pin.At(o.PinPath); err != nil {
		return nil, err
	}
	unlock, err := c.pins.Claim(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()

	c.old, err = open(ctx, c.pins)
	older := errors.Is(err, ErrOlderSchema)
	switch {
	case (older || errors.Is(err, ErrNotRunning)) && o.Running:
		return nil, errors.Join(err, c.pins.Remove())
	case older || errors.Is(err, ErrNotRunning):
		if err := c.pins.Forget(ctx); err != nil {
			return nil, err
		}
	case errors.Is(err, ErrDamaged):
		if err := c.openDamaged(err); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		defer c.old.Close()
		c.report.Updated, c.state = true, c.old.set.State
		for _, r := range c.old.renames {
			c.warn("%s", r)
		}
		if lost := c.old.Missing(); len(lost) > 0 {
			c.warn("pins were missing, and have been put back: %s", strings.Join(lost, ", "))
		}
	}
	if other, ok := c.pins.OtherVersion(); older && ok {
		if _, err := followRenames(other); err != nil {
			return nil, err
		}
		c.older = &other
		c.report.Updated = true
		c.openOlder()
	}
	if err := c.keep(); err != nil {
		return nil, err
	}
	c.warnOfRouted()
	if c.old != nil && o.Look {
		c.bypassed, err = c.old.Bypassed(ctx, LookTime)
		if errors.Is(err, fs.ErrPermission) { // CAP_NET_RAW is for this look alone
			c.warn("%v: whether drivers run the programs is not known", err)
		} else if err != nil {
			return nil, err
		}
	}
	if err := forgetGone(c.pins); err != nil {
		return nil, err
	}
	if done, err := c.putInPlace(); done || err != nil {
		return &c.report, err
	}
	defer c.close()
	defer func() {
		if err != nil {
			err = errors.Join(err, c.rollback())
		}
	}()
	if err := c.chooseTargets(); err != nil { // whose groups need tables
		return nil, err
	}
	if err := c.build(); err != nil {
		return nil, err
	}
	if err := c.attach(); err != nil {
		return nil, err
	}
	return &c.report, c.commit()
}

// keep takes from the running filter what the options leave to it. The lock is held, so no command changes it meanwhile.
func (c *change) keep() error {
	o := &c.options
	if c.old == nil || o.Policy != nil && !o.KeepRuntime {
		return nil
	}
	if o.Policy == nil {
		var err error
		if o.Policy, err = c.old.Saved(); err != nil {
			return err
		}
		o.Config = c.old.Config()
	}
	rules, err := c.old.set.Rules()
	if err != nil {
		return err
	}
	c.keepRuntime(rules)
	return nil
}

// keepRuntime adds those of the rules that are not in the file to the policy.
func (c *change) keepRuntime(rules []maps.Rule) {
	var runtime []policy.Rule
	for _, r := range rules {
		if !r.Runtime {
			continue
		}
		rule := r.Rule
		// They mean what they meant when they were opened, and are not to look as if they followed a list.
		if c.options.KeepRuntime {
			spelled, stale := rule.SpellStale(c.options.Policy.Lists)
			if rule = spelled; stale {
				c.warn("rule %q was opened at runtime, with what its list held then, and stays like that: it is shown with addresses now", r.Rule)
			}
		}
		runtime = append(runtime, rule)
	}
	with, added := c.options.Policy.WithRules(runtime)
	c.options.Policy = with
	c.options.Runtime = append(c.options.Runtime, added...)
}

// build makes the maps and fills them, beside what runs.
func (c *change) build() error {
	spec, err := bpf.LoadFirewall()
	if err != nil {
		return err
	}
	interfaces, err := readInterfaces(c.filtered())
	if err != nil {
		return err
	}
	names := make([]string, len(interfaces))
	for i, iface := range interfaces {
		names[i] = iface.Name
	}
	maps.Resize(spec, c.options.Policy, names...)
	var oldRules []maps.Rule
	capacity := uint32(0) // rules keep their numbers, so there is room for the highest as long as the filter runs
	if c.old != nil {
		if oldRules, err = c.old.set.Rules(); err != nil {
			return err
		}
		capacity = c.old.set.Capacity()
	}
	oldRules = append(oldRules, c.options.Former...)
	for _, r := range oldRules {
		capacity = max(capacity, uint32(r.ID)+1)
	}
	maps.ResizeRules(spec, max(capacity, spec.Maps[bpf.FirewallMapRules].MaxEntries))
	if err := c.resizeLedger(spec); err != nil {
		return err
	}
	blocking, former, err := c.blocking()
	if err != nil {
		return err
	}
	if err := blocking.Resize(spec, former); err != nil {
		return err
	}
	if c.set, err = maps.NewSet(spec, c.state); err != nil {
		return err
	}
	if c.pages, err = newPages(c.set, c.pins); err != nil {
		return err
	}
	c.factory = newFactory(spec, c.set)
	if err := c.openStandby(); err != nil {
		return err
	}
	features := maps.FeaturesOf(c.options.Policy.Open)
	if err := c.set.SetFeatures(features); err != nil {
		return err
	}
	if err := c.makeTables(); err != nil {
		return err
	}
	most, err := c.set.MaxFlows()
	if err != nil {
		return err
	}
	if want := c.options.Policy.FlowLimit(); int(most) != want {
		c.warn("%s", KeepsSize(int(most), want))
	}
	numbered, err := maps.NumberAnew(c.options.Policy.Open, oldRules, c.set.Capacity())
	if err != nil {
		return err
	}
	rules := c.newRules(numbered)
	c.set.SetInterfaces(interfaces)
	if err := c.set.PutRules(rules, nil, oldRules); err != nil {
		return err
	}
	c.inheritCounters()
	if err := c.putBlocking(blocking, former); err != nil {
		return err
	}
	own, shared, err := host.LocalPrefixes()
	if err != nil {
		return err
	}
	if err := c.set.PutLocal(own, shared); err != nil {
		return err
	}
	if c.tools, err = c.factory.tools(c.options.Policy); err != nil {
		return err
	}
	running := maps.Running{Policy: c.options.Policy, Config: c.options.Config}
	if c.old != nil {
		running.HZ = c.old.running.HZ
	} else if running.HZ, err = measureHZ(c.tools.clock); err != nil {
		return err
	}
	if running.Netns, err = host.NetnsCookie(); err != nil {
		return err
	}
	if err := c.putBans(running.HZ); err != nil {
		return err
	}
	if err := c.set.PutRunning(&running); err != nil {
		return err
	}
	c.constants = maps.Constants{
		Policy:   c.options.Policy,
		HZ:       running.HZ,
		Features: features,
	}
	if err := os.RemoveAll(c.pins.Next()); err != nil {
		return err
	}
	c.onUndo(func() error { return os.RemoveAll(c.pins.Next()) })
	for _, dir := range []string{c.pins.Next(), c.pins.NextState(), objectDir(c.pins.Next())} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	// Before anything runs on them: should this command die, the next one finds what its programs use.
	if err := c.set.Ruleset.Pin(c.pins.Next()); err != nil {
		return err
	}
	if err := c.set.State.Pin(c.pins.NextState()); err != nil {
		return err
	}
	return c.tools.pin(c.pins.Next())
}

// newRules returns the rules of the new policy, which have their numbers.
func (c *change) newRules(numbered []policy.NumberedRule) []maps.Rule {
	runtime := policy.IndexRules(c.options.Runtime)
	rules := make([]maps.Rule, len(numbered))
	for i, n := range numbered {
		rules[i].NumberedRule = n
		if len(runtime) > 0 {
			_, rules[i].Runtime = runtime[n.Rule.Key()]
		}
	}
	return rules
}

// commit makes the new policy the one that later commands find.
func (c *change) commit() error {
	c.committed = true
	c.undo = nil // from here on the new policy stands; a later command finishes what is cut off
	if c.switchover != nil {
		if err := c.switchover.end(); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(c.retired, func(a *hook.Attachment) bool { return !a.IsXDP() }) {
		// What came in before XDP was there may still be on its way to TC, and nothing else would filter it.
		time.Sleep(transitTime)
	}
	for _, a := range c.retired {
		if err := a.Detach(); err != nil {
			return err
		}
	}
	if err := c.endWatching(); err != nil {
		return err
	}
	c.endLedger()
	for _, t := range c.targets {
		if !c.report.Updated || t.oldIn != nil && t.oldOut != nil {
			continue
		}
		if err := hook.RemoveLeftovers(c.pins.Link(t.name()), t.name(), t.device.Attrs().Index); err != nil {
			return err
		}
	}
	if c.older != nil {
		if err := c.pins.Adopt(*c.older); err != nil {
			return err
		}
	}
	if err := c.pins.Promote(); err != nil {
		return err
	}
	if err := c.recordModes(); err != nil {
		return err
	}
	if err := c.letGo(); err != nil {
		return err
	}
	f, err := open(context.Background(), c.pins)
	if err != nil {
		return err
	}
	defer f.Close()
	if c.listsChanged {
		if err := f.set.TidyGate(); err != nil {
			return err
		}
	}
	if c.report.Interfaces, err = f.Interfaces(); err != nil || len(c.options.LetGo) == 0 {
		return err
	}
	filtered, err := f.filteredNow()
	if err != nil {
		return err
	}
	return f.syncInterfaces(filtered) // without those that were let go
}

// filtered returns the interfaces that are going to be filtered.
func (c *change) filtered() (names []string) {
	for _, t := range c.targets {
		names = append(names, t.name())
	}
	return names
}

func (c *change) onUndo(step func() error) { c.undo = append(c.undo, step) }

func (c *change) rollback() error {
	var errs []error
	for _, step := range slices.Backward(c.undo) {
		errs = append(errs, step())
	}
	if !c.committed && c.old == nil && !c.damaged {
		errs = append(errs, c.pins.Remove())
	}
	return errors.Join(errs...)
}

func (c *change) warn(format string, args ...any) {
	c.report.Warnings = append(c.report.Warnings, fmt.Sprintf(format, args...))
}

func (c *change) close() {
	if c.switchover != nil {
		c.switchover.Close()
	}
	for _, t := range c.targets {
		t.close()
	}
	for _, prog := range c.replaced {
		prog.Close()
	}
	if c.factory != nil {
		c.factory.Close()
	}
	if c.set != nil {
		c.set.Close()
	}
	if c.tools != nil {
		c.tools.Close()
	}
	if c.damaged && c.state != nil {
		c.state.Close()
	}
}
