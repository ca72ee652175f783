// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// fallBack returns what is put in force on a host without a filter, where something is wrong with the file.
func (fl *Follower) fallBack(wrong error) (*source, error) {
	if s, err := fl.fw.readDespiteLists(fl.config); err == nil {
		if s.mistakes != nil {
			fl.tell(s.mistakes)
			fl.note(Error, "%v; the last good copy is used until that is mended, from %s", s.mistakes, strings.Join(s.lists.copied(), ", "))
		}
		fl.spare(s)
		return s, nil
	}
	fl.reject(wrong, "")
	p, err := fl.lastResort()
	if err != nil {
		return nil, err
	}
	s := &source{path: fl.config, policy: p}
	fl.spare(s)
	return s, nil
}

// lastResort returns the policy for where the file cannot be used at all.
func (fl *Follower) lastResort() (*policy.Policy, error) {
	path := fl.fw.lastGoodPath()
	p, err := fl.fw.lastGood()
	if err == nil {
		fl.note(Error, "the last good policy is used instead, from %s", path)
		return p, nil
	}
	if path != "" && !errors.Is(err, fs.ErrNotExist) {
		fl.complain(err)
	}
	if p, err = fl.fw.builtInAtBoot(); err != nil {
		return nil, err
	}
	fl.note(Error, "there is no last good policy either: the built-in one is used, which opens nothing but %s", strings.Join(policy.Texts(p.Open), ", "))
	return p, nil
}

// apply puts a policy in force, beside or instead of that of a filter that runs, which may be nil. Decided says that the
// policy of that one stays, and is to be on all interfaces.
func (fl *Follower) apply(ctx context.Context, c *change, s *source, running Filter, decided bool) error {
	var filtered []string
	var saved *policy.Policy
	if running == nil {
		fl.complain(s.unguarded) // and to filter is better than not to
	} else {
		var err error
		if saved, err = running.Saved(); err != nil {
			return err
		}
		filtered = saved.Interfaces
	}
	if s.text != nil {
		fl.accept(s)
	}
	names, err := fl.interfaces(s.policy, filtered)
	if err != nil {
		if fl.waiting == nil {
			fl.note(Error, "nothing is filtered until there is a default route, because no interface is named, neither by %s nor here", fl.config)
		}
		fl.waiting = s
		return nil
	}
	fl.waiting = nil
	o := loader.Options{Interfaces: names, Policy: s.policy, Config: fl.config, KeepRuntime: true}
	if saved != nil {
		interfaces, err := running.Interfaces()
		if err != nil {
			return err
		}
		missing := slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(filtered, name) }) ||
			slices.ContainsFunc(interfaces, func(i loader.Interface) bool { return !i.Present && i.Pattern == "" }) // as when a pin was removed
		if !decided {
			o.LetGo = fl.letGo(saved, s.policy)
		}
		if (decided || means(s.policy, saved)) && !missing && len(o.LetGo) == 0 {
			fl.note(Info, "the filter runs already, with the same policy")
			fl.keepUp(ctx, c, s)
			return nil
		}
		if decided {
			o.Policy, o.KeepRuntime = nil, false // the one in force, as it is
		}
	}
	if err := fl.up(ctx, o); err != nil {
		if errors.Is(err, ErrLocked) && running == nil {
			fl.waiting = s
		}
		return err
	}
	fl.keepUp(ctx, c, s)
	return nil
}

// keepUp records that the policy is in force.
func (fl *Follower) keepUp(ctx context.Context, c *change, s *source) {
	c.recordApplied(s.stamp())
	fl.warn(fl.fw.keepNewLastGood(ctx, s.lists))
}

// means reports whether two policies are the same but for the interfaces, which may have been named on a command line.
func means(p, q *policy.Policy) bool {
	p = p.Clone()
	p.Interfaces = q.Interfaces
	return p.Equal(q)
}

// interfaces returns those to be filtered: the ones asked for, else the policy's, else those filtered already, else those
// of the last good policy, else that of the default route.
func (fl *Follower) interfaces(p *policy.Policy, filtered []string) ([]string, error) {
	lists := [][]string{fl.request.Interfaces, p.Interfaces, filtered}
	switch last, err := fl.fw.lastGood(); {
	case err == nil:
		lists = append(lists, last.Interfaces)
	case !errors.Is(err, fs.ErrNotExist):
		fl.complain(err)
	}
	for _, names := range lists {
		if len(names) > 0 {
			return union(names), nil
		}
	}
	name, err := fl.fw.kernel.DefaultInterface()
	return []string{name}, err
}

