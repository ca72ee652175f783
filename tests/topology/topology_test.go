// SPDX-License-Identifier: Apache-2.0

// Package topology sends frames to every MAC address that there is on hosts of every shape: bridges, bonds, VLANs,
// macvlans. What reaches a socket of the host, or of the guest behind it, has to be the same under netfilter and under
// Portcullis in every mode, but for what docs/netfilter-differences.md says.
package topology

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// The ports on which sockets wait, in the host and in the guest: one that the policy opens, and one that it does not.
const (
	openPort   = 7000
	closedPort = 9999
)

const filterPolicy = "interfaces: [eth0]\nopen: [7000/udp]\n"

// netfilterRules say the same, for whatever the packet came in by.
const netfilterRules = `table inet filter {
	chain input {
	type filter hook input priority 0; policy drop;
	iifname lo accept
	ct state established,related accept
	udp dport 7000 accept
	iifname eth0 udp dport 4789 accept
	meta l4proto { icmp, ipv6-icmp } accept
	}
}`

// MACs of what there is on a stage.
var (
	eth0MAC   = frame.MAC{2, 0, 0, 0, 0, 0x01}
	eth1MAC   = frame.MAC{2, 0, 0, 0, 0, 0x11}
	clientMAC = frame.MAC{2, 0, 0, 0, 0, 0x02}
	bridgeMAC = frame.MAC{2, 0, 0, 0, 0, 0xbb}
	childMAC  = frame.MAC{2, 0, 0, 0, 0, 0xcc}
	guestMAC  = frame.MAC{2, 0, 0, 0, 0, 0xdd}
	nobodyMAC = frame.MAC{2, 0, 0, 0, 0, 0xee}
)

// network is a pair of prefixes in which the host has ::1, the client ::2 and the guest ::3.
type network struct{ v4, v6 string }

var (
	link  = network{"192.0.2.", "2001:db8::"}     // of eth0, as the lab makes it
	onTop = network{"203.0.113.", "2001:db8:a::"} // of what stands on eth0
)

func (n network) addr(six bool, host int) netip.Addr {
	if six {
		return netip.MustParseAddr(n.v6 + strconv.Itoa(host))
	}
	return netip.MustParseAddr(n.v4 + strconv.Itoa(host))
}

// Numbers of hosts in a network.
const (
	theHost   = 1
	theClient = 2
	theGuest  = 3
)

// probe is a frame that the client sends, once for each port and family.
type probe struct {
	name    string
	tags    []frame.Layer // between the MACs and the IP header
	mac     frame.MAC
	network network
	to      int      // which host of the network
	wire    string   // "": eth0
	around  envelope // nil: none
	differs *difference
}

// envelope puts a frame into another one.
type envelope func(inner []byte) []byte

// difference is a row of docs/netfilter-differences.md.
type difference struct {
	row             string
	netfilter, ours string // who gets what comes to the closed port, or the open one, as received says
}

// shape is a topology: what is made of the host beside the client, and what is sent to it.
type shape struct {
	name   string
	on     string // the interface that is filtered; "": eth0
	native bool   // it has native XDP
	make   func(t *testing.T, s *stage)
	probes []probe
}

// stage is a host with a shape, a client and a guest.
type stage struct {
	*lab.Lab
	guest *lab.Host
	wires map[string]lab.Wire // of the client

	mu       sync.Mutex
	received map[string][]string // by payload: who got it
}

func newStage(t *testing.T) *stage {
	t.Helper()
	lab.NeedsVeth(t, "stacks devices")
	s := &stage{Lab: lab.New(t), wires: make(map[string]lab.Wire), received: make(map[string][]string)}
	s.guest = s.AddHost(t, "guest")
	s.Server.IP(t, "link", "set", "eth0", "address", net.HardwareAddr(eth0MAC[:]).String())
	s.Client.IP(t, "link", "set", "eth0", "address", net.HardwareAddr(clientMAC[:]).String())
	for _, h := range []*lab.Host{s.Server, s.guest} {
		for _, key := range []string{"all", "default", "eth0"} {
			if h == s.guest && key == "eth0" {
				continue
			}
			h.Sysctl(t, "ipv4/conf/"+key+"/rp_filter", "0")
		}
	}
	s.wires["eth0"] = s.Client.Wire(t, "eth0")
	return s
}

