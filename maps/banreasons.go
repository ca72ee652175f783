// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"bytes"
	"fmt"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// MaxBanReason is how many bytes the reason of a ban may have.
const MaxBanReason = len(bpf.FirewallBanReason{}.Text) - 1

// OtherReasons is the reason of bans for whose own one there was no number left.
const OtherReasons = "other"

// BanReason is a reason for which there are bans, or were.
type BanReason struct {
	Text    string // "" is that of bans without one
	Packets uint64 // that were dropped by it
}

// banReasons knows the reasons of bans by their numbers. Number 0 is no reason, and the highest is OtherReasons.
type banReasons struct {
	places []bpf.FirewallBanReason // shared with other commands: they are written under the lock for changes
	byText map[string]uint32
	texts  []string
}

func (s *State) banReasons() (*banReasons, error) {
	memory, err := s.memory(bpf.FirewallMapBanReasons)
	if err != nil {
		return nil, err
	}
	r := &banReasons{places: view[bpf.FirewallBanReason](memory), byText: map[string]uint32{"": 0}}
	r.texts = make([]string, len(r.places))
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
	return r, nil
}

// number returns the number of a reason, which it gives to a new one.
func (r *banReasons) number(text string) (uint32, error) {
	if n, ok := r.byText[text]; ok {
		return n, nil
	}
	if len(text) > MaxBanReason || bytes.IndexByte([]byte(text), 0) >= 0 {
		return 0, fmt.Errorf("the reason of a ban is at most %d bytes without a NUL: %q", MaxBanReason, text)
	}
	last := uint32(len(r.places) - 1)
	for n := uint32(1); n < last; n++ {
		if r.texts[n] == "" {
			copy(r.places[n].Text[:], text)
			r.texts[n], r.byText[text] = text, n
			return n, nil
		}
	}
	return last, nil
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
		if packets := counted[maxBlockLists+i]; packets > 0 || text != "" && i != len(reasons.texts)-1 {
			out = append(out, BanReason{Text: text, Packets: packets})
		}
	}
	return out, nil
}
