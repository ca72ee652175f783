// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

func (a *app) upCommand() *cobra.Command {
	mode := modeFlag{loader.ModeAuto}
	force := false
	cmd := &cobra.Command{
		Use:         "up [IFACE...]",
		Short:       "Put the policy in force",
		Annotations: needsRoot,
		Long: `Put the policy in force on the interfaces named, else on those in the policy file, else
on the one with the default route. Live connections continue.

If the filter is up, this replaces its policy by that of its file, or of the one named, in
one step: no packet meets half a policy. Interfaces that are filtered stay filtered, and
rules opened with --runtime end.

Without a policy file, replies, ICMP and the ports on which an sshd listens are let in.`,
		Example: `  portcullis up
  portcullis up eth0 --config web.yaml
  portcullis up eth0 --mode tc        behind another XDP program`,
		ValidArgsFunction: a.completeInterfaces,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.up(args, mode.Mode, force)
		},
	}
	addMode(cmd, &mode)
	cmd.Flags().BoolVar(&force, "force", false, "even if it locks out the ssh session that you are using")
	return cmd
}

// upView is what up did, in JSON.
type upView struct {
	Interfaces []loader.Interface `json:"interfaces"`
	Updated    bool               `json:"updated"`
	Seeded     int                `json:"seeded"`
	Config     string             `json:"config"`
	BuiltIn    bool               `json:"built_in"`
	Rules      []string           `json:"rules"`
	Warnings   []string           `json:"warnings"`
}

func (a *app) up(interfaces []string, mode loader.Mode, force bool) error {
	turn, err := a.turnToChange()
	if err != nil {
		return err
	}
	defer turn.Release()
	filtered := a.recall()
	release, err := lockFile(a.config)
	if err != nil {
		return err
	}
	defer release()
	p, builtIn, err := a.wanted()
	if err != nil {
		return err
	}
	if p.Interfaces, err = a.interfaces(interfaces, p.Interfaces, filtered); err != nil {
		return err
	}
	if !force {
		if err := a.guard(withInterfaces(p, filtered), a.config); err != nil {
			return err
		}
	}
	report, err := a.firewall.Up(loader.Options{
		PinPath:    a.pinPath,
		Interfaces: p.Interfaces,
		Mode:       mode,
		Look:       true,
		Policy:     p,
		Config:     a.config,
	})
	if err != nil {
		return err
	}
	report.Warnings = slices.Concat(report.Warnings, a.unreachable(p), a.cutOff(p, a.config), a.unfiltered(union(p.Interfaces, filtered), nil))
	if err := endTimed(turn); err != nil {
		return err
	}
	a.warn(report.Warnings...)
	a.keepNewLastGood()
	view := upView{list(report.Interfaces), report.Updated, report.Seeded, a.config, builtIn, texts(p.Open), list(report.Warnings)}
	return a.print(view, func() { a.printUp(report, p, builtIn) })
}

// recall asks a filter that runs for its interfaces, and for its file if none is named: up applies that anew.
func (a *app) recall() (interfaces []string) {
	f, err := a.firewall.Open(a.pinPath)
	if err != nil {
		return nil // up tells of what is wrong
	}
	defer f.Close()
	a.config = a.fileOf(f)
	return f.Policy().Interfaces
}

// wanted returns the policy of the file, or the built-in one where there is none and none is asked for.
func (a *app) wanted() (p *policy.Policy, builtIn bool, err error) {
	p, err = loadTrusted(a.config)
	if a.configGiven || a.config != defaultConfig || !errors.Is(err, fs.ErrNotExist) {
		return p, false, err
	}
	p, err = a.builtIn()
	return p, true, err
}

// builtIn returns the policy for a host without a file: what an sshd listens on is open, and where the host forwards, as
// for containers, they reach out.
func (a *app) builtIn() (*policy.Policy, error) {
	p := policy.Default()
	if a.firewall.Forwards() {
		p.Forward = policy.ForwardEstablished
	}
	ports, err := a.firewall.SSHPorts()
	if err != nil {
		return nil, fmt.Errorf("there is no %s, and the port of sshd cannot be found: %w", a.config, err)
	}
	for _, port := range ports {
		text := fmt.Sprintf("%d/tcp", port)
		if port == 22 {
			text = "ssh"
		}
		r, err := policy.ParseRule(text)
		if err != nil {
			return nil, err
		}
		p.Open = append(p.Open, r)
	}
	return p, nil
}

// interfaces returns those that are to be filtered: the ones named, else the policy's, else those of a filter that
// runs, else that of the default route.
func (a *app) interfaces(named, configured, filtered []string) ([]string, error) {
	for _, names := range [][]string{named, configured, filtered} {
		if len(names) > 0 {
			return union(names), nil
		}
	}
	name, err := a.firewall.DefaultInterface()
	if err != nil {
		return nil, err
	}
	return []string{name}, nil
}

// union returns the names in all lists, in order.
func union(lists ...[]string) []string {
	names := slices.Concat(lists...)
	slices.Sort(names)
	return slices.Compact(names)
}

// withInterfaces returns the policy as it will be on interfaces that are filtered already, too.
func withInterfaces(p *policy.Policy, filtered []string) *policy.Policy {
	p = p.Clone()
	p.Interfaces = union(p.Interfaces, filtered)
	return p
}

func (a *app) printUp(report *loader.UpReport, p *policy.Policy, builtIn bool) {
	for _, i := range report.Interfaces {
		state := "filtering"
		if !i.Present {
			state = "gone, and not filtered"
		}
		a.printf("%s: %s (%s, egress %s)\n", i.Name, state, i.IngressText(), i.EgressText())
	}
	if report.Updated {
		a.printf("it was running: the policy was replaced in place\n")
	}
	if report.Seeded > 0 {
		a.printf("%s\n", count(report.Seeded, "live connection goes on", "live connections go on"))
	}
	if !builtIn {
		a.printf("policy: %s: %s\n", a.config, openText(p))
		return
	}
	a.printf("policy: built in, as there is no %s\n", a.config)
	forwarded := "nothing is forwarded"
	if p.Forward == policy.ForwardEstablished {
		forwarded = "what is behind this host reaches out, and only answers come in"
	}
	a.printf("  replies to what this host sends and ICMP come in; %s\n", forwarded)
	for _, r := range p.Open {
		a.printf("  open: %s, because an sshd listens on port %d\n", r, r.Ports[0].First)
	}
	if len(p.Open) == 0 {
		a.printf("  no port is open: no sshd listens here\n")
	}
	a.printf("next: \"portcullis open http\", or what else this host serves; that also writes the file\n")
}

// openText tells the rules of a policy in one line, however many there are.
func openText(p *policy.Policy) string {
	const most = 6
	if p.Input == policy.Accept {
		return "input is accepted"
	}
	if len(p.Open) == 0 {
		return "no port is open"
	}
	rules, more := texts(p.Open), ""
	if len(rules) > most {
		more = fmt.Sprintf("; and %d more", len(rules)-most)
		rules = rules[:most]
	}
	return "open: " + strings.Join(rules, "; ") + more
}
