// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Turn is the right to change a filter and its deadlines: one process has it at a time, and whoever gets it does first
// what is due.
type Turn struct {
	Deadlines
	Failed  error // what was due could not be done, and is still there
	pinPath string
	dir     string
	unlock  func() // nil when this process may not keep deadlines, so that there are none of its own
}

// TakeTurn waits for the turn.
func TakeTurn(root, pinPath string) (_ *Turn, err error) {
	t := &Turn{pinPath: pinPath, dir: stateDir(root, pinPath)}
	if err = os.MkdirAll(t.dir, 0o700); err == nil {
		t.unlock, err = Lock(t.dir)
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("keep deadlines: %w", err)
	}
	d, err := readRecord(t.dir)
	if err != nil {
		t.Release()
		return nil, err
	}
	t.Deadlines = *d
	t.Failed = t.act()
	return t, nil
}

// Release lets the next one have its turn.
func (t *Turn) Release() {
	if t.unlock != nil {
		t.unlock()
	}
}

// openFile opens a file below dir, both of which it makes if need be.
func openFile(dir, name string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
}

// Save makes the deadlines those that count.
func (t *Turn) Save() error {
	if err := t.stamp(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(&t.Deadlines, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(t.dir, recordFile), append(text, '\n'))
}

// replaceFile replaces a file whole in a directory that is this process's own.
func replaceFile(path string, data []byte) error {
	temporary := path + ".new" // always the same, so that killed processes leave one at most
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// SaveConnections records the connections of this moment, which prove nothing about a policy that is in force already.
func (t *Turn) SaveConnections() error {
	connections, err := host.Connections()
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, c := range connections {
		fmt.Fprintln(&b, c)
	}
	return replaceFile(filepath.Join(t.dir, connectionsFile), []byte(b.String()))
}

// IsOld tells that a connection was there when SaveConnections was called.
func (t *Turn) IsOld(c host.Connection) (bool, error) {
	text, err := os.ReadFile(filepath.Join(t.dir, connectionsFile))
	if err != nil {
		return true, err
	}
	return slices.Contains(strings.Split(string(text), "\n"), c.String()), nil
}

// act does what is due.
func (t *Turn) act() error {
	if !t.Overdue() {
		return nil
	}
	var due []policy.Rule
	for _, timed := range t.Timed {
		if timed.Due.Left() <= 0 {
			due = append(due, timed.Rule)
		}
	}
	err := t.closeTimed(due)
	if err != nil {
		err = fmt.Errorf("close what was open for a time: %w", err)
	}
	if t.Try != nil && t.Try.Due.Left() <= 0 {
		err = errors.Join(err, t.Revert())
	}
	return err
}

// closeTimed closes rules that still are open for the time being only, also in what a try will put back.
func (t *Turn) closeTimed(due []policy.Rule) error {
	if len(due) == 0 {
		return nil
	}
	f, err := Open(t.pinPath)
	if err == nil {
		defer f.Close()
		err = f.closeRuntime(due)
	}
	if err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	if t.Try != nil && t.Try.Before != nil {
		t.Try.Before.forget(due)
	}
	t.ForgetRules(due)
	return t.Save()
}

// closeRuntime closes those of the rules that are not in the file.
func (f *Filter) closeRuntime(rules []policy.Rule) error {
	current, err := f.set.Rules()
	if err != nil {
		return err
	}
	index := policy.IndexRules(rules)
	var open []policy.Rule
	for _, have := range current {
		if _, ok := index[have.Rule.Key()]; ok && have.Runtime {
			open = append(open, have.Rule)
		}
	}
	_, err = f.CloseRules(open, false)
	return err
}

// Revert puts back what was in force before the try.
func (t *Turn) Revert() error {
	var err error
	if t.Try.Before != nil {
		err = t.Try.Before.restore(t.pinPath)
	} else if _, err = Down(t.pinPath, nil); errors.Is(err, ErrNotRunning) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("put back what was in force before the try of %s: %w", t.Try.File, err)
	}
	return t.EndTry(true)
}

// Clear ends everything that was due.
func (t *Turn) Clear() error {
	if _, pending := t.next(); !pending {
		return nil
	}
	t.Try, t.Timed, t.Ended = nil, nil, nil
	return t.Save()
}

// EndTry ends a try, and leaves in force what is.
func (t *Turn) EndTry(reverted bool) error {
	t.Ended = &EndedTry{t.Try.File, reverted, Now()}
	t.Try = nil
	return t.Save()
}
