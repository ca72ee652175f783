// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// reasonNamed returns the reason to drop packets that has a name.
func reasonNamed(t testing.TB, name string) maps.Reason {
	t.Helper()
	for _, r := range maps.Reasons() {
		if r.String() == name && r.Verdict() == maps.Drop {
			return r
		}
	}
	t.Fatalf("there is no reason %q", name)
	return 0
}

func TestMonitor(t *testing.T) {
	h := newHost(t)
	h.types(3, "monitor")
	h.runs("open: [80/tcp]\n")
	closed := reasonNamed(t, "closed port")
	syn := build(t, ethernet(layers.EthernetTypeIPv4), ipv4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 30000, DstPort: 23, SYN: true})
	at := time.Date(2026, 11, 28, 1, 2, 3, 4e6, time.Local)
	h.Monitored = []loader.Monitored{
		{Packets: []loader.MonitoredPacket{
			{Time: at, Interface: "eth0", Reason: closed, Length: 60, Ethernet: true, Frame: syn},
			{Time: at, Interface: "a\x1b[2Jb", Outbound: true, Reason: reasonNamed(t, "forward"), Length: 1, Frame: []byte{1}},
		}, Missed: map[maps.Reason]uint64{closed: 1204331}},
		{Packets: []loader.MonitoredPacket{{Time: at, Interface: "eth0", Reason: maps.RuleReason(1), Rule: "80/tcp", Length: 60, Ethernet: true, Frame: syn}}, Notes: []string{"the filter was taken down"}},
	}
	h.types(0, "monitor", "--count", "3", "--from", "192.0.2.2", "--port", "23/tcp")
	lines := strings.Split(h.stdout, "\n")
	for i, want := range []string{
		"01:02:03.004000  eth0  drop  closed port  tcp 192.0.2.2:30000 > 192.0.2.1:23 syn, 60 bytes",
		`01:02:03.004000  a\x1b[2Jb out  drop  forward  unreadable (01), 1 byte`,
		"  closed port: 1,204,331 not shown",
		"01:02:03.004000  eth0  pass  80/tcp  tcp 192.0.2.2:30000 > 192.0.2.1:23 syn, 60 bytes",
	} {
		if i >= len(lines) || !strings.HasSuffix(lines[i], want) {
			t.Errorf("line %d is not %q:\n%s", i, want, h.stdout)
		}
	}
	if !strings.Contains(h.stderr, "warning: the filter was taken down") || strings.Contains(h.stdout, "\x1b") {
		t.Errorf("stdout %q, stderr %q", h.stdout, h.stderr)
	}
	if o := h.Asked; o.From.String() != "192.0.2.2/32" || o.Port != 23 || o.Protocol == nil || o.Snaplen != shownBytes || o.Rate != shownRate {
		t.Errorf("asked for is %+v", o)
	}

	var lined bytes.Buffer
	e := h.env()
	e.stdout, e.stderr = &lined, io.Discard
	if code := run(e, []string{"monitor", "--count", "1", "-o", "json"}); code != 0 {
		t.Errorf("exit code %d", code)
	}
	var packet shownView
	var missed missedView
	d := json.NewDecoder(bytes.NewReader(lined.Bytes()))
	if err := d.Decode(&packet); err != nil || packet.Source != "192.0.2.2" || *packet.DestinationPort != 23 || packet.Reason != "closed port" || packet.Direction != inbound || packet.Flags[0] != "syn" {
		t.Errorf("%v %+v\n%s", err, packet, lined.String())
	}
	if err := d.Decode(&missed); err != nil || missed != (missedView{1204331, "closed port"}) {
		t.Errorf("%v %+v\n%s", err, missed, lined.String())
	}

	if strings.Contains(h.stderr, "nothing was shown") {
		t.Errorf("of what shows something: %q", h.stderr)
	}
	h.types(0, "monitor", "--count", "1", "--port", "https", "--to-port", "40000")
	if o := h.Asked; o.Port != 443 || o.ToPort != 40000 {
		t.Errorf("asked for is %+v", o)
	}

	// A filter that is too narrow shows nothing, which looks as if nothing was dropped.
	h.Monitored = nil
	h.Traffic = []loader.Traffic{{Dropped: maps.Tally{Packets: 1000}}, {}}
	h.Meanwhile = func() { h.Traffic[0].Dropped.Packets, h.Traffic[1].Dropped.Packets = 2000, 234 }
	h.types(0, "monitor", "--for", "1s", "--to-port", "ssh")
	if !strings.HasSuffix(h.stderr, "portcullis: nothing was shown; 1,234 packets were dropped meanwhile\n") {
		t.Errorf("of nothing it says %q", h.stderr)
	}

	start := time.Now()
	h.types(0, "monitor", "--for", "1s")
	if took := time.Since(start); took < time.Second || took > 20*time.Second {
		t.Errorf("--for 1s took %s", took)
	}
}

func TestMonitorWrites(t *testing.T) {
	h := newHost(t)
	h.runs("open: [80/tcp]\n")
	syn := build(t, ethernet(layers.EthernetTypeIPv4), ipv4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 30000, DstPort: 23, SYN: true})
	one := loader.MonitoredPacket{Time: time.Now(), Interface: "eth0", Reason: reasonNamed(t, "closed port"), Length: len(syn), Ethernet: true, Frame: syn}
	h.Monitored = []loader.Monitored{{Packets: []loader.MonitoredPacket{one, one}, Missed: map[maps.Reason]uint64{one.Reason: 7}}}
	path := filepath.Join(t.TempDir(), "drops.pcapng")
	h.types(0, "monitor", "--write", path, "--count", "2")
	if !strings.Contains(h.stderr, "2 packets") || !strings.Contains(h.stderr, "closed port: 7 not written") || h.stdout != "" {
		t.Errorf("stdout %q, stderr %q", h.stdout, h.stderr)
	}
	if h.Asked.Snaplen != writtenFrames || h.Asked.Rate != writtenRate {
		t.Errorf("asked for is %+v", h.Asked)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := pcapgo.NewNgReader(file, pcapgo.DefaultNgReaderOptions)
	for range 2 {
		if err == nil {
			_, _, err = r.ReadPacketData()
		}
	}
	if err != nil {
		t.Error(err)
	}
	h.types(0, "monitor", "--write", "-", "--count", "2")
	if text, _ := os.ReadFile(path); h.stdout != string(text) {
		t.Errorf("standard output is %q, the file %q", h.stdout, text)
	}
	h.types(1, "monitor", "--write", "/dev/full")
	h.complains("/dev/full is no regular file")
	for _, args := range [][]string{{"--write", path, "-o", "json"}, {"--count", "-1"}, {"--from", "x"}, {"--rule", "80/tcp", "--reason", "icmp"}, {"--on", "eth5"}} {
		h.types(2, append([]string{"monitor"}, args...)...)
	}
}

// To wait for packets of an interface that nothing filters would be in vain. Of one that is not there yet, they may come.
func TestMonitorOfAnUnfilteredInterface(t *testing.T) {
	h := newHost(t)
	h.runs("")
	h.Awaited = []string{"lo", "nowhere0"}
	h.types(1, "monitor", "--on", "lo")
	h.complains("lo has appeared, and is not filtered: run \"portcullis up lo\"")
	h.types(0, "monitor", "--on", "nowhere0", "--for", "1s")
	h.types(0, "monitor", "--on", "eth0", "--for", "1s")
}
