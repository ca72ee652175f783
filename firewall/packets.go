// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/packets"
	"github.com/portcullis-firewall/portcullis/policy/quote"
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
// without any, on a host with these guests.
func packetChanges(from, to *policy.Policy, changes []Change, guests []string) []PacketChange {
	out := []PacketChange{}
	if !slices.ContainsFunc(changes, Change.ofPackets) {
		return out
	}
	for _, c := range packets.Diff(from, to, guests...) {
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

// guests returns the devices of containers and virtual machines, as far as anybody knows.
func (fw *Firewall) guests() []string {
	list, err := fw.kernel.Guests()
	if err != nil {
		return nil // the filter does not depend on what is told of them
	}
	names := make([]string, len(list))
	for i, g := range list {
		names[i] = g.Device
	}
	return names
}

// guestTexts says which guests may begin outward from now on, and which may no longer, because of the rules that name
// their device.
func guestTexts(from, to *policy.Policy, guests []string) (out []string) {
	if from.Forward == policy.ForwardAccept || to.Forward == policy.ForwardAccept {
		return nil
	}
	for _, device := range guests {
		switch was, is := from.NamesForward(device), to.NamesForward(device); {
		case was && !is:
			out = append(out, fmt.Sprintf("all on %s: nobody -> anybody: no forward rule names it any more, and guests may begin outward unless a rule names their bridge", quote.Name(device)))
		case !was && is:
			out = append(out, fmt.Sprintf("all on %s: anybody -> nobody but by rules: a forward rule names it now, so its guests may begin only what forward rules let through", quote.Name(device)))
		}
	}
	return out
}

// boundGuests is guestTexts for rules that have been opened.
func (fw *Firewall) boundGuests(f Filter, opened []policy.Rule) []string {
	if !slices.ContainsFunc(opened, func(r policy.Rule) bool { return r.Forward && len(r.On) > 0 }) {
		return nil
	}
	after, err := f.Policy()
	if err != nil {
		return nil // which useless says
	}
	before, _, _, err := after.WithoutRules(opened)
	if err != nil {
		return nil
	}
	return guestTexts(before, after, fw.guests())
}
