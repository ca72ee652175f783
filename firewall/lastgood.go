// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// stateDir is where systemd's StateDirectory= puts the state of the service.
const stateDir = "/var/lib/portcullis"

const lastGoodHeader = "# The last policy that was in force, kept by portcullis for a boot at which the policy file is bad.\n"

// lastGoodPath returns the file that keeps the last policy that was in force, or "" for none. Only the filter of the host
// has one without being told: that of a container must not become the host's at the next boot.
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
// is bad. It returns a warning where that fails.
func (fw *Firewall) keepLastGood(f Filter) (warnings []string) {
	path := fw.lastGoodPath()
	if path == "" {
		return nil
	}
	p, err := f.Saved()
	if err == nil {
		err = saveLastGood(path, p)
	}
	if err != nil {
		return []string{fmt.Sprintf("keep the policy for the next boot: %v", err)}
	}
	return nil
}

// keepNewLastGood is keepLastGood for a filter that was put in force just now.
func (fw *Firewall) keepNewLastGood(ctx context.Context) (warnings []string) {
	if fw.lastGoodPath() == "" {
		return nil
	}
	f, err := fw.View(ctx)
	if err != nil {
		return []string{fmt.Sprintf("keep the policy for the next boot: %v", err)}
	}
	defer f.Close()
	return fw.keepLastGood(f)
}

func saveLastGood(path string, p *policy.Policy) error {
	text := append([]byte(lastGoodHeader), p.YAML()...)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return savefile.SavePrivate(path, text)
}

// lastGood returns the policy that was kept.
func (fw *Firewall) lastGood() (*policy.Policy, error) { return policy.Load(fw.lastGoodPath()) }
