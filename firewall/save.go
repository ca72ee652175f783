// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/portcullis-firewall/portcullis/policy"
)

// SaveReport tells what Save wrote.
type SaveReport struct {
	Config   string   `json:"config"`
	Created  bool     `json:"created"`
	Changes  []Change `json:"changes"` // to the file
	Warnings []string `json:"warnings"`
}

// Save writes what is in force to the policy file, rules that were opened for the time being among it.
func (fw *Firewall) Save(ctx context.Context) (*SaveReport, error) {
	c, err := fw.beginToChange(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	f, err := fw.View(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	path := fw.configOf(f)
	if err := c.lockFile(ctx, path); err != nil {
		return nil, err
	}
	inForce, err := f.Policy()
	if err != nil {
		return nil, fmt.Errorf("%w: %s stays as it is", err, path)
	}
	file := &policyFile{path: path}
	report := &SaveReport{Config: path, Changes: []Change{}, Warnings: []string{}}
	file.old, err = readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		report.Created = true
		file.text = append([]byte(FileHeader), inForce.YAML()...)
	case err != nil:
		return nil, err
	default:
		file.exists = true
		if file.text, report.Changes, err = fw.rewritten(path, file.old, inForce); err != nil {
			return nil, err
		}
	}
	if file.changed() {
		if err := file.save(); err != nil {
			return nil, err
		}
	}
	if path == f.Config() {
		if err := keepRuntimeRules(f); err != nil {
			return nil, errors.Join(err, file.restore())
		}
		c.recordApplied(path, file.text)
	}
	if err := c.endTimed(); err != nil { // what was open for a time is in the file now
		return nil, err
	}
	report.Warnings = append(report.Warnings, fw.keepLastGood(f)...)
	return report, nil
}

// rewritten returns the text of the policy file made to mean what is in force, and the difference. A file that leaves
// the interface to the default route goes on to do so, as long as that is the one that is filtered.
func (fw *Firewall) rewritten(path string, old []byte, inForce *policy.Policy) ([]byte, []Change, error) {
	before, err := policy.Parse(path, old)
	if err != nil {
		return nil, nil, err
	}
	want := inForce.Clone()
	if name, err := fw.kernel.DefaultInterface(); err == nil && len(before.Interfaces) == 0 &&
		len(want.Interfaces) == 1 && want.Interfaces[0] == name {
		want.Interfaces = nil
	}
	text, err := policy.Rewrite(path, old, want)
	return text, changesOf(before, want, nil), err
}

// keepRuntimeRules takes the mark from rules that were opened for the time being: the file has them now.
func keepRuntimeRules(f Filter) error {
	rules, err := f.RuntimeRules()
	if err != nil || len(rules) == 0 {
		return err
	}
	_, err = f.OpenRules(rules, false)
	return err
}
