// SPDX-License-Identifier: Apache-2.0

// Package publish is what one asks of a fleet: to publish a policy, wave by wave, to see what hosts run, to go back, to
// revoke a key.
package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// Fleet is a fleet by the store that carries it.
type Fleet struct {
	Store store.Store
	Keys  []fleet.PublicKey // that are trusted
}

// Current is what a group runs.
type Current struct {
	Pointer *fleet.Pointer // nil: nothing was ever published
	Bundle  *fleet.Bundle
	version store.Version
}

// Current returns what a group runs, verified.
func (f *Fleet) Current(ctx context.Context, group string) (*Current, error) {
	if err := store.CheckName("group", group); err != nil {
		return nil, err
	}
	object, err := f.Store.Get(ctx, fleet.PointerKey(group))
	if errors.Is(err, fs.ErrNotExist) {
		return &Current{version: store.Absent}, nil
	}
	if err != nil {
		return nil, err
	}
	c := &Current{version: object.Version}
	if c.Pointer, _, err = fleet.OpenPointer(object.Value, group, f.Keys); err != nil {
		return nil, fmt.Errorf("group %s: %w", group, err)
	}
	c.Bundle, err = f.bundle(ctx, group, c.Pointer.Target)
	return c, err
}

// existing is Current of a group that there is.
func (f *Fleet) existing(ctx context.Context, group string) (*Current, error) {
	c, err := f.Current(ctx, group)
	if err == nil && c.Pointer == nil {
		groups, _ := f.Groups(ctx)
		return nil, fmt.Errorf("there is no group %q: there are %s", group, orNone(groups))
	}
	return c, err
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (f *Fleet) bundle(ctx context.Context, group string, t fleet.Target) (*fleet.Bundle, error) {
	object, err := f.Store.Get(ctx, fleet.BundleKey(t.Bundle))
	if err != nil {
		return nil, fmt.Errorf("bundle %d of group %s: %w", t.Serial, group, err)
	}
	b, _, err := fleet.OpenBundle(object.Value, t, group, f.Keys)
	if err != nil {
		return nil, fmt.Errorf("bundle %d of group %s: %w", t.Serial, group, err)
	}
	return b, nil
}

// Groups returns the groups that something was published for.
func (f *Fleet) Groups(ctx context.Context) (groups []string, err error) {
	keys, err := f.Store.List(ctx, "groups/")
	for _, key := range keys {
		if name, ok := strings.CutSuffix(strings.TrimPrefix(key, "groups/"), "/current"); ok {
			groups = append(groups, name)
		}
	}
	return groups, err
}

// Only returns the group that is meant where none is named: the only one.
func (f *Fleet) Only(ctx context.Context) (string, error) {
	groups, err := f.Groups(ctx)
	if err == nil && len(groups) != 1 {
		err = fmt.Errorf("name a group with --group: there are %s", orNone(groups))
	}
	if err != nil {
		return "", err
	}
	return groups[0], nil
}

// Host is a host as it is known to the store.
type Host struct {
	fleet.Status
	Present bool `json:"present"`
}

// Hosts returns the hosts of a group that have said something, in order, but for those that are revoked.
func (f *Fleet) Hosts(ctx context.Context, group string, revoked []string) ([]Host, error) {
	c, err := f.Store.Changes(ctx, fleet.HostsPrefix, "")
	if errors.Is(err, store.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h := newHosts(group, revoked)
	h.take(c)
	return h.list(), nil
}

// hosts are those of a group, as what is below hosts/ says.
type hosts struct {
	group   string
	revoked []string
	said    map[string]*fleet.Status
	present map[string]bool
}

func newHosts(group string, revoked []string) *hosts {
	return &hosts{group, revoked, make(map[string]*fleet.Status), make(map[string]bool)}
}

// part returns the host and the rest of a key.
func part(key string) (host, rest string) {
	host, rest, _ = strings.Cut(strings.TrimPrefix(key, fleet.HostsPrefix), "/")
	return host, rest
}

func (h *hosts) take(c store.Changes) {
	if c.All {
		clear(h.said)
		clear(h.present)
	}
	for _, key := range c.Gone {
		switch host, rest := part(key); rest {
		case "status":
			delete(h.said, host)
		case "present":
			delete(h.present, host)
		}
	}
	for key, object := range c.Objects {
		switch host, rest := part(key); rest {
		case "status":
			if s, err := fleet.ParseStatus(host, object.Value); err == nil && s.Group == h.group && !slices.Contains(h.revoked, host) {
				h.said[host] = s
			} else {
				delete(h.said, host)
			}
		case "present":
			h.present[host] = true
		}
	}
}

func (h *hosts) list() []Host {
	out := make([]Host, 0, len(h.said))
	for name, s := range h.said {
		out = append(out, Host{*s, h.present[name]})
	}
	slices.SortFunc(out, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	return out
}
