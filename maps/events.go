// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// Event is a packet that the datapath has logged.
type Event struct {
	Time      time.Duration // since boot
	Interface uint32        // index
	Reason    Reason
	Length    uint32 // bytes of the whole frame
	Ethernet  bool   // the frame begins with an Ethernet header, else with that of IP
	Frame     []byte // its first bytes
}

// The log is a ring that the kernel made for one reader, who says how far he has read. Here each reader keeps his own
// place and copies from the ring, so all of them see every packet. How far the furthest of them has read is what the
// kernel knows: up to there it may write anew, and there the next reader begins.

// Of the ring (kernel/bpf/ringbuf.c).
const (
	recordHeader  = 8       // the length of what follows, with two flags, and a number of the kernel's
	recordBusy    = 1 << 31 // it is being written
	recordDropped = 1 << 30 // it is not to be read
)

// pollTime is how soon a reader looks again: the kernel wakes one when something comes that nobody has read, so who is
// slower than another hears of nothing.
const pollTime = 100 * time.Millisecond

// Events reads the log.
type Events struct {
	fd   int
	size uintptr // of the ring

	mu       sync.Mutex // of the following
	consumed []byte     // a page with how far anybody has read
	ring     []byte     // a page with how far the kernel has written, and the ring, twice in a row
	at       uintptr    // how far this reader has read
}

// Events opens the log where the furthest reader is.
func (s *State) Events() (*Events, error) { return s.openEvents(bpf.FirewallMapEvents) }

// Journal is Events for what is to go into the journal of the host.
func (s *State) Journal() (*Events, error) { return s.openEvents(bpf.FirewallMapJournal) }

func (s *State) openEvents(name string) (_ *Events, err error) {
	m, err := s.Map(name)
	if err != nil {
		return nil, err
	}
	page := os.Getpagesize()
	e := &Events{size: uintptr(m.MaxEntries())}
	if e.fd, err = unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	if e.consumed, err = unix.Mmap(e.fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the memory of the log: %w", err)
	}
	if e.ring, err = unix.Mmap(e.fd, int64(page), page+2*int(e.size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the memory of the log: %w", err)
	}
	e.at = atomic.LoadUintptr(position(e.consumed))
	return e, nil
}

// position returns the number at the beginning of a page.
func position(page []byte) *uintptr { return (*uintptr)(unsafe.Pointer(unsafe.SliceData(page))) }

// Close ends the reading, also that of a Next that waits.
func (e *Events) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fd < 0 {
		return nil
	}
	var errs []error
	for _, memory := range [][]byte{e.consumed, e.ring} {
		if memory != nil {
			errs = append(errs, unix.Munmap(memory))
		}
	}
	errs = append(errs, unix.Close(e.fd))
	e.fd, e.consumed, e.ring = -1, nil, nil
	return errors.Join(errs...)
}

// Next returns the next event. It waits for one until the deadline, which may be zero for ever, and then returns
// os.ErrDeadlineExceeded; after Close it returns os.ErrClosed.
func (e *Events) Next(deadline time.Time) (*Event, error) {
	for {
		record, fd, err := e.take()
		if err != nil {
			return nil, err
		}
		if record != nil {
			return readEvent(record)
		}
		wait := pollTime
		if !deadline.IsZero() {
			if wait = min(wait, time.Until(deadline)); wait <= 0 {
				return nil, os.ErrDeadlineExceeded
			}
		}
		// Closed meanwhile, the number may be another file's: then this is too long a wait, and no more.
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(wait.Milliseconds())+1)
	}
}

// take copies the next record out of the ring, or returns nil where there is none yet.
func (e *Events) take() (record []byte, fd int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fd < 0 {
		return nil, -1, os.ErrClosed
	}
	written, consumed := position(e.ring), position(e.consumed)
	data := e.ring[os.Getpagesize():]
	for {
		if e.at == atomic.LoadUintptr(written) {
			return nil, e.fd, nil
		}
		from := e.at & (e.size - 1)
		header := atomic.LoadUint32((*uint32)(unsafe.Pointer(&data[from])))
		if e.isLost(written) {
			e.at = atomic.LoadUintptr(consumed)
			continue
		}
		if header&recordBusy != 0 {
			return nil, e.fd, nil
		}
		length := uintptr(header &^ (recordBusy | recordDropped))
		if length > e.size {
			return nil, e.fd, fmt.Errorf("read the log: a record of %d bytes", length)
		}
		record := append([]byte(nil), data[from+recordHeader:from+recordHeader+length]...)
		if e.isLost(written) {
			e.at = atomic.LoadUintptr(consumed)
			continue
		}
		e.at += (length + recordHeader + 7) &^ 7
		e.advance(consumed)
		if header&recordDropped == 0 {
			return record, e.fd, nil
		}
	}
}

// isLost reports whether the kernel has written, or may be writing, where this reader is: others have read on for a
// whole ring meanwhile. A record's header is written before the kernel says how far it is.
func (e *Events) isLost(written *uintptr) bool {
	return atomic.LoadUintptr(written)+recordHeader-e.at > e.size
}

// advance tells the kernel and later readers that somebody has read up to here.
func (e *Events) advance(consumed *uintptr) {
	for {
		before := atomic.LoadUintptr(consumed)
		if int64(e.at-before) <= 0 || atomic.CompareAndSwapUintptr(consumed, before, e.at) {
			return
		}
	}
}

func readEvent(b []byte) (*Event, error) {
	var raw bpf.FirewallEvent
	if len(b) < int(unsafe.Sizeof(raw)) {
		return nil, fmt.Errorf("read the log: an event of %d bytes", len(b))
	}
	raw = *(*bpf.FirewallEvent)(unsafe.Pointer(unsafe.SliceData(b)))
	return &Event{
		Time:      time.Duration(raw.Time),
		Interface: raw.Ifindex,
		Reason:    Reason(raw.Reason),
		Length:    raw.Length,
		Ethernet:  raw.Ethernet != 0,
		Frame:     raw.Frame[:min(int(raw.Captured), len(raw.Frame))],
	}, nil
}
