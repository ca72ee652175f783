// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// FollowRequest says what a Follower puts in force.
type FollowRequest struct {
	Interfaces []string // beside those that the file names
	Mode       loader.Mode
}

// Follower keeps the policy file in force on a host that nobody looks at: what somebody at a terminal would be asked is
// decided here, and told in notes.
type Follower struct {
	fw      *Firewall
	request FollowRequest
	config  string // the policy file
	notes   []Note

	lastError string // that was noted

	seen    string         // what the policy file was when it was last read
	steady  string         // what it was when Steady was last called
	existed bool           // it has been read
	named   []string       // the interfaces that it named
	problem string         // what is wrong with it
	waiting *policy.Policy // to be applied when it is known to which interface
	locked  bool           // another command was at work when there was something to do
}

// Level says how much a note matters.
type Level int

// The levels.
const (
	Info    Level = iota // what was done
	Warning              // what somebody should know
	Error                // what somebody has to look after
)

// Note is something that a Follower has to say.
type Note struct {
	Level Level
	Text  string
}

// Follow returns a follower of the policy file, which does nothing yet.
func (fw *Firewall) Follow(r FollowRequest) *Follower {
	return &Follower{fw: fw, request: r, config: fw.options.Config}
}

// Config returns the policy file that is followed.
func (fl *Follower) Config() string { return fl.config }

// Problem says what is wrong with the policy file, or "".
func (fl *Follower) Problem() string { return fl.problem }

// Waits reports whether a policy waits for an interface to filter.
func (fl *Follower) Waits() bool { return fl.waiting != nil }

// StopWaiting forgets the policy that waits, because somebody has put the filter up.
func (fl *Follower) StopWaiting() { fl.waiting = nil }

// Delayed reports whether another command was at work, so that the last call is to be made again.
func (fl *Follower) Delayed() bool { return fl.locked }

func (fl *Follower) note(level Level, format string, args ...any) {
	fl.notes = append(fl.notes, Note{level, fmt.Sprintf(format, args...)})
}

// complain notes an error, and the same one in a row only once: what goes on to fail is tried again and again.
func (fl *Follower) complain(err error) {
	if err != nil && err.Error() != fl.lastError {
		fl.lastError = err.Error()
		fl.note(Error, "%v", err)
	}
}

func (fl *Follower) warn(sentences []string) {
	for _, s := range sentences {
		fl.note(Warning, "%s", s)
	}
}

// told returns the notes, and forgets them.
func (fl *Follower) told() []Note {
	notes := fl.notes
	fl.notes = nil
	return notes
}

// begin begins a change. It returns nil where that has to wait: for another command, or for the end of a trial, which
// would undo it.
func (fl *Follower) begin(ctx context.Context) *change {
	fl.locked = false
	c, err := fl.fw.begin(ctx)
	if errors.Is(err, ErrLocked) {
		fl.locked = true
		return nil
	}
	if err != nil {
		fl.complain(err)
		return nil
	}
	fl.complain(c.failed)
	if c.Trial == nil {
		return c
	}
	fl.note(Info, "%s is on trial for another %s: %s waits for that", c.Trial.File, c.Trial.Due.Left().Round(time.Second), fl.config)
	c.end()
	return nil
}

// Start puts the filter up, or takes over the one that runs. A file that is bad must not leave the host open, so there
// are three policies to fall back to.
func (fl *Follower) Start(ctx context.Context) (notes []Note, err error) {
	err = fl.start(ctx, false)
	return fl.told(), err
}

// Reload puts the policy file in force because somebody asks for it, on all of its interfaces, also when nothing is
// filtered at the moment.
func (fl *Follower) Reload(ctx context.Context) []Note {
	fl.lastError = ""
	fl.note(Info, "reloading %s", fl.config)
	fl.complain(fl.start(ctx, true))
	return fl.told()
}

func (fl *Follower) start(ctx context.Context, asked bool) error {
	f, err := fl.fw.View(ctx)
	if err == nil {
		defer f.Close()
		if !fl.fw.options.ConfigGiven {
			fl.config = cmp.Or(f.Config(), fl.config)
		}
	} else if !errors.Is(err, loader.ErrNotRunning) && !errors.Is(err, loader.ErrOlderSchema) {
		return err
	}
	c := fl.begin(ctx)
	if c == nil {
		if f != nil {
			return nil
		}
		c = &change{fw: fl.fw} // nothing is filtered: better now than in turn
	}
	defer c.end()
	c.recordStateDir()
	if err := c.lockFile(ctx, fl.config); err != nil {
		fl.complain(err)
	}
	s, err := fl.read()
	if err == nil && f != nil {
		err = fl.guard(s, f)
	}
	if err != nil && f != nil {
		fl.reject(err, "; the policy in force stays")
		return nil
	}
	if err != nil {
		fl.reject(err, "")
		p, err := fl.fallBack()
		if err != nil {
			return err
		}
		s = &source{path: fl.config, policy: p}
	}
	return fl.apply(ctx, c, s, f, asked)
}

