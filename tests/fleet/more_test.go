// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/publish"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

var (
	manyHosts = flag.Int("hosts", 1, "how many hosts are in the group of TestGroup")
	manyKills = flag.Int("kills", 2, "how often the agent is killed in TestAgentIsKilledDuringApply")
	manyBad   = flag.Int("bad", 1, "how many bad policies TestBadPolicies publishes")
)

// banned returns whom a host bans.
func (h *host) banned() string { return h.types("bans") }

// Whom a host bans the others ban, too, and whom the operators do, as soon as they hear of it.
func TestBansTravel(t *testing.T) {
	l := lab.New(t)
	g := newGroup(t)
	h1 := g.joins("h1", l.Server, l.PinPath)
	h2 := g.joins("h2", l.Client, l.PinPath+"-2")
	t.Cleanup(func() { os.RemoveAll(l.PinPath + "-2") })
	g.publishes("interfaces: [eth0]\nopen: [22/tcp]\n", "bans: {hosts: true, most: 5}\n")
	h1.starts()
	h2.starts()
	h1.runs(1)
	h2.runs(1)
	began := time.Now()
	h1.types("ban", "203.0.113.7", "--for", "1h", "--reason", "sshd")
	h2.waitsFor("ban of 203.0.113.7", func() bool { return strings.Contains(h2.banned(), "203.0.113.7") })
	t.Logf("a ban took %v from one host to the other, with the command and the look", time.Since(began).Round(time.Millisecond))
	h1.types("unban", "203.0.113.7")
	h2.waitsFor("end of the ban", func() bool { return !strings.Contains(h2.banned(), "203.0.113.7") })

	// What a host has been told of it does not tell as its own: a ban would never end.
	request := publish.BanRequest{Group: "web", Key: g.key, Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Reason: "noise"}
	if _, err := g.Ban(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host{h1, h2} {
		h.waitsFor("ban of 198.51.100.0/24", func() bool { return strings.Contains(h.banned(), "198.51.100.0/24") })
	}
	request.End = true
	if _, err := g.Ban(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host{h1, h2} {
		h.waitsFor("end of the ban", func() bool { return !strings.Contains(h.banned(), "198.51.100.0/24") })
	}

	// There are no more of them than the bundle says, and whom a host lives on it does not ban.
	h1.types("ban", "203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5", "203.0.113.6", "203.0.113.7")
	h2.waitsFor("five bans", func() bool { return strings.Count(h2.banned(), "203.0.113.") == 5 })
	time.Sleep(time.Second)
	if text := h2.banned(); strings.Count(text, "203.0.113.") != 5 {
		t.Errorf("seven are banned, five at most travel, and there are\n%s", text)
	}
}

// By HTTPS: the server is asked anew under the new policy, and a host writes nothing but its own.
func TestByHTTPS(t *testing.T) {
	l := lab.New(t)
	g := newGroup(t)
	h := g.joins("h1", l.Server, l.PinPath)
	issue := h.command("fleet", "serve", g.root, "--issue", "h1")
	issue.Dir = h.dir
	if out, err := issue.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := l.Client.Command(g.program, "fleet", "serve", g.root, "--listen", "192.0.2.2:8443")
	stderr, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	lines := bufio.NewScanner(stderr)
	for lines.Scan() && !strings.Contains(lines.Text(), "is served at https://192.0.2.2:8443") {
	}
	h.configures("https://192.0.2.2:8443", "ca: "+filepath.Join(g.root, ".serve", "ca.crt"), "certificate: h1.crt", "private: h1.key")
	g.publishes("interfaces: [eth0]\nopen: [8080/tcp]\n", "within: 6s")
	h.starts()
	h.runs(1)
	hosts, err := g.Hosts(t.Context(), "web", nil)
	if err != nil || len(hosts) != 1 || !hosts[0].Present {
		t.Errorf("the hosts are %+v, %v", hosts, err)
	}
	g.publishes("interfaces: [eth0]\nopen: [9090/tcp]\nblock: [192.0.2.2]\n", "within: 6s")
	h.complains(fleet.StateReverted, "the store cannot be reached anew")
	h.opens("8080/tcp")
	began := time.Now()
	g.publishes("interfaces: [eth0]\nopen: [7070/tcp]\n", "")
	h.runs(3)
	t.Logf("a bundle took %v to be in force", time.Since(began).Round(time.Millisecond))
	h.opens("7070/tcp")
}

// A group of hosts, each with its datapath, gets bundles in waves.
func TestGroup(t *testing.T) {
	g := newGroup(t)
	var hosts []*host
	for i := range *manyHosts {
		l := lab.New(t)
		h := g.joins(fmt.Sprintf("h%d", i+1), l.Server, l.PinPath)
		h.starts()
		hosts = append(hosts, h)
	}
	g.publishes("interfaces: [eth0]\nopen: [8080/tcp]\n", "")
	for _, h := range hosts {
		h.runs(1)
	}
	waves, err := publish.ParseWaves(publish.DefaultWaves)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	report, err := g.Publish(t.Context(), g.source("interfaces: [eth0]\nlists: {office: {file: office.txt}}\nopen: ['9090/tcp from @office']\n", ""), publish.Request{Group: "web", Key: g.key, Waves: waves, Patience: patience})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		h.opens("9090/tcp from @office")
	}
	t.Logf("%d hosts in %d waves took %v", len(hosts), len(report.Waves), time.Since(began).Round(time.Millisecond))
}

// No bad policy loses a host: what is in force is always what was confirmed last.
func TestBadPolicies(t *testing.T) {
	l := lab.New(t)
	g := newGroup(t)
	l.Client.Echo(t, 7777)
	h := g.joins("h1", l.Server, l.PinPath)
	h.starts()
	g.publishes("interfaces: [eth0]\nopen: [8080/tcp]\n", "")
	h.runs(1)
	random := rand.New(rand.NewPCG(1, 2))
	reverted, refused := 0, 0
	for range *manyBad {
		port := 1 + random.IntN(65535)
		text := []string{
			fmt.Sprintf("interfaces: [eth0]\nopen: [%d/tcp]\nblock: [192.0.2.0/%d]\n", port, 24+random.IntN(7)),
			fmt.Sprintf("interfaces: [eth0]\nopen: [all]\nblock: [192.0.2.2]\nicmp: drop # %d\n", port),
			fmt.Sprintf("interfaces: [eth0, eth%d]\nopen: [all]\n", port%9+1),
		}[random.IntN(3)]
		serial := g.publishes(text, "probes: ['connect 192.0.2.2:7777']\nwithin: 2s\n").Serial
		h.waitsFor("end of the trial", func() bool {
			s := h.says()
			return s.Tried == serial && (s.State == fleet.StateReverted || s.State == fleet.StateRefused)
		})
		if h.says().State == fleet.StateReverted {
			reverted++
		} else {
			refused++
		}
		if got := h.open(); !slices.Equal(got, []string{"8080/tcp"}) {
			t.Fatalf("bundle %d left %q open: %s", serial, got, text)
		}
	}
	t.Logf("of %d bad policies %d were reverted and %d refused, and no host was lost", *manyBad, reverted, refused)
	g.publishes("interfaces: [eth0]\nopen: [9090/tcp]\n", "")
	h.waitsFor("good policy", func() bool { return slices.Equal(h.open(), []string{"9090/tcp"}) })
}
