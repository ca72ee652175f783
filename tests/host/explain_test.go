// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/explain"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// asker asks what becomes of packets at a lab's server. The datapath that answers is loaded once for each policy.
type asker struct {
	lab *lab.Lab
	*explain.Explainer
}

func asks(t testing.TB, l *lab.Lab) *asker {
	t.Helper()
	a := &asker{lab: l}
	l.Server.Do(t, func() (err error) {
		a.Explainer, err = explain.Open(context.Background(), firewall.New(firewall.Options{PinPath: l.PinPath}))
		return err
	})
	t.Cleanup(a.Close)
	return a
}

// try asks with the words of the command line, and with flags of TCP.
func (k *asker) try(words, flags string) (a *explain.Answer, err error) {
	r, err := explain.ParseRequest(strings.Fields(words), flags)
	if err != nil {
		return nil, err
	}
	err = k.lab.Server.Try(func() error {
		answers, err := k.Explain(r)
		if err == nil {
			a = answers[0]
		}
		return err
	})
	return a, err
}

// must fails unless a packet has the verdict and reason that are wanted.
func (k *asker) must(t testing.TB, words, flags, want string) *explain.Answer {
	t.Helper()
	a, err := k.try(words, flags)
	if err != nil {
		t.Fatalf("explain %s: %v", words, err)
	}
	if got := a.Verdict + " " + a.Reason; got != want {
		t.Errorf("explain %s (%s): %s, want %s: %+v", words, flags, got, want, a)
	}
	return a
}

// atRest are the counters without those of what hosts say to each other by themselves.
func atRest(s *loader.Status) []loader.CounterStatus {
	return slices.DeleteFunc(slices.Clone(s.Counters), func(c loader.CounterStatus) bool {
		return c.Reason == "not ip" || c.Reason == "neighbor discovery"
	})
}

