// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

const fileHeader = "# The firewall of this host. \"portcullis up\" puts it in force; \"portcullis open\" and \"close\" edit it.\n"

// ruleFile is the policy file that open and close write. Where there is none yet, it starts as the policy in force,
// so that the next "up" keeps what is open now.
type ruleFile struct {
	path     string
	old      []byte
	exists   bool
	madeDir  bool
	text     []byte
	released func()
}

// ruleFile reads the file that the running policy belongs to.
func (a *app) ruleFile(f filter) (*ruleFile, error) {
	recorded := cmp.Or(f.Config(), defaultConfig)
	file := &ruleFile{path: recorded}
	if a.configGiven {
		file.path = a.config
	}
	var err error
	if file.released, err = lockFile(file.path); err != nil {
		return nil, err
	}
	old, err := policy.ReadFile(file.path)
	switch {
	case err == nil:
		if err := refuseUntrusted(file.path); err != nil {
			file.released()
			return nil, withRuntimeHint(err)
		}
		file.old, file.text, file.exists = old, old, true
		return file, nil
	case errors.Is(err, fs.ErrNotExist) && file.path == recorded:
		saved, err := f.Saved()
		if err != nil {
			return nil, err
		}
		file.old = append([]byte(fileHeader), saved.YAML()...)
		file.text = file.old
		return file, nil
	}
	file.released()
	return nil, withRuntimeHint(fmt.Errorf("read policy: %w", err))
}

// lockFile makes two commands that read or edit the same file take turns. It is no more than a courtesy: where there is
// no lock to be had, the file is written as a whole all the same.
func lockFile(path string) (release func(), err error) {
	release, err = loader.Lock(filepath.Dir(path))
	if err != nil && !errors.Is(err, loader.ErrLocked) {
		return func() {}, nil
	}
	return release, err
}

func (f *ruleFile) insert(r policy.Rule) (added bool, err error) {
	text, err := policy.InsertRule(f.path, f.text, r)
	if err != nil {
		return false, err
	}
	added = !bytes.Equal(text, f.text)
	f.text = text
	return added, nil
}

func (f *ruleFile) remove(r policy.Rule) error {
	text, err := policy.RemoveRule(f.path, f.text, r)
	if err != nil {
		return err
	}
	f.text = text
	return nil
}

func (f *ruleFile) changed() bool { return !bytes.Equal(f.text, f.old) }

// save writes the new text.
func (f *ruleFile) save() error {
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
	return nil
}

// restore takes save back.
func (f *ruleFile) restore() error {
	if f.exists {
		return savefile.Save(f.path, f.old)
	}
	err := os.Remove(f.path)
	if f.madeDir {
		_ = os.Remove(filepath.Dir(f.path))
	}
	return err
}

func withRuntimeHint(err error) error {
	return fmt.Errorf("%w: nothing was changed; --runtime changes the running filter alone", err)
}
