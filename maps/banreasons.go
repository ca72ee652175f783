// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// MaxBanReason is how many bytes the reason of a ban may have.
const MaxBanReason = len(bpf.FirewallBanReason{}.Text) - 1

// OtherReasons is the reason of bans for whose own one there was no number left.
const OtherReasons = "other"

// BanReason is a reason for which there are bans, or were.
type BanReason struct {
	Text    string    // "" is that of bans without one
	Packets uint64    // that were dropped by it
	Bans    int       // that there are, and those that have ended and are not forgotten yet
	Last    time.Time // when somebody was last banned for it; zero where nobody knows
}

// banReasons knows the reasons of bans by their numbers. Number 0 is no reason, and the highest is OtherReasons.
type banReasons struct {
	places []bpf.FirewallBanReason // shared with other commands: they are written under the lock for changes
	byText map[string]uint32
	texts  []string

	// What is needed to give numbers.
	used   func(each func(number uint32)) error // calls each for the numbers that bans have, some of them more than once
	forget func(number uint32) error            // what was counted by a number
	given  []bool                               // by number, whether it was given in this run: its bans may not be there yet
	free   []uint32                             // numbers that nobody needs any more
	sought bool                                 // they were looked for
}

func (s *State) banReasons() (*banReasons, error) {
	memory, err := s.memory(bpf.FirewallMapBanReasons)
	if err != nil {
		return nil, err
	}
	r := newBanReasons(view[bpf.FirewallBanReason](memory))
	r.used = func(each func(uint32)) error {
		for _, kind := range banKinds {
			if err := s.eachBan(kind, func(_ netip.Prefix, wire *bpf.FirewallBan) bool {
				each(wire.Reason)
				return true
			}); err != nil {
				return err
			}
		}
		return nil
	}
	r.forget = func(number uint32) error { return s.resetSourceCounter(maxBlockLists + number) }
	return r, nil
}

func newBanReasons(places []bpf.FirewallBanReason) *banReasons {
	r := &banReasons{places: places, byText: map[string]uint32{"": 0}, texts: make([]string, len(places)), given: make([]bool, len(places))}
	for i := range r.places {
		text, _, _ := bytes.Cut(r.places[i].Text[:], []byte{0})
		if len(text) > 0 {
			r.texts[i] = string(text)
			r.byText[r.texts[i]] = uint32(i)
		}
	}
	last := len(r.texts) - 1
	r.texts[last] = OtherReasons
	r.byText[OtherReasons] = uint32(last)
	return r
}

// number returns the number of a reason, which it gives to a new one: one that nobody had, or that no ban has any more.
func (r *banReasons) number(text string) (uint32, error) {
	if n, ok := r.byText[text]; ok {
		r.given[n] = true
		return n, nil
	}
	if len(text) > MaxBanReason || bytes.IndexByte([]byte(text), 0) >= 0 {
		return 0, fmt.Errorf("the reason of a ban is at most %d bytes without a NUL: %q", MaxBanReason, text)
	}
	last := len(r.places) - 1
	if n := 1 + slices.Index(r.texts[1:last], ""); n > 0 {
		r.give(uint32(n), text)
		return uint32(n), nil
	}
	if err := r.seek(); err != nil {
		return 0, err
	}
	for len(r.free) > 0 {
		n := r.free[0]
		r.free = r.free[1:]
		if r.given[n] {
			continue
		}
		if err := r.forget(n); err != nil {
			return 0, err
		}
		delete(r.byText, r.texts[n])
		r.give(n, text)
		return n, nil
	}
	return uint32(last), nil
}

func (r *banReasons) give(n uint32, text string) {
	atomic.StoreUint64(&r.places[n].Last, 0)
	clear(r.places[n].Text[:])
	copy(r.places[n].Text[:], text)
	r.texts[n], r.byText[text], r.given[n] = text, n, true
}

// seek looks, once, for the numbers that no ban has.
func (r *banReasons) seek() error {
	if r.sought {
		return nil
	}
	r.sought = true
	used := make([]bool, len(r.places))
	if err := r.used(func(n uint32) {
		if int(n) < len(used) {
			used[n] = true
		}
	}); err != nil {
		return err
	}
	for n := 1; n < len(used)-1; n++ {
		if !used[n] {
			r.free = append(r.free, uint32(n))
		}
	}
	return nil
}

func (r *banReasons) text(number uint32) string {
	if int(number) < len(r.texts) {
		return r.texts[number]
	}
	return OtherReasons
}

// BanReasons returns the reasons for which there are bans or were, with what was dropped by them since the filter began.
func (s *State) BanReasons() ([]BanReason, error) {
	reasons, err := s.banReasons()
	if err != nil {
		return nil, err
	}
	counted, err := s.sourceCounters()
	if err != nil {
		return nil, err
	}
	var out []BanReason
	for i, text := range reasons.texts {
		place := &reasons.places[i]
		r := BanReason{Text: text, Packets: counted[maxBlockLists+i], Bans: int(atomic.LoadUint32(&place.Bans))}
		if last := atomic.LoadUint64(&place.Last); last > 0 {
			r.Last = time.Unix(int64(last), 0)
		}
		if r.Packets > 0 || r.Bans > 0 || text != "" && i != len(reasons.texts)-1 {
			out = append(out, r)
		}
	}
	return out, nil
}
