// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Alarm waits for a time, and for a change of the schedule.
type Alarm struct{ timer, changes int }

// NewAlarm returns an alarm, which is to be closed, about the schedule in the store.
func (s Store) NewAlarm() (_ *Alarm, err error) {
	a := &Alarm{-1, -1}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	if a.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	if a.changes, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return nil, fmt.Errorf("watch %s: %w", s.dir, err)
	}
	// A record is replaced by a rename. Of a directory's own end nobody hears who has files of it open.
	_, err = unix.InotifyAddWatch(a.changes, s.dir, unix.IN_MOVED_TO|unix.IN_DELETE|unix.IN_ONLYDIR)
	return a, err
}

// Close gives back what the alarm holds.
func (a *Alarm) Close() {
	unix.Close(a.timer)
	unix.Close(a.changes)
}

// Wait returns when the time has come, or the schedule has changed.
func (a *Alarm) Wait(until Instant) error {
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
