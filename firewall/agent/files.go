// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quietTime is how long a file has to be left alone before it is read: editors write in several steps.
const quietTime = 200 * time.Millisecond

// fileWatcher tells when a file may have changed. It watches directories, since editors put a new file in the place of
// the old one.
type fileWatcher struct {
	inotify *fsnotify.Watcher
	names   chan followed
	policy  chan struct{} // the policy file may have changed
	pins    chan struct{} // a command may have changed the filter
}

// followed are the paths of interest, a few each.
type followed struct{ policy, pins []string }

func watchFiles() (*fileWatcher, error) {
	inotify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch the policy file: %w", err)
	}
	w := &fileWatcher{inotify, make(chan followed), make(chan struct{}, 1), make(chan struct{}, 1)}
	go w.run()
	return w, nil
}

func (w *fileWatcher) Close() { w.inotify.Close() }

func (w *fileWatcher) run() {
	var names followed
	quiet := time.NewTimer(0)
	<-quiet.C
	for {
		select {
		case names = <-w.names:
		case event, ok := <-w.inotify.Events:
			if !ok {
				return
			}
			if slices.Contains(names.policy, event.Name) {
				quiet.Reset(quietTime)
			}
			if slices.Contains(names.pins, event.Name) || slices.Contains(names.pins, filepath.Dir(event.Name)) {
				tell(w.pins)
			}
		case _, ok := <-w.inotify.Errors:
			if !ok {
				return
			}
			quiet.Reset(quietTime) // some events were lost
		case <-quiet.C:
			tell(w.policy)
		}
	}
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
	for _, old := range w.inotify.WatchList() {
		if !slices.Contains(dirs, old) {
			_ = w.inotify.Remove(old)
		}
	}
	for _, dir := range dirs {
		_ = w.inotify.Add(dir)
	}
	w.names <- names
}
