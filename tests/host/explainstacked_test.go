// SPDX-License-Identifier: Apache-2.0

package host

import (
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// A bridge, its port, and an interface with a dot in its name, as VLANs have, explain what then becomes of packets.
func TestExplainOnABridge(t *testing.T) {
	lab.NeedsVeth(t, "makes its interface the port of a bridge")
	l := lab.New(t)
	l.Server.IP(t, "link", "add", "br0", "type", "bridge")
	l.Server.IP(t, "addr", "flush", "dev", "eth0")
	l.Server.IP(t, "link", "set", "eth0", "master", "br0")
	l.Server.IP(t, "link", "set", "br0", "up")
	l.Server.IP(t, "addr", "add", lab.ServerV4.String()+"/24", "dev", "br0")
	addVeth(t, l, "eth0.5")
	l.Server.IP(t, "link", "set", "eth0.5", "up")
	l.Server.IP(t, "addr", "add", "10.0.5.1/24", "dev", "eth0.5")
	for _, port := range []int{80, 81, 443} {
		l.Server.Echo(t, port)
	}
	upOn(t, l, loader.ModeAuto, []string{"br0", "eth0.5"}, "80/tcp", "81/tcp on eth0", "22/tcp on eth0.5")
	k := asks(t, l)
	k.must(t, "192.0.2.2 80/tcp", "", "pass rule")
	k.must(t, "192.0.2.2 443/tcp on br0", "", "drop closed port")
	k.must(t, "192.0.2.2 81/tcp", "", "drop closed port")
	k.must(t, "10.0.5.2 22/tcp", "", "pass rule")
	k.must(t, "10.0.5.2 443/tcp on eth0.5", "", "drop closed port")
	if _, err := k.try("192.0.2.2 80/tcp on eth0", ""); err == nil {
		t.Error("the port is not filtered, and is explained")
	}
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 80), "through the bridge")
	mustNotDial(t, l.Client, lab.ServerV4, 81)
	mustNotDial(t, l.Client, lab.ServerV4, 443)

	// Both: what comes in has to get past the port and the bridge.
	upOn(t, l, loader.ModeAuto, []string{"br0", "eth0", "eth0.5"}, "80/tcp", "81/tcp on eth0")
	k = asks(t, l)
	k.must(t, "192.0.2.2 81/tcp on eth0", "", "pass rule")
	k.must(t, "192.0.2.2 81/tcp on br0", "", "drop closed port")
	k.must(t, "192.0.2.2 443/tcp on eth0", "", "drop closed port")
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 80), "past both")
	mustNotDial(t, l.Client, lab.ServerV4, 81)
}
