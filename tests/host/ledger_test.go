// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// received returns the frames that have come in on a device of the server, as the device counts them.
func received(t testing.TB, l *lab.Lab, dev string) (n uint64) {
	t.Helper()
	l.Server.Do(t, func() error {
		link, err := netlink.LinkByName(dev)
		if err == nil {
			n = link.Attrs().Statistics.RxPackets
		}
		return err
	})
	return n
}

func ledger(t testing.TB, l *lab.Lab) (all []loader.Traffic) {
	t.Helper()
	with(t, l, func(f *loader.Filter) (err error) {
		all, err = f.Ledger()
		return err
	})
	return all
}

func trafficOf(t testing.TB, l *lab.Lab, iface string) loader.Traffic {
	t.Helper()
	for _, of := range ledger(t, l) {
		if of.Interface == iface {
			return of
		}
	}
	t.Fatalf("%s has no page in the ledger", iface)
	return loader.Traffic{}
}

// otherTraffic returns what is of no interface that is filtered, or nil.
func otherTraffic(t testing.TB, l *lab.Lab, of string) *loader.Traffic {
	t.Helper()
	for _, traffic := range ledger(t, l) {
		if traffic.Of == of {
			return &traffic
		}
	}
	return nil
}

// sender puts frames on the client's wire until it is stopped: to a closed port, and to one that may be open.
type sender struct {
	stop func() uint64 // returns how many were sent
}

func sendSteadily(t testing.TB, l *lab.Lab, wire lab.Wire, to frame.MAC) sender {
	t.Helper()
	var frames [2][]byte
	for i, port := range []uint16{7, 9} {
		frames[i] = frame.Build(frame.Ethernet{Dst: to, Src: frame.MAC{2, 0, 0, 0, 0, 9}},
			frame.IPv4{Src: lab.ClientV4, Dst: lab.ServerV4}, frame.UDP{SrcPort: 4000, DstPort: port}, frame.Text("ledger"))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan uint64)
	var failed atomic.Pointer[error]
	go func() {
		sent := uint64(0)
		for ctx.Err() == nil {
			for i := range 32 {
				if err := wire.Send(frames[i%2]); err == nil {
					sent++
				} else if !errors.Is(err, unix.ENOBUFS) {
					failed.Store(&err)
				}
			}
			time.Sleep(time.Millisecond)
		}
		done <- sent
	}()
	return sender{func() uint64 {
		cancel()
		sent := <-done
		if err := failed.Load(); err != nil {
			t.Fatal(*err)
		}
		return sent
	}}
}

func macOf(t testing.TB, h *lab.Host, dev string) (mac frame.MAC) {
	t.Helper()
	h.Do(t, func() error {
		link, err := netlink.LinkByName(dev)
		if err == nil {
			copy(mac[:], link.Attrs().HardwareAddr)
		}
		return err
	})
	return mac
}

// unfiltered returns how many frames the device has received that are not in the ledger, of a moment in which none came.
func unfiltered(t testing.TB, l *lab.Lab) uint64 {
	t.Helper()
	for {
		before := received(t, l, "eth0")
		counted := trafficOf(t, l, "eth0").Received.Packets
		if received(t, l, "eth0") == before {
			return before - counted
		}
	}
}

