// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// world is what the hosts of some cases are set to, in netfilter's words and in ours.
type world struct {
	name       string
	forwarding bool      // the server routes for a host behind it
	notOnEth0  bool      // but eth0 is said not to forward IPv6
	rules      []string  // of INPUT, behind -A INPUT -i eth0; PROTO-icmp stands for either family's
	own4, own6 []string  // rules of one family, as those
	block      *blocking // whom a rule before all others drops
	anywhere   []string  // rules of INPUT that name their interfaces themselves
	forward    string    // policy of FORWARD; "": DROP
	through    []string  // rules of FORWARD
	through4   []string  // and behind them those of one family
	through6   []string
	cards      []string          // that are filtered; nil: eth0
	nft        string            // what the server's nft is told, on both sides
	before     string            // what its ip is told, on both sides, one command a line
	after      string            // and what once the filter is up
	sysctls    map[string]string // of netfilter
	policy     string            // the same in the words of our policy file
	random     bool              // for random sequences
	flows      int               // that our flow table holds; 0: few, so that it is quickly emptied
}

const established = "-m state --state ESTABLISHED,RELATED -j ACCEPT"

// The script that Portcullis replaces, and what differs from it for some cases.
var (
	script = world{
		name:   "the script",
		rules:  []string{established, "-p tcp --dport 80 -j ACCEPT", "-p PROTO-icmp -j ACCEPT"},
		policy: "open: [80/tcp]\n",
	}
	// Where all ICMP is let in, one cannot see which is RELATED or ESTABLISHED.
	noICMP = world{
		name:   "no ICMP",
		rules:  []string{established, "-p tcp --dport 80 -j ACCEPT"},
		policy: "open: [80/tcp]\nicmp: drop\n",
	}
	halfRouter = world{
		name:       "a router, but not on eth0",
		forwarding: true,
		notOnEth0:  true,
		rules:      script.rules,
		policy:     script.policy,
	}
	short = world{
		name:  "short timeouts",
		rules: noICMP.rules,
		sysctls: map[string]string{
			"udp_timeout": "1", "udp_timeout_stream": "3", "icmp_timeout": "1", "icmpv6_timeout": "1",
			"generic_timeout": "1", "gre_timeout": "1", "gre_timeout_stream": "3",
			"tcp_timeout_syn_sent": "1", "tcp_timeout_syn_recv": "1", "tcp_timeout_established": "3",
			"tcp_timeout_fin_wait": "1", "tcp_timeout_time_wait": "1", "tcp_timeout_close": "1",
			"tcp_timeout_close_wait": "1", "tcp_timeout_last_ack": "1",
		},
		policy: noICMP.policy + "timeouts: {udp: 1s, udp-stream: 3s, icmp: 1s, other: 1s, gre: 1s, gre-stream: 3s, " +
			"tcp-syn-sent: 1s, tcp-syn-recv: 1s, tcp-established: 3s, tcp-fin-wait: 1s, tcp-time-wait: 1s, " +
			"tcp-close: 1s, tcp-close-wait: 1s, tcp-last-ack: 1s, tcp-loose: 3s}\n",
	}
	// An unacknowledged connection lives for a second. Netfilter counts one that was picked up among these.
	unacked = world{
		name:    "a short timeout for what is not acknowledged",
		rules:   noICMP.rules,
		sysctls: map[string]string{"tcp_timeout_unacknowledged": "1", "tcp_timeout_close": "1"},
		policy:  noICMP.policy + "timeouts: {tcp-unacknowledged: 1s, tcp-loose: 1s, tcp-close: 1s}\n",
	}
)

var modes = []loader.Mode{loader.ModeNative, loader.ModeGeneric, loader.ModeTC}

