// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// FileHeader begins a policy file that was not there before.
const FileHeader = "# The firewall of this host. \"portcullis up\" puts it in force; \"portcullis open\" and \"close\" edit it.\n"

// policyFile is the policy file that Open, Close and Save write. Where there is none yet, it starts as the policy in
// force, so that the next Up keeps what is open now.
type policyFile struct {
	path    string
	old     []byte
	exists  bool
	madeDir bool
	text    []byte
	saved   bool

	inForce func() ([]maps.Rule, error)
	gone    bool // it names services that /etc/services no longer has

	lists    *listFiles
	unsynced error // why a crash may take back that it was saved
}

// policyFile reads the file that the running policy belongs to, which must be locked.
func (fw *Firewall) policyFile(f Filter) (*policyFile, error) {
	recorded := cmp.Or(f.Config(), DefaultConfig)
	file := &policyFile{path: fw.configToWrite(f), inForce: f.Rules, lists: fw.newListFiles()}
	old, err := readTrusted(file.path)
	switch {
	case err == nil:
		file.old, file.text, file.exists = old, old, true
		return file, nil
	case errors.Is(err, fs.ErrNotExist) && file.path == recorded:
		saved, err := f.Saved()
		if err != nil {
			return nil, err
		}
		file.old = append([]byte(FileHeader), saved.YAML()...)
		file.text = file.old
		return file, nil
	}
	return nil, withRuntimeHint(err)
}

// configToWrite returns the file that open and close edit.
func (fw *Firewall) configToWrite(f Filter) string {
	if fw.options.ConfigGiven {
		return fw.options.Config
	}
	return cmp.Or(f.Config(), DefaultConfig)
}

func (f *policyFile) insert(r policy.Rule) (added bool, err error) {
	text, err := f.edited(func() ([]byte, error) { return f.lists.reader().InsertRule(f.path, f.text, r) })
	if err != nil {
		return false, err
	}
	added = !bytes.Equal(text, f.text)
	f.text = text
	return added, nil
}

// edited returns the text after an edit. What names a service that is gone from /etc/services stands in its way no more
// than any other rule: it is what is in force by that name.
func (f *policyFile) edited(edit func() ([]byte, error)) ([]byte, error) {
	text, err := edit()
	if f.gone || !errors.As(err, new(*policy.Error)) {
		return text, err
	}
	if f.gone = rememberServices(f.inForce); !f.gone {
		return nil, err
	}
	if text, again := edit(); !errors.As(again, new(*policy.Error)) {
		return text, again
	}
	return nil, err // something else is wrong with the file
}

// warnings returns what is to be said of a file that was saved: a sentence for each service that it still names and
// /etc/services does not, and whether it is safe from a crash.
func (f *policyFile) warnings() (out []string) {
	out = warning(f.unsynced)
	if !f.gone {
		return out
	}
	policy.ForgetServices()
	_, err := f.lists.reader().Parse(f.path, f.text)
	if err == nil {
		return out
	}
	for line := range strings.Lines(err.Error()) {
		out = append(out, strings.TrimSpace(line)+"; it stays open as it was, but \"portcullis up\" and \"apply\" refuse this file")
	}
	return out
}

// rememberServices makes names of services that are gone stand for what is in force by them, and reports whether there
// are any.
func rememberServices(inForce func() ([]maps.Rule, error)) bool {
	rules, err := inForce()
	if err != nil {
		return false
	}
	named := make([]policy.Rule, len(rules))
	for i, r := range rules {
		named[i] = r.Rule
	}
	return policy.RememberServices(named)
}

// RulesToClose reads rules as they stand on a command line. A service that is gone from /etc/services is what is in force
// by its name.
func (fw *Firewall) RulesToClose(ctx context.Context, words []string, names policy.Names) ([]policy.Rule, error) {
	rules, err := names.ParseRules(words)
	if err == nil {
		return rules, nil
	}
	f, notRunning := fw.View(ctx)
	if notRunning != nil {
		return nil, err
	}
	defer f.Close()
	if !rememberServices(f.Rules) {
		return nil, err
	}
	return names.ParseRules(words)
}

