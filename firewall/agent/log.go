// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"io"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// Log writes what the agent has to say, a line each. In the journal a line tells how much it matters (sd-daemon(3)).
type Log struct {
	w       io.Writer
	journal bool
}

// NewLog makes a log of standard error, which may be a stream into the journal.
func NewLog(stderr io.Writer) *Log {
	isJournal, _ := journal.StderrIsJournalStream()
	return &Log{stderr, isJournal}
}

func (l *Log) write(priority journal.Priority, word, format string, args ...any) {
	prefix := "portcullis: " + word
	if l.journal {
		prefix = fmt.Sprintf("<%d>", priority)
	}
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(l.w, "%s%s\n", prefix, line)
		}
	}
}

// Error tells of what somebody has to look after.
func (l *Log) Error(format string, args ...any) {
	l.write(journal.PriErr, "error: ", format, args...)
}

// Warn tells of what somebody should know.
func (l *Log) Warn(format string, args ...any) {
	l.write(journal.PriWarning, "warning: ", format, args...)
}

// Info tells of what was done.
func (l *Log) Info(format string, args ...any) { l.write(journal.PriInfo, "", format, args...) }
