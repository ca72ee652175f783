// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// Ban is an address or network that the hosts of a group ban.
type Ban struct {
	Prefix netip.Prefix `json:"prefix"`
	// Seconds is how long from when a host first hears of it: no two clocks need agree. 0: until it is taken back.
	Seconds int64  `json:"seconds,omitempty"`
	Reason  string `json:"reason,omitempty"`
	// Time is when it was signed, by the clock of who did, who takes it out of the list by that.
	Time string `json:"time,omitempty"`
	// Number tells a ban from an earlier one of the same prefix, which has ended.
	Number uint64 `json:"number"`
}

// BanList is whom somebody has banned.
type BanList struct {
	Group string `json:"group"`
	By    string `json:"by"` // the host, or OperatorBans
	// Serial is that of the list: of what is signed, hosts take no older one.
	Serial uint64 `json:"serial"`
	Bans   []Ban  `json:"bans"`
}

// Forget takes out of a list what has ended by the clock of its publisher.
func (l *BanList) Forget(now time.Time) {
	l.Bans = slices.DeleteFunc(l.Bans, func(b Ban) bool {
		begun, err := time.Parse(time.RFC3339, b.Time)
		return err == nil && b.Seconds > 0 && begun.Add(time.Duration(b.Seconds)*time.Second).Before(now)
	})
}

// Seal returns the object of a list that is signed.
func (l *BanList) Seal(key *PrivateKey) ([]byte, error) {
	body, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	return seal(kindBans, key, body)
}

// Text returns the object of a host's list, which is not signed.
func (l *BanList) Text() ([]byte, error) { return json.Marshal(l) }

// OpenBans reads the list that a host has written, or verifies that of an operator.
func OpenBans(object []byte, group, by string, keys []PublicKey) (*BanList, error) {
	if len(object) > store.MaxSize {
		return nil, store.ErrTooLarge
	}
	if by == OperatorBans {
		body, _, err := unseal(kindBans, object, keys)
		if err != nil {
			return nil, err
		}
		object = body
	}
	l := new(BanList)
	if err := decode(object, l); err != nil {
		return nil, fmt.Errorf("the bans of %s cannot be read: %w", by, err)
	}
	if l.Group != group || l.By != by {
		return nil, fmt.Errorf("the bans of %s are those of %.40q, group %.40q", by, l.By, l.Group)
	}
	for _, b := range l.Bans {
		if !b.Prefix.IsValid() || b.Prefix != b.Prefix.Masked() || b.Seconds < 0 {
			return nil, fmt.Errorf("a ban of %s is none: %s", by, b.Prefix)
		}
	}
	return l, nil
}
