// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// candidate is a policy that may come in the place of the one in force.
type candidate struct {
	*source
	config  string   // the policy file of the running filter
	named   []string // the interfaces that the source names
	changes []Change // to what is in force
	packets []PacketChange
	guests  []string // sentences about those that may begin outward from now on, or may no longer
	flows   string   // why the flow table is not what the policy asks for, or ""
	letGo   []string // patterns in force that the source has no more
	current bool     // what is in force is this policy, by this file, on every interface
}

// candidate reads the file that is named, or else the policy file, and compares it with what is in force.
func (fw *Firewall) candidate(f Filter, file string) (*candidate, error) {
	c := &candidate{config: fw.configOf(f)}
	if file == "" {
		file = c.config
	}
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	var also []uint32
	if file != c.config {
		also = fw.options.Invoker
	}
	if c.source, err = fw.readSource(file, also...); err != nil {
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
	inForce, err := f.Policy()
	if err != nil {
		return nil, err
	}
	c.named = c.policy.Interfaces
	c.letGo = letGo(inForce.Interfaces, c.named)
	c.policy = withInterfaces(c.policy, without(inForce.Interfaces, c.letGo))
	c.changes = changesOf(inForce, c.policy, runtime)
	guests := fw.guests()
	c.packets = packetChanges(inForce, c.policy, c.changes, guests)
	c.guests = guestTexts(inForce, c.policy, guests)
	if err := c.deferFlows(f); err != nil {
		return nil, err
	}
	gone := slices.ContainsFunc(filtered, func(i loader.Interface) bool { return !i.Present && i.Pattern == "" })
	c.current = len(c.changes) == 0 && len(runtime) == 0 && !gone && f.Config() == c.config
	if c.current {
		c.current, err = blocksAll(f, c.policy)
	}
	return c, err
}

// deferFlows marks a change of "flows: max" that waits: the table keeps its size for as long as the filter runs.
func (c *candidate) deferFlows(f Filter) error {
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

// warnings returns a sentence for each interface that stays filtered though the file, which names some, does not name it.
func (c *candidate) warnings() (out []string) {
	for _, name := range c.policy.Interfaces {
		if len(c.named) > 0 && !policy.MatchAnyInterface(c.named, name) {
			out = append(out, fmt.Sprintf("%s stays filtered, though %s does not name it: \"portcullis down %s\" ends that", name, c.path, quote.Shell(name)))
		}
	}
	return out
}

// Change is a difference between two policies.
type Change struct {
	Op      string `json:"op"` // + added, - removed, ~ changed
	Key     string `json:"key"`
	Old     string `json:"old"`
	New     string `json:"new"`
	Runtime bool   `json:"runtime"` // a rule that was opened for the time being

	Deferred bool `json:"deferred"` // takes effect after down and up
}

func (c Change) String() string {
	text := policy.Change{Op: c.Op[0], Key: c.Key, Old: c.Old, New: c.New}.String()
	if c.Deferred {
		text += " (takes effect after \"down\" and \"up\")"
	}
	if c.Runtime {
		text += "   (opened with --runtime or --for)"
	}
	return text
}

// changesOf lists the differences, and which of them end a rule that was opened for the time being.
func changesOf(from, to *policy.Policy, runtime []policy.Rule) []Change {
	changes := []Change{}
	ending := make(map[string]bool)
	for _, r := range runtime {
		ending[changeKey(r)+" "+r.String()] = true
	}
	for _, c := range policy.Diff(from, to) {
		ends := c.Op == '-' && ending[c.Key+" "+c.Old]
		changes = append(changes, Change{Op: string(c.Op), Key: c.Key, Old: c.Old, New: c.New, Runtime: ends})
	}
	return changes
}

// ApplyRequest says what to put in force.
type ApplyRequest struct {
	File  string // "": the policy file
	Force bool   // also when it locks the user out
}

// ApplyReport is the result of Apply.
type ApplyReport struct {
	Config   string         `json:"config"`
	File     string         `json:"file"`
	Changes  []Change       `json:"changes"`
	Packets  []PacketChange `json:"packets"`
	Applied  bool           `json:"applied"` // false where it was in force already
	Skipped  []string       `json:"skipped"` // lines of list files that are no networks
	Warnings []string       `json:"warnings"`

	Deferred bool `json:"-"` // the size of the flow table is another than the policy asks for
}

// Apply puts the policy file, or another one, in force in a filter that runs, in one step.
func (fw *Firewall) Apply(ctx context.Context, r ApplyRequest) (*ApplyReport, error) {
	change, f, err := fw.beginWithFilter(ctx)
	if err != nil {
		return nil, err
	}
	defer change.end()
	defer f.Close()
	if err := change.lockFile(ctx, fw.configOf(f)); err != nil {
		return nil, err
	}
	c, err := fw.candidate(f, r.File)
	if err != nil {
		return nil, err
	}
	if !r.Force {
		if err := fw.user.Guard(c.policy, c.path); err != nil {
			return nil, err
		}
		if err := fw.guardLists(c.policy); err != nil {
			return nil, err
		}
	}
	report := &ApplyReport{
		Config:   c.config,
		File:     c.path,
		Changes:  c.changes,
		Packets:  c.packets,
		Applied:  !c.current,
		Skipped:  skippedLines(c.policy),
		Warnings: slices.Concat(c.warnings(), c.guests, listWarnings(c.policy), fw.user.Unreachable(c.policy), ineffective(c.policy, c.policy.Interfaces), fw.unwritten(c.policy)),
		Deferred: c.flows != "",
	}
	if c.current && c.flows != "" {
		report.Warnings = append(report.Warnings, c.flows) // else the loader says so
	}
	if report.Applied {
		up, err := fw.kernel.Up(fw.waiting(ctx), loader.Options{
			PinPath:    fw.options.PinPath,
			Interfaces: c.named,
			Mode:       loader.ModeAuto,
			Policy:     c.policy,
			Config:     c.config,
			LetGo:      c.letGo,
			Running:    true,
		})
		if err != nil {
			return nil, err
		}
		report.Warnings = slices.Concat(report.Warnings, up.Warnings, warning(change.endTimed()))
		if c.path == c.config {
			report.Warnings = append(report.Warnings, fw.keepNewLastGood(ctx, c.lists)...)
		}
	}
	if c.path == c.config {
		change.recordApplied(c.stamp())
		change.recordForced(c.stamp(), r.Force, c.policy)
	} else {
		change.recordOverruled(c.config)
	}
	report.Warnings = list(report.Warnings)
	return report, nil
}

// DiffReport is what Apply would change.
type DiffReport struct {
	Config   string         `json:"config"`
	File     string         `json:"file"`
	Changes  []Change       `json:"changes"`
	Packets  []PacketChange `json:"packets"`
	Skipped  []string       `json:"skipped"` // lines of list files that are no networks
	Warnings []string       `json:"warnings"`

	Deferred bool `json:"-"` // the size of the flow table is another than the policy asks for
}

// Diff returns what Apply of a file, or of the policy file, would change.
func (fw *Firewall) Diff(ctx context.Context, file string) (*DiffReport, error) {
	f, err := fw.View(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := fw.candidate(f, file)
	if err != nil {
		return nil, err
	}
	report := &DiffReport{Config: c.config, File: c.path, Changes: c.changes, Packets: c.packets, Deferred: c.flows != "",
		Skipped:  skippedLines(c.policy),
		Warnings: list(slices.Concat(c.warnings(), c.guests, fw.hazardWarnings(c.policy), fw.doubts(c.policy, c.named, c.path)))}
	if c.flows != "" {
		report.Warnings = append(report.Warnings, c.flows)
	}
	return report, nil
}

// CheckReport is what is worth knowing of a policy file that is good.
type CheckReport struct {
	File     string   `json:"file"`
	Rules    []string `json:"rules"`
	Forward  []string `json:"forward_rules"`
	Skipped  []string `json:"skipped"` // lines of list files that are no networks
	Warnings []string `json:"warnings"`

	Refused []string       `json:"-"` // why "apply" refuses the file, a sentence each
	Policy  *policy.Policy `json:"-"`
}

// Check reads a policy file, or the one that was given, and says what would not work on this host. It needs no root.
func (fw *Firewall) Check(file string) (*CheckReport, error) {
	named := file != ""
	if !named {
		file = fw.options.Config
	}
	p, err := policy.Reader{ReadURL: fw.newListFiles().readURL}.Load(file)
	if err != nil {
		return nil, err
	}
	if err := maps.CheckCapacity(p); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	report := &CheckReport{File: file, Rules: policy.Texts(p.InputRules()), Forward: policy.Texts(p.ForwardRules()), Skipped: skippedLines(p), Warnings: list(fw.doubts(p, p.Interfaces, file)), Policy: p}
	var also []uint32
	if named {
		also = fw.options.Invoker
	}
	refuse := func(format string, args ...any) {
		report.Refused = append(report.Refused, fmt.Sprintf(format, args...))
	}
	if err := savefile.Check(file, also...); err != nil {
		refuse("\"up\", \"apply\" and \"run\" refuse this file: %v", err)
	}
	for _, l := range p.Lists {
		if l.Path == "" {
			continue
		}
		if err := savefile.Check(l.Path, also...); err != nil {
			refuse("\"up\", \"apply\" and \"run\" refuse this file for its list %s: %v", l.Name, err)
		}
	}
	hazards, err := fw.hazardTexts(p)
	report.Refused = append(report.Refused, hazards...)
	report.Warnings = append(report.Warnings, warning(err)...)
	return report, nil
}

// doubts returns what would not work here, of a policy that is good by itself and whose file names some interfaces.
func (fw *Firewall) doubts(p *policy.Policy, named []string, file string) (out []string) {
	for _, name := range named {
		if policy.IsPattern(name) {
			continue
		}
		if _, err := net.InterfaceByName(name); err != nil {
			out = append(out, fmt.Sprintf("there is no interface %s: \"up\" and \"apply\" refuse this file, \"run\" waits for it", name))
		}
	}
	if len(p.Interfaces) == 0 {
		if name, err := fw.kernel.DefaultInterface(); err == nil {
			p = withInterfaces(p, []string{name})
		}
	}
	for _, s := range fw.user.LockedOut(p) {
		out = append(out, s.Loss(file))
	}
	out = append(out, listWarnings(p)...)
	return slices.Concat(out, fw.user.Unreachable(p), ineffective(p, p.Interfaces), fw.unwritten(p))
}
