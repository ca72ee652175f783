// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

func TestClosedPortGivesNoAnswer(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Echo(t, 7)
		mustDial(t, l.Client, "tcp", lab.ServerV4, 7) // it would answer
		up(t, l, mode, policy.Default())
		for _, f := range families {
			before := counter(t, l, "closed port")
			mustNotDial(t, l.Client, f.server, 7)
			mustNotDial(t, l.Client, f.server, 9) // where nobody listens there is no reset either
			if got := counter(t, l, "closed port") - before; got < 2 {
				t.Errorf("%s: %d packets counted under closed port, want 2 at least", f.name, got)
			}
		}
	})
}

func TestOpenPortServesAndClosedOneKeepsItsConnections(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Do(t, func() error {
			ln, err := net.Listen("tcp", "[::]:80")
			if err != nil {
				return err
			}
			t.Cleanup(func() { ln.Close() })
			go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the page") }))
			return nil
		})
		l.Server.Echo(t, 7)
		up(t, l, mode, policyOf(t, "7/tcp"))
		for _, f := range families {
			mustNotDial(t, l.Client, f.server, 80)
			openRule(t, l, "http")
			page := l.Client.Run(t, "curl", "-sS", "-m3", fmt.Sprintf("http://%s/", netip.AddrPortFrom(f.server, 80)))
			if page != "the page" {
				t.Errorf("%s: got %q from the open port", f.name, page)
			}
			closeRule(t, l, "80/tcp", false)
			mustNotDial(t, l.Client, f.server, 80)

			live := mustDial(t, l.Client, "tcp", f.server, 7)
			mustTalk(t, live, "before")
			if report := closeRule(t, l, "7/tcp", false); report.Kept < 1 {
				t.Errorf("%s: close kept %d connections, want the live one", f.name, report.Kept)
			}
			mustNotDial(t, l.Client, f.server, 7)
			mustTalk(t, live, "after")
			openRule(t, l, "7/tcp")
		}
	})
}

func TestCloseKillCutsLiveConnections(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Echo(t, 7)
		up(t, l, mode, policyOf(t, "7/tcp"))
		for _, f := range families {
			live := mustDial(t, l.Client, "tcp", f.server, 7)
			mustTalk(t, live, "before")
			if report := closeRule(t, l, "7/tcp", true); report.Killed < 1 {
				t.Errorf("%s: close --kill killed %d connections", f.name, report.Killed)
			}
			mustNotTalk(t, live, "after")
			mustNotDial(t, l.Client, f.server, 7)
			openRule(t, l, "7/tcp")
			mustTalk(t, mustDial(t, l.Client, "tcp", f.server, 7), "again")
		}
	})
}

func TestServerReachesOut(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Client.Echo(t, 7)
		up(t, l, mode, policy.Default())
		for _, f := range families {
			c := mustDial(t, l.Server, "tcp", f.client, 7)
			mustTalk(t, c, "hello")
			mustTalk(t, c, strings.Repeat("long ", 10000)) // many segments, and GSO on the way out

			echoUDP(t, l.Client, f.client, 53)
			u := mustDial(t, l.Server, "udp", f.client, 53)
			mustTalk(t, u, "query")

			if err := ping(l.Server, f.client); err != nil {
				t.Error(err)
			}
			if err := ping(l.Client, f.server); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestUDPServerAnswersOnlyWhenOpen(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		for _, f := range families {
			echoUDP(t, l.Server, f.server, 5353)
		}
		up(t, l, mode, policy.Default())
		for _, f := range families {
			u := mustDial(t, l.Client, "udp", f.server, 5353)
			mustNotTalk(t, u, "closed")
			openRule(t, l, "5353/udp")
			mustTalk(t, u, "open")
			if n := status(t, l).Flows; n.Answered+n.Pending != 0 {
				t.Errorf("%s: an open port made %+v flows", f.name, n)
			}
			closeRule(t, l, "5353/udp", false)
			mustNotTalk(t, u, "closed again")
		}
	})
}

func TestRuleForSomeSources(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Echo(t, 22)
		up(t, l, mode, policyOf(t, "22/tcp from 192.0.2.2,2001:db8::/64"))
		l.Client.IP(t, "addr", "add", "192.0.2.77/24", "dev", "eth0")
		for _, f := range families {
			mustTalk(t, mustDial(t, l.Client, "tcp", f.server, 22), "hello")
		}
		err := l.Client.Try(func() error {
			d := net.Dialer{Timeout: refusal, LocalAddr: &net.TCPAddr{IP: net.ParseIP("192.0.2.77")}}
			c, err := d.Dial("tcp", "192.0.2.1:22")
			if err == nil {
				c.Close()
			}
			return err
		})
		if err == nil {
			t.Error("a source outside the rule's prefixes is let in")
		}
		if counter(t, l, "source") == 0 {
			t.Error("nothing is counted under source")
		}
		for _, r := range status(t, l).Rules {
			if r.Packets == 0 {
				t.Errorf("rule %q counts no packets", r.Rule)
			}
		}
	})
}

