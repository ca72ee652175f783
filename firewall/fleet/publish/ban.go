// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/policy"
)

// BanRequest says whom all hosts of a group are to ban, or whom no longer.
type BanRequest struct {
	Group    string
	Key      *fleet.PrivateKey
	Prefixes []netip.Prefix
	For      time.Duration // 0: until it is taken back
	Reason   string
	End      bool // the bans end
}

// BanReport is the result of Ban.
type BanReport struct {
	Group string   `json:"group"`
	Bans  int      `json:"bans"` // that are signed now
	Done  []string `json:"done"` // whom it concerns
}

// Ban signs whom all hosts of a group are to ban.
func (f *Fleet) Ban(ctx context.Context, r BanRequest) (*BanReport, error) {
	c, err := f.existing(ctx, r.Group)
	if err != nil {
		return nil, err
	}
	if c.Bundle.Bans == nil {
		return nil, fmt.Errorf("bans do not travel in group %s: write \"bans: {}\" into its settings, and publish", r.Group)
	}
	if slices.Contains(c.Pointer.RevokedKeys, r.Key.ID) {
		return nil, fmt.Errorf("key %s is revoked: no host takes what it signs", r.Key.ID)
	}
	keys := fleet.Without(append(slices.Clone(f.Keys), r.Key.Public()), c.Pointer.RevokedKeys)
	key := fleet.BansKey(r.Group, fleet.OperatorBans)
	for {
		list := &fleet.BanList{Group: r.Group, By: fleet.OperatorBans, Bans: []fleet.Ban{}}
		object, err := f.Store.Get(ctx, key)
		if err == nil {
			if list, err = fleet.OpenBans(object.Value, r.Group, fleet.OperatorBans, keys); err != nil {
				return nil, err
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		list.Serial++
		now := time.Now()
		list.Forget(now)
		report := &BanReport{Group: r.Group, Done: []string{}}
		for _, p := range r.Prefixes {
			was := slices.IndexFunc(list.Bans, func(b fleet.Ban) bool { return b.Prefix == p })
			if was >= 0 {
				list.Bans = slices.Delete(list.Bans, was, was+1)
			}
			if r.End {
				if was < 0 {
					return nil, fmt.Errorf("%s is not banned by the fleet's operators", p)
				}
			} else {
				list.Bans = append(list.Bans, fleet.Ban{Prefix: p, Seconds: int64(r.For / time.Second), Reason: r.Reason, Number: list.Serial, Time: now.UTC().Format(time.RFC3339)})
			}
			report.Done = append(report.Done, policy.PrefixText(p))
		}
		if most := c.Bundle.Bans.Limit(); len(list.Bans) > most {
			return nil, fmt.Errorf("that would be %d bans, and group %s has %d at most: end some with --end, or raise \"most\" in its settings", len(list.Bans), r.Group, most)
		}
		report.Bans = len(list.Bans)
		sealed, err := list.Seal(r.Key)
		if err != nil {
			return nil, err
		}
		err = f.Store.Put(ctx, key, sealed, object.Version)
		if errors.Is(err, store.ErrConflict) {
			continue // with what somebody else has banned meanwhile
		}
		return report, err
	}
}

// resignBans signs the operators' bans anew, so that they outlive the key that has signed them.
func (f *Fleet) resignBans(ctx context.Context, group string, key *fleet.PrivateKey, keys []fleet.PublicKey) error {
	at := fleet.BansKey(group, fleet.OperatorBans)
	for {
		object, err := f.Store.Get(ctx, at)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, store.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return err
		}
		list, err := fleet.OpenBans(object.Value, group, fleet.OperatorBans, keys)
		if err != nil {
			return err
		}
		list.Serial++
		list.Forget(time.Now())
		sealed, err := list.Seal(key)
		if err != nil {
			return err
		}
		if err = f.Store.Put(ctx, at, sealed, object.Version); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}
