// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// statusAttempts is how often a status is taken anew that is of two policies, as one replaced the other meanwhile.
const statusAttempts = 5

// Status returns what the filter is and has done. See Refusals for what may be wrong with the flow table.
func (f *Filter) Status() (s *Status, err error) {
	for range statusAttempts {
		if err := f.refresh(); err != nil {
			return nil, err
		}
		if s, err = f.status(); f.isCurrent() {
			break
		}
	}
	return s, err
}

func (f *Filter) status() (*Status, error) {
	s := &Status{PinPath: f.pins.Base, Config: f.Config(), Rules: []RuleStatus{}, Counters: []CounterStatus{}, Warnings: []string{}}
	var err error
	if s.Policy, err = f.Policy(); err != nil {
		return nil, err
	}
	if s.Saved, err = f.saved(); err != nil {
		return nil, err
	}
	if s.Interfaces, err = f.Interfaces(); err != nil {
		return nil, err
	}
	if s.Patterns, err = f.pins.Patterns(); err != nil {
		return nil, err
	}
	counted, err := f.set.Ledger()
	if err != nil {
		return nil, err
	}
	if s.Ledger, err = f.ledger(counted); err != nil {
		return nil, err
	}
	rules, err := f.set.Rules()
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		s.Rules = append(s.Rules, ruleStatus(r, counted))
	}
	s.Closed = counted.Closed(rules)
	for _, reason := range maps.Reasons() {
		tally := counted.Total(reason)
		s.Counters = append(s.Counters, CounterStatus{reason.Verdict(), reason.String(), tally.Packets, tally.Bytes})
	}
	if s.Flows, err = f.flowsStatus(counted); err != nil {
		return nil, err
	}
	if s.BlockLists, err = f.BlockLists(); err != nil {
		return nil, err
	}
	for _, r := range f.renames {
		s.Warnings = append(s.Warnings, r.String())
	}
	for _, i := range s.Interfaces {
		if text := i.UnfilteredText(); text != "" {
			s.Warnings = append(s.Warnings, text)
		}
	}
	elsewhere := f.elsewhere()
	for _, i := range s.Interfaces {
		if i.Pattern != "" && !policy.MatchInterface(i.Pattern, i.Name) && !slices.Contains(elsewhere, i.Name) {
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s was renamed since %s brought it: it stays filtered, and what the policy says of %s does not count on it: name it there, or run \"portcullis down %s\"",
				i.Name, i.Pattern, i.Pattern, quote.Shell(i.Name)))
		}
	}
	for _, name := range elsewhere {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s was renamed, and what the policy says of its former name still counts on it: run \"portcullis up %s\"", name, quote.Shell(name)))
	}
	outdated, err := f.outdatedInterfaces()
	if err != nil {
		return nil, err
	}
	s.Warnings = append(s.Warnings, outdated...)
	if missing := f.Missing(); len(missing) > 0 {
		s.Warnings = append(s.Warnings, fmt.Sprintf("missing below %s: %s; \"portcullis up\" repairs this",
			f.pins.Root(), strings.Join(missing, ", ")))
	}
	changed, err := f.HostChanges()
	if err != nil {
		return nil, err
	}
	if changed.MTU != "" {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: MTU raised while filtered; large frames may be lost until you run \"portcullis up %s\"", changed.MTU, quote.Shell(changed.MTU)))
	}
	return s, nil
}

// What Absence returns.
const (
	AbsentWaiting   = "waiting"       // it has not been there yet
	AbsentGone      = "gone"          // deleted, or moved to another namespace
	AbsentAppeared  = "not filtered"  // for the first time, without an agent
	AbsentRecreated = "re-created"    // without an agent
	AbsentHalf      = "half filtered" // the pin of a link was removed, and with it the link
)

// AwaitedText returns a sentence about an interface that is not there, or "" for any other. Whether it is filtered when it
// comes, depends on whether "portcullis run" is running.
func (i Interface) AwaitedText(running bool) string {
	agent := "\"portcullis run\" filters it"
	if running {
		agent = "it is filtered"
	}
	switch i.Absence() {
	case AbsentWaiting:
		return fmt.Sprintf("%s does not exist: %s when it appears", i.Name, agent)
	case AbsentGone:
		return fmt.Sprintf("%s is gone: %s when it is back", i.Name, agent)
	}
	return ""
}

// UnfilteredText returns a sentence about an interface that is there and not filtered, or "" for any other.
func (i Interface) UnfilteredText() string {
	what := ""
	switch i.Absence() {
	case AbsentAppeared:
		what = "has appeared, and is not filtered"
	case AbsentHalf:
		what = "is filtered in one direction only"
	case AbsentRecreated:
		what = "was deleted and re-created, and is not filtered"
	default:
		return ""
	}
	return fmt.Sprintf("%s %s: run \"portcullis up %s\"", i.Name, what, quote.Shell(i.Name))
}

// IngressText returns what filters incoming packets: "native XDP".
func (i Interface) IngressText() string {
	switch i.Mode {
	case ModeNative, ModeGeneric:
		return string(i.Mode) + " XDP"
	case ModeTC:
		return "TC"
	}
	return string(i.Mode)
}

// EgressText returns what tracks outgoing packets: "TCX".
func (i Interface) EgressText() string {
	if i.Egress == "tcx" {
		return "TCX"
	}
	return i.Egress
}

// Absence returns in a word why an interface is not filtered, or "" where it is.
func (i Interface) Absence() string {
	if i.Present {
		return ""
	}
	_, err := host.Device(i.Name)
	missing, never := errors.Is(err, host.ErrNoDevice), i.Mode == ModeAuto && i.Egress == ""
	switch {
	case !missing && !never && (i.Mode == ModeAuto || i.Egress == ""):
		return AbsentHalf
	case missing && never:
		return AbsentWaiting
	case missing:
		return AbsentGone
	case never:
		return AbsentAppeared
	}
	return AbsentRecreated
}

// xdpMode returns the mode in which the kernel runs the XDP program of a device.
func xdpMode(device netlink.Link) Mode {
	if hook.IsGeneric(device) {
		return ModeGeneric
	}
	return ModeNative
}