// server runs ip on the host, a command a line.
func (s *stage) server(t *testing.T, format string, args ...any) {
	commands(t, s.Server, format, args...)
}

func commands(t *testing.T, h *lab.Host, format string, args ...any) {
	t.Helper()
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if out, err := h.Command("ip", words...).CombinedOutput(); err != nil {
			if text := string(out); strings.Contains(text, "Unknown device type") || strings.Contains(text, "Operation not supported") {
				t.Skipf("this kernel has no such device: ip %s: %s", strings.TrimSpace(line), text)
			}
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
}

// address gives a device of a host the addresses of one in a network.
func address(t *testing.T, h *lab.Host, dev string, n network, host int) {
	t.Helper()
	commands(t, h, "link set %s up\naddr add %s/24 dev %s\naddr add %s/64 dev %s nodad",
		dev, n.addr(false, host), dev, n.addr(true, host), dev)
}

// second makes another wire between host and client.
func (s *stage) second(t *testing.T) {
	t.Helper()
	s.server(t, "link add eth1 address %s type veth peer name eth1 netns %s\nlink set eth1 up", net.HardwareAddr(eth1MAC[:]), s.Client.Name)
	s.Client.IP(t, "link", "set", "eth1", "up")
	s.wires["eth1"] = s.Client.Wire(t, "eth1")
}

// listen opens the sockets of a host.
func (s *stage) listen(t *testing.T, h *lab.Host, who string) {
	t.Helper()
	for _, port := range []int{openPort, closedPort} {
		h.Do(t, func() error {
			c, err := net.ListenPacket("udp", fmt.Sprintf("[::]:%d", port))
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			go func() {
				b := make([]byte, 256)
				for {
					n, _, err := c.ReadFrom(b)
					if err != nil {
						return
					}
					s.mu.Lock()
					if got := s.received[string(b[:n])]; !slices.Contains(got, who) {
						s.received[string(b[:n])] = append(got, who)
					}
					s.mu.Unlock()
				}
			}()
			return nil
		})
	}
}

func (s *stage) who(payload string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := slices.Clone(s.received[payload])
	slices.Sort(got)
	if got == nil {
		return "nobody"
	}
	return strings.Join(got, " and ")
}

// frame builds what the client sends for a probe.
func (p *probe) frame(six bool, port uint16, payload string) []byte {
	src, dst := p.network.addr(six, theClient), p.network.addr(six, p.to)
	layers := append([]frame.Layer{frame.Ethernet{Dst: p.mac, Src: clientMAC}}, p.tags...)
	if six {
		layers = append(layers, frame.IPv6{Src: src, Dst: dst})
	} else {
		layers = append(layers, frame.IPv4{Src: src, Dst: dst})
	}
	b := frame.Build(append(layers, frame.UDP{SrcPort: 5000, DstPort: port}, frame.Text(payload))...)
	if p.around != nil {
		return p.around(b)
	}
	return b
}

// shot is one frame of a probe.
type shot struct {
	probe *probe
	six   bool
	port  uint16
}

func (s shot) String() string {
	return fmt.Sprintf("%s, %s, %s port", s.probe.name, map[bool]string{false: "IPv4", true: "IPv6"}[s.six],
		map[uint16]string{openPort: "open", closedPort: "closed"}[s.port])
}

func shots(probes []probe) (out []shot) {
	for i := range probes {
		for _, six := range []bool{false, true} {
			for _, port := range []uint16{openPort, closedPort} {
				out = append(out, shot{&probes[i], six, port})
			}
		}
	}
	return out
}

// grace is how long a frame may take from the wire to a socket.
const grace = 400 * time.Millisecond

var round int

// play sends the frames, each twice, as the first makes the host look for a MAC, and says who got which. What nobody got
// is sent again: the machine may be busy.
func (s *stage) play(t *testing.T, shots []shot) []string {
	t.Helper()
	round++
	verdicts := make([]string, len(shots))
	for attempt := range 2 {
		for i, shot := range shots {
			if attempt > 0 && verdicts[i] != "nobody" {
				continue
			}
			wire := s.wires["eth0"]
			if shot.probe.wire != "" {
				wire = s.wires[shot.probe.wire]
			}
			for range 2 {
				if err := wire.Send(shot.probe.frame(shot.six, shot.port, fmt.Sprintf("%d-%d", round, i))); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(grace)
		for i := range shots {
			verdicts[i] = s.who(fmt.Sprintf("%d-%d", round, i))
		}
	}
	return verdicts
}

// filter puts the policy in force.
func (s *stage) filter(t *testing.T, on string, mode loader.Mode) {
	t.Helper()
	p, err := policy.Parse("policy", []byte(filterPolicy))
	if err != nil {
		t.Fatal(err)
	}
	s.Server.Do(t, func() error {
		_, err := loader.Up(context.Background(), loader.Options{PinPath: s.PinPath, Interfaces: []string{on}, Mode: mode, Policy: p})
		return err
	})
	// Before the devices go: what is pinned holds them.
	t.Cleanup(func() { os.RemoveAll(s.PinPath) })
}

// verdicts makes a stage of a shape, filters it as the side says, and plays its probes.
func (sh *shape) verdicts(t *testing.T, side string) []string {
	t.Helper()
	s := newStage(t)
	sh.make(t, s)
	s.listen(t, s.Server, "the host")
	s.listen(t, s.guest, "the guest")
	switch side {
	case "netfilter":
		s.Server.Run(t, "nft", netfilterRules)
	case "nothing":
	default:
		s.filter(t, sh.iface(), loader.Mode(side))
	}
	return s.play(t, shots(sh.probes))
}

func (sh *shape) iface() string {
	if sh.on == "" {
		return "eth0"
	}
	return sh.on
}

func (sh *shape) modes() []loader.Mode {
	modes := []loader.Mode{loader.ModeGeneric, loader.ModeTC}
	if sh.native {
		modes = append(modes, loader.ModeNative)
	}
	return modes
}

// TestTopologies is the comparison.
func TestTopologies(t *testing.T) {
	lab.RequireRoot(t)
	for i := range shapes {
		sh := &shapes[i]
		t.Run(sh.name, func(t *testing.T) {
			want := sh.verdicts(t, "netfilter")
			if !slices.Contains(want, "the host") && !slices.Contains(want, "the guest") {
				t.Fatal("nobody gets anything, so nothing is compared")
			}
			for _, mode := range sh.modes() {
				t.Run(string(mode), func(t *testing.T) { sh.compare(t, mode, want) })
			}
		})
	}
	for _, line := range summary() {
		t.Logf("report: %s", line)
	}
}

func (sh *shape) compare(t *testing.T, mode loader.Mode, want []string) {
	got := sh.verdicts(t, string(mode))
	for i, shot := range shots(sh.probes) {
		d := shot.probe.differs
		switch {
		case d != nil && want[i] == d.netfilter && got[i] == d.ours:
			count(mode, func(r *result) { r.documented++ })
		case got[i] == want[i]:
			count(mode, func(r *result) { r.alike++ })
		default:
			count(mode, func(r *result) { r.undocumented++ })
			t.Errorf("%s: netfilter lets %s have it, Portcullis %s", shot, want[i], got[i])
		}
	}
	count(mode, func(r *result) { r.shapes++ })
}
