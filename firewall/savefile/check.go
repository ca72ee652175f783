// SPDX-License-Identifier: Apache-2.0

package savefile

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// UntrustedError says that others than root and this user can change a file.
type UntrustedError struct {
	Path      string // of the file, or of a directory on the way to it
	Directory bool
	Owner     uint32
	Mode      uint32

	foreign bool // because of its owner, not of its mode
}

func (e *UntrustedError) Error() string {
	what := e.Path
	if e.Directory {
		what = "directory " + e.Path
	}
	if e.foreign {
		return fmt.Sprintf("%s belongs to uid %d, who can change it: run \"chown root %s\"", what, e.Owner, e.Path)
	}
	return fmt.Sprintf("everybody can write to %s (mode %04o): run \"chmod o-w %s\"", what, e.Mode, e.Path)
}

// Check returns an [*UntrustedError] if others than root, this user and those
// in also can change the file at path: because it is theirs, because everybody
// may write to it, or because they can put another one in its place. What a
// group may do is left to who gave it the right.
func Check(path string, also ...uint32) error {
	trusted := append(trustedUsers(), also...)
	l, err := find(path, trusted)
	if err != nil {
		return err
	}
	defer l.close()
	switch {
	case l.unsafe != nil:
		return l.unsafe
	case !l.exists:
		return &os.PathError{Op: "open", Path: path, Err: unix.ENOENT}
	case !slices.Contains(trusted, l.stat.Uid):
		return &UntrustedError{Path: l.path, Owner: l.stat.Uid, Mode: l.stat.Mode & 0o7777, foreign: true}
	case l.stat.Mode&0o002 != 0:
		return &UntrustedError{Path: l.path, Owner: l.stat.Uid, Mode: l.stat.Mode & 0o7777}
	}
	return nil
}

// trustedUsers returns root and the user of this process, who can do what this
// process can.
func trustedUsers() []uint32 { return []uint32{0, uint32(os.Geteuid())} }
