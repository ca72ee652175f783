// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"sync"
)

// Level says how much a note matters.
type Level int

// The levels.
const (
	Info    Level = iota // what was done
	Warning              // what somebody should know
	Error                // what somebody has to look after
)

// Note is something that a Follower has to say.
type Note struct {
	Level Level
	Text  string
}

func (fl *Follower) note(level Level, format string, args ...any) {
	fl.notes = append(fl.notes, Note{level, fmt.Sprintf(format, args...)})
}

// complain notes an error, and the same one in a row only once: what goes on to fail is tried again and again. That
// another command is at work is no error: see Delayed.
func (fl *Follower) complain(err error) {
	if errors.Is(err, ErrLocked) {
		fl.locked = true
		return
	}
	if err != nil && err.Error() != fl.lastError {
		fl.lastError = err.Error()
		fl.note(Error, "%v", err)
	}
}

func (fl *Follower) warn(sentences []string) {
	for _, s := range sentences {
		fl.note(Warning, "%s", s)
	}
}

// takeNotes returns the notes, and forgets them.
func (fl *Follower) takeNotes() []Note {
	notes := fl.notes
	fl.notes = nil
	return notes
}

// reject notes what is wrong with the policy file, and what that means.
func (fl *Follower) reject(err error, meaning string) {
	fl.problem = "the policy file is not in force: " + oneLine(err)
	fl.tell(err)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && fl.existed:
		fl.note(Error, "%s is gone%s", fl.config, meaning)
	case missing:
		fl.note(Error, "there is no %s%s", fl.config, meaning)
	default:
		fl.note(Error, "%v%s", err, meaning)
	}
}

// anyPlace is what may differ between mistakes of one kind: numbers, and what stands there.
var anyPlace = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`"[^"]*"|[0-9]+`) })

// rejectOnce is reject for what happens by itself again and again: as long as the policy file stays as it is, the
// mistakes of its list files are noted once for each kind.
func (fl *Follower) rejectOnce(err error, meaning string) {
	notes, told := fl.notes, fl.told
	if fl.reject(err, meaning); fl.told == told {
		fl.notes = notes
	}
}

// tell makes a mistake the one that has been told of.
func (fl *Follower) tell(err error) {
	file, _, _ := strings.Cut(fl.seen, "\n")
	fl.told = file + "\n" + anyPlace().ReplaceAllString(err.Error(), "")
}

// oneLine returns the text of errors that were joined.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
