// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

func TestParseRequest(t *testing.T) {
	v4, v6 := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")
	https := []What{{Text: "443/tcp", Protocol: policy.TCP, Port: 443}}
	for _, c := range []struct {
		words, flags string
		want         Request
	}{
		{"203.0.113.9 443/tcp", "", Request{Source: v4, Packets: https}},
		{"203.0.113.9:40000 443/tcp", "", Request{Source: v4, SourcePort: 40000, Packets: https}},
		{"::ffff:203.0.113.9 443/tcp", "", Request{Source: v4, Packets: https}},
		{"2001:db8::9 443/tcp", "", Request{Source: v6, Packets: https}},
		{"[2001:db8::9]:53 443/tcp on eth0 to 2001:db8::1", "", Request{Source: v6, SourcePort: 53, Packets: https, On: "eth0", To: netip.MustParseAddr("2001:db8::1")}},
		{"fe80::1%eth1 443/tcp", "", Request{Source: netip.MustParseAddr("fe80::1"), Packets: https, On: "eth1"}},
		{"203.0.113.9 443/tcp", "syn,ACK", Request{Source: v4, Packets: https, Flags: []string{"syn", "ack"}}},
		{"203.0.113.9 443/tcp", "none", Request{Source: v4, Packets: https, Flags: []string{}}},
		{"203.0.113.9 gre", "", Request{Source: v4, Packets: []What{{Text: "gre", Protocol: 47}}}},
		{"203.0.113.9 ping", "", Request{Source: v4, Packets: []What{{Text: "echo-request", Protocol: 1, Type: 8}}}},
		{"2001:db8::9 echo-request", "", Request{Source: v6, Packets: []What{{Text: "echo-request", Protocol: 58, Type: 128}}}},
		{"203.0.113.9 echo-reply", "", Request{Source: v4, Packets: []What{{Text: "echo-reply", Protocol: 1, Type: 0}}}},
		{"203.0.113.9 ipv4/255", "", Request{Source: v4, Packets: []What{{Text: "ipv4/255", Protocol: 1, Type: 255}}}},
		{"203.0.113.9 53,55/udp", "", Request{Source: v4, Packets: []What{{Text: "53/udp", Protocol: policy.UDP, Port: 53}, {Text: "55/udp", Protocol: policy.UDP, Port: 55}}}},
	} {
		got, err := ParseRequest(strings.Fields(c.words), c.flags)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s (%s): %+v, %v; want %+v", c.words, c.flags, got, err, c.want)
		}
	}
}

func TestWhatIsNoPacketIsRefused(t *testing.T) {
	for _, c := range []struct{ words, flags, want string }{
		{"", "", "write who sends what"},
		{"443/tcp 203.0.113.9", "", "bad source \"443/tcp\""},
		{"203.0.113.9:0 443/tcp", "", "a port is a number from 1 to 65535"},
		{"203.0.113.9:70000 443/tcp", "", "bad source"},
		{"239.1.1.1 443/tcp", "", "a group sends nothing"},
		{"ff02::1 443/tcp", "", "a group sends nothing"},
		{"0.0.0.0 443/tcp", "", "nobody's"},
		{"255.255.255.255 443/tcp", "", "everybody's"},
		{"127.0.0.1 443/tcp", "", "loopback"},
		{"::1 443/tcp", "", "loopback"},
		{"203.0.113.9 443/tcp to 2001:db8::1", "", "one is IPv4, the other IPv6"},
		{"203.0.113.9 443/tcp to eth0", "", "bad address \"eth0\""},
		{"203.0.113.9 443/tcp to", "", "nothing behind \"to\""},
		{"203.0.113.9 443/tcp to 192.0.2.1 to 192.0.2.1", "", "twice"},
		{"fe80::1%eth1 443/tcp on eth0", "", "twice"},
		{"203.0.113.9 443/tcp from 192.0.2.1", "", "unexpected \"from\""},
		{"203.0.113.9:4 ping", "", "has no ports"},
		{"203.0.113.9 gre", "ack", "has no flags"},
		{"203.0.113.9 443/tcp", "sin", "unknown flag \"sin\""},
		{"203.0.113.9 packet-too-big", "", "no message of IPv4"},
		{"2001:db8::9 ipv4/8", "", "no message of IPv6"},
		{"203.0.113.9 ipv4/256", "", "bad icmp type"},
		{"203.0.113.9 1-2/tcp", "", "many packets"},
		{"203.0.113.9 all", "", "many packets"},
		{"203.0.113.9 tcp", "", "many packets"},
		{"203.0.113.9 443", "", "no protocol in \"443\""},
		{"203.0.113.9 nosuchservice", "", "unknown service"},
		{"2001:db8::9 proto/44", "", "a header before one"},
	} {
		if r, err := ParseRequest(strings.Fields(c.words), c.flags); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s (%s): %+v, %v; want %q", c.words, c.flags, r, err, c.want)
		}
	}
}
