// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/publish"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// From the first bundle on: it comes into force, what is changed by hand works and shows, and ends with the next one. What is
// wrong is refused, and what was in force stays.
func TestHostOfAFleet(t *testing.T) {
	l := lab.New(t)
	g := newGroup(t)
	l.Server.Echo(t, 8080)
	l.Server.Echo(t, 9090)
	h := g.joins("h1", l.Server, l.PinPath, "facts: {interfaces: {public: eth0}, ports: {app: 8080}}")
	h.starts()
	h.complains(fleet.StateRefused, `there is no group "web"`)
	const policyText = "interfaces: [{{interfaces.public}}]\nopen:\n  - {{ports.app}}/tcp   # the app of {{host.name}}\n"
	g.publishes(policyText, "")
	h.runs(1)
	h.opens("8080/tcp")
	if !reaches(l, 8080) || reaches(l, 9090) {
		t.Error("the policy is in force, and packets say otherwise")
	}
	text, err := os.ReadFile(h.file())
	if want := "interfaces: [eth0]\nopen:\n  - 8080/tcp   # the app of h1\n"; err != nil || string(text) != want {
		t.Errorf("the policy file is %q, %v", text, err)
	}

	// By hand.
	h.types("open", "9090/tcp")
	if !reaches(l, 9090) {
		t.Error("what was opened by hand is closed")
	}
	h.waitsFor("drift", func() bool { return slices.Equal(h.says().Drift, []string{"+ open 9090/tcp"}) })
	report := g.publishes(policyText+"  - 7070/tcp\n", "")
	if len(report.Drift) != 1 || report.Drift[0].Host != "h1" {
		t.Errorf("what will end is %v", report.Drift)
	}
	if d := report.Differences; len(d) != 1 || !slices.Equal(d[0].Hosts, []string{"h1"}) || !slices.Equal(d[0].Packets, []string{"7070/tcp: nobody -> anybody"}) {
		t.Errorf("what changes is %+v", d)
	}
	h.runs(2)
	h.opens("7070/tcp", "8080/tcp")
	if h.waitsFor("end of drift", func() bool { return len(h.says().Drift) == 0 }); reaches(l, 9090) {
		t.Error("what was opened by hand outlives the next bundle")
	}

	// A policy for an interface that is not there, and then it comes.
	g.publishes("interfaces: [eth0, eth5]\nopen: [8080/tcp]\n", "")
	h.complains(fleet.StateRefused, "interfaces that this host lacks: eth5")
	h.opens("7070/tcp", "8080/tcp")
	if s := h.says(); s.Serial != 2 || s.Tried != 3 {
		t.Errorf("it runs %d, and has looked at %d", s.Serial, s.Tried)
	}

	// An older bundle, one of somebody else, one that was altered, one of another group.
	good, err := g.Store.Get(t.Context(), fleet.PointerKey("web"))
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string, value []byte) {
		t.Helper()
		if err := g.Store.Put(t.Context(), key, value, store.Any); err != nil {
			t.Fatal(err)
		}
	}
	current, err := g.Current(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	seal := func(p fleet.Pointer, key *fleet.PrivateKey) []byte {
		t.Helper()
		object, err := p.Seal(key)
		if err != nil {
			t.Fatal(err)
		}
		return object
	}
	put(fleet.PointerKey("web"), seal(fleet.Pointer{Group: "web", Target: fleet.Target{Bundle: current.Pointer.Bundle, Serial: 1}}, g.key))
	h.complains(fleet.StateRefused, "bundle 1 of group web is older than 2")
	stranger, err := fleet.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	put(fleet.PointerKey("web"), seal(fleet.Pointer{Group: "web", Target: fleet.Target{Bundle: current.Pointer.Bundle, Serial: 9}}, stranger))
	h.complains(fleet.StateRefused, "not signed by a key that is trusted here")
	put(fleet.PointerKey("web"), seal(fleet.Pointer{Group: "db", Target: fleet.Target{Bundle: current.Pointer.Bundle, Serial: 9}}, g.key))
	h.complains(fleet.StateRefused, `the pointer is that of group "db"`)
	object, err := g.Store.Get(t.Context(), fleet.BundleKey(current.Pointer.Bundle))
	if err != nil {
		t.Fatal(err)
	}
	put(fleet.BundleKey(current.Pointer.Bundle), []byte(strings.Replace(string(object.Value), "8080/tcp", "1-65535/tcp", 1)))
	put(fleet.PointerKey("web"), good.Value)
	h.complains(fleet.StateRefused, "the bundle is not the one that is wanted")
	h.opens("7070/tcp", "8080/tcp")
	put(fleet.PointerKey("web"), good.Value[:len(good.Value)/2])
	h.complains(fleet.StateRefused, "not signed by a key")

	// What is right again goes on.
	put(fleet.BundleKey(current.Pointer.Bundle), object.Value)
	put(fleet.PointerKey("web"), good.Value)
	h.complains(fleet.StateRefused, "interfaces that this host lacks: eth5")
	if _, err := g.Rollback(t.Context(), 0, publish.Request{Group: "web", Key: g.key}); err != nil {
		t.Fatal(err)
	}
	h.runs(4)
	h.opens("7070/tcp", "8080/tcp")
}

