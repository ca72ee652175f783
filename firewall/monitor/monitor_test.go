// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// syn is a SYN to a port, in a frame of Ethernet or bare.
func syn(source string, port uint16, ethernet bool) []byte {
	of := []gopacket.SerializableLayer{
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.ParseIP(source), DstIP: net.IP{192, 0, 2, 1}},
		&layers.TCP{SrcPort: 40000, DstPort: layers.TCPPort(port), SYN: true},
	}
	if ethernet {
		of = append([]gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4}}, of...)
	}
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true}, of...); err != nil {
		panic(err)
	}
	return buffer.Bytes()
}

func reasonOf(t testing.TB, name string) maps.Reason {
	t.Helper()
	drops, err := reasonsNamed(name, false)
	if err != nil {
		t.Fatal(err)
	}
	return drops[0]
}

func packets(t testing.TB) []loader.MonitoredPacket {
	at := time.Date(2026, 11, 28, 18, 0, 0, 123456789, time.UTC)
	return []loader.MonitoredPacket{
		{Time: at, Interface: "eth0", Reason: reasonOf(t, "closed port"), Length: 60, Ethernet: true, Frame: syn("203.0.113.9", 23, true)},
		{Time: at.Add(time.Microsecond), Interface: "wg0", Reason: maps.RuleReason(3), Rule: "80/tcp from 203.0.113.0/24", Length: 40, Frame: syn("203.0.113.9", 80, false)},
		{Time: at.Add(time.Second), Interface: "eth0", Outbound: true, Reason: reasonOf(t, "forward"), Length: 1514, Ethernet: true, Frame: syn("203.0.113.9", 24, true)},
	}
}

// What is written is read by somebody else's reader, byte for byte, and by tshark where that is installed.
func TestCapture(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drops.pcapng")
	c, err := CreateCapture(path, "portcullis test", 128)
	if err != nil {
		t.Fatal(err)
	}
	want := packets(t)
	if err := errors.Join(c.Write(want[:1]), c.Write(want[1:]), c.Close()); err != nil || c.Packets() != len(want) {
		t.Fatalf("%d packets, %v", c.Packets(), err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := pcapgo.NewNgReader(file, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	comments := []string{"drop: closed port", "pass: 80/tcp from 203.0.113.0/24", "drop: forward"}
	for i, p := range want {
		data, about, options, err := r.ReadPacketDataWithOptions()
		if err != nil {
			t.Fatal(err)
		}
		face, err := r.Interface(about.InterfaceIndex)
		if err != nil || face.Name != p.Interface {
			t.Errorf("packet %d is on %q, %v", i, face.Name, err)
		}
		if link := face.LinkType; p.Ethernet != (link == layers.LinkTypeEthernet) {
			t.Errorf("packet %d has the link type %s", i, link)
		}
		if !bytes.Equal(data, p.Frame) || about.Length != p.Length || !about.Timestamp.Equal(p.Time) || len(options.Comments) != 1 || options.Comments[0] != comments[i] {
			t.Errorf("packet %d: %+v %q", i, about, options.Comments)
		}
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last one: %v", err)
	}
	tshark, err := exec.LookPath("tshark")
	if err != nil && os.Getenv("PORTCULLIS_CI") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip("no tshark is installed")
	}
	out, err := exec.Command(tshark, "-r", path, "-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment", "-e", "tcp.dstport").CombinedOutput()
	for i, line := range []string{"eth0\tdrop: closed port\t23", "wg0\tpass: 80/tcp from 203.0.113.0/24\t80", "eth0\tdrop: forward\t24"} {
		if err != nil || !strings.Contains(string(out), line) {
			t.Errorf("tshark shows packet %d differently: %v\n%s", i, err, out)
		}
	}
}

// A link that stands where the file is to be may be anybody's.
// What a rule of thousands of sources lets in has a comment that a file can hold.
func TestCaptureOfALongRule(t *testing.T) {
	rule := "80/tcp from " + strings.Repeat("203.0.113.9,", 10_000) + "ü"
	for n := range 3 { // wherever it is cut
		var b bytes.Buffer
		c, err := NewCapture(&b, "test", 100)
		if err != nil {
			t.Fatal(err)
		}
		p := loader.MonitoredPacket{Time: time.Unix(1, 0), Interface: "eth0", Reason: maps.RuleReason(1), Rule: strings.Repeat("ü", 100*n) + rule, Frame: []byte("packet")}
		if err := c.Write([]loader.MonitoredPacket{p, p}); err != nil {
			t.Fatal(err)
		}
		r, err := pcapgo.NewNgReader(&b, pcapgo.NgReaderOptions{WantMixedLinkType: true})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if frame, _, err := r.ReadPacketData(); err != nil || string(frame) != "packet" {
				t.Errorf("a packet is %q, %v", frame, err)
			}
		}
		if comment := Comment(&p); !utf8.ValidString(comment) || len(comment) > longestComment+3 || !strings.HasPrefix(comment, "pass: ") {
			t.Errorf("its comment is %q", comment)
		}
	}
}

// A file with another name may be one that root needs: whoever may write to the directory has linked it there.
func TestCaptureEmptiesNothingElse(t *testing.T) {
	dir := t.TempDir()
	needed, linked := filepath.Join(dir, "needed"), filepath.Join(dir, "drops.pcapng")
	if err := errors.Join(os.WriteFile(needed, []byte("needed"), 0o600), os.Link(needed, linked)); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateCapture(linked, "test", 100); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("%v", err)
	}
	if text, err := os.ReadFile(needed); err != nil || string(text) != "needed" {
		t.Errorf("%q is left, %v", text, err)
	}
}

func TestCaptureFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	victim, trap := filepath.Join(dir, "victim"), filepath.Join(dir, "trap")
	if err := errors.Join(os.WriteFile(victim, []byte("dear"), 0o600), os.Symlink(victim, trap)); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateCapture(trap, "x", 128); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a link is followed: %v", err)
	}
	if text, _ := os.ReadFile(victim); string(text) != "dear" {
		t.Errorf("the file behind the link holds %q", text)
	}
}

// full is a disk that has room for so many bytes.
type full struct {
	bytes.Buffer
	room int
}

func (f *full) Write(b []byte) (int, error) {
	n := min(len(b), f.room-f.Len())
	f.Buffer.Write(b[:n])
	if n < len(b) {
		return n, errors.New("no space left on device")
	}
	return n, nil
}

func TestFullDiskIsTold(t *testing.T) {
	var whole bytes.Buffer
	c, err := NewCapture(&whole, "x", 128)
	if err == nil {
		err = c.Write(packets(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	for room := whole.Len() - 1; room > 60; room -= 7 {
		f := &full{room: room}
		c, err := NewCapture(f, "x", 128)
		if err != nil {
			continue
		}
		err = c.Write(packets(t))
		told := new(CaptureError)
		if !errors.As(err, &told) || told.Packets != c.Packets() || told.Packets >= 3 || !strings.Contains(err.Error(), fmt.Sprintf("it holds %d packet", told.Packets)) {
			t.Fatalf("with room for %d bytes: %v, %d packets", room, err, c.Packets())
		}
		r, err := pcapgo.NewNgReader(bytes.NewReader(f.Bytes()), pcapgo.NgReaderOptions{WantMixedLinkType: true})
		n := 0
		for err == nil {
			if _, _, err = r.ReadPacketData(); err == nil {
				n++
			}
		}
		if n != told.Packets {
			t.Errorf("with room for %d bytes it holds %d packets, and says %d", room, n, told.Packets)
		}
	}
}

// On a disk that is full the file ends with a packet that is whole.
func TestFullFileCanBeRead(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "drops.pcapng")
	c, err := CreateCapture(path, "x", 128)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(packets(t)); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	file := c.w.(*os.File)
	c.w = &torn{file, 50} // half of the next packet
	if err := c.Write(packets(t)); err == nil || c.Packets() != 3 {
		t.Errorf("%v, %d packets", err, c.Packets())
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Errorf("the file has %d bytes, and had %d", len(after), len(before))
	}
	c.w = file
	_ = c.Close()
}

// torn writes a few bytes and fails.
type torn struct {
	w io.Writer
	n int
}

func (w *torn) Write(b []byte) (int, error) {
	n, err := w.w.Write(b[:w.n])
	return n, errors.Join(err, errors.New("no space left on device"))
}

func TestRequests(t *testing.T) {
	var rules []policy.Rule
	for _, text := range []string{"80/tcp", "22/tcp from 203.0.113.0/24", "443/tcp on eth1"} {
		rule, err := policy.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, rule)
	}
	for _, c := range []struct {
		r    Request
		want string // of the error
	}{
		{Request{}, ""},
		{Request{From: "203.0.113.9", To: "192.0.2.0/24", Port: "443/tcp", Reasons: []string{"closed-port"}}, ""},
		{Request{Rule: "22/tcp from 203.0.113.0/24", From: "203.0.113.9"}, ""},
		{Request{Reasons: []string{"established"}}, ""},
		{Request{From: "192.0.2.1", To: "2001:db8::1"}, "no packet goes from"},
		{Request{From: "203.0.113.9/24"}, "write 203.0.113.9, or 203.0.113.0/24"},
		{Request{From: "example.net"}, "write an address"},
		{Request{Port: "0"}, "from 1 to 65535"},
		{Request{ToPort: "0"}, "--to-port \"0\""},
		{Request{Port: "ssh", ToPort: "40000"}, ""},
		{Request{Port: "htps"}, "unknown service"},
		{Request{Port: "gre"}, "no port"},
		{Request{ToPort: "all"}, "no port"},
		{Request{Port: "53/udp", ToPort: "1/tcp"}, "one is of udp, the other of tcp"},
		{Request{ToPort: "80", Reasons: []string{"icmp"}}, "leave out --to-port"},
		{Request{Port: "1/icmp"}, "have ports"},
		{Request{Port: "80", Reasons: []string{"icmp"}}, "has a port"},
		{Request{From: "192.0.2.1", Reasons: []string{"not ip"}}, "has an address"},
		{Request{Reasons: []string{"closd port"}}, `did you mean "closed port"?`},
		{Request{Reasons: []string{"invalid flags"}}, "--reason invalid"},
		{Request{Reasons: []string{"flows full"}}, "no verdict"},
		{Request{Interfaces: []string{"eth7"}}, "eth7 is not filtered, so none of its packets can be shown: write --on eth0,eth1"},
		{Request{Rule: "81/tcp"}, `"81/tcp" is not in force: did you mean "80/tcp"?`},
		{Request{Rule: "22/tcp from 203.0.113.0/24", From: "198.51.100.1"}, "about other packets"},
		{Request{Rule: "80/tcp", ToPort: "81/tcp"}, "about other packets"},
		{Request{Rule: "80/tcp", ToPort: "http"}, ""},
		{Request{Rule: "443/tcp on eth1", Interfaces: []string{"eth0"}}, "about other packets"},
		{Request{Rule: "80/tcp", Reasons: []string{"icmp"}}, "leave out --rule or --reason"},
		{Request{Snaplen: 70000}, "--snaplen 70000"},
		{Request{Rate: -1}, "--rate -1"},
		{Request{Rate: 1 << 32}, "--rate 4294967296: write 1 to 1000000000"}, // of which the datapath would see 0
	} {
		if c.r.Snaplen == 0 {
			c.r.Snaplen = 128
		}
		if c.r.Rate == 0 {
			c.r.Rate = 1
		}
		_, err := c.r.Options([]string{"eth0", "eth1"}, rules)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.r, err, c.want)
		}
	}
}

