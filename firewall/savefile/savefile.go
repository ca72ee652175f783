// SPDX-License-Identifier: Apache-2.0

// Package savefile replaces files whole or not at all, and only where nobody
// else decides which file that is: a symbolic link that a stranger made is not
// followed. It also tells who else can change a file that is to be read.
package savefile

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Save replaces the file at path by data, all of it or nothing, also if the
// power fails. A symbolic link of root or of this user stays one, and its
// target is replaced. Mode and owner stay what they were; a new file has mode
// 0644.
func Save(path string, data []byte) error { return save(path, data, 0o644) }

// SavePrivate is [Save] for a file that only its owner may read.
func SavePrivate(path string, data []byte) error { return save(path, data, 0o600) }

func save(path string, data []byte, mode uint32) error {
	l, err := find(path, trustedUsers())
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	defer l.close()
	if err := l.replace(data, mode); err != nil {
		return fmt.Errorf("save %s: %w", l.path, err)
	}
	return nil
}

func (l *location) replace(data []byte, mode uint32) error {
	uid, gid := -1, -1
	if l.exists {
		if l.stat.Mode&unix.S_IFMT != unix.S_IFREG {
			return errors.New("not a regular file: name one that is")
		}
		mode, uid, gid = l.stat.Mode&0o777, int(l.stat.Uid), int(l.stat.Gid)
	}
	if err := l.mayReplace(); err != nil {
		return err
	}
	fd, err := unix.Openat(l.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), l.path)
	defer dir.Close()
	f, temporary, err := create(fd)
	if err != nil {
		return err
	}
	defer f.Close()
	removeOnFailure := func(err error) error {
		if temporary != "" {
			unix.Unlinkat(fd, temporary, 0)
		}
		return err
	}
	if err := fill(f, data, mode, uid, gid); err != nil {
		return removeOnFailure(err)
	}
	if temporary == "" {
		if temporary, err = link(f, fd); err != nil {
			return err
		}
	}
	if err := unix.Renameat(fd, temporary, fd, l.name()); err != nil {
		return removeOnFailure(err)
	}
	removeOld(dir)
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsynced, err)
	}
	return nil
}

// ErrUnsynced is returned when the file has been replaced, and nobody knows whether that outlives a crash.
var ErrUnsynced = errors.New("the file is replaced, but a crash may bring the old one back")

var syncDir = (*os.File).Sync

// mayReplace returns why the entry is not to be replaced: a file that a stranger
// put there is his, and would stay so.
func (l *location) mayReplace() error {
	if l.unsafe != nil && !l.unsafe.foreign {
		return l.unsafe
	}
	if l.exists && (l.shared || l.unsafe != nil) && !slices.Contains(trustedUsers(), l.stat.Uid) {
		return fmt.Errorf("the file belongs to uid %d, in a directory where others make files: remove it, or name another one", l.stat.Uid)
	}
	return nil
}

func fill(f *os.File, data []byte, mode uint32, uid, gid int) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	// Owner before mode: a change of owner may clear bits of the mode, and the
	// file is private until both are right.
	if uid >= 0 && (uid != os.Geteuid() || gid != os.Getegid()) {
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
	}
	if err := f.Chmod(fs.FileMode(mode)); err != nil {
		return err
	}
	return f.Sync()
}

// A file that a killed process left has such a name. It is hidden, and says
// whose it is.
const prefix, suffix = ".portcullis-", ".tmp"

func temporaryName() string {
	var b [8]byte
	rand.Read(b[:])
	return prefix + hex.EncodeToString(b[:]) + suffix
}

// create makes a file in a directory. It has no name, so that nothing is left
// when this process is killed, unless the file system cannot do that.
func create(dir int) (f *os.File, name string, err error) {
	fd, err := unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err == nil && canLink() {
		return os.NewFile(uintptr(fd), "temporary file"), "", nil
	}
	if err == nil {
		unix.Close(fd)
	}
	name = temporaryName()
	fd, err = unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, "", err
	}
	return os.NewFile(uintptr(fd), name), name, nil
}

// canLink reports whether a file without a name can get one, which goes by
// /proc for who has no privilege.
func canLink() bool {
	_, err := os.Stat("/proc/self/fd")
	return err == nil
}

// link gives a file a name, by which it can replace another one.
func link(f *os.File, dir int) (name string, err error) {
	name = temporaryName()
	return name, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), dir, name, unix.AT_SYMLINK_FOLLOW)
}

// removeOld removes what processes left that were killed between two steps.
func removeOld(dir *os.File) {
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) || !strings.HasSuffix(name, suffix) {
			continue
		}
		var stat unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), name, &stat, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && stat.Mode&unix.S_IFMT == unix.S_IFREG && stat.Uid == uint32(os.Geteuid()) &&
			time.Since(time.Unix(stat.Mtim.Unix())) > time.Minute {
			unix.Unlinkat(int(dir.Fd()), name, 0)
		}
	}
}
