// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/policy"
)

func (a *app) saveCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "save",
		Short:       "Write what is in force to the policy file",
		Annotations: needsFilter,
		Long: `Write the policy in force, including rules opened with --runtime, to the policy file or to
the one that --config names. What the file says already stays as written, comments and
order included. The file is replaced as a whole or not at all.`,
		Example: `  portcullis open 8080/tcp --runtime && portcullis save
  portcullis save --config copy.yaml`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return a.save() },
	}
}

type saveView struct {
	Config  string       `json:"config"`
	Created bool         `json:"created"`
	Changes []changeView `json:"changes"` // to the file
}

func (a *app) save() error {
	turn, err := a.turnToChange()
	if err != nil {
		return err
	}
	defer turn.Release()
	f, err := a.connect()
	if err != nil {
		return err
	}
	defer f.Close()
	path := a.fileOf(f)
	release, err := lockFile(path)
	if err != nil {
		return err
	}
	defer release()
	inForce := f.Policy()
	file := &ruleFile{path: path}
	view := saveView{Config: path, Changes: []changeView{}}
	file.old, err = policy.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		view.Created = true
		file.text = append([]byte(fileHeader), inForce.YAML()...)
	case err != nil:
		return fmt.Errorf("read policy: %w", err)
	default:
		file.exists = true
		if file.text, view.Changes, err = a.rewritten(path, file.old, inForce); err != nil {
			return err
		}
	}
	if file.changed() {
		if err := file.save(); err != nil {
			return err
		}
	}
	if path == f.Config() {
		if err := keepRuntimeRules(f); err != nil {
			return errors.Join(err, file.restore())
		}
	}
	if err := endTimed(turn); err != nil { // what was open for a time is in the file now
		return err
	}
	a.keepLastGood(f)
	return a.print(view, func() {
		a.printChanges(view.Changes)
		if !view.Created && len(view.Changes) == 0 {
			a.printf("nothing to do: %s says what is in force\n", path)
			return
		}
		a.printf("saved to %s\n", path)
	})
}

// rewritten returns the text of the policy file made to mean what is in force, and the difference. A file that leaves
// the interface to the default route goes on to do so, as long as that is the one that is filtered.
func (a *app) rewritten(path string, old []byte, inForce *policy.Policy) ([]byte, []changeView, error) {
	before, err := policy.Parse(path, old)
	if err != nil {
		return nil, nil, err
	}
	want := inForce.Clone()
	if name, err := a.firewall.DefaultInterface(); err == nil && len(before.Interfaces) == 0 &&
		len(want.Interfaces) == 1 && want.Interfaces[0] == name {
		want.Interfaces = nil
	}
	text, err := policy.Rewrite(path, old, want)
	return text, viewChanges(before, want, nil), err
}

// keepRuntimeRules takes the mark from rules that were opened for the time being: the file has them now.
func keepRuntimeRules(f filter) error {
	rules, err := f.RuntimeRules()
	if err != nil || len(rules) == 0 {
		return err
	}
	_, err = f.OpenRules(rules, false)
	return err
}
