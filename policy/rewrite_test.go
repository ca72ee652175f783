// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
	"time"
)

func TestRewrite(t *testing.T) {
	for _, c := range []struct{ name, before, want, after string }{
		{"nothing to do", "open: [ssh] # c\n", "open: [22/tcp]", "open: [ssh] # c\n"},
		{"rules", "# mine\nopen:\n  - ssh  # office\n  # web\n  - http\n", "open: [ssh, https]", "# mine\nopen:\n  - ssh  # office\n  # web\n  - https\n"},
		{"all rules are others", "open:\n  - ssh # c\n", "open: [https]", "open:\n  - https\n"},
		{"words", "input: drop   # in\nforward: accept # fwd\n", "input: accept\nforward: established\ninvalid: drop",
			"input: accept   # in\nforward: established # fwd\ninvalid: drop\n"},
		{"a list of types", "icmp: [echo-request] # c\n", "icmp: drop", "icmp: drop # c\n"},
		{"types one a line", "icmp:\n  - echo-request # c\ninput: drop\n", "icmp: accept", "icmp: accept # c\ninput: drop\n"},
		{"types where a word was", "icmp: accept\n", "icmp: [echo-request, ipv4/3]", "icmp: [echo-request, ipv4/3]\n"},
		{"interfaces", "interfaces:\n  - eth0 # out\n  - eth1 # in\n", "interfaces: [eth1, eth2]", "interfaces:\n  - eth1 # in\n  - eth2\n"},
		{"no interfaces before", "open: []\n", "interfaces: [eth0]", "open: []\ninterfaces:\n  - eth0\n"},
		{"no interfaces after", "interfaces: [eth0]\n", "{}", "interfaces: []\n"},
		{"a strange name", "interfaces: [eth0]\n", `interfaces: [eth0, "a,b"]`, "interfaces: [eth0, \"a,b\"]\n"},
		{"flows", "flows:\n  max: 2048 # few\n", "flows: {max: 4096}", "flows:\n  max: 4096 # few\n"},
		{"flows back to the default", "flows: {max: 2048}\n", "{}", "flows: {max: 262144}\n"},
		{"no flows before", "input: drop", "flows: {max: 2048}", "input: drop\nflows: {max: 2048}\n"},
		{"flows without keys", "flows: {} # none\n", "flows: {max: 2048}", "flows: {max: 2048} # none\n"},
		{"timeouts", "timeouts:\n  udp: 10s # short\n\ninput: drop\n", "timeouts: {udp: 20s, icmp: 5s}", "timeouts:\n  udp: 20s # short\n  icmp: 5s\n\ninput: drop\n"},
		{"timeouts in braces", "timeouts: {udp: 10s}\n", "timeouts: {udp: 10s, icmp: 5s}", "timeouts: {udp: 10s, icmp: 5s}\n"},
		{"all in braces", "{input: drop, timeouts: {}}\n", "input: accept\nforward: accept\ntimeouts: {udp: 1s}\nopen: [http]",
			"{input: accept, timeouts: {udp: 1s}, forward: accept, open: [http]}\n"},
		{"no keys", "{}\n", "input: accept\nopen: [http]", "{input: accept, open: [http]}\n"},
		{"many rules", "open:\n  - ssh # a\n  - http # b\n  # c\n  - https # d\n", "open: [25/tcp, http, 26/tcp]",
			"open:\n  - http # b\n  # c\n  - 25/tcp\n  - 26/tcp\n"},
		{"many rules in brackets", "open: [ssh, http, https] # a\n", "open: [25/tcp, 26/tcp]", "open: [25/tcp, 26/tcp] # a\n"},
		{"all rules go", "open: # a\n  - ssh\n  # b\n  - http\n", "open: []", "open: [] # a\n  # b\n"},
		{"rules up to an end without a newline", "open:\n  - ssh\n  - http\n  - 'https'", "open: [ssh]", "open:\n  - ssh\n"},
		{"crlf", "input: drop\r\n", "input: accept\ninvalid: drop", "input: accept\r\ninvalid: drop\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, err := Parse("want", []byte(c.want))
			if err != nil {
				t.Fatal(err)
			}
			got, err := Rewrite("f", []byte(c.before), want)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.after {
				t.Errorf("got\n%q\nwant\n%q", got, c.after)
			}
		})
	}
}

// The file was once read anew for each rule, which took minutes.
func TestRewriteOfManyRules(t *testing.T) {
	const n = 10000
	old, want := Default(), Default()
	for port := range n {
		old.Open = append(old.Open, Rule{Ports: []PortRange{{TCP, uint16(port + 1), uint16(port + 1)}}})
		want.Open = append(want.Open, Rule{Ports: []PortRange{{UDP, uint16(port + 1), uint16(port + 1)}}})
	}
	start := cpuTime(t)
	out, err := Rewrite("f", old.YAML(), want)
	if err != nil || !mustPolicy(t, string(out)).Equal(want) {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	if took := cpuTime(t) - start; took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestRewriteOfABadFileIsRefused(t *testing.T) {
	if _, err := Rewrite("f", []byte("opne: []\n"), Default()); err == nil || !strings.HasPrefix(err.Error(), "f:1:1: ") {
		t.Errorf("got %v", err)
	}
}

// FuzzRewrite rewrites one file to mean what another one means.
func FuzzRewrite(f *testing.F) {
	for _, from := range fuzzFiles {
		for _, to := range fuzzFiles {
			f.Add([]byte(from), []byte(to))
		}
	}
	f.Fuzz(func(t *testing.T, from, to []byte) {
		if _, err := Parse("from", from); err != nil {
			return
		}
		want, err := Parse("to", to)
		if err != nil {
			return
		}
		out, err := Rewrite("f", from, want)
		if err != nil {
			// The one form that cannot be edited has no dash on the line.
			if strings.Contains(err.Error(), "the dash of the entry") {
				return
			}
			t.Fatalf("%q as %q: %v", from, to, err)
		}
		if got, err := Parse("f", out); err != nil || !got.Equal(want.WithListsOf(got)) { // what its lists hold is for the file to say
			t.Fatalf("%q as %q is %q: %v", from, to, out, err)
		}
	})
}
