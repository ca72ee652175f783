// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
)

// Dir is a folder, that a publisher writes to, or that rsync, NFS or git fills. A key is the path of a file in it.
type Dir struct {
	root string

	mu        sync.Mutex
	known     map[string]knownFile          // by path: what needs no reading again
	snapshots map[string]map[string]Version // by the answer of Changes that they go with
	order     []string                      // of snapshots, the oldest first
	clock     fileClock                     // of the file system
}

// OpenDir is the [Opener] of dir:PATH.
func OpenDir(_ context.Context, url string, _ Options) (Store, error) {
	path := strings.TrimPrefix(url, "dir:")
	if path == "" {
		return nil, errors.New("dir: needs a path: write dir:/srv/fleet")
	}
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return NewDir(root), nil
}

// NewDir returns the store in a folder, which need not be there yet.
func NewDir(root string) *Dir {
	return &Dir{root: root, known: make(map[string]knownFile), snapshots: make(map[string]map[string]Version)}
}

// Close implements [Store].
func (d *Dir) Close() error { return nil }

func (d *Dir) path(key string) string { return filepath.Join(d.root, filepath.FromSlash(key)) }

// versionOf returns the version of an object in a folder, or behind a web server.
func versionOf(value []byte) Version {
	sum := sha256.Sum256(value)
	return Version(hex.EncodeToString(sum[:16]))
}

// Get implements [Store].
func (d *Dir) Get(_ context.Context, key string) (Object, error) {
	if err := CheckKey(key); err != nil {
		return Object{}, err
	}
	value, err := readObject(d.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		value, err = d.announced(key)
	}
	if err != nil {
		return Object{}, d.failed(key, err)
	}
	return Object{value, versionOf(value)}, nil
}

// failed makes an error one of those that a store returns. Where the folder itself is gone, as when nothing is mounted
// there, nothing is known of what it held.
func (d *Dir) failed(key string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR):
		if _, gone := os.Stat(d.root); gone != nil {
			return fmt.Errorf("the folder of the fleet cannot be reached: %w", hideNotExist{gone})
		}
		return fmt.Errorf("%s: %w", d.path(key), fs.ErrNotExist)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s: %w", d.path(key), ErrReadOnly)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w", d.path(key), ErrDenied)
	}
	return err
}

// hideNotExist keeps an error from saying that an object is not there.
type hideNotExist struct{ error }

// readObject reads a file that may be anything: what is no regular file, or too large, is no object.
func readObject(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	value, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(value) > MaxSize {
		return nil, fmt.Errorf("%s: %w", path, ErrTooLarge)
	}
	return value, nil
}

// Put implements [Store].
func (d *Dir) Put(ctx context.Context, key string, value []byte, on Version) error {
	if err := CheckPut(key, value); err != nil {
		return err
	}
	if err := d.makeFolder(key); err != nil {
		return err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return d.failed(key, err)
	}
	defer unlock()
	if on != Any {
		now, err := d.Get(ctx, key)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if now.Version != on {
			return fmt.Errorf("%s: %w", key, ErrConflict)
		}
	}
	if err := savefile.Save(d.path(key), value); err != nil {
		return d.failed(key, err)
	}
	return nil
}

// makeFolder makes the folder of a key. The store's own is not made: where it is to be mounted, nothing belongs below it.
func (d *Dir) makeFolder(key string) error {
	_, err := os.Stat(d.root)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(d.path(key)), 0o755)
	}
	if err != nil {
		return d.failed(key, err)
	}
	return nil
}

// Delete implements [Store].
func (d *Dir) Delete(ctx context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return d.failed(key, err)
	}
	defer unlock()
	if err := os.Remove(d.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d.failed(key, err)
	}
	return nil
}

// lock keeps other processes from writing, those on other machines among them where the file system tells them.
func (d *Dir) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(d.root, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, err
		}
		if err := sleep(ctx, lockPoll); err != nil {
			f.Close()
			return nil, err
		}
	}
}

// List implements [Store].
func (d *Dir) List(_ context.Context, prefix string) ([]string, error) {
	if err := CheckPrefix(prefix); err != nil {
		return nil, err
	}
	keys := []string{}
	err := filepath.WalkDir(filepath.Join(d.root, filepath.FromSlash(prefix)), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has been removed meanwhile
		}
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if strings.HasPrefix(name, ".") && path != d.root {
				return fs.SkipDir
			}
			return nil
		}
		relative, err := filepath.Rel(d.root, path)
		if err != nil {
			return err
		}
		key, _, isAnnounced := strings.Cut(filepath.ToSlash(relative), announcedMark)
		if CheckKey(key) != nil || isAnnounced && !d.isFresh(path) {
			return nil
		}
		keys = append(keys, key)
		return nil
	})
	if err != nil {
		return nil, d.failed(prefix, err)
	}
	if len(keys) == 0 {
		if _, err := os.Stat(d.root); err != nil {
			return nil, d.failed(prefix, err)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}
