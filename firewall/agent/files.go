// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// quietTime is how long a complete file has to be left alone before it is read: a script may write it in several goes.
const quietTime = 200 * time.Millisecond

// fileWatcher reports when a file has changed, and is complete: it was moved into its place, or closed by who wrote it. It
// watches directories, since editors put a new file in the place of the old one.
type fileWatcher struct {
	inotify *os.File
	events  chan fileEvent
	policy  chan struct{} // the policy file, or one of its lists, may have changed
	pins    chan struct{} // a command may have changed the filter

	mu      sync.Mutex
	names   followed
	dirs    map[int32]string // by watch descriptor
	writing map[string]bool  // files that somebody writes, and has not closed yet
}

// followed are the paths of interest, a few each.
type followed struct {
	policy []string // the policy file and its list files, and every directory and link on the way to them
	pins   []string // directories
}

// fileEvent is what happened to a path; "" where some events were lost.
type fileEvent struct {
	path string
	mask uint32
}

const (
	// completeEvents leave a file behind that nobody is writing.
	completeEvents = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE
	watchedEvents  = completeEvents | unix.IN_CREATE | unix.IN_MODIFY | unix.IN_ATTRIB
	// wayEvents are those of directories and links: others write to files beside them all the time, as in /tmp.
	wayEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_ATTRIB
)

func watchFiles() (*fileWatcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the policy file: %w", err)
	}
	w := &fileWatcher{inotify: os.NewFile(uintptr(fd), "inotify"), events: make(chan fileEvent),
		policy: make(chan struct{}, 1), pins: make(chan struct{}, 1), dirs: make(map[int32]string), writing: make(map[string]bool)}
	go w.read()
	go w.run()
	return w, nil
}

func (w *fileWatcher) Close() { w.inotify.Close() }

// read passes events on until the watcher is closed.
func (w *fileWatcher) read() {
	defer close(w.events)
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.inotify.Read(buffer)
		if err != nil {
			return
		}
		for b := buffer[:n]; len(b) >= unix.SizeofInotifyEvent; { // struct inotify_event
			wd, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
			end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:end]), "\x00")
			b = b[end:]
			w.mu.Lock()
			dir := w.dirs[wd]
			if mask&unix.IN_IGNORED != 0 {
				delete(w.dirs, wd)
			}
			w.mu.Unlock()
			switch {
			case mask&unix.IN_Q_OVERFLOW != 0:
				w.events <- fileEvent{}
			case dir != "" && name != "":
				w.events <- fileEvent{filepath.Join(dir, name), mask}
			}
		}
	}
}

func (w *fileWatcher) run() {
	quiet := time.NewTimer(0)
	<-quiet.C
	for {
		select {
		case event, ok := <-w.events:
			if !ok {
				return
			}
			w.mu.Lock()
			names := w.names
			w.mu.Unlock()
			if event.path == "" {
				quiet.Reset(quietTime)
				wake(w.pins)
			}
			if slices.Contains(names.policy, event.path) {
				if w.isComplete(event) {
					quiet.Reset(quietTime)
				} else {
					quiet.Stop()
				}
			}
			if slices.Contains(names.pins, event.path) || slices.Contains(names.pins, filepath.Dir(event.path)) {
				wake(w.pins)
			}
		case <-quiet.C:
			wake(w.policy)
		}
	}
}

// isComplete reports whether the files may be read after an event of one.
func (w *fileWatcher) isComplete(e fileEvent) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case e.mask&unix.IN_ISDIR != 0: // one on the way to the file
	case e.mask&completeEvents != 0:
		delete(w.writing, e.path)
	case e.mask&unix.IN_MODIFY != 0:
		w.writing[e.path] = true
	case e.mask&unix.IN_CREATE != 0:
		// Nobody will close a link. Who makes a file writes it next.
		info, err := os.Lstat(e.path)
		linked := err == nil && (info.Mode()&fs.ModeSymlink != 0 || links(info) > 1)
		if w.writing[e.path] = true; linked {
			delete(w.writing, e.path)
		}
	}
	return len(w.writing) == 0
}

// isWriting reports whether somebody has one of the files open, and writes it.
func (w *fileWatcher) isWriting() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.writing) > 0
}

// links returns how many names a file has.
func links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}

// wake wakes the reader of a channel, unless it was woken already and has not looked yet.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// follow watches the policy file and its list files, which need not exist, with every directory and link on the way to
// them, and directories of pins. It is called again and again, as directories come and go, and links change.
func (w *fileWatcher) follow(files, pins []string) {
	names := followed{pins: pins}
	dirs := map[string]uint32{filepath.Dir(pins[0]): watchedEvents}
	for _, file := range files {
		way := wayTo(file)
		for i, name := range way {
			events := uint32(wayEvents)
			if i == len(way)-1 { // the file itself
				events = watchedEvents
			}
			dirs[filepath.Dir(name)] |= events
		}
		names.policy = append(names.policy, way...)
	}
	for _, dir := range pins {
		dirs[dir] = watchedEvents
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = names
	for path := range w.writing {
		if !slices.Contains(names.policy, path) {
			delete(w.writing, path)
		}
	}
	w.watch(dirs)
}

// mostLinks is how many links the kernel follows on the way to a file (path_resolution(7)).
const mostLinks = 40

// wayTo returns the path of every directory, link and file on the way to a file, as far as they exist. The directories
// that they are in are free of links.
func wayTo(path string) (way []string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	rest := strings.Split(path, "/")
	at := "/"
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		way = append(way, next)
		info, err := os.Lstat(next)
		if err != nil {
			return way
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		target, err := os.Readlink(next)
		if links++; err != nil || links > mostLinks {
			return way
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return way
}

// watch watches these directories, as far as they exist, and no other ones. The lock is held.
func (w *fileWatcher) watch(dirs map[string]uint32) {
	raw, err := w.inotify.SyscallConn()
	if err != nil {
		return // it is closed
	}
	_ = raw.Control(func(fd uintptr) { // or it is closed
		wanted := make(map[int32]string)
		for dir, events := range dirs {
			if wd, err := unix.InotifyAddWatch(int(fd), dir, events|unix.IN_ONLYDIR); err == nil {
				wanted[int32(wd)] = dir
			}
		}
		for wd := range w.dirs {
			if wanted[wd] == "" {
				_, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) // or it has gone with its directory
			}
		}
		w.dirs = wanted
	})
}
