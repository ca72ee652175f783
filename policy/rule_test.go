// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseRule(t *testing.T) {
	for _, c := range []struct {
		text, canonical, ports string
		from                   string
	}{
		{"http", "http", "[80/tcp]", "[]"},
		{"HTTP", "http", "[80/tcp]", "[]"},
		{"www", "www", "[80/tcp]", "[]"},
		{"  domain\t", "domain", "[53/tcp 53/udp]", "[]"},
		{"domain/UDP", "domain/udp", "[53/udp]", "[]"},
		{"amqp", "amqp", "[5672/tcp 5672/udp 5672/sctp]", "[]"},
		{"imaps", "imaps", "[993/tcp]", "[]"},
		{"80/tcp", "80/tcp", "[80/tcp]", "[]"},
		{"80-80/Tcp", "80/tcp", "[80/tcp]", "[]"},
		{"1-65535/sctp", "1-65535/sctp", "[1-65535/sctp]", "[]"},
		{"7/udplite", "7/udplite", "[7/udplite]", "[]"},
		{"22/tcp from 203.0.113.0/24", "22/tcp from 203.0.113.0/24", "[22/tcp]", "[203.0.113.0/24]"},
		{"22/tcp  FROM  192.0.2.0/24 , 2001:DB8:0::/32", "22/tcp from 192.0.2.0/24,2001:db8::/32", "[22/tcp]", "[192.0.2.0/24 2001:db8::/32]"},
		{"ssh from 192.0.2.1/32,192.0.2.1,2001:db8::1/128", "ssh from 192.0.2.1,2001:db8::1", "[22/tcp]", "[192.0.2.1/32 2001:db8::1/128]"},
		{"ssh from 0.0.0.0/0", "ssh from 0.0.0.0/0", "[22/tcp]", "[0.0.0.0/0]"},
	} {
		r, err := ParseRule(c.text)
		if err != nil {
			t.Errorf("ParseRule(%q): %v", c.text, err)
			continue
		}
		if got := r.String(); got != c.canonical {
			t.Errorf("ParseRule(%q).String() = %q, want %q", c.text, got, c.canonical)
		}
		if got := fmt.Sprint(r.Ports); got != c.ports {
			t.Errorf("ParseRule(%q).Ports = %s, want %s", c.text, got, c.ports)
		}
		if got := fmt.Sprint(r.From); got != c.from {
			t.Errorf("ParseRule(%q).From = %s, want %s", c.text, got, c.from)
		}
		if again := mustRule(t, r.String()); !reflect.DeepEqual(again, r) {
			t.Errorf("ParseRule(%q) = %#v, but its text reads as %#v", c.text, r, again)
		}
	}
}