// The store is away when the host starts, for as long as it likes: what was in force is. Then it is back.
func TestStoreIsAway(t *testing.T) {
	l := lab.New(t)
	g := newGroup(t)
	h := g.joins("h1", l.Server, l.PinPath)
	g.publishes("interfaces: [eth0]\nopen: [8080/tcp]\n", "")
	h.startsConfined()
	h.complains(fleet.StateRefused, "portcullis.yaml cannot be written, so no policy could be kept: read-only file system")
	h.ends(unix.SIGTERM)
	h.starts()
	h.runs(1)
	h.ends(unix.SIGKILL)
	h.types("down") // as after a boot
	away := g.root + "-away"
	if err := os.Rename(g.root, away); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(away) })
	h.starts()
	h.waitsFor("filter", func() bool { return slices.Equal(h.open(), []string{"8080/tcp"}) })
	h.waitsFor("complaint", func() bool { return strings.Contains(h.logged(), "the folder of the fleet cannot be reached") })
	if err := os.Rename(away, g.root); err != nil {
		t.Fatal(err)
	}
	g.publishes("interfaces: [eth0]\nopen: [9090/tcp]\n", "")
	h.runs(2)
	h.opens("9090/tcp")
	// A file that is bad keeps the filter from nothing.
	if err := os.WriteFile(h.fleetFile(), []byte("from: dir:/\nkeys: fleet.pub\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.waitsFor("complaint", func() bool {
		return strings.Contains(h.logged(), `fleet.yaml:2: unknown key "keys": the keys are from, key, group`)
	})
	h.opens("9090/tcp")
}

// A policy under which the host cannot be reached comes back by itself, and is not tried again.
func TestBadPolicyReverts(t *testing.T) {
	l := lab.New(t)
	g := newGroup(t)
	l.Server.Echo(t, 2222)
	l.Client.Echo(t, 7777)
	h1 := g.joins("h1", l.Server, l.PinPath, "address: "+lab.ServerV4.String())
	h2 := g.joins("h2", l.Client, l.PinPath+"-2", "address: "+lab.ClientV4.String())
	t.Cleanup(func() { os.RemoveAll(l.PinPath + "-2") })
	h1.starts()
	h2.starts()
	const probes = "probes: ['2222/tcp from h2,h1', 'connect 192.0.2.2:7777']\nwithin: 5s\n"
	g.publishes("interfaces: [eth0]\nopen: [2222/tcp, 7777/tcp]\n", "")
	h1.runs(1)
	h2.runs(1)
	bad := func(policyText, why string) {
		t.Helper()
		r, err := g.Publish(t.Context(), g.source(policyText, probes), publish.Request{Group: "web", Key: g.key, Waves: []publish.Wave{{Hosts: 1}}, Patience: patience})
		var stopped *publish.StoppedError
		if !errors.As(err, &stopped) || len(stopped.Wave.Failed) != 1 || !strings.HasPrefix(stopped.Wave.Failed[0], "host h1: ") {
			t.Fatalf("the wave ended with %v", err)
		}
		h1.complains(fleet.StateReverted, why)
		if s := h1.says(); s.Serial != 1 || s.Tried != r.Serial {
			t.Errorf("it runs %d, and has tried %d", s.Serial, s.Tried)
		}
		h1.opens("2222/tcp", "7777/tcp")
		if !reaches(l, 2222) {
			t.Error("the host is lost")
		}
		if s := h2.says(); s.Serial != 1 || s.State != fleet.StateInForce {
			t.Errorf("the host that the wave has not reached says %+v", s)
		}
	}
	bad("interfaces: [eth0]\nopen: [22/tcp]\n", `probe "2222/tcp from h2,h1": h2: dial tcp 192.0.2.1:2222`)
	bad("interfaces: [eth0]\nopen: [2222/tcp]\nblock: [192.0.2.2]\n", `probe "connect 192.0.2.2:7777": dial tcp 192.0.2.2:7777: i/o timeout`)
	time.Sleep(time.Second)
	if n := strings.Count(h1.logged(), "of group web is on trial"); n != 3 {
		t.Errorf("there were %d trials, want 3", n)
	}
}

// A host is killed at any moment of an apply: what was in force is, or what is to be. In the end it is that.
func TestAgentIsKilledDuringApply(t *testing.T) {
	l := lab.New(t)
	g := newGroup(t)
	h := g.joins("h1", l.Server, l.PinPath)
	policies := []string{"interfaces: [eth0]\nopen: [1000/tcp, 1001/tcp]\n", "interfaces: [eth0]\nopen: [2000/tcp, 2001/tcp]\n"}
	rules := [][]string{{"1000/tcp", "1001/tcp"}, {"2000/tcp", "2001/tcp"}}
	g.publishes(policies[0], "within: 2s")
	h.starts()
	h.runs(1)
	for i := 1; i <= *manyKills; i++ {
		serial := g.publishes(policies[i%2], "within: 2s").Serial
		time.Sleep(rand.N(600 * time.Millisecond))
		h.ends(unix.SIGKILL)
		got := h.open()
		if !slices.Equal(got, rules[0]) && !slices.Equal(got, rules[1]) {
			t.Fatalf("after kill %d, %q is open", i, got)
		}
		h.starts()
		h.runs(serial)
		h.opens(rules[i%2]...)
	}
	// A state that is damaged is not taken for none.
	h.ends(unix.SIGTERM)
	if err := os.WriteFile(filepath.Join(h.dir, "fleet", "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.starts()
	g.publishes(policies[(*manyKills+1)%2], "")
	h.waitsFor("complaint", func() bool {
		return strings.Contains(h.logged(), "nothing of the fleet is taken until it is mended or removed")
	})
	h.opens(rules[*manyKills%2]...)
}
