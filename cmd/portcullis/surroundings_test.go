// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/containers"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/host/netfilter"
	"github.com/portcullis-firewall/portcullis/policy"
)

// behind is what a host with containers has.
func behind() containers.Found {
	return containers.Found{
		Guests:    []host.Guests{{Device: "docker0", Manager: "Docker"}, {Device: "br\x1b[2J"}},
		Published: []netfilter.Published{{Protocol: policy.TCP, First: 8080, Last: 8080, To: "172.17.0.2:80"}},
	}
}

func TestContainersThatAreCutOffAreNamed(t *testing.T) {
	for _, forward := range []string{"", "forward: drop\n", "forward: established\n", "forward: accept\n"} {
		h := newHost(t)
		h.Forwarding, h.Guests = true, behind()
		path := h.writes("interfaces: [eth0]\n" + forward + "open: [ssh]\n")
		warned := func(text string) {
			t.Helper()
			want := forward == "" || forward == "forward: drop\n"
			got := strings.Contains(h.stderr, text) && strings.Contains(h.stderr, `"forward: established" to `+path)
			if got != want || strings.Contains(h.stderr, "\x1b") {
				t.Errorf("under %q it warns: %t, want %t: %q", forward, got, want, h.stderr)
			}
		}
		h.types(0, "up", "--config", path)
		warned(`docker0 (Docker), br\x1b[2J`)
		h.types(0, "status")
		warned("8080/tcp")
		h.types(0, "apply")
		warned("8080/tcp")
		h.types(0, "open", "8000-9000/tcp")
		warned("8000-9000/tcp is open, but leads to 172.17.0.2:80")
		h.types(0, "open", "8080/udp", "8081/tcp")
		if strings.Contains(h.stderr, "leads to") {
			t.Errorf("another port leads to a container: %s", h.stderr)
		}
	}
}

func TestBuiltInPolicyOfForwardingHost(t *testing.T) {
	for _, forwards := range []bool{true, false} {
		h := newHost(t)
		h.Forwarding = forwards
		h.types(0, "up")
		want := policy.ForwardDrop
		if forwards {
			want = policy.ForwardEstablished
		}
		if got := h.Running.Forward; got != want {
			t.Errorf("a host that forwards (%t) gets forward: %s, want %s", forwards, got, want)
		}
		h.types(0, "status")
		h.says("built in, as there is no " + firewall.DefaultConfig)
	}
}

func TestUnfilteredInterfacesAreNamed(t *testing.T) {
	h := newHost(t)
	h.Others = []host.Interface{{Name: "eth1"}, {Name: "$(reboot)"}}
	path := h.writes("interfaces: [eth0]\nopen: [ssh]\n")
	const sentence = "eth1, $(reboot) are not filtered"
	for _, command := range []string{"up", "status"} {
		h.types(0, command, "--config", path, "--pin-path", "/sys/fs/bpf/x")
		h.complains(sentence)
		h.complains("portcullis --pin-path /sys/fs/bpf/x up eth1 '$(reboot)' --config " + path)
	}
	h.types(0, "status")
	h.complains("portcullis up eth1 '$(reboot)'\" filters")
	h.types(anyCode, "doctor", "-o", "json")
	if !strings.Contains(h.stdout, "eth1 is not filtered") {
		t.Errorf("doctor does not name eth1: %s", h.stdout)
	}
	// One that the file names is named once.
	if err := os.WriteFile(path, []byte("interfaces: [eth0, eth1]\nopen: [ssh]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.types(0, "status")
	h.complains("the policy file names eth1, which is not filtered")
	h.complains("warning: $(reboot) is not filtered")
}

// A rule that restricts nothing looks as if it did, wherever it comes from.
func TestRulesThatRestrictNothingAreNamed(t *testing.T) {
	h := newHost(t)
	path := h.writes("interfaces: [eth0]\nopen: [smtp, smtp from 10.0.0.0/8, ssh]\n")
	for _, args := range [][]string{{"check", path}, {"up", "--config", path}, {"apply"}, {"diff"}} {
		h.types(0, args...)
		h.complains(`warning: "smtp from 10.0.0.0/8" restricts nothing: "smtp" lets all of it in already`)
	}
	h.types(0, "check", h.writes("open: [25/udp, 25/tcp from 10.0.0.0/8]\n"))
	if h.stderr != "" && strings.Contains(h.stderr, "restricts") {
		t.Errorf("warns of %q", h.stderr)
	}
}

// Where nothing filters an interface, what is said of it has no effect. It may be misspelled.
func TestInterfacesThatNothingFiltersAreNamed(t *testing.T) {
	h := newHost(t)
	path := h.writes("interfaces: [eth0]\nopen: [ssh, smtp on eht0]\n")
	for _, args := range [][]string{{"check", path}, {"up", "--config", path}, {"apply"}, {"diff"}} {
		h.types(0, args...)
		h.complains(`warning: "smtp on eht0" has no effect on "eht0", which is not filtered: did you mean "eth0"?`)
	}
	h.types(0, "open", "http on eth0", "https on ppp0")
	h.complains(`warning: "https on ppp0" has no effect on "ppp0", which is not filtered: add it to "interfaces", or leave it out`)
	if strings.Contains(h.stderr, "http on") || strings.Contains(h.stderr, "smtp") {
		t.Errorf("warns of %q", h.stderr)
	}
	h.types(0, "check", h.writes("input: {defualt: drop}\nopen: [ssh]\n"))
	h.complains(`did you mean "default"?`)
}
