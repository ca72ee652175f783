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
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// quietTime is how long a complete file has to be left alone before it is read: a script may write it in several goes.
const quietTime = 200 * time.Millisecond

// fileWatcher tells when a file has changed, and is complete: it was moved into its place, or closed by who wrote it. It
// watches directories, since editors put a new file in the place of the old one.
type fileWatcher struct {
	inotify *os.File
	events  chan fileEvent
	names   chan followed
	policy  chan struct{} // the policy file may have changed
	pins    chan struct{} // a command may have changed the filter
	writing atomic.Bool   // somebody writes the policy file, and has not closed it yet

	mu   sync.Mutex
	dirs map[int32]string // by watch descriptor
}

// followed are the paths of interest, a few each.
type followed struct{ policy, pins []string }

// fileEvent is what happened to a path; "" where some events were lost.
type fileEvent struct {
	path string
	mask uint32
}

const (
	// completeEvents leave a file behind that nobody is writing.
	completeEvents = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE
	watchedEvents  = completeEvents | unix.IN_CREATE | unix.IN_MODIFY | unix.IN_ATTRIB
)

func watchFiles() (*fileWatcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the policy file: %w", err)
	}
	w := &fileWatcher{inotify: os.NewFile(uintptr(fd), "inotify"), events: make(chan fileEvent), names: make(chan followed),
		policy: make(chan struct{}, 1), pins: make(chan struct{}, 1), dirs: make(map[int32]string)}
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
	var names followed
	quiet := time.NewTimer(0)
	<-quiet.C
	for {
		select {
		case names = <-w.names:
		case event, ok := <-w.events:
			if !ok {
				return
			}
			if event.path == "" {
				quiet.Reset(quietTime)
				tell(w.pins)
			}
			if slices.Contains(names.policy, event.path) {
				if w.isComplete(event) {
					quiet.Reset(quietTime)
				} else {
					quiet.Stop()
				}
			}
			if slices.Contains(names.pins, event.path) || slices.Contains(names.pins, filepath.Dir(event.path)) {
				tell(w.pins)
			}
		case <-quiet.C:
			tell(w.policy)
		}
	}
}

// isComplete reports whether a file may be read after an event.
func (w *fileWatcher) isComplete(e fileEvent) bool {
	switch {
	case e.mask&completeEvents != 0:
		w.writing.Store(false)
	case e.mask&unix.IN_MODIFY != 0:
		w.writing.Store(true)
	case e.mask&unix.IN_CREATE != 0:
		// Nobody will close a link. Who makes a file writes it next.
		info, err := os.Lstat(e.path)
		linked := err == nil && (info.Mode()&fs.ModeSymlink != 0 || links(info) > 1)
		w.writing.Store(!linked)
	}
	return !w.writing.Load()
}

// links returns how many names a file has.
func links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}

// tell wakes the reader of a channel, unless it was told already and has not looked yet.
func tell(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// follow watches the policy file, which need not exist, and what it is a link to, and directories of pins. It is
// called again and again, as directories come and go.
func (w *fileWatcher) follow(policy string, pins []string) {
	names := followed{[]string{policy}, pins}
	if target, err := filepath.EvalSymlinks(policy); err == nil && target != policy {
		names.policy = append(names.policy, target)
	}
	dirs := slices.Clone(pins)
	for _, name := range slices.Concat(names.policy, pins[:1]) {
		dirs = append(dirs, filepath.Dir(name))
	}
	w.watch(dirs)
	w.names <- names
}

// watch watches these directories, as far as they exist, and no other ones.
func (w *fileWatcher) watch(dirs []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	raw, err := w.inotify.SyscallConn()
	if err != nil {
		return // it is closed
	}
	_ = raw.Control(func(fd uintptr) { // or it is closed
		wanted := make(map[int32]string)
		for _, dir := range dirs {
			if wd, err := unix.InotifyAddWatch(int(fd), dir, watchedEvents|unix.IN_ONLYDIR); err == nil {
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
