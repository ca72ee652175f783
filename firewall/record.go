// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// What is in force may be another policy than the file's, because somebody wanted it so: a rule was closed with
// --runtime, another file applied. So whether the file has changed is not asked of the filter, but of a record of the file
// as it was when it last was put in force, or overruled, with the files of its lists. It ends with the boot, as the filter
// does.

const (
	appliedFile = "applied.sha256" // see stamp
	noFile      = "-"
)

func digest(text []byte) string {
	if text == nil {
		return noFile
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// readApplied returns the stamp of the policy file as it was when somebody last decided what is in force, or "".
func (fw *Firewall) readApplied() (string, error) {
	text, err := os.ReadFile(fw.store.Path(appliedFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return "", nil
	}
	return string(text), err
}

// recordApplied records that a policy file counts as applied as it was with this stamp.
func (c *change) recordApplied(stamp string) {
	if !c.keeps {
		return
	}
	path := c.fw.store.Path(appliedFile)
	if os.WriteFile(path, []byte(stamp), 0o600) != nil {
		// Without a record the file is compared with what is in force, with an old one it would be overlooked.
		_ = os.Remove(path)
	}
}

// recordEdit records that the policy file was edited, and the filter in the same way. If somebody else had changed the
// file before, that is still to be put in force.
func (c *change) recordEdit(file *policyFile) {
	if !file.saved {
		return
	}
	before := file.old
	if !file.exists {
		before = nil
	}
	if was, err := c.fw.readApplied(); err == nil && was == stamp(file.path, before, file.lists) {
		c.recordApplied(stamp(file.path, file.text, file.lists))
	}
}

// recordOverruled records that whatever the policy file says now is not what is to be in force.
func (c *change) recordOverruled(config string) {
	text, err := readFile(config)
	if err != nil {
		text = nil // what cannot be read counts as none: when it can, it has changed
	}
	now, _ := c.fw.stampOf(config, text)
	c.recordApplied(now)
}

// forgetApplied takes the record away: nothing is in force.
func (c *change) forgetApplied() {
	_ = os.Remove(c.fw.store.Path(appliedFile)) // or there was none
}

// stateDir is where systemd's StateDirectory= puts the state of the service.
const stateDir = "/var/lib/portcullis"

const lastGoodHeader = "# The last policy that was in force, kept by portcullis for a boot at which the policy file is bad.\n"

// lastGoodPath returns the file that keeps the last policy that was in force, or "" for none. Only the filter of the host
// has one unless it is asked for: that of a container must not become the host's at the next boot.
func (fw *Firewall) lastGoodPath() string {
	dir := cmp.Or(fw.options.StateDir, fw.recordedStateDir())
	if dir == "" && fw.options.PinPath == loader.DefaultPinPath {
		dir = stateDir
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "last-good.yaml")
}

// StateDir returns the directory of what outlives a boot, or "" for none.
func (fw *Firewall) StateDir() string {
	if path := fw.lastGoodPath(); path != "" {
		return filepath.Dir(path)
	}
	return ""
}

// stateDirFile names the directory that the agent was given, for the commands that come after it.
const stateDirFile = "state-directory"

// recordStateDir makes the directory that this firewall was given the one that counts for all commands.
func (c *change) recordStateDir() {
	dir := c.fw.options.StateDir
	if !c.keeps || dir == "" || dir == c.fw.recordedStateDir() {
		return
	}
	path := c.fw.store.Path(stateDirFile)
	if err := savefile.SavePrivate(path, []byte(dir+"\n")); err != nil {
		_ = os.Remove(path) // rather none than a wrong one
	}
}

func (fw *Firewall) recordedStateDir() string {
	text, err := os.ReadFile(fw.store.Path(stateDirFile))
	if dir := strings.TrimSuffix(string(text), "\n"); err == nil && filepath.IsAbs(dir) {
		return dir
	}
	return ""
}

// keepLastGood keeps the policy in force, with the interfaces that it is in force on, for a boot at which the policy file
// is bad, and its list files, nil for those kept already. It returns warnings where that fails.
func (fw *Firewall) keepLastGood(f Filter, lists *listFiles) (warnings []string) {
	path := fw.lastGoodPath()
	if path == "" {
		return nil
	}
	p, err := f.Saved()
	if err == nil {
		err = saveLastGood(path, fw.withCopies(p))
	}
	if err = errors.Join(err, fw.keepCopies(lists)); err != nil {
		return []string{fmt.Sprintf("keep the policy for the next boot: %v", err)}
	}
	return nil
}

// keepNewLastGood is keepLastGood for a filter that was put in force just now.
func (fw *Firewall) keepNewLastGood(ctx context.Context, lists *listFiles) (warnings []string) {
	if fw.lastGoodPath() == "" {
		return nil
	}
	f, err := fw.View(ctx)
	if err != nil {
		return []string{fmt.Sprintf("keep the policy for the next boot: %v", err)}
	}
	defer f.Close()
	return fw.keepLastGood(f, lists)
}

func saveLastGood(path string, p *policy.Policy) error {
	text := append([]byte(lastGoodHeader), p.InNumbers().YAML()...)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return savefile.SavePrivate(path, text)
}

// withCopies returns the policy with the last good copies of lists in the place of their files.
func (fw *Firewall) withCopies(p *policy.Policy) *policy.Policy {
	p = p.Clone()
	for i := range p.Lists {
		if l := &p.Lists[i]; l.Path != "" {
			l.Path = copyPath(fw.copiesDir(), l.Path)
			l.File = l.Path
		}
	}
	return p
}

// lastGood returns the policy that was kept. Where a copy of a list is gone, the list is empty: the rest is not to be lost
// for that.
func (fw *Firewall) lastGood() (*policy.Policy, error) {
	path := fw.lastGoodPath()
	text, err := policy.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	lists := fw.newListFiles()
	lists.lost = true
	return lists.reader().Parse(path, text)
}
