// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

const backupSuffix = ".bak"

func (a *app) confirmCommand() *cobra.Command {
	console := false
	cmd := &cobra.Command{
		Use:         "confirm",
		Short:       "Keep the policy that is on trial",
		Annotations: needsRoot,
		Long: `Keep the policy that "portcullis try" put in force, and save its text as the policy file;
the old text goes into a file beside it that ends in ` + backupSuffix + `.

Over ssh, confirm from a connection that was opened after the change. Inside tmux and
screen there is no telling which connection you use: leave them first.`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return a.confirm(console) },
	}
	cmd.Flags().BoolVar(&console, "console", false, "this terminal is at the machine itself, though it does not look like it")
	return cmd
}

type confirmView struct {
	File   string `json:"file"`
	Config string `json:"config"`
	Saved  bool   `json:"saved"` // the file held something else before
	Backup string `json:"backup,omitempty"`
}

func (a *app) confirm(console bool) error {
	turn, err := a.takeTurn()
	if err != nil {
		return err
	}
	defer turn.Release()
	if turn.Try == nil {
		if turn.Ended != nil && !turn.Ended.Reverted {
			return a.print(confirmView{File: turn.Ended.File}, func() { a.printf("confirmed already: %s\n", turn.Ended.File) })
		}
		return noTrial(&turn.Deadlines)
	}
	if turn.Failed != nil {
		return turn.Failed
	}
	f, err := a.connectToChange()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := a.witness(turn, console); err != nil {
		return fmt.Errorf("%w; in %s %s", err, span(turn.Try.Due.Left()), outcome(turn.Try))
	}
	view := confirmView{File: turn.Try.File, Config: turn.Try.Config}
	if view.Saved, view.Backup, err = saveConfirmed(turn.Try); err != nil {
		return fmt.Errorf("%w: not confirmed", err)
	}
	turn.Timed = nil // what was open for a time ended when the trial began
	if err := turn.EndTry(false); err != nil {
		return err
	}
	a.keepLastGood(f)
	return a.print(view, func() {
		a.printf("confirmed: the policy of %s stays in force\n", view.File)
		switch {
		case view.Backup != "":
			a.printf("saved to %s; what that held before is in %s\n", view.Config, view.Backup)
		case view.Saved:
			a.printf("saved to %s\n", view.Config)
		}
	})
}

// noTrial says why there is nothing to confirm or to revert.
func noTrial(d *loader.Deadlines) error {
	if d.Ended == nil {
		return errors.New("no policy is on trial: \"portcullis try FILE\" puts one there")
	}
	ago := span(-d.Ended.At.Left())
	if d.Ended.Reverted {
		return fmt.Errorf("no policy is on trial: the trial of %s ended %s ago, and the previous policy is back", d.Ended.File, ago)
	}
	return fmt.Errorf("no policy is on trial: %s was confirmed %s ago", d.Ended.File, ago)
}

const newSession = "open a new ssh session, and run \"portcullis confirm\" there"

// witness refuses a confirmation that does not show that this host can still be reached.
func (a *app) witness(turn *loader.Turn, console bool) error {
	if !turn.Try.InForce {
		return fmt.Errorf("the try of %s was cut off, and cannot be confirmed", turn.Try.File)
	}
	s, err := a.firewall.FindSession()
	if err != nil {
		return fmt.Errorf("find the connection of this session: %w", err)
	}
	for _, c := range s.Connections {
		if !c.Outside() {
			return fmt.Errorf("this session came over %s, within this host, where nothing is filtered: %s", c.Remote, newSession)
		}
		old, err := turn.IsOld(c)
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
	if ssh := a.session(); ssh != "" && cameHere(ssh) {
		return fmt.Errorf("nobody can tell by which connection this session came (%s=%q, as in tmux or screen, may be another's): %s, outside of them",
			sshVariable, ssh, newSession)
	}
	if !s.Elsewhere && !console && (s.Unknown || a.firewall.OnPseudoTerminal()) {
		return errors.New("nobody can tell whence this session came: " + newSession + ", or say --console if this terminal is at the machine itself")
	}
	return nil
}

// cameHere tells that the server's address in an $SSH_CONNECTION is one of this network namespace.
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
func saveConfirmed(t *loader.Try) (saved bool, backup string, err error) {
	dir := filepath.Dir(t.Config)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, "", err
	}
	release, err := lockFile(t.Config)
	if err != nil {
		return false, "", err
	}
	defer release()
	old, err := policy.ReadFile(t.Config)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, "", fmt.Errorf("read policy: %w", err)
	case bytes.Equal(old, []byte(t.Text)):
		return false, "", nil
	default:
		backup = t.Config + backupSuffix
		if err := savefile.Save(backup, old); err != nil {
			return false, "", err
		}
	}
	return true, backup, savefile.Save(t.Config, []byte(t.Text))
}

func (a *app) revertCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "revert",
		Short:       "Put back what was in force before \"try\"",
		Annotations: needsRoot,
		Long: `End the trial that "portcullis try" began, and put back what was in force before: policy,
rules and interfaces. Flows and counters are kept.`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return a.revert() },
	}
}

type revertView struct {
	File    string `json:"file"`
	Running bool   `json:"running"` // false when nothing ran before either
}

func (a *app) revert() error {
	turn, err := a.takeTurn()
	if err != nil {
		return err
	}
	defer turn.Release()
	if turn.Try == nil {
		return noTrial(&turn.Deadlines)
	}
	if turn.Failed != nil { // it has just been tried
		return turn.Failed
	}
	view := revertView{turn.Try.File, turn.Try.Before != nil}
	if err := a.firewall.Revert(turn); err != nil {
		return err
	}
	return a.print(view, func() {
		if view.Running {
			a.printf("the trial of %s is over: what was in force before is in force again\n", view.File)
		} else {
			a.printf("the trial of %s is over: nothing is filtered, as before, and every port is open\n", view.File)
		}
	})
}