func TestParseRuleErrors(t *testing.T) {
	for _, c := range []struct {
		text   string
		offset int
		token  string
		want   string
	}{
		{"", 0, "", `empty rule "": write a service or a port, such as http or 8080/tcp`},
		{" \t ", 3, "", `empty rule "": write a service or a port, such as http or 8080/tcp`},
		{"from 192.0.2.1", 0, "from", `no port before "from": write a service or a port first, as in "ssh from 203.0.113.0/24"`},
		{"htpt", 0, "htpt", `unknown service "htpt": did you mean "http"?`},
		{"htt", 0, "htt", `unknown service "htt": did you mean "http"?`},
		{" sssh from 192.0.2.1", 1, "sssh", `unknown service "sssh": did you mean "ssh"?`},
		{"qqqqqqq", 0, "qqqqqqq", `unknown service "qqqqqqq": write a name from /etc/services or a port, such as 8080/tcp`},
		{"80", 0, "80", `no protocol in "80": write 80/tcp or 80/udp`},
		{"60000-61000", 0, "60000-61000", `no protocol in "60000-61000": write 60000-61000/tcp or 60000-61000/udp`},
		{"60000:61000/udp", 0, "60000:61000", `range "60000:61000" with a colon: write 60000-61000/udp`},
		{"61000-60000/udp", 0, "61000-60000", `range "61000-60000" runs backwards: write 60000-61000/udp`},
		{"61000:60000", 0, "61000:60000", `range "61000:60000" runs backwards: write 60000-61000/tcp or 60000-61000/udp`},
		{"-5/tcp", 0, "-5", `bad range "-5": write it as 60000-61000/udp`},
		{"1-2-3/tcp", 0, "1-2-3", `bad range "1-2-3": write it as 60000-61000/udp`},
		{"0/tcp", 0, "0", `port "0" is out of range: write a number from 1 to 65535`},
		{"1-65536/tcp", 2, "65536", `port "65536" is out of range: write a number from 1 to 65535`},
		{"022/tcp", 0, "022", `port "022" starts with a zero: write 22`},
		{"80/icmp", 3, "icmp", `unknown protocol "icmp": write tcp, udp, sctp or udplite`},
		{"80/", 3, "", `unknown protocol "": write tcp, udp, sctp or udplite`},
		{"80/tcp/udp", 3, "tcp/udp", `unknown protocol "tcp/udp": write tcp, udp, sctp or udplite`},
		{"tcp/80", 0, "tcp/80", `protocol before port in "tcp/80": write 80/tcp`},
		{"/tcp", 0, "", `unknown service "": write a name from /etc/services or a port, such as 8080/tcp`},
		{"http/udp", 0, "http", `service "http" is listed for tcp, not for udp: write 80/udp`},
		{"domain/sctp", 0, "domain", `service "domain" is listed for tcp and udp, not for sctp: write 53/sctp`},
		{"rtmp", 0, "rtmp", `service "rtmp" is listed for ddp only, which has no ports to open: write a port, such as 8080/tcp`},
		{"http form 192.0.2.1", 5, "form", `unexpected "form" after "http": did you mean "from"?`},
		{"http from", 5, "from", `no address after "from": write from 203.0.113.0/24, or leave "from" out`},
		{"http from any", 10, "any", `bad address "any": write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32`},
		{"http from 192.0.2.1,", 20, "", `empty address "" in the list after "from": take the comma out`},
		{"http from 192.0.2.1 192.0.2.2", 20, "192.0.2.2", `unexpected "192.0.2.2": separate addresses with a comma`},
		{"http from 192.0.2.1/24", 10, "192.0.2.1/24", `network "192.0.2.1/24" has host bits set: write 192.0.2.0/24, or 192.0.2.1 for one host`},
		{"http from 192.0.2.0/33", 10, "192.0.2.0/33", `bad prefix length in "192.0.2.0/33": write a number from 0 to 32 after the slash`},
		{"http from 10.0.0.0/255.0.0.0", 10, "10.0.0.0/255.0.0.0", `network "10.0.0.0/255.0.0.0" with a netmask: write 10.0.0.0/8`},
		{"http from 10.0.0.0/255.0.255.0", 10, "10.0.0.0/255.0.255.0", `bad prefix length in "10.0.0.0/255.0.255.0": write a number from 0 to 32 after the slash`},
		{"http from 2001:db8::1/32", 10, "2001:db8::1/32", `network "2001:db8::1/32" has host bits set: write 2001:db8::/32, or 2001:db8::1 for one host`},
		{"http from ::ffff:192.0.2.1", 10, "::ffff:192.0.2.1", `address "::ffff:192.0.2.1" is IPv4 written as IPv6: write 192.0.2.1`},
		{"http from ::ffff:192.0.2.0/120", 10, "::ffff:192.0.2.0/120", `address "::ffff:192.0.2.0/120" is IPv4 written as IPv6: write 192.0.2.0/24`},
		{"http from fe80::1%eth0", 10, "fe80::1%eth0", `address "fe80::1%eth0" names a zone: leave "%eth0" out`},
	} {
		_, err := ParseRule(c.text)
		var bad *RuleError
		if !errors.As(err, &bad) {
			t.Errorf("ParseRule(%q): got %v, want a RuleError", c.text, err)
			continue
		}
		if bad.Error() != c.want {
			t.Errorf("ParseRule(%q):\n got %s\nwant %s", c.text, bad, c.want)
		}
		if bad.Offset != c.offset || bad.Token != c.token {
			t.Errorf("ParseRule(%q): at %d %q, want %d %q", c.text, bad.Offset, bad.Token, c.offset, c.token)
		}
	}
}

