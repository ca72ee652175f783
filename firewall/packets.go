// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/packets"
)

// PacketChange is a difference in the packets that the rules of two policies let in.
type PacketChange struct {
	What string   `json:"what"` // ports, as a rule names them
	On   []string `json:"on"`   // interfaces; none for all
	Old  string   `json:"old"`  // who was let in
	New  string   `json:"new"`

	text string
}

func (c PacketChange) String() string { return c.text }

// packetChanges returns how what rules let in differs, where changes say that rules do. Where all input is accepted no
// rule counts.
func packetChanges(from, to *policy.Policy, changes []Change) []PacketChange {
	out := []PacketChange{}
	if !slices.ContainsFunc(changes, Change.isOfRules) || acceptsAll(from) && acceptsAll(to) {
		return out
	}
	for _, c := range packets.Diff(from, to) {
		out = append(out, PacketChange{What: c.What, On: list(c.On), Old: c.Old.String(), New: c.New.String(), text: c.String()})
	}
	return out
}

func (c Change) isOfRules() bool { return c.Key == "open" }

func acceptsAll(p *policy.Policy) bool { return p.Input == policy.Accept && len(p.InputOn) == 0 }