// mustAddUp compares the ledger with what the device has counted since a moment, when nothing is on its way.
func mustAddUp(t testing.TB, l *lab.Lab, since uint64, after string) {
	t.Helper()
	var of loader.Traffic
	frames := uint64(0)
	for range 20 {
		before := received(t, l, "eth0") - since
		of = trafficOf(t, l, "eth0")
		if frames = received(t, l, "eth0") - since; frames == before && of.Received.Packets == frames {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if of.Received.Packets != frames {
		t.Errorf("%s: the device has received %d frames, and the ledger says %d", after, frames, of.Received.Packets)
	}
	var sum, byRules, rules maps.Tally
	for _, c := range of.Counters {
		sum.Add(c.Tally)
	}
	for _, of := range ledger(t, l) {
		for _, c := range of.Counters {
			if c.Reason == "rule" {
				byRules.Add(c.Tally)
			}
		}
	}
	for _, r := range status(t, l).Rules {
		rules.Add(maps.Tally{Packets: r.Packets, Bytes: r.Bytes})
	}
	if rules != byRules {
		t.Errorf("%s: %v were let in by rules, and the rules say %v", after, byRules, rules)
	}
	both := of.Passed
	both.Add(of.Dropped)
	if sum != of.Received || both != of.Received {
		t.Errorf("%s: received %v, passed and dropped %v, by reason %v", after, of.Received, both, sum)
	}
}

// mustCountMore waits until the ledger has some hundred frames more, so that there is something that may not add up. A busy
// machine takes its time for them, and loses many.
func mustCountMore(t *testing.T, l *lab.Lab, after string) {
	t.Helper()
	const enough = 200
	before := trafficOf(t, l, "eth0").Received.Packets
	more := uint64(0)
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(10 * time.Millisecond) {
		if more = trafficOf(t, l, "eth0").Received.Packets - before; more >= enough {
			return
		}
	}
	t.Fatalf("%s: %d frames more are in the ledger, and %d were waited for", after, more, enough)
}

// In the ledger is each frame that the device has received, once, while policies, maps and modes change under traffic.
func TestTheLedgerAddsUp(t *testing.T) {
	many := &policy.Policy{}
	*many = *policyOf(t, "9/udp")
	for port := range 1500 { // more than there is room for
		many.Open = append(many.Open, rules(t, fmt.Sprintf("%d/tcp", 10_000+2*port))...)
	}
	watching := policyOf(t, "9/udp")
	watching.WatchOnly = true
	apply := func(p *policy.Policy) func(*testing.T, *lab.Lab) {
		return func(t *testing.T, l *lab.Lab) { upWith(t, l, loader.Options{Policy: p, Running: true}) }
	}
	into := func(mode loader.Mode) func(*testing.T, *lab.Lab) {
		return func(t *testing.T, l *lab.Lab) { up(t, l, mode, policyOf(t, "9/udp")) }
	}
	type step struct {
		name string
		do   func(*testing.T, *lab.Lab)
	}
	steps := []step{
		{"a rule more", apply(policyOf(t, "9/udp", "22/tcp"))},
		{"other settings", apply(&policy.Policy{Input: policy.Accept, Open: rules(t, "9/udp")})},
		{"to watch", apply(&policy.Policy{Input: policy.Accept, Open: rules(t, "9/udp"), WatchOnly: true})},
		{"another policy that watches", apply(watching)},
		{"the same, enforced", apply(policyOf(t, "9/udp"))},
		{"and watching again, in one step", apply(watching)},
		{"enforced, with other settings", apply(&policy.Policy{Input: policy.Reject, Open: rules(t, "9/udp")})},
		{"a rule for this interface", apply(policyOf(t, "9/udp", "80/tcp on eth0"))},
		{"more rules than there was room for", apply(many)},
		{"more interfaces than there were pages", func(t *testing.T, l *lab.Lab) {
			for i := range 40 {
				l.Server.IP(t, "link", "add", fmt.Sprintf("d%d", i), "type", "veth", "peer", "name", fmt.Sprintf("e%d", i))
			}
			apply(many)(t, l)
		}},
		{"the same again", apply(many)},
	}
	turns := map[loader.Mode][]step{
		loader.ModeNative:  {{"tc", into(loader.ModeTC)}, {"native", into(loader.ModeNative)}},
		loader.ModeGeneric: {{"tc", into(loader.ModeTC)}, {"generic", into(loader.ModeGeneric)}},
		loader.ModeTC:      {{"native", into(loader.ModeNative)}, {"tc", into(loader.ModeTC)}},
	}
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			l := lab.New(t)
			wire, to := l.Client.Wire(t, "eth0"), macOf(t, l.Server, "eth0")
			up(t, l, mode, policyOf(t, "9/udp"))
			// What came in before it was filtered is not in the ledger.
			since := unfiltered(t, l)
			for _, s := range append(turns[mode], steps...) {
				sending := sendSteadily(t, l, wire, to)
				mustCountMore(t, l, "before "+s.name)
				s.do(t, l)
				mustCountMore(t, l, s.name)
				sending.stop()
				mustAddUp(t, l, since, s.name)
				if gone := otherTraffic(t, l, loader.OfGone); gone != nil {
					t.Errorf("%s: %+v is said to be of interfaces that are gone", s.name, *gone)
				}
			}
		})
	}
}

