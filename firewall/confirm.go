// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
)

// BackupSuffix is that of the file that keeps what the policy file held before a confirmation.
const BackupSuffix = ".bak"

// ConfirmReport tells what Confirm did.
type ConfirmReport struct {
	File   string `json:"file"`
	Config string `json:"config"`
	Saved  bool   `json:"saved"` // the file held something else before
	Backup string `json:"backup,omitempty"`

	Already  bool     `json:"-"` // it was confirmed before
	Warnings []string `json:"warnings"`
}

// Confirm keeps the policy that is on trial, and saves it as the policy file. Console says that the user's terminal is at
// the machine itself, though it does not look it.
func (fw *Firewall) Confirm(ctx context.Context, console bool) (*ConfirmReport, error) {
	c, err := fw.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	if c.Trial == nil {
		if c.Ended != nil && !c.Ended.Reverted {
			return &ConfirmReport{File: c.Ended.File, Already: true, Warnings: []string{}}, nil
		}
		return nil, noTrial(c.Schedule)
	}
	if c.failed != nil {
		return nil, c.failed
	}
	f, err := fw.openToChange(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := fw.witness(c.Trial, console); err != nil {
		return nil, fmt.Errorf("%w; in %s %s", err, Span(c.Trial.Due.Left()), outcomeOf(c.Trial))
	}
	report := &ConfirmReport{File: c.Trial.File, Config: c.Trial.Config, Warnings: []string{}}
	if report.Saved, report.Backup, err = c.saveConfirmed(ctx); err != nil {
		return nil, fmt.Errorf("%w: not confirmed", err)
	}
	c.recordApplied(report.Config, []byte(c.Trial.Text))
	c.Timed = nil // what was open for a time ended when the trial began
	if err := c.endTrial(false); err != nil {
		return nil, err
	}
	report.Warnings = append(report.Warnings, fw.keepLastGood(f)...)
	return report, nil
}

const newSession = "open a new ssh session, and run \"portcullis confirm\" there"

// witness refuses a confirmation that does not show that this host can still be reached.
func (fw *Firewall) witness(t *schedule.Trial, console bool) error {
	if !t.InForce {
		return fmt.Errorf("the try of %s was cut off, and cannot be confirmed", t.File)
	}
	s, err := fw.kernel.FindSession()
	if err != nil {
		return fmt.Errorf("find the connection of this session: %w", err)
	}
	for _, c := range s.Connections {
		if !c.Outside() {
			return fmt.Errorf("this session came over %s, within this host, where nothing is filtered: %s", c.Remote, newSession)
		}
		old, err := fw.store.IsOld(c)
		if err != nil {
			return err
		}
		if old {
			return fmt.Errorf("this session's connection, from %s, is from before the change: it passes as established and proves nothing: %s", c.Remote, newSession)
		}
	}
	if len(s.Connections) > 0 {
		return nil
	}
	if len(s.Outgoing) > 0 {
		return fmt.Errorf("this session's connection, to %s, was made by this host, or to a port on which nothing listens any more, and does not show that anybody can come in: %s",
			s.Outgoing[0].Remote, newSession)
	}
	if ssh := fw.options.Session(); ssh != "" && cameHere(ssh) {
		return fmt.Errorf("nobody can tell by which connection this session came (%s=%q, as in tmux or screen, may be another's): %s, outside of them",
			sshVariable, ssh, newSession)
	}
	if !s.Elsewhere && !console && (s.Unknown || fw.kernel.OnPseudoTerminal()) {
		return errors.New("nobody can tell whence this session came: " + newSession + ", or say --console if this terminal is at the machine itself")
	}
	return nil
}

// cameHere reports whether the server's address in an $SSH_CONNECTION is one of this network namespace.
func cameHere(ssh string) bool {
	fields := strings.Fields(ssh)
	if len(fields) != 4 {
		return true
	}
	address, _, _ := strings.Cut(fields[2], "%")
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range own {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(net.ParseIP(address)) {
			return true
		}
	}
	return false
}

// saveConfirmed writes the policy that was on trial into the policy file.
func (c *change) saveConfirmed(ctx context.Context) (saved bool, backup string, err error) {
	t := c.Trial
	if err := os.MkdirAll(filepath.Dir(t.Config), 0o755); err != nil {
		return false, "", err
	}
	if err := c.lockFile(ctx, t.Config); err != nil {
		return false, "", err
	}
	old, err := readFile(t.Config)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, "", err
	case bytes.Equal(old, []byte(t.Text)):
		return false, "", nil
	default:
		backup = t.Config + BackupSuffix
		if err := savefile.Save(backup, old); err != nil {
			return false, "", err
		}
	}
	return true, backup, savefile.Save(t.Config, []byte(t.Text))
}
