// SPDX-License-Identifier: Apache-2.0

package bans

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// completeSuffix is what is added to the name of a journal for the file that tells which journal was complete.
const completeSuffix = ".complete"

// IsComplete reports whether nobody has removed or changed the journal since [Journal.SetComplete], and nothing was left out
// of it. Otherwise bans may be in force that are not in it.
func (j Journal) IsComplete() bool {
	identity, err := j.identity()
	if err != nil {
		return false
	}
	told, err := os.ReadFile(j.path + completeSuffix)
	return err == nil && string(told) == identity
}

// Begin takes note that bans change, which the journal does not know yet: whoever finds a process killed in between writes
// down all that is in force. It reports whether the journal was complete.
func (j Journal) Begin() (wasComplete bool) {
	wasComplete = j.IsComplete()
	j.SetIncomplete()
	return wasComplete
}

// SetComplete takes note that all bans in force are in the journal. Where that fails, it is taken to be incomplete.
func (j Journal) SetComplete() {
	identity, err := j.identity()
	if err == nil {
		err = os.WriteFile(j.path+completeSuffix, []byte(identity), 0o600)
	}
	if err != nil {
		j.SetIncomplete()
	}
}

// SetIncomplete takes note that bans are in force which could not be written to the journal.
func (j Journal) SetIncomplete() { _ = os.Remove(j.path + completeSuffix) }

// identity tells one state of the journal from others.
func (j Journal) identity() (string, error) {
	var stat unix.Stat_t
	if err := unix.Lstat(j.path, &stat); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %d %d\n", stat.Ino, stat.Size, unix.TimespecToNsec(stat.Mtim)), nil
}
