// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"github.com/portcullis-firewall/portcullis/firewall/propose"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

func TestWatch(t *testing.T) {
	h := newHost(t)
	h.types(3, "watch")
	h.runs("enforce: false\nopen: [80/tcp]\n")
	closed := reasonNamed(t, "closed port").Watched()
	syn := build(t, ethernet(layers.EthernetTypeIPv4), ipv4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 30000, DstPort: 23, SYN: true})
	at := time.Date(2026, 11, 28, 1, 2, 3, 4e6, time.Local)
	h.Addrs = append(h.Addrs, netip.MustParseAddr("192.0.2.1"))
	h.Monitored = []loader.Monitored{
		{Packets: []loader.MonitoredPacket{{Time: at, Interface: "eth0", Reason: closed, Length: 60, Ethernet: true, Frame: syn}}, Missed: map[maps.Reason]uint64{closed: 1204331}},
	}
	h.types(0, "watch", "--propose", "--for", "1s")
	p, err := policy.Parse("proposed.yaml", []byte(h.stdout))
	if err != nil || p.WatchOnly || !slices.Equal(policy.Texts(p.Open), []string{"80/tcp", "23/tcp from 192.0.2.2"}) {
		t.Errorf("%v, proposed is\n%s", err, h.stdout)
	}
	if !strings.Contains(h.stdout, "  - 23/tcp from 192.0.2.2  # 1 packet from 1 source, last 01:02:03\n") ||
		!strings.Contains(h.stdout, "# 1,204,331 more packets came too fast to be looked at.\n") || !strings.Contains(h.stderr, "looking at what would be dropped") {
		t.Errorf("%s\n%s", h.stdout, h.stderr)
	}
	if !slices.Equal(h.Asked.Reasons, propose.Reasons()) {
		t.Errorf("the monitor is asked for %v", h.Asked.Reasons)
	}
	h.types(0, "watch", "--for", "1s")
	if !strings.Contains(h.stdout, "23/tcp from 192.0.2.2  1 packet from 1 source, last 01:02:03\n") {
		t.Errorf("the table is\n%s", h.stdout)
	}
	h.types(0, "watch", "--for", "1s", "-o", "json")
	var out propose.Proposal
	if err := json.Unmarshal([]byte(h.stdout), &out); err != nil || out.Enforcing || len(out.Needs) != 1 || out.Missed != 1204331 {
		t.Errorf("%v, in JSON it is\n%s", err, h.stdout)
	}
	h.types(2, "watch", "--propose", "-o", "json")
	h.Running.WatchOnly = false
	h.Monitored = nil
	h.types(0, "watch", "--for", "1s")
	if !strings.Contains(h.stdout, "nothing that a rule would let in") || !strings.Contains(h.stdout, "The filter drops: ") || !strings.Contains(h.stderr, "looking at what is dropped") {
		t.Errorf("%s\n%s", h.stdout, h.stderr)
	}
}
