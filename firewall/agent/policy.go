// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// start puts the filter up, or takes over the one that runs. A file that is bad must not leave the host open, so there
// are three policies to fall back to.
func (a *Agent) start() error {
	f, err := a.firewall.Open(a.PinPath)
	if err == nil {
		defer f.Close()
		if !a.ConfigGiven {
			a.Config = cmp.Or(f.Config(), a.Config)
		}
	} else if !errors.Is(err, loader.ErrNotRunning) && !errors.Is(err, loader.ErrOlderSchema) {
		return err
	}
	a.follow()
	turn := a.takeTurn()
	if turn == nil && f != nil {
		return nil
	}
	if turn != nil {
		defer turn.Release()
	}
	release := a.LockFile(a.Config)
	defer release()
	p, err := a.read()
	if err != nil && f != nil {
		a.reject(err, "; the policy in force stays")
		return nil
	}
	if err != nil {
		a.reject(err, "")
		if p, err = a.fallBack(); err != nil {
			return err
		}
	}
	return a.apply(p, f)
}

// reject tells what is wrong with the policy file, and what that means.
func (a *Agent) reject(err error, meaning string) {
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && a.existed:
		a.Log.Error("%s is gone%s", a.Config, meaning)
	case missing:
		a.Log.Error("there is no %s%s", a.Config, meaning)
	default:
		a.Log.Error("%v%s", err, meaning)
	}
}

// read reads the policy file. What is wrong with it is part of what systemd shows.
func (a *Agent) read() (*policy.Policy, error) {
	text, err := a.text()
	a.seen = text
	var p *policy.Policy
	if err == nil {
		a.existed = true
		p, err = policy.Parse(a.Config, []byte(text))
	}
	if err != nil {
		a.problem = "the policy file is not in force: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		return nil, err
	}
	a.problem, a.named = "", p.Interfaces
	return p, nil
}

// text returns what the policy file is, or why it cannot be read.
func (a *Agent) text() (string, error) {
	text, err := policy.ReadFile(a.Config)
	if err == nil {
		err = savefile.Check(a.Config)
	}
	if err != nil {
		err = fmt.Errorf("read policy: %w", err)
		return err.Error(), err
	}
	return string(text), nil
}

// fallBack returns the policy for a host without a filter and without a good file.
func (a *Agent) fallBack() (*policy.Policy, error) {
	p, err := a.LastGood.Load()
	if err == nil {
		a.Log.Error("the last good policy is used instead, from %s", a.LastGood)
		return p, nil
	}
	if a.LastGood != "" && !errors.Is(err, fs.ErrNotExist) {
		a.Log.Error("%v", err)
	}
	if p, err = a.BuiltIn(); err != nil {
		return nil, err
	}
	var open []string
	for _, r := range p.Open {
		open = append(open, r.String())
	}
	a.Log.Error("there is no last good policy either: the built-in one is used, which opens nothing but %s", strings.Join(open, ", "))
	return p, nil
}

// apply puts a policy in force, beside or instead of that of a filter that runs, which may be nil.
func (a *Agent) apply(p *policy.Policy, running Filter) error {
	var filtered []string
	var saved *policy.Policy
	if running != nil {
		var err error
		if saved, err = running.Saved(); err != nil {
			return err
		}
		filtered = saved.Interfaces
	}
	names, err := a.interfaces(p, filtered)
	if err != nil {
		if a.waiting == nil {
			a.Log.Error("nothing is filtered until there is a default route, because no interface is named, neither by %s nor here", a.Config)
		}
		a.waiting = p
		return nil
	}
	a.waiting = nil
	if saved != nil && means(p, saved) && !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(filtered, name) }) {
		a.Log.Info("the filter runs already, with the same policy")
		a.keep()
		return nil
	}
	return a.up(loader.Options{PinPath: a.PinPath, Interfaces: names, Mode: a.Mode, Policy: p, Config: a.Config, Wait: true, KeepRuntime: true})
}

// means tells whether two policies are the same but for the interfaces, which may have been named on a command line.
func means(p, q *policy.Policy) bool {
	p = p.Clone()
	p.Interfaces = q.Interfaces
	return p.Equal(q)
}

// interfaces returns those to be filtered: the ones named here, else the policy's, else those filtered already, else
// those of the last good policy, else that of the default route.
func (a *Agent) interfaces(p *policy.Policy, filtered []string) ([]string, error) {
	lists := [][]string{a.Interfaces, p.Interfaces, filtered}
	if last, err := a.LastGood.Load(); err == nil {
		lists = append(lists, last.Interfaces)
	}
	for _, names := range lists {
		if len(names) > 0 {
			return slices.Compact(slices.Sorted(slices.Values(names))), nil
		}
	}
	name, err := a.firewall.DefaultInterface()
	return []string{name}, err
}

