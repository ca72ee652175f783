// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// FollowRequest says what a Follower puts in force.
type FollowRequest struct {
	Interfaces []string // beside those that the file names
	Mode       loader.Mode
	Wait       time.Duration // for another command, before the follower comes back to it later; 0: as the firewall does
}

// Follower keeps the policy file in force on a host that nobody looks at: what somebody at a terminal would be asked is
// decided here, and reported in notes.
type Follower struct {
	fw      *Firewall
	request FollowRequest
	config  string // the policy file
	notes   []Note

	lastError string // that was noted

	seen       string        // the stamp of the policy file when it was last read
	lists      []string      // the list files that it named, in order
	fetched    []policy.List // those of its lists that are fetched
	looked     looked
	tried      string                 // its stamp when it was last to be put in force
	steady     string                 // its stamp when Steady was last called
	told       string                 // the kind of the mistake that was noted last
	existed    bool                   // it has been read
	named      []string               // the interfaces that it named
	problem    string                 // what is wrong with it
	waiting    *source                // to be applied when it is known to which interface
	locked     bool                   // another command was at work when there was something to do
	spared     string                 // what was noted of what is not blocked
	blocked    string                 // what is blocked though this host lives on it
	forcedBans map[netip.Prefix]vital // that are in force though this host lives on whom they hit
	owed       bool                   // that was a start
	asked      bool                   // or a reload that somebody asked for
}

// Follow returns a follower of the policy file, which does nothing yet.
func (fw *Firewall) Follow(r FollowRequest) *Follower {
	return &Follower{fw: fw.Waiting(cmp.Or(r.Wait, fw.options.Wait)), request: r, config: fw.options.Config, looked: make(looked)}
}

// Config returns the policy file that is followed.
func (fl *Follower) Config() string { return fl.config }

// Files returns the files that are followed: the policy file, and those of its lists.
func (fl *Follower) Files() []string { return append([]string{fl.config}, fl.lists...) }

// Fetched returns those of the lists that come from a URL, also where something else is wrong with the policy file.
func (fl *Follower) Fetched() []policy.List { return fl.fetched }

// Problem says what is wrong with the policy file, or "".
func (fl *Follower) Problem() string { return fl.problem }

// Waits reports whether a policy waits for an interface to filter.
func (fl *Follower) Waits() bool { return fl.waiting != nil }

// StopWaiting forgets the policy that waits, because somebody has put the filter up.
func (fl *Follower) StopWaiting() { fl.waiting = nil }

// Delayed reports whether another command was at work, so that ApplyChanged is to be called again soon.
func (fl *Follower) Delayed() bool { return fl.locked }

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
	err = fl.startOrOwe(ctx, false)
	return fl.takeNotes(), err
}

// Reload puts the policy file in force because somebody asks for it, on all of its interfaces, also when nothing is
// filtered at the moment.
func (fl *Follower) Reload(ctx context.Context) []Note {
	fl.lastError = ""
	fl.note(Info, "reloading %s", fl.config)
	fl.complain(fl.startOrOwe(ctx, true))
	return fl.takeNotes()
}

// startOrOwe is start, which is tried again where another command is at work.
func (fl *Follower) startOrOwe(ctx context.Context, asked bool) error {
	err := fl.start(ctx, asked)
	if errors.Is(err, ErrLocked) {
		fl.locked, fl.owed, fl.asked = true, true, asked
		return nil
	}
	return err
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
	fl.owed, fl.asked = fl.locked, fl.locked && asked
	if c == nil {
		if f != nil {
			return nil
		}
		fl.owed = false
		c = &change{fw: fl.fw} // nothing is filtered: better now than in turn
	}
	defer c.end()
	c.recordStateDir()
	if err := c.lockFile(ctx, fl.config); errors.Is(err, ErrLocked) && f != nil {
		return err
	} else if err != nil {
		fl.complain(err)
	}
	s, err := fl.read()
	decided := false // what was decided at runtime stays, unless the file is asked for
	if err == nil && f != nil && !asked {
		decided, err = fl.isDecided(s)
	}
	if err == nil && f != nil && !decided {
		err = fl.guard(s, f)
	}
	if err != nil && f != nil {
		fl.reject(err, "; the policy in force stays")
		return nil
	}
	if err != nil {
		if s, err = fl.fallBack(err); err != nil {
			return err
		}
	}
	return fl.apply(ctx, c, s, f, decided)
}

// isDecided reports whether the policy file is as it was when somebody last decided what is in force.
func (fl *Follower) isDecided(s *source) (bool, error) {
	was, err := fl.fw.readApplied()
	return was == s.stamp(), err
}

// again makes a file that has been read count as changed, as what it says is not in force. Behind another command's lock
// it is tried soon, else when the next look at the file is due.
func (fl *Follower) again(err error) {
	fl.seen = ""
	fl.locked = errors.Is(err, ErrLocked)
}

