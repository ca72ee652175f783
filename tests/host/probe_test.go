// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// UDP ports of the server that is probed. Every policy opens the first two.
const (
	portBarrier = 7  // what was sent before has been decided when this arrives
	portAlways  = 8  // spoken to all the time
	portOld     = 9  // open before
	portNew     = 10 // open afterwards
	portNever   = 11 // closed, and knocked at all the time
)

// everything is what a probe sees where nothing filters.
const everything = "everything"

// probe finds out with packets, and without a word to the loader, which policy is in force.
type probe struct {
	server  map[int]int // sockets by port
	outside []outsider
	number  uint32
	stop    chan struct{}
	talkers sync.WaitGroup
	said    atomic.Int64
	heard   int64
}

// outsider is a host that sends to the server, and the address by which it reaches it.
type outsider struct {
	*lab.Host
	server netip.Addr
	socket int
}

// newProbe probes from the client, and from the hosts behind eth1.
func newProbe(t *testing.T, l *lab.Lab, inside ...*lab.Host) *probe {
	p := &probe{server: make(map[int]int), stop: make(chan struct{})}
	for _, port := range []int{portBarrier, portAlways, portOld, portNew, portNever} {
		p.server[port] = keptSocket(t, l.Server, port)
	}
	p.outside = append(p.outside, outsider{l.Client, lab.ServerV4, keptSocket(t, l.Client, 0)})
	for _, h := range inside {
		p.outside = append(p.outside, outsider{h, lab.RouterV4, keptSocket(t, h, 0)})
	}
	return p
}

// udpSocket makes an IPv4 socket in a host, which any thread may use.
func udpSocket(h *lab.Host, port int) (fd int, err error) {
	err = h.Try(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		patience := unix.Timeval{Sec: 3}
		const room = 8 << 20 // for what comes in while nobody listens
		return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room),
			unix.Bind(fd, &unix.SockaddrInet4{Port: port}))
	})
	return fd, err
}

