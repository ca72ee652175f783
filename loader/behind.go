// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// What is routed is judged by the interface that it comes in by, be that filtered or not. So the datapath has a list of
// interfaces, which is kept in step with the host as that of its addresses is.

// readInterfaces returns the interfaces of this host, where filters are on the given ones.
func readInterfaces(filtered []string) ([]maps.Interface, error) {
	list, err := host.ReadBehind(filtered)
	if err != nil {
		return nil, err
	}
	out := make([]maps.Interface, len(list))
	for i, b := range list {
		out[i] = maps.Interface(b)
	}
	return out, nil
}

func isForward(r maps.Rule) bool { return r.Rule.Forward }

// asksInterfaces reports whether the datapath asks for the list: not where everything is routed, nor where only answers
// are, but for guests behind a filtered interface.
func (f *Filter) asksInterfaces(filtered []string) (bool, error) {
	switch f.running.Policy.Forward {
	case policy.ForwardAccept:
		return false, nil
	case policy.ForwardDrop:
		return true, nil
	}
	features, err := f.set.Features()
	if err != nil || features&maps.UsesForwardRules != 0 {
		return true, err
	}
	return slices.ContainsFunc(filtered, func(name string) bool {
		device, err := host.Device(name)
		return err == nil && host.MayHaveGuests(device)
	}), nil
}

// filteredNow returns the interfaces that are there and filtered.
func (f *Filter) filteredNow() (names []string, err error) {
	interfaces, err := f.Interfaces()
	for _, i := range interfaces {
		if i.Present {
			names = append(names, i.Name)
		}
	}
	return names, err
}

// syncInterfaces brings the list in line with the host, where filters are on the given interfaces. The lock is held.
func (f *Filter) syncInterfaces(filtered []string) error {
	if asks, err := f.asksInterfaces(filtered); err != nil || !asks {
		return err
	}
	list, err := readInterfaces(filtered)
	if err != nil {
		return err
	}
	return f.set.SyncInterfaces(list)
}

// setInterfaces makes the list part of a change of rules, where one of them is about what is routed. The lock is held.
func (f *Filter) setInterfaces(before, after []maps.Rule) error {
	if !slices.ContainsFunc(before, isForward) && !slices.ContainsFunc(after, isForward) {
		return nil
	}
	filtered, err := f.filteredNow()
	if err != nil {
		return err
	}
	list, err := readInterfaces(filtered)
	if err == nil {
		f.set.SetInterfaces(list)
	}
	return err
}

// outdatedInterfaces returns sentences about interfaces that have come or changed since somebody looked.
func (f *Filter) outdatedInterfaces() (sentences []string, err error) {
	filtered, err := f.filteredNow()
	if err != nil {
		return nil, err
	}
	if asks, err := f.asksInterfaces(filtered); err != nil || !asks {
		return nil, err
	}
	list, err := readInterfaces(filtered)
	if err != nil {
		return nil, err
	}
	outdated, err := f.set.OutdatedInterfaces(list)
	if err != nil {
		return nil, err
	}
	for _, i := range outdated {
		what := "what comes in by it and is routed is judged as before it came or changed"
		if i.Guests {
			what = "its guests are cut off, as it came or changed after the filter"
		}
		sentences = append(sentences, fmt.Sprintf("%s: %s: run \"portcullis up\", or keep \"portcullis run\" running", quote.Name(i.Name), what))
	}
	return sentences, nil
}

// withoutRoom makes an ErrNoRoom of a list one that says what to do.
func withoutRoom(err error) error {
	if errors.Is(err, maps.ErrNoRoom) {
		return fmt.Errorf("an interface has come for which other rules about what is routed count: run \"portcullis up\": %w", err)
	}
	return err
}
