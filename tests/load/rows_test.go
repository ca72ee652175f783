// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
	"github.com/portcullis-firewall/portcullis/tests/internal/traffic"
)

// firstPort is where the client answers.
const firstPort = 5300

// scale is how much of a load there is.
type scale struct {
	table   int // entries
	rate    int // of the attack, or of the load itself, a second
	seconds int
}

func (s scale) count() int { return s.rate * s.seconds }

// row is one kind of load.
type row struct {
	name    string // as LOAD names it
	what    string // is counted as lost
	policy  string
	rules   []string          // the same in netfilter's words, behind -A INPUT -i eth0
	sysctls map[string]string // of netfilter
	forward bool              // the server routes, and lets all through
	fills   bool              // the load is more than netfilter's table holds
	exact   bool              // chance has no part in it
	none    bool              // netfilter loses here, and Portcullis is to lose nothing
	short   scale
	full    scale
	run     func(t *testing.T, s *side, of scale) outcome
}

// outcome is what a side made of a load.
type outcome struct {
	sent, lost int
	entries    int // at the end
}

var rows = []row{
	{
		name: "spoof", what: "own connections, while forged sources ask a port that is open to them",
		policy: "open: [5353/udp from 198.18.0.0/15]\n",
		rules:  []string{"-p udp --dport 5353 -s 198.18.0.0/15"},
		fills:  true,
		short:  scale{8192, 8000, 3}, full: scale{262144, 20000, 60},
		run: spoof,
	}, {
		name: "dns", what: "own queries, answered in 20 to 50 ms",
		fills: true,
		short: scale{32768, 12000, 5}, full: scale{262144, 20000, 90},
		run: queries,
	}, {
		name: "local-flood", what: "own queries, answered in 50 ms, while a local user connects to a black hole",
		fills: true,
		short: scale{8192, 8000, 3}, full: scale{262144, 20000, 60},
		run: localFlood,
	}, {
		name: "hostile", what: "connections of which an entry lasts, after a RST while our acknowledgement was delayed",
		exact: true,
		short: scale{16384, 100, 1}, full: scale{262144, 1000, 2},
		run: hostile,
	}, {
		name: "vanished", what: "connections of which an entry lasts, whose peer has vanished",
		exact: true,
		short: scale{16384, 100, 1}, full: scale{262144, 1000, 1},
		run: vanished,
	}, {
		name: "proxy", what: "connections to one port, 60,000 a minute",
		short: scale{65536, 1000, 4}, full: scale{262144, 1000, 120},
		run: proxy,
	}, {
		name: "reuse", what: "connections from a port that has just had one, of what the peer says after a silence",
		policy: "timeouts: {tcp-fin-wait: 3s, tcp-close-wait: 3s, tcp-last-ack: 3s, tcp-time-wait: 3s, tcp-close: 3s}\n",
		sysctls: map[string]string{
			"tcp_timeout_fin_wait": "3", "tcp_timeout_close_wait": "3", "tcp_timeout_last_ack": "3",
			"tcp_timeout_time_wait": "3", "tcp_timeout_close": "3",
		},
		exact: true,
		short: scale{16384, 100, 1}, full: scale{262144, 200, 5},
		run: reuse,
	}, {
		name: "limit", what: "new connections, and live ones, with the table full of them and of TIME_WAIT",
		fills: true, none: true,
		short: scale{8192, 2500, 3}, full: scale{65536, 3500, 30},
		run: limit,
	}, {
		name: "forward", what: "own queries, answered in 50 ms, while SYNs are routed inward",
		policy:  "forward: accept\n",
		forward: true,
		fills:   true,
		short:   scale{8192, 8000, 3}, full: scale{262144, 20000, 60},
		run: routed,
	}, {
		name: "guest", what: "own queries, answered in 50 ms, while a macvlan guest sends SYNs",
		short: scale{8192, 8000, 3}, full: scale{262144, 20000, 60},
		run: guest,
	}, {
		name: "forged", what: "connections that a forged SYN-ACK came before, of what the peer says after a silence",
		policy:  "timeouts: {tcp-close: 1s}\n",
		sysctls: map[string]string{"tcp_timeout_close": "1"},
		exact:   true,
		short:   scale{16384, 20, 2}, full: scale{262144, 50, 13},
		run: forged,
	},
}

