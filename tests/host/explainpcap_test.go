// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/explain"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// eachRecorded calls each with what explain says of each packet of a recording.
func eachRecorded(t *testing.T, l *lab.Lab, file []byte, on string, each func(*explain.Answer, error) error) {
	t.Helper()
	l.Server.Do(t, func() error {
		e, err := explain.Open(context.Background(), firewall.New(firewall.Options{PinPath: l.PinPath}))
		if err != nil {
			return err
		}
		defer e.Close()
		r, err := explain.NewRecording(bytes.NewReader(file))
		if err != nil {
			return err
		}
		for {
			p, err := r.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			a, err := e.Recorded(p, on)
			if err := each(a, err); err != nil {
				return fmt.Errorf("packet %d: %w", p.Number, err)
			}
		}
	})
}

// fates returns what explain says of each packet of a recording, in a word or two.
func fates(t *testing.T, l *lab.Lab, file []byte, on string) (out []string) {
	t.Helper()
	eachRecorded(t, l, file, on, func(a *explain.Answer, err error) error {
		unfiltered, unplayable := new(explain.NotFilteredError), new(explain.UnplayableError)
		switch {
		case errors.Is(err, explain.ErrOutgoing):
			out = append(out, "sent")
		case errors.As(err, &unfiltered):
			out = append(out, "unfiltered "+unfiltered.Interface)
		case errors.As(err, &unplayable):
			out = append(out, "unplayable: "+unplayable.Why)
		case err != nil:
			return err
		default:
			out = append(out, a.Interface+" "+a.Verdict+" "+a.Reason)
		}
		return nil
	})
	return out
}

