// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// What goes on while the policy changes.
const (
	applies   = 200
	toggles   = 1000 // of each, open and close
	transfers = 200 << 20
	shorts    = 1000

	enough = time.Minute // a machine that is slower than that shows as much with fewer changes
	least  = 10          // of each: fewer show nothing
)

// Ports of the server.
const (
	portBulk    = 80
	portEcho    = 81
	portApplied = 82 // open in every other policy
	portToggled = 83 // opened and closed
)

// TestNothingIsLostWhileThePolicyChanges: a transfer, short connections in both directions, and connections at ports
// that close behind them go on, and the filter drops none of their packets. Some of the changes are upgrades.
func TestNothingIsLostWhileThePolicyChanges(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		applies, toggles := applies, toggles
		if mode != loader.ModeNative {
			applies, toggles = applies/10, toggles/10
		}
		policies := []*policy.Policy{policyOf(t, "80/tcp", "81/tcp", "82/tcp"), policyOf(t, "80/tcp", "81/tcp")}
		sum := receiveBulk(t, l.Server)
		for _, port := range []int{portEcho, portApplied, portToggled} {
			l.Server.Echo(t, port)
		}
		l.Client.Echo(t, 7)
		up(t, l, mode, policies[0])
		openRule(t, l, "83/tcp")
		c := &chatter{lab: l, stop: make(chan struct{})}
		for _, port := range []int{portApplied, portToggled} {
			conn := mustDial(t, l.Client, "tcp", lab.ServerV4, port)
			c.Go(func() error { return c.keepTalking(conn) })
		}
		sent := make(chan [sha256.Size]byte, 1)
		c.Go(func() error { return c.sendBulk(sent) })
		for range 2 {
			c.Go(func() error { return c.dialShortly(l.Client, lab.ServerV4, portEcho) })
			c.Go(func() error { return c.dialShortly(l.Server, lab.ClientV4, 7) })
		}

		start := time.Now()
		tired := func() bool { return time.Since(start) > enough }
		var applied, toggled int
		var changes sync.WaitGroup
		changes.Go(func() {
			for ; applied < applies && !tired(); applied++ {
				if applied%50 == 7 { // an upgrade
					if err := becomeAnotherBuild(l); err != nil {
						c.fail(err)
					}
				}
				o := loader.Options{Policy: policies[(applied+1)%2], Running: true}
				if err := try(l, o); err != nil {
					c.fail(fmt.Errorf("apply: %w", err))
				}
			}
		})
		changes.Go(func() {
			rule := rules(t, "83/tcp")
			err := l.Server.Try(func() error {
				f, err := loader.Open(context.Background(), l.PinPath)
				if err != nil {
					return err
				}
				defer f.Close()
				for ; toggled < toggles && !tired(); toggled++ {
					if _, err := f.OpenRules(rule, false); err != nil {
						return err
					}
					if _, err := f.CloseRules(rule, false); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				c.fail(fmt.Errorf("open or close: %w", err))
			}
		})
		changes.Wait()
		took := time.Since(start)
		close(c.stop)
		c.running.Wait()
		for _, err := range c.errs {
			t.Error(err)
		}
		if got, want := <-sum, <-sent; got != want {
			t.Error("what arrived is not what was sent")
		}
		for _, counter := range status(t, l).Counters {
			if counter.Verdict == "drop" && counter.Packets > 0 {
				t.Errorf("%d packets were dropped: %s", counter.Packets, counter.Reason)
			}
		}
		if applied < least || toggled < least {
			t.Errorf("%d applies beside %d opens and closes in %v are too few to show anything", applied, 2*toggled, took)
		}
		t.Logf("%d applies beside %d opens and closes in %v: %d MB, %d short connections, %d segments sent again",
			applied, 2*toggled, took.Round(time.Millisecond), c.bytes.Load()>>20, c.shorts.Load(), c.resent.Load())
	})
}

// receiveBulk takes one transfer, and tells its sum.
func receiveBulk(t *testing.T, h *lab.Host) <-chan [sha256.Size]byte {
	t.Helper()
	sum := make(chan [sha256.Size]byte, 1)
	h.Do(t, func() error {
		ln, err := net.Listen("tcp", fmt.Sprintf(":%d", portBulk))
		if err != nil {
			return err
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			hash := sha256.New()
			io.Copy(hash, c)
			sum <- [sha256.Size]byte(hash.Sum(nil))
		}()
		return nil
	})
	return sum
}

// chatter is what must go on.
type chatter struct {
	lab                   *lab.Lab
	stop                  chan struct{}
	running               sync.WaitGroup
	bytes, shorts, resent atomic.Int64
	mutex                 sync.Mutex
	errs                  []error
}

func (c *chatter) fail(err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.errs = append(c.errs, err)
}

func (c *chatter) Go(work func() error) {
	c.running.Go(func() {
		if err := work(); err != nil {
			c.fail(err)
		}
	})
}

func (c *chatter) stopped() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

func (c *chatter) keepTalking(conn net.Conn) error {
	for i := 0; !c.stopped(); i++ {
		if err := talk(conn, fmt.Sprintf("word %d", i), patience); err != nil {
			return fmt.Errorf("the connection to %s: %w", conn.RemoteAddr(), err)
		}
		time.Sleep(time.Millisecond)
	}
	return c.countResent(conn)
}

// sendBulk sends as long as the policy changes, and not less than is promised.
func (c *chatter) sendBulk(sum chan<- [sha256.Size]byte) error {
	conn, err := dial(c.lab.Client, "tcp", lab.ServerV4, portBulk, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	hash := sha256.New()
	defer func() { sum <- [sha256.Size]byte(hash.Sum(nil)) }()
	random := rand.NewChaCha8([32]byte{})
	block := make([]byte, 1<<18)
	for !c.stopped() || c.bytes.Load() < transfers {
		random.Read(block)
		hash.Write(block)
		conn.SetDeadline(time.Now().Add(patience))
		n, err := conn.Write(block)
		c.bytes.Add(int64(n))
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", c.bytes.Load(), err)
		}
		time.Sleep(2 * time.Millisecond) // leaves the processor to the others
	}
	return c.countResent(conn)
}

func (c *chatter) dialShortly(h *lab.Host, to netip.Addr, port int) error {
	for !c.stopped() || c.shorts.Load() < shorts {
		conn, err := dial(h, "tcp", to, port, patience)
		if err == nil {
			err = errors.Join(talk(conn, "hello", patience), c.countResent(conn), conn.Close())
		}
		if err != nil {
			return fmt.Errorf("short connection %d, to %s port %d: %w", c.shorts.Load(), to, port, err)
		}
		c.shorts.Add(1)
		time.Sleep(10 * time.Millisecond) // each leaves a socket in TIME_WAIT, which the filter asks for
	}
	return nil
}

func (c *chatter) countResent(conn net.Conn) error {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	var asked error
	err = raw.Control(func(fd uintptr) { info, asked = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, asked); err != nil {
		return err
	}
	c.resent.Add(int64(info.Total_retrans))
	return nil
}
