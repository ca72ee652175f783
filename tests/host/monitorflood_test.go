// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bufio"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// flood sends SYNs from random sources to a closed port of the server, as fast as it can: the benchmark's generator.
type flood struct {
	lab     *lab.Lab
	program *ebpf.Program
	frame   []byte
	index   int
}

func newFlood(t testing.TB, l *lab.Lab, port uint16) *flood {
	t.Helper()
	spec, err := bpf.LoadBench()
	if err != nil {
		t.Fatal(err)
	}
	frame := synTo(macOf(t, l.Server, "eth0"), lab.ClientV4, 40000, port)
	ipSum, transportSum := sumsBut(frame)
	for name, value := range map[string]any{
		bpf.BenchVarIpSum: ipSum, bpf.BenchVarTransportSum: transportSum, bpf.BenchVarProtocol: uint8(unix.IPPROTO_TCP), bpf.BenchVarPort: port, bpf.BenchVarSourcePort: uint16(40000),
		bpf.BenchVarFirstSource: uint32(16 << 24), bpf.BenchVarSourceMask: uint32(1<<28 - 1),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			t.Fatal(err)
		}
	}
	for name := range spec.Programs {
		if name != bpf.BenchProgBenchSend {
			delete(spec.Programs, name)
		}
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(collection.Close)
	f := &flood{lab: l, program: collection.Programs[bpf.BenchProgBenchSend], frame: frame}
	l.Client.Do(t, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err == nil {
			f.index = eth0.Index
		}
		return err
	})
	// Where the filter is not native XDP, a veth takes such frames only for the sake of GRO.
	l.Server.Run(t, "ethtool", "-K", "eth0", "gro", "on")
	return f
}

// sumsBut returns the sums of a frame's words for the checksums of IP and TCP, but for the source and the ports, which change.
func sumsBut(f []byte) (ip, transport uint32) {
	words := func(b []byte) (sum uint32) {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		return sum
	}
	const header, source, segment, checksum = 14, 26, 34, 50
	ip = words(f[header:header+10]) + words(f[source+4:segment])
	transport = words(f[source+4:segment]) + words(f[segment+4:checksum]) + words(f[checksum+2:])
	return ip, transport + unix.IPPROTO_TCP + uint32(len(f)-segment)
}

// send sends so many frames, and returns how long it took.
func (f *flood) send(t testing.TB, frames int) time.Duration {
	t.Helper()
	var took time.Duration
	f.lab.Client.Do(t, func() error {
		context := make([]byte, 24) // struct xdp_md
		binary.NativeEndian.PutUint32(context[4:], uint32(len(f.frame)))
		binary.NativeEndian.PutUint32(context[12:], uint32(f.index))
		start := time.Now()
		_, err := f.program.Run(&ebpf.RunOptions{Data: f.frame, Context: context, Repeat: uint32(frames),
			Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, BatchSize: 32})
		took = time.Since(start)
		return err
	})
	return took
}

// floodFrames is how many packets a test sends: PORTCULLIS_FLOOD, or a part of the ten million of docs/monitor.md.
func floodFrames(t testing.TB) int {
	n, err := strconv.Atoi(os.Getenv("PORTCULLIS_FLOOD"))
	if err != nil {
		n = 300_000
	}
	if lab.Emulated() {
		n = min(n, 20_000)
	}
	return n
}