// Ports are named as in rules, at either end or at that of the destination.
func TestPortsOfARequest(t *testing.T) {
	tcp, udp := policy.TCP, policy.UDP
	for _, c := range []struct {
		port, toPort string
		wantPort     uint16
		wantToPort   uint16
		protocol     *policy.Protocol
	}{
		{"ssh", "", 22, 0, &tcp},
		{"", "ssh", 0, 22, &tcp},
		{"", "SSH", 0, 22, &tcp},
		{"", "domain", 0, 53, nil},
		{"domain", "40000/udp", 53, 40000, &udp},
		{"53", "40000", 53, 40000, nil},
	} {
		o, err := Request{Port: c.port, ToPort: c.toPort, Snaplen: 1, Rate: 1}.Options(nil, nil)
		if err != nil || o.Port != c.wantPort || o.ToPort != c.wantToPort || (o.Protocol == nil) != (c.protocol == nil) || c.protocol != nil && *o.Protocol != *c.protocol {
			t.Errorf("--port %q --to-port %q: %d, %d, %v, %v", c.port, c.toPort, o.Port, o.ToPort, o.Protocol, err)
		}
	}
}

// A reason that is asked for drops; with Pass, or where none drops, it lets pass.
func TestReasonsOfOneName(t *testing.T) {
	for _, c := range []struct {
		name           string
		pass           bool
		drops, letPass int
	}{{"icmp", false, 1, 0}, {"icmp", true, 1, 1}, {"Closed Port", true, 1, 0}, {"established", false, 0, 1}} {
		found, err := reasonsNamed(c.name, c.pass)
		drops, letPass := 0, 0
		for _, r := range found {
			switch r.Verdict() {
			case maps.Drop:
				drops++
			case maps.Pass:
				letPass++
			}
		}
		if err != nil || drops != c.drops || letPass != c.letPass {
			t.Errorf("%+v: %v, %v", c, found, err)
		}
	}
}

