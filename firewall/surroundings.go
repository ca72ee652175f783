// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
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

// ineffective warns of rules that restrict nothing, and of containers that a policy, which stands in a file, cuts off.
func (fw *Firewall) ineffective(ctx context.Context, p *policy.Policy, file string) []string {
	return append(p.UselessTexts(), fw.cutOff(ctx, p, file)...)
}

// cutOff warns of containers that a policy, which stands in a file, cuts off.
func (fw *Firewall) cutOff(ctx context.Context, p *policy.Policy, file string) []string {
	if p.Forward != policy.ForwardDrop {
		return nil
	}
	found, err := fw.kernel.Containers(ctx)
	if err != nil {
		return []string{fmt.Sprintf("whether \"forward: drop\" cuts off containers is not known: %v", err)}
	}
	return found.Warnings(p, quote.Name(file))
}

// openedInVain warns of rules that restrict nothing, as another one opens more, and of rules that open ports of
// containers which the policy lets no answer out of.
func (fw *Firewall) openedInVain(ctx context.Context, f Filter, rules []policy.Rule, file string) (warnings []string) {
	forwards := fw.kernel.Forwards()
	if !forwards && !slices.ContainsFunc(rules, func(r policy.Rule) bool { return !r.Anyone() }) {
		return nil // nor need the policy be read
	}
	p, err := f.Policy()
	if err != nil {
		return []string{fmt.Sprintf("whether the rules are of use is not known: %v", err)}
	}
	for _, r := range rules {
		if text := p.CoveringText(r); text != "" && !r.Anyone() {
			warnings = append(warnings, text)
		}
	}
	if !forwards || p.Forward != policy.ForwardDrop {
		return warnings
	}
	found, err := fw.kernel.Containers(ctx)
	if err != nil {
		return append(warnings, err.Error())
	}
	return append(warnings, found.OpenedInVain(p, rules, quote.Name(file))...)
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
