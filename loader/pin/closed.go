// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// closeToOthers makes a pin directory, whose lock all changes take, one that nobody else can open, and so lock. The root of
// a bpf filesystem stays as it is, since others may have their pins there.
func closeToOthers(dir string) error {
	var st, above unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if st.Mode&0o077 == 0 {
		return nil
	}
	if err := unix.Stat(filepath.Dir(dir), &above); err != nil {
		return fmt.Errorf("%s: %w", filepath.Dir(dir), err)
	}
	if st.Dev != above.Dev {
		return fmt.Errorf("%s is open to others, who could keep its lock: choose a directory below it as --pin-path", dir)
	}
	return os.Chmod(dir, 0o700)
}