// up is the loader's Up for a host that nobody looks at: where it is refused for one interface, the others are
// filtered all the same.
func (a *Agent) up(o loader.Options) error {
	report, err := a.firewall.Up(o)
	if err == nil {
		a.applied(report)
		return nil
	}
	if len(o.Interfaces) == 0 || errors.Is(err, loader.ErrNotRunning) {
		return err
	}
	// First what is filtered already, then each by itself.
	one := o
	one.Interfaces, one.Running = nil, true
	if report, err := a.firewall.Up(one); err == nil {
		a.applied(report)
	}
	var errs []error
	for _, name := range o.Interfaces {
		one := o
		one.Interfaces = []string{name}
		report, err := a.firewall.Up(one)
		if errors.Is(err, loader.ErrForeignProgram) && o.Mode == loader.ModeAuto {
			a.Log.Warn("%v", err)
			one.Mode = loader.ModeTC
			report, err = a.firewall.Up(one)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		a.applied(report)
	}
	err = errors.Join(errs...)
	if len(errs) < len(o.Interfaces) {
		a.complain(err)
		return nil
	}
	return err
}

func (a *Agent) applied(report *loader.UpReport) {
	a.warn(report.Warnings)
	for _, i := range report.Interfaces {
		switch unnamed := len(a.named) > 0 && !slices.Contains(a.named, i.Name) && !slices.Contains(a.Interfaces, i.Name); {
		case i.Present:
			a.Log.Info("%s is filtered (%s, egress %s)", i.Name, i.IngressText(), i.EgressText())
		case !unnamed:
			a.Log.Info("%s is not there yet, and waited for", i.Name)
		}
	}
	a.keep()
}

// tellDropped tells of interfaces that the file names no longer: only down takes the filter off.
func (a *Agent) tellDropped(before, now []string, f Filter) {
	if len(now) == 0 {
		return // the file leaves them as they are
	}
	interfaces, err := f.Interfaces()
	a.complain(err)
	for _, i := range interfaces {
		if !slices.Contains(before, i.Name) || slices.Contains(now, i.Name) {
			continue
		}
		state := "filtered"
		if !i.Present {
			state = "waited for"
		}
		a.Log.Warn("%s is no longer in the file, but still %s: \"portcullis down %s\" ends that", i.Name, state, i.Name)
	}
}

// keep keeps the policy in force for a boot at which the file is bad.
func (a *Agent) keep() {
	f, err := a.firewall.Open(a.PinPath)
	if err != nil {
		return // taken down meanwhile
	}
	defer f.Close()
	a.complain(a.LastGood.Keep(f))
}

// hangup does what SIGHUP asks for: the file is put in force, on all of its interfaces, also when nothing is filtered
// at the moment.
func (a *Agent) hangup() {
	a.Log.Info("reloading %s", a.Config)
	a.down = false
	a.complain(a.start())
}

// reload puts the policy file in force if it has changed. Commands write the file before they change the filter, and
// hold its lock till then: so what they did is found done.
func (a *Agent) reload() {
	if text, _ := a.text(); text == a.seen {
		return
	}
	turn := a.takeTurn()
	if turn == nil {
		return
	}
	defer turn.Release()
	release := a.LockFile(a.Config)
	defer release()
	defer a.tell()
	before := a.named
	p, err := a.read()
	f, notRunning := a.firewall.Open(a.PinPath)
	if notRunning != nil {
		if err != nil {
			a.reject(err, "")
		} else if a.waiting != nil {
			a.complain(a.apply(p, nil))
		}
		return
	}
	defer f.Close()
	if err != nil {
		a.reject(err, "; the policy in force stays")
		return
	}
	saved, err := f.Saved()
	if err != nil {
		a.complain(err)
		return
	}
	a.tellDropped(before, p.Interfaces, f)
	// An interface that was taken off by hand stays so, until it is named anew.
	added := slices.DeleteFunc(slices.Clone(p.Interfaces), func(name string) bool {
		return slices.Contains(before, name) || slices.Contains(saved.Interfaces, name)
	})
	if len(added) == 0 && means(p, saved) {
		a.keep()
		return
	}
	a.Log.Info("%s has changed", a.Config)
	for _, c := range policy.Diff(saved, p) {
		if c.Key != "interface" {
			a.Log.Info("  %s", c)
		}
	}
	a.complain(a.up(loader.Options{PinPath: a.PinPath, Interfaces: added, Mode: a.Mode, Policy: p, Config: a.Config, Wait: true, Running: true, KeepRuntime: true}))
}
