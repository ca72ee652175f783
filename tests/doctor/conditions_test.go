// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"runtime"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall/doctor"
)

// A condition is made, found, and mended by what the check says.
type condition struct {
	what    string
	before  []string // makes a host that has it not yet
	needs   string   // makes it where the kernel can
	make    []string
	args    string // of the doctor
	group   string
	name    string
	verdict doctor.Verdict
	says    string
	after   doctor.Verdict // once it is mended; "" where it cannot be
}

var conditions = []condition{
	{what: "not running", group: "portcullis", name: "filter", verdict: doctor.Note, says: "every port is open", after: doctor.OK},
	{what: "veth", group: "eth0", name: "xdp", verdict: doctor.Note, says: "segmentation offload", after: doctor.OK},
	{what: "veth that native XDP filters", before: []string{"portcullis up --config $CONFIG --mode tc"},
		make:  []string{"portcullis down", "portcullis up --config $CONFIG --mode native"},
		group: "eth0", name: "xdp", verdict: doctor.Note, says: "segmentation offload", after: doctor.OK},
	{what: "generic XDP", before: []string{"portcullis up --config $CONFIG --mode tc"},
		make:  []string{"portcullis down", "portcullis up --config $CONFIG --mode generic"},
		group: "eth0", name: "xdp", verdict: doctor.Warn, says: "GRO", after: doctor.OK},
	{what: "no such interface", args: "eth7", group: "eth7", name: "device", verdict: doctor.Fail, says: "no interface eth7"},
	{what: "loopback", args: "lo", group: "lo", name: "device", verdict: doctor.Fail, says: "always passes"},
	{what: "down", make: []string{"ip link set dev eth0 down"}, group: "eth0", name: "device", verdict: doctor.Note, says: "is down", after: doctor.OK},
	{what: "large MTU without multi-buffer", before: []string{"ip tuntap add tap0 mode tap"}, make: []string{"ip link set dev tap0 mtu 9000"},
		args: "tap0", group: "tap0", name: "mtu", verdict: doctor.Warn, says: "MTU of 9000", after: doctor.OK},
	{what: "few channels", before: []string{"portcullis up --config $CONFIG --mode tc"},
		make:  []string{"portcullis down", "portcullis up --config $CONFIG --mode native", "ethtool -L eth0 rx 1"},
		group: "eth0", name: "channels", verdict: doctor.Warn, says: "1 of", after: doctor.OK},
	{what: "port of a bridge", before: []string{"ip link add name br0 up type bridge"}, make: []string{"ip link set dev eth0 master br0"},
		group: "eth0", name: "device", verdict: doctor.Warn, says: "filter br0 instead"},
	{what: "port of a bond", needs: "ip link add name bond0 type bond && ip link set dev eth0 down && ip link set dev eth0 master bond0",
		group: "eth0", name: "device", verdict: doctor.Warn, says: "port of bond0"},
	{what: "bridge", make: []string{"ip link add name br0 up type bridge"}, args: "br0", group: "br0", name: "xdp", verdict: doctor.Note,
		says: "bridge has no native XDP"},
	{what: "VLAN", needs: "ip link add link eth0 name eth0.10 up type vlan id 10", args: "eth0 eth0.10", group: "eth0.10", name: "device",
		verdict: doctor.Note, says: "VLAN on eth0"},
	{what: "VLAN tags taken off", before: []string{"ethtool -K eth0 rxvlan off"}, needs: "ip link add link eth0 name eth0.10 up type vlan id 10",
		make: []string{"ethtool -K eth0 rxvlan on"}, group: "eth0", name: "vlan", verdict: doctor.Note, says: "eth0.10", after: doctor.OK},
	{what: "macvlan", needs: "ip link add link eth0 name mv0 up type macvlan", group: "eth0", name: "macvlan", verdict: doctor.OK, says: "mv0 is filtered here"},
	{what: "iptables", make: []string{"iptables -A INPUT -p tcp -j ACCEPT", "iptables -P INPUT DROP"},
		group: "network", name: "netfilter", verdict: doctor.Warn, after: doctor.OK,
		says: "iptables filters as well: chain INPUT of table ip filter drops by default, with 1 rules"},
	{what: "ip6tables", make: []string{"ip6tables -N LOGDROP", "ip6tables -A LOGDROP -j DROP", "ip6tables -A INPUT -p udp -j LOGDROP"},
		group: "network", name: "netfilter", verdict: doctor.Warn, after: doctor.OK,
		says: "ip6tables filters as well: chain INPUT of table ip6 filter drops some packets"},
	{what: "iptables-legacy", needs: "iptables-legacy -A INPUT -p udp -j REJECT",
		group: "network", name: "netfilter", verdict: doctor.Warn, says: "iptables-legacy filters as well", after: doctor.OK},
	{what: "nftables", before: []string{"nft add table inet host", "nft 'add chain inet host in { type filter hook input priority 0; }'",
		"nft add rule inet host in counter accept"}, make: []string{"nft 'chain inet host in { policy drop; }'"},
		group: "network", name: "netfilter", verdict: doctor.Warn, says: "nft filters as well: chain in of table inet host drops by default", after: doctor.OK},
	{what: "nftables before routing", make: []string{"nft add table ip early", "nft 'add chain ip early pre { type filter hook prerouting priority raw; }'",
		"nft add rule ip early pre udp dport 9 drop"},
		group: "network", name: "netfilter", verdict: doctor.Warn, says: "chain pre of table ip early drops some packets", after: doctor.OK},
	{what: "ufw", make: []string{"iptables -N ufw-user-input", "iptables -A ufw-user-input -j DROP", "iptables -A INPUT -j ufw-user-input"},
		group: "network", name: "netfilter", verdict: doctor.Warn, says: "ufw filters as well"},
	{what: "reject on a veth", before: []string{"echo 'input: reject' >>$CONFIG"}, make: []string{"portcullis up --config $CONFIG --mode native"},
		group: "eth0", name: "reject", verdict: doctor.Warn, says: "GRO on", after: doctor.OK},
	{what: "containers", before: []string{"ip link add name docker0 type bridge"}, make: []string{"sysctl -qw net.ipv4.ip_forward=1"},
		group: "network", name: "forward", verdict: doctor.OK, says: "what is behind docker0 (Docker) reaches out"},
	{what: "containers that came later", before: []string{"sysctl -qw net.ipv4.ip_forward=1", "portcullis up --config $CONFIG"}, make: []string{"ip link add name docker0 type bridge"},
		group: "portcullis", name: "filter", verdict: doctor.Warn, says: "docker0: its guests are cut off"},
	{what: "router", make: []string{"sysctl -qw net.ipv6.conf.all.forwarding=1"},
		group: "network", name: "forward", verdict: doctor.Note, says: "open --forward 'all on eth1'"},
	{what: "asymmetric route", before: []string{"ip link add name eth1 up type bridge"},
		make: []string{"ip route add 198.51.100.7 dev eth1 src 192.0.2.1"}, group: "network", name: "topology", verdict: doctor.Warn, says: "eth1 is not filtered"},
	{what: "another file", before: []string{"portcullis up --config $CONFIG"}, make: []string{"echo 'icmp: drop' >>$CONFIG"},
		group: "portcullis", name: "filter", verdict: doctor.Warn, says: "differs from what is in force"},
	{what: "bad file", make: []string{"echo 'inputs: drop' >>$CONFIG"}, args: "eth0", group: "portcullis", name: "policy", verdict: doctor.Fail, says: "fw.yaml:3:1"},
	{what: "unfiltered default route", before: []string{"portcullis up --config $CONFIG"},
		make: []string{"ip link add name eth1 up type bridge", "ip route add default dev eth1"}, group: "portcullis", name: "filter", verdict: doctor.Warn, says: "eth1 is not filtered", after: doctor.OK},
}

