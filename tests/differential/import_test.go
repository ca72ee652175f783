// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// original is rules that somebody has, which real iptables runs on one side and the imported policy on the other.
type original struct {
	name       string
	file       string // a golden file of the import, or
	text       string // the rules themselves, of which those for IPv6 are made, too
	six        string // the file for IPv6, where there is one
	forwarding bool
	lists      bool // the import lists lines of which something is lost
	narrower   bool // and that some of it is not let in
}

const chainRules = `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:tcp-in - [0:0]
:udp-in - [0:0]
:deeper - [0:0]
-A INPUT -i eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i eth0 -m conntrack --ctstate INVALID -j DROP
-A INPUT -i eth0 -p tcp -m tcp --dport 7000:7999 -j DROP
-A INPUT -i eth0 -p tcp -g tcp-in
-A INPUT -i eth0 -p udp -j udp-in
-A INPUT -i eth0 -p PROTO-icmp -j ACCEPT
-A INPUT -i eth0 -p tcp -m tcp --dport 9000 -j ACCEPT
-A tcp-in -p tcp -m multiport --dports 22,80,1000:1010 -j deeper
-A tcp-in -p tcp -m tcp --dport 7500 -j ACCEPT
-A tcp-in ! -s OTHER -p tcp -m tcp --dport 443 -j ACCEPT
-A deeper -p tcp -m tcp --dport 1005 -j RETURN
-A deeper -s OTHER -p tcp -m tcp --dport 22 -j RETURN
-A deeper -j ACCEPT
-A udp-in -s NET -p udp -m udp --dport 53 -j ACCEPT
-A udp-in -p udp -m udp ! --dport 1:60000 -j ACCEPT
COMMIT
`

const routerRules = `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i eth0 -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i eth0 -p tcp -m tcp --dport 80 -j ACCEPT
-A INPUT -i eth1 -j ACCEPT
-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i eth1 -j ACCEPT
COMMIT
`

const limitedRules = `*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i eth0 -p tcp -m tcp --dport 22 -m length --length 1000:2000 -j DROP
-A INPUT -i eth0 -p tcp -m tcp --dport 22:23 -j ACCEPT
-A INPUT -i eth0 -p tcp -m tcp --sport 30000 --dport 80 -j ACCEPT
-A INPUT -i eth0 -d US -p udp -m udp --dport 53 -j ACCEPT
-A INPUT -i eth0 -p gre -j ACCEPT
-A INPUT -i eth0 -p tcp -m tcp --dport 443 -j ACCEPT
COMMIT
`

// serverRules are what a policy says by its clauses. Only ports to which nothing but SYNs is sent have a limit.
const serverRules = `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -i eth0 -p tcp -m conntrack --ctstate NEW -m multiport --dports 443,3306,5432 -m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 2 --hashlimit-mode srcip --hashlimit-srcmask MASK --hashlimit-name db -j ACCEPT
-A INPUT -i eth0 -d US -p udp -m udp --dport 53 -j ACCEPT
-A INPUT -i eth0 ! -d US -p udp -m udp --dport 1000 -j ACCEPT
-A INPUT -i eth0 ! -s OTHER -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -i eth0 -s NET -p tcp -m tcp --dport 1005 -j DROP
-A INPUT -i eth0 -p tcp -m tcp --dport 1005:1010 -j ACCEPT
-A INPUT -i eth0 -p gre -j ACCEPT
-A INPUT -i eth0 -s TRUSTED -j ACCEPT
-A INPUT -i eth1 -p tcp -m tcp --dport 8000 -j ACCEPT
COMMIT
`

// exceedingRules have the limit by what exceeds it, which is dropped for good: who is trusted has to come before.
var exceedingRules = strings.NewReplacer("-A INPUT -i eth0 -s TRUSTED -j ACCEPT\n", "", "INVALID -j DROP\n", "INVALID -j DROP\n-A INPUT -i eth0 -s TRUSTED -j ACCEPT\n",
	"--hashlimit-upto", "--hashlimit-above", "--hashlimit-name db -j ACCEPT",
	"--hashlimit-name db -j DROP\n-A INPUT -i eth0 -p tcp -m multiport --dports 22,443,3306,5432 -j ACCEPT").Replace(serverRules)

var originals = []original{
	{name: "the first script", file: "design.sh"},
	{name: "Debian's", file: "debian.v4", six: "debian.v6"},
	{name: "of CentOS", file: "centos.v4"},
	{name: "chains", text: chainRules},
	{name: "a server", text: serverRules},
	{name: "a server, by what exceeds a limit", text: exceedingRules},
	{name: "a router", text: routerRules, forwarding: true},
	{name: "fail2ban", file: "fail2ban.v4"},
	{name: "limits", text: limitedRules, narrower: true},
	{name: "open by default", file: "open.v4", narrower: true},
}

