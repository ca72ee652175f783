// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// What every version keeps in the same way, so that a later one can take a filter over: where the links are pinned
// (BASE/vN/links) and the programs (BASE/vN/policy). All else a version knows only of itself.

// Sentinel errors; the errors returned wrap them and say more.
var (
	// ErrNotRunning means that nothing is attached under this pin path.
	ErrNotRunning = errors.New("portcullis is not running")
	// ErrOlderSchema means that an older version has pinned the filter. Up takes it over.
	ErrOlderSchema = errors.New("the filter that runs is of an older version of portcullis")
	// ErrNewerSchema means that a newer version has pinned the filter.
	ErrNewerSchema = errors.New("the filter that runs is of a newer version of portcullis")
)

// OtherVersion returns the pins of a filter that another version has put on interfaces.
func (d Dir) OtherVersion() (other Dir, ok bool) {
	entries, _ := os.ReadDir(d.Base)
	for _, e := range entries {
		if !isVersion(e.Name()) || e.Name() == Schema {
			continue
		}
		other := Dir{d.Base, e.Name()}
		if names, err := other.Linked(); err == nil && len(names) > 0 {
			return other, true
		}
	}
	return Dir{}, false
}

// IsOlder reports whether the pins are an older version's.
func (d Dir) IsOlder() bool { return d.Version != "" && number(d.Version) < number(Schema) }

// NotRunning returns the error for a pin path under which this version finds no filter of its own.
func (d Dir) NotRunning(what string) error {
	other, ok := d.OtherVersion()
	if !ok {
		return fmt.Errorf("%w (%s)", ErrNotRunning, what)
	}
	if other.IsOlder() {
		return fmt.Errorf("%w (pins %s, and this one keeps %s): \"portcullis up\" takes it over", ErrOlderSchema, other.Version, Schema)
	}
	return fmt.Errorf("%w (pins %s, and this one knows %s): use that one, or \"portcullis down\" first", ErrNewerSchema, other.Version, Schema)
}

// isVersion reports whether a directory below a pin path is called as one of a version is.
func isVersion(name string) bool {
	number, ok := strings.CutPrefix(name, "v")
	return ok && number != "" && number[0] >= '0' && number[0] <= '9'
}

func number(version string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(version, "v"))
	return n
}

// Adopt moves the links of an older version, which run our programs by now, to where this one keeps them. What is cut
// off here the next command ends.
func (d Dir) Adopt(older Dir) error {
	names, err := older.Linked()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.MkdirAll(d.Link(name), 0o700); err != nil {
			return err
		}
		kinds, err := os.ReadDir(older.Link(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, kind := range kinds {
			if err := os.Rename(filepath.Join(older.Link(name), kind.Name()), filepath.Join(d.Link(name), kind.Name())); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(older.Root())
}