// What a server is asked in each mode: the answers, what they name, and that they leave the filter as it was.
func TestExplain(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Client.Echo(t, 7)
		l.Server.Echo(t, 22)
		file := filepath.Join(t.TempDir(), "portcullis.yaml")
		text := "lists: {office: [192.0.2.2, '2001:db8::2']}\nicmp: [echo-request]\nopen:\n  - http\n  - ssh from @office limit 1/hour burst 1\n  - 5432/tcp from 10.0.0.0/8\n  - 5433/tcp from 10.0.0.0/8 to 192.0.2.200\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := policy.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		upWith(t, l, loader.Options{Interfaces: []string{"eth0"}, Mode: mode, Policy: p, Config: file})
		change(t, l, func(f *loader.Filter) error {
			_, err := f.OpenRules(rules(t, "9000/tcp"), true)
			return err
		})
		flow := mustDial(t, l.Server, "tcp", lab.ClientV4, 7)
		mustTalk(t, flow, "begins a flow")
		fw := banner(t, l)
		banAddress(t, l, fw, oneAddress(netip.MustParseAddr("203.0.113.66")))
		time.Sleep(50 * time.Millisecond) // what is on its way comes in
		before, k := status(t, l), asks(t, l)

		for range 3 { // none of them is charged
			a := k.must(t, "192.0.2.2 ssh", "", "pass rule")
			if a.Rule != "ssh from @office limit 1/hour burst 1" || a.File != file || a.Line != 5 || a.Runtime || a.Step != 7 {
				t.Errorf("the rule is %+v", a)
			}
		}
		for _, c := range []struct {
			words, flags, want, says string
			step                     int
		}{
			{"192.0.2.2 http", "", "pass rule", "a rule lets it in", 5},
			{"2001:db8::2 http", "", "pass rule", "a rule lets it in", 5},
			{"192.0.2.2 443/tcp", "", "drop closed port", "no rule opens 443/tcp", 9},
			{"2001:db8::2 53/udp", "", "drop closed port", "no rule opens 53/udp", 9},
			{"192.0.2.2 5432/tcp", "", "drop source", "wrong source: 5432/tcp is open, but not from 192.0.2.2", 9},
			{"10.1.2.3 5433/tcp", "", "drop source", "wrong address: 5433/tcp is open, but not at 192.0.2.1", 9},
			{"10.1.2.3 5432/tcp", "", "pass rule", "a rule lets it in", 7},
			{"192.0.2.2 gre", "", "drop protocol", "no rule opens gre", 9},
			{"192.0.2.2 ping", "", "pass icmp", "accepts this type", 8},
			{"192.0.2.2 ipv4/13", "", "drop icmp", "does not accept", 8},
			{"2001:db8::2 neighbor-solicitation", "", "pass neighbor discovery", "IPv6 does not work without it", 8},
			{"203.0.113.66 http", "", "drop banned", "203.0.113.66 is banned (test)", 3},
			{"192.0.2.2 443/tcp", "fin", "drop invalid", "", 9},
			{"192.0.2.2 443/tcp", "syn,fin", "drop invalid", "no stack sends these flags", 9},
			{"192.0.2.2:67 68/udp", "", "pass dhcp", "DHCP", 7},
		} {
			a := k.must(t, c.words, c.flags, c.want)
			if !strings.Contains(a.Why, c.says) || a.Step != c.step || a.Interface != "eth0" {
				t.Errorf("explain %s: step %d of %s, %q; want step %d, %q", c.words, a.Step, a.Interface, a.Why, c.step, c.says)
			}
		}
		if a := k.must(t, "192.0.2.2 9000/tcp", "", "pass rule"); !a.Runtime || a.File != "" {
			t.Errorf("a rule that was opened at run time is %+v", a)
		}
		local := flow.LocalAddr().(*net.TCPAddr).AddrPort()
		asked := "192.0.2.2:7 " + policy.PortRange{Protocol: policy.TCP, First: local.Port(), Last: local.Port()}.String()
		if a := k.must(t, asked, "ack", "pass established"); a.Flow == nil || a.Flow.Local != local.String() || !a.Flow.Alive || !a.Flow.Admits || a.Step != 6 {
			t.Errorf("a flow is %+v", a)
		}
		if a := k.must(t, asked, "syn", "drop invalid"); a.Flow == nil || a.Flow.Admits {
			t.Errorf("a SYN within a flow is %+v", a)
		}

		after := status(t, l)
		if !reflect.DeepEqual(atRest(before), atRest(after)) || !reflect.DeepEqual(before.Rules, after.Rules) || before.Flows != after.Flows {
			t.Errorf("to explain packets has changed the filter:\n%+v\n%+v", before, after)
		}
		if packets := logged(t, l); len(packets) > 0 {
			t.Errorf("to explain packets has logged %d", len(packets))
		}
		mustTalk(t, flow, "goes on")
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 22), "within the limit")
		a := k.must(t, "192.0.2.2 22/tcp", "", "drop limit")
		if a.Rule == "" || a.Wait < 3000 || a.Wait > 3600 {
			t.Errorf("over the limit: %+v", a)
		}
	})
}

// The command that an answer names lets the packet in.
func TestExplainAdvisesWhatHelps(t *testing.T) {
	l := lab.New(t)
	l.AddInside(t)
	up(t, l, loader.ModeAuto, policyOf(t, "5432/tcp from 10.0.0.0/8", "80/tcp limit 1/hour burst 1"))
	l.Server.Echo(t, 80)
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 80), "uses the limit up")
	fw := banner(t, l)
	banAddress(t, l, fw, oneAddress(netip.MustParseAddr("203.0.113.66")))
	k := asks(t, l)
	for _, c := range []struct{ words, want, then string }{
		{"192.0.2.2 443/tcp", "drop closed port", "pass rule"},
		{"192.0.2.2 5432/tcp", "drop source", "pass rule"},
		{"192.0.2.2 80/tcp", "drop limit", "pass rule"},
		{"2001:db8::2 gre", "drop protocol", "pass rule"},
		{"192.0.2.2 443/tcp to 198.51.100.2", "drop forward", "pass rule"},
		{"203.0.113.66 8443/tcp", "drop banned", "drop closed port"},
	} {
		a := k.must(t, c.words, "", c.want)
		words := strings.Fields(a.Command)
		if len(words) < 3 {
			t.Errorf("explain %s: no command", c.words)
			continue
		}
		change(t, l, func(f *loader.Filter) error {
			switch {
			case words[1] == "unban":
				_, err := f.RemoveBans([]netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(words[2]), 32)})
				return err
			case words[2] == "--forward":
				_, err := f.OpenRules(forwardRules(t, strings.Join(words[3:], " ")), true)
				if errors.Is(err, loader.ErrNoRoom) { // the datapath was loaded without what such rules need
					p, policyErr := f.Policy()
					if policyErr != nil {
						return policyErr
					}
					p.Open = append(p.Open, forwardRules(t, strings.Join(words[3:], " "))...)
					_, err = loader.Up(context.Background(), loader.Options{PinPath: l.PinPath, Policy: p})
				}
				return err
			default:
				_, err := f.OpenRules(rules(t, strings.Join(words[2:], " ")), true)
				return err
			}
		})
		k.must(t, c.words, "", c.then)
	}
}