// own is the traffic of the host itself beside an attack, for as long as it lasts.
func own(of scale, tcp bool) traffic.Ask {
	return traffic.Ask{TCP: tcp, Rate: 300, Count: 300 * of.seconds, Deadline: 900 * time.Millisecond}
}

// warmUp is how long an attack goes on before own traffic begins. It would have filled a table of twice the size.
func (s scale) warmUp() time.Duration {
	return time.Duration(2.2 * float64(s.table) / float64(s.rate) * float64(time.Second))
}

// spoof has forged sources send two datagrams each to a port that is open to them. The server answers.
func spoof(t *testing.T, s *side, of scale) outcome {
	t.Cleanup(start(t, s.lab.Server, func(ctx context.Context) error {
		return traffic.Answer{First: 5353}.Run(ctx, func() {})
	}))
	s.answer(t, traffic.Answer{First: firstPort})
	flood := s.flood(t, traffic.Flood{
		Sources: blackHole, Target: netip.AddrPortFrom(lab.ServerV4, 5353), Rate: of.rate, Twice: of.rate / 8,
	})
	time.Sleep(of.warmUp())
	result := s.ask(t, own(of, true))
	return s.ended(t, flood, result)
}

// flood sends forged frames from the client, until it is stopped.
func (s *side) flood(t *testing.T, f traffic.Flood) (stop func()) {
	t.Helper()
	f.Wire, f.From, f.To = s.lab.Client.Wire(t, "eth0").Send, clientMAC, serverMAC
	return s.attack(t, s.lab.Client, f.Rate, f.Run)
}

// attack runs one in a host until it is stopped. It is to keep up its rate at least by half: less would be another load.
func (s *side) attack(t *testing.T, h *lab.Host, rate int, run func(context.Context) (int, error)) (stop func()) {
	t.Helper()
	begun, sent := time.Now(), 0
	end := start(t, h, func(ctx context.Context) (err error) {
		sent, err = run(ctx)
		return err
	})
	return func() {
		t.Helper()
		due := int(time.Since(begun).Seconds() * float64(rate))
		end()
		t.Logf("%s: the attack has sent %d of %d that were due", s.name, sent, due)
		if sent < due/2 {
			t.Errorf("%s: the attack has sent %d of %d that were due: the machine is too slow to compare", s.name, sent, due)
		}
	}
}

// ended is the outcome of own traffic beside an attack, which it ends.
func (s *side) ended(t *testing.T, stop func(), result traffic.Result) outcome {
	t.Helper()
	entries := s.entries(t)
	stop()
	return outcome{result.Sent, result.Lost(), entries}
}

// queries asks as a resolver does, more in a minute than the table holds.
func queries(t *testing.T, s *side, of scale) outcome {
	s.answer(t, traffic.Answer{First: firstPort, Ports: 16, From: 20 * time.Millisecond, To: 50 * time.Millisecond})
	result := s.ask(t, traffic.Ask{Ports: 16, Rate: of.rate, Count: of.count(), Deadline: time.Second})
	return outcome{result.Sent, result.Lost(), s.entries(t)}
}

func (s *side) answerIn50ms(t *testing.T) {
	t.Helper()
	s.answer(t, traffic.Answer{First: firstPort, From: 50 * time.Millisecond, To: 50 * time.Millisecond})
}

