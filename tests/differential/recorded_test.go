// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

var keep = flag.String("keep-recordings", "", "directory to keep the pcap files of real programs in")

// studio is a lab without a filter, in which real programs are recorded.
type studio struct {
	lab *lab.Lab
	key string // file
	dir string // for the pcap files
}

func newStudio(t *testing.T) *studio {
	t.Helper()
	s := &studio{lab: lab.New(t), dir: *keep}
	signer, file := newKey(t)
	s.key = file
	for _, h := range []struct {
		host *lab.Host
		mac  frame.MAC
	}{{s.lab.Server, serverMAC}, {s.lab.Client, clientMAC}} {
		h.host.IP(t, "link", "set", "eth0", "address", macText(h.mac))
		// One frame is one packet, with its checksum in it.
		h.host.Run(t, "ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off")
		h.host.Sysctl(t, "ipv4/icmp_ratelimit", "0")
		h.host.Sysctl(t, "ipv6/icmp/ratelimit", "0")
		serve(t, h.host, signer)
	}
	client := s.lab.Client
	client.IP(t, "link", "add", "far0", "type", "veth", "peer", "name", "nowhere")
	for _, dev := range []string{"far0", "nowhere"} {
		client.IP(t, "link", "set", dev, "up")
	}
	for address, net := range map[string]string{farV4: farNetV4, farV6: farNetV6} {
		client.IP(t, "route", "add", net, "dev", "far0")
		client.IP(t, "neigh", "replace", address, "lladdr", macText(serverMAC), "nud", "permanent", "dev", "far0")
	}
	client.Sysctl(t, "ipv4/conf/all/forwarding", "1")
	client.Sysctl(t, "ipv6/conf/all/forwarding", "1")
	s.lab.Server.IP(t, "route", "add", farNetV4, "via", lab.ClientV4.String())
	s.lab.Server.IP(t, "route", "add", farNetV6, "via", lab.ClientV6.String())
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "recordings-")
		if err != nil {
			t.Fatal(err)
		}
		s.dir = dir
		t.Cleanup(func() {
			if !t.Failed() {
				os.RemoveAll(dir)
			}
		})
	}
	return s
}

// record runs a program in both families at once, and writes what it says and hears in each into a pcap file.
func (s *studio) record(t *testing.T, p program) (files [2]string) {
	t.Helper()
	lab.NeedProgram(t, p.command[0])
	var errs [2]error
	var wait sync.WaitGroup
	for f, h := range families {
		if p.family == 4 && h.six {
			continue
		}
		name := strings.NewReplacer(" ", "-", ",", "").Replace(fmt.Sprintf("%s %s.pcap", p.name, h))
		files[f] = filepath.Join(s.dir, name)
		tap := newTap(t, s.lab.Server)
		ended := make(chan error, 1)
		wait.Go(func() { ended <- s.run(p, h) })
		wait.Go(func() { errs[f] = tap.record(files[f], h, ended) })
	}
	wait.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return files
}

// run runs a program, and fails when it does not do what it is known to do without a filter.
func (s *studio) run(p program, h hosts) error {
	words := p.expand(h, s.key)
	host := s.lab.Client
	if p.inside {
		host = s.lab.Server
	}
	command := host.Command(words[0], words[1:]...)
	command.Stdin = strings.NewReader(page)
	out, err := command.CombinedOutput()
	if command.ProcessState == nil || command.ProcessState.ExitCode() != p.exit || !strings.Contains(string(out), p.says) {
		return fmt.Errorf("%s: %v; not status %d and %.40q\n%s", strings.Join(words, " "), err, p.exit, p.says, out)
	}
	return nil
}

// record writes the IP packets of a family to a file until the program has ended and the link is silent.
func (p *tap) record(file string, h hosts, ended <-chan error) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	w := pcapgo.NewWriter(out)
	if err := w.WriteFileHeader(1<<16, layers.LinkTypeEthernet); err != nil {
		return err
	}
	kind := uint16(frame.TypeIPv4)
	if h.six {
		kind = frame.TypeIPv6
	}
	for running := true; ; {
		b, err := p.next(50 * time.Millisecond)
		if err != nil {
			return err
		}
		if b == nil {
			if !running {
				break
			}
			select {
			case err := <-ended:
				if err != nil {
					return err
				}
				running = false
			default:
			}
			continue
		}
		if len(b) < frame.EthernetLen || binary.BigEndian.Uint16(b[12:]) != kind {
			continue
		}
		about := gopacket.CaptureInfo{Timestamp: time.Now(), CaptureLength: len(b), Length: len(b)}
		if err := w.WritePacket(about, b); err != nil {
			return err
		}
	}
	if lost, err := p.lost(); err != nil || lost > 0 {
		return fmt.Errorf("%s: %d frames are not recorded: %w", file, lost, err)
	}
	return out.Close()
}

// recordedIn are the worlds that recordings are played in: where all ICMP is let in, one cannot see which is RELATED.
var recordedIn = []*world{&script, &noICMP}

// What real programs say and hear, both filters decide alike.
func TestRecordedTraffic(t *testing.T) {
	studio := newStudio(t)
	var sides [2][]*side
	for i, w := range recordedIn {
		sides[i] = w.sides(t, modes)
		for _, s := range sides[i] {
			s.lab.Server.IP(t, "route", "add", "default", "via", lab.ClientV6.String())
		}
	}
	var total [3][2]tally
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			for f, file := range studio.record(t, p) {
				if file == "" {
					continue
				}
				packets := readRecording(t, file)
				if last := len(packets) - 1; last < 0 || packets[last].number < p.least {
					t.Fatalf("%s: fewer than %d frames", file, p.least)
				}
				for i, w := range recordedIn {
					share, results := playRecording(t, sides[i], w, file, packets)
					if w == &script && share != p.letIn {
						t.Errorf("%s: of what comes in, %s lets in %s, not %s", file, w.name, share, p.letIn)
					}
					for m := range modes {
						total[m][f].add(&results[m])
					}
				}
			}
		})
	}
	for m, mode := range modes {
		for f, h := range families {
			total[m][f].report(t, "recorded", mode, h)
		}
	}
}

// playRecording plays a recording to all sides, and returns how much netfilter lets in, and a tally for each mode.
func playRecording(t *testing.T, sides []*side, w *world, file string, packets []recorded) (share, [3]tally) {
	t.Helper()
	steps := replay(packets, w)
	verdicts := together(t, sides, steps)
	letIn, dropped := count(packets, verdicts[0])
	t.Logf("%s, %s: %d packets, %d let in and %d dropped by netfilter", filepath.Base(file), w.name, len(packets), letIn, dropped)
	var results [3]tally
	for m, mode := range modes {
		results[m].compare(file, steps, verdicts[0], verdicts[m+1])
		if len(results[m].wrong) > 0 {
			t.Errorf("%s, %s:\n%s", mode, w.name, strings.Join(results[m].wrong, "\n"))
		}
	}
	return shareOf(letIn, dropped), results
}