func (f *policyFile) remove(r policy.Rule) error {
	text, err := f.edited(func() ([]byte, error) { return f.lists.reader().RemoveRule(f.path, f.text, r) })
	if err != nil {
		return err
	}
	f.text = text
	return nil
}

// removeRules takes rules out, and returns those that were there. Where others of the file open the same ports, that is
// a mistake, unless the rule is one of the running filter alone.
func (f *policyFile) removeRules(rules []policy.Rule, running *policy.Policy) ([]string, error) {
	removed := []string{}
	for _, r := range rules {
		err := f.remove(r)
		var covered *policy.CoveredError
		switch {
		case err == nil:
			removed = append(removed, r.String())
		case errors.Is(err, policy.ErrNotOpen):
		case errors.As(err, &covered):
			if _, ok := running.Find(r); !ok {
				return nil, err
			}
		default:
			return nil, err
		}
	}
	return removed, nil
}

// listsOf returns the list files if the file is that of a filter.
func (f *policyFile) listsOf(running Filter) *listFiles {
	if f.path != running.Config() {
		return nil
	}
	return f.lists
}

func (f *policyFile) changed() bool { return !bytes.Equal(f.text, f.old) }

// save writes the new text.
func (f *policyFile) save() error {
	if !f.exists {
		dir := filepath.Dir(f.path)
		_, err := os.Stat(dir)
		f.madeDir = errors.Is(err, fs.ErrNotExist)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	err := savefile.Save(f.path, f.text)
	if errors.Is(err, savefile.ErrUnsynced) {
		f.unsynced, err = err, nil
	}
	f.saved = err == nil
	return err
}

// restore takes save back, if the file was saved.
func (f *policyFile) restore() error {
	if !f.saved {
		return nil
	}
	if f.exists {
		return savefile.Save(f.path, f.old)
	}
	err := os.Remove(f.path)
	if f.madeDir {
		_ = os.Remove(filepath.Dir(f.path)) // which stays if it is not empty
	}
	return err
}

func withRuntimeHint(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: nothing was changed; --runtime changes the running filter alone", err)
}

// SaveReport is what Save wrote.
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
	file := &policyFile{path: path, inForce: f.Rules, lists: fw.newListFiles()}
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
		file.text, err = file.edited(func() (text []byte, err error) {
			text = file.old
			if file.gone {
				if text, err = file.lists.reader().SpellGone(path, text); err != nil {
					return nil, err
				}
			}
			text, report.Changes, err = fw.rewritten(file, text, inForce)
			return text, err
		})
		if err != nil {
			return nil, err
		}
		if file.gone {
			policy.ForgetServices()
			report.Warnings = append(report.Warnings, fmt.Sprintf("%s named services that are no longer in %s: it has their ports now", path, policy.ServicesFile))
		}
	}
	if file.changed() {
		if err := file.save(); err != nil {
			return nil, err
		}
		report.Warnings = append(report.Warnings, warning(file.unsynced)...)
	}
	if path == f.Config() {
		if err := keepRuntimeRules(f); err != nil {
			return nil, errors.Join(err, file.restore())
		}
		c.recordApplied(stamp(path, file.text, file.lists))
		for _, timed := range c.Timed {
			report.Warnings = append(report.Warnings, fmt.Sprintf("%s was to close by itself, and is in the file now: it stays open", timed.Rule))
		}
		report.Warnings = append(report.Warnings, warning(c.endTimed())...)
	}
	report.Warnings = append(report.Warnings, fw.keepLastGood(f, file.listsOf(f))...)
	return report, nil
}

// rewritten returns the text of the policy file made to mean what is in force, and the difference. A file that leaves
// the interface to the default route goes on to do so, as long as that is the one that is filtered.
func (fw *Firewall) rewritten(file *policyFile, old []byte, inForce *policy.Policy) ([]byte, []Change, error) {
	before, err := file.lists.reader().Parse(file.path, old)
	if err != nil {
		return nil, nil, err
	}
	want := inForce.WithListsOf(before)
	if name, err := fw.kernel.DefaultInterface(); err == nil && len(before.Interfaces) == 0 &&
		len(want.Interfaces) == 1 && want.Interfaces[0] == name {
		want.Interfaces = nil
	}
	text, err := file.lists.reader().Rewrite(file.path, old, want)
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