// keptSocket is udpSocket until the test ends.
func keptSocket(t *testing.T, h *lab.Host, port int) int {
	t.Helper()
	fd, err := udpSocket(h, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func sendNumber(fd int, to netip.Addr, port int, number uint32) error {
	return unix.Sendto(fd, binary.BigEndian.AppendUint32(nil, number), 0, &unix.SockaddrInet4{Port: port, Addr: to.As4()})
}

// receive waits for a number, whatever comes before it, and returns who sent it.
func receive(fd int, number uint32, flags int) (*unix.SockaddrInet4, error) {
	b := make([]byte, 64)
	for {
		n, from, err := unix.Recvfrom(fd, b, flags)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 4 && binary.BigEndian.Uint32(b) == number {
			return from.(*unix.SockaddrInet4), nil
		}
	}
}

// see returns the rule that tells the policy in force from the other one, or everything. It fails when interfaces do
// not agree, or a direction with the other one.
func (p *probe) see(t *testing.T) (rule string) {
	t.Helper()
	p.listen()
	for i, o := range p.outside {
		seen, err := p.seeFrom(&o)
		if err != nil {
			t.Fatalf("from %s: %v", o.Name, err)
		}
		if i > 0 && seen != rule {
			t.Fatalf("half a policy: open to %s is %s, to %s %s", p.outside[0].Name, rule, o.Name, seen)
		}
		rule = seen
	}
	return rule
}

func (p *probe) mustSee(t *testing.T, rule string) {
	t.Helper()
	if got := p.see(t); got != rule {
		t.Fatalf("open is %s, want %s", got, rule)
	}
}

// seeFrom knocks at each port.
func (p *probe) seeFrom(o *outsider) (string, error) {
	ports := []int{portOld, portNew, portNever}
	arrived, err := p.knock(o, o.socket, ports)
	if err != nil {
		return "", err
	}
	switch {
	case arrived[portOld] && arrived[portNew] && arrived[portNever]:
		return everything, nil
	case arrived[portOld] == arrived[portNew] || arrived[portNever]:
		return "", fmt.Errorf("no policy: open are %v", arrived)
	}
	if err := p.isAnswered(o); err != nil {
		return "", fmt.Errorf("open are %v, and %w", arrived, err)
	}
	if arrived[portOld] {
		return fmt.Sprintf("%d/udp", portOld), nil
	}
	return fmt.Sprintf("%d/udp", portNew), nil
}

// knock sends to ports, and tells at which of them it arrived.
func (p *probe) knock(o *outsider, socket int, ports []int) (map[int]bool, error) {
	p.number++
	err := o.inOrder(func() error {
		for _, port := range append(ports, portBarrier) {
			if err := sendNumber(socket, o.server, port, p.number); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := receive(p.server[portBarrier], p.number, 0); err != nil {
		return nil, fmt.Errorf("port %d, which always is open: %w", portBarrier, err)
	}
	arrived := make(map[int]bool)
	for _, port := range ports {
		_, err := receive(p.server[port], p.number, unix.MSG_DONTWAIT)
		arrived[port] = err == nil
	}
	return arrived, nil
}

// isAnswered asks the outsider from either port. The answer comes in because ingress has the port open, or egress has
// it closed and made a flow: if they had not the same policy, one answer would not.
func (p *probe) isAnswered(o *outsider) error {
	asked, err := udpSocket(o.Host, 0)
	if err != nil {
		return err
	}
	defer unix.Close(asked)
	// Where to ask is told by a packet to the port that is open.
	p.number++
	if err := sendNumber(asked, o.server, portBarrier, p.number); err != nil {
		return err
	}
	to, err := receive(p.server[portBarrier], p.number, 0)
	if err != nil {
		return err
	}
	ports := []int{portOld, portNew}
	for _, port := range ports {
		if err := sendNumber(p.server[port], netip.AddrFrom4(to.Addr), to.Port, p.number); err != nil {
			return err
		}
		if _, err := receive(asked, p.number, 0); err != nil {
			return fmt.Errorf("a question from port %d does not get out: %w", port, err)
		}
	}
	arrived, err := p.knock(o, asked, ports)
	if err != nil {
		return err
	}
	for _, port := range ports {
		if !arrived[port] {
			return fmt.Errorf("half a policy: an answer to port %d does not get in", port)
		}
	}
	return nil
}

// inOrder sends from one processor: what goes through several may arrive in any order.
func (o *outsider) inOrder(work func() error) error {
	return o.Try(func() error {
		var one, all unix.CPUSet
		if err := unix.SchedGetaffinity(0, &all); err != nil {
			return err
		}
		for cpu := 0; one.Count() == 0; cpu++ {
			if all.IsSet(cpu) {
				one.Set(cpu)
			}
		}
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return err
		}
		return work()
	})
}

// keepTalking lets every outsider send to the port that is always open, and to the one that never is.
func (p *probe) keepTalking(t *testing.T) {
	const pause = 2 * time.Millisecond
	for _, o := range p.outside {
		fd := keptSocket(t, o.Host, 0)
		p.talkers.Go(func() {
			for {
				select {
				case <-p.stop:
					return
				case <-time.After(pause):
				}
				if sendNumber(fd, o.server, portNever, 0) != nil || sendNumber(fd, o.server, portAlways, 0) != nil {
					return
				}
				p.said.Add(1)
			}
		})
	}
	t.Cleanup(p.hush)
}

// hush ends the talk.
func (p *probe) hush() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	p.talkers.Wait()
}

// listen counts what has come in by the port that always is open.
func (p *probe) listen() {
	for {
		if _, err := receive(p.server[portAlways], 0, unix.MSG_DONTWAIT); err != nil {
			return
		}
		p.heard++
	}
}

// mustHaveHeard ends the talk, of which nothing may be lost, and nothing have come in by the closed port.
func (p *probe) mustHaveHeard(t *testing.T) {
	t.Helper()
	p.hush()
	for deadline := time.Now().Add(3 * time.Second); p.heard < p.said.Load() && time.Now().Before(deadline); {
		p.listen()
	}
	if said := p.said.Load(); p.heard != said || said == 0 {
		t.Errorf("of %d packets to the port that always is open %d arrived", said, p.heard)
	}
	if _, err := receive(p.server[portNever], 0, unix.MSG_DONTWAIT); err == nil {
		t.Error("a packet came in by the port that never is open")
	}
}