// Whose ban is ended may be dropped all the same, and learns that before he ends it.
func TestExplainWhatElseDrops(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.AddInside(t)
		p, err := policy.Parse("policy", []byte("block: [198.51.100.0/24]\ntrust: [198.51.100.9]\nopen: [http]\n"))
		if err != nil {
			t.Fatal(err)
		}
		upWith(t, l, loader.Options{Interfaces: []string{"eth0"}, Mode: mode, Policy: p})
		fw := banner(t, l)
		for _, text := range []string{"203.0.113.66", "198.51.100.66", "2001:db8:7::66"} {
			banAddress(t, l, fw, oneAddress(netip.MustParseAddr(text)))
		}
		k := asks(t, l)
		for _, c := range []struct{ words, want, still, command string }{
			{"203.0.113.66 http", "drop banned", "", ""},
			{"203.0.113.66 443/tcp", "drop banned", "closed port", "portcullis open 443/tcp from 203.0.113.66"},
			{"2001:db8:7::66 443/tcp", "drop banned", "closed port", "portcullis open 443/tcp from 2001:db8:7::66"},
			{"198.51.100.66 http", "drop banned", "blocked", ""},
			{"198.51.100.7 http", "drop blocked", "", ""},
			{"198.51.100.7 443/tcp", "drop blocked", "closed port", "portcullis open 443/tcp from 198.51.100.7"},
			{"198.51.100.9 443/tcp", "drop closed port", "", ""},
			{"203.0.113.66 443/tcp to 198.51.100.2", "drop banned", "forward", "portcullis open --forward 443/tcp from 203.0.113.66 to 198.51.100.2"},
		} {
			a := k.must(t, c.words, "", c.want)
			if network := "198.51.100.0/24"; (a.Network == network) != (a.Reason == "blocked") || strings.Contains(a.Why, network) != (a.Reason == "blocked") {
				t.Errorf("explain %s names the network %q: %s", c.words, a.Network, a.Why)
			}
			if a.Still == nil {
				a.Still = &explain.Still{}
			}
			if a.Still.Reason != c.still || a.Still.Command != c.command {
				t.Errorf("explain %s: then %+v, want %q, %q", c.words, a.Still, c.still, c.command)
			}
		}
	})
}

// A forward rule does not open what DNAT leads on, and who asks learns why; and also what would not come this way.
func TestExplainWhatIsNotRoutedAsThought(t *testing.T) {
	l := lab.New(t)
	l.AddInside(t)
	l.Server.Run(t, "nft", "add table ip nat; add chain ip nat pre { type nat hook prerouting priority dstnat; }; "+
		"add rule ip nat pre ip daddr 192.0.2.1 tcp dport 8080 dnat to 198.51.100.2:80")
	up(t, l, loader.ModeAuto, gateway(t, "drop", "8080/tcp to 198.51.100.2", "22/tcp"))
	k := asks(t, l)
	for _, c := range []struct{ words, want, warns string }{
		{"192.0.2.2 8080/tcp", "drop closed port", "netfilter's DNAT leads 8080/tcp to 198.51.100.2:80"},
		{"192.0.2.2 8081/tcp", "drop closed port", ""},
		{"192.0.2.2 8080/udp", "drop closed port", ""},
		{"192.0.2.2 22/tcp", "pass rule", ""},
		{"192.0.2.2 8080/tcp to 198.51.100.2", "pass rule", ""},
		{"192.0.2.2 8080/tcp to 192.0.2.77", "drop forward", "leads out by eth0 again"},
	} {
		a := k.must(t, c.words, "", c.want)
		a.Warnings = slices.DeleteFunc(a.Warnings, func(w string) bool { return strings.HasPrefix(w, "where the rule stands") }) // there is no file
		if all := strings.Join(a.Warnings, "; "); !strings.Contains(all, c.warns) || c.warns == "" && all != "" {
			t.Errorf("explain %s warns %q, want %q", c.words, all, c.warns)
		}
	}
}

