// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// soon is how long a verdict about a MAC holds, and a little more.
const soon = 1200 * time.Millisecond

// change is a device that comes, changes or goes after up, when no agent runs.
type change struct {
	what   string
	make   string // of ip, in the host
	to     int
	in     func(s *stage) *lab.Host // who has the device then
	mac    frame.MAC
	open   string // who gets what comes to the open port
	closed string
}

func inHost(s *stage) *lab.Host  { return s.Server }
func inGuest(s *stage) *lab.Host { return s.guest }

// TestChangesAfterUp follows a device through its life. A MAC that was nobody's a moment ago is filtered within a second,
// and one that has left the host passes.
func TestChangesAfterUp(t *testing.T) {
	lab.RequireRoot(t)
	for _, kind := range []struct {
		name, add string
		tags      []frame.Layer
	}{
		{"macvlan", "link add top0 link eth0 address " + text(childMAC) + " type macvlan mode bridge", nil},
		{"VLAN", "link add link eth0 name top0 address " + text(childMAC) + " type vlan id 10", vlan10},
	} {
		for _, mode := range []loader.Mode{loader.ModeNative, loader.ModeGeneric, loader.ModeTC} {
			t.Run(kind.name+"/"+string(mode), func(t *testing.T) {
				s := newStage(t)
				s.listen(t, s.Server, "the host")
				s.listen(t, s.guest, "the guest")
				s.filter(t, "eth0", mode)
				for _, c := range []change{
					{"nobody has the MAC", "", theHost, nil, childMAC, "nobody", "nobody"},
					{"a device has come", kind.add, theHost, inHost, childMAC, "the host", "nobody"},
					{"it has another MAC", "link set top0 address " + text(guestMAC), theHost, inHost, guestMAC, "the host", "nobody"},
					{"it has moved to a guest", "link set top0 netns " + s.guest.Name, theGuest, inGuest, guestMAC, "the guest", "the guest"},
				} {
					// What was known of the MAC so far is asked for.
					probes := []probe{{name: c.what, tags: kind.tags, mac: c.mac, network: onTop, to: c.to}}
					s.play(t, shots(probes))
					s.server(t, "%s", c.make)
					if c.in != nil {
						readdress(t, c.in(s), "top0", onTop, c.to)
						time.Sleep(soon)
					}
					got := s.play(t, shots(probes))
					for i, shot := range shots(probes) {
						want := map[uint16]string{openPort: c.open, closedPort: c.closed}[shot.port]
						if got[i] != want {
							t.Errorf("%s: %s has it, want %s", shot, got[i], want)
						}
					}
				}
			})
		}
	}
}

// readdress is address for a device that may have its addresses already.
func readdress(t *testing.T, h *lab.Host, dev string, n network, host int) {
	t.Helper()
	h.IP(t, "addr", "flush", "dev", dev)
	address(t, h, dev, n, host)
}