// recorder runs a program that records at the server until end is called, which waits for so many packets and returns the
// file.
func recorder(t *testing.T, l *lab.Lab, begins, program string, args ...string) (end func(packets int) []byte) {
	t.Helper()
	lab.NeedProgram(t, program)
	file := filepath.Join(t.TempDir(), "recording")
	if program == "dumpcap" { // which drops what lets it write elsewhere
		file = filepath.Join("/run", filepath.Base(t.TempDir())+fmt.Sprint(os.Getpid())+".pcapng")
		t.Cleanup(func() { os.Remove(file) })
	}
	cmd := l.Server.Command(program, append(args, "-w", file)...)
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	says := func() string {
		text, _ := os.ReadFile(said.Name())
		return string(text)
	}
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	for end := time.Now().Add(patience); !strings.Contains(says(), begins); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not begin to record: %s", program, says())
		}
	}
	recorded := func() (n int) {
		if i := strings.LastIndex(says(), "Packets: "); i >= 0 { // dumpcap, which writes the file late
			fmt.Sscanf(says()[i:], "Packets: %d", &n)
			return n
		}
		f, err := os.Open(file)
		if err != nil {
			return 0
		}
		defer f.Close()
		r, err := explain.NewRecording(f)
		for ; err == nil; n++ {
			_, err = r.Next()
		}
		return n - 1
	}
	return func(packets int) []byte {
		t.Helper()
		for end := time.Now().Add(patience); recorded() < packets; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s %q has recorded %d packets, want %d", program, args, recorded(), packets)
			}
		}
		_ = cmd.Process.Signal(unix.SIGINT)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, says())
		}
		ended = true
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// What tcpdump and Wireshark record on an administrator's host is played as it came: on all interfaces, on several, and on a
// tunnel.
func TestExplainWhatOthersRecord(t *testing.T) {
	l := lab.New(t)
	l.AddInside(t)
	wire := tunnel(t, l.Server, "tun0", "10.0.70.1/24")
	defer wire.Close()
	l.Server.Echo(t, 80)
	send := func() {
		t.Helper()
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 80), "an open port")
		for _, port := range []int{443, 444} {
			if c, err := dial(l.Client, "tcp", lab.ServerV4, port, time.Second); err == nil {
				c.Close()
			}
		}
		if c, err := dial(l.Server, "tcp", netip.MustParseAddr("127.0.0.1"), 443, time.Second); err == nil {
			c.Close()
		}
		if c, err := dial(l.Server, "tcp", lab.ClientV4, 443, time.Second); err == nil {
			c.Close()
		}
		p := frame.Build(frame.IPv4{Src: netip.MustParseAddr("10.0.70.2"), Dst: netip.MustParseAddr("10.0.70.1")}, frame.TCP{SrcPort: 40000, DstPort: 443, Flags: frame.SYN})
		if _, err := wire.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	const syns = "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn"
	files := make(map[string][]byte)
	for _, c := range []struct {
		name, begins, program string
		args                  []string
		packets               int
	}{
		{"any, v2", "listening on", "tcpdump", []string{"-Z", "root", "-U", "--immediate-mode", "-i", "any", syns}, 6},
		{"any, v1", "listening on", "tcpdump", []string{"-Z", "root", "-U", "--immediate-mode", "-i", "any", "-y", "LINUX_SLL", syns}, 6},
		{"any, nanoseconds", "listening on", "tcpdump", []string{"-Z", "root", "-U", "--immediate-mode", "-i", "any", "--nano", syns}, 6},
		{"any, too short", "listening on", "tcpdump", []string{"-Z", "root", "-U", "--immediate-mode", "-i", "any", "-s", "50", syns}, 6},
		{"eth0", "listening on", "tcpdump", []string{"-Z", "root", "-U", "--immediate-mode", "-i", "eth0", syns}, 4},
		{"tun0", "listening on", "tcpdump", []string{"-Z", "root", "-U", "--immediate-mode", "-i", "tun0", syns}, 1},
		{"several", "File: ", "dumpcap", []string{"-i", "eth0", "-f", syns, "-i", "lo", "-f", syns, "-i", "tun0", "-f", syns}, 6},
	} {
		end := recorder(t, l, c.begins, c.program, c.args...)
		send()
		files[c.name] = end(c.packets)
	}
	upWith(t, l, loader.Options{Interfaces: []string{"eth0", "tun0"}, Policy: policyOf(t, "80/tcp on eth0")})
	const pass, drop, tunnelled = "eth0 pass rule", "eth0 drop closed port", "tun0 drop closed port"
	all := []string{pass, drop, drop, "unfiltered lo", "sent", tunnelled}
	for _, c := range []struct {
		name, on string
		want     []string
	}{
		{"any, v2", "", all},
		{"any, nanoseconds", "", all},
		{"any, v1", "eth0", []string{pass, drop, drop, "unfiltered lo", "sent", drop}},
		{"eth0", "eth0", []string{pass, drop, drop, "sent"}},
		{"tun0", "tun0", []string{tunnelled}},
		{"several", "", all},
	} {
		got := fates(t, l, files[c.name], c.on)
		slices.Sort(got)
		if slices.Sort(c.want); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for _, fate := range fates(t, l, files["any, too short"], "") {
		if fate != "sent" && fate != "unfiltered lo" && !strings.HasPrefix(fate, "unplayable: 30 of its ") {
			t.Errorf("30 bytes of a SYN: %q", fate)
		}
	}
}

