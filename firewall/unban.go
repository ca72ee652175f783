// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// UnbanRequest says whose bans end.
type UnbanRequest struct {
	Prefixes []netip.Prefix
	All      bool
	IsReason func(string) bool // of them, those that are for such a reason; nil: any
}

// UnbanReport is the result of Unban.
type UnbanReport struct {
	Unbanned  int            `json:"unbanned"` // addresses and networks
	NotBanned []netip.Prefix `json:"-"`
	Warnings  []string       `json:"warnings"`
}

// Unban ends bans, in the filter and in the journal. Without a filter they end in the journal alone, so that the next one
// has none of them; the error is [loader.ErrNotRunning] all the same.
func (fw *Firewall) Unban(ctx context.Context, r UnbanRequest) (*UnbanReport, error) {
	c, err := fw.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	f, err := fw.openToChange(ctx)
	if errors.Is(err, loader.ErrNotRunning) {
		return nil, fw.unbanInJournal(r, err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	report := &UnbanReport{Warnings: []string{}}
	var write func(bans.Journal) error
	var complete bool
	if r.All && r.IsReason == nil {
		complete = fw.Journal().Begin()
		report.Unbanned, err = f.RemoveAllBans()
		write = func(j bans.Journal) error {
			others := bans.NewJournal(j.Path() + overshadowedSuffix)
			return errors.Join(j.Clear(), others.Clear())
		}
	} else {
		prefixes, failed := chosenToEnd(f.Bans(), f.FindBans, r)
		if failed != nil {
			return nil, failed
		}
		others := fw.overshadowed()
		gone, next, more := others.end(prefixes, r)
		complete = fw.Journal().Begin()
		if len(next) > 0 {
			before, err := f.FindBans(prefixesOf(next))
			if err != nil {
				return nil, err
			}
			for i := range next {
				next[i].Packets = before[next[i].Prefix].Packets
			}
			if _, err := f.PutCountedBans(next); err != nil {
				return nil, err
			}
		}
		report.NotBanned, err = f.RemoveBans(gone)
		report.Unbanned = len(prefixes) + more - len(report.NotBanned)
		write = func(j bans.Journal) error {
			if len(next) == 0 {
				return errors.Join(j.Remove(gone), others.save())
			}
			return errors.Join(j.Replace(gone, next), others.save())
		}
	}
	if err != nil {
		return nil, err
	}
	warning, err := fw.record(f, complete, write)
	if warning != "" {
		report.Warnings = append(report.Warnings, warning)
	}
	return report, err
}

// chosenToEnd returns the sources whose bans are meant.
func chosenToEnd(all iter.Seq2[maps.Ban, error], find func([]netip.Prefix) (map[netip.Prefix]maps.Ban, error), r UnbanRequest) (out []netip.Prefix, err error) {
	if !r.All {
		if r.IsReason == nil {
			return r.Prefixes, nil
		}
		banned, err := find(r.Prefixes)
		for _, p := range r.Prefixes {
			if b, ok := banned[p]; ok && r.IsReason(b.Reason) {
				out = append(out, p)
			}
		}
		return out, err
	}
	for b, err := range all {
		if err != nil {
			return nil, err
		}
		if r.IsReason == nil || r.IsReason(b.Reason) {
			out = append(out, b.Prefix)
		}
	}
	return out, nil
}

// unbanInJournal ends bans of which the filter, that is not there, need not know.
func (fw *Firewall) unbanInJournal(r UnbanRequest, notRunning error) error {
	j := fw.Journal()
	recorded := make(map[netip.Prefix]maps.Ban)
	if _, err := j.Load(time.Now(), func(b maps.Ban) error {
		recorded[b.Prefix] = b
		return nil
	}); err != nil {
		return errors.Join(notRunning, err)
	}
	all := func(yield func(maps.Ban, error) bool) {
		for _, b := range recorded {
			if !yield(b, nil) {
				return
			}
		}
	}
	prefixes, _ := chosenToEnd(all, func([]netip.Prefix) (map[netip.Prefix]maps.Ban, error) { return recorded, nil }, r)
	others := fw.overshadowed()
	prefixes, next, more := others.end(prefixes, r)
	kept := prefixes[:0:0]
	for _, p := range prefixes {
		if _, ok := recorded[p]; ok {
			kept = append(kept, p)
		}
	}
	ended := len(kept) + len(next) + more
	if ended == 0 {
		return notRunning
	}
	if err := errors.Join(j.Replace(kept, next), others.save()); err != nil && !errors.Is(err, bans.ErrGrown) {
		return errors.Join(notRunning, err)
	}
	return fmt.Errorf("%w: the next \"portcullis up\" does not bring back %d of the bans that are written down", loader.ErrNotRunning, ended)
}
