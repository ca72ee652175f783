// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// containers are two guests on a bridge of the server, as a container engine makes them.
type containers struct {
	lab    *lab.Lab
	bridge string
	guests []*lab.Host
}

const containerNet = "10.0.30.0/24"

// addBridge makes the bridge, with nobody on it.
func addBridge(t *testing.T, l *lab.Lab, name string) *containers {
	t.Helper()
	l.Server.IP(t, "link", "add", name, "type", "bridge")
	l.Server.IP(t, "link", "set", name, "up")
	l.Server.IP(t, "addr", "add", "10.0.30.1/24", "dev", name)
	return &containers{lab: l, bridge: name}
}

// start starts a container at an address, which serves port 80.
func (c *containers) start(t *testing.T, address string) *lab.Host {
	t.Helper()
	name := fmt.Sprint("guest", len(c.guests))
	guest := c.lab.AddHost(t, name)
	c.lab.Server.IP(t, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", guest.Name)
	c.lab.Server.IP(t, "link", "set", name, "master", c.bridge, "up")
	guest.IP(t, "link", "set", "eth0", "up")
	guest.IP(t, "addr", "add", address+"/24", "dev", "eth0")
	guest.IP(t, "route", "add", "default", "via", "10.0.30.1")
	guest.Echo(t, 80)
	c.guests = append(c.guests, guest)
	return guest
}

// stop ends a container, as when it is removed.
func (c *containers) stop(t *testing.T, guest int) {
	t.Helper()
	c.lab.Server.IP(t, "link", "del", fmt.Sprint("guest", guest))
}

// publishers translate port 8080 of this host to port 80 of a container, and what containers send outward.
var publishers = map[string]func(t *testing.T, c *containers, to string){
	"nft": func(t *testing.T, c *containers, to string) {
		c.lab.Server.Run(t, "nft", "add table ip nat; flush table ip nat; add chain ip nat pre { type nat hook prerouting priority dstnat; }; "+
			"add rule ip nat pre fib daddr type local tcp dport 8080 dnat to "+to+":80; "+
			"add chain ip nat post { type nat hook postrouting priority srcnat; }; "+
			"add rule ip nat post ip saddr "+containerNet+" oifname != "+c.bridge+" masquerade")
	},
	"iptables": func(t *testing.T, c *containers, to string) {
		for _, rule := range []string{
			"-F", "-A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 8080 -j DNAT --to-destination " + to + ":80",
			"-A POSTROUTING -s " + containerNet + " ! -o " + c.bridge + " -j MASQUERADE",
		} {
			c.lab.Server.Run(t, "iptables", append([]string{"-t", "nat"}, strings.Fields(rule)...)...)
		}
	},
}

// Containers work without a line about them, whatever is said of what is routed: they reach out, and a port that is
// published is open when a rule opens it.
func TestPublishedPorts(t *testing.T) {
	for _, c := range []struct {
		publisher    string
		word         policy.ForwardPolicy
		filterBridge bool
		mode         loader.Mode
	}{
		{"nft", policy.ForwardDrop, false, loader.ModeAuto},
		{"nft", policy.ForwardDrop, true, loader.ModeTC}, // native XDP does not run on a bridge
		{"nft", policy.ForwardEstablished, false, loader.ModeTC},
		{"nft", policy.ForwardEstablished, true, loader.ModeTC},
		{"iptables", policy.ForwardDrop, false, loader.ModeTC},
	} {
		t.Run(fmt.Sprintf("%s/%s/bridge filtered %t/%s", c.publisher, c.word, c.filterBridge, c.mode), func(t *testing.T) {
			testPublishedPorts(t, publishers[c.publisher], c.word, c.filterBridge, c.mode)
		})
	}
}

func testPublishedPorts(t *testing.T, publish func(*testing.T, *containers, string), word policy.ForwardPolicy, filterBridge bool, mode loader.Mode) {
	l := lab.New(t)
	inside := l.AddInside(t)
	c := addBridge(t, l, "br0")
	c.start(t, "10.0.30.2")
	c.start(t, "10.0.30.3")
	publish(t, c, "10.0.30.2")
	l.Client.Echo(t, 7)
	echoUDP(t, l.Client, lab.ClientV4, 53)
	p := policyOf(t, "9/tcp")
	p.Forward = word
	interfaces := both
	if filterBridge {
		interfaces = append([]string{"br0"}, both...)
	}
	upWith(t, l, loader.Options{Interfaces: interfaces, Mode: mode, Policy: p})
	// What is said ends before the container does.
	t.Run("the first ones", func(t *testing.T) {
		for _, guest := range c.guests {
			mustReachOut(t, guest, lab.ClientV4, "out of a container")
		}
		mustTalk(t, mustDial(t, c.guests[0], "tcp", netip.MustParseAddr("10.0.30.3"), 80), "to the other container")
		mustNotDial(t, l.Client, lab.ServerV4, 8080)
		openRule(t, l, "8080/tcp on eth0")
		live := mustDial(t, l.Client, "tcp", lab.ServerV4, 8080)
		mustTalk(t, live, "the published port")
		mustNotDial(t, inside, lab.RouterV4, 8080) // open on eth0 alone
		mustNotDial(t, l.Client, lab.ServerV4, 80)
		l.Client.IP(t, "route", "add", containerNet, "via", lab.ServerV4.String())
		mustNotDial(t, l.Client, netip.MustParseAddr("10.0.30.2"), 80) // past the translation
	})

	// It comes back with another address.
	c.stop(t, 0)
	again := c.start(t, "10.0.30.44")
	publish(t, c, "10.0.30.44")
	mustReachOut(t, again, lab.ClientV4, "out of the new container")
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 8080), "published by the new container")
	closeRule(t, l, "8080/tcp on eth0", false)
	mustNotDial(t, l.Client, lab.ServerV4, 8080)
}