func TestJournal(t *testing.T) {
	j, now := NewJournal(), time.Unix(1000, 0)
	logged := func(source string) *Record {
		return j.Add(loader.LoggedPacket{Interface: "eth0", Reason: "closed port", Length: 54, Ethernet: true, Frame: syn(source, 23, true)}, now)
	}
	r := logged("198.51.100.7")
	if r == nil || r.Message != "closed port on eth0: tcp 198.51.100.7:40000 > 192.0.2.1:23 syn, 54 bytes" ||
		r.Fields["SOURCE"] != "198.51.100.7" || r.Fields["DESTINATION_PORT"] != "23" || r.Fields["REASON"] != "closed port" || r.Fields["INTERFACE"] != "eth0" {
		t.Fatalf("%+v", r)
	}
	for range 1204 {
		if logged("198.51.100.7") != nil {
			t.Fatal("a flood is written")
		}
	}
	written := 0
	for i := range 5000 {
		if logged(fmt.Sprintf("203.0.%d.%d", i/250, i%250+1)) != nil {
			written++
		}
	}
	if written > mostSources+1 || len(j.more) > mostSources+2 {
		t.Errorf("of 5000 sources %d are written, and %d kept", written, len(j.more))
	}
	if j.Due(now.Add(JournalTime-1)) || !j.Due(now.Add(JournalTime)) {
		t.Error("it is time too soon, or never")
	}
	got := j.Summaries(now.Add(JournalTime), nil)
	if len(got) != 2 || got[0].Message != fmt.Sprintf("closed port: %s more from other sources in 10s", Thousands(uint64(5000-written))) ||
		got[1].Message != "closed port: 1,204 more from 198.51.100.7 in 10s" || got[1].Fields["PACKETS"] != "1204" {
		t.Errorf("%+v", got)
	}
	if logged("198.51.100.7") == nil {
		t.Error("it does not begin anew")
	}
	logged("198.51.100.7")
	if got := j.Summaries(now.Add(time.Second), nil); len(got) != 1 || got[0].Fields["PACKETS"] != "1" {
		t.Errorf("at the end: %+v", got)
	}
}

// The journal is given a part of a flood; how large it was, the ledger knows.
func TestJournalSaysHowLargeAFloodWas(t *testing.T) {
	j, now := NewJournal(), time.Unix(1000, 0)
	j.Begin(map[string]uint64{"closed port": 1000, "invalid flags": 7, "banned": 5}, []string{"closed port", "invalid flags", "banned"})
	says := func(counted map[string]uint64, want ...string) {
		t.Helper()
		for _, reason := range []string{"closed port", "closed port", "closed port", "invalid flags", "invalid flags", "banned", "banned"} {
			j.Add(loader.LoggedPacket{Reason: reason, Interface: "eth0", Length: 54, Ethernet: true, Frame: syn("203.0.113.9", 23, true)}, now)
		}
		var got []string
		for _, r := range j.Summaries(now.Add(JournalTime), counted) {
			got = append(got, r.Message)
		}
		if !slices.Equal(got, want) {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
	says(map[string]uint64{"closed port": 201_000, "invalid flags": 1007, "banned": 7},
		"closed port: at least 2 more from 203.0.113.9 in 10s; 200,000 dropped for closed port",
		"invalid flags: at least 1 more from 203.0.113.9 in 10s; 1,000 counted as invalid flags",
		"banned: 1 more from 203.0.113.9 in 10s")
	// The ledger begins anew after a down, and may not be readable.
	says(map[string]uint64{"closed port": 50, "invalid flags": 1009, "banned": 9},
		"closed port: at least 2 more from 203.0.113.9 in 10s; 50 dropped for closed port",
		"invalid flags: 1 more from 203.0.113.9 in 10s", "banned: 1 more from 203.0.113.9 in 10s")
	says(nil, "closed port: 2 more from 203.0.113.9 in 10s", "invalid flags: 1 more from 203.0.113.9 in 10s", "banned: 1 more from 203.0.113.9 in 10s")
	says(map[string]uint64{"closed port": 5000}, "closed port: 2 more from 203.0.113.9 in 10s", "invalid flags: 1 more from 203.0.113.9 in 10s", "banned: 1 more from 203.0.113.9 in 10s")
}

// What somebody else has put in the place of the file gets nothing, and does not keep anybody waiting.
func TestCaptureIsOfNobodyElse(t *testing.T) {
	dir := t.TempDir()
	pipe, own, foreign := filepath.Join(dir, "pipe"), filepath.Join(dir, "own"), filepath.Join(dir, "foreign")
	if err := errors.Join(unix.Mkfifo(pipe, 0o666), os.WriteFile(own, []byte("old"), 0o644), os.WriteFile(foreign, []byte("dear"), 0o666)); err != nil {
		t.Fatal(err)
	}
	refused := map[string]string{pipe: "use \"--write - |", "/dev/null": "is no regular file"}
	if os.Chown(foreign, 65534, 65534) == nil { // by root only
		refused[foreign] = "belongs to another user (uid 65534)"
	}
	for path, want := range refused {
		if _, err := CreateCapture(path, "x", 128); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if text, _ := os.ReadFile(foreign); string(text) != "dear" {
		t.Errorf("the file of another user holds %q", text)
	}
	c, err := CreateCapture(own, "x", 128)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if info, err := os.Stat(own); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has the mode %v, %v", info.Mode(), err)
	}
	if text, _ := os.ReadFile(own); bytes.Contains(text, []byte("old")) {
		t.Errorf("the file was not emptied: %q", text)
	}
}
