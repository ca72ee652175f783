// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockPoll = 10 * time.Millisecond
	// dirPoll is how often a folder is looked at whose file system tells of no changes, such as NFS of other machines'.
	dirPoll = time.Second
	// settleTime is how long after a notice more of them are waited for, as files come in bursts.
	settleTime = 5 * time.Millisecond
	// maxSnapshots is how many answers of Changes are remembered. Who asks with an older one gets all again.
	maxSnapshots = 64
)

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// notices tells that something has changed in folders, where the kernel says so.
type notices struct{ f *os.File }

// watch begins to watch folders. What cannot be watched is polled.
func watch(folders ...string) *notices {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return &notices{} // the host's limit is reached
	}
	for _, folder := range folders {
		_, _ = unix.InotifyAddWatch(fd, folder, unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_MOVED_FROM|unix.IN_CREATE|unix.IN_DELETE|unix.IN_ONLYDIR)
	}
	return &notices{os.NewFile(uintptr(fd), "inotify")}
}

func (n *notices) close() {
	if n.f != nil {
		n.f.Close()
	}
}

// wait returns when something may have changed.
func (n *notices) wait(ctx context.Context) error {
	if n.f == nil {
		return sleep(ctx, dirPoll)
	}
	stop := context.AfterFunc(ctx, func() { _ = n.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := n.f.SetReadDeadline(time.Now().Add(dirPoll)); err != nil {
		return sleep(ctx, dirPoll)
	}
	var events [4096]byte
	_, err := n.f.Read(events[:])
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return sleep(ctx, settleTime)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return sleep(ctx, dirPoll)
	}
	return nil
}

// Watch implements [Store].
func (d *Dir) Watch(ctx context.Context, key string, version Version) (Object, error) {
	if err := CheckKey(key); err != nil {
		return Object{}, err
	}
	for {
		n := watch(filepath.Dir(d.path(key)), d.root)
		for range 60 { // a folder that was not there may be now
			now, err := d.Get(ctx, key)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				n.close()
				return Object{}, err
			}
			if now.Version != version {
				n.close()
				return now, err
			}
			if err := n.wait(ctx); err != nil {
				n.close()
				return Object{}, err
			}
		}
		n.close()
	}
}

// knownFile is a file that has been read.
type knownFile struct {
	modified time.Time
	size     int64
	inode    uint64
	version  Version
}

// version returns the version of an object, without reading it again if its file is as it was. A file of this moment is read:
// it may change again within the same tick.
func (d *Dir) version(key string) (Version, error) {
	path := d.path(key)
	info, err := os.Stat(path)
	if err == nil {
		d.mu.Lock()
		was, ok := d.known[path]
		d.mu.Unlock()
		if ok && was.modified.Equal(info.ModTime()) && was.size == info.Size() && was.inode == inodeOf(info) {
			return was.version, nil
		}
	}
	object, getErr := d.Get(context.Background(), key)
	if getErr != nil {
		return Absent, getErr
	}
	if err == nil && d.now().Sub(info.ModTime()) > time.Second {
		d.mu.Lock()
		d.known[path] = knownFile{info.ModTime(), info.Size(), inodeOf(info), object.Version}
		d.mu.Unlock()
	}
	return object.Version, nil
}

func inodeOf(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// Changes implements [Store].
func (d *Dir) Changes(ctx context.Context, prefix, since string) (Changes, error) {
	if err := CheckPrefix(prefix); err != nil || prefix == "" {
		return Changes{}, errors.Join(err, errIfEmpty(prefix))
	}
	for {
		n := watch(d.folders(prefix)...)
		for range 60 {
			now, token, err := d.snapshot(ctx, prefix)
			if err != nil {
				n.close()
				return Changes{}, err
			}
			if token != since {
				n.close()
				return d.compare(ctx, since, now, token)
			}
			if err := n.wait(ctx); err != nil {
				n.close()
				return Changes{}, err
			}
		}
		n.close()
	}
}

func errIfEmpty(prefix string) error {
	if prefix == "" {
		return errors.New("name a folder of keys")
	}
	return nil
}

// folders returns those below a prefix, and the nearest above it that is there.
func (d *Dir) folders(prefix string) []string {
	folders := []string{d.root}
	_ = filepath.WalkDir(filepath.Join(d.root, filepath.FromSlash(prefix)), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return nil
	})
	return folders
}