// What an older version has counted stays in the sum of all.
func TestTheLedgerOverAnUpgrade(t *testing.T) {
	l := lab.New(t)
	wire, to := l.Client.Wire(t, "eth0"), macOf(t, l.Server, "eth0")
	up(t, l, loader.ModeNative, policyOf(t, "9/udp"))
	sending := sendSteadily(t, l, wire, to)
	time.Sleep(50 * time.Millisecond)
	sending.stop()
	time.Sleep(50 * time.Millisecond)
	before := trafficOf(t, l, "eth0")
	becomeOlder(t, l, "v5")
	up(t, l, loader.ModeNative, policyOf(t, "9/udp"))
	if gone := otherTraffic(t, l, loader.OfGone); gone == nil || gone.Received.Packets < before.Received.Packets {
		t.Fatalf("%+v was received before, and now is %+v", before.Received, gone)
	}
	since := unfiltered(t, l)
	sending = sendSteadily(t, l, wire, to)
	time.Sleep(50 * time.Millisecond)
	sending.stop()
	mustAddUp(t, l, since, "the upgrade")
}

// Interfaces that come and go take no pages for ever, and what they received stays in the sum. One that comes back under
// its name goes on counting, also by a program that others run, too.
func TestPagesOfTheLedgerAreUsedAgain(t *testing.T) {
	l := lab.New(t)
	upWith(t, l, loader.Options{Interfaces: []string{"eth0", "c*", "wan0"}, Mode: loader.ModeTC, Policy: policyOf(t, "9/udp"), Wait: true})
	for i := 0; ; i++ {
		var loaded bool
		l.Server.Do(t, func() (err error) {
			loaded, err = loader.Prepare(context.Background(), l.PinPath)
			return err
		})
		if !loaded {
			break
		}
	}
	peer := l.AddHost(t, "peer")
	total := uint64(0)
	// From one device to another.
	once := func(name string, frames int) {
		l.Server.IP(t, "link", "add", name, "type", "veth", "peer", "name", "out", "netns", peer.Name)
		var slow int
		l.Server.Do(t, func() error {
			report, err := loader.Attach(context.Background(), l.PinPath, loader.ModeAuto)
			if err == nil {
				slow = len(report.Slow)
			}
			return err
		})
		if slow > 0 {
			t.Fatalf("%s: there was no program ready", name)
		}
		l.Server.IP(t, "link", "set", name, "up")
		peer.IP(t, "link", "set", "out", "up")
		b := frame.Build(frame.Ethernet{Dst: macOf(t, l.Server, name), Src: frame.MAC{2}},
			frame.IPv4{Src: lab.ClientV4, Dst: lab.ServerV4}, frame.UDP{SrcPort: 4000, DstPort: 7}, frame.Text("ledger"))
		wire := peer.Wire(t, "out")
		for range frames {
			if err := wire.Send(b); err != nil {
				t.Fatal(err)
			}
		}
		deadline := time.Now().Add(3 * time.Second)
		closed := func() (n uint64) {
			for _, c := range trafficOf(t, l, name).Counters {
				if c.Reason == "closed port" {
					n += c.Packets
				}
			}
			return n
		}
		for closed() < uint64(frames) && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		if got := closed(); got%uint64(frames) != 0 || got == 0 {
			t.Errorf("%s: %d frames were sent, and %d are in the ledger", name, frames, got)
		}
		total += uint64(frames)
		l.Server.IP(t, "link", "del", name)
	}
	// Without TCX nothing tells a device that is gone from one that was renamed, where both run one program.
	returns := status(t, l).Interfaces[0].Egress == "tcx"
	if returns {
		once("wan0", 11)
	}
	for i := range 100 { // there are 64 pages
		once(fmt.Sprintf("c%d", i), 3)
	}
	if returns {
		once("wan0", 11)
	}
	if others := otherTraffic(t, l, loader.OfOthers); others != nil {
		t.Errorf("pages were missing: %+v", *others)
	}
	if otherTraffic(t, l, loader.OfGone) == nil {
		t.Error("nothing is said of interfaces that are gone")
	}
	sum := uint64(0)
	for _, of := range ledger(t, l) {
		for _, c := range of.Counters {
			if c.Reason == "closed port" {
				sum += c.Packets
			}
		}
	}
	if sum != total {
		t.Errorf("%d frames were sent to a closed port, and %d are in the ledger", total, sum)
	}
	if returns {
		if got := trafficOf(t, l, "wan0"); got.Dropped.Packets < 22 {
			t.Errorf("wan0 has come back, and counts %+v", got)
		}
	}
	if got := counter(t, l, "closed port"); got != total {
		t.Errorf("the sum of all is %d, and %d were sent", got, total)
	}
}

