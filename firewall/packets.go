// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/packets"
)

// PacketChange is a difference in the packets that the rules of two policies let in or through.
type PacketChange struct {
	Forward bool     `json:"forward"` // of what is routed, and not of what is for this host
	What    string   `json:"what"`    // ports, as a rule names them
	On      []string `json:"on"`      // interfaces; none for all
	Not     []string `json:"not"`     // those that On stands for, too, and that are no part of it
	Old     string   `json:"old"`     // who was let in, or through
	New     string   `json:"new"`

	text string
}

func (c PacketChange) String() string { return c.text }

// packetChanges returns how what is let in and through differs, where changes say that rules do, or what is accepted
// without any.
func packetChanges(from, to *policy.Policy, changes []Change) []PacketChange {
	out := []PacketChange{}
	if !slices.ContainsFunc(changes, Change.ofPackets) {
		return out
	}
	for _, c := range packets.Diff(from, to) {
		out = append(out, PacketChange{
			Forward: c.Forward, What: c.What, On: list(c.On), Not: list(c.Not), Old: c.Old.String(), New: c.New.String(), text: c.String(),
		})
	}
	return out
}

// OfRules reports whether it is rules that differ.
func (c Change) OfRules() bool { return c.Key == openChange || c.Key == forwardOpenChange }

func (c Change) ofPackets() bool {
	return c.OfRules() || c.Key == "input" || c.Key == "forward" || strings.HasPrefix(c.Key, "input on ")
}

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
