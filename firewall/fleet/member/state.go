// SPDX-License-Identifier: Apache-2.0

package member

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/firewall/savefile"
)

// state is what a host must not forget: what it has taken, so that nothing older comes back, and what it has tried in vain.
type state struct {
	Serials     map[string]uint64 `json:"serials"` // by groups: the highest that was in force
	Group       string            `json:"group"`   // of the bundle in force
	Bundle      string            `json:"bundle"`  // its digest, or ""
	RevokedKeys []fleet.KeyID     `json:"revoked_keys"`
	Failed      *failure          `json:"failed,omitempty"` // the newest bundle is not in force
	Trying      *attempt          `json:"trying,omitempty"`
}

// offer is a bundle, and what it comes to on this host.
type offer struct {
	fleet.Target
	Text string `json:"text"` // the digest of the policy file
}

// failure is what was tried and reverted.
type failure struct {
	offer
	Problem string `json:"problem"`
}

// attempt is what is about to be on trial. That it is there at a start means that the process was killed then.
type attempt struct {
	offer
	Count int `json:"count"`
}

// maxAttempts is how often a bundle is tried under which the agent is killed.
const maxAttempts = 3

// disk is the directory of what a host keeps of its fleet, which is root's alone.
type disk struct{ dir string }

func (d disk) path(name string) string { return filepath.Join(d.dir, name) }

// Files of the directory.
const (
	stateFile   = "state.json"
	bundleFile  = "bundle"      // in force, as it was signed
	policyFile  = "policy.yaml" // what it comes to on this host
	offeredFile = "offered.yaml"
	listsDir    = "lists"
)

func (d disk) list(digest string) string { return filepath.Join(d.dir, listsDir, digest) }

func (d disk) read() (*state, error) {
	s := &state{Serials: make(map[string]uint64)}
	text, err := os.ReadFile(d.path(stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(text, s)
	}
	if err == nil && s.Serials == nil {
		err = errors.New("there are no serials in it")
	}
	if err != nil {
		// To go on without would be to believe any bundle, however old.
		return nil, fmt.Errorf("%s: %w: nothing of the fleet is taken until it is mended or removed; without it this host takes older bundles, too", d.path(stateFile), err)
	}
	return s, nil
}

// save returns when a crash does not undo it.
func (d disk) save(s *state) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return d.put(stateFile, append(text, '\n'))
}

func (d disk) put(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(d.path(name)), 0o700); err != nil {
		return err
	}
	return savefile.SavePrivate(d.path(name), text)
}

// keepLists removes the lists that neither the bundle in force nor the one on offer names.
func (d disk) keepLists(wanted ...*fleet.Bundle) {
	entries, err := os.ReadDir(d.path(listsDir))
	if err != nil {
		return // they do no harm
	}
	for _, e := range entries {
		if !slices.ContainsFunc(wanted, func(b *fleet.Bundle) bool {
			if b == nil {
				return false
			}
			for _, digest := range b.Lists {
				if digest == e.Name() {
					return true
				}
			}
			return false
		}) && store.IsName(e.Name()) {
			_ = os.Remove(d.list(e.Name()))
		}
	}
}