// SetConfig makes another file the one that is followed.
func (fl *Follower) SetConfig(config string) {
	fl.config, fl.seen, fl.steady, fl.told = config, "", "", ""
	fl.named, fl.lists, fl.fetched, fl.existed, fl.problem = nil, nil, nil, false, ""
}

// read reads the policy file.
func (fl *Follower) read() (s *source, err error) {
	lists := fl.fw.newListFiles()
	text, err := readTrusted(fl.config)
	if err == nil {
		fl.existed = true
		s, err = parseSource(fl.config, text, lists)
	} else {
		text = []byte(err.Error())
	}
	fl.seen, fl.lists, fl.fetched = stamp(fl.config, text, lists), lists.paths(), lists.fetched
	if err == nil {
		fl.spare(s)
	}
	return s, err
}

// accept notes that the policy file is good, or good enough.
func (fl *Follower) accept(s *source) {
	fl.named = s.policy.Interfaces
	if s.mistakes != nil {
		fl.problem = "last good copies of lists are in force: " + oneLine(s.mistakes)
		return
	}
	if fl.problem != "" {
		fl.note(Info, "%s is good again", fl.config)
	}
	fl.problem, fl.told = "", ""
}

// look returns the stamp of the policy file as it is now.
func (fl *Follower) look() string {
	text, err := readTrusted(fl.config)
	if err != nil {
		text = []byte(err.Error())
	}
	lists := fl.fw.newListFiles()
	urls := make(map[string]policy.List)
	for _, l := range fl.fetched {
		urls[lists.store.Path(l.URL)] = l
	}
	return stampBy(fl.config, text, fl.lists, func(path string) string {
		return fl.looked.digest(path, func(path string) ([]byte, error) {
			if l, ok := urls[path]; ok {
				return lists.readURL(l)
			}
			return readTrustedList(path)
		})
	})
}

// Changed reports whether the policy file or a list file is another than when it was last read.
func (fl *Follower) Changed() bool { return fl.look() != fl.seen }

// Steady reports whether the policy file and its list files are as they were at the last call.
func (fl *Follower) Steady() bool {
	now := fl.look()
	steady := now == fl.steady
	fl.steady = now
	return steady
}

// ApplyWaiting puts the policy in force that waits for an interface, now that there may be one.
func (fl *Follower) ApplyWaiting(ctx context.Context) []Note {
	c := fl.begin(ctx)
	if c == nil {
		c = &change{fw: fl.fw} // nothing is filtered: better now than in turn
	}
	defer c.end()
	if fl.waiting != nil {
		fl.complain(fl.apply(ctx, c, fl.waiting, nil, false))
	}
	return fl.takeNotes()
}

// ApplyChanged puts the policy file in force if it has changed since somebody last decided what is in force.
func (fl *Follower) ApplyChanged(ctx context.Context) []Note {
	fl.applyChanged(ctx)
	return fl.takeNotes()
}

func (fl *Follower) applyChanged(ctx context.Context) {
	if fl.owed {
		fl.complain(fl.startOrOwe(ctx, fl.asked))
		return
	}
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
	before, seen := fl.named, fl.seen
	s, err := fl.read()
	f, notRunning := fl.fw.View(ctx)
	if notRunning != nil && !errors.Is(notRunning, loader.ErrNotRunning) {
		fl.complain(notRunning)
		fl.again(notRunning)
		return
	}
	if notRunning != nil {
		if err != nil {
			fl.rejectOnce(err, "")
		} else if fl.accept(s); fl.waiting != nil {
			fl.complain(fl.apply(ctx, c, s, nil, false))
		}
		return
	}
	defer f.Close()
	decided := false
	if err == nil {
		decided, err = fl.isDecided(s)
	}
	if err == nil && !decided {
		err = fl.guard(s, f)
	}
	if err != nil {
		fl.rejectOnce(err, "; the policy in force stays")
		return
	}
	saved, err := f.Saved()
	if err != nil {
		fl.complain(err)
		fl.again(err)
		return
	}
	fl.accept(s)
	if decided {
		fl.keepUp(ctx, c, s)
		return
	}
	fl.noteDropped(before, s.policy.Interfaces, f)
	// An interface that was taken off by hand stays so, until it is named anew.
	added := slices.DeleteFunc(slices.Clone(s.policy.Interfaces), func(name string) bool {
		return slices.Contains(before, name) || slices.Contains(saved.Interfaces, name)
	})
	ending := fl.letGo(saved, s.policy)
	if len(added) == 0 && len(ending) == 0 && means(s.policy, saved) {
		fl.keepUp(ctx, c, s)
		return
	}
	fl.noteChanges(s, saved, changedFiles(seen, fl.seen))
	if err := fl.up(ctx, loader.Options{Interfaces: added, LetGo: ending, Policy: s.policy, Config: fl.config, Running: true, KeepRuntime: true}); err != nil {
		fl.complain(err)
		fl.again(err)
		return
	}
	fl.tried = ""
	fl.keepUp(ctx, c, s)
}