// netfilterSide runs the script.
func (w world) netfilterSide(t testing.TB) *side {
	t.Helper()
	s := newSide(t, "netfilter", w)
	w.block.makeSets(t, s.lab.Server)
	for command, icmp := range map[string]string{"iptables-restore": "icmp", "ip6tables-restore": "ipv6-icmp"} {
		text := fmt.Sprintf("*filter\n:INPUT DROP\n:FORWARD %s\n:OUTPUT ACCEPT\n", cmp.Or(w.forward, "DROP"))
		own, family := w.own4, "4"
		if icmp == "ipv6-icmp" {
			own, family = w.own6, "6"
		}
		text += w.block.rules(family)
		for _, rule := range slices.Concat(w.rules, own) {
			text += "-A INPUT -i eth0 " + strings.ReplaceAll(rule, "PROTO-icmp", icmp) + "\n"
		}
		for _, rule := range w.anywhere {
			text += "-A INPUT " + rule + "\n"
		}
		more := w.through4
		if icmp == "ipv6-icmp" {
			more = w.through6
		}
		for _, rule := range slices.Concat(w.through, more) {
			text += "-A FORWARD " + rule + "\n"
		}
		restore := s.lab.Server.Command(command)
		restore.Stdin = strings.NewReader(text + "COMMIT\n")
		if out, err := restore.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	s.flush = s.conntrack(t, w)
	s.setPort = s.changeRules
	return s
}

// portcullisSide runs Portcullis.
func (w world) portcullisSide(t testing.TB, mode loader.Mode) *side {
	t.Helper()
	s := newSide(t, string(mode), w)
	p, err := policy.Parse("policy", fmt.Appendf(nil, "%sflows: {max: %d}\n", w.policy, cmp.Or(w.flows, 1024)))
	if err != nil {
		t.Fatal(err)
	}
	cards := w.cards
	if cards == nil {
		cards = []string{"eth0"}
	}
	blocking, bans := w.block.ours(t)
	var filter *loader.Filter
	s.lab.Server.Do(t, func() error {
		_, err := loader.Up(context.Background(), loader.Options{
			PinPath: s.lab.PinPath, Interfaces: cards, Mode: mode, Policy: p, Blocking: blocking, Bans: bans,
		})
		if err != nil {
			return err
		}
		filter, err = loader.Open(context.Background(), s.lab.PinPath)
		return err
	})
	t.Cleanup(func() { filter.Close() })
	withoutGRO(t, s.lab.Server)
	forget := s.conntrack(t, w) // which NAT needs here too; otherwise nothing is tracked
	s.flush = func() error {
		return errors.Join(s.lab.Server.Try(func() error {
			_, err := filter.Flush()
			return err
		}), forget())
	}
	s.setPort = func(open bool) error {
		return s.lab.Server.Try(func() error { return changeFilter(filter, open) })
	}
	return s
}

// conntrack sets connection tracking up, and returns how to make it forget.
func (s *side) conntrack(t testing.TB, w world) (flush func() error) {
	t.Helper()
	for key, value := range w.sysctls {
		s.lab.Server.Sysctl(t, "netfilter/nf_conntrack_"+key, value)
	}
	var handle *netlink.Handle
	s.lab.Server.Do(t, func() (err error) {
		handle, err = netlink.NewHandle(unix.NETLINK_NETFILTER)
		return err
	})
	t.Cleanup(handle.Close)
	return func() error { return handle.ConntrackTableFlush(netlink.ConntrackTable) }
}

// withoutGRO keeps the kernel from making one packet of several, of which the observer would see one.
func withoutGRO(t testing.TB, h *lab.Host) {
	t.Helper()
	h.Do(t, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		off := struct{ command, value uint32 }{unix.ETHTOOL_SGRO, 0}
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&off)}
		copy(request.name[:], "eth0")
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
		if errno != 0 {
			return fmt.Errorf("switch GRO off: %w", errno)
		}
		return nil
	})
}

// sides are netfilter and Portcullis in each of some modes, netfilter first.
func (w world) sides(t testing.TB, modes []loader.Mode) []*side {
	t.Helper()
	sides := []*side{w.netfilterSide(t)}
	for _, mode := range modes {
		sides = append(sides, w.portcullisSide(t, mode))
	}
	for _, s := range sides {
		s.ip(t, w.after)
	}
	return sides
}

// together plays the same on all sides at once, from a clean state, and returns the verdicts of each side.
func together(t testing.TB, sides []*side, steps []step) [][]verdict {
	t.Helper()
	results := make([][]verdict, len(sides))
	errs := make([]error, len(sides))
	var wait sync.WaitGroup
	for i, s := range sides {
		wait.Go(func() {
			results[i], errs[i] = s.decide(steps)
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return results
}
