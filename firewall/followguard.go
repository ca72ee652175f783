// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

// guard refuses a file that takes away the way in by which it could be repaired: one under which no sshd could be reached
// that can be now. See also guardLists.
func (fl *Follower) guard(s *source, f Filter) error {
	if err := fl.guardLists(s, f); err != nil {
		return err
	}
	closed, open, err := fl.fw.user.SSHReach(s.policy)
	if err != nil {
		return err
	}
	if len(closed) == 0 || len(open) > 0 || s.policy.WatchOnly {
		return nil
	}
	now, err := f.Policy()
	if err != nil {
		return err
	}
	_, open, err = fl.fw.user.SSHReach(now)
	if reached := len(open) > 0 || now.WatchOnly; err != nil || !reached { // it is no worse than now
		return err
	}
	return fmt.Errorf("%s: an sshd listens on port %d, which no rule opens: add \"%d/tcp\", or run \"portcullis apply --force\"",
		fl.config, closed[0], closed[0])
}

// guardLists refuses a file whose lists may cut off what this host lives on, which nobody has asked for.
func (fl *Follower) guardLists(s *source, f Filter) error {
	if s.unguarded != nil {
		fl.seen = "" // to be looked at again, as nobody will change it
		return fmt.Errorf("%s: cannot find out whether its lists block what this host lives on: %w", fl.config, s.unguarded)
	}
	return fl.keepLost(s, f)
}

// keepLost keeps in force what lists hold whose copies have become unreadable since: nobody has asked for them to hold
// nothing. What else the file says counts.
func (fl *Follower) keepLost(s *source, f Filter) error {
	lost := slices.DeleteFunc(s.policy.Named(), func(l policy.List) bool { return l.Missing == "" })
	if len(lost) == 0 {
		return nil
	}
	saved, err := f.Saved()
	if err != nil {
		return err
	}
	p := s.policy.Clone()
	var mistakes []error
	trusts := false
	for _, l := range lost {
		if !slices.ContainsFunc(saved.Lists, func(was policy.List) bool { return was.Name == l.Name && was.URL == l.URL }) {
			continue // it never held anything
		}
		blocked, err := keepBlocked(p, saved, l.Name, f)
		if err != nil {
			return err
		}
		trusted := slices.ContainsFunc(saved.Trust, func(was policy.Source) bool { return was.List == l.Name && was.Holds.Count > 0 })
		if trusts = trusts || trusted; !blocked && !trusted {
			continue
		}
		mistakes = append(mistakes, fmt.Errorf("%s: list %s from %s would hold nothing any more, and stays as it is until it has been fetched: %s", fl.config, l.Name, l.URL, l.Missing))
	}
	if len(mistakes) == 0 {
		return nil
	}
	if trusts { // of all that is trusted nobody knows what is by which list
		p.Block, p.Trust = saved.Block, saved.Trust
	}
	s.policy, s.mistakes = p, errors.Join(append(mistakes, s.mistakes)...)
	told := fl.told
	if fl.tell(s.mistakes); fl.told != told {
		fl.note(Error, "%s", oneLine(s.mistakes))
	}
	return nil
}

// keepBlocked gives a list of a new policy the networks that it blocks in force, and reports whether there are any.
func keepBlocked(p, saved *policy.Policy, list string, f Filter) (bool, error) {
	isList := func(s policy.Source) bool { return s.List == list }
	at, was := slices.IndexFunc(p.Block, isList), slices.IndexFunc(saved.Block, isList)
	if at < 0 || was < 0 || saved.Block[was].Holds.Count == 0 {
		return false, nil
	}
	holds := *saved.Block[was].Holds // it counts as the same list
	holds.Prefixes = []netip.Prefix{}
	if err := f.EachBlocked(func(by string, network netip.Prefix) {
		if by == list {
			holds.Prefixes = append(holds.Prefixes, network)
		}
	}); err != nil {
		return false, err
	}
	p.Block[at].Holds = &holds
	return true, nil
}