// SetConfig makes another file the one that is followed.
func (fl *Follower) SetConfig(config string) { fl.config, fl.seen = config, "" }

// reject tells what is wrong with the policy file, and what that means.
func (fl *Follower) reject(err error, meaning string) {
	fl.problem = "the policy file is not in force: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && fl.existed:
		fl.note(Error, "%s is gone%s", fl.config, meaning)
	case missing:
		fl.note(Error, "there is no %s%s", fl.config, meaning)
	default:
		fl.note(Error, "%v%s", err, meaning)
	}
}

// read reads the policy file.
func (fl *Follower) read() (*source, error) {
	text, err := readFile(fl.config)
	fl.seen = seenAs(text, err)
	if err != nil {
		return nil, err
	}
	fl.existed = true
	p, err := policy.Parse(fl.config, text)
	if err != nil {
		return nil, err
	}
	return &source{path: fl.config, text: text, policy: p}, nil
}

// accept takes it down that the policy file is good.
func (fl *Follower) accept(s *source) {
	if fl.problem != "" {
		fl.note(Info, "%s is good again", fl.config)
	}
	fl.problem, fl.named = "", s.policy.Interfaces
}

// seenAs stands for what a file is, or why it cannot be read.
func seenAs(text []byte, err error) string {
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Changed reports whether the policy file is another than when it was last read.
func (fl *Follower) Changed() bool { return seenAs(readFile(fl.config)) != fl.seen }

// Steady reports whether the policy file is as it was at the last call.
func (fl *Follower) Steady() bool {
	now := seenAs(readFile(fl.config))
	steady := now == fl.steady
	fl.steady = now
	return steady
}

// guard refuses a file that takes away what it takes to repair it: an empty one, as an editor leaves for a moment, and one
// under which no sshd could be reached that can be now.
func (fl *Follower) guard(s *source, f Filter) error {
	if len(bytes.TrimSpace(s.text)) == 0 {
		return fmt.Errorf("%s is empty: write \"open: []\" to close every port", fl.config)
	}
	closed, open, err := fl.fw.closedSSH(s.policy)
	if err != nil {
		return err
	}
	if len(closed) == 0 || len(open) > 0 {
		return nil
	}
	now, err := f.Policy()
	if err != nil {
		return err
	}
	if _, open, err = fl.fw.closedSSH(now); err != nil || len(open) == 0 {
		return err
	}
	return fmt.Errorf("%s: an sshd listens on port %d, which no rule opens: add \"%d/tcp\", or run \"portcullis apply --force\"",
		fl.config, closed[0], closed[0])
}

// fallBack returns the policy for a host without a filter and without a good file.
func (fl *Follower) fallBack() (*policy.Policy, error) {
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
	fl.note(Error, "there is no last good policy either: the built-in one is used, which opens nothing but %s", strings.Join(texts(p.Open), ", "))
	return p, nil
}

// apply puts a policy in force, beside or instead of that of a filter that runs, which may be nil.
func (fl *Follower) apply(ctx context.Context, c *change, s *source, running Filter, asked bool) error {
	var filtered []string
	var saved *policy.Policy
	if running != nil {
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
		fl.waiting = s.policy
		return nil
	}
	fl.waiting = nil
	o := loader.Options{Interfaces: names, Policy: s.policy, Config: fl.config, KeepRuntime: true}
	if saved != nil {
		was, err := fl.fw.readApplied()
		if err != nil {
			return err
		}
		// What was decided at runtime stays, unless the file is asked for.
		decided := !asked && was.is(fl.config, s.text)
		missing := slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(filtered, name) })
		if (decided || means(s.policy, saved)) && !missing {
			fl.note(Info, "the filter runs already, with the same policy")
			fl.keepUp(ctx, c, s)
			return nil
		}
		if decided {
			o.Policy, o.KeepRuntime = nil, false // the one in force, as it is
		}
	}
	if err := fl.up(ctx, o); err != nil {
		return err
	}
	fl.keepUp(ctx, c, s)
	return nil
}

