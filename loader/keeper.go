// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// keeperStart is how long a keeper may take to begin; systemd may be busy.
	keeperStart = 10 * time.Second
	// keeperRetry is after what time a keeper tries again what failed.
	keeperRetry = 5 * time.Second
)

// Keep is the keeper: it does what is due when it is, and ends when nothing is left to do. Of two keepers of one filter
// the second ends at once. Say tells of failures, after which it goes on trying.
func Keep(root, pinPath string, say func(error)) error {
	dir := stateDir(root, pinPath)
	// A keeper that could do nothing must not be taken for one.
	if _, err := readRecord(dir); err != nil {
		return err
	}
	alive, err := openFile(dir, keeperFile)
	if err != nil {
		return err
	}
	defer alive.Close()
	err = unix.FcntlFlock(alive.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) {
		return nil
	}
	if err != nil {
		return err
	}
	alarm, err := newAlarm(dir)
	if err != nil {
		return err
	}
	defer alarm.close()
	for {
		due := After(keeperRetry)
		t, err := TakeTurn(root, pinPath)
		if err == nil && t.Failed == nil {
			var more bool
			if due, more = t.next(); !more {
				// In this order: whoever has its turn next must not take this keeper for one that stays.
				alive.Close()
				t.Release()
				return nil
			}
		}
		if err == nil {
			err = t.Failed
			t.Release()
		}
		if err != nil {
			say(err)
		}
		if err := alarm.wait(due); err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(dir, recordFile)); errors.Is(err, fs.ErrNotExist) {
			return nil // somebody has taken everything away
		}
	}
}

// alarm waits for a time, and for a change of the deadlines.
type alarm struct{ timer, changes int }

func newAlarm(dir string) (_ *alarm, err error) {
	a := &alarm{-1, -1}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if a.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	if a.changes, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	// A record is replaced by a rename. Of a directory's own end nobody hears who has files of it open.
	_, err = unix.InotifyAddWatch(a.changes, dir, unix.IN_MOVED_TO|unix.IN_DELETE|unix.IN_ONLYDIR)
	return a, err
}

func (a *alarm) close() {
	unix.Close(a.timer)
	unix.Close(a.changes)
}

func (a *alarm) wait(until Instant) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(until), 1))} // 0 would be never
	if err := unix.TimerfdSettime(a.timer, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		return fmt.Errorf("set a timer: %w", err)
	}
	fds := []unix.PollFd{{Fd: int32(a.timer), Events: unix.POLLIN}, {Fd: int32(a.changes), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return err
		}
	}
	some := make([]byte, 4096)
	for { // one change is as good as many
		if _, err := unix.Read(a.changes, some); err != nil && err != unix.EINTR {
			return nil
		}
	}
}

// StartKeeper sees to it that a keeper of the filter runs, which outlives this process, its session and its terminal.
// Arguments is the command line of this program that calls Keep. The turn must be held.
func (t *Turn) StartKeeper(arguments ...string) error {
	if t.unlock == nil {
		return fmt.Errorf("keep deadlines in %s: %w", t.dir, os.ErrPermission)
	}
	if running, err := t.keeperRuns(); running || err != nil {
		return err
	}
	var errs []error
	for _, start := range []func([]string) error{startUnit, t.startProcess} {
		err := start(arguments)
		if err == nil {
			err = t.awaitKeeper()
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("start the process that watches the time: %w", errors.Join(errs...))
}

// keeperRuns tells that there is a keeper, which holds its lock as long as it lives. To ask must not take the lock.
func (t *Turn) keeperRuns() (bool, error) {
	f, err := openFile(t.dir, keeperFile)
	if err != nil {
		return false, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock)
	return lock.Type != unix.F_UNLCK, err
}

func (t *Turn) awaitKeeper() error {
	for deadline := time.Now().Add(keeperStart); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if running, err := t.keeperRuns(); running || err != nil {
			return err
		}
	}
	return errors.New("it was started, and does not run: see " + filepath.Join(t.dir, keeperLog))
}

var errNoUnit = errors.New("systemd does not run here")

// startUnit starts the keeper as a service of its own, where no end of a session reaches it.
func startUnit(arguments []string) error {
	if name, err := os.ReadFile("/proc/1/comm"); err != nil || string(name) != "systemd\n" {
		return errNoUnit
	}
	// A service runs in the namespaces of the machine.
	for _, namespace := range []string{"net", "mnt"} {
		own, err := os.Readlink("/proc/self/ns/" + namespace)
		if err != nil {
			return err
		}
		if other, err := os.Readlink("/proc/1/ns/" + namespace); err != nil || own != other {
			return errNoUnit
		}
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	unit := fmt.Sprintf("--unit=portcullis-keeper-%d", os.Getpid())
	cmd := exec.Command("systemd-run", append([]string{"--quiet", "--collect", "--service-type=exec", unit, "--property=Restart=on-failure",
		"--description=Portcullis: revert or close when the time is up", program}, arguments...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// startProcess starts the keeper in a session of its own, without a terminal.
func (t *Turn) startProcess(arguments []string) error {
	log, err := os.OpenFile(filepath.Join(t.dir, keeperLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", arguments...)
	cmd.Args[0] = "portcullis"
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
