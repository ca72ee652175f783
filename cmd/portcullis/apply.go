// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

func (a *app) applyCommand() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use:   "apply [FILE]",
		Short: "Put the policy file, or another one, in force",
		Long: `Replace the policy in force by the policy file as it is now, or by that of FILE, and
show what that changes. All of it changes at once, at every interface: no packet meets
half a policy, and connections that live go on. Rules opened with --runtime end.

FILE is no more than read. Until "portcullis save" writes what is in force to the policy
file, the next "portcullis up" goes back to that. No interface stops being filtered:
"portcullis down eth1" does that.`,
		Example: `  portcullis apply
  portcullis apply candidate.yaml && portcullis save`,
		Args:              atMostOneFile,
		ValidArgsFunction: completeFile,
		RunE:              func(_ *cobra.Command, args []string) error { return a.apply(args, force) },
	}
	cmd.Flags().BoolVar(&force, "force", false, "also when it locks out the ssh session of this command")
	return cmd
}

func atMostOneFile(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("one file at a time: see %q", cmd.CommandPath()+" --help")
	}
	return nil
}

func completeFile(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

// candidate is a policy that may come in the place of the one in force.
type candidate struct {
	config  string         // the policy file of the running filter
	file    string         // where the candidate comes from: config, or another one
	named   []string       // the interfaces that file names
	policy  *policy.Policy // as it would be in force: interfaces that are filtered stay so
	changes []changeView
	flows   string // why the flow table is not what the policy asks for, or ""
	current bool   // what is in force is this policy, by this file, on every interface
}

// candidate reads the file that is named, or else the policy file, and compares it with what is in force.
func (a *app) candidate(f filter, args []string) (*candidate, error) {
	c := &candidate{config: a.fileOf(f)}
	c.file = c.config
	if len(args) > 0 {
		var err error
		if c.file, err = filepath.Abs(args[0]); err != nil {
			return nil, err
		}
	}
	p, err := loadFitting(c.file)
	if err != nil {
		return nil, err
	}
	filtered, err := f.Interfaces()
	if err != nil {
		return nil, err
	}
	runtime, err := f.RuntimeRules()
	if err != nil {
		return nil, err
	}
	inForce := f.Policy()
	c.named = p.Interfaces
	c.policy = withInterfaces(p, inForce.Interfaces)
	c.changes = viewChanges(inForce, c.policy, runtime)
	if err := c.deferFlows(f); err != nil {
		return nil, err
	}
	gone := slices.ContainsFunc(filtered, func(i loader.Interface) bool { return !i.Present })
	c.current = len(c.changes) == 0 && len(runtime) == 0 && !gone && f.Config() == c.config
	return c, nil
}

// deferFlows marks a change of "flows: max" that waits: the table keeps its size for as long as the filter runs.
func (c *candidate) deferFlows(f filter) error {
	table, err := f.Refusals()
	if err != nil || table.Max == c.policy.FlowLimit() {
		return err
	}
	for i := range c.changes {
		c.changes[i].Deferred = c.changes[i].Key == "flows max"
	}
	c.flows = loader.KeepsSize(table.Max, c.policy.FlowLimit())
	return nil
}

// loadFitting reads a policy that a filter has room for.
func loadFitting(file string) (*policy.Policy, error) {
	p, err := policy.Load(file)
	if err != nil {
		return nil, err
	}
	if err := maps.CheckCapacity(p); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

// changeView is a difference between two policies.
type changeView struct {
	Op      string `json:"op"` // + added, - removed, ~ changed
	Key     string `json:"key"`
	Old     string `json:"old"`
	New     string `json:"new"`
	Runtime bool   `json:"runtime"` // a rule that was opened for the time being

	Deferred bool `json:"deferred"` // takes effect after down and up
}

func (c changeView) String() string {
	text := policy.Change{Op: c.Op[0], Key: c.Key, Old: c.Old, New: c.New}.String()
	if c.Deferred {
		text += " (takes effect after \"down\" and \"up\")"
	}
	if c.Runtime {
		text += "   (opened with --runtime or --for)"
	}
	return text
}

// viewChanges lists the differences, and which of them end a rule that was opened for the time being.
func viewChanges(from, to *policy.Policy, runtime []policy.Rule) []changeView {
	changes := []changeView{}
	ending := make(map[string]bool)
	for _, text := range texts(runtime) {
		ending[text] = true
	}
	for _, c := range policy.Diff(from, to) {
		ends := c.Key == "open" && c.Op == '-' && ending[c.Old]
		changes = append(changes, changeView{Op: string(c.Op), Key: c.Key, Old: c.Old, New: c.New, Runtime: ends})
	}
	return changes
}

// warnings tells of interfaces that stay filtered though the file, which names some, does not name them.
func (c *candidate) warnings() (out []string) {
	for _, name := range c.policy.Interfaces {
		if len(c.named) > 0 && !slices.Contains(c.named, name) {
			out = append(out, fmt.Sprintf("%s stays filtered, though %s does not name it: \"portcullis down %s\" ends that", name, c.file, name))
		}
	}
	return out
}

type applyView struct {
	Config   string       `json:"config"`
	File     string       `json:"file"`
	Changes  []changeView `json:"changes"`
	Applied  bool         `json:"applied"` // false where it was in force already
	Warnings []string     `json:"warnings"`
}

func (a *app) apply(args []string, force bool) error {
	turn, f, end, err := a.beginChange()
	if err != nil {
		return err
	}
	defer end()
	release, err := lockFile(a.fileOf(f))
	if err != nil {
		return err
	}
	defer release()
	c, err := a.candidate(f, args)
	if err != nil {
		return err
	}
	if !force {
		if err := a.guard(c.policy, c.file); err != nil {
			return err
		}
	}
	view := applyView{c.config, c.file, c.changes, !c.current, append(c.warnings(), a.unreachable(c.policy)...)}
	if c.current && c.flows != "" {
		view.Warnings = append(view.Warnings, c.flows) // else Up says so
	}
	if view.Applied {
		report, err := a.firewall.Up(loader.Options{
			PinPath:    a.pinPath,
			Interfaces: c.named,
			Mode:       loader.ModeAuto,
			Policy:     c.policy,
			Config:     c.config,
			Running:    true,
		})
		if err != nil {
			return err
		}
		if err := endTimed(turn); err != nil {
			return err
		}
		view.Warnings = append(view.Warnings, report.Warnings...)
		if c.file == c.config {
			a.keepNewLastGood()
		}
	}
	view.Warnings = list(view.Warnings)
	a.warn(view.Warnings...)
	return a.print(view, func() { a.printApply(&view, c.flows != "") })
}

func (a *app) printApply(v *applyView, deferred bool) {
	a.printChanges(v.Changes)
	but := ""
	if deferred {
		but = ", but for flows max"
	}
	switch {
	case !v.Applied:
		a.printf("nothing to do: what %s says is in force%s\n", v.File, but)
	case v.File == v.Config:
		a.printf("in force: what %s says%s\n", v.File, but)
	default:
		a.printf("in force: what %s says%s, until the next \"portcullis up\"; \"portcullis save\" writes it to %s\n", v.File, but, v.Config)
	}
}

func (a *app) printChanges(changes []changeView) {
	for _, c := range changes {
		a.printf("%s\n", c)
	}
}