// read returns what goes to the import, and what real iptables and ip6tables get. Rules for IPv4 alone are those for IPv6,
// too, as the import takes them.
func (o original) read(t testing.TB) (files []iptables.File, rules [2]string) {
	t.Helper()
	load := func(name string) string {
		data, err := os.ReadFile(filepath.Join("../../policy/iptables/testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, iptables.File{Name: name, Data: data})
		return string(data)
	}
	switch {
	case o.text != "":
		for i, h := range families {
			net := netip.PrefixFrom(h.peer, 24)
			icmp := "icmp"
			mask, trusted := "32", "10.1.2.3"
			if h.six {
				net, icmp = netip.PrefixFrom(h.peer, 64), "ipv6-icmp"
				mask, trusted = "64", "2001:db8:11::1"
			}
			rules[i] = strings.NewReplacer("PROTO-icmp", icmp, "OTHER", h.other.String(), "NET", net.Masked().String(), "US", h.us.String(),
				"MASK", mask, "TRUSTED", trusted).Replace(o.text)
			files = append(files, iptables.File{Name: fmt.Sprintf("rules.v%d", 4+2*i), Data: []byte(rules[i])})
		}
	case o.six != "":
		rules = [2]string{load(o.file), load(o.six)}
	default:
		rules[0] = load(o.file)
		var lines []string
		for line := range strings.Lines(rules[0]) {
			if !strings.Contains(line, " -s ") { // an IPv4 address
				lines = append(lines, line)
			}
		}
		rules[1] = strings.NewReplacer("iptables", "ip6tables", "-p icmp -m icmp --icmp-type 5", "-p ipv6-icmp -m icmp6 --icmpv6-type 137",
			"-p icmp", "-p ipv6-icmp", "icmp-host-prohibited", "icmp6-adm-prohibited", "icmp-port-unreachable", "icmp6-port-unreachable",
		).Replace(strings.Join(lines, ""))
	}
	return files, rules
}

// originalSide runs the rules themselves.
func (o original) originalSide(t testing.TB, w world, rules [2]string) *side {
	t.Helper()
	s := newSide(t, "the original", w)
	for i, command := range []string{"iptables-restore", "ip6tables-restore"} {
		if strings.HasSuffix(o.file, ".sh") {
			command = "sh"
			rules[i] = strings.ReplaceAll(rules[i], "/etc/", t.TempDir()+"/")
		}
		load := s.lab.Server.Command(command)
		load.Stdin = strings.NewReader(rules[i])
		if out, err := load.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	s.flush = s.conntrack(t, w)
	return s
}

// importedPorts are those that the originals tell apart, and others.
var importedPorts = []uint16{1, 22, 23, 25, 53, 80, 443, 999, 1000, 1005, 1010, 1011, 3306, 5432, 7500, 8000, 8010, 8011, 9000, 60000, 60001, 61000, 65535}

// tries is what is sent to an imported policy: everything that a rule could tell from something else.
func (o original) tries(h hosts, invalidDrop bool) (steps []step) {
	sources := append(addresses("203.0.113.5", "203.0.113.200", "198.51.100.7", "198.51.100.99", "198.51.100.129", "192.0.2.9", "192.0.2.10",
		"192.0.2.20", "192.0.2.21", "192.168.7.77", "10.1.2.3"), h.peer, h.other)
	if h.six {
		sources = append(addresses("2001:db8:10::1", "2001:db8:11::1", "fe80::77"), h.peer, h.other)
	}
	from := uint16(20000)
	for _, src := range sources {
		for _, port := range importedPorts {
			from++
			steps = append(steps,
				packet(src, h.us, frame.TCP{SrcPort: from, DstPort: port, Flags: frame.SYN}),
				packet(src, h.us, frame.UDP{SrcPort: from, DstPort: port}, frame.Text("data")),
				packet(src, h.us, frame.SCTP{SrcPort: from, DstPort: port, Chunk: frame.ChunkInit}, frame.Raw(make([]byte, 16))))
		}
		steps = append(steps, packet(src, h.us, h.echo(from, 1)), packet(src, h.us, h.icmp(13, 139, 0, from, 1)),
			packet(src, h.us, frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN}))
	}
	// Of connections that are none, the socket of an open port gets to see some.
	for i, flags := range append([]uint8{frame.ACK, frame.SYN | frame.ACK}, strange...) {
		for _, port := range []uint16{22, 80, 999, 1000} {
			s := h.in(frame.TCP{SrcPort: 41000 + uint16(i), DstPort: port, Flags: flags, Seq: 7, Ack: 9})
			if invalidDrop {
				s = s.mayBut(strayToOpen)
			}
			steps = append(steps, s)
		}
	}
	steps = append(steps, h.in(h.echoReply(9, 1)), h.in(h.icmp(5, 137, 1, 0, 0)).mayBut(neighbours), h.raw(frame.ProtoGRE, make([]byte, 8)), h.raw(89, make([]byte, 24)),
		h.in(h.unreachable(), quote(h.us, h.peer, 20, frame.UDP{SrcPort: 45000, DstPort: 9})).as("about nothing"))
	// What this host begins is answered.
	f := flow{h, 45001, 4443}
	steps = append(steps, f.handshake()...)
	steps = append(steps, f.tcpIn(dataFlags, 5001, 1001, frame.Text("data")))
	f = flow{h, 45002, 53}
	steps = append(steps, f.udpOut(), f.udpIn(), flow{h, 45003, 53}.udpIn(), h.out(h.echo(8, 1)), h.in(h.echoReply(8, 1)))
	steps = append(steps, h.in(h.unreachable(), quote(h.us, h.peer, 20, frame.UDP{SrcPort: 45002, DstPort: 53})).as("about our query"))
	if o.forwarding {
		steps = append(steps, through(h)...)
		steps = append(steps, forwardedTries(h.behind())...)
	}
	return steps
}

// forwardedTries are connections of a host behind this one.
func forwardedTries(h hosts) []step {
	f, g := flow{h, 46000, 443}, flow{h, 46001, 53}
	steps := append(f.handshake(), g.udpOut(), g.udpIn(), flow{h, 46002, 53}.udpIn(), h.out(h.echo(5, 1)), h.in(h.echoReply(5, 1)),
		h.in(h.unreachable(), quote(h.us, h.peer, 20, frame.UDP{SrcPort: 46001, DstPort: 53})))
	return steps
}

// TestImportedRules plays the same packets to rules and to what import makes of them.
func TestImportedRules(t *testing.T) {
	for _, o := range originals {
		t.Run(o.name, func(t *testing.T) {
			files, rules := o.read(t)
			imported, err := iptables.Import(files, nil)
			if err != nil {
				t.Fatal(err)
			}
			if lists := len(imported.Untranslated) > 0; lists != (o.lists || o.narrower) {
				t.Fatalf("lists what is lost: %t, want %t: %v", lists, !lists, imported.Untranslated)
			}
			w := world{name: o.name, forwarding: o.forwarding, policy: string(imported.YAML())}
			// What a policy means is the same in every mode: other tests see to that.
			mode := loader.ModeTC
			sides := []*side{o.originalSide(t, w, rules), w.portcullisSide(t, mode)}
			narrower := 0
			for _, h := range families {
				steps := o.tries(h, strings.Contains(w.policy, "\ninvalid: drop"))
				verdicts := together(t, sides, steps)
				narrower += o.allowStricter(steps, verdicts[0], verdicts[1])
				c := &tally{}
				c.compare(o.name, steps, verdicts[0], verdicts[1])
				c.report(t, "imported", mode, h)
			}
			if o.narrower && narrower == 0 {
				t.Error("nothing is narrower, though the import says so")
			}
		})
	}
}

// allowStricter takes ours for what netfilter has where the import says that it leaves something out, and so may be the
// stricter one. It says so of INVALID packets, too, which one rule lets in and others drop.
func (o original) allowStricter(steps []step, theirs, ours []verdict) (times int) {
	for i := range steps {
		if ours[i] == drop && theirs[i] != drop && (o.narrower || strings.Contains(steps[i].name, "ICMP")) {
			theirs[i] = drop
			times++
		}
	}
	return times
}

// A policy that is wider than the rules is found out.
func TestTheComparisonOfImportsCanFail(t *testing.T) {
	o := originals[0]
	_, rules := o.read(t)
	w := world{name: o.name, policy: "open: [http, 22/tcp]\n"}
	sides := []*side{o.originalSide(t, w, rules), w.portcullisSide(t, loader.ModeTC)}
	steps := o.tries(families[0], false)
	verdicts := together(t, sides, steps)
	c := &tally{}
	c.compare(o.name, steps, verdicts[0], verdicts[1])
	if text := strings.Join(c.wrong, "\n"); !strings.Contains(text, "> 22 SYN") || !strings.Contains(text, "netfilter: drop, Portcullis: input") {
		t.Errorf("port 22 is open and not in the rules, which gives %s: %q", c, text)
	}
}
