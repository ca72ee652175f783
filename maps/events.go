// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

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

// Events reads the log. An event is read once.
type Events struct{ reader *ringbuf.Reader }

// Events returns a reader of the log.
func (s *State) Events() (*Events, error) {
	m, err := s.Map(bpf.FirewallMapEvents)
	if err != nil {
		return nil, err
	}
	reader, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return &Events{reader}, nil
}

// Close closes the reader and ends a Next that waits.
func (e *Events) Close() error { return e.reader.Close() }

// Next returns the next event. It waits for one until the deadline, which may be zero for ever, and then returns
// os.ErrDeadlineExceeded; after Close it returns os.ErrClosed.
func (e *Events) Next(deadline time.Time) (*Event, error) {
	e.reader.SetDeadline(deadline)
	record, err := e.reader.Read()
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return readEvent(record.RawSample)
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