// Where rules name the bridge, they alone say what containers may begin.
func TestRulesForContainers(t *testing.T) {
	l := lab.New(t)
	l.AddInside(t) // which makes it a router
	c := addBridge(t, l, "br0")
	guest := c.start(t, "10.0.30.2")
	publishers["nft"](t, c, "10.0.30.2")
	l.Client.Echo(t, 7)
	l.Client.Echo(t, 8)
	up(t, l, loader.ModeAuto, gateway(t, "drop", "7/tcp on br*", "8080/tcp"))
	mustTalk(t, mustDial(t, guest, "tcp", lab.ClientV4, 7), "by the rule")
	mustNotDial(t, guest, lab.ClientV4, 8)
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 8080), "the published port")
	closeForward(t, l, "7/tcp on br*")
	mustTalk(t, mustDial(t, guest, "tcp", lab.ClientV4, 8), "with no rule left")
}

// A bridge that a container engine makes after the filter: the agent sees to it, or else status says what to do.
func TestContainersThatComeLater(t *testing.T) {
	for _, withAgent := range []bool{true, false} {
		t.Run(fmt.Sprintf("agent %t", withAgent), func(t *testing.T) {
			l := lab.New(t)
			l.AddInside(t)
			l.Client.Echo(t, 7)
			a := newAgent(t, l, "interfaces: [eth0]\nforward: drop\nopen: [8080/tcp]\n")
			if withAgent {
				a.runs()
			} else {
				a.types("--config", a.file(), "up")
			}
			c := addBridge(t, l, "docker0")
			guest := c.start(t, "10.0.30.2")
			publishers["nft"](t, c, "10.0.30.2")
			reaches := func() bool {
				conn, err := dial(guest, "tcp", lab.ClientV4, 7, refusal)
				if err == nil {
					conn.Close()
				}
				return err == nil
			}
			// An answer of a published port needs to be known by nobody.
			mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 8080), "the published port")
			if withAgent {
				a.waitsFor("the container to reach out", reaches)
				return
			}
			time.Sleep(100 * time.Millisecond)
			if reaches() {
				t.Fatal("a container of a bridge that nobody knows reaches out")
			}
			if w := status(t, l).Warnings; len(w) != 1 || !strings.HasPrefix(w[0], "docker0: its guests are cut off") || !strings.Contains(w[0], `"portcullis up"`) {
				t.Errorf("warnings %q", w)
			}
			a.types("--config", a.file(), "up")
			if !reaches() {
				t.Error("a container does not reach out after up")
			}
			if w := status(t, l).Warnings; len(w) != 0 {
				t.Errorf("warnings %q", w)
			}
		})
	}
}
