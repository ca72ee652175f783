// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/nflog"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// hop is a way from a wire to an observer, and the verdict about what is seen there. A barrier goes over one after the
// other, each time behind all that was sent before: first to the server, then on from it.
type hop struct {
	wire lab.Wire
	log  *nflog.Reader
	seen verdict
}

// Portcullis drops what is routed out of eth0 behind every hook of the server. So what is routed is observed where it
// arrives, and on the device: the hosts at the ends take no part.
const endObserver = `table netdev observer { chain in { type filter hook ingress device eth0 priority 0; log group 5; }; }`

// More addresses of the host inside, which are the counterparts of the server's second one.
var (
	insideSecondV4 = netip.MustParseAddr("198.51.100.10")
	insideSecondV6 = netip.MustParseAddr("2001:db8:1::10")
)

// addInside makes the server a router for a host that is as silent as the client.
func (s *side) addInside(t testing.TB) *lab.Host {
	t.Helper()
	inside, server := s.lab.AddInside(t), s.lab.Server
	server.IP(t, "link", "set", "eth1", "address", macText(serverMAC))
	inside.IP(t, "link", "set", "eth0", "address", macText(clientMAC))
	server.Sysctl(t, "ipv4/conf/eth1/rp_filter", "0")
	for _, addr := range []netip.Addr{lab.InsideV4, lab.InsideV6, insideSecondV4, insideSecondV6} {
		server.IP(t, "neigh", "replace", addr.String(), "lladdr", macText(clientMAC), "nud", "permanent", "dev", "eth1")
	}
	inside.Run(t, "nft", muteHost)
	return inside
}

// observeEnds adds the ways of what is routed.
func (s *side) observeEnds(t testing.TB, inside *lab.Host) {
	t.Helper()
	s.behind = inside.Wire(t, "eth0")
	s.hops = append(s.hops, hop{s.behind, s.log, input})
	for _, end := range []struct {
		host    *lab.Host
		towards string
	}{{s.lab.Client, "eth0"}, {inside, "eth1"}} {
		end.host.Run(t, "nft", endObserver)
		var log *nflog.Reader
		end.host.Do(t, func() (err error) {
			log, err = nflog.Listen(logGroup, logPatience)
			return err
		})
		t.Cleanup(log.Close)
		s.hops = append(s.hops, hop{s.lab.Server.Wire(t, end.towards), log, forwarded})
	}
}

var sideCount atomic.Int32

// pinned keeps the calling goroutine on one CPU: what it sends waits in one queue there on all its ways, so that
// nothing overtakes a packet, be the machine as busy as it may. Sides take turns at the CPUs.
func pinned(turn int) (unpin func(), err error) {
	var all, one unix.CPUSet
	runtime.LockOSThread()
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, err
	}
	turn %= all.Count()
	for cpu := range len(all) * 64 {
		if all.IsSet(cpu) {
			if turn == 0 {
				one.Set(cpu)
				break
			}
			turn--
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, err
	}
	return func() {
		unix.SchedSetaffinity(0, &all)
		runtime.UnlockOSThread()
	}, nil
}
