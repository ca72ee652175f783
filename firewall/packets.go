// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/packets"
)

// PacketChange is a difference in the packets that the rules of two policies let in or through.
type PacketChange struct {
	Forward bool     `json:"forward"` // of what is routed, and not of what is for this host
	What    string   `json:"what"`    // ports, as a rule names them
	On      []string `json:"on"`      // interfaces; none for all
	Old     string   `json:"old"`     // who was let in, or through
	New     string   `json:"new"`

	text string
}

func (c PacketChange) String() string { return c.text }

// packetChanges returns how what rules let in and through differs, where changes say that rules do. Where all is accepted
// no rule counts.
func packetChanges(from, to *policy.Policy, changes []Change) []PacketChange {
	out := []PacketChange{}
	if !slices.ContainsFunc(changes, Change.OfRules) {
		return out
	}
	for _, c := range packets.Diff(from, to) {
		accepts := acceptsAll
		if c.Forward {
			accepts = forwardsAll
		}
		if accepts(from) && accepts(to) {
			continue
		}
		out = append(out, PacketChange{Forward: c.Forward, What: c.What, On: list(c.On), Old: c.Old.String(), New: c.New.String(), text: c.String()})
	}
	return out
}

// OfRules reports whether it is rules that differ.
func (c Change) OfRules() bool { return c.Key == openChange || c.Key == forwardOpenChange }

// The keys of changes that are of rules.
const (
	openChange        = "open"
	forwardOpenChange = "forward open"
)

// changeKey returns the key of a change that is of a rule.
func changeKey(r policy.Rule) string {
	if r.Forward {
		return forwardOpenChange
	}
	return openChange
}

func forwardsAll(p *policy.Policy) bool { return p.Forward == policy.ForwardAccept }

func acceptsAll(p *policy.Policy) bool { return p.Input == policy.Accept && len(p.InputOn) == 0 }