// The check compares with the device, under traffic, and finds what comes past the program.
func TestCheckOfTheLedger(t *testing.T) {
	check := func(t *testing.T, l *lab.Lab) (c loader.LedgerCheck) {
		with(t, l, func(f *loader.Filter) error {
			checks, err := f.CheckLedger(context.Background(), 300*time.Millisecond)
			if err == nil && len(checks) != 1 {
				err = fmt.Errorf("%d interfaces were checked", len(checks))
			}
			if err == nil {
				c = checks[0]
			}
			return err
		})
		return c
	}
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			l := lab.New(t)
			wire, to := l.Client.Wire(t, "eth0"), macOf(t, l.Server, "eth0")
			up(t, l, mode, policyOf(t, "9/udp"))
			sending := sendSteadily(t, l, wire, to)
			defer sending.stop()
			if c := check(t, l); !c.Agrees || c.Difference != 0 || c.Device < 500 || c.Mode != mode {
				t.Errorf("under traffic it finds %+v", c)
			}
			hookKinds := map[loader.Mode]string{loader.ModeNative: "xdp", loader.ModeGeneric: "xdp_generic", loader.ModeTC: "tcx_in"}
			kind, attach := ebpf.XDP, ebpf.AttachXDP
			if mode == loader.ModeTC {
				kind, attach = ebpf.SchedCLS, ebpf.AttachTCXIngress
			}
			at, err := link.LoadPinnedLink(filepath.Join(l.PinPath, loader.Schema, "links/eth0", hookKinds[mode]), nil)
			if err != nil {
				t.Skipf("there is no link: %v", err) // clsact
			}
			defer at.Close()
			idle, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: kind, AttachType: attach, License: "GPL",
				Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}})
			if err != nil {
				t.Fatal(err)
			}
			defer idle.Close()
			if err := at.Update(idle); err != nil {
				t.Fatal(err)
			}
			if c := check(t, l); c.Agrees || c.Difference < 500 || c.Ledger > c.Device {
				t.Errorf("where another program runs it finds %+v", c)
			}
		})
	}
}

// An interface of the policy that is there and not filtered is no agreement; one that is not there is none of its business.
func TestCheckNamesWhatIsNotFiltered(t *testing.T) {
	l := lab.New(t)
	addLink(t, l.Server, "veth", "name", "e0", "type", "veth", "peer", "name", "p0")
	addLink(t, l.Server, "veth", "name", "e1", "type", "veth", "peer", "name", "p1")
	upOn(t, l, loader.ModeAuto, []string{"eth0", "e0", "e1"})
	l.Server.IP(t, "link", "del", "e0")
	l.Server.IP(t, "link", "del", "e1")
	addLink(t, l.Server, "veth", "name", "e0", "type", "veth", "peer", "name", "p0")
	with(t, l, func(f *loader.Filter) error {
		checks, err := f.CheckLedger(context.Background(), 100*time.Millisecond)
		if err != nil {
			return err
		}
		if len(checks) != 2 || !checks[0].Agrees || checks[0].Unfiltered != "" || checks[1].Interface != "e0" || checks[1].Agrees ||
			checks[1].Unfiltered != "e0 was deleted and re-created, and is not filtered: run \"portcullis up e0\"" {
			t.Errorf("the check finds %+v", checks)
		}
		return nil
	})
}