// Interfaces of every kind explain what comes in by them: one without Ethernet, one with rules of its own, and those that are
// down, gone or not filtered say so.
func TestExplainByInterface(t *testing.T) {
	l := lab.New(t)
	l.AddInside(t)
	wire := tunnel(t, l.Server, "tun0", "10.0.70.1/24")
	defer wire.Close()
	l.Server.IP(t, "link", "add", "gone0", "type", "veth", "peer", "name", "gone1")
	l.Server.IP(t, "link", "set", "gone0", "up")
	upOn(t, l, loader.ModeAuto, []string{"eth0", "tun0", "gone0"}, "22/tcp on tun0", "80/tcp on eth0")
	k := asks(t, l)
	for _, c := range []struct{ words, want, iface string }{
		{"10.0.70.2 22/tcp", "pass rule", "tun0"},
		{"10.0.70.2 80/tcp", "drop closed port", "tun0"},
		{"192.0.2.2 80/tcp", "pass rule", "eth0"},
		{"192.0.2.2 22/tcp", "drop closed port", "eth0"},
		{"192.0.2.2 22/tcp on tun0", "pass rule", "tun0"},
		{"fe80::1%eth0 80/tcp", "pass rule", "eth0"},
	} {
		if a := k.must(t, c.words, "", c.want); a.Interface != c.iface {
			t.Errorf("explain %s: by %s, want %s", c.words, a.Interface, c.iface)
		}
	}
	if a := k.must(t, "192.0.2.2 22/tcp", "", "drop closed port"); a.Advice != `open by "22/tcp on tun0"` {
		t.Errorf("what another interface has open: %+v", a)
	}
	k.must(t, "192.0.2.1 80/tcp on eth0", "", "pass rule") // from somebody who says that he is this host
	refused := func(words, want string) {
		t.Helper()
		if _, err := asks(t, l).try(words, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("explain %s: %v, want %q", words, err, want)
		}
	}
	refused("198.51.100.2 22/tcp", "packets of 198.51.100.2 come in by eth1, which is not filtered, so they pass")
	refused("198.51.100.2 22/tcp on eth1", "eth1: this interface is not filtered, so whatever comes in by it passes (filtered: eth0, gone0, tun0)")
	refused("198.51.100.2 22/tcp on nope", "nope: there is no such interface")
	refused("192.0.2.1 22/tcp", "192.0.2.1 is an address of this host")
	l.Server.IP(t, "link", "set", "tun0", "down")
	refused("10.0.70.2 22/tcp on tun0", "tun0 is down")
	l.Server.IP(t, "link", "del", "gone0")
	refused("10.0.80.2 22/tcp on gone0", "gone0: there is no such interface")
	l.Server.IP(t, "link", "set", "eth0", "down")
	l.Server.IP(t, "link", "set", "eth0", "name", "eth9")
	l.Server.IP(t, "link", "set", "eth9", "up")
	// It runs by the rules of its former name, as packets find out.
	a := asks(t, l).must(t, "192.0.2.2 80/tcp", "", "pass rule")
	if warnings := strings.Join(a.Warnings, "\n"); a.Interface != "eth9" || !strings.Contains(warnings, "eth9 was renamed and still runs by the rules of its former name") {
		t.Errorf("a renamed interface: %+v", a)
	}
	l.Server.Echo(t, 80)
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 80), "by another name")

	// An update that has not been put in force yet may decide otherwise than what runs.
	builds, err := filepath.Glob(filepath.Join(l.PinPath, loader.Schema, "policy", "object_*"))
	if err != nil || len(builds) != 1 {
		t.Fatalf("the filter was loaded by the builds %q, %v", builds, err)
	}
	if err := os.Remove(builds[0]); err != nil {
		t.Fatal(err)
	}
	a = asks(t, l).must(t, "192.0.2.2 80/tcp", "", "pass rule")
	if warnings := strings.Join(a.Warnings, "\n"); !strings.Contains(warnings, "the filter was loaded by another version of portcullis") {
		t.Errorf("what another build has loaded: %+v", a)
	}

	// Another namespace has another filter, or none.
	err = l.Client.Try(func() error {
		_, err := explain.Open(context.Background(), banner(t, l))
		return err
	})
	if !errors.Is(err, loader.ErrOtherNamespace) {
		t.Errorf("in another namespace: %v", err)
	}
}

