// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// client is a connection of ours, as its socket sees it.
type client struct {
	w        world
	port     uint16
	seq, ack uint32
	theirs   uint32 // the next number of the peer
}

func (c *client) out(flags uint8, data string) []byte {
	b := c.w.out(frame.TCP{SrcPort: c.port, DstPort: 443, Seq: c.seq, Ack: c.ack, Flags: flags}, frame.Text(data))
	c.seq += uint32(len(data))
	if flags&(frame.SYN|frame.FIN) != 0 {
		c.seq++
	}
	return b
}

func (c *client) in(flags uint8, data string) []byte {
	b := c.w.in(frame.TCP{SrcPort: 443, DstPort: c.port, Seq: c.theirs, Ack: c.seq, Flags: flags}, frame.Text(data))
	c.theirs += uint32(len(data))
	if flags&(frame.SYN|frame.FIN) != 0 {
		c.theirs++
	}
	return b
}

// endings are the ways in which a connection ends, most of which nobody can see on the wire.
var endings = []struct {
	name string
	end  func(c *client, send, receive func([]byte), wait func(time.Duration))
}{
	{"we close", func(c *client, send, receive func([]byte), _ func(time.Duration)) {
		send(c.out(frame.FIN|frame.ACK, ""))
		receive(c.in(frame.FIN|frame.ACK, ""))
		c.ack = c.theirs
		send(c.out(frame.ACK, ""))
	}},
	{"they close", func(c *client, send, receive func([]byte), _ func(time.Duration)) {
		receive(c.in(frame.FIN|frame.ACK, ""))
		c.ack = c.theirs
		send(c.out(frame.FIN|frame.ACK, ""))
		receive(c.in(frame.ACK, ""))
	}},
	{"we reset", func(c *client, send, _ func([]byte), _ func(time.Duration)) { send(c.out(frame.RST|frame.ACK, "")) }},
	{"they reset", func(c *client, _, receive func([]byte), _ func(time.Duration)) { receive(c.in(frame.RST, "")) }},
	{"they answer and reset before we acknowledge", func(c *client, _, receive func([]byte), _ func(time.Duration)) {
		receive(c.in(frame.ACK|frame.PSH, "answer"))
		receive(c.in(frame.RST, ""))
	}},
	{"they vanish with our data", func(c *client, send, _ func([]byte), wait func(time.Duration)) {
		again := *c
		send(c.out(frame.ACK|frame.PSH, "data"))
		for pause := time.Second; pause < time.Minute; pause *= 2 {
			wait(pause)
			once := again
			send(once.out(frame.ACK|frame.PSH, "data"))
		}
	}},
	{"they vanish, and we ask whether they are there", func(c *client, send, _ func([]byte), wait func(time.Duration)) {
		for range 9 {
			wait(75 * time.Second)
			probe := *c
			probe.seq--
			send(probe.out(frame.ACK, ""))
		}
	}},
}

// A month of connections that end in every way, with one that lives all the while: at its end no flow is left that nobody
// has, however it ended, nothing was refused, and nothing of the live one was lost. Time is injected.
func TestAMonthOfConnections(t *testing.T) {
	d := load(t, testdp.Options{Policy: smallTable})
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			r := &trial{Datapath: d, path: testdp.XDP}
			random := rand.New(rand.NewPCG(1, uint64(w.family)))
			send := func(b []byte) {
				t.Helper()
				if !r.Passes(t, testdp.Out, b, testdp.From{}) {
					t.Fatal("a frame on the way out was dropped")
				}
			}
			receive := func(b []byte) {
				t.Helper()
				if !r.Passes(t, testdp.XDP, b, testdp.From{}) {
					t.Fatal("an answer was dropped")
				}
			}
			now := time.Duration(0)
			wait := func(by time.Duration) { d.Advance(t, by); now += by }
			open := func(port uint16) *client {
				c := &client{w: w, port: port, seq: random.Uint32(), theirs: random.Uint32()}
				send(c.out(frame.SYN, ""))
				receive(c.in(frame.SYN|frame.ACK, ""))
				c.ack = c.theirs
				send(c.out(frame.ACK, ""))
				send(c.out(frame.ACK|frame.PSH, "request"))
				receive(c.in(frame.ACK|frame.PSH, "answer"))
				c.ack = c.theirs
				send(c.out(frame.ACK, ""))
				return c
			}
			r.Counted(t)
			live := open(20000)
			for swept := now; now < 30*24*time.Hour; {
				c := open(uint16(30000 + random.IntN(200))) // so ports are used anew in every state
				e := endings[random.IntN(len(endings))]
				e.end(c, send, receive, wait)
				wait(time.Duration(random.IntN(20)) * time.Second)
				if now-swept > 30*time.Second {
					swept = now
					d.Sweep(t, false)
					receive(live.in(frame.ACK|frame.PSH, "tick"))
					live.ack = live.theirs
					send(live.out(frame.ACK, ""))
				}
			}
			if up := r.Counted(t); up[full] > 0 || up[evicted] > 0 {
				t.Errorf("the month counts %v", up)
			}
			wait(301 * time.Second)
			d.Sweep(t, false)
			var left []string
			for _, f := range d.Flows(t) {
				if f.Local.Port() != live.port {
					left = append(left, fmt.Sprintf("%s %s for %s", f.State, f.Local, maps.Duration(int64(f.Expires-d.Now(t)), testdp.HZ)))
				}
			}
			if len(left) > 0 {
				t.Errorf("%d flows outlive their connections: %v", len(left), left[:min(5, len(left))])
			}
			receive(live.in(frame.ACK|frame.PSH, "the end"))
			mustForget(t, d)
		})
	}
}
