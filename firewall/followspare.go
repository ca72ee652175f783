// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"strings"

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