func TestRuleEqual(t *testing.T) {
	for _, c := range []struct {
		a, b  string
		equal bool
	}{
		{"http", "80/tcp", true},
		{"www", "http/tcp", true},
		{"domain", "53/tcp", false},
		{"domain/udp", "53/udp", true},
		{"80/tcp", "80/udp", false},
		{"80/tcp", "80-81/tcp", false},
		{"80/tcp", "80/tcp from 192.0.2.1", false},
		{"80/tcp from 192.0.2.1,2001:db8::1", "80/tcp from 2001:db8::1,192.0.2.1", true},
		{"80/tcp from 10.0.0.0/8,10.1.0.0/16", "80/tcp from 10.0.0.0/8", true},
		{"80/tcp from 10.0.0.0/9,10.128.0.0/9", "80/tcp from 10.0.0.0/8", true},
		// These two touch, but are not the halves of one network.
		{"80/tcp from 10.64.0.0/10,10.128.0.0/10", "80/tcp from 10.0.0.0/9", false},
		{"80/tcp from 0.0.0.0/0", "80/tcp", false},
		{"80/tcp from ::/0,0.0.0.0/0", "80/tcp", true},
		{"80/tcp from ::/1,0.0.0.0/0,8000::/1", "80/tcp", true},
	} {
		a, b := mustRule(t, c.a), mustRule(t, c.b)
		if a.Equal(b) != c.equal || b.Equal(a) != c.equal {
			t.Errorf("%q equal %q: got %v, want %v", c.a, c.b, a.Equal(b), c.equal)
		}
	}
}

func TestTouchingRangesAreOne(t *testing.T) {
	r := Rule{Ports: []PortRange{{TCP, 6, 9}, {UDP, 1, 1}, {TCP, 1, 5}}}
	o := Rule{Ports: []PortRange{{UDP, 1, 1}, {TCP, 1, 9}}}
	if !r.Equal(o) {
		t.Errorf("%s is not %s", r, o)
	}
}

func TestRuleMatching(t *testing.T) {
	r := mustRule(t, "60000-61000/udp from 192.0.2.0/24,2001:db8::/32")
	for _, c := range []struct {
		proto          Protocol
		port           uint16
		src            string
		covers, allows bool
	}{
		{UDP, 60000, "192.0.2.7", true, true},
		{UDP, 61000, "2001:db8::7", true, true},
		{UDP, 61000, "::ffff:192.0.2.7", true, true},
		{UDP, 60500, "192.0.3.7", true, false},
		{UDP, 59999, "192.0.2.7", false, false},
		{UDP, 61001, "192.0.2.7", false, false},
		{TCP, 60500, "192.0.2.7", false, false},
	} {
		if got := r.Covers(c.proto, c.port); got != c.covers {
			t.Errorf("Covers(%s, %d) = %v", c.proto, c.port, got)
		}
		if got := r.Allows(c.proto, c.port, addr(c.src)); got != c.allows {
			t.Errorf("Allows(%s, %d, %s) = %v", c.proto, c.port, c.src, got)
		}
	}
	if !mustRule(t, "http").Allows(TCP, 80, addr("203.0.113.1")) {
		t.Error("http does not allow everyone")
	}
	if mustRule(t, "http from ::/0").Anyone() || !mustRule(t, "http from ::/0,0.0.0.0/0").Anyone() {
		t.Error("Anyone does not tell one family from both")
	}
}

func TestRuleOverlaps(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"domain", "53/udp", true},
		{"60010/udp", "60000-61000/udp", true},
		{"60010/tcp", "60000-61000/udp", false},
		{"22/tcp", "22/tcp from 192.0.2.1", true},
		{"22/tcp from 192.0.2.0/24", "22/tcp from 192.0.2.1", true},
		{"22/tcp from 192.0.2.0/24", "22/tcp from 192.0.3.0/24", false},
	} {
		a, b := mustRule(t, c.a), mustRule(t, c.b)
		if a.Overlaps(b) != c.want || b.Overlaps(a) != c.want {
			t.Errorf("%q overlaps %q: want %v", c.a, c.b, c.want)
		}
	}
}

func TestHandMadeRuleString(t *testing.T) {
	r := Rule{Ports: []PortRange{{TCP, 80, 80}}, From: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}
	if got := r.String(); got != "80/tcp from 192.0.2.1" {
		t.Errorf("got %q", got)
	}
}

