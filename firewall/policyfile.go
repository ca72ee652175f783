// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
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
}

// policyFile reads the file that the running policy belongs to, which must be locked.
func (fw *Firewall) policyFile(f Filter) (*policyFile, error) {
	recorded := cmp.Or(f.Config(), DefaultConfig)
	file := &policyFile{path: fw.configToWrite(f)}
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
	text, err := policy.InsertRule(f.path, f.text, r)
	if err != nil {
		return false, err
	}
	added = !bytes.Equal(text, f.text)
	f.text = text
	return added, nil
}

func (f *policyFile) remove(r policy.Rule) error {
	text, err := policy.RemoveRule(f.path, f.text, r)
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

func (f *policyFile) changed() bool { return !bytes.Equal(f.text, f.old) }

// save writes the new text.
func (f *policyFile) save() error {
	if !f.exists {
		dir := filepath.Dir(f.path)
		_, err := os.Stat(dir)
		f.madeDir = errors.Is(err, fs.ErrNotExist)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return withRuntimeHint(err)
		}
	}
	if err := savefile.Save(f.path, f.text); err != nil {
		return withRuntimeHint(err)
	}
	f.saved = true
	return nil
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
	return fmt.Errorf("%w: nothing was changed; --runtime changes the running filter alone", err)
}
