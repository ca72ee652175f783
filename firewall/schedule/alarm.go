// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Alarm waits for a time, and for a change of the schedule.
type Alarm struct{ timer, changes, canceled int }

// NewAlarm returns an alarm, which is to be closed, about the schedule in the store.
func (s Store) NewAlarm() (_ *Alarm, err error) {
	a := &Alarm{-1, -1, -1}
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
	if a.canceled, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make an event: %w", err)
	}
	// A record is replaced by a rename. Of a directory's own end nobody hears who has files of it open.
	_, err = unix.InotifyAddWatch(a.changes, s.dir, unix.IN_MOVED_TO|unix.IN_DELETE|unix.IN_ONLYDIR)
	return a, err
}

// Close gives back what the alarm holds.
func (a *Alarm) Close() {
	unix.Close(a.timer)
	unix.Close(a.changes)
	unix.Close(a.canceled)
}

// Wait returns when the time has come, or the schedule has changed, or with the error of ctx when that ends.
func (a *Alarm) Wait(ctx context.Context, until Instant) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(until), 1))} // 0 would be never
	if err := unix.TimerfdSettime(a.timer, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		return fmt.Errorf("set a timer: %w", err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(a.canceled, binary.NativeEndian.AppendUint64(nil, 1)) // which has room for so few
	})
	defer func() {
		if !stop() {
			<-woken // the alarm may be closed next, or wait again
			_, _ = unix.Read(a.canceled, make([]byte, 8))
		}
	}()
	fds := []unix.PollFd{{Fd: int32(a.canceled), Events: unix.POLLIN}, {Fd: int32(a.timer), Events: unix.POLLIN}, {Fd: int32(a.changes), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	some := make([]byte, 4096)
	for { // one change is as good as many
		if _, err := unix.Read(a.changes, some); err != nil && err != unix.EINTR {
			return nil
		}
	}
}