func TestServices(t *testing.T) {
	s, err := ReadServices(strings.NewReader(
		"web 80/tcp w1 w2 # c\nweb 81/tcp\nWEB 82/tcp\na,b 83/tcp\n12 84/tcp\n1.2 84/tcp\nx/y 85/tcp\nzero 0/tcp\nbig 65536/tcp\nnoproto 86\nssh 2222/tcp\n3com 87/tcp\na!b 88/tcp\n-x 89/tcp\nc.d+e_f-g 90/tcp\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"web": "[80/tcp]", "w2": "[80/tcp]", "WEB": "[82/tcp]", "Web": "[80/tcp]",
		"ssh": "[2222/tcp]", "3com": "[87/tcp]", "postgresql": "[5432/tcp]",
		"a!b": "", "-x": "", "c.d+e_f-g": "[90/tcp]", "a,b": "", "12": "", "1.2": "", "zero": "", "big": "", "noproto": "",
	} {
		r, err := Names{Services: s}.ParseRule(name)
		got := ""
		if err == nil {
			got = fmt.Sprint(r.Ports)
		}
		if got != want {
			t.Errorf("%s: got %s (%v), want %s", name, got, err, want)
		}
	}
	if _, err := LoadServices(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file is no error")
	}
	if _, err := LoadServices(t.TempDir()); err == nil {
		t.Error("a directory is no error")
	}
	path := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(path, []byte("web 81/tcp\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := LoadServices(path); err != nil || fmt.Sprint(s.find("web")) != "[{tcp 81}]" {
		t.Errorf("got %v, %v", s, err)
	}
	if r, err := (Names{Services: &Services{}}).ParseRule("submission"); err != nil || r.Ports[0].First != 587 {
		t.Errorf("an empty table does not fall back: %v, %v", r, err)
	}
}

func TestBuiltinServices(t *testing.T) {
	for name, want := range map[string]string{
		"ssh": "22/tcp", "http": "80/tcp", "https": "443/tcp 443/udp", "smtp": "25/tcp", "submission": "587/tcp",
		"submissions": "465/tcp", "smtps": "465/tcp", "pop3": "110/tcp", "pop3s": "995/tcp", "imap2": "143/tcp",
		"imap": "143/tcp", "imaps": "993/tcp", "domain": "53/tcp 53/udp", "ntp": "123/udp", "ftp": "21/tcp",
		"ldap": "389/tcp 389/udp", "ldaps": "636/tcp 636/udp", "mysql": "3306/tcp", "snmp": "161/tcp 161/udp",
		"syslog": "514/udp", "openvpn": "1194/tcp 1194/udp", "sip": "5060/tcp 5060/udp", "rsync": "873/tcp", "nfs": "2049/tcp 2049/udp",
	} {
		r, err := Names{Services: &Services{}}.ParseRule(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := strings.Trim(fmt.Sprint(r.Ports), "[]"); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"http", "https", "ssh", "input", "interfaces"}
	for word, want := range map[string][]string{
		"htpt": {"http"}, "HTTP": {"http"}, "httpx": {"http", "https"}, "shh": {"ssh"}, "inptu": {"input"},
		"interface": {"interfaces"}, "xyz": nil, "": nil,
	} {
		if got := suggest(word, known); !slices.Equal(got, want) {
			t.Errorf("suggest(%q) = %q, want %q", word, got, want)
		}
	}
	if d := editDistance("ab", "ba"); d != 1 {
		t.Errorf("a swap costs %d", d)
	}
}

func TestAllowsOthers(t *testing.T) {
	for text, want := range map[string]bool{
		"22/tcp": true, "22/tcp from 10.0.0.0/8": true, "22/tcp from 2001:db8::/32": true, "22/tcp from 0.0.0.0/1": true,
		"22/tcp from 127.0.0.1": false, "22/tcp from 224.0.0.0/4": false, "22/tcp from 240.0.0.1": false, "22/tcp from ::1": false,
		"22/tcp from ff02::/16": false, "22/tcp from 127.0.0.1,192.0.2.1": true,
	} {
		what, from, _ := strings.Cut(text, " from ")
		r := mustRule(t, what)
		for _, text := range strings.Split(from, ",") { // a file may not have all of these any more, but a filter may
			if p, bad := parsePrefix(word{text: text}); bad == nil {
				r.From = append(r.From, p)
			}
		}
		if got := r.AllowsOthers(); got != want {
			t.Errorf("%s: %t, want %t", text, got, want)
		}
	}
}