func TestConditions(t *testing.T) {
	for _, c := range conditions {
		t.Run(strings.ReplaceAll(c.what, " ", "_"), func(t *testing.T) {
			if c.name == "channels" && runtime.NumCPU() < 2 {
				t.Skip("needs two CPUs")
			}
			p := newPatient(t)
			must := func(lines []string) {
				t.Helper()
				for _, line := range lines {
					p.must(strings.ReplaceAll(line, "$CONFIG", p.config))
				}
			}
			must(c.before)
			if c.make != nil && c.group != c.args { // what is named may not be there yet
				for _, got := range p.examine(c.args) {
					if got.Group == c.group && got.Name == c.name && got.Verdict == c.verdict && strings.Contains(got.Text, c.says) {
						t.Errorf("already before: %+v", got)
					}
				}
			}
			if c.needs != "" {
				p.can(c.needs)
			}
			must(c.make)
			got := p.find(p.examine(c.args), c.group, c.name)
			if got.Verdict != c.verdict || !strings.Contains(got.Text, c.says) {
				t.Fatalf("got %+v, want %s that says %q", got, c.verdict, c.says)
			}
			if c.after == "" {
				return
			}
			if len(got.Fix) == 0 {
				t.Fatalf("no fix: %+v", got)
			}
			p.must(got.Fix...)
			if mended := p.find(p.examine(c.args), c.group, c.name); mended.Verdict != c.after {
				t.Errorf("after %q: %+v", got.Fix, mended)
			}
		})
	}
}
