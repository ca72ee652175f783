// SPDX-License-Identifier: Apache-2.0

// Package cmdline writes command lines of portcullis for an administrator to
// paste.
package cmdline

import (
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// Flags are those of every command that its lines have to repeat, so that they are about the same filter and file.
type Flags struct {
	PinPath string // "" or the default is left out
	Config  string // "" is left out
}

// Line returns a command line that may be pasted into a shell, whatever the names of interfaces and files hold.
func (f Flags) Line(args ...string) string {
	words := []string{"portcullis"}
	if f.PinPath != "" && f.PinPath != loader.DefaultPinPath {
		words = append(words, "--pin-path", f.PinPath)
	}
	words = append(words, args...)
	if f.Config != "" {
		words = append(words, "--config", f.Config)
	}
	return quote.ShellWords(words)
}
