// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

// 8080 was opened to everybody when both were meant to be restricted.
func TestOpenAsksWhatFromIsMeantFor(t *testing.T) {
	h := newHost(t)
	h.runs("open: [ssh]\n")
	for _, verb := range []string{"open", "close"} {
		h.types(2, verb, "8080/tcp", "9090/tcp", "from", "10.0.0.0/8")
		h.complains(`"8080/tcp" "9090/tcp from 10.0.0.0/8", or "8080/tcp from 10.0.0.0/8" "9090/tcp from 10.0.0.0/8"`)
	}
	h.opens("ssh")
	h.types(0, "open", "8080/tcp", "9090/tcp from 10.0.0.0/8")
	h.opens("ssh", "8080/tcp", "9090/tcp from 10.0.0.0/8")
}

func TestOpenTellsThatARuleRestrictsNothing(t *testing.T) {
	h := newHost(t)
	h.runs("open: [smtp]\n")
	h.types(0, "open", "smtp", "from", "10.0.0.0/8")
	h.complains(`warning: "smtp from 10.0.0.0/8" restricts nothing: "smtp" lets all of it in already, until closed`)
	for _, clause := range []string{"limit 6/minute", "except 192.0.2.1", "to 192.0.2.1"} {
		h.types(0, "open", "smtp "+clause)
		h.complains(`warning: "smtp ` + clause + `" restricts nothing: "smtp" lets all of it in already, until closed`)
	}
	h.types(0, "open", "smtp on eth0")
	h.complains(`warning: "smtp on eth0" opens nothing: "smtp" lets all of it in already, until closed`)
	h.types(0, "open", "http", "from", "10.0.0.0/8")
	if h.stderr != "" {
		t.Errorf("warns of %q", h.stderr)
	}
}

// A service may have ports that its user does not think of.
func TestOpenTellsWhichPortsANameMeans(t *testing.T) {
	h := newHost(t)
	h.runs("open: [ssh]\n")
	h.types(0, "open", "domain", "http", "domain from 10.0.0.0/8")
	h.says("opened domain (53/tcp, 53/udp)\n", "opened http\n", "opened domain from 10.0.0.0/8 (53/tcp, 53/udp)\n")
	h.types(0, "open", "domain")
	h.says("already open: domain (53/tcp, 53/udp)\n")
	h.types(0, "close", "domain", "53/tcp from 192.0.2.1")
	h.says("closed domain (53/tcp, 53/udp)\n", "not open: 53/tcp from 192.0.2.1\n")
}

// What others call it leads to what it is called here.
func TestRulesInOtherWords(t *testing.T) {
	h := newHost(t)
	h.runs("open: [ssh]\n")
	for words, says := range map[string]string{
		"dns":                                  `"domain"`,
		"http dns/udp":                         `"domain"`,
		"ping":                                 `the key "icmp" of the policy file`,
		"ICMP":                                 `"icmp: accept"`,
		"http echo-request":                    `"icmp: [echo-request]"`,
		"forward all on eth1":                  "such as --forward all on eth1",
		"22/tcp for 1h":                        "write 22/tcp --for 1h",
		"22/tcp from 10.0.0.1 for 1h30m":       "write 22/tcp from 10.0.0.1 --for 1h30m",
		"22/tcp from any":                      `a rule without "from" is for anyone: write 22/tcp`,
		"22/tcp from Anywhere":                 "write 22/tcp",
		"22/tcp from 10.0.0.1 10.0.0.2":        "commas stand between sources: write from 10.0.0.1,10.0.0.2",
		"22/tcp from 10.0.0.1 and 10.0.0.2":    "write from 10.0.0.1,10.0.0.2",
		"22/tcp from 10.0.0.0/8 2001:db8::/32": "write from 10.0.0.0/8,2001:db8::/32",
		"htttp":                                `did you mean "http"?`,
		"for":                                  "unknown service",
		"22/tcp from":                          "from",
		"22/tcp 10.0.0.1":                      `"10.0.0.1"`,
	} {
		for _, args := range [][]string{strings.Fields(words), {words}} {
			h.types(2, append([]string{"open"}, args...)...)
			h.complains(says)
		}
	}
	h.opens("ssh")
}

// Ports are told where the name of a service stands for several, and nowhere else.
func TestPortsOfARule(t *testing.T) {
	for text, want := range map[string]string{
		"https limit 6/minute": "https limit 6/minute (443/tcp, 443/udp)",
		"443/tcp":              "443/tcp",
		"80,443/tcp on eth0":   "80,443/tcp on eth0",
		"all from 192.0.2.4":   "all from 192.0.2.4",
		"gre":                  "gre",
	} {
		r, err := policy.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := withPorts(text, []policy.Rule{r}); got != want {
			t.Errorf("%s is told as %s", text, got)
		}
	}
}
