// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// startTime is how long a watchdog may take to begin; systemd may be busy.
const startTime = 10 * time.Second

// Claim makes this process the watchdog of the store's filter until alive is closed. It returns nil where another
// process is that already.
func (s Store) Claim() (alive *os.File, err error) {
	alive, err = s.openAlive()
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(alive.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if err == nil {
		return alive, nil
	}
	alive.Close()
	if errors.Is(err, unix.EAGAIN) {
		return nil, nil
	}
	return nil, err
}

// Exists reports whether there still is a record of the schedule.
func (s Store) Exists() bool {
	_, err := os.Stat(s.Path(recordFile))
	return !errors.Is(err, fs.ErrNotExist)
}

func (s Store) openAlive() (*os.File, error) {
	if err := PrivateDir(s.dir); err != nil {
		return nil, err
	}
	return os.OpenFile(s.Path(aliveFile), os.O_RDWR|os.O_CREATE, 0o600)
}

// StartWatchdog sees to it that a watchdog of the filter runs, which outlives this process, its session and its
// terminal. Arguments is the command line of this program that is the watchdog. The store must be locked: the watchdog
// acts when it has the lock, and so finds what there is when this process has ended, or died.
func (s Store) StartWatchdog(ctx context.Context, arguments ...string) error {
	if running, err := s.watchdogRuns(); running || err != nil {
		return err
	}
	var errs []error
	for _, start := range []func(context.Context, []string) error{startUnit, s.startProcess} {
		err := start(ctx, arguments)
		if err == nil {
			err = s.awaitWatchdog(ctx)
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("start the watchdog: %w", errors.Join(errs...))
}

// watchdogRuns reports whether there is a watchdog, which holds its lock as long as it lives. To ask must not take the
// lock.
func (s Store) watchdogRuns() (bool, error) {
	f, err := s.openAlive()
	if err != nil {
		return false, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock)
	return lock.Type != unix.F_UNLCK, err
}

func (s Store) awaitWatchdog(ctx context.Context) error {
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if running, err := s.watchdogRuns(); running || err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.New("it was started, and does not run: see " + s.Path(watchdogLog))
}

var errNoUnit = errors.New("systemd does not run here")

// startUnit starts the watchdog as a service of its own, where no end of a session reaches it.
func startUnit(ctx context.Context, arguments []string) error {
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
	unit := fmt.Sprintf("--unit=portcullis-watchdog-%d", os.Getpid())
	return runUnit(ctx, append([]string{"--quiet", "--collect", "--service-type=exec", unit, "--property=Restart=on-failure",
		"--description=Portcullis: revert or close when the time is up", program}, arguments...))
}

// runUnit runs systemd-run, for as long as a watchdog may take to begin.
func runUnit(ctx context.Context, arguments []string) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemd-run", arguments...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("systemd-run: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// startProcess starts the watchdog in a session of its own, without a terminal.
func (s Store) startProcess(_ context.Context, arguments []string) error {
	log, err := os.OpenFile(s.Path(watchdogLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
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
