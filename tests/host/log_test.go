// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// xmas is a TCP packet with flags that no stack sends, to the server's port 22.
func xmas(t *testing.T, l *lab.Lab, sourcePort uint16) []byte {
	t.Helper()
	var mac frame.MAC
	l.Server.Do(t, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err == nil {
			copy(mac[:], eth0.HardwareAddr)
		}
		return err
	})
	return frame.Build(frame.Ethernet{Dst: mac, Src: frame.MAC{2, 9, 9, 9, 9, 9}}, frame.IPv4{Src: lab.ClientV4, Dst: lab.ServerV4},
		frame.TCP{SrcPort: sourcePort, DstPort: 22, Flags: frame.FIN | frame.PSH | frame.URG}, frame.Raw(make([]byte, 200)))
}

func send(t testing.TB, h *lab.Host, frames ...[]byte) {
	t.Helper()
	wire := h.Wire(t, "eth0")
	for _, f := range frames {
		if err := wire.Send(f); err != nil {
			t.Error(err)
		}
	}
}

// logged reads the log as it stands.
func logged(t *testing.T, l *lab.Lab) (packets []loader.LoggedPacket) {
	t.Helper()
	with(t, l, func(f *loader.Filter) error {
		return f.Log(context.Background(), false, func(p loader.LoggedPacket) error {
			packets = append(packets, p)
			return nil
		})
	})
	return packets
}

func TestInvalidPacketsAreLogged(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		up(t, l, mode, policyOf(t, "80/tcp"))
		before := time.Now().Add(-time.Second)
		sent := xmas(t, l, 7000)
		send(t, l.Client, sent)
		got := logged(t, l)
		if len(got) != 1 {
			t.Fatalf("%d packets are logged, want 1", len(got))
		}
		p := got[0]
		if p.Interface != "eth0" || p.Reason != "invalid flags" || p.Length != len(sent) || !p.Ethernet || !bytes.Equal(p.Frame, sent[:128]) {
			t.Errorf("logged: %+v\nsent: %x", p, sent)
		}
		if p.Time.Before(before) || p.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("logged at %s, sent at %s", p.Time, before)
		}
		if again := logged(t, l); len(again) != 0 {
			t.Errorf("%d packets are logged twice", len(again))
		}
		if seen := counter(t, l, "invalid flags"); seen != 1 {
			t.Errorf("%d are counted", seen)
		}

		p2 := policyOf(t, "80/tcp")
		p2.Invalid = policy.InvalidDrop
		up(t, l, mode, p2)
		send(t, l.Client, sent)
		if got := logged(t, l); len(got) != 0 {
			t.Errorf("under invalid: drop, %d packets are logged", len(got))
		}
	})
}

func TestTheLogGoesOn(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policyOf(t, "80/tcp"))
	first, second := xmas(t, l, 7001), xmas(t, l, 7002)
	send(t, l.Client, first)
	with(t, l, func(f *loader.Filter) error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		seen := 0
		err := f.Log(ctx, true, func(p loader.LoggedPacket) error {
			switch seen++; seen {
			case 1:
				go send(t, l.Client, second)
			case 2:
				cancel()
			}
			return nil
		})
		if seen != 2 {
			t.Errorf("%d packets are shown, want the one that waited and the one that came", seen)
		}
		return err
	})
}

// A flood fills neither the log nor the reader's time: what is too much is counted only.
func TestAFloodIsLoggedInPart(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policyOf(t, "80/tcp"))
	const flood = 2000
	frames := make([][]byte, flood)
	one := xmas(t, l, 7003)
	for i := range frames {
		frames[i] = one
	}
	start := time.Now()
	send(t, l.Client, frames...)
	n, counted := len(logged(t, l)), counter(t, l, "invalid flags")
	seconds := int(time.Since(start).Seconds()) + 2
	if most := 32 * seconds * runtime.NumCPU(); n < 32 || n > most || counted != flood {
		t.Errorf("of %d packets %d are logged and %d counted; want from 32 to %d, and all", flood, n, counted, most)
	}
}

// Who follows the log sees every packet, however many others do.
func TestEveryReaderSeesEveryPacket(t *testing.T) {
	const readers, packets = 3, 20
	l := lab.New(t)
	up(t, l, loader.ModeNative, policyOf(t, "80/tcp"))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var ready, done sync.WaitGroup
	seen := make([]int, readers)
	for i := range readers {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			err := l.Server.Try(func() error {
				f, err := loader.Open(context.Background(), l.PinPath)
				ready.Done()
				if err != nil {
					return err
				}
				defer f.Close()
				ctx, stop := context.WithCancel(ctx)
				defer stop()
				return f.Log(ctx, true, func(loader.LoggedPacket) error {
					if seen[i]++; seen[i] == packets {
						stop()
					}
					time.Sleep(time.Duration(i) * 5 * time.Millisecond) // one is slower than the other
					return nil
				})
			})
			if err != nil {
				t.Error(err)
			}
		}()
	}
	ready.Wait()
	time.Sleep(200 * time.Millisecond) // that all of them have begun to read
	for i := range packets {
		send(t, l.Client, xmas(t, l, uint16(7100+i)))
	}
	done.Wait()
	for i, n := range seen {
		if n != packets {
			t.Errorf("reader %d sees %d packets of %d", i, n, packets)
		}
	}
	if again := logged(t, l); len(again) != 0 {
		t.Errorf("%d packets are shown again to one that comes later", len(again))
	}
}