func localFlood(t *testing.T, s *side, of scale) outcome {
	s.answerIn50ms(t)
	flood := s.attack(t, s.lab.Server, of.rate, func(ctx context.Context) (int, error) {
		return traffic.Dial(ctx, blackHole, of.rate)
	})
	time.Sleep(of.warmUp())
	return s.ended(t, flood, s.ask(t, own(of, false)))
}

func hostile(t *testing.T, s *side, of scale) outcome {
	s.answer(t, traffic.Answer{First: firstPort})
	for _, ending := range []traffic.Ending{traffic.TheyReset, traffic.TheyResetBehind} {
		s.lab.Server.Do(t, func() error {
			return traffic.Suffer(netip.AddrPortFrom(lab.ClientV4, firstPort), of.count(), ending)
		})
	}
	return outcome{2 * of.count(), s.lasting(t), s.entries(t)}
}

// vanished takes the client off the net while data is on its way to it, or its window is closed. Our kernel gives up
// when it has sent four times again: after three netfilter no longer takes the connection for a live one.
func vanished(t *testing.T, s *side, of scale) outcome {
	s.lab.Client.Sysctl(t, "ipv4/tcp_rmem", "4096 8192 16384")
	s.answer(t, traffic.Answer{First: firstPort})
	s.lab.Server.Do(t, func() error {
		return traffic.Abandoned(netip.AddrPortFrom(lab.ClientV4, firstPort), of.count(), func() error {
			return s.lab.Client.Command("nft", "table inet gone { "+
				"chain in { type filter hook prerouting priority -400; drop; }; "+
				"chain out { type filter hook output priority -400; drop; }; }").Run()
		}, 8*time.Second)
	})
	return outcome{of.count(), s.lasting(t), s.entries(t)}
}

// proxy connects so often that ports come round, as they do where TIME_WAIT is reused.
func proxy(t *testing.T, s *side, of scale) outcome {
	s.lab.Server.Sysctl(t, "ipv4/tcp_tw_reuse", "1")
	if of.seconds < 60 {
		s.lab.Server.Sysctl(t, "ipv4/ip_local_port_range", "10000 11999")
	}
	s.answer(t, traffic.Answer{First: firstPort})
	result := s.ask(t, traffic.Ask{
		TCP: true, Rate: of.rate, Count: of.count(), Deadline: 900 * time.Millisecond,
		Endings: []traffic.Ending{traffic.WeClose, traffic.TheyClose, traffic.WeReset, traffic.TheyClose},
	})
	return outcome{result.Sent, result.Lost(), s.entries(t)}
}

// reuse ends connections in every way, begins others from the same ports, and has the peer speak first when the timeouts
// of what has ended are over.
func reuse(t *testing.T, s *side, of scale) outcome {
	const silence = 4 * time.Second
	s.lab.Server.Sysctl(t, "ipv4/tcp_tw_reuse", "1")
	s.lab.Server.Sysctl(t, "ipv4/tcp_fin_timeout", "1")
	s.answer(t, traffic.Answer{First: firstPort, Silence: silence})
	again := traffic.Ask{TCP: true, From: 20000, Rate: 400, Count: of.count(), Deadline: 3 * time.Second}
	again.Endings = []traffic.Ending{traffic.WeClose, traffic.TheyClose, traffic.WeReset, traffic.TheyForget}
	s.ask(t, again)
	time.Sleep(1500 * time.Millisecond) // the kernel lets go of the ports
	again.Endings = []traffic.Ending{traffic.TheyRepeat}
	second := s.ask(t, again)
	heard := traffic.Heard(second.Held, silence+time.Second)
	for _, fd := range second.Held {
		unix.Close(fd)
	}
	return outcome{of.count(), of.count() - heard, s.entries(t)}
}

