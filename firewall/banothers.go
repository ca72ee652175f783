// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"errors"
	"io/fs"
	std "maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/maps"
)

// overshadowed holds bans that are not in the filter, as another one of the same source lasts longer. When that one is taken
// back, the next takes its place: programs that ban the same source for different reasons know nothing of each other. They
// are in a journal of their own, which is not there as long as there are none.
type overshadowed struct {
	journal bans.Journal
	of      map[netip.Prefix][]maps.Ban
	changed map[netip.Prefix]bool
	failed  error // to read them, of which save tells
}

// overshadowedSuffix is what is added to the path of the journal.
const overshadowedSuffix = ".others"

func (fw *Firewall) overshadowed() *overshadowed {
	o := &overshadowed{journal: bans.NewJournal(fw.Journal().Path() + overshadowedSuffix), changed: make(map[netip.Prefix]bool)}
	o.of, o.failed = o.journal.LoadEachReason(time.Now())
	return o
}

// put adds bans, of which each replaces one for the same reason.
func (o *overshadowed) put(list ...maps.Ban) {
	for _, b := range list {
		o.drop(b.Prefix, func(reason string) bool { return reason == b.Reason })
		o.of[b.Prefix] = append(o.of[b.Prefix], b)
		o.changed[b.Prefix] = true
	}
}

// drop ends those of a source that are for such a reason, and reports whether there was one.
func (o *overshadowed) drop(p netip.Prefix, isReason func(string) bool) bool {
	have := o.of[p]
	if !slices.ContainsFunc(have, func(b maps.Ban) bool { return isReason(b.Reason) }) {
		return false
	}
	o.changed[p] = true
	if have = slices.DeleteFunc(have, func(b maps.Ban) bool { return isReason(b.Reason) }); len(have) > 0 {
		o.of[p] = have
	} else {
		delete(o.of, p)
	}
	return true
}

// longest returns that of a source which ends last.
func (o *overshadowed) longest(p netip.Prefix) (b maps.Ban, ok bool) {
	for i, one := range o.of[p] {
		if i == 0 || !outlasts(&b, &one) {
			b = one
		}
	}
	return b, len(o.of[p]) > 0
}

// save writes what has changed.
func (o *overshadowed) save() error {
	if o.failed != nil || len(o.changed) == 0 {
		return o.failed
	}
	if len(o.of) == 0 {
		if err := os.Remove(o.journal.Path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	var gone []netip.Prefix
	var put []maps.Ban
	for p := range o.changed {
		gone, put = append(gone, p), append(put, o.of[p]...)
	}
	if err := o.journal.Replace(gone, put); err != nil {
		return err
	}
	if !o.journal.IsLong() {
		return nil
	}
	return o.journal.Rewrite(func(add func(*maps.Ban)) error {
		for _, list := range o.of {
			for i := range list {
				add(&list[i])
			}
		}
		return nil
	})
}

// overshadow takes note of the bans that give way to those that are wanted, and of those that were asked for and give way.
// Where one that has given way lasts longer than what is wanted in place of one for the same reason, that one is put in force.
func (b *ban) overshadow() *overshadowed {
	if len(b.banned)+len(b.losers) == 0 {
		return &overshadowed{}
	}
	o := b.fw.overshadowed()
	for _, l := range b.losers {
		if b.refused[int(l.place)] == nil {
			o.put(l.ban)
		}
	}
	for i := range b.wanted {
		one := &b.wanted[i]
		if have, ok := b.banned[one.Prefix]; ok && have.Reason != one.Reason {
			o.put(have)
		}
		o.drop(one.Prefix, func(reason string) bool { return reason == one.Reason })
		if next, ok := o.longest(one.Prefix); ok && outlasts(&next, one) {
			o.drop(one.Prefix, func(reason string) bool { return reason == next.Reason })
			o.put(*one)
			next.Packets = one.Packets
			*one = next
		}
	}
	return o
}

// loser is a ban that gives way to another one of the same source.
type loser struct {
	place int32 // in the request
	ban   maps.Ban
}

// end takes bans out that end, and returns of the given ones in force those that end with nothing in their place, those
// that take the place of others, and how many of those end that were not in force.
func (o *overshadowed) end(inForce []netip.Prefix, r UnbanRequest) (gone []netip.Prefix, next []maps.Ban, others int) {
	if len(o.of) == 0 {
		return inForce, nil, 0
	}
	isReason := r.IsReason
	if isReason == nil {
		isReason = func(string) bool { return true }
	}
	named := r.Prefixes
	if r.All {
		named = slices.Collect(std.Keys(o.of))
	}
	ended := make(map[netip.Prefix]bool)
	for _, p := range named {
		if o.drop(p, isReason) {
			ended[p] = true
		}
	}
	for _, p := range inForce {
		delete(ended, p)
		if b, ok := o.longest(p); ok {
			o.drop(p, func(reason string) bool { return reason == b.Reason })
			next = append(next, b)
		} else {
			gone = append(gone, p)
		}
	}
	return gone, next, len(ended)
}
