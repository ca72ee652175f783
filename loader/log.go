// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/maps"
)

// LoggedPacket is a packet that the filter has logged.
type LoggedPacket struct {
	Time      time.Time
	Interface string // its name, or its index when it is gone
	Reason    string // "invalid flags"
	WouldDrop bool   // for that, but the filter only watched
	Length    int    // bytes of the whole frame
	Ethernet  bool   // the frame begins with an Ethernet header, else with that of IP
	Frame     []byte // its first bytes
}

// Log calls each for every packet that was logged since somebody last read the log; with follow it goes on with what
// is logged from now on, until ctx ends or each fails.
func (f *Filter) Log(ctx context.Context, follow bool, each func(LoggedPacket) error) error {
	events, err := f.set.Events()
	if err != nil {
		return err
	}
	return readLog(ctx, events, follow, each)
}

// Journal calls each for every packet that is to go into the journal of the host and that nobody was told of, until ctx ends,
// each fails or the filter is taken down.
func (f *Filter) Journal(ctx context.Context, each func(LoggedPacket) error) error {
	events, err := f.set.Journal()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stated := inode(f.pins.Maps())
	go func() {
		gone := time.NewTicker(time.Second)
		defer gone.Stop()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-gone.C:
				if inode(f.pins.Maps()) != stated {
					cancel()
				}
			}
		}
	}()
	return readLog(ctx, events, true, each)
}

func readLog(ctx context.Context, events *maps.Events, follow bool, each func(LoggedPacket) error) error {
	defer events.Close()
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()
	var deadline time.Time
	if !follow {
		deadline = time.Now()
	}
	for {
		e, err := events.Next(deadline)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(logged(e)); err != nil {
			return err
		}
	}
}

func logged(e *maps.Event) LoggedPacket {
	name := strconv.Itoa(int(e.Interface))
	if i, err := net.InterfaceByIndex(int(e.Interface)); err == nil {
		name = i.Name
	}
	return LoggedPacket{
		Time:      time.Now().Add(e.Time - sinceBoot()),
		Interface: name,
		Reason:    e.Reason.String(),
		WouldDrop: e.Reason.IsWatched(),
		Length:    int(e.Length),
		Ethernet:  e.Ethernet,
		Frame:     e.Frame,
	}
}

func sinceBoot() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0 // it cannot fail: every kernel that runs the filter has this clock
	}
	return time.Duration(now.Nano())
}
