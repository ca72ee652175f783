// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/monitor"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// Log writes the log of the agent, one message a line. In the journal each line has a priority (sd-daemon(3)).
type Log struct {
	w       io.Writer
	journal bool
	health  *Health // counts what is logged, or nil
}

// NewLog returns a log that writes to standard error, which may be connected to the journal.
func NewLog(stderr io.Writer) *Log {
	isJournal, _ := journal.StderrIsJournalStream()
	return &Log{w: stderr, journal: isJournal}
}

// IsJournal reports whether what is logged goes to the journal.
func (l *Log) IsJournal() bool { return l.journal }

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

// Error logs what somebody has to look into.
func (l *Log) Error(format string, args ...any) {
	l.health.change(func(s *HealthState) {
		s.Errors, s.Error, s.ErrorAt = s.Errors+1, fmt.Sprintf(format, args...), time.Now()
	})
	l.write(journal.PriErr, "error: ", format, args...)
}

// Warn logs what somebody should know.
func (l *Log) Warn(format string, args ...any) {
	l.health.change(func(s *HealthState) { s.Warnings++ })
	l.write(journal.PriWarning, "warning: ", format, args...)
}

// Info logs what was done.
func (l *Log) Info(format string, args ...any) { l.write(journal.PriInfo, "", format, args...) }

// Packet logs a packet, in the journal with fields of its own.
func (l *Log) Packet(r monitor.Record) {
	if !l.journal || !send(journal.PriInfo, r.Message, r.Fields) {
		l.Info("%s", r.Message)
	}
}

// Event logs what has happened by itself, in the journal with fields of its own.
func (l *Log) Event(e firewall.Event) {
	if !l.journal || !send(journal.PriNotice, e.Text, e.Fields) {
		l.write(journal.PriNotice, "", "%s", e.Text)
	}
}

// TellJournal writes to the journal what has happened by itself, and reports whether there is one.
func TellJournal(e firewall.Event) bool { return send(journal.PriNotice, e.Text, e.Fields) }

// TellJournalOfError writes an error to the journal, and reports whether there is one.
func TellJournalOfError(text string) bool { return send(journal.PriErr, text, nil) }

// send writes a message with fields to the journal, and reports whether that has it.
func send(priority journal.Priority, message string, fields map[string]string) bool {
	quoted := map[string]string{"SYSLOG_IDENTIFIER": "portcullis"}
	for name, value := range fields {
		quoted[name] = quote.Text(value)
	}
	return journal.Send(quote.Text(message), priority, quoted) == nil
}
