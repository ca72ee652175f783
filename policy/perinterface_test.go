// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
)

func TestPerInterface(t *testing.T) {
	p := mustPolicy(t, `input: {default: drop, eth1: accept, "wg*": reject, w*: accept}
icmp:
  default: [echo-request]
  eth1: drop
invalid: {eth1: drop}
open: [http, ssh on eth1, 53/udp on wg*]
`)
	for _, c := range []struct{ iface, input, icmp, invalid, open string }{
		{"eth0", "drop", "[echo-request]", "log", "http"},
		{"eth1", "accept", "drop", "drop", "http; ssh on eth1"},
		{"wg0", "reject", "[echo-request]", "log", "http; 53/udp on wg*"},
		{"w", "accept", "[echo-request]", "log", "http"},
	} {
		on := p.For(c.iface)
		if on.Input.String() != c.input || on.ICMP.String() != c.icmp || on.Invalid.String() != c.invalid || strings.Join(Texts(on.Open), "; ") != c.open {
			t.Errorf("on %s count %s, %v", c.iface, on.Settings(), on.Open)
		}
		if on.InputOn != nil || on.ICMPOn != nil || on.InvalidOn != nil {
			t.Errorf("on %s: %+v", c.iface, on)
		}
	}
	if got := mustPolicy(t, string(p.YAML())); !got.Equal(p) {
		t.Errorf("it is written as\n%s", p.YAML())
	}
	if got := mustPolicy(t, string(p.CompleteYAML())); Diff(got, p)[0].Key != "open" {
		t.Errorf("it is recorded as\n%s", p.CompleteYAML())
	}
}

// Its name counts before a pattern, the longer of two patterns before the other, and of two that are as long the first in the alphabet.
func TestPickPattern(t *testing.T) {
	patterns := map[string]int{"wg0": 1, "wg*": 2, "w*": 3, "*g1": 4, "**w**": 5, "*g2x": 6}
	for name, want := range map[string]int{"wg0": 1, "wg7": 2, "wg1": 4, "w": 5, "wx": 5, "awx": 5, "ag2x": 6, "eth0": 0} {
		for range 5 { // in whatever order a map has
			if got, ok := pickPattern(patterns, name); got != want || ok != (want != 0) {
				t.Errorf("%s gets %d, %v, want %d", name, got, ok, want)
			}
		}
	}
}

func TestPerInterfaceErrors(t *testing.T) {
	for text, want := range map[string]string{
		"input: {}\n":                         `f:1:8: nothing in the braces of "input": write one value, or some such as {default: drop, eth1: accept}`,
		"input: {eth1: x}\n":                  `f:1:15: unknown value "x" for "input" on "eth1": write drop, accept or reject`,
		"input: {default: x}\n":               `f:1:18: unknown value "x" for "input" by default: write drop, accept or reject`,
		"input: {eth1: }\n":                   `f:1:9: no value for "input" on "eth1": write drop, accept or reject`,
		"input: {eth1: [drop]}\n":             `f:1:15: list "[drop]}" for "input" on "eth1": write drop, accept or reject`,
		"input: {lo: drop}\n":                 `f:1:9: interface "lo" is the loopback, which is never filtered: take it out`,
		"input: {\"*\": drop}\n":              `f:1:9: "*" stands for every interface: write default`,
		"input: {eth+: drop}\n":               `f:1:9: interface name "eth+" is a pattern of iptables: write "eth*"`,
		"input: {eth1: drop, eth1: accept}\n": `f:1:21: duplicate key "eth1": it is on line 1 already, keep one`,
		"invalid: {abcdefghijklmnop: log}\n":  `f:1:11: interface name "abcdefghijklmnop" is 16 bytes long: write at most 15`,
		"icmp: {eth1: echo-request}\n":        `f:1:14: type "echo-request" alone for "icmp" on "eth1": write a list, such as [echo-request]`,
		"icmp: {eth1: [ipv4/8, 8]}\n":         `f:1:23: icmp type "8" has no family: write ipv4/8 or ipv6/8`,
		"icmp: {eth1: {a: b}}\n":              `f:1:14: mapping "{a: b}}" for "icmp" on "eth1": write accept, drop or a list of types`,
		"forward: {default: drop, eth1: drop}\n": `f:1:11: unknown key "default": write policy or open
f:1:26: unknown key "eth1": write policy or open`,
	} {
		if p, err := Parse("f", []byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: %+v\n got %v\nwant %s", text, p, err, want)
		}
	}
}

func TestRewritePerInterface(t *testing.T) {
	for _, c := range []struct{ old, want, text string }{
		{"input: drop # c\n", "input: {eth1: accept}\n", "input: {default: drop, eth1: accept} # c\n"},
		{"open: []\n", "input: {eth1: accept}\n", "open: []\ninput: {default: drop, eth1: accept}\n"},
		{"input: {eth1: accept} # c\n", "input: {eth1: reject, wg*: accept}\n", "input: {eth1: reject, \"wg*\": accept} # c\n"},
		{"input: {eth1: accept} # c\n", "input: accept\n", "input: accept # c\n"},
		{"input: # a\n  default: accept # b\n  eth1: drop # c\n  eth2: reject # d\n", "input: {default: drop, eth0: accept, eth2: drop}\n",
			"input: # a\n  default: drop # b\n  eth2: drop # d\n  eth0: accept\n"},
		{"input:\n  # a\n  wg*: reject # b\nopen: []\n", "open: []\n", "input: drop # b\nopen: []\n"},
		{"input:\n  eth1: drop # b\nopen: []\n", "input: {default: accept, eth1: drop}\n", "input:\n  eth1: drop # b\n  default: accept\nopen: []\n"},
		{"icmp: [echo-request] # a\n", "icmp: {default: [echo-request], wg0: [echo-reply]}\n", "icmp: {default: [echo-request], wg0: [echo-reply]} # a\n"},
		{"icmp: {wg0: [echo-request, echo-reply], eth0: drop} # a\n", "icmp: {wg0: drop, eth0: drop}\n", "icmp: {wg0: drop, eth0: drop} # a\n"},
		{"icmp:\n  wg0:\n    - echo-request\n    - echo-reply\n  eth0: drop # a\n", "icmp: {eth0: drop}\n", "icmp:\n  eth0: drop # a\n"},
		{"{invalid: {\"*0\": drop}}\n", "invalid: {\"*0\": accept, \"*1\": drop}\n", "{invalid: {\"*0\": accept, \"*1\": drop}}\n"},
	} {
		want := mustPolicy(t, c.want)
		got, err := Rewrite("f", []byte(c.old), want)
		if err != nil || string(got) != c.text {
			t.Errorf("%q to mean %q:\n got %q, %v\nwant %q", c.old, c.want, got, err, c.text)
		}
	}
}