// limit fills half of the table with connections that stay, and asks for more than the other half holds.
func limit(t *testing.T, s *side, of scale) outcome {
	s.answer(t, traffic.Answer{First: firstPort, Ports: 16})
	held := s.ask(t, traffic.Ask{
		Ports: 16, TCP: true, Rate: of.rate, Count: of.table / 2, Deadline: 900 * time.Millisecond,
		Endings: []traffic.Ending{traffic.Hold},
	})
	defer func() {
		for _, fd := range held.Held {
			unix.Close(fd)
		}
	}()
	result := s.ask(t, traffic.Ask{
		Ports: 16, TCP: true, Rate: of.rate, Count: of.count(), Deadline: 900 * time.Millisecond,
	})
	alive := traffic.Alive(held.Held, 2*time.Second)
	t.Logf("%s: of %d held connections %d are alive", s.name, held.Sent, alive)
	return outcome{held.Sent + result.Sent, held.Sent - alive + result.Lost(), s.entries(t)}
}

// routed floods a host behind the server, which says nothing to it.
func routed(t *testing.T, s *side, of scale) outcome {
	s.inside.Run(t, "nft", "table inet mute { chain in { type filter hook prerouting priority -400; drop; }; }")
	s.lab.Server.IP(t, "neigh", "replace", lab.InsideV4.String(), "lladdr", text(guestMAC), "nud", "permanent", "dev", "eth1")
	s.answerIn50ms(t)
	flood := s.flood(t, traffic.Flood{
		Sources: blackHole, Target: netip.AddrPortFrom(lab.InsideV4, 80), TCP: true, Rate: of.rate,
	})
	time.Sleep(of.warmUp())
	return s.ended(t, flood, s.ask(t, own(of, false)))
}

// guest floods from a macvlan device above the server's interface, which is another host's.
func guest(t *testing.T, s *side, of scale) outcome {
	guest := s.addGuest(t)
	s.answerIn50ms(t)
	wire := guest.Wire(t, "mv0")
	flood := s.attack(t, guest, of.rate, traffic.Flood{
		Wire: wire.Send, From: guestMAC, To: clientMAC, Sources: blackHole,
		Target: netip.AddrPortFrom(lab.ClientV4, 80), TCP: true, Rate: of.rate,
	}.Run)
	time.Sleep(of.warmUp())
	return s.ended(t, flood, s.ask(t, own(of, false)))
}

func (s *side) addGuest(t *testing.T) *lab.Host {
	t.Helper()
	guest := &lab.Host{Name: s.lab.Server.Name + "-guest"}
	s.lab.Server.Run(t, "ip", "netns", "add", guest.Name)
	t.Cleanup(func() { _ = s.lab.Server.Command("ip", "netns", "del", guest.Name).Run() })
	add := exec.Command("ip", "-n", s.lab.Server.Name, "link", "add", "link", "eth0", "name", "mv0", "netns", guest.Name,
		"address", text(guestMAC), "type", "macvlan", "mode", "bridge")
	if out, err := add.CombinedOutput(); err != nil {
		t.Skipf("this kernel has no macvlan: %s", out)
	}
	guest.IP(t, "link", "set", "mv0", "up")
	return guest
}

func forged(t *testing.T, s *side, of scale) outcome {
	wire := s.lab.Client.Wire(t, "eth0")
	listen := &unix.SockaddrLinklayer{Protocol: uint16(frame.TypeIPv4>>8 | frame.TypeIPv4<<8&0xff00), Ifindex: wire.Index}
	if err := unix.Bind(wire.FD, listen); err != nil {
		t.Fatal(err)
	}
	peer := &traffic.Impostor{FD: wire.FD, Index: wire.Index, From: clientMAC, To: serverMAC, Address: nobodyV4}
	t.Cleanup(start(t, s.lab.Client, peer.Run))
	lost := 0
	s.lab.Server.Do(t, func() (err error) {
		lost, err = traffic.TalkAndWait(netip.AddrPortFrom(nobodyV4, 80), of.rate,
			time.Duration(of.seconds)*time.Second, peer.Speak)
		return err
	})
	return outcome{of.rate, lost, s.entries(t)}
}
