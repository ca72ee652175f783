// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What takes large libraries is a program of its own, as they would make every command slower to start.
const daemonName = "portcullisd"

// becomeDaemon makes this process one of portcullisd, with the flags of this command.
func (a *app) becomeDaemon(command string, args ...string) error {
	argv := []string{daemonName, command, "--caller", version, "--pin-path", a.pinPath, "--lock-timeout", a.wait.String()}
	if a.configGiven {
		argv = append(argv, "--config", a.config)
	}
	argv = append(argv, args...)
	if a.daemon != nil {
		return a.daemon(argv)
	}
	path, err := findDaemon()
	if err != nil {
		return err
	}
	if err := a.out.Flush(); err != nil {
		return err
	}
	if err := unix.Exec(path, argv, os.Environ()); err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	return nil
}

// findDaemon looks beside this program, and where commands are.
func findDaemon() (string, error) {
	own, err := os.Executable()
	if err == nil {
		beside := filepath.Join(filepath.Dir(own), daemonName)
		if _, err := os.Stat(beside); !errors.Is(err, fs.ErrNotExist) {
			return beside, err
		}
	}
	path, err := exec.LookPath(daemonName)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside %s nor in $PATH: install it, too; the package portcullis has it, and \"make install\" installs it", daemonName, own)
	}
	return path, nil
}
