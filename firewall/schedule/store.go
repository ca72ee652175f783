// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/loader/lock"
)

// Dir is where schedules are kept. They are about this boot only: after the next one the file counts. Its name, its
// format and its lock are those of earlier versions, so that an upgrade ends what one of them has begun.
const Dir = "/run/portcullis/deadlines"

// Files of one filter below Dir, in a directory that is called after its pin path.
const (
	recordFile      = "record.json"
	connectionsFile = "connections" // those that a trial found, one a line
	aliveFile       = "watchdog.lock"
	watchdogLog     = "watchdog.log"
)

// Store is where the schedule of one filter is kept, in a directory that is root's alone.
type Store struct{ dir string }

// NewStore returns the store below root for the filter under a pin path.
func NewStore(root, pinPath string) Store {
	return Store{filepath.Join(root, url.PathEscape(pinPath))}
}

// Path returns the path of one of the store's files.
func (s Store) Path(name string) string { return filepath.Join(s.dir, name) }

// Lock keeps every other process from changing this filter. The error wraps fs.ErrPermission where this process may keep
// no schedule, and so has none.
func (s Store) Lock(ctx context.Context) (unlock func(), err error) {
	if err := PrivateDir(s.dir); err != nil {
		return nil, err
	}
	return lock.Dir(ctx, s.dir, lock.Exclusive)
}

// removeLeftovers removes what killed processes had begun to write: files are saved under a hidden name first.
func (s Store) removeLeftovers() {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return // they do no harm
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			_ = os.Remove(s.Path(e.Name()))
		}
	}
}

// PrivateDir makes a directory that only its owner, who is the user of this process, gets into: nobody else can hold a
// lock there.
func PrivateDir(dir string) error {
	var st unix.Stat_t
	err := unix.Lstat(dir, &st)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		err = unix.Lstat(dir, &st)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%s is not a directory that is closed to all but its owner, uid %d: remove it", dir, os.Geteuid())
	}
	return nil
}

// Read returns the schedule.
func (s Store) Read() (*Schedule, error) {
	text, err := os.ReadFile(s.Path(recordFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return &Schedule{}, nil // who may not read these keeps none of his own
	}
	if err != nil {
		return nil, err
	}
	var recorded, now Schedule
	if err := json.Unmarshal(text, &recorded); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): remove it, and what was to happen by itself will not", s.Path(recordFile), err)
	}
	if err := now.stamp(); err != nil {
		return nil, err
	}
	if recorded.Boot != now.Boot {
		return &Schedule{}, nil
	}
	if _, pending := recorded.Next(); pending && recorded.Netns != now.Netns {
		return nil, fmt.Errorf("%w, and something is due there: if that namespace is gone, remove %s", loader.ErrOtherNamespace, s.dir)
	}
	recorded.Netns = now.Netns
	return &recorded, nil
}

// stamp records what the schedule holds for, unless it tells.
func (s *Schedule) stamp() error {
	if s.Boot != "" {
		return nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	s.Boot = string(bytes.TrimSpace(boot))
	s.Netns, err = host.NetnsCookie()
	return err
}

// Save makes the schedule the one that counts.
func (s Store) Save(schedule *Schedule) error {
	if err := schedule.stamp(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(schedule, "", "  ")
	if err != nil {
		return err
	}
	s.removeLeftovers()
	return ReplaceFile(s.Path(recordFile), append(text, '\n'))
}

// ReplaceFile replaces a file whole in a directory that is this process's own.
func ReplaceFile(path string, data []byte) error {
	next := path + ".new" // always the same, so that killed processes leave one at most
	if err := os.WriteFile(next, data, 0o600); err != nil {
		_ = os.Remove(next) // which may be cut off where no space is left
		return err
	}
	return os.Rename(next, path)
}

// SaveConnections records the connections of this moment, which prove nothing about a policy that is in force already.
func (s Store) SaveConnections(connections []host.Connection) error {
	var b strings.Builder
	for _, c := range connections {
		fmt.Fprintln(&b, c)
	}
	return ReplaceFile(s.Path(connectionsFile), []byte(b.String()))
}

// IsOld reports whether a connection was there when SaveConnections was called.
func (s Store) IsOld(c host.Connection) (bool, error) {
	text, err := os.ReadFile(s.Path(connectionsFile))
	if err != nil {
		return true, err
	}
	return slices.Contains(strings.Split(string(text), "\n"), c.String()), nil
}
