// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// sink takes in what the firewall has accepted: one TCP and one UDP socket to which every port leads, with a filter
// that counts and keeps nothing. It stands behind the stack's INPUT, at the same price for every firewall.
type sink struct {
	collection *ebpf.Collection
	sockets    []int
	link       link.Link
}

func newSink(s *stand) (k *sink, err error) {
	spec, err := bpf.LoadBench()
	if err != nil {
		return nil, err
	}
	delete(spec.Programs, bpf.BenchProgBenchSend)
	k = &sink{}
	if k.collection, err = ebpf.NewCollection(spec); err != nil {
		return nil, fmt.Errorf("load the sink: %w", err)
	}
	if err := s.inside.do(k.open); err != nil {
		return nil, errors.Join(fmt.Errorf("open the sink: %w", err), k.close())
	}
	return k, nil
}

func (k *sink) open() error {
	for i, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		k.sockets = append(k.sockets, fd)
		filter := k.collection.Programs[bpf.BenchProgBenchSink]
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, filter.FD()); err != nil {
			return fmt.Errorf("attach the filter: %w", err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
			return err
		}
		if kind == unix.SOCK_STREAM {
			if err := unix.Listen(fd, syscall.SOMAXCONN); err != nil {
				return err
			}
		}
		if err := k.collection.Maps[bpf.BenchMapSinks].Put(uint32(i), uint64(fd)); err != nil {
			return err
		}
	}
	ns, err := namespace()
	if err != nil {
		return err
	}
	defer ns.Close()
	k.link, err = link.AttachNetNs(int(ns.Fd()), k.collection.Programs[bpf.BenchProgBenchCatch])
	return err
}

// catch makes every port lead to the sink, or lets the host answer for itself.
func (k *sink) catch(on bool) error { return k.collection.Variables[bpf.BenchVarCatching].Set(on) }

func (k *sink) received() (n uint64, err error) {
	err = k.collection.Variables[bpf.BenchVarReceived].Get(&n)
	return n, err
}

func (k *sink) close() error {
	var errs []error
	if k.link != nil {
		errs = append(errs, k.link.Close())
	}
	for _, fd := range k.sockets {
		errs = append(errs, unix.Close(fd))
	}
	k.collection.Close()
	return errors.Join(errs...)
}