// One packet among all those of a flood is shown to whoever asks for it, and of the flood each is shown or counted.
func TestMonitorFindsOneInAFlood(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		up(t, l, mode, policyOf(t, "80/tcp"))
		f := newFlood(t, l, 23)
		rare := netip.MustParseAddr("203.0.113.9")
		all := monitor(t, l, loader.MonitorOptions{Reasons: reasonsNamed(t, "closed port")})
		seeking := []*reader{
			monitor(t, l, loader.MonitorOptions{From: netip.PrefixFrom(rare, 32)}),
			monitor(t, l, loader.MonitorOptions{Port: 24}),
			monitor(t, l, loader.MonitorOptions{From: netip.MustParsePrefix("203.0.113.0/24"), Interfaces: []string{"eth0"}, Pass: true}),
		}
		before := counter(t, l, "closed port")
		frames := floodFrames(t)
		f.send(t, frames/2)
		one := synTo(macOf(t, l.Server, "eth0"), rare, 7, 24)
		send(t, l.Client, one)
		f.send(t, frames/2)
		for i, r := range seeking {
			p := r.waitFor(1)
			if got := r.end(); len(got) != 1 || p[0].Reason.String() != "closed port" {
				t.Errorf("reader %d is shown %d packets, first %+v, want the one", i, len(got), p[0])
			}
		}
		shown := len(all.end())
		dropped, missed := counter(t, l, "closed port")-before, all.missed[reasonsNamed(t, "closed port")[0]]
		if dropped < uint64(frames)/2 || uint64(shown)+missed != dropped {
			t.Errorf("of %d that were sent %d were dropped, of which %d are shown and %d counted as not shown", frames, dropped, shown, missed)
		}
		t.Logf("%d sent, %d dropped, %d shown, %d not shown", frames, dropped, shown, missed)
	})
}

// Who looks without a filter costs a flood little: it is dropped nearly as fast.
func TestMonitorCostsLittle(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policyOf(t, "80/tcp"))
	f := newFlood(t, l, 23)
	frames, rounds := floodFrames(t), 9
	f.send(t, frames)
	var without, with []time.Duration
	for range rounds {
		without = append(without, f.send(t, frames))
		r := monitor(t, l, loader.MonitorOptions{})
		with = append(with, f.send(t, frames))
		r.end()
	}
	slices.Sort(without)
	slices.Sort(with)
	ratio := float64(without[rounds/2]) / float64(with[rounds/2])
	t.Logf("a packet takes %v, and with a reader %v: x%.3f of the rate", without[rounds/2]/time.Duration(frames), with[rounds/2]/time.Duration(frames), ratio)
	if ratio < 0.5 && !lab.Emulated() { // the figure is in docs/monitor.md; here the machine may be busy
		t.Errorf("x%.2f of the rate is left", ratio)
	}
}

// A flood of one reason hides no packet of another.
func TestMonitorBudgetsByReason(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policyOf(t, "80/tcp"))
	f := newFlood(t, l, 23)
	r := monitor(t, l, loader.MonitorOptions{Rate: 10})
	f.send(t, floodFrames(t)/10)
	send(t, l.Client, xmas(t, l, 7000))
	time.Sleep(200 * time.Millisecond)
	counts := make(map[maps.Reason]int)
	for _, p := range r.end() {
		counts[p.Reason]++
	}
	invalid, closed := reasonsNamed(t, "invalid")[0], reasonsNamed(t, "closed port")[0]
	if counts[invalid] != 1 || counts[closed] == 0 {
		t.Errorf("shown are %v, want the one that is invalid, too", counts)
	}
}

// Where nobody reads what is written, the first signal ends the monitor all the same, and it says what the pipe has.
func TestMonitorThatNobodyReads(t *testing.T) {
	program := lab.Program(t)
	l := lab.New(t)
	up(t, l, loader.ModeNative, policyOf(t, "80/tcp"))
	f := newFlood(t, l, 23)
	for _, args := range [][]string{{"--write", "-"}, {"--rate", "10000"}, {"--rate", "10000", "-o", "json"}} {
		cmd := l.Server.Command(program, append([]string{"monitor"}, args...)...)
		cmd.Env = append(os.Environ(), "PORTCULLIS_PIN_PATH="+l.PinPath)
		unread, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer unread.Close()
		said, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(said)
		for lines.Scan() && !strings.Contains(lines.Text(), "packets are shown") {
		}
		f.send(t, 20_000)
		time.Sleep(300 * time.Millisecond)
		_ = cmd.Process.Signal(unix.SIGTERM)
		killed := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		var told []string
		for lines.Scan() {
			told = append(told, lines.Text())
		}
		if killed.Stop(); cmd.Wait() == nil || !strings.Contains(strings.Join(told, "\n"), "whoever reads what is written has stopped reading") {
			t.Errorf("monitor %q says %q", args, told)
		}
	}
}
