// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// Devices is the variable that names two interfaces of this machine on one wire, such as eth0,eth1. They join the hosts
// in place of a veth pair, so that the same tests run on another driver.
const Devices = "PORTCULLIS_LAB_DEVICES"

// lent tells that a lab has the devices.
var lent atomic.Bool

// NeedsVeth skips a test that is not possible between devices of this machine.
func NeedsVeth(t testing.TB, why string) {
	t.Helper()
	if os.Getenv(Devices) != "" {
		t.Skip("needs a veth pair: " + why)
	}
}

// join connects the two hosts.
func (l *Lab) join(t testing.TB) {
	t.Helper()
	names := os.Getenv(Devices)
	if names == "" {
		l.Server.IP(t, "link", "add", "name", "eth0", "type", "veth", "peer", "name", "eth0", "netns", l.Client.Name)
		return
	}
	server, client, ok := strings.Cut(names, ",")
	if !ok {
		t.Fatalf("%s=%s: want two names with a comma between them", Devices, names)
	}
	if !lent.CompareAndSwap(false, true) {
		t.Skip("needs a veth pair: another lab of the same test has the devices")
	}
	t.Cleanup(func() { lent.Store(false) })
	l.Server.borrow(t, server)
	l.Client.borrow(t, client)
	// Before the devices go home: a filter would go with them.
	t.Cleanup(func() { os.RemoveAll(l.PinPath) })
}

// borrow moves an interface of this machine into the host, as eth0, until the test ends.
func (h *Host) borrow(t testing.TB, name string) {
	t.Helper()
	run(t, "ip", "link", "set", name, "netns", h.Name, "name", "eth0", "mtu", "1500")
	t.Cleanup(func() {
		back := exec.Command("ip", "-n", h.Name, "link", "set", "eth0", "netns", "1", "name", name)
		if out, err := back.CombinedOutput(); err != nil {
			t.Errorf("%s does not come back: %v: %s", name, err, out)
		}
	})
}