// Whatever was cut off a packet, what is said of the rest is what becomes of the whole, or that this cannot be said.
func TestExplainGuessesNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		up(t, l, mode, policyOf(t, "80/tcp", "5000/udp", "gre"))
		l.Client.Echo(t, 7)
		own := mustDial(t, l.Server, "tcp", lab.ClientV4, 7) // a flow
		mustTalk(t, own, "begun")
		port := uint16(own.LocalAddr().(*net.TCPAddr).Port)
		_, text := deviceOf(t, l.Server, "eth0")
		mac, err := net.ParseMAC(text)
		if err != nil {
			t.Fatal(err)
		}
		eth := frame.Ethernet{Dst: frame.MAC(mac), Src: frame.MAC{2, 0, 0, 0, 0, 9}}
		four, six := frame.IPv4{Src: lab.ClientV4, Dst: lab.ServerV4}, frame.IPv6{Src: lab.ClientV6, Dst: lab.ServerV6}
		// As random as what was not recorded may be.
		rest := frame.Raw(bytes.Repeat([]byte("\xa5\x5a\xff\x00\x13"), 20))
		for name, packet := range map[string][]frame.Layer{
			"open":       {eth, four, frame.TCP{SrcPort: 40000, DstPort: 80, Flags: frame.SYN}, rest},
			"closed":     {eth, frame.VLAN{ID: 5}, four, frame.TCP{SrcPort: 40000, DstPort: 443, Flags: frame.SYN}, rest},
			"answer":     {eth, four, frame.TCP{SrcPort: 7, DstPort: port, Flags: frame.ACK}, rest},
			"flags":      {eth, four, frame.TCP{SrcPort: 40000, DstPort: 443, Flags: frame.SYN | frame.FIN}, rest},
			"udp":        {eth, six, frame.Extension{Kind: frame.ProtoDestOptions, Words: 1}, frame.UDP{SrcPort: 1000, DstPort: 5000}, rest},
			"udp length": {eth, four, frame.UDP{SrcPort: 1000, DstPort: 53, Length: frame.Exactly(4)}, rest},
			"sctp":       {eth, four, frame.SCTP{SrcPort: 1000, DstPort: 53, Chunk: frame.ChunkInit}, rest},
			"gre":        {eth, frame.IPv4{Src: lab.ClientV4, Dst: lab.ServerV4, Protocol: frame.ProtoGRE}, frame.Raw(rest)},
			"ping":       {eth, six, frame.ICMPv6{Type: frame.Echo6}, rest},
			"error": {eth, four, frame.ICMPv4{Type: frame.Unreachable, Code: 3}, frame.IPv4{Src: lab.ServerV4, Dst: lab.ClientV4},
				frame.TCP{SrcPort: port, DstPort: 7, Flags: frame.ACK}, rest},
			"wrong error": {eth, four, frame.ICMPv4{Type: frame.Unreachable, Code: 3}, frame.IPv4{Src: lab.ServerV4, Dst: lab.ClientV4},
				frame.TCP{SrcPort: port, DstPort: 8, Flags: frame.ACK}, rest},
			"fragment": {eth, frame.IPv4{Src: lab.ClientV4, Dst: lab.ServerV4, Offset: 100, Protocol: frame.ProtoUDP}, rest},
		} {
			whole := frame.Build(packet...)
			var frames [][]byte
			for n := len(whole); n >= 0; n-- {
				frames = append(frames, whole[:n])
			}
			var b bytes.Buffer
			b.Write(record(t, false, layers.LinkTypeEthernet)) // its head
			for _, f := range frames {
				writeRecord(&b, f, len(whole))
			}
			said := fates(t, l, b.Bytes(), "")
			explained := 0
			for i, fate := range said[1:] {
				switch {
				case fate == said[0]:
					explained++
				case !strings.HasPrefix(fate, "unplayable: "):
					t.Errorf("%s: %q with %d bytes of %d, and %q with all", name, fate, len(frames[i+1]), len(whole), said[0])
				}
			}
			if len(said) != len(frames) || explained < 50 || explained == len(said)-1 || strings.HasPrefix(said[0], "unplayable") {
				t.Errorf("%s: of %d ways to cut it, %d are explained, as %q", name, len(said), explained, said[0])
			}
		}
	})
}

// writeRecord adds a packet to a recording of record's, of which the file has the first bytes.
func writeRecord(b *bytes.Buffer, captured []byte, length int) {
	for _, n := range []int{1700000000, 0, len(captured), length} {
		_ = binary.Write(b, binary.LittleEndian, uint32(n))
	}
	b.Write(captured)
}
