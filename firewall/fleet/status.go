// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
)

// State is how a host stands to the newest bundle that it knows of.
type State string

// States of a host.
const (
	StateNone     State = "none"     // it has not got any bundle yet
	StateTrying   State = "trying"   // the bundle is on trial
	StateInForce  State = "in force" // it has confirmed it
	StateReverted State = "reverted" // it has tried it, and gone back
	StateRefused  State = "refused"  // it has not even tried
	StateRemoved  State = "removed"  // the host is revoked
)

// Status is what a host says of itself. Nothing is decided by it but how fast a publication proceeds.
type Status struct {
	Name   string `json:"name"`
	Group  string `json:"group"`
	Serial uint64 `json:"serial"` // in force; 0: none
	Bundle string `json:"bundle"` // its digest

	State   State  `json:"state"`
	Tried   uint64 `json:"tried"`   // the serial that the state is about
	Problem string `json:"problem"` // why that is not in force, or ""

	Drift   []string `json:"drift"` // how what is in force differs from the bundle
	Bans    int      `json:"bans"`  // that are in force
	Facts   Facts    `json:"facts"`
	Version string   `json:"version"` // of portcullis

	Probe *ProbeRequest `json:"probe,omitempty"`
}

// ProbeRequest asks the hosts that the bundle on trial names to connect to this one.
type ProbeRequest struct {
	Nonce   string  `json:"nonce"` // of this trial
	Address string  `json:"address"`
	Probes  []Probe `json:"probes"`
}

// ProbeAnswers are what a host has found when it connected to others, by their names.
type ProbeAnswers map[string]ProbeAnswer

// ProbeAnswer is what became of a request.
type ProbeAnswer struct {
	Nonce string            `json:"nonce"`
	Done  map[string]string `json:"done"` // by probes: "", or why it failed
}

// maxText is the most of an error that a status holds: a line of a screen, some times.
const maxText = 1000

// Text returns the object that is put into a store.
func (s *Status) Text() ([]byte, error) {
	const most = 50
	if len(s.Drift) > most {
		s.Drift = append(s.Drift[:most:most], fmt.Sprintf("and %d more", len(s.Drift)-most))
	}
	if len(s.Problem) > maxText {
		s.Problem = s.Problem[:maxText] + "…"
	}
	if s.Drift == nil {
		s.Drift = []string{}
	}
	return json.Marshal(s)
}

// ParseStatus reads what a host says. One of a newer version may say more. A host speaks for itself alone.
func ParseStatus(host string, text []byte) (*Status, error) {
	s := new(Status)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("the status of %s cannot be read: %w", host, err)
	}
	if s.Name != host {
		return nil, fmt.Errorf("the status of %s is that of %.40q", host, s.Name)
	}
	if s.Facts.check() != nil {
		return nil, errors.New("the facts of " + host + " are none")
	}
	return s, nil
}
