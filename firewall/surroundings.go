// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/firewall/cmdline"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// Flags returns the flags that a command has to repeat which is printed for the user to paste.
func (fw *Firewall) Flags() cmdline.Flags {
	f := cmdline.Flags{PinPath: fw.options.PinPath}
	if fw.options.ConfigGiven || fw.options.Config != DefaultConfig {
		f.Config = fw.options.Config
	}
	return f
}

// useless warns of rules that make no difference, as others let in more already.
func useless(f Filter, rules []policy.Rule) (warnings []string) {
	if !slices.ContainsFunc(rules, func(r policy.Rule) bool { return r.Forward || !r.Anyone() }) {
		return nil // nor need the policy be read
	}
	p, err := f.Policy()
	if err != nil {
		return []string{fmt.Sprintf("whether the rules are of use is not known: %v", err)}
	}
	for _, r := range rules {
		if r.Forward && p.Forward == policy.ForwardAccept {
			warnings = append(warnings, fmt.Sprintf("forward rule %q has no effect: \"forward: accept\" lets everything through", r))
		} else if text := p.CoveringText(r); text != "" && !r.Anyone() {
			warnings = append(warnings, text)
		}
	}
	return warnings
}

// Unfiltered returns the interfaces by which packets come in past a filter on the given ones.
func (fw *Firewall) Unfiltered(filtered []string) ([]host.Interface, error) {
	return fw.kernel.Unfiltered(filtered)
}

// unfiltered warns of interfaces by which packets come in past a filter on the given ones, but for those named already.
func (fw *Firewall) unfiltered(filtered []loader.Interface, named []string) []string {
	var by []string
	for _, i := range filtered {
		by = append(by, i.Name)
	}
	interfaces, err := fw.kernel.Unfiltered(by)
	if err != nil {
		return []string{fmt.Sprintf("whether other interfaces are unfiltered is not known: %v", err)}
	}
	var names []string
	for _, i := range interfaces {
		if !slices.Contains(named, i.Name) {
			names = append(names, i.Name)
		}
	}
	return UnfilteredText(names, fw.Flags())
}

// UnfilteredText returns a sentence about interfaces that are not filtered, if there are any.
func UnfilteredText(names []string, flags cmdline.Flags) []string {
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
