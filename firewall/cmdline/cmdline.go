// SPDX-License-Identifier: Apache-2.0

// Package cmdline writes command lines of portcullis for an administrator to
// paste.
package cmdline

import (
	"strings"

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
	return "portcullis " + f.before() + quote.ShellWords(args) + f.after()
}

// before returns the flags that stand before the command, each with a space.
func (f Flags) before() string {
	if f.PinPath == "" || f.PinPath == loader.DefaultPinPath {
		return ""
	}
	return quote.ShellWords([]string{"--pin-path", f.PinPath}) + " "
}

func (f Flags) after() string {
	if f.Config == "" {
		return ""
	}
	return " " + quote.ShellWords([]string{"--config", f.Config})
}

// Complete returns the text with the flags in each command line of portcullis that it quotes, as in: run "portcullis up"
// first. Whatever writes such texts need not know the flags. A command line that has them already stays as it is, and so
// does one that asks for help.
func (f Flags) Complete(text string) string {
	const begin = `"portcullis `
	before, after := f.before(), f.after()
	if before == "" && after == "" {
		return text
	}
	var b strings.Builder
	for {
		i := strings.Index(text, begin)
		if i < 0 {
			break
		}
		i += len(begin)
		b.WriteString(text[:i])
		text = text[i:]
		end := closing(text)
		if end <= 0 || text[0] < 'a' || text[0] > 'z' {
			continue
		}
		command := text[:end]
		text = text[end:]
		if strings.Contains(command, " --config ") || strings.HasSuffix(command, " --help") {
			b.WriteString(command)
		} else {
			b.WriteString(before + command + after)
		}
	}
	b.WriteString(text)
	return b.String()
}

// closing returns where a command line ends that stands in double quotes, which its own words may hold: see [quote.Shell].
func closing(text string) int {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			return i
		case '\n':
			return -1
		case '\\':
			i++
		case '\'':
			ansi := i > 0 && text[i-1] == '$'
			for i++; i < len(text) && text[i] != '\''; i++ {
				if ansi && text[i] == '\\' {
					i++
				}
			}
		}
	}
	return -1
}
