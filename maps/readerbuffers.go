// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/perf"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// ReaderBuffers are where the datapath puts packets for a reader: one for each CPU. The kernel lets go of them when the
// reader ends, however it does.
type ReaderBuffers struct {
	buffers *ebpf.Map
	reader  *perf.Reader
	record  perf.Record
}

// OpenBuffers makes the reader's buffers, of so many bytes together and for each CPU at most.
func (r *Reader) OpenBuffers(all, most int) (_ *ReaderBuffers, err error) {
	outer, err := r.state.Map(bpf.FirewallMapReaderBuffers)
	if err != nil {
		return nil, err
	}
	buffers, err := ebpf.NewMap(&ebpf.MapSpec{Name: "reader_buffers", Type: ebpf.PerfEventArray})
	if err != nil {
		return nil, fmt.Errorf("create buffers for packets: %w", err)
	}
	b := &ReaderBuffers{buffers: buffers}
	size := most
	for size*int(buffers.MaxEntries()) > all && size > os.Getpagesize() {
		size /= 2
	}
	// No packet is to wake the reader, which looks from time to time.
	if b.reader, err = perf.NewReaderWithOptions(buffers, size, perf.ReaderOptions{Watermark: size / 2}); err != nil {
		buffers.Close()
		return nil, fmt.Errorf("create buffers for packets: %w", err)
	}
	if err := outer.Put(uint32(r.slot), buffers); err != nil {
		return nil, errors.Join(fmt.Errorf("put buffers for packets in their place: %w", err), b.Close())
	}
	return b, nil
}

// Close ends the reading.
func (b *ReaderBuffers) Close() error { return errors.Join(b.reader.Close(), b.buffers.Close()) }

// Each calls each for the packets that there are, at most so many, and reports whether there may be more.
func (b *ReaderBuffers) Each(most int, each func(*Shown) error) (more bool, err error) {
	b.reader.SetDeadline(time.Unix(1, 0)) // which is over
	for range most {
		err := b.reader.ReadInto(&b.record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read packets: %w", err)
		}
		if len(b.record.RawSample) == 0 {
			continue // the kernel tells of what found no room, which is counted
		}
		shown, err := readShown(b.record.RawSample)
		if err == nil {
			err = each(shown)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}