// up is the loader's Up for a host that nobody looks at: where it is refused for one interface, the others are filtered
// all the same.
func (fl *Follower) up(ctx context.Context, o loader.Options) error {
	o.PinPath, o.Mode, o.Wait = fl.fw.options.PinPath, fl.request.Mode, true
	ctx = fl.fw.waiting(ctx)
	report, err := fl.fw.kernel.Up(ctx, o)
	if err == nil {
		fl.noteApplied(report)
		return nil
	}
	if len(o.Interfaces) == 0 || errors.Is(err, loader.ErrNotRunning) {
		return err
	}
	// First what is filtered already, then each by itself.
	one := o
	one.Interfaces, one.Running = nil, true
	report, err = fl.fw.kernel.Up(ctx, one)
	switch {
	case err == nil:
		fl.noteApplied(report)
	case !errors.Is(err, loader.ErrNotRunning):
		fl.complain(err)
	}
	var errs []error
	for _, name := range o.Interfaces {
		one := o
		one.Interfaces = []string{name}
		report, err := fl.fw.kernel.Up(ctx, one)
		if errors.Is(err, loader.ErrForeignProgram) && o.Mode == loader.ModeAuto {
			fl.note(Warning, "%v", err)
			one.Mode = loader.ModeTC
			report, err = fl.fw.kernel.Up(ctx, one)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fl.noteApplied(report)
	}
	err = errors.Join(errs...)
	if len(errs) < len(o.Interfaces) {
		fl.complain(err)
		return nil
	}
	return err
}

func (fl *Follower) noteApplied(report *loader.UpReport) {
	fl.warn(report.Warnings)
	if report.Bans > 0 {
		fl.note(Info, "%d bans are in force again, from %s", report.Bans, fl.fw.Journal().Path())
	}
	for _, i := range report.Interfaces {
		switch unnamed := len(fl.named) > 0 && !policy.MatchAnyInterface(fl.named, i.Name) && !policy.MatchAnyInterface(fl.request.Interfaces, i.Name); {
		case i.Present:
			fl.note(Info, "%s is filtered (%s, egress %s)", i.Name, i.IngressText(), i.EgressText())
		case !unnamed:
			fl.note(Info, "%s is not there yet, and waited for", i.Name)
		}
	}
}

// letGo returns the patterns in force that the policy file has no more, nor the command line.
func (fl *Follower) letGo(inForce, p *policy.Policy) []string {
	if len(p.Interfaces) == 0 {
		return nil
	}
	return letGo(inForce.Interfaces, slices.Concat(p.Interfaces, fl.request.Interfaces))
}

// noteChanges notes what files that have changed change, once for what they say.
func (fl *Follower) noteChanges(s *source, saved *policy.Policy, changed []string) {
	if fl.tried == s.stamp() {
		return
	}
	fl.tried, fl.lastError = s.stamp(), ""
	for _, path := range changed {
		if !s.lists.isFetched(path) { // of these it is told when they are fetched
			fl.note(Info, "%s has changed", path)
		}
	}
	for _, c := range policy.Diff(saved, s.policy) {
		if c.Key != "interface" {
			fl.note(Info, "  %s", c)
		}
	}
}

// noteDropped warns of interfaces that the file names no longer: only Down takes the filter off.
func (fl *Follower) noteDropped(before, now []string, f Filter) {
	if len(now) == 0 {
		return // the file leaves them as they are
	}
	interfaces, err := f.Interfaces()
	fl.complain(err)
	for _, i := range interfaces {
		if !slices.Contains(before, i.Name) || policy.MatchAnyInterface(now, i.Name) {
			continue
		}
		state := "filtered"
		if !i.Present {
			state = "waited for"
		}
		fl.note(Warning, "%s is no longer in the file, but still %s: \"portcullis down %s\" ends that", i.Name, state, quote.Shell(i.Name))
	}
}