func TestFlushForgetsUntilTheHostSpeaks(t *testing.T) {
	l := lab.New(t)
	l.Client.Echo(t, 7)
	up(t, l, loader.ModeNative, policy.Default())
	c := mustDial(t, l.Server, "tcp", lab.ClientV4, 7)
	mustTalk(t, c, "hello")
	with(t, l, func(f *loader.Filter) error {
		removed, err := f.Flush()
		if err == nil && removed == 0 {
			t.Error("flush removed no flow")
		}
		return err
	})
	if n := status(t, l).Flows; n.Answered+n.Pending != 0 {
		t.Errorf("after the flush there are %+v flows", n)
	}
	mustTalk(t, c, "picked up in mid-stream")
}

func TestSweepTakesOutOnlyTheDead(t *testing.T) {
	l := lab.New(t)
	l.Client.Echo(t, 7)
	p := policy.Default()
	p.Timeouts = map[string]time.Duration{"icmp": time.Second}
	up(t, l, loader.ModeNative, p)
	c := mustDial(t, l.Server, "tcp", lab.ClientV4, 7)
	mustTalk(t, c, "hello")
	if err := ping(l.Server, lab.ClientV4); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1200 * time.Millisecond)
	for range 4 { // marks of used ports outlive two sweeps
		with(t, l, func(f *loader.Filter) error {
			_, _, err := f.Sweep()
			return err
		})
	}
	var protocols []string
	with(t, l, func(f *loader.Filter) error {
		return f.Flows(func(flow loader.Flow) bool {
			protocols = append(protocols, flow.Protocol)
			return true
		})
	})
	if len(protocols) != 1 || protocols[0] != "tcp" {
		t.Errorf("after the sweep there are flows %v, want the live connection's alone", protocols)
	}
	if n := status(t, l).Flows; n.Answered != 1 {
		t.Errorf("the sweep left %+v", n)
	}
	mustTalk(t, c, "still here")
}

// Where all input is accepted nothing that comes in has a flow, and connections still begin, talk and end.
func TestInputAccept(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Echo(t, 7)
		p := policy.Default()
		p.Input = policy.Accept
		up(t, l, mode, p)
		for _, f := range families {
			c := mustDial(t, l.Client, "tcp", f.server, 7)
			c.Close() // before the server has said a word
			mustTalk(t, mustDial(t, l.Client, "tcp", f.server, 7), "hello")
		}
		if got := counter(t, l, "invalid"); got != 0 {
			t.Errorf("%d packets count as invalid", got)
		}
	})
}

// A sweep among many flows takes none that lives.
func TestASweepKeepsConnectionsOfACrowd(t *testing.T) {
	const crowd = 4096
	l := lab.New(t)
	l.Client.Echo(t, 7)
	for _, f := range families {
		up(t, l, loader.ModeTC, policy.Default())
		c := mustDial(t, l.Server, "tcp", f.client, 7)
		mustTalk(t, c, "before")
		l.Server.Do(t, func() error {
			socket, err := net.ListenUDP("udp", nil)
			if err != nil {
				return err
			}
			defer socket.Close()
			for i := range crowd {
				to := netip.AddrPortFrom(f.client, uint16(10000+i))
				if _, err := socket.WriteToUDPAddrPort([]byte("query"), to); err != nil {
					return err
				}
			}
			return nil
		})
		mustTalk(t, c, "among many")
		with(t, l, func(f *loader.Filter) error {
			live, _, err := f.Sweep()
			if err == nil && live < crowd {
				t.Errorf("%d flows are no crowd: the test shows nothing", live)
			}
			return err
		})
		mustTalk(t, c, "after the sweep")
	}
}

// A connection that was cut is over: whatever its two ends send after that, it is not listed.
func TestAKilledFlowIsNotListed(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	echoUDP(t, l.Server, lab.ServerV4, 7)
	up(t, l, loader.ModeNative, policyOf(t, "7/tcp", "7/udp"))
	listed := func(when string) {
		t.Helper()
		with(t, l, func(f *loader.Filter) error {
			return f.Flows(func(flow loader.Flow) bool {
				if flow.Local.Port() == 7 {
					t.Errorf("%s: %+v is listed", when, flow)
				}
				return true
			})
		})
	}
	for _, network := range []string{"tcp", "udp"} {
		live := mustDial(t, l.Client, network, lab.ServerV4, 7)
		mustTalk(t, live, "before")
		if report := closeRule(t, l, "7/"+network, true); network == "tcp" && report.Killed < 1 {
			t.Errorf("close --kill killed %d connections", report.Killed)
		}
		listed(network + ", cut")
		mustNotTalk(t, live, "after")
		time.Sleep(time.Second)
		listed(network + ", when the client has sent")
	}
}
