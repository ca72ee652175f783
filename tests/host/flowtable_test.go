// SPDX-License-Identifier: Apache-2.0

package host

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// small is a policy with the smallest flow table.
func small() *policy.Policy {
	p := policy.Default()
	p.MaxFlows = policy.MinMaxFlows
	return p
}

// fill makes connections from the server to the client, which live till the test ends, until the table is full.
func fill(t *testing.T, l *lab.Lab) {
	t.Helper()
	const most, together = 3 * policy.MinMaxFlows, 64
	const files = 3 * most // both ends of each connection are in this process
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < files {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files}); err != nil {
			t.Fatalf("this test opens %d files, and the limit is %d: %v", files, limit.Max, err)
		}
	}
	for range most / together {
		for range together {
			c, err := dial(l.Server, "tcp", lab.ClientV4, 7, refusal)
			if err != nil {
				break // so it looks when the table is full
			}
			t.Cleanup(func() { c.Close() })
		}
		if counter(t, l, "flows full") > 0 {
			return
		}
	}
	t.Fatalf("the table is not full of %d connections: %+v", most, status(t, l).Flows)
}

// What finds no room in the table is told, under its name and with what to set.
func TestAFullTableIsTold(t *testing.T) {
	l := lab.New(t)
	l.Client.Echo(t, 7)
	up(t, l, loader.ModeTC, small())
	fill(t, l)
	s := status(t, l)
	if full := counter(t, l, "flows full"); full == 0 || s.Flows.Full > full || s.Flows.Full == 0 {
		t.Errorf("%d packets found no room, and status says %+v", full, s.Flows)
	}
	if s.Flows.Max != policy.MinMaxFlows {
		t.Errorf("the table keeps %d flows, status says", s.Flows.Max)
	}
	if r := s.Refusals(); r.Packets != s.Flows.Full || !strings.Contains(r.String(), "flows: {max: 2048}") {
		t.Errorf("status warns: %s", r)
	}
}

// What is nothing of the table's does not make it look full.
func TestStrayICMPIsNoFullTable(t *testing.T) {
	l := lab.New(t)
	p := policy.Default()
	p.ICMP.Mode = policy.ICMPDrop
	up(t, l, loader.ModeNative, p)
	var mac frame.MAC
	l.Server.Do(t, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err == nil {
			copy(mac[:], eth0.HardwareAddr)
		}
		return err
	})
	to, v4 := frame.Ethernet{Dst: mac, Src: frame.MAC{2, 9, 9, 9, 9, 9}}, frame.IPv4{Src: lab.ClientV4, Dst: lab.ServerV4}
	about := frame.UDP{SrcPort: 5, DstPort: 6}
	send(t, l.Client,
		frame.Build(to, v4, frame.ICMPv4{Type: 0, ID: 7}),
		frame.Build(to, v4, frame.ICMPv4{Type: 3, Code: 1}, frame.IPv4{Src: lab.ServerV4, Dst: lab.ClientV4}, about),
		frame.Build(to, frame.IPv6{Src: lab.ClientV6, Dst: lab.ServerV6}, frame.ICMPv6{Type: 129, ID: 7}))
	for end := time.Now().Add(5 * time.Second); counter(t, l, "invalid icmp") < 3 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	s := status(t, l)
	if got := counter(t, l, "invalid icmp"); got != 3 {
		t.Errorf("%d packets count as invalid ICMP, want 3", got)
	}
	if s.Flows.Full != 0 || s.Refusals().Packets != 0 || len(s.Warnings) > 0 {
		t.Errorf("status says %+v and warns %q", s.Flows, s.Warnings)
	}
}

// Flows that have expired or were cut are not counted, and not listed, though no sweep has taken them out.
func TestDeadFlowsDoNotCount(t *testing.T) {
	l := lab.New(t)
	l.Client.Echo(t, 7)
	l.Server.Echo(t, 8)
	p := policyOf(t, "8/tcp")
	p.Timeouts = map[string]time.Duration{"icmp": time.Second}
	up(t, l, loader.ModeNative, p)
	mustTalk(t, mustDial(t, l.Server, "tcp", lab.ClientV4, 7), "lives")
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 8), "is cut")
	if report := closeRule(t, l, "8/tcp", true); report.Killed == 0 {
		t.Fatal("nothing was cut: the test shows nothing")
	}
	if err := ping(l.Server, lab.ClientV4); err != nil {
		t.Fatal(err)
	}
	if f := status(t, l).Flows; f.Answered != 2 || f.Pending != 0 || f.Assured > 2 {
		t.Errorf("a connection and a ping are alive, and status says %+v", f)
	}
	time.Sleep(1500 * time.Millisecond)
	if f := status(t, l).Flows; f.Answered != 1 || f.Pending != 0 || f.Assured != 1 {
		t.Errorf("a connection is alive, and status says %+v", f)
	}
	listed := 0
	with(t, l, func(f *loader.Filter) error {
		return f.Flows(func(loader.Flow) bool { listed++; return true })
	})
	if listed != 1 {
		t.Errorf("%d flows are listed, want the one that lives", listed)
	}
}

// The table keeps the limit that it was made with, and says so, whatever the policy in force asks for.
func TestTheTableKeepsItsLimit(t *testing.T) {
	l := lab.New(t)
	p := small()
	p.MaxFlows = 1025
	if report := up(t, l, loader.ModeTC, p); len(report.Warnings) > 0 {
		t.Errorf("up warns %q", report.Warnings)
	}
	p.MaxFlows = 1030 // in as many sets
	report := up(t, l, loader.ModeAuto, p)
	if text := strings.Join(report.Warnings, "\n"); !strings.Contains(text, "the flow table keeps its size of 1025 flows while the filter runs") ||
		!strings.Contains(text, "asks for 1030") {
		t.Errorf("up warns %q", report.Warnings)
	}
	if s := status(t, l); s.Flows.Max != 1025 || s.Refusals().Wanted != 1030 {
		t.Errorf("status says %+v and %+v", s.Flows, s.Refusals())
	}
	down(t, l)
	if report := up(t, l, loader.ModeTC, p); len(report.Warnings) > 0 || status(t, l).Flows.Max != 1030 {
		t.Errorf("re-created, up warns %q and status says %+v", report.Warnings, status(t, l).Flows)
	}
}

// The agent tells of it by itself, with the capabilities that its service has.
func TestTheAgentTellsOfAFullTable(t *testing.T) {
	l := lab.New(t)
	l.Client.Echo(t, 7)
	a := newAgent(t, l, "interfaces: [eth0]\nflows: {max: 1024}\n")
	a.runs("--mode", "tc")
	fill(t, l)
	const want = "warning: the flow table, for 1024 flows, had no room for "
	for end := time.Now().Add(3 * patience); !strings.Contains(a.logged(), want); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the agent does not tell of a full table:\n%s", a.logged())
		}
	}
	if !strings.Contains(a.logged(), `set "flows: {max: 2048}" in the policy file (270 kB of memory)`) {
		t.Errorf("the agent says\n%s", a.logged())
	}
}
