// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// Bundle is what the hosts of a group are to run.
type Bundle struct {
	Group    string  `json:"group"`
	Serial   uint64  `json:"serial"`
	Time     string  `json:"time"`               // for people alone: no host goes by a clock
	Previous *Target `json:"previous,omitempty"` // what the group ran before
	// Of is the bundle that this one publishes anew: that of which a rollback goes to what was before.
	Of *Target `json:"of,omitempty"`

	Policy   string            `json:"policy"`          // the text of a policy file
	Layer    string            `json:"layer,omitempty"` // what the group has of its own
	Hosts    map[string]string `json:"hosts,omitempty"` // and single hosts
	Lists    map[string]string `json:"lists,omitempty"` // digests of list files, by the names that the policy has for them
	Settings `json:"settings"`
}

// Settings say how hosts apply a bundle.
type Settings struct {
	Probes []Probe  `json:"probes,omitempty"`
	Within Duration `json:"within,omitempty"` // how long a host may take to confirm; 0: DefaultWithin
	Bans   *Bans    `json:"bans,omitempty"`   // nil: bans do not travel
}

// Bans say which bans travel in a group.
type Bans struct {
	Hosts bool `json:"hosts" yaml:"hosts"` // those of hosts, beside those that are signed
	Most  int  `json:"most" yaml:"most"`   // that are in force at a time; 0: DefaultBans
}

// DefaultBans is how many bans of the group a host has at most, unless the bundle says.
const DefaultBans = 1000

// MaxBans is the most that a bundle may say: so many fit into an object, and every host gets each change.
const MaxBans = 10_000

// Limit returns how many bans of the group a host has at most.
func (b *Bans) Limit() int {
	if b.Most == 0 {
		return DefaultBans
	}
	return b.Most
}

// DefaultWithin is how long a host may take to confirm a policy, unless the bundle says.
const DefaultWithin = 30 * time.Second

// Limits of Within.
const (
	minWithin = 2 * time.Second
	maxWithin = 10 * time.Minute
)

// Duration is a time in JSON, such as "30s".
type Duration time.Duration

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	t, err := time.ParseDuration(string(text))
	*d = Duration(t)
	return err
}

// ConfirmTime returns how long a host may take to confirm.
func (s *Settings) ConfirmTime() time.Duration {
	if s.Within == 0 {
		return DefaultWithin
	}
	return time.Duration(s.Within)
}

// Seal returns the object that is put into a store, and its digest.
func (b *Bundle) Seal(key *PrivateKey) (object []byte, digest string, err error) {
	if err := b.check(); err != nil {
		return nil, "", err
	}
	body, err := json.Marshal(b)
	if err != nil {
		return nil, "", err
	}
	if object, err = seal(kindBundle, key, body); err != nil {
		return nil, "", err
	}
	return object, Digest(object), nil
}

// OpenBundle verifies a bundle: it is the one that the pointer names, for its group and serial.
func OpenBundle(object []byte, t Target, group string, keys []PublicKey) (*Bundle, KeyID, error) {
	if digest := Digest(object); digest != t.Bundle {
		return nil, "", fmt.Errorf("the bundle is not the one that is wanted: its digest is %.12s…, and %.12s… is wanted", digest, t.Bundle)
	}
	body, by, err := unseal(kindBundle, object, keys)
	if err != nil {
		return nil, "", err
	}
	b := new(Bundle)
	if err := decode(body, b); err != nil {
		return nil, "", fmt.Errorf("the bundle cannot be read: %w", err)
	}
	if b.Group != group || b.Serial != t.Serial {
		return nil, "", fmt.Errorf("the bundle is number %d of group %q, and number %d of group %q is wanted", b.Serial, b.Group, t.Serial, group)
	}
	return b, by, b.check()
}

// decode reads JSON. What this version does not know may be what matters, so it is an error.
func decode(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its end")
	}
	return nil
}

func (b *Bundle) check() error {
	if err := store.CheckName("group", b.Group); err != nil {
		return err
	}
	if b.Serial == 0 {
		return errors.New("a bundle has a serial from 1 on")
	}
	for name := range b.Hosts {
		if err := CheckHost(name); err != nil {
			return err
		}
	}
	for name, digest := range b.Lists {
		if !IsDigest(digest) {
			return fmt.Errorf("the list %q has no digest", name)
		}
	}
	return b.Settings.check()
}

