// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// reader is a monitor that runs, and what it has shown.
type reader struct {
	t      testing.TB
	cancel context.CancelFunc
	ended  chan error

	mu     sync.Mutex
	shown  []loader.MonitoredPacket
	missed map[maps.Reason]uint64
	notes  []string
}

// monitor runs a monitor until the test ends, or it is ended.
func monitor(t testing.TB, l *lab.Lab, o loader.MonitorOptions) *reader {
	t.Helper()
	o.Snaplen, o.Rate = cmp.Or(o.Snaplen, 128), cmp.Or(o.Rate, 100)
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{t: t, cancel: cancel, ended: make(chan error, 1), missed: make(map[maps.Reason]uint64)}
	ready := make(chan error, 1)
	go func() {
		r.ended <- l.Server.Try(func() error {
			m, err := loader.OpenMonitor(ctx, l.PinPath, o)
			ready <- err
			if err != nil {
				return err
			}
			defer m.Close()
			return m.Run(ctx, func(told loader.Monitored) error {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.shown = append(r.shown, told.Packets...)
				r.notes = append(r.notes, told.Notes...)
				for reason, n := range told.Missed {
					r.missed[reason] += n
				}
				return nil
			})
		})
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cancel() })
	return r
}

// end ends the monitor, and returns all that it has shown.
func (r *reader) end() []loader.MonitoredPacket {
	r.t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil {
		r.t.Error(err)
	}
	return r.shown
}

// waitFor waits until the monitor has shown so many packets, and returns them.
func (r *reader) waitFor(n int) []loader.MonitoredPacket {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		r.mu.Lock()
		shown := slices.Clone(r.shown)
		r.mu.Unlock()
		if len(shown) >= n {
			return shown
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.Fatalf("%d packets are shown, want %d; not shown were %v; %q", len(r.shown), n, r.missed, r.notes)
	return nil
}

// synTo is a SYN from an address outside to a port of the server, over either family.
func synTo(mac frame.MAC, from netip.Addr, source, port uint16) []byte {
	eth := frame.Ethernet{Dst: mac, Src: frame.MAC{2, 9, 9, 9, 9, 9}}
	tcp := frame.TCP{SrcPort: source, DstPort: port, Flags: frame.SYN}
	if from.Is6() {
		return frame.Build(eth, frame.IPv6{Src: from, Dst: lab.ServerV6}, tcp)
	}
	return frame.Build(eth, frame.IPv4{Src: from, Dst: lab.ServerV4}, tcp)
}

func TestMonitorShowsDrops(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		up(t, l, mode, policyOf(t, "80/tcp"))
		mac := macOf(t, l.Server, "eth0")
		r := monitor(t, l, loader.MonitorOptions{})
		before := time.Now().Add(-time.Second)
		sent := synTo(mac, lab.ClientV4, 7000, 23)
		send(t, l.Client, synTo(mac, lab.ClientV4, 7000, 80), sent)
		p := r.waitFor(1)[0]
		if p.Interface != "eth0" || p.Outbound || p.Reason.String() != "closed port" || p.Length != len(sent) || !p.Ethernet || !bytes.Equal(p.Frame, sent) {
			t.Errorf("shown: %+v\nsent: %x", p, sent)
		}
		if p.Time.Before(before) || p.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("shown at %s, sent at %s", p.Time, before)
		}
		if all := r.end(); len(all) != 1 {
			t.Errorf("%d packets are shown, want the one that was dropped", len(all))
		}
	})
}

