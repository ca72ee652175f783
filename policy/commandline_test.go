// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseRules(t *testing.T) {
	const net = "10.0.0.0/8"
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"http"}, "[http]"},
		{[]string{"http", "ssh", "80/tcp"}, "[http ssh]"},
		{[]string{"8080/tcp", "from", net}, "[8080/tcp from 10.0.0.0/8]"},
		{[]string{"8080/tcp", "FROM", net + ",", "192.0.2.1", ",192.0.2.2"}, "[8080/tcp from 10.0.0.0/8,192.0.2.1,192.0.2.2]"},
		{[]string{"8080/tcp", "from " + net}, "[8080/tcp from 10.0.0.0/8]"},
		{[]string{"8080/tcp from", net}, "[8080/tcp from 10.0.0.0/8]"},
		{[]string{"8080/tcp from " + net, "9090/tcp"}, "[8080/tcp from 10.0.0.0/8 9090/tcp]"},
		{[]string{"8080/tcp", "from", net, "9090/tcp"}, "[8080/tcp from 10.0.0.0/8 9090/tcp]"},
		{[]string{"8080/tcp", "9090/tcp from " + net}, "[8080/tcp 9090/tcp from 10.0.0.0/8]"},
		{[]string{"8080/tcp", "9090/tcp from " + net, "ssh", "from", net}, "[8080/tcp 9090/tcp from 10.0.0.0/8 ssh from 10.0.0.0/8]"},
		{[]string{"8080/tcp", "from", net, "ssh", "from", "192.0.2.1"}, "[8080/tcp from 10.0.0.0/8 ssh from 192.0.2.1]"},
	} {
		got, err := ParseRules(c.words)
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%q: got %v, %v, want %s", c.words, got, err, c.want)
		}
	}
}

func TestParseRulesErrors(t *testing.T) {
	const net = "10.0.0.0/8"
	long := strings.Repeat("192.0.2.1,", 1000) + "192.0.2.2"
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"8080/tcp", "9090/tcp", "from", net}, `"from 10.0.0.0/8" may be meant for "9090/tcp" alone or for "8080/tcp" too: ` +
			`quote each rule, as "8080/tcp" "9090/tcp from 10.0.0.0/8", or "8080/tcp from 10.0.0.0/8" "9090/tcp from 10.0.0.0/8"`},
		{[]string{"http", "ssh", "25/tcp from " + net, "http", "ssh", "from " + net}, `"from 10.0.0.0/8" may be meant for "ssh" alone or for "http" too: ` +
			`quote each rule, as "http" "ssh from 10.0.0.0/8", or "http from 10.0.0.0/8" "ssh from 10.0.0.0/8"`},
		{[]string{"1/tcp", "2/tcp", "3/tcp", "4/tcp", "5/tcp", "from", net}, `"from 10.0.0.0/8" may be meant for "5/tcp" alone or for "2/tcp", "3/tcp" and "4/tcp" too: ` +
			`quote each rule, as "2/tcp" "3/tcp" "4/tcp" "5/tcp from 10.0.0.0/8", or "2/tcp from 10.0.0.0/8" "3/tcp from 10.0.0.0/8" "4/tcp from 10.0.0.0/8" "5/tcp from 10.0.0.0/8"`},
		{[]string{"http", "9090/tcp from", net}, ""}, // one argument holds the from
		{[]string{"htpt", "80"}, "unknown service \"htpt\": did you mean \"http\"?\nno protocol in \"80\": write 80/tcp or 80/udp"},
		{[]string{"from", net}, `no port before "from": write a service or a port first, as in "ssh from 203.0.113.0/24"`},
		{[]string{"", "http"}, `empty rule "": write a service or a port, such as http or 8080/tcp`},
		{[]string{"http", " "}, `empty rule "": write a service or a port, such as http or 8080/tcp`},
		{[]string{""}, `empty rule "": write a service or a port, such as http or 8080/tcp`},
	} {
		got, err := ParseRules(c.words)
		if c.want == "" {
			if err != nil {
				t.Errorf("%q: %v", c.words, err)
			}
			continue
		}
		if err == nil || err.Error() != c.want {
			t.Errorf("%q: got %v,\n%v\nwant\n%s", c.words, got, err, c.want)
		}
	}
	if _, err := ParseRules([]string{"8080/tcp", "9090/tcp", "from", long}); err == nil || len(err.Error()) > 500 {
		t.Errorf("a long list of sources is printed back: %v", err)
	}
}