// A policy file that cannot be read is not said to lack the rule.
func TestExplainWithABadFile(t *testing.T) {
	for text, why := range map[string]string{"": "no such file", "open: [nothing/tcp]\n": "nothing"} {
		l := lab.New(t)
		file := filepath.Join(t.TempDir(), "portcullis.yaml")
		upWith(t, l, loader.Options{Interfaces: []string{"eth0"}, Mode: loader.ModeAuto, Policy: policyOf(t, "80/tcp"), Config: file})
		if text != "" {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		a := asks(t, l).must(t, "192.0.2.2 80/tcp", "", "pass rule")
		if warned := strings.Join(a.Warnings, "\n"); a.Unread() == nil || !strings.Contains(warned, "the policy file cannot be read") || !strings.Contains(warned, why) {
			t.Errorf("%q: it warns %q", text, warned)
		}
	}
}

// The address of a tunnel is not that of its packets' link: they have none.
func TestExplainOnATunnel(t *testing.T) {
	l := lab.New(t)
	addLink(t, l.Server, "IPIP", "name", "ipip9", "type", "ipip", "local", "192.0.2.1", "remote", "192.0.2.2")
	l.Server.IP(t, "link", "set", "ipip9", "up")
	l.Server.IP(t, "addr", "add", "10.0.80.1/24", "dev", "ipip9")
	upOn(t, l, loader.ModeAuto, []string{"eth0", "ipip9"}, "443/tcp on ipip9")
	k := asks(t, l)
	k.must(t, "10.0.80.2 443/tcp", "", "pass rule")
	k.must(t, "10.0.80.2 22/tcp", "", "drop closed port")
}

// Policies that come and go meanwhile change what is answered, and never make it neither of them.
func TestExplainWhilePoliciesChange(t *testing.T) {
	l := lab.New(t)
	policies := []*policy.Policy{policyOf(t, "80/tcp"), policyOf(t, "80/tcp from 192.0.2.2", "443/tcp limit 6/minute")}
	up(t, l, loader.ModeAuto, policies[0])
	end := time.Now().Add(5 * time.Second)
	done := make(chan error, 1)
	go func() {
		done <- l.Server.Try(func() error {
			for i := 0; time.Now().Before(end); i++ {
				if _, err := loader.Up(context.Background(), loader.Options{PinPath: l.PinPath, Policy: policies[i%2]}); err != nil {
					return err
				}
				time.Sleep(500 * time.Millisecond) // explain loads a program meanwhile, and gives up after some that came too late
			}
			return nil
		})
	}()
	k := asks(t, l)
	for time.Now().Before(end) {
		k.must(t, "192.0.2.2 80/tcp", "", "pass rule")
		if t.Failed() {
			break
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// record writes frames to a recording, in one of its formats.
func record(t *testing.T, ng bool, link layers.LinkType, frames ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var write func(gopacket.CaptureInfo, []byte) error
	if ng {
		w, err := pcapgo.NewNgWriterInterface(&b, pcapgo.NgInterface{Name: "eth0", LinkType: link, SnapLength: 96}, pcapgo.DefaultNgWriterOptions)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Flush()
		write = func(info gopacket.CaptureInfo, frame []byte) error {
			defer w.Flush()
			return w.WritePacket(info, frame)
		}
	} else {
		w := pcapgo.NewWriterNanos(&b)
		if err := w.WriteFileHeader(96, link); err != nil {
			t.Fatal(err)
		}
		write = w.WritePacket
	}
	for i, f := range frames {
		captured := f[:min(len(f), 96)]
		info := gopacket.CaptureInfo{Timestamp: time.Unix(1700000000, int64(i)*1000), CaptureLength: len(captured), Length: len(f)}
		if err := write(info, captured); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// Recorded packets are explained in a row, those that this host has sent are not.
func TestExplainARecording(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		up(t, l, mode, policyOf(t, "80/tcp", "5000/udp"))
		_, text := deviceOf(t, l.Server, "eth0")
		mac, err := net.ParseMAC(text)
		if err != nil {
			t.Fatal(err)
		}
		ours := frame.MAC(mac)
		ip := frame.IPv4{Src: lab.ClientV4, Dst: lab.ServerV4}
		in := frame.Ethernet{Dst: ours, Src: frame.MAC{2, 0, 0, 0, 0, 9}}
		raw := func(layers ...frame.Layer) []byte { return frame.Build(append([]frame.Layer{in}, layers...)...) }
		frames := [][]byte{
			raw(ip, frame.TCP{SrcPort: 40000, DstPort: 80, Flags: frame.SYN}),
			raw(ip, frame.TCP{SrcPort: 40000, DstPort: 443, Flags: frame.SYN}),
			frame.Build(frame.Ethernet{Dst: in.Src, Src: ours}, frame.IPv4{Src: lab.ServerV4, Dst: lab.ClientV4}, frame.UDP{SrcPort: 1, DstPort: 2}),
			raw(ip, frame.UDP{SrcPort: 40000, DstPort: 5000}, frame.Raw(make([]byte, 1000))), // of which 96 bytes are recorded
			raw(ip, frame.TCP{SrcPort: 40000, DstPort: 80, Flags: frame.ACK}, frame.Raw(make([]byte, 40000))),
			raw(frame.VLAN{ID: 5}, frame.IPv6{Src: lab.ClientV6, Dst: lab.ServerV6}, frame.UDP{SrcPort: 40000, DstPort: 53}, frame.Raw(make([]byte, 9000))),
			append(raw()[:12], 0x08, 0x06, 0, 1),
		}
		want := []string{"1 pass rule", "2 drop closed port", "4 pass rule", "5 pass rule", "6 drop closed port", "7 pass not ip"}
		for _, ng := range []bool{false, true} {
			mustExplainAll(t, l, record(t, ng, layers.LinkTypeEthernet, frames...), want)
		}
		var packets [][]byte
		for _, f := range [][]byte{frames[0], frames[1], frames[3]} {
			packets = append(packets, f[frame.EthernetLen:])
		}
		mustExplainAll(t, l, record(t, true, layers.LinkTypeRaw, packets...), []string{"1 pass rule", "2 drop closed port", "3 pass rule"})
		cooked := func(kind byte, etherType uint16, packet []byte) []byte {
			b := make([]byte, 16)
			b[1], b[14], b[15] = kind, byte(etherType>>8), byte(etherType)
			return append(b, packet...)
		}
		mustExplainAll(t, l, record(t, false, layers.LinkTypeLinuxSLL,
			cooked(0, 0x0800, packets[0]), cooked(4, 0x0800, packets[1]), cooked(0, 0x0806, []byte{0, 1, 8, 0}), cooked(0, 0x0800, packets[1])),
			[]string{"1 pass rule", "3 pass not ip", "4 drop closed port"})
	})
}

func mustExplainAll(t *testing.T, l *lab.Lab, file []byte, want []string) {
	t.Helper()
	var got []string
	eachRecorded(t, l, file, "", func(a *explain.Answer, err error) error {
		if errors.Is(err, explain.ErrOutgoing) {
			return nil
		}
		if err != nil {
			return err
		}
		if a.Time == nil || a.Time.Unix() != 1700000000 {
			t.Errorf("packet %d was recorded at %v", a.Number, a.Time)
		}
		got = append(got, string(rune('0'+a.Number))+" "+a.Verdict+" "+a.Reason)
		return nil
	})
	if !slices.Equal(got, want) {
		t.Errorf("explained are %q, want %q", got, want)
	}
}