// What is asked for is filtered in the kernel; of several readers each is shown what it asked for.
func TestMonitorFilters(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policyOf(t, "80/tcp", "443/tcp"))
	mac := macOf(t, l.Server, "eth0")
	web := rules(t, "80/tcp")[0]
	udp := policy.UDP
	stranger, other6 := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::99")
	frames := [][]byte{
		synTo(mac, lab.ClientV4, 1000, 23), synTo(mac, stranger, 1001, 24), synTo(mac, other6, 1002, 23), synTo(mac, lab.ClientV4, 1003, 80),
		synTo(mac, lab.ClientV4, 1004, 443), xmas(t, l, 1005),
		frame.Build(frame.Ethernet{Dst: mac, Src: frame.MAC{2, 9, 9, 9, 9, 9}}, frame.IPv6{Src: other6, Dst: lab.ServerV6}, frame.Extension{Kind: frame.ProtoHopByHop}, frame.UDP{SrcPort: 1006, DstPort: 5353}),
	}
	cases := []struct {
		name string
		o    loader.MonitorOptions
		want []int // of frames
	}{
		{"all drops", loader.MonitorOptions{}, []int{0, 1, 2, 5, 6}},
		{"and what passes", loader.MonitorOptions{Pass: true}, []int{0, 1, 2, 3, 4, 5, 6}},
		{"a source", loader.MonitorOptions{From: netip.MustParsePrefix("203.0.113.0/24")}, []int{1}},
		{"a source of IPv6", loader.MonitorOptions{From: netip.MustParsePrefix("2001:db8::99/128")}, []int{2, 6}},
		{"another one", loader.MonitorOptions{From: netip.MustParsePrefix("2001:db8::98/128")}, nil},
		{"a destination", loader.MonitorOptions{To: netip.MustParsePrefix("192.0.2.0/31")}, []int{0, 1, 5}},
		{"a port", loader.MonitorOptions{Port: 23}, []int{0, 2}},
		{"a port behind extensions", loader.MonitorOptions{Port: 5353}, []int{6}},
		{"a port of the source", loader.MonitorOptions{Port: 1001}, []int{1}},
		{"a port of the destination", loader.MonitorOptions{ToPort: 23}, []int{0, 2}},
		{"a port of the source as that of the destination", loader.MonitorOptions{ToPort: 1001}, nil},
		{"both ports", loader.MonitorOptions{Port: 1002, ToPort: 23}, []int{2}},
		{"a port of another protocol", loader.MonitorOptions{Port: 23, Protocol: &udp}, nil},
		{"a protocol", loader.MonitorOptions{Protocol: &udp}, []int{6}},
		{"a reason", loader.MonitorOptions{Reasons: reasonsNamed(t, "invalid")}, []int{5}},
		{"a rule", loader.MonitorOptions{Rule: &web}, []int{3}},
		{"an interface", loader.MonitorOptions{Interfaces: []string{"eth0"}}, []int{0, 1, 2, 5, 6}},
	}
	for cases := range slices.Chunk(cases, maps.MaxReaders) { // all that can, at once
		readers := make([]*reader, len(cases))
		for i, c := range cases {
			readers[i] = monitor(t, l, c.o)
		}
		send(t, l.Client, frames...)
		time.Sleep(200 * time.Millisecond)
		for i, c := range cases {
			var got []int
			for _, p := range readers[i].end() {
				at := slices.IndexFunc(frames, func(f []byte) bool { return bytes.HasPrefix(f, p.Frame) })
				if at >= 0 { // the hosts talk, too
					got = append(got, at)
				}
				if p.Reason.IsRule() && p.Rule == "" {
					t.Errorf("%s: no rule is named that let %x in", c.name, p.Frame)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: shown are %v, want %v", c.name, got, c.want)
			}
		}
	}
}

// One more than can look is told so, and there is room again when another has gone, or was killed and is forgotten.
func TestMonitorHasRoomForSome(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policyOf(t, "80/tcp"))
	var readers []*reader
	for range maps.MaxReaders {
		readers = append(readers, monitor(t, l, loader.MonitorOptions{}))
	}
	open := func() error {
		return l.Server.Try(func() error {
			m, err := loader.OpenMonitor(context.Background(), l.PinPath, loader.MonitorOptions{Snaplen: 128, Rate: 100})
			if err == nil {
				m.Close()
			}
			return err
		})
	}
	if err := open(); !errors.Is(err, maps.ErrReadersFull) {
		t.Errorf("one more than can look: %v", err)
	}
	readers[3].end()
	if err := open(); err != nil {
		t.Errorf("after one has gone: %v", err)
	}
}

// reasonsNamed returns the reasons to drop a packet that have one of the names.
func reasonsNamed(t testing.TB, names ...string) (out []maps.Reason) {
	t.Helper()
	for _, r := range maps.Reasons() {
		if r.Verdict() == maps.Drop && slices.Contains(names, r.String()) {
			out = append(out, r)
		}
	}
	if len(out) != len(names) {
		t.Fatalf("of %q there are %v", names, out)
	}
	return out
}

