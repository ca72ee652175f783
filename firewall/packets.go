// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/packets"
)

// PacketChange is a difference in the packets that the rules of two policies let in.
type PacketChange struct {
	What string   `json:"what"` // ports, as a rule names them
	On   []string `json:"on"`   // interfaces; none for all
	Not  []string `json:"not"`  // those that On stands for, too, and that are no part of it
	Old  string   `json:"old"`  // who was let in
	New  string   `json:"new"`

	text string
}

func (c PacketChange) String() string { return c.text }

// packetChanges returns how what rules and "input: accept" let in differs, where changes say that these do.
func packetChanges(from, to *policy.Policy, changes []Change) []PacketChange {
	out := []PacketChange{}
	if !slices.ContainsFunc(changes, Change.isOfInput) {
		return out
	}
	for _, c := range packets.Diff(from, to) {
		out = append(out, PacketChange{What: c.What, On: list(c.On), Not: list(c.Not), Old: c.Old.String(), New: c.New.String(), text: c.String()})
	}
	return out
}

func (c Change) isOfInput() bool {
	return c.Key == "open" || c.Key == "input" || strings.HasPrefix(c.Key, "input on ")
}