// snapshot returns the versions of what is below a prefix, and what stands for them.
func (d *Dir) snapshot(ctx context.Context, prefix string) (map[string]Version, string, error) {
	keys, err := d.List(ctx, prefix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	now := make(map[string]Version, len(keys))
	sum := sha256.New()
	for _, key := range keys {
		v, err := d.version(key)
		if err != nil {
			continue // it is gone again, or nobody's to read
		}
		now[key] = v
		fmt.Fprintf(sum, "%s %s\n", key, v)
	}
	return now, hex.EncodeToString(sum.Sum(nil)[:16]), nil
}

func (d *Dir) compare(ctx context.Context, since string, now map[string]Version, token string) (Changes, error) {
	d.mu.Lock()
	before, known := d.snapshots[since]
	if _, ok := d.snapshots[token]; !ok {
		d.snapshots[token] = now
		d.order = append(d.order, token)
		if len(d.order) > maxSnapshots {
			delete(d.snapshots, d.order[0])
			d.order = slices.Delete(d.order, 0, 1)
		}
	}
	d.mu.Unlock()
	c := Changes{All: !known, Objects: make(map[string]Object), Gone: []string{}, Since: token}
	for key, version := range now {
		if known && before[key] == version {
			continue
		}
		object, err := d.Get(ctx, key)
		if err == nil {
			c.Objects[key] = object // or a newer one, which comes again
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if _, there := now[key]; !there {
			c.Gone = append(c.Gone, key)
		}
	}
	return c, nil
}

// announcedMark parts the name of an announced object from its time to live. No key has it.
const announcedMark = "@"

// announced returns an object that a process keeps there which lives, as far as that can be seen.
func (d *Dir) announced(key string) ([]byte, error) {
	folder := filepath.Dir(d.path(key))
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	begin := filepath.Base(d.path(key)) + announcedMark
	for _, e := range entries {
		if path := filepath.Join(folder, e.Name()); strings.HasPrefix(e.Name(), begin) && d.isFresh(path) {
			return readObject(path)
		}
	}
	return nil, fs.ErrNotExist
}

// isFresh reports whether a file has been touched within the time that its name says, by the clock of its file system.
func (d *Dir) isFresh(path string) bool {
	_, text, _ := strings.Cut(filepath.Base(path), announcedMark)
	ttl, err := time.ParseDuration(text)
	if err != nil {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && d.now().Sub(info.ModTime()) <= ttl
}

// fileClock is what a file system's clock showed.
type fileClock struct{ showed, at time.Time }

// now returns the time by the clock that the file system stamps files with: that of the server, where there is one. Who may
// not write there goes by his own.
func (d *Dir) now() time.Time {
	const valid = 10 * time.Second
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.clock.at.IsZero() || time.Since(d.clock.at) > valid {
		d.clock = fileClock{time.Now().Round(0), time.Now()}
		if f, err := os.CreateTemp(d.root, ".clock-*"); err == nil {
			if info, err := f.Stat(); err == nil {
				d.clock = fileClock{info.ModTime(), time.Now()}
			}
			f.Close()
			_ = os.Remove(f.Name())
		}
	}
	return d.clock.showed.Add(time.Since(d.clock.at))
}

type dirPresence struct {
	d    *Dir
	path string
	key  string
	stop func()
	done chan struct{}

	mu    sync.Mutex
	value []byte
}

// Announce implements [Store].
func (d *Dir) Announce(ctx context.Context, key string, value []byte) (Presence, error) {
	return d.AnnounceFor(ctx, key, value, DefaultTTL)
}

// AnnounceFor is Announce with the time that the object outlives this process.
func (d *Dir) AnnounceFor(ctx context.Context, key string, value []byte, ttl time.Duration) (Presence, error) {
	if err := CheckPut(key, value); err != nil {
		return nil, err
	}
	p := &dirPresence{d: d, key: key, path: d.path(key) + announcedMark + ttl.String(), done: make(chan struct{})}
	if err := d.makeFolder(key); err != nil {
		return nil, err
	}
	if err := p.Update(ctx, value); err != nil {
		return nil, err
	}
	ctx, p.stop = context.WithCancel(context.Background())
	go func() {
		defer close(p.done)
		for sleep(ctx, ttl/3) == nil {
			if errors.Is(touch(p.path), fs.ErrNotExist) { // somebody has tidied up
				_ = errors.Join(d.makeFolder(key), p.write()) // the next time, where it cannot be reached
			}
		}
	}()
	return p, nil
}

// touch stamps a file with the time of its file system, and not with that of this host.
func touch(path string) error {
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{now, now}, 0)
}

// Update implements [Presence].
func (p *dirPresence) Update(_ context.Context, value []byte) error {
	p.mu.Lock()
	p.value = value
	p.mu.Unlock()
	return p.write()
}

func (p *dirPresence) write() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := filepath.Join(filepath.Dir(p.path), "."+filepath.Base(p.path))
	err := os.WriteFile(next, p.value, 0o644)
	if err == nil {
		err = os.Rename(next, p.path)
	}
	if err != nil {
		return p.d.failed(p.key, err)
	}
	return nil
}

// Close implements [Presence].
func (p *dirPresence) Close() error {
	p.stop()
	<-p.done
	return os.Remove(p.path)
}
