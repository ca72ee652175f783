// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
	"github.com/portcullis-firewall/portcullis/tests/internal/traffic"
)

// Addresses of both hosts, which are the same on all sides.
var (
	serverMAC = frame.MAC{2, 0, 0, 0, 0, 1}
	clientMAC = frame.MAC{2, 0, 0, 0, 0, 2}
	guestMAC  = frame.MAC{2, 0, 0, 0, 0, 3}
	blackHole = netip.MustParsePrefix("198.18.0.0/15") // routed to the client, which is none of these
	nobodyV4  = netip.MustParseAddr("192.0.2.9")       // on the wire, and played by hand
)

// netfilter is the name of the side that sets the measure.
const netfilter = "netfilter"

// side is a lab whose server filters in one way, and whose client is the world.
type side struct {
	name   string
	lab    *lab.Lab
	inside *lab.Host // behind the server, where the row forwards
	filter *loader.Filter
	table  *netlink.Handle // of netfilter
}

// newSide makes the side of a name: netfilter, or a mode of Portcullis.
func newSide(t *testing.T, name string, r row, table int) *side {
	t.Helper()
	s := &side{name: name, lab: lab.New(t)}
	interfaces := []string{"eth0"}
	if r.forward {
		s.inside = s.lab.AddInside(t)
		interfaces = append(interfaces, "eth1")
	}
	s.settle(t)
	if name == netfilter {
		s.restore(t, r, interfaces)
		limitTable(t, table)
		s.lab.Server.Do(t, func() (err error) {
			s.table, err = netlink.NewHandle(unix.NETLINK_NETFILTER)
			return err
		})
		t.Cleanup(s.table.Close)
		return s
	}
	p, err := policy.Parse("policy", fmt.Appendf(nil, "%sflows: {max: %d}\n", r.policy, table))
	if err != nil {
		t.Fatal(err)
	}
	s.lab.Server.Do(t, func() error {
		_, err := loader.Up(context.Background(), loader.Options{
			PinPath: s.lab.PinPath, Interfaces: interfaces, Mode: loader.Mode(name), Policy: p,
		})

		if err != nil {
			return err
		}
		s.filter, err = loader.Open(context.Background(), s.lab.PinPath)
		return err
	})
	t.Cleanup(func() { s.filter.Close() })
	return s
}

// settle gives the hosts addresses that need no asking, and room for many connections.
func (s *side) settle(t *testing.T) {
	t.Helper()
	server, client := s.lab.Server, s.lab.Client
	for host, mac := range map[*lab.Host]frame.MAC{server: serverMAC, client: clientMAC} {
		host.IP(t, "link", "set", "eth0", "address", text(mac))
		for key, value := range map[string]string{
			"conf/all/rp_filter": "0", "conf/eth0/rp_filter": "0",
			"ip_local_port_range": "1024 65000", "tcp_max_syn_backlog": "8192",
		} {
			host.Sysctl(t, "ipv4/"+key, value)
		}
	}
	for _, peer := range []netip.Addr{lab.ClientV4, nobodyV4} {
		server.IP(t, "neigh", "replace", peer.String(), "lladdr", text(clientMAC), "nud", "permanent", "dev", "eth0")
	}
	client.IP(t, "neigh", "replace", lab.ServerV4.String(), "lladdr", text(serverMAC), "nud", "permanent", "dev", "eth0")
	server.IP(t, "route", "add", blackHole.String(), "via", lab.ClientV4.String())
}

