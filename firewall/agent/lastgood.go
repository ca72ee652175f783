// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Where systemd's StateDirectory= puts state, unless it names another place in the variable.
const (
	stateDirectory = "/var/lib/portcullis"
	stateVariable  = "STATE_DIRECTORY"
)

const lastGoodHeader = "# The last policy that was in force, kept by portcullis for a boot at which the policy file is bad.\n"

// LastGood is where the last policy that was in force is kept, or "" for nowhere.
type LastGood string

// LastGoodOf returns the place for the filter under a pin path. Only the filter of the host has one without being
// told: that of a container must not become the host's at the next boot.
func LastGoodOf(pinPath string, getenv func(string) string) LastGood {
	dir := getenv(stateVariable)
	if dir == "" && pinPath == loader.DefaultPinPath {
		dir = stateDirectory
	}
	if dir == "" {
		return ""
	}
	return LastGood(filepath.Join(dir, "last-good.yaml"))
}

// Keep keeps the policy of a running filter, with the interfaces that it is in force on.
func (l LastGood) Keep(f interface {
	Saved() (*policy.Policy, error)
}) error {
	if l == "" {
		return nil
	}
	p, err := f.Saved()
	if err == nil {
		err = l.save(p)
	}
	if err != nil {
		return fmt.Errorf("keep the policy for the next boot: %w", err)
	}
	return nil
}

func (l LastGood) save(p *policy.Policy) error {
	text := append([]byte(lastGoodHeader), p.InNumbers().YAML()...)
	if old, err := os.ReadFile(string(l)); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(string(l)), 0o700); err != nil {
		return err
	}
	return policy.SavePrivateFile(string(l), text)
}

// Load returns the policy that was kept.
func (l LastGood) Load() (*policy.Policy, error) { return policy.Load(string(l)) }
