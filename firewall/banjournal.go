// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// bansFile is where bans are written down, in the directory of the last good policy.
const bansFile = "bans"

// Journal returns where bans are written down for the next boot. Each filter of a host has a journal of its own.
func (fw *Firewall) Journal() bans.Journal {
	dir, name := stateDir, bansFile
	if path := fw.lastGoodPath(); path != "" {
		dir = filepath.Dir(path)
	}
	if fw.options.PinPath != loader.DefaultPinPath {
		name += "@" + url.PathEscape(fw.options.PinPath)
	}
	return bans.NewJournal(filepath.Join(dir, name))
}

// record writes to the journal, which was complete before or gets all that is in force. That it could not be made smaller is
// a warning.
func (fw *Firewall) record(f Filter, complete bool, write func(bans.Journal) error) (warning string, err error) {
	j := fw.Journal()
	if err = write(j); err == nil && !complete {
		err = compact(j, f, false)
	}
	if err != nil {
		j.SetIncomplete()
		return "", fmt.Errorf("%w: %w", ErrUnrecorded, err)
	}
	defer j.SetComplete()
	if !complete || !j.IsLong() {
		return "", nil
	}
	if err := compact(j, f, false); err != nil {
		return fmt.Errorf("%w: %w", bans.ErrGrown, err).Error(), nil
	}
	return "", nil
}

// compact writes the journal anew with the bans in force. Which these are the filter says, by a clock that nobody sets: the
// time of day may be wrong at the moment, or have been when a ban was written down.
func compact(j bans.Journal, f Filter, clockWasSet bool) error {
	ends, now := newBanEnds(), time.Now()
	for b, err := range f.Bans() {
		if err != nil {
			return err
		}
		ends.add(&b)
	}
	return j.Compact(func(b *maps.Ban) bool {
		until, ok := ends.of(b.Prefix)
		if ok {
			correct(b, until, now, clockWasSet)
			ends.remove(b.Prefix)
		}
		return ok
	}, func(add func(*maps.Ban)) error {
		if len(ends.single)+len(ends.other) == 0 {
			return nil
		}
		for b, err := range f.Bans() {
			if err != nil {
				return err
			}
			if _, missing := ends.of(b.Prefix); missing {
				add(&b)
			}
		}
		return nil
	})
}

// misdated is by how much a ban's end may be off that was written down by a clock that was right.
const misdated = time.Minute

// correct gives a ban in force the end that it has by the time of day, if the one that was written down would end it at the
// next boot, or is wrong in any way and the clock is known to have been set. A clock that is behind when it was written
// corrects nothing: by that one, no ban has ended.
func correct(b *maps.Ban, until, now time.Time, clockWasSet bool) {
	if b.Until.IsZero() || until.IsZero() {
		b.Until = until
		return
	}
	wrong := b.Until.Sub(until).Abs() > misdated
	if wrong && clockWasSet || !b.Until.After(now) && !now.Before(b.Since) {
		b.Since, b.Until = until.Add(b.Since.Sub(b.Until)), until
	}
}

// banEnds holds when bans end, in little memory: there may be a million.
type banEnds struct {
	single map[uint32]int64 // milliseconds since 1970, of addresses of IPv4; 0: never
	other  map[netip.Prefix]int64
}

func newBanEnds() *banEnds {
	return &banEnds{make(map[uint32]int64), make(map[netip.Prefix]int64)}
}

func (e *banEnds) add(b *maps.Ban) {
	end := int64(0)
	if !b.Until.IsZero() {
		end = b.Until.UnixMilli()
	}
	if b.Prefix.IsSingleIP() && b.Prefix.Addr().Is4() {
		e.single[word(b.Prefix.Addr())] = end
	} else {
		e.other[b.Prefix] = end
	}
}

func (e *banEnds) of(p netip.Prefix) (until time.Time, ok bool) {
	end, ok := e.other[p]
	if p.IsSingleIP() && p.Addr().Is4() {
		end, ok = e.single[word(p.Addr())]
	}
	if end != 0 {
		until = time.UnixMilli(end)
	}
	return until, ok
}

func (e *banEnds) remove(p netip.Prefix) {
	if p.IsSingleIP() && p.Addr().Is4() {
		delete(e.single, word(p.Addr()))
	} else {
		delete(e.other, p)
	}
}

func word(addr netip.Addr) uint32 {
	b := addr.As4()
	return binary.NativeEndian.Uint32(b[:])
}

// TidyBans makes room: bans that have ended go out of the filter, and out of the journal where they make up much of it, or
// where the clock was set since. It returns how many went out of the filter.
func (fw *Firewall) TidyBans(ctx context.Context, clockWasSet bool) (ended int, err error) {
	c, err := fw.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer c.end()
	f, err := fw.openToChange(ctx)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if ended, err = f.ForgetEndedBans(); err != nil {
		return ended, err
	}
	// What has ended since the journal was last written anew counts, and not only what has ended now: as long as bans come
	// at the pace at which they end, that is never much at once.
	journal := fw.Journal()
	lines, err := journal.Lines()
	if err != nil {
		return ended, err
	}
	if !journal.IsComplete() {
		for _, err := range f.Bans() { // without any, no journal is needed either
			if err == nil {
				err = completed(journal, f, clockWasSet)
			}
			return ended, err
		}
	}
	if lines == 0 || lines <= spareLines && !clockWasSet {
		return ended, nil
	}
	live := 0
	for _, err := range f.Bans() {
		if err != nil {
			return ended, err
		}
		if live++; lines <= 2*live+spareLines && !clockWasSet {
			return ended, nil
		}
	}
	return ended, completed(journal, f, clockWasSet)
}

// completed is compact, and takes note that the journal is complete.
func completed(j bans.Journal, f Filter, clockWasSet bool) error {
	if err := compact(j, f, clockWasSet); err != nil {
		return err
	}
	j.SetComplete()
	return nil
}

// spareLines is how many lines of the journal may say nothing, however few bans there are.
const spareLines = 1024
