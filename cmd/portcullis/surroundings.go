// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/firewall/cmdline"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// commandLine returns the flags that a command has to repeat which is printed for the user to paste.
func (a *app) commandLine() cmdline.Flags {
	f := cmdline.Flags{PinPath: a.pinPath}
	if a.configGiven || a.config != defaultConfig {
		f.Config = a.config
	}
	return f
}

// cutOff warns of containers that a policy, which stands in a file, cuts off.
func (a *app) cutOff(p *policy.Policy, file string) []string {
	if p.Forward != policy.ForwardDrop {
		return nil
	}
	found, err := a.firewall.Containers()
	if err != nil {
		return []string{fmt.Sprintf("whether \"forward: drop\" cuts off containers is not known: %v", err)}
	}
	return found.Warnings(p, quote.Name(file))
}

// openedInVain warns of rules that open ports of containers which a policy lets no answer out of.
func (a *app) openedInVain(f filter, rules []policy.Rule, file string) []string {
	if !a.firewall.Forwards() {
		return nil
	}
	p := f.Policy()
	if p.Forward != policy.ForwardDrop {
		return nil // nor need netfilter be read
	}
	found, err := a.firewall.Containers()
	if err != nil {
		return []string{err.Error()}
	}
	return found.OpenedInVain(p, rules, quote.Name(file))
}

// unfiltered warns of interfaces by which packets come in past a filter on the given ones, but for those named already.
func (a *app) unfiltered(filtered, named []string) []string {
	interfaces, err := a.firewall.Unfiltered(filtered)
	if err != nil {
		return []string{fmt.Sprintf("whether other interfaces are unfiltered is not known: %v", err)}
	}
	var names []string
	for _, i := range interfaces {
		if !slices.Contains(named, i.Name) {
			names = append(names, i.Name)
		}
	}
	return unfilteredText(names, a.commandLine())
}

// unfilteredText returns a sentence about interfaces that are not filtered, if there are any.
func unfilteredText(names []string, flags cmdline.Flags) []string {
	if len(names) == 0 {
		return nil
	}
	verb, them := "is", "it"
	if len(names) > 1 {
		verb, them = "are", "them"
	}
	return []string{fmt.Sprintf("%s %s not filtered: what comes in by %s reaches every port; \"%s\" filters %s",
		quote.Names(names), verb, them, flags.Line(append([]string{"up"}, names...)...), them)}
}

func namesOfInterfaces(interfaces []host.Interface) []string {
	names := make([]string, len(interfaces))
	for i, one := range interfaces {
		names[i] = one.Name
	}
	return names
}
