// SPDX-License-Identifier: Apache-2.0

package savefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// location is where a file is or will be: its directory, opened, and its name
// in there. Nothing of the way to it is looked up twice, so that nobody can
// change it in between.
type location struct {
	dir    int // O_PATH
	path   string
	exists bool
	stat   unix.Stat_t // of the file, if it exists
	// unsafe says why others can put entries into a directory on the way, and
	// is nil where they cannot.
	unsafe *UntrustedError
	shared bool // others may add entries to the directory, but not replace any
}

func (l *location) name() string { return path.Base(l.path) }

func (l *location) close() { unix.Close(l.dir) }

// finder walks to a file. It follows symbolic links by itself, because whether
// one may be followed depends on who can have made it.
type finder struct {
	trusted []uint32
	at      location // the directory reached so far
	links   int
}

// find returns the location of a file that may not exist yet, in a directory
// that does.
func find(name string, trusted []uint32) (*location, error) {
	if !path.IsAbs(name) {
		cwd, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		name = cwd + "/" + name // not path.Join, which takes ".." by the text
	}
	f := &finder{trusted: trusted, at: location{dir: -1}}
	if err := f.enterRoot(); err != nil {
		return nil, err
	}
	if err := f.walk(name); err != nil {
		f.at.close()
		return nil, err
	}
	return &f.at, nil
}

func (f *finder) walk(name string) error {
	rest := components(name)
	for len(rest) > 0 {
		entry := rest[0]
		rest = rest[1:]
		where := path.Join(f.at.path, entry)
		fd, err := unix.Openat(f.at.dir, entry, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, fs.ErrNotExist) && len(rest) == 0 {
			f.at.path = where
			return nil
		}
		if err != nil {
			return &fs.PathError{Op: "open", Path: where, Err: err}
		}
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil {
			unix.Close(fd)
			return &fs.PathError{Op: "stat", Path: where, Err: err}
		}
		switch {
		case stat.Mode&unix.S_IFMT == unix.S_IFLNK:
			target, err := f.follow(fd, where, &stat)
			unix.Close(fd)
			if err != nil {
				return err
			}
			if path.IsAbs(target) {
				if err := f.enterRoot(); err != nil {
					return err
				}
			}
			rest = append(components(target), rest...)
		case len(rest) > 0 || entry == "..":
			if err := f.enter(fd, where, &stat); err != nil {
				return err
			}
		default:
			unix.Close(fd)
			f.at.path, f.at.stat, f.at.exists = where, stat, true
			return nil
		}
	}
	return fmt.Errorf("%s is a directory: name a file", f.at.path)
}

// components splits a path; "." and empty ones mean nothing.
func components(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(s string) bool { return s == "" || s == "." })
}

func (f *finder) enterRoot() error {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		unix.Close(fd)
		return &fs.PathError{Op: "stat", Path: "/", Err: err}
	}
	return f.enter(fd, "/", &stat)
}

// enter makes a directory the one that is reached, and takes over fd.
func (f *finder) enter(fd int, where string, stat *unix.Stat_t) error {
	if f.at.dir >= 0 {
		unix.Close(f.at.dir)
	}
	f.at.dir, f.at.path = fd, where
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return &fs.PathError{Op: "open", Path: where, Err: unix.ENOTDIR}
	}
	sticky := stat.Mode&unix.S_ISVTX != 0
	if f.at.unsafe == nil {
		switch {
		case !slices.Contains(f.trusted, stat.Uid):
			f.at.unsafe = &UntrustedError{Path: where, Directory: true, Owner: stat.Uid, Mode: stat.Mode & 0o7777, foreign: true}
		case stat.Mode&0o002 != 0 && !sticky:
			f.at.unsafe = &UntrustedError{Path: where, Directory: true, Owner: stat.Uid, Mode: stat.Mode & 0o7777}
		}
	}
	ownGroup := stat.Gid == 0 || stat.Gid == uint32(os.Getegid())
	f.at.shared = stat.Mode&0o002 != 0 || stat.Mode&0o020 != 0 && !ownGroup
	return nil
}

// follow returns where a link leads that one of the trusted has made.
func (f *finder) follow(fd int, where string, stat *unix.Stat_t) (string, error) {
	if f.links++; f.links > 40 { // as the kernel does
		return "", &fs.PathError{Op: "open", Path: where, Err: unix.ELOOP}
	}
	if f.at.unsafe != nil {
		return "", fmt.Errorf("%s is a symbolic link, which is not followed: %w", where, f.at.unsafe)
	}
	if !slices.Contains(f.trusted, stat.Uid) {
		return "", fmt.Errorf("%s is a symbolic link of uid %d, which is not followed: name the file itself", where, stat.Uid)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: where, Err: err}
	}
	return string(buf[:n]), nil
}
