// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// live sends XDP live frames (Linux 5.18): BPF_PROG_TEST_RUN makes frames, a program completes and sends each. On a
// veth pair the same CPU then receives them, batch by batch, so the time of a run is that of sending and receiving.
type live struct{}

func (live) name() string      { return "XDP live frames" }
func (live) protocol() uint8   { return unix.IPPROTO_TCP }
func (live) flowPorts() uint32 { return flowPorts }

type liveSender struct {
	room    *room
	program *ebpf.Program
	sent    *ebpf.Variable
	frame   []byte
	context [6]uint32 // struct xdp_md
}

func (g live) prepare(s *stand, t traffic) (sender, error) {
	spec, err := bpf.LoadBench()
	if err != nil {
		return nil, err
	}
	frame := frameOf(s.from.mac, s.to.mac, t.protocol, t.flags)
	ip, transport := sumsOf(frame)
	constants := map[string]any{
		bpf.BenchVarProtocol:     t.protocol,
		bpf.BenchVarFirstSource:  wordOf(firstSource),
		bpf.BenchVarPort:         t.port,
		bpf.BenchVarSparedPort:   uint16(openPort),
		bpf.BenchVarSourcePort:   uint16(oneSource),
		bpf.BenchVarRandomPorts:  t.randomPorts,
		bpf.BenchVarAnywhere:     t.anywhere,
		bpf.BenchVarScattered:    uint32(t.scattered),
		bpf.BenchVarIpSum:        ip,
		bpf.BenchVarTransportSum: transport,
	}
	if t.randomSources {
		constants[bpf.BenchVarSourceMask] = randomSource
	}
	if t.flows > 0 {
		constants[bpf.BenchVarFlows] = uint32(t.flows)
		constants[bpf.BenchVarInOrder] = t.inOrder
		constants[bpf.BenchVarFirstSource] = wordOf(firstRemote)
		constants[bpf.BenchVarSourcePort] = uint16(remotePort)
		constants[bpf.BenchVarFirstFlowPort] = uint16(firstFlowPort)
		constants[bpf.BenchVarFlowPorts] = uint16(g.flowPorts())
	}
	for name, value := range constants {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	for name := range spec.Programs {
		if name != bpf.BenchProgBenchSend {
			delete(spec.Programs, name)
		}
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the generator: %w", err)
	}
	defer collection.Close()
	return &liveSender{
		room:    s.outside,
		program: collection.DetachProgram(bpf.BenchProgBenchSend),
		sent:    collection.Variables[bpf.BenchVarSent],
		frame:   frame,
		context: [6]uint32{1: uint32(len(frame)), 3: uint32(s.from.index)}, // data_end and ingress_ifindex
	}, nil
}

// liveBatch is how many frames are made before they are received. Few, so that the veth's ring of 256 has room for
// the next ones when what receives them is slow and is put off.
const liveBatch = 32

func (l *liveSender) send(frames int) (b burst, err error) {
	var before, after uint64
	if err := l.sent.Get(&before); err != nil {
		return b, err
	}
	var each uint32
	err = l.room.do(func() (err error) {
		each, err = testRun(l.program, l.frame, l.context, frames)
		return err
	})
	switch {
	case errors.Is(err, unix.EINTR):
		return b, miscount{errors.New("the run was interrupted")}
	case errors.Is(err, unix.EINVAL):
		return b, fmt.Errorf("this kernel has no XDP live frames: %w", err)
	case err != nil:
		return b, fmt.Errorf("send XDP live frames: %w", err)
	}
	err = l.sent.Get(&after)
	b.frames = after - before
	// The kernel cuts off what is less than a nanosecond; half of one is the mean of that.
	b.took = time.Duration((float64(each) + 0.5) * float64(b.frames))
	return b, err
}

func (l *liveSender) close() error { return l.program.Close() }

// testRun runs a program on live frames and returns what the kernel says that each took. The library's call leaves that
// out, and time around the call would have 20 ms in it in which the kernel waits for its page pool to go.
func testRun(program *ebpf.Program, frame []byte, context [6]uint32, repeat int) (nanoseconds uint32, err error) {
	var pinner runtime.Pinner
	defer pinner.Unpin()
	pinner.Pin(&frame[0])
	pinner.Pin(&context)
	attr := struct { // union bpf_attr in linux/bpf.h, "test"
		fd, result             uint32
		sizeIn, sizeOut        uint32
		in, out                uint64
		repeat, duration       uint32
		contextIn, contextOut  uint32
		context, contextOutPtr uint64
		flags, cpu, batch, _   uint32
	}{
		fd:        uint32(program.FD()),
		sizeIn:    uint32(len(frame)),
		in:        uint64(uintptr(unsafe.Pointer(&frame[0]))),
		repeat:    uint32(repeat),
		contextIn: uint32(unsafe.Sizeof(context)),
		context:   uint64(uintptr(unsafe.Pointer(&context))),
		flags:     unix.BPF_F_TEST_XDP_LIVE_FRAMES,
		batch:     liveBatch,
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_TEST_RUN, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return 0, errno
	}
	return attr.duration, nil
}
