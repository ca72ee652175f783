// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// SaveFile replaces the file at path by data, all of it or nothing, also if the
// power fails. A symbolic link stays one and its target is replaced. Mode and
// owner stay what they were; a new file has mode 0644.
func SaveFile(path string, data []byte) error { return saveFile(path, data, 0o644) }

// SavePrivateFile is SaveFile for a file that only its owner may read.
func SavePrivateFile(path string, data []byte) error { return saveFile(path, data, 0o600) }

func saveFile(path string, data []byte, mode fs.FileMode) (err error) {
	target, err := linkTarget(path)
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("save %s: %w", target, err)
		}
	}()
	uid, gid := -1, -1
	switch info, err := os.Stat(target); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("not a regular file: name one that is")
	default:
		mode = info.Mode().Perm()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(st.Uid), int(st.Gid)
		}
	}
	dir := filepath.Dir(target)
	f, err := os.CreateTemp(dir, "."+filepath.Base(target)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	// Owner before mode: a change of owner may clear bits of the mode, and the
	// file is private until both are right.
	if uid >= 0 && (uid != os.Geteuid() || gid != os.Getegid()) {
		if err = f.Chown(uid, gid); err != nil {
			return err
		}
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), target); err != nil {
		return err
	}
	return syncDir(dir)
}

// linkTarget follows path to what it names in the end, which need not exist.
func linkTarget(path string) (string, error) {
	const most = 40 // as the kernel does
	for range most {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink == 0 {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		next, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(next) {
			// Not filepath.Join, which resolves ".." by the text and not by
			// the directory that a link leads to.
			next = filepath.Dir(path) + string(filepath.Separator) + next
		}
		path = next
	}
	return "", syscall.ELOOP
}

// syncDir makes the new name last; without it a crash may bring the old file
// back, which was reported as replaced.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