func TestCovering(t *testing.T) {
	for _, c := range []struct{ open, rule, want string }{
		{"smtp", "smtp from 10.0.0.0/8", "[smtp]"},
		{"25/tcp", "smtp from 10.0.0.0/8", "[25/tcp]"},
		{"20-30/tcp from 0.0.0.0/0", "smtp from 10.0.0.0/8", "[20-30/tcp from 0.0.0.0/0]"},
		{"20-30/tcp from 0.0.0.0/0", "smtp from 2001:db8::/32", "[]"},
		{"20-30/tcp from 0.0.0.0/0", "smtp", "[]"},
		{"smtp from 10.0.0.0/8", "smtp", "[]"},
		{"smtp", "smtp", "[]"},
		{"smtp from 0.0.0.0/0; smtp from ::/0", "smtp", "[smtp from 0.0.0.0/0 smtp from ::/0]"},
		{"smtp from 10.0.0.0/9; smtp; ssh", "smtp from 10.0.0.0/9,10.128.0.0/9", "[smtp]"},
		{"smtp from 10.0.0.0/9; 25/tcp from 10.128.0.0/9; ssh", "smtp from 10.0.0.0/8", "[smtp from 10.0.0.0/9 25/tcp from 10.128.0.0/9]"},
		{"smtp from 10.0.0.0/9; 25/tcp from 10.128.0.0/10", "smtp from 10.0.0.0/8", "[]"},
		{"domain", "53/udp from 10.0.0.0/8", "[domain]"},
		{"53/udp", "domain from 10.0.0.0/8", "[]"},
		{"53/udp; 53/tcp", "domain from 10.0.0.0/8", "[53/udp 53/tcp]"},
		{"1-10/tcp; 10-20/tcp", "5-15/tcp from 10.0.0.0/8", "[1-10/tcp 10-20/tcp]"},
		{"1-10/tcp; 12-20/tcp", "5-15/tcp from 10.0.0.0/8", "[]"},
		{"6-20/tcp", "5-15/tcp from 10.0.0.0/8", "[]"},
		{"5-14/tcp", "5-15/tcp from 10.0.0.0/8", "[]"},
		{"5-65535/tcp", "5-65535/tcp from 10.0.0.0/8", "[5-65535/tcp]"},
		{"5-15/udp", "5-15/tcp from 10.0.0.0/8", "[]"},
		{"1-65534/tcp; 2-65535/tcp", "1-65535/tcp from 10.0.0.0/8", "[1-65534/tcp 2-65535/tcp]"},
	} {
		p := Default()
		for _, text := range strings.Split(c.open, "; ") {
			p, _ = p.WithRule(mustRule(t, text))
		}
		if got := fmt.Sprint(p.Covering(mustRule(t, c.rule))); got != c.want {
			t.Errorf("%s, and %s: got %s, want %s", c.open, c.rule, got, c.want)
		}
	}
}

func TestCoveringText(t *testing.T) {
	p := mustPolicy(t, "open: [smtp, 1-9/udp from 10.0.0.0/8, 1-9/udp from 10.0.0.0/9, 100-109/tcp, 110-119/tcp, 120-129/tcp, 130-139/tcp, 140-149/tcp, 150-159/tcp]\n")
	for rule, want := range map[string]string{
		"smtp from 10.0.0.0/8":         `"smtp from 10.0.0.0/8" restricts nothing: "smtp" lets all of it in already, until closed`,
		"101/tcp":                      `"101/tcp" opens nothing: "100-109/tcp" lets all of it in already, until closed`,
		"105-115/tcp from 2001:db8::1": `"105-115/tcp from 2001:db8::1" restricts nothing: "100-109/tcp" and "110-119/tcp" let all of it in already, until closed`,
		"100-159/tcp":                  `"100-159/tcp" opens nothing: "100-109/tcp", "110-119/tcp", "120-129/tcp", "130-139/tcp", "140-149/tcp" and 1 more let all of it in already, until closed`,
		"ssh":                          "",
		"1-9/udp from 10.0.0.0/8":      "",
	} {
		if got := p.CoveringText(mustRule(t, rule)); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", rule, got, want)
		}
	}
}