// keepUp records that the policy is in force.
func (fl *Follower) keepUp(ctx context.Context, c *change, s *source) {
	c.recordApplied(fl.config, s.text)
	fl.warn(fl.fw.keepNewLastGood(ctx))
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
	if last, err := fl.fw.lastGood(); err == nil {
		lists = append(lists, last.Interfaces)
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
		fl.tellApplied(report)
		return nil
	}
	if len(o.Interfaces) == 0 || errors.Is(err, loader.ErrNotRunning) {
		return err
	}
	// First what is filtered already, then each by itself.
	one := o
	one.Interfaces, one.Running = nil, true
	if report, err := fl.fw.kernel.Up(ctx, one); err == nil {
		fl.tellApplied(report)
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
		fl.tellApplied(report)
	}
	err = errors.Join(errs...)
	if len(errs) < len(o.Interfaces) {
		fl.complain(err)
		return nil
	}
	return err
}

func (fl *Follower) tellApplied(report *loader.UpReport) {
	fl.warn(report.Warnings)
	for _, i := range report.Interfaces {
		switch unnamed := len(fl.named) > 0 && !slices.Contains(fl.named, i.Name) && !slices.Contains(fl.request.Interfaces, i.Name); {
		case i.Present:
			fl.note(Info, "%s is filtered (%s, egress %s)", i.Name, i.IngressText(), i.EgressText())
		case !unnamed:
			fl.note(Info, "%s is not there yet, and waited for", i.Name)
		}
	}
}

// tellDropped tells of interfaces that the file names no longer: only Down takes the filter off.
func (fl *Follower) tellDropped(before, now []string, f Filter) {
	if len(now) == 0 {
		return // the file leaves them as they are
	}
	interfaces, err := f.Interfaces()
	fl.complain(err)
	for _, i := range interfaces {
		if !slices.Contains(before, i.Name) || slices.Contains(now, i.Name) {
			continue
		}
		state := "filtered"
		if !i.Present {
			state = "waited for"
		}
		fl.note(Warning, "%s is no longer in the file, but still %s: \"portcullis down %s\" ends that", i.Name, state, i.Name)
	}
}

// ApplyWaiting puts the policy in force that waits for an interface, now that there may be one.
func (fl *Follower) ApplyWaiting(ctx context.Context) []Note {
	c := fl.begin(ctx)
	if c == nil {
		c = &change{fw: fl.fw} // nothing is filtered: better now than in turn
	}
	defer c.end()
	if fl.waiting != nil {
		fl.complain(fl.apply(ctx, c, &source{path: fl.config, policy: fl.waiting}, nil, false))
	}
	return fl.told()
}

// ApplyChanged puts the policy file in force if it has changed since somebody last decided what is in force.
func (fl *Follower) ApplyChanged(ctx context.Context) []Note {
	fl.applyChanged(ctx)
	return fl.told()
}

func (fl *Follower) applyChanged(ctx context.Context) {
	if !fl.Changed() {
		fl.locked = false
		return
	}
	c := fl.begin(ctx)
	if c == nil {
		return
	}
	defer c.end()
	if err := c.lockFile(ctx, fl.config); err != nil {
		fl.locked = errors.Is(err, ErrLocked)
		if !fl.locked {
			fl.complain(err)
		}
		return
	}
	before := fl.named
	s, err := fl.read()
	f, notRunning := fl.fw.View(ctx)
	if notRunning != nil {
		if err != nil {
			fl.reject(err, "")
		} else if fl.accept(s); fl.waiting != nil {
			fl.complain(fl.apply(ctx, c, s, nil, false))
		}
		return
	}
	defer f.Close()
	if err == nil {
		err = fl.guard(s, f)
	}
	if err != nil {
		fl.reject(err, "; the policy in force stays")
		return
	}
	saved, err := f.Saved()
	if err != nil {
		fl.complain(err)
		return
	}
	was, err := fl.fw.readApplied()
	if err != nil {
		fl.complain(err)
		return
	}
	fl.accept(s)
	if was.is(fl.config, s.text) {
		fl.keepUp(ctx, c, s)
		return
	}
	fl.tellDropped(before, s.policy.Interfaces, f)
	// An interface that was taken off by hand stays so, until it is named anew.
	added := slices.DeleteFunc(slices.Clone(s.policy.Interfaces), func(name string) bool {
		return slices.Contains(before, name) || slices.Contains(saved.Interfaces, name)
	})
	if len(added) == 0 && means(s.policy, saved) {
		fl.keepUp(ctx, c, s)
		return
	}
	fl.note(Info, "%s has changed", fl.config)
	for _, c := range policy.Diff(saved, s.policy) {
		if c.Key != "interface" {
			fl.note(Info, "  %s", c)
		}
	}
	if err := fl.up(ctx, loader.Options{Interfaces: added, Policy: s.policy, Config: fl.config, Running: true, KeepRuntime: true}); err != nil {
		fl.complain(err)
		return
	}
	fl.keepUp(ctx, c, s)
}