// A reader goes on over a change of policy, without a packet less, and after a down and up, and says so.
func TestMonitorFollowsTheFilter(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		up(t, l, mode, policyOf(t, "80/tcp"))
		mac := macOf(t, l.Server, "eth0")
		all := rules(t, "443/tcp")[0]
		r := monitor(t, l, loader.MonitorOptions{From: netip.PrefixFrom(netip.MustParseAddr("203.0.113.9"), 32), Rate: 1000})
		sent, stop, done := 0, make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			wire := l.Client.Wire(t, "eth0")
			for ; ; sent++ {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
					if err := wire.Send(synTo(mac, netip.MustParseAddr("203.0.113.9"), uint16(sent), 23)); err != nil {
						t.Error(err)
					}
				}
			}
		}()
		for _, rule := range []string{"81/tcp", "82/tcp", "83/tcp"} {
			p := policyOf(t, "80/tcp", rule)
			p.Invalid = policy.InvalidDrop // new programs
			up(t, l, mode, p)
			up(t, l, mode, policyOf(t, "80/tcp", rule))
		}
		close(stop)
		<-done
		r.waitFor(sent)

		of := monitor(t, l, loader.MonitorOptions{Pass: true, Port: 443})
		openRule(t, l, all.String())
		time.Sleep(1200 * time.Millisecond)
		send(t, l.Client, synTo(mac, lab.ClientV4, 9, 443))
		if p := of.waitFor(1)[0]; p.Rule != "443/tcp" {
			t.Errorf("let in by %q", p.Rule)
		}

		down(t, l)
		time.Sleep(300 * time.Millisecond)
		up(t, l, mode, policyOf(t, "80/tcp"))
		time.Sleep(500 * time.Millisecond)
		send(t, l.Client, synTo(mac, netip.MustParseAddr("203.0.113.9"), 65535, 25))
		r.waitFor(sent + 1)
		if got := r.end(); len(got) != sent+1 {
			t.Errorf("%d are shown of %d", len(got), sent+1)
		}
		if len(r.notes) != 2 {
			t.Errorf("it says %q, want that the filter was taken down, and that it is shown again", r.notes)
		}
	})
}

// Of a reader that is killed nothing is left: the datapath ends showing by itself, and the next one has its slot.
func TestKilledReaderLeavesNothing(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policyOf(t, "80/tcp"))
	program := lab.Program(t)
	var killed []*exec.Cmd
	for range maps.MaxReaders {
		cmd := l.Server.Command(program, "--pin-path", l.PinPath, "monitor")
		said, err := cmd.StderrPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(said).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		killed = append(killed, cmd)
	}
	for _, cmd := range killed {
		cmd.Process.Kill()
		cmd.Wait()
	}
	send(t, l.Client, synTo(macOf(t, l.Server, "eth0"), lab.ClientV4, 7000, 23)) // is dropped as ever
	time.Sleep(11 * time.Second)                                                 // the lease
	with(t, l, func(f *loader.Filter) error { _, _, err := f.Sweep(); return err })
	r := monitor(t, l, loader.MonitorOptions{})
	send(t, l.Client, synTo(macOf(t, l.Server, "eth0"), lab.ClientV4, 7000, 23))
	r.waitFor(1)
}

// What the policy logs comes to whoever keeps the journal, with the kinds of invalid packets under their own names.
func TestJournalHasWhatThePolicyLogs(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		p, err := policy.Parse("p", []byte("interfaces: [eth0]\nopen: [80/tcp]\nlog: [closed port, invalid flags]\n"))
		if err != nil {
			t.Fatal(err)
		}
		up(t, l, mode, p)
		mac := macOf(t, l.Server, "eth0")
		got := make(chan loader.LoggedPacket, 16)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go l.Server.Try(func() error {
			f, err := loader.Open(context.Background(), l.PinPath)
			if err != nil {
				return err
			}
			defer f.Close()
			return f.Journal(ctx, func(p loader.LoggedPacket) error { got <- p; return nil })
		})
		send(t, l.Client, synTo(mac, lab.ClientV4, 1, 80), synTo(mac, lab.ClientV4, 2, 23), xmas(t, l, 3))
		want := []string{"closed port", "invalid flags"}
		for _, reason := range want {
			select {
			case p := <-got:
				if p.Reason != reason || p.Interface != "eth0" {
					t.Errorf("%+v, want %s", p, reason)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("nothing comes of %s", reason)
			}
		}
		if len(logged(t, l)) != 1 { // as ever
			t.Error("the log lacks the invalid packet")
		}
		select {
		case p := <-got:
			t.Errorf("%+v comes, too", p)
		case <-time.After(200 * time.Millisecond):
		}
	})
}