func text(m frame.MAC) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// restore puts the script in force.
func (s *side) restore(t *testing.T, r row, interfaces []string) {
	t.Helper()
	forward := "DROP"
	if r.forward {
		forward = "ACCEPT"
	}
	rules := fmt.Sprintf("*filter\n:INPUT DROP\n:FORWARD %s\n:OUTPUT ACCEPT\n", forward)
	for _, name := range interfaces {
		rules += "-A INPUT -i " + name + " -m state --state ESTABLISHED,RELATED -j ACCEPT\n"
	}
	for _, rule := range r.rules {
		rules += "-A INPUT -i eth0 " + rule + " -j ACCEPT\n"
	}
	command := s.lab.Server.Command("iptables-restore")
	command.Stdin = strings.NewReader(rules + "COMMIT\n")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("iptables-restore: %v\n%s", err, out)
	}
	for key, value := range r.sysctls {
		s.lab.Server.Sysctl(t, "netfilter/nf_conntrack_"+key, value)
	}
}

// limitTable gives netfilter's table a size until the test ends: as many buckets as entries, which is what Linux gives a
// machine of 4 GB. Both are the whole machine's.
func limitTable(t *testing.T, size int) {
	t.Helper()
	for _, key := range []string{"nf_conntrack_max", "nf_conntrack_buckets"} {
		path := "/proc/sys/net/netfilter/" + key
		before, err := os.ReadFile(path)
		if err == nil && strings.TrimSpace(string(before)) == strconv.Itoa(size) {
			continue
		}
		if err == nil {
			err = os.WriteFile(path, fmt.Append(nil, size), 0)
		}
		if errors.Is(err, fs.ErrPermission) {
			t.Skip("needs the machine's own network namespace, to set the size of netfilter's table")
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(path, before, 0); err != nil {
				t.Errorf("set %s back to %s: %v", key, before, err)
			}
		})
	}
}

// entries counts what the side's table holds.
func (s *side) entries(t *testing.T) (count int) {
	t.Helper()
	s.lab.Server.Do(t, func() error {
		if s.filter != nil {
			status, err := s.filter.Status()
			if err != nil {
				return err
			}
			count = status.Flows.Answered + status.Flows.Pending
			return nil
		}
		value, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err != nil {
			return err
		}
		count, err = strconv.Atoi(strings.TrimSpace(string(value)))
		return err
	})
	return count
}

// unacknowledged is how long netfilter keeps a connection of which it has seen data that is not acknowledged.
const unacknowledged = 300 * time.Second

// lasting counts the TCP entries that have longer to live than connections whose end netfilter suspects.
func (s *side) lasting(t *testing.T) (count int) {
	t.Helper()
	if s.filter != nil {
		s.lab.Server.Do(t, func() error {
			return s.filter.Flows(func(f loader.Flow) bool {
				if f.Protocol == "tcp" && f.Expires > unacknowledged {
					count++
				}
				return true
			})
		})
		return count
	}
	flows, err := s.table.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flows {
		if f.Forward.Protocol == unix.IPPROTO_TCP && time.Duration(f.TimeOut)*time.Second > unacknowledged {
			count++
		}
	}
	return count
}

// start begins work in a host, and returns what ends it and waits.
func start(t *testing.T, h *lab.Host, work func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Try(func() error { return work(ctx) }) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// answer has the client answer until the test ends.
func (s *side) answer(t *testing.T, a traffic.Answer) {
	t.Helper()
	ready, failed := make(chan struct{}), make(chan error, 1)
	stop := start(t, s.lab.Client, func(ctx context.Context) error {
		err := a.Run(ctx, func() { close(ready) })
		failed <- err
		return err
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-failed:
		t.Fatal(err)
	}
}

// ask has the server ask the client.
func (s *side) ask(t *testing.T, a traffic.Ask) (result traffic.Result) {
	t.Helper()
	a.To = netip.AddrPortFrom(lab.ClientV4, firstPort)
	begun, due := time.Now(), time.Duration(a.Count)*time.Second/time.Duration(a.Rate)
	s.lab.Server.Do(t, func() (err error) {
		result, err = a.Run()
		return err
	})
	t.Logf("%s: %s", s.name, result)
	if took := time.Since(begun); took > 2*due+a.Deadline+time.Second {
		t.Errorf("%s: asked for %s, not %s: the machine is too slow to compare", s.name, took, due)
	}
	return result
}
