// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// GroupStatus is a group with its hosts.
type GroupStatus struct {
	Group    string   `json:"group"`
	Serial   uint64   `json:"serial"` // that was published last
	Bundle   string   `json:"bundle"`
	Time     string   `json:"time"`
	Verified bool     `json:"verified"` // by a key that was named
	Wave     string   `json:"wave"`     // which hosts get it, or "" for all
	Before   uint64   `json:"before"`   // the serial that the others run; 0: none
	Revoked  []string `json:"revoked"`  // keys and hosts
	Problem  string   `json:"problem"`  // of what is published
	Hosts    []Host   `json:"hosts"`
}

// Status returns how a group is. Without keys, what is published is believed, and said not to be verified.
func (f *Fleet) Status(ctx context.Context, group string) (*GroupStatus, error) {
	s := &GroupStatus{Group: group, Revoked: []string{}, Hosts: []Host{}}
	var p *fleet.Pointer
	if len(f.Keys) > 0 {
		c, err := f.Current(ctx, group)
		switch {
		case errors.Is(err, fleet.ErrSignature):
			s.Problem = err.Error()
		case err != nil:
			return nil, err
		default:
			p, s.Verified = c.Pointer, c.Pointer != nil
		}
	}
	if p == nil {
		object, err := f.Store.Get(ctx, fleet.PointerKey(group))
		if err != nil {
			return nil, fmt.Errorf("group %s: %w", group, err)
		}
		if p, err = fleet.PointerUnverified(object.Value); err != nil && s.Problem == "" {
			s.Problem = err.Error()
		}
	}
	var revoked []string
	if p != nil {
		s.Serial, s.Bundle, s.Time, revoked = p.Serial, p.Bundle, p.Time, p.RevokedHosts
		if p.Wave != nil {
			s.Wave = waveText(p.Wave)
		}
		if p.Before != nil {
			s.Before = p.Before.Serial
		}
		for _, id := range p.RevokedKeys {
			s.Revoked = append(s.Revoked, "key "+string(id))
		}
		for _, name := range p.RevokedHosts {
			s.Revoked = append(s.Revoked, "host "+name)
		}
	}
	hosts, err := f.Hosts(ctx, group, revoked)
	if err != nil && !errors.Is(err, store.ErrUnsupported) {
		return nil, err
	}
	s.Hosts = append(s.Hosts, hosts...)
	return s, nil
}

func waveText(w *fleet.Wave) string {
	var parts []string
	if len(w.Hosts) > 0 {
		parts = append(parts, strings.Join(w.Hosts, ", "))
	}
	if w.Percent > 0 {
		parts = append(parts, fmt.Sprintf("%d %%", w.Percent))
	}
	return strings.Join(parts, " and ")
}
