// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/loader"
)

// spare takes out of a policy what this host lives on, as far as that can be found out, and notes it once.
func (fl *Follower) spare(s *source) {
	if fl.fw.isForced(s.stamp()) {
		return
	}
	var spared []string
	s.policy, spared, s.unguarded = fl.fw.sparing(s.policy)
	if text := strings.Join(spared, "\n"); text != fl.spared {
		fl.spared = text
		fl.warn(spared)
	}
}

// Spare puts the policy file in force anew if it blocks what this host lives on, as when the network has been configured
// since, unless somebody has insisted on that.
func (fl *Follower) Spare(ctx context.Context, f Filter) []Note {
	fl.complain(fl.spareBans(ctx, f))
	blocked, err := fl.fw.blockedVitals(f)
	fl.complain(err)
	text := strings.Join(blocked, "; ")
	if text == "" || text == fl.blocked || err != nil {
		fl.blocked = text
		return fl.takeNotes()
	}
	was, err := fl.fw.readApplied()
	if err != nil || fl.fw.isForced(was) {
		fl.complain(err)
		return fl.takeNotes()
	}
	fl.blocked = text
	c := fl.begin(ctx)
	if c == nil {
		fl.blocked = "" // in a moment
		return fl.takeNotes()
	}
	defer c.end()
	s, err := fl.read()
	saved, failed := f.Saved()
	if err != nil || failed != nil || was != s.stamp() || !means(s.policy, saved) {
		if err == nil && was != s.stamp() {
			fl.seen = "" // it is still to be looked at
		}
		fl.note(Warning, "%s: this is not what %s says now, and stays", text, fl.config)
		return fl.takeNotes()
	}
	if s.unguarded != nil {
		fl.complain(s.unguarded)
		fl.blocked = "" // once that is known
		return fl.takeNotes()
	}
	fl.complain(fl.up(ctx, loader.Options{Policy: s.policy, Config: fl.config, Running: true, KeepRuntime: true}))
	return fl.takeNotes()
}

// spareBans ends bans of what this host lives on, as when the default route has changed since, unless somebody has insisted
// on them.
func (fl *Follower) spareBans(ctx context.Context, f Filter) error {
	hit, err := fl.fw.bannedVitals(f)
	if err != nil || len(hit) == 0 || maps.Equal(hit, fl.forcedBans) {
		return err
	}
	c := fl.begin(ctx)
	if c == nil {
		return nil // at the next look
	}
	defer c.end()
	toChange, err := fl.fw.openToChange(ctx)
	if err != nil {
		return err
	}
	defer toChange.Close()
	hit, err = fl.fw.bannedVitals(toChange) // or somebody has unbanned them meanwhile
	if err != nil || len(hit) == 0 {
		return err
	}
	all := maps.Clone(hit)
	if err := fl.fw.dropForced(hit); err != nil {
		return err
	}
	if len(hit) == 0 {
		fl.forcedBans = all // which is not to be looked up at each look
		return nil
	}
	prefixes := slices.Collect(maps.Keys(hit))
	complete := fl.fw.Journal().Begin()
	if _, err := toChange.RemoveBans(prefixes); err != nil {
		return err
	}
	var texts []string
	for p, v := range hit {
		what := "is"
		if !p.IsSingleIP() {
			what = "holds " + v.addr.String() + ","
		}
		texts = append(texts, fmt.Sprintf("the ban of %s has ended, as it %s %s; \"portcullis ban --force\" bans it", bans.Text(p), what, v.why))
	}
	slices.Sort(texts)
	fl.warn(foldTexts(texts))
	text, err := fl.fw.record(toChange, complete, func(j bans.Journal) error {
		others := fl.fw.overshadowed()
		for _, p := range prefixes {
			others.drop(p, func(string) bool { return true })
		}
		return errors.Join(j.Remove(prefixes), others.save())
	})
	if text != "" {
		fl.warn([]string{text})
	}
	return err
}