// Where more interfaces appear than there are pages, they share one, and the sum is right; the next policy makes room.
func TestPagesOfTheLedgerRunOut(t *testing.T) {
	l := lab.New(t)
	upWith(t, l, loader.Options{Interfaces: []string{"eth0", "c*"}, Mode: loader.ModeTC, Policy: policyOf(t, "9/udp"), Wait: true})
	for loaded := true; loaded; {
		l.Server.Do(t, func() (err error) {
			loaded, err = loader.Prepare(context.Background(), l.PinPath)
			return err
		})
	}
	const interfaces, frames = 70, 3 // and 64 pages
	peer := l.AddHost(t, "peer")
	for i := range interfaces {
		l.Server.IP(t, "link", "add", fmt.Sprintf("c%d", i), "type", "veth", "peer", "name", fmt.Sprintf("o%d", i), "netns", peer.Name)
	}
	l.Server.Do(t, func() error {
		_, err := loader.Attach(context.Background(), l.PinPath, loader.ModeAuto)
		return err
	})
	flood := func() {
		for i := range interfaces {
			name, out := fmt.Sprintf("c%d", i), fmt.Sprintf("o%d", i)
			l.Server.IP(t, "link", "set", name, "up")
			peer.IP(t, "link", "set", out, "up")
			b := frame.Build(frame.Ethernet{Dst: macOf(t, l.Server, name), Src: frame.MAC{2}},
				frame.IPv4{Src: lab.ClientV4, Dst: lab.ServerV4}, frame.UDP{SrcPort: 4000, DstPort: 7}, frame.Text("ledger"))
			wire := peer.Wire(t, out)
			for range frames {
				if err := wire.Send(b); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	closed := func(of loader.Traffic) (n uint64) {
		for _, c := range of.Counters {
			if c.Reason == "closed port" {
				n = c.Packets
			}
		}
		return n
	}
	adds := func(want uint64) {
		t.Helper()
		sum := uint64(0)
		for deadline := time.Now().Add(5 * time.Second); sum != want && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			sum = 0
			for _, of := range ledger(t, l) {
				sum += closed(of)
			}
		}
		if sum != want {
			t.Errorf("%d frames were sent, and %d are in the ledger", want, sum)
		}
	}
	flood()
	adds(interfaces * frames)
	others := otherTraffic(t, l, loader.OfOthers)
	if others == nil || closed(*others) == 0 || closed(*others) >= interfaces*frames/2 {
		t.Fatalf("interfaces without a page count %+v", others)
	}
	upWith(t, l, loader.Options{Policy: policyOf(t, "9/udp", "22/tcp"), Running: true, Wait: true})
	adds(interfaces * frames)
	shared := closed(*others)
	flood()
	adds(2 * interfaces * frames)
	if again := otherTraffic(t, l, loader.OfOthers); again == nil || closed(*again) != shared {
		t.Errorf("where there is room, interfaces still share a page: %+v, before %d", again, shared)
	}
}

// What a rule has let in stays in sight when it is closed: rules and reasons add up to what has passed.
func TestClosedRulesAreCounted(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 80)
	l.Server.Echo(t, 81)
	up(t, l, loader.ModeAuto, policyOf(t, "80/tcp", "81/tcp"))
	addsUp := func(after string) (closed uint64) {
		t.Helper()
		s := status(t, l)
		shown, byRules := s.Closed.Packets, uint64(0)
		for _, r := range s.Rules {
			shown += r.Packets
		}
		for _, page := range s.Ledger {
			for _, c := range page.Counters {
				if c.Reason == "rule" {
					byRules += c.Packets
				}
			}
		}
		if shown != byRules {
			t.Errorf("%s: rules have let in %d, and %d are shown", after, byRules, shown)
		}
		return s.Closed.Packets
	}
	live := mustDial(t, l.Client, "tcp", lab.ServerV4, 80)
	mustTalk(t, live, "by a rule")
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 81), "by the other one")
	live.Close()
	time.Sleep(100 * time.Millisecond)
	if n := addsUp("before"); n != 0 {
		t.Errorf("before a rule is closed %d packets are of closed ones", n)
	}
	closeRule(t, l, "80/tcp", false)
	first := addsUp("close")
	if first < 3 {
		t.Errorf("a connection by the closed rule had %d packets", first)
	}
	openRule(t, l, "80/tcp")
	if n := addsUp("open again"); n != first {
		t.Errorf("%d packets are of closed rules, and %d were", n, first)
	}
}