func (s *Settings) check() error {
	if within := s.ConfirmTime(); within < minWithin || within > maxWithin {
		return fmt.Errorf("within %s: a host confirms within %s to %s", within, minWithin, maxWithin)
	}
	if s.Bans != nil && (s.Bans.Most < 0 || s.Bans.Most > MaxBans) {
		return fmt.Errorf("bans: most %d: write 1 to %d", s.Bans.Most, MaxBans)
	}
	for _, p := range s.Probes {
		if err := p.check(); err != nil {
			return err
		}
	}
	return nil
}

// Target is a bundle by its digest.
type Target struct {
	Bundle string `json:"bundle"`
	Serial uint64 `json:"serial"`
}

// Pointer says which bundle the hosts of a group run. It is what changes.
type Pointer struct {
	Group string `json:"group"`
	Target
	Time   string  `json:"time"`
	Before *Target `json:"before,omitempty"` // what hosts run that the wave has not reached
	Wave   *Wave   `json:"wave,omitempty"`   // nil: all hosts

	RevokedKeys  []KeyID  `json:"revoked_keys,omitempty"`
	RevokedHosts []string `json:"revoked_hosts,omitempty"`
}

// Wave is a part of the hosts of a group.
type Wave struct {
	Hosts   []string `json:"hosts,omitempty"` // some, by name
	Percent int      `json:"percent"`         // and so many of all
}

// Has reports whether a host belongs to the wave of a bundle. Each bundle draws others, and a larger wave has all of a
// smaller one.
func (w *Wave) Has(host, bundle string) bool {
	return w == nil || slices.Contains(w.Hosts, host) || drawn(host, bundle) < w.Percent
}

// drawn returns a number from 0 to 99.
func drawn(host, bundle string) int {
	sum := sha256.Sum256([]byte(bundle + " " + host))
	return int(binary.BigEndian.Uint64(sum[:8]) % 100)
}

// For returns what a host is to run.
func (p *Pointer) For(host string) (t Target, ok bool) {
	switch {
	case p.Wave.Has(host, p.Bundle):
		return p.Target, true
	case p.Before != nil:
		return *p.Before, true
	}
	return Target{}, false
}

// Seal returns the object that is put into a store.
func (p *Pointer) Seal(key *PrivateKey) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	body, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return seal(kindPointer, key, body)
}

// OpenPointer verifies a pointer of a group.
func OpenPointer(object []byte, group string, keys []PublicKey) (*Pointer, KeyID, error) {
	body, by, err := unseal(kindPointer, object, keys)
	if err != nil {
		return nil, "", err
	}
	p := new(Pointer)
	if err := decode(body, p); err != nil {
		return nil, "", fmt.Errorf("the pointer cannot be read: %w", err)
	}
	if p.Group != group {
		return nil, "", fmt.Errorf("the pointer is that of group %q, and not of %q", p.Group, group)
	}
	if slices.Contains(p.RevokedKeys, by) {
		return nil, "", fmt.Errorf("the pointer revokes key %s, which signs it", by)
	}
	return p, by, p.check()
}

func (p *Pointer) check() error {
	if err := store.CheckName("group", p.Group); err != nil {
		return err
	}
	targets := []Target{p.Target}
	if p.Before != nil {
		targets = append(targets, *p.Before)
	}
	for _, t := range targets {
		if t.Serial == 0 || !IsDigest(t.Bundle) {
			return errors.New("the pointer names no bundle")
		}
	}
	if p.Before != nil && p.Before.Serial >= p.Serial {
		return errors.New("what the pointer says was before came later")
	}
	if p.Wave != nil && (p.Wave.Percent < 0 || p.Wave.Percent > 100) {
		return fmt.Errorf("a wave of %d percent", p.Wave.Percent)
	}
	return nil
}

// Without returns the keys but for those that are revoked.
func Without(keys []PublicKey, revoked []KeyID) []PublicKey {
	return slices.DeleteFunc(slices.Clone(keys), func(k PublicKey) bool { return slices.Contains(revoked, k.ID) })
}

// PointerUnverified returns what a pointer says, to show it, or for a server whose folder nobody else writes to.
func PointerUnverified(object []byte) (*Pointer, error) {
	_, body, _ := strings.Cut(string(object), "\n\n")
	p := new(Pointer)
	if err := json.Unmarshal([]byte(body), p); err != nil {
		return nil, fmt.Errorf("this is no pointer, or half of one: %w", err)
	}
	return p, nil
}
